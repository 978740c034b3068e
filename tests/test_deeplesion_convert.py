"""DeepLesion from its files to an opened store: real series, legal oddities, companion tables, a table of real size.

Expectations come from the cells of DL_info.csv read by the csv module, PNGs read by Pillow, and published tables.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import lesionzarr
from lesionzarr.errors import SourceError
from lesionzarr.samples import deeplesion

SAMPLE = {"seed": 14, "image_size": 48, "slices": 7, "lesions": 16}
"""Its second volume, which quirks hit first, has three lesions on two slices."""
NAMES = ("bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis")
TYPES = {"-1": None} | {str(number): name for number, name in enumerate(NAMES, 1)}
SPLITS = {"1": "train", "2": "val", "3": "test"}
RESAVED = ["crlf", "bom", "float_ages", "slash_names", "backslash_names", "extra_columns", "reordered_rows"]


def cells(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8-sig").splitlines()))


def numbers(text):
    return [float(part) for part in text.split(",")]


def volume_of(row):
    first, last = map(int, numbers(row["Slice_range"]))
    return f"{row['File_name'][:12]}_{first:03d}-{last:03d}"


def key_slice_of(row):
    return int(row["File_name"][13:].removesuffix(".png"))


def hu(folder, first, last):
    slices = [np.asarray(Image.open(folder / f"{number:03d}.png")) for number in range(first, last + 1)]
    return np.stack(slices).astype(np.int64) - 32768


def lesions_of(store):
    catalog = lesionzarr.open(store)
    return {lesion.lesion_id: lesion for lesion in catalog.find_lesions(list(catalog.lesions.index))}


def volume_bytes(store, volume_id):
    """Give every object of a volume, without what tells the source's files apart (their times, the rows' numbers)."""
    folder = store / "volumes" / volume_id
    objects = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    group = json.loads(objects.pop("zarr.json"))
    own = group["attributes"]["lesionzarr"]
    for name in ("fingerprint", "roots", "files", "settings"):
        del own["provenance"][name]
    del own["checksum"]
    for row in own["lesions"]:
        del row["source_row"]
    return objects, group


def assert_is_row(lesion, number, row):
    """Hold one lesion of a store against its row of DL_info.csv, cell by cell."""
    series = row["File_name"][:12]
    first, _ = numbers(row["Slice_range"])
    x_mm, _, _ = numbers(row["Spacing_mm_px_"])
    assert (lesion.source, lesion.source_row) == ("deeplesion", number)
    assert (lesion.volume_id, lesion.series_id) == (volume_of(row), series)
    assert (lesion.study_id, lesion.patient_id) == (series[:9], series[:6])
    assert (lesion.key_z, lesion.key_slice) == (key_slice_of(row) - first, str(key_slice_of(row)))
    # the table counts pixels from 1, the store from 0; both box ends are inclusive
    box = [lesion.x0, lesion.y0, lesion.x1, lesion.y1]
    assert [end + 1 for end in box] == pytest.approx(numbers(row["Bounding_boxes"]), abs=1e-9)
    assert [end + 1 for end in lesion.recist] == pytest.approx(numbers(row["Measurement_coordinates"]), abs=1e-9)
    diameters = numbers(row["Lesion_diameters_Pixel_"])
    assert [lesion.long_mm, lesion.short_mm] == pytest.approx([px * x_mm for px in diameters])
    assert (lesion.type, lesion.split) == (TYPES[row["Coarse_lesion_type"]], SPLITS[row["Train_Val_Test"]])
    assert [lesion.window_low, lesion.window_high] == numbers(row["DICOM_windows"])
    assert (lesion.noisy, lesion.sex) == (row["Possibly_noisy"] == "1", row["Patient_gender"])
    assert lesion.age == (None if row["Patient_age"] == "NaN" else float(row["Patient_age"]))
    assert lesion.extras["normalized_location"] == numbers(row["Normalized_lesion_location"])
    assert lesion.extras["diameters_px"] == diameters
    nothing = [getattr(lesion, name) for name in ("z0", "z1", "mask_label", "labels", "timepoint", "study_date")]
    assert nothing == [None] * 6
    assert lesion.derived == ("long_mm", "short_mm")


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return deeplesion(tmp_path_factory.mktemp("clean") / "DeepLesion", **SAMPLE)


@pytest.fixture(scope="module")
def clean_store(clean, tmp_path_factory):
    store = tmp_path_factory.mktemp("clean_store") / "deeplesion.zarr"
    report = lesionzarr.convert("deeplesion", clean, store)
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    return store


@pytest.fixture
def make(tmp_path):
    """Write a dataset with quirks and convert it: its folder, its store and the report."""

    def make_it(*quirks):
        folder = deeplesion(tmp_path / "DeepLesion", quirks=quirks, **SAMPLE)
        return folder, tmp_path / "s.zarr", lesionzarr.convert("deeplesion", folder, tmp_path / "s.zarr")

    return make_it


@pytest.fixture(params=["real", "clean"])
def source(request):
    """Give lesion table, folder of series and store, of the real files and of made-up ones."""
    folder = request.getfixturevalue(request.param)
    table = "DL_info_shared_images.csv" if request.param == "real" else "DL_info.csv"
    return cells(folder / table), folder / "Images_png", request.getfixturevalue(f"{request.param}_store")


def test_every_cell_of_every_row_is_in_the_store(source):
    rows, _, store = source
    lesions = sorted(lesions_of(store).values(), key=lambda lesion: lesion.source_row)
    assert len(lesions) == len(rows)
    for number, (lesion, row) in enumerate(zip(lesions, rows, strict=True)):
        assert_is_row(lesion, number, row)
        assert set(lesion.extras) == {"normalized_location", "diameters_px"}


def test_key_rows_hold_the_slices_that_the_table_names(source):
    rows, images, store = source
    catalog = lesionzarr.open(store)
    for lesion in lesions_of(store).values():
        key_slice = key_slice_of(rows[lesion.source_row])
        found = catalog.volume(lesion.volume_id)["hu"][lesion.key_z].to_numpy()
        (expected,) = hu(images / lesion.series_id, key_slice, key_slice)
        np.testing.assert_array_equal(found, expected)


def test_volumes_have_range_spacing_and_size_of_their_rows(source):
    rows, images, store = source
    volumes = lesionzarr.open(store).volumes
    assert Counter(volume_of(row) for row in rows) == dict(volumes["lesions"])
    for row in rows:
        volume, (first, last) = volumes.loc[volume_of(row)], numbers(row["Slice_range"])
        assert [volume[f"spacing_{axis}_mm"] for axis in "xyz"] == numbers(row["Spacing_mm_px_"])
        assert (volume["first_slice"], volume["last_slice"], volume["slices"]) == (first, last, last - first + 1)
        with Image.open(images / volume["series_id"] / f"{int(first):03d}.png") as image:
            assert image.size == (volume["columns"], volume["rows"]) == tuple(numbers(row["Image_size"]))


def test_every_row_of_every_volume_is_its_own_slice(clean, clean_store):
    catalog = lesionzarr.open(clean_store)
    for volume_id, volume in catalog.volumes.iterrows():
        expected = hu(clean / "Images_png" / volume["series_id"], volume["first_slice"], volume["last_slice"])
        np.testing.assert_array_equal(catalog.volume(volume_id)["hu"].to_numpy(), expected)


# oddities that are legal


@pytest.mark.parametrize("quirks", [*([name] for name in RESAVED), RESAVED, ["two_roots"], ["zips"]], ids="+".join)
def test_a_resaved_table_or_another_packing_gives_the_same_store(quirks, make, clean_store):
    folder, store, report = make(*quirks)
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    rows = cells(folder / "DL_info.csv")
    ours, theirs = lesions_of(store), lesions_of(clean_store)
    assert set(ours) == set(theirs)
    for lesion_id, lesion in ours.items():
        row = rows[lesion.source_row]
        assert numbers(row["Bounding_boxes"])[0] == pytest.approx(lesion.x0 + 1, abs=1e-9)
        further = {name: row[name] for name in ("kaggle_path", "Radius", "bbox") if name in row}
        assert len(further) == 3 * ("extra_columns" in quirks)
        assert lesion.extras == {**theirs[lesion_id].extras, **further}
        assert replace(lesion, source_row=None, extra=None) == replace(theirs[lesion_id], source_row=None, extra=None)
    assert list(lesionzarr.open(store).lesions["source_row"]) == list(range(len(rows)))
    for volume_id in lesionzarr.open(clean_store).volumes.index:
        found, expected = volume_bytes(store, volume_id)[0], volume_bytes(clean_store, volume_id)[0]
        assert found == expected


def test_zips_are_read_in_place(tmp_path):
    folder = deeplesion(tmp_path / "DeepLesion", quirks=["zips"], **SAMPLE)
    before = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")}
    lesionzarr.convert("deeplesion", folder, tmp_path / "s.zarr")
    after = {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.parent.rglob("*")}
    assert {path: after[path] for path in before} == before
    assert all("s.zarr" in path.parts for path in set(after) - set(before))


def test_real_slices_are_the_same_out_of_a_zip(real, real_store, tmp_path):
    with zipfile.ZipFile(tmp_path / "Images_png_01.zip", "w") as archive:
        for path in sorted((real / "Images_png" / "000001_01_01").iterdir()):
            archive.write(path, f"Images_png/000001_01_01/{path.name}")
    report = lesionzarr.convert("deeplesion", tmp_path, tmp_path / "s.zarr", csv=real / "DL_info_shared_images.csv")
    assert report.converted == ("000001_01_01_103-115",)
    assert [issue.item for issue in report.missing] == ["000001_03_01_058-118"]
    found = lesionzarr.open(tmp_path / "s.zarr").volume("000001_01_01_103-115")["hu"].to_numpy()
    np.testing.assert_array_equal(found, hu(real / "Images_png" / "000001_01_01", 103, 115))


@pytest.mark.parametrize(
    ("quirk", "is_there"),
    [
        ("nan_age", lambda row: row["Patient_age"] == "NaN"),
        ("noisy", lambda row: row["Possibly_noisy"] == "1"),
        ("box_past_border", lambda row: numbers(row["Bounding_boxes"])[2] > numbers(row["Image_size"])[0]),
        ("key_slice_first", lambda row: key_slice_of(row) == numbers(row["Slice_range"])[0]),
        ("single_slice", lambda row: len(set(numbers(row["Slice_range"]))) == 1),
        ("oblique_axes", lambda row: abs(cosine(*numbers(row["Measurement_coordinates"]))) > 0.5),
        ("size_768", lambda row: numbers(row["Image_size"]) == [72, 72]),
    ],
)
def test_an_odd_value_that_is_legal_is_kept_as_it_is(quirk, is_there, make, clean):
    folder, store, report = make(quirk)
    rows = cells(folder / "DL_info.csv")
    assert any(map(is_there, rows))
    assert not any(map(is_there, cells(clean / "DL_info.csv")))
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    lesions = {lesion.source_row: lesion for lesion in lesions_of(store).values()}
    for number, row in enumerate(rows):
        assert_is_row(lesions.pop(number), number, row)
    assert lesions == {}
    for volume_id, volume in lesionzarr.open(store).volumes.iterrows():
        images = hu(folder / "Images_png" / volume["series_id"], volume["first_slice"], volume["last_slice"])
        assert images.shape == (volume["slices"], volume["rows"], volume["columns"])
        np.testing.assert_array_equal(lesionzarr.open(store).volume(volume_id)["hu"].to_numpy(), images)


def cosine(*ends):
    long, short = np.diff(np.reshape(ends, (2, 2, 2)), axis=1)[:, 0]
    return float(long @ short / (math.hypot(*long) * math.hypot(*short)))


@pytest.mark.parametrize(("quirk", "intervals"), [("disjoint_ranges", 1), ("two_spacings", 2)])
def test_two_ranges_of_a_series_are_two_volumes_each_with_its_own_spacing(quirk, intervals, make):
    folder, store, report = make(quirk)
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    rows = [row for row in cells(folder / "DL_info.csv") if row["File_name"].startswith("000002_01_01")]
    expected = {volume_of(row): numbers(row["Spacing_mm_px_"])[2] for row in rows}
    assert len(expected) == 2
    assert len(set(expected.values())) == intervals
    catalog = lesionzarr.open(store)
    assert dict(catalog.volumes.query("series_id == '000002_01_01'")["spacing_z_mm"]) == expected
    for volume_id, interval in expected.items():
        first, last = map(int, volume_id[13:].split("-"))
        volume = catalog.volume(volume_id)
        np.testing.assert_array_equal(volume["hu"].to_numpy(), hu(folder / "Images_png/000002_01_01", first, last))
        # slices run from head to feet, against LPS
        assert volume["z"].to_numpy().tolist() == pytest.approx([-interval * z for z in range(last - first + 1)])
    inside = catalog.lesions.query("series_id == '000002_01_01'")
    assert list(inside["volume_id"]) == list(map(volume_of, rows))


@pytest.mark.parametrize("quirk", ["nan_interval", "negative_interval"])
def test_an_impossible_slice_interval_is_unknown_and_the_rest_of_the_row_stays(quirk, make, clean_store):
    folder, store, report = make(quirk)
    rows = cells(folder / "DL_info.csv")
    odd = [number for number, row in enumerate(rows) if not numbers(row["Spacing_mm_px_"])[2] > 0]
    assert [(issue.kind, issue.item, issue.file) for issue in report.issues] == [
        ("odd-cell", f"row {number}", "DL_info.csv") for number in odd
    ]
    assert (len(odd), report.failed, report.missing) == (3, (), ())
    (volume_id,) = {volume_of(rows[number]) for number in odd}
    catalog = lesionzarr.open(store)
    assert list(catalog.volumes.index[catalog.volumes["spacing_z_mm"].isna()]) == [volume_id]
    assert catalog.grid(volume_id).spacing_mm[0] is None
    group = json.loads((store / "volumes" / volume_id / "zarr.json").read_text())
    assert group["attributes"]["lesionzarr"]["volume"]["spacing_mm"][0] is None
    assert lesions_of(store) == lesions_of(clean_store)


def test_a_row_that_stands_twice_is_one_lesion(make, clean_store):
    folder, store, report = make("duplicate_row")
    rows = cells(folder / "DL_info.csv")
    (second,) = [number for number, row in enumerate(rows) if row in rows[:number]]
    assert [(issue.kind, issue.item, issue.file) for issue in report.issues] == [
        ("duplicate-row", f"row {second}", "DL_info.csv")
    ]
    lesions = lesions_of(store)
    assert set(lesions) == set(lesions_of(clean_store))
    assert sorted(lesion.source_row for lesion in lesions.values()) == sorted({*range(len(rows))} - {second})


def test_a_file_name_that_disagrees_with_its_columns_is_believed_and_noted(make):
    folder, store, report = make("name_mismatch")
    rows = cells(folder / "DL_info.csv")
    (wrong,) = [number for number, row in enumerate(rows) if key_slice_of(row) != int(row["Key_slice_index"])]
    (issue,) = report.issues
    assert (issue.kind, issue.item, issue.file) == ("odd-cell", f"row {wrong}", "DL_info.csv")
    assert rows[wrong]["File_name"] in issue.message
    for lesion in lesions_of(store).values():
        assert_is_row(lesion, lesion.source_row, rows[lesion.source_row])


def test_a_series_that_no_row_names_is_left_out_and_noted(make, clean_store):
    folder, store, report = make("unlisted_series")
    listed = {row["File_name"][:12] for row in cells(folder / "DL_info.csv")}
    (series,) = {path.name for path in (folder / "Images_png").iterdir()} - listed
    (issue,) = report.issues
    assert (issue.kind, issue.item, issue.file) == ("unlisted-slices", series, f"{series}/")
    assert f"{len(list((folder / 'Images_png' / series).iterdir()))} slices" in issue.message
    pd.testing.assert_frame_equal(lesionzarr.open(store).volumes, lesionzarr.open(clean_store).volumes)


# where things lie


def test_table_and_several_roots_may_lie_apart_and_be_relative(clean, clean_store, tmp_path, monkeypatch):
    series = sorted((clean / "Images_png").iterdir())
    for root, part in [("one", series[:3]), ("two/Images_png_02/Images_png", series[3:])]:
        for folder in part:
            shutil.copytree(folder, tmp_path / root / folder.name)
    shutil.copy(clean / "DL_info.csv", tmp_path / "my table.csv")
    monkeypatch.chdir(tmp_path)
    report = lesionzarr.convert("deeplesion", "nowhere", "s.zarr", csv="my table.csv", images=["one", "two"])
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    assert lesions_of(tmp_path / "s.zarr") == lesions_of(clean_store)


@pytest.mark.parametrize("inside", ["", "Images_png"])
def test_images_may_be_named_at_any_depth(inside, clean, clean_store, tmp_path):
    report = lesionzarr.convert("deeplesion", clean, tmp_path / "s.zarr", images=str(clean / inside))
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    assert lesions_of(tmp_path / "s.zarr") == lesions_of(clean_store)


def test_paths_may_hold_spaces_and_umlauts_and_be_links(clean, clean_store, tmp_path):
    source = tmp_path / "Läsionen tief, 深い" / "Deep Lesion"
    source.mkdir(parents=True)
    shutil.copy(clean / "DL_info.csv", source)
    (source / "Images_png").symlink_to(clean / "Images_png", target_is_directory=True)
    store = tmp_path / "ein Spëicher.zarr"
    report = lesionzarr.convert("deeplesion", source, store)
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    for volume_id in lesionzarr.open(clean_store).volumes.index:
        assert volume_bytes(store, volume_id) == volume_bytes(clean_store, volume_id)


def test_what_lies_among_the_slices_by_chance_does_no_harm(clean, clean_store, tmp_path):
    source = shutil.copytree(clean, tmp_path / "DeepLesion")
    series = min((source / "Images_png").iterdir())
    names = (".DS_Store", "Thumbs.db", "._001.png", "001.png.tmp", "readme.txt")
    for path in [series, source / "Images_png", source]:
        for name in names:
            (path / name).write_bytes(b"\0chance")
    (source / "Key_slices").mkdir()
    Image.new("RGB", (48, 48)).save(source / "Key_slices" / f"{series.name}_001.png")
    (source / "Key_slices.zip").write_bytes(b"no zip")
    report = lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr")
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    assert lesions_of(tmp_path / "s.zarr") == lesions_of(clean_store)


def test_of_a_slice_in_two_roots_the_first_is_read(clean, tmp_path):
    series = min((clean / "Images_png").iterdir())
    other = tmp_path / "other" / series.name
    other.mkdir(parents=True)
    slices = sorted(path.name for path in series.iterdir())
    for name in slices[:2]:
        Image.fromarray(np.full((48, 48), 40000, np.uint16)).save(other / name)
    found = []
    for turn, roots in enumerate([[clean / "Images_png", tmp_path / "other"], [tmp_path / "other", clean]]):
        report = lesionzarr.convert("deeplesion", clean, tmp_path / f"{turn}.zarr", images=roots)
        assert [(issue.kind, issue.item) for issue in report.issues] == [("slices-twice", series.name)]
        assert "2 slices" in report.issues[0].message
        assert (report.failed, report.missing) == ((), ())
        found.append(lesionzarr.open(tmp_path / f"{turn}.zarr").volume(report.converted[0])["hu"].to_numpy())
    expected = hu(series, int(slices[0][:3]), int(slices[-1][:3]))
    np.testing.assert_array_equal(found[0], expected)
    expected[:2] = 40000 - 32768
    np.testing.assert_array_equal(found[1], expected)


def test_a_folder_beside_the_zip_that_it_came_from_is_read_once(clean, clean_store, tmp_path):
    source = deeplesion(tmp_path / "DeepLesion", quirks=["zips"], **SAMPLE)
    shutil.copytree(clean / "Images_png", source / "Images_png")
    report = lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr")
    assert {issue.kind for issue in report.issues} == {"slices-twice"}
    assert {issue.item for issue in report.issues} == {path.name for path in (clean / "Images_png").iterdir()}
    assert lesions_of(tmp_path / "s.zarr") == lesions_of(clean_store)
    for path in (tmp_path / "s.zarr" / "volumes").glob("*/zarr.json"):
        assert json.loads(path.read_text())["attributes"]["lesionzarr"]["provenance"]["roots"] == ["Images_png"]


# companion tables


def png(path, size=16, value=33000):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size), value, np.uint16)).save(path)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A table of 32,735 rows, ten on a slice, with images of its first and its last series alone."""
    folder = tmp_path_factory.mktemp("full")
    with (folder / "DL_info.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = ("File_name", "Measurement_coordinates", "Bounding_boxes", "Slice_range", "Spacing_mm_px_")
        writer.writerow([*names, "Image_size", "Train_Val_Test"])
        for row in range(32_735):
            name = f"{row // 100 + 1:06d}_01_01_{row // 10 % 10 + 1:03d}.png"
            shift = row % 10 / 10
            ends = ", ".join(f"{value + shift:g}" for value in (6, 7, 9, 7, 7, 6, 7, 8))
            box = f"{1 + shift}, 1, {14 + shift}, 13"
            writer.writerow([name, ends, box, "1, 10", "1, 1, 5", "16, 16", 1 + row // 100 % 3])
    for series in ("000001_01_01", "000328_01_01"):
        for number in range(1, 11):
            png(folder / "Images_png" / series / f"{number:03d}.png")
    return folder


def mined(path, **changes):
    content = {"term_list": ["nodule", "lung", "cyst", "kidney"]}
    # series 1 is in the training split, series 328 in training too, series 2 in validation
    content |= {"train_lesion_idxs": [5, 32_734, 32_701], "val_lesion_idxs": [100], "test_lesion_idxs": [200]}
    content |= {"train_relevant_labels": [[1, 0, 1, 0], [2], []], "val_relevant_labels": [[0]]}
    content |= {"train_uncertain_labels": [[2], [], [3]], "val_uncertain_labels": [[]]}
    content |= {"train_irrelevant_labels": [[3], [], []], "test_relevant_labels": [[1]], "test_uncertain_labels": [[]]}
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_labels_reach_the_lesions_of_their_rows(full, tmp_path):
    hand = tmp_path / "hand.json"
    terms = ["wedge", "lung", "wedge"]
    hand.write_text(json.dumps([{"lesion_idx": 32_734, "text": "left lower lobe", "expanded_terms": terms}]))
    report = lesionzarr.convert(
        "deeplesion", full, tmp_path / "s.zarr", labels=mined(tmp_path / "mined.json"), hand_labels=hand
    )
    assert len(report.converted) == 2
    lesions = {lesion.source_row: lesion for lesion in lesions_of(tmp_path / "s.zarr").values()}
    assert sorted(lesions) == [*range(100), *range(32_700, 32_735)]
    assert {row: lesion.labels for row, lesion in lesions.items() if lesion.labels is not None} == {
        5: ("lung", "nodule"),
        32_701: (),
        32_734: ("cyst",),
    }
    assert lesions[5].extras["labels_uncertain"] == ["cyst"]
    assert lesions[5].extras["labels_irrelevant"] == ["kidney"]
    assert lesions[32_701].extras["labels_uncertain"] == ["kidney"]
    assert {row for row, lesion in lesions.items() if "hand_labels" in lesion.extras} == {32_734}
    assert lesions[32_734].extras["hand_labels"] == {"text": "left lower lobe", "terms": ["wedge", "lung"]}
    # row 5 is the sixth of ten marks on slice 1, row 32,734 the fifth on slice 4
    assert (lesions[5].key_slice, lesions[5].x0) == ("1", 0.5)
    assert (lesions[32_734].series_id, lesions[32_734].key_slice, lesions[32_734].x0) == ("000328_01_01", "4", 0.4)


def test_published_labels_reach_the_lesions_of_their_rows(full, real, tmp_path):
    path = real / "lesanet" / "text_mined_labels_171_and_split.json"
    published = json.loads(path.read_text())
    split_of = {row: split for split in ("train", "val", "test") for row in published[f"{split}_lesion_idxs"]}
    frame = pd.read_csv(full / "DL_info.csv")
    frame["Train_Val_Test"] = [("train", "val", "test").index(split_of.get(row, "train")) + 1 for row in frame.index]
    frame.to_csv(tmp_path / "table.csv", index=False)
    lesionzarr.convert(
        "deeplesion", full, tmp_path / "s.zarr", csv=tmp_path / "table.csv", labels=path,
        hand_labels=real / "lesanet" / "hand_labeled_test_set.json",
    )  # fmt: skip
    lesions = lesions_of(tmp_path / "s.zarr").values()
    labelled = [lesion for lesion in lesions if lesion.labels is not None]
    assert {lesion.source_row for lesion in labelled} == {lesion.source_row for lesion in lesions} & set(split_of)
    assert len(labelled) > 50
    terms = published["term_list"]
    for lesion in labelled:
        split = split_of[lesion.source_row]
        place = published[f"{split}_lesion_idxs"].index(lesion.source_row)
        assert set(lesion.labels) == {terms[i] for i in published[f"{split}_relevant_labels"][place]}
        uncertain = {terms[i] for i in published[f"{split}_uncertain_labels"][place]}
        assert set(lesion.extras["labels_uncertain"]) == uncertain


@pytest.mark.parametrize(
    ("table", "changes", "fault"),
    [
        ("clean", {}, r"16 rows.*32,735"),
        ("full", {"val_lesion_idxs": [99]}, "row 99 is in split 'train', LesaNet's labels say 'val'"),
    ],
)
def test_labels_of_another_table_are_refused_before_anything_is_written(table, changes, fault, request, tmp_path):
    source = request.getfixturevalue(table)
    with pytest.raises(SourceError, match=fault):
        lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr", labels=mined(tmp_path / "mined.json", **changes))
    assert not (tmp_path / "s.zarr").exists()


def test_hand_labels_of_another_table_are_refused(clean, tmp_path):
    (tmp_path / "hand.json").write_text("[]")
    with pytest.raises(SourceError, match="16 rows"):
        lesionzarr.convert("deeplesion", clean, tmp_path / "s.zarr", hand_labels=tmp_path / "hand.json")


def test_3d_boxes_give_marks_their_extent_or_become_lesions(clean, clean_store, tmp_path):
    row = next(row for row in cells(clean / "DL_info.csv") if row["File_name"].startswith("000002_01_01"))
    first, last = map(int, numbers(row["Slice_range"]))
    key, (x0, y0, x1, y1) = key_slice_of(row), (round(end - 1) for end in numbers(row["Bounding_boxes"]))
    here = [[x0, y0, key - 1, x1, y1, last + 3], [0, 0, first - 2, 3, 4, first + 1]]
    boxes = {volume_of(row): here, "999999_01_01_001-009": [[1, 1, 1, 2, 2, 2]]}
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    store = tmp_path / "s.zarr"
    report = lesionzarr.convert("deeplesion", clean, store, boxes3d=tmp_path / "boxes.json")
    assert [(issue.kind, issue.file) for issue in report.issues] == [("unmatched-boxes", "boxes.json")]
    assert "999999_01_01_001-009" in report.issues[0].message
    before, after = lesions_of(clean_store), lesions_of(store)
    (added,) = set(after) - set(before)
    alone = after[added]
    assert (alone.source, alone.source_row, alone.key_z) == ("deeplesion-boxes3d", None, None)
    # ends that lie before the first slice or behind the last are cut off there
    assert (alone.x0, alone.y0, alone.z0, alone.x1, alone.y1, alone.z1) == (0, 0, 0, 3, 4, 1)
    assert (alone.volume_id, alone.split, alone.derived) == (volume_of(row), SPLITS[row["Train_Val_Test"]], ("split",))
    (changed,) = [lesion_id for lesion_id in before if after[lesion_id] != before[lesion_id]]
    mark = after[changed]
    assert (mark.z0, mark.z1, mark.source) == (key - 1 - first, last - first, "deeplesion")
    assert mark.extras["box3d"] == [x0, y0, key - 1 - first, x1, y1, last + 3 - first]
    assert replace(mark, z0=None, z1=None, extra=None) == replace(before[changed], extra=None)


def test_published_3d_boxes_of_other_sub_volumes_change_nothing(real, real_store, tmp_path):
    report = lesionzarr.convert(
        "deeplesion", real, tmp_path / "s.zarr", csv=real / "DL_info_shared_images.csv",
        boxes3d=real / "manual_3d_boxes_val200.json",
    )  # fmt: skip
    (issue,) = report.issues
    assert (issue.kind, issue.file) == ("unmatched-boxes", "manual_3d_boxes_val200.json")
    assert "200 of its sub-volumes" in issue.message
    assert lesions_of(tmp_path / "s.zarr") == lesions_of(real_store)


def test_published_pairs_and_key_slices_fit_two_volumes_of_the_real_table(real, tmp_path):
    published = json.loads((real / "dlt_lesion_pairs_valid.json").read_text())
    harvester = json.loads((real / "harvester_recist_boxes_val.json").read_text())
    series = {"000004_02_01": (7, 19), "000004_03_01": (2, 14)}
    for name, (first, last) in series.items():
        for number in range(first, last + 1):
            png(tmp_path / "Images_png" / name / f"{number:03d}.png", 512)
    report = lesionzarr.convert(
        "deeplesion", tmp_path, tmp_path / "s.zarr", csv=real / "DL_info_val.csv",
        pairs=real / "dlt_lesion_pairs_valid.json",
    )  # fmt: skip
    assert report.converted == ("000004_02_01_007-019", "000004_03_01_002-014")
    assert (report.failed, report.issues, len(report.missing)) == ((), (), 3001)
    assert set(harvester) <= {issue.item for issue in report.missing} | set(report.converted)
    lesions = lesions_of(tmp_path / "s.zarr")
    for volume_id in report.converted:
        theirs = [(int(row), *box[:4]) for row, boxes in harvester[volume_id].items() for box in boxes]
        ours = [lesion for lesion in lesions.values() if lesion.volume_id == volume_id]
        found = sorted((ours.key_z, ours.x0 + 1, ours.y0 + 1, ours.x1 + 1, ours.y1 + 1) for ours in ours)
        assert np.array(found) == pytest.approx(np.array(sorted(theirs)), abs=0.001)
    pairs = {key: pair for key, pair in published.items() if pair["source"][:12] in series}
    assert {pair["target"][:12] for pair in pairs.values()} == set(series)
    named = {}
    for lesion in lesions.values():
        for pair in lesion.extras.get("pairs", []):
            named[pair["pair_id"]] = (lesion, lesions[pair["lesion_id"]])
    assert set(named) == set(pairs)
    for key, sides in named.items():
        for lesion, side in zip(sides, ("source", "target"), strict=True):
            x0, y0, width, height = pairs[key][f"{side} recist box"]
            assert lesion.volume_id == pairs[key][side].removesuffix(".nii.gz")
            assert [lesion.x0, lesion.y0] == pytest.approx([x0, y0], abs=0.051)
            assert [lesion.x1 - lesion.x0, lesion.y1 - lesion.y0] == pytest.approx([width, height], abs=0.11)
            assert lesion.key_z == pairs[key][f"{side} recist center"][2]


def test_pairs_that_the_table_does_not_hold_are_counted(clean, clean_store, tmp_path):
    rows = [row for row in cells(clean / "DL_info.csv") if row["File_name"].startswith("000002_01_01")]

    def side(name, row, file_name=None):
        x0, y0, x1, y1 = (round(end - 1, 1) for end in numbers(row["Bounding_boxes"]))
        file_name = file_name or f"{row['File_name'][:12]}/{row['File_name'][13:]}"
        return {f"{name} recist slice": file_name, f"{name} recist box": [x0, y0, x1 - x0, y1 - y0]}

    pairs = {"0001": side("source", rows[0]) | side("target", rows[2])}
    pairs["0002"] = side("source", rows[0]) | side("target", rows[1], "999999_01_01/001.png")
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    report = lesionzarr.convert("deeplesion", clean, tmp_path / "s.zarr", pairs=tmp_path / "pairs.json")
    assert [(issue.kind, issue.file) for issue in report.issues] == [("unmatched-pairs", "pairs.json")]
    assert "1 pairs" in report.issues[0].message
    lesions = lesions_of(tmp_path / "s.zarr")
    by_row = {lesion.source_row: lesion for lesion in lesions.values()}
    start = min(row for row, lesion in by_row.items() if lesion.series_id == "000002_01_01")
    assert by_row[start].extras["pairs"] == [{"pair_id": "0001", "lesion_id": by_row[start + 2].lesion_id}]
    assert sum("pairs" in lesion.extras for lesion in lesions.values()) == 1


# a table of real size


CONVERT = """
import sys
import lesionzarr
report = lesionzarr.convert("deeplesion", sys.argv[1], sys.argv[2])
assert not (report.failed or report.missing or report.issues), report
peak = [line for line in open("/proc/self/status") if line.startswith("VmHWM")] if sys.platform == "linux" else []
print(peak[0].split()[1] if peak else "")
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Give folder, store and peak memory in MB of a conversion of 4,889 lesions, as many as the validation split."""
    folder = deeplesion(tmp_path_factory.mktemp("large") / "DeepLesion", lesions=4889, image_size=16, slices=1)
    store = folder.parent / "s.zarr"
    command = [sys.executable, "-W", "error", "-c", CONVERT, str(folder), str(store)]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return folder, store, int(peak) / 1000 if peak else None


def test_a_table_of_4889_lesions_is_converted_row_by_row(large):
    folder, store, _ = large
    rows = cells(folder / "DL_info.csv")
    catalog = lesionzarr.open(store)
    assert len(rows) == len(catalog) == 4889
    assert list(catalog.lesions["source_row"]) == list(range(4889))
    assert list(catalog.lesions["split"]) == [SPLITS[row["Train_Val_Test"]] for row in rows]
    assert list(catalog.lesions["volume_id"]) == list(map(volume_of, rows))
    assert list(catalog.lesions["key_slice"]) == [str(key_slice_of(row)) for row in rows]
    boxes = np.array([numbers(row["Bounding_boxes"]) for row in rows]) - 1
    np.testing.assert_allclose(catalog.lesions[["x0", "y0", "x1", "y1"]].to_numpy(), boxes, atol=1e-6)
    assert len(catalog.volumes) == len(set(map(volume_of, rows)))
    assert catalog.volumes["slices"].sum() == len(list((folder / "Images_png").glob("*/*.png")))


def test_a_crop_of_a_large_store_is_the_png_round_the_box(large):
    folder, store, _ = large
    catalog = lesionzarr.open(store)
    crop = lesionzarr.CropReader(catalog, size=(1, 16, 16), window=None).read(catalog.lesions.index[4000])
    row = cells(folder / "DL_info.csv")[4000]
    (expected,) = hu(folder / "Images_png" / row["File_name"][:12], key_slice_of(row), key_slice_of(row))
    x0, y0, x1, y1 = (end - 1 for end in numbers(row["Bounding_boxes"]))
    y, x = round((y0 + y1) / 2) - 8, round((x0 + x1) / 2) - 8
    padded = np.pad(expected, 16, constant_values=-9999)[16 + y : 32 + y, 16 + x : 32 + x]
    np.testing.assert_array_equal(np.squeeze(crop.valid), padded != -9999)
    np.testing.assert_array_equal(np.squeeze(crop.image)[padded != -9999], padded[padded != -9999])


def test_memory_of_a_large_conversion_stays_small(large):
    *_, peak_mb = large
    if peak_mb is None:
        pytest.skip("peak memory of a process is read from /proc, which this system lacks")
    assert peak_mb < 400


def test_a_table_without_any_of_its_images_gives_an_empty_store(real, tmp_path):
    report = lesionzarr.convert(
        "deeplesion", tmp_path, tmp_path / "s.zarr", csv=real / "DL_info_val.csv", images=real / "Images_png"
    )
    rows = cells(real / "DL_info_val.csv")
    assert Counter({issue.item: len(issue.lesions) for issue in report.missing}) == Counter(map(volume_of, rows))
    assert {issue.item for issue in report.issues} == {"000001_01_01", "000001_03_01"}
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    assert (len(catalog), len(catalog.volumes), catalog.counts()["lesions"]) == (0, 0, 0)
