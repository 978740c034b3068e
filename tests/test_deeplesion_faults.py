"""DeepLesion with damaged, missing and misleading input: each is named, and costs what it touches and nothing else."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from test_deeplesion_convert import SAMPLE, cells, hu, key_slice_of, lesions_of, numbers, volume_bytes, volume_of

import lesionzarr
from lesionzarr.errors import SourceError
from lesionzarr.samples import QUIRKS, deeplesion

FAULTS = {
    "truncated_png": "truncated PNG",
    "corrupt_png": "checksum",
    "png_8bit": "8-bit grey",
    "png_rgb": "8-bit RGB",
    "wrong_size": "(24, 24)",
    "empty_png": "0 bytes",
}
HIT = "000002_01_01"
"""Series of the second volume of the sample, which quirks hit first."""


def slice_bytes(folder):
    """Give the content of every slice, of folders or of zips, by series/number.png."""
    found = {"/".join(path.parts[-2:]): path.read_bytes() for path in folder.glob("Images_png*/**/*.png")}
    for path in folder.glob("*.zip"):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".png")]
            found |= {"/".join(name.split("/")[-2:]): archive.read(name) for name in names}
    return found


def volumes_of(store):
    """Give the volumes of a store, having seen that each folder is a whole one and that catalog and folders agree."""
    folders = {path for path in (store / "volumes").iterdir() if path.is_dir()}
    assert all((path / "zarr.json").is_file() and (path / "hu" / "zarr.json").is_file() for path in folders)
    assert list((store / "volumes").rglob("*.part")) == []
    assert {path.name for path in folders} == set(lesionzarr.open(store).volumes.index)
    return {path.name for path in folders}


def assert_rest_is_clean(store, clean_store, *lost):
    """See that a store holds what the clean one does, to the byte, but for some volumes."""
    assert volumes_of(store) == volumes_of(clean_store) - set(lost)
    for volume_id in volumes_of(store):
        assert volume_bytes(store, volume_id) == volume_bytes(clean_store, volume_id)
    expected = {key: lesion for key, lesion in lesions_of(clean_store).items() if lesion.volume_id not in lost}
    assert lesions_of(store) == expected


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return deeplesion(tmp_path_factory.mktemp("clean") / "DeepLesion", **SAMPLE)


@pytest.fixture(scope="module")
def clean_store(clean, tmp_path_factory):
    store = tmp_path_factory.mktemp("clean_store") / "deeplesion.zarr"
    assert lesionzarr.convert("deeplesion", clean, store).failed == ()
    return store


@pytest.fixture
def make(tmp_path):
    """Write a dataset with quirks and convert it: its folder, its store and the report, which is on the disk too."""

    def make_it(*quirks, **options):
        folder = deeplesion(tmp_path / "DeepLesion", quirks=quirks, **SAMPLE)
        options = {name: folder / value for name, value in options.items()}
        report = lesionzarr.convert("deeplesion", folder, tmp_path / "s.zarr", **options)
        on_disk = json.loads((tmp_path / "s.zarr" / "catalog" / "report.json").read_text())
        assert on_disk == json.loads(json.dumps(report.to_json()))
        assert on_disk["counts"]["failures"] == len(report.failed)
        return folder, tmp_path / "s.zarr", report

    return make_it


# slices


@pytest.mark.parametrize("packing", [(), ("zips",)], ids=["folders", "zips"])
@pytest.mark.parametrize(("quirk", "fault"), FAULTS.items())
def test_a_damaged_slice_costs_its_volume_alone(quirk, fault, packing, make, clean, clean_store):
    folder, store, report = make(quirk, *packing)
    good, bad = slice_bytes(clean), slice_bytes(folder)
    (name,) = [name for name in good if bad[name] != good[name]]
    lost = {volume_of(row) for row in cells(folder / "DL_info.csv") if row["File_name"].startswith(name[:12])}
    (failure,) = report.failed
    assert (failure.kind, {failure.item}) == ("failed-volume", lost)
    assert name in failure.message
    assert fault in failure.message
    expected = {lesion.lesion_id for lesion in lesions_of(clean_store).values() if lesion.volume_id in lost}
    assert set(failure.lesions) == expected
    assert (report.missing, report.issues) == ((), ())
    assert set(report.converted) == volumes_of(store)
    assert_rest_is_clean(store, clean_store, *lost)


@pytest.mark.parametrize("packing", [(), ("zips",)], ids=["folders", "zips"])
def test_the_entry_of_a_damaged_slice_names_its_file(packing, make, clean):
    folder, _, report = make("corrupt_png", *packing)
    good, bad = slice_bytes(clean), slice_bytes(folder)
    (name,) = [name for name in good if bad[name] != good[name]]
    assert report.failed[0].file.endswith(name)


@pytest.mark.parametrize("packing", [(), ("zips",)], ids=["folders", "zips"])
def test_a_slice_that_is_fetched_again_completes_the_store(packing, make, clean_store, tmp_path):
    folder, store, report = make("corrupt_png", *packing)
    again = deeplesion(tmp_path / "again", quirks=packing, **SAMPLE)
    shutil.rmtree(folder)
    shutil.move(again, folder)
    second = lesionzarr.convert("deeplesion", folder, store)
    assert second.failed == ()
    assert report.failed[0].item in second.converted
    assert_rest_is_clean(store, clean_store)


def test_a_damaged_member_of_a_zip_costs_its_volume_alone(clean_store, tmp_path):
    folder = deeplesion(tmp_path / "DeepLesion", quirks=["zips"], **SAMPLE)
    path = folder / "Images_png_01.zip"
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        member = next(info for info in archive.infolist() if HIT in info.filename)
    data[member.header_offset + 30 + len(member.filename) + member.compress_size // 2] ^= 0xFF
    path.write_bytes(data)
    report = lesionzarr.convert("deeplesion", folder, tmp_path / "s.zarr")
    (failure,) = report.failed
    assert failure.kind == "failed-volume"
    assert "Images_png_01.zip" in failure.message
    assert member.filename in failure.message
    assert_rest_is_clean(tmp_path / "s.zarr", clean_store, failure.item)


# slices that are absent


@pytest.mark.parametrize(
    "quirks", [["missing_slice"], ["missing_slice", "zips"], ["missing_key_slice"], ["missing_key_slice", "zips"], []]
)
def test_an_absent_slice_splits_its_volume_and_shifts_no_row(quirks, clean, clean_store, tmp_path):
    folder, store = deeplesion(tmp_path / "DeepLesion", quirks=quirks, **SAMPLE), tmp_path / "s.zarr"
    if not quirks:
        # the second slice, so that lesions lie behind the gap
        sorted((folder / "Images_png" / HIT).iterdir())[1].unlink()
    report = lesionzarr.convert("deeplesion", folder, store)
    (name,) = set(slice_bytes(clean)) - set(slice_bytes(folder))
    gap = int(name[13:16])
    (whole,) = {volume_of(row) for row in cells(clean / "DL_info.csv") if row["File_name"].startswith(name[:12])}
    first, last = map(int, whole[13:].split("-"))
    parts = {f"{name[:12]}_{a:03d}-{b:03d}": (a, b) for a, b in [(first, gap - 1), (gap + 1, last)] if a <= b}
    assert volumes_of(store) == volumes_of(clean_store) - {whole} | set(parts)
    catalog = lesionzarr.open(store)
    for volume_id, (a, b) in parts.items():
        found = catalog.volume(volume_id)["hu"].to_numpy()
        np.testing.assert_array_equal(found, hu(clean / "Images_png" / name[:12], a, b))
        assert (catalog.volumes["first_slice"][volume_id], catalog.volumes["last_slice"][volume_id]) == (a, b)
    (issue,) = report.issues
    assert (issue.kind, issue.item) == ("missing-slices", whole)
    assert re.search(rf"\b{gap}\b", issue.message)
    assert all(volume_id in issue.message for volume_id in parts)
    assert (report.failed, report.missing) == ((), ())
    ours, theirs = lesions_of(store), lesions_of(clean_store)
    assert set(ours) == set(theirs)
    without_key = {lesion_id for lesion_id, lesion in theirs.items()
                   if lesion.volume_id == whole and lesion.key_slice == str(gap)}  # fmt: skip
    assert set(issue.lesions) == without_key
    assert bool(without_key) == ("missing_slice" not in quirks)
    assert any(parts.get(lesion.volume_id, (0, 0))[0] > gap for lesion in ours.values()) or quirks
    for lesion_id, lesion in ours.items():
        if theirs[lesion_id].volume_id != whole:
            assert lesion == theirs[lesion_id]
        elif lesion_id in without_key:
            assert (lesion.key_z, lesion.key_slice) == (None, str(gap))
            assert lesion.volume_id in parts
            assert str(gap) in lesion.extras["key_z_reason"]
            back = replace(lesion, volume_id=whole, key_z=gap - first, extra=theirs[lesion_id].extra)
            assert back == theirs[lesion_id]
        else:
            a, b = parts[lesion.volume_id]
            assert a <= int(lesion.key_slice) <= b
            assert lesion.key_z == int(lesion.key_slice) - a
            back = replace(lesion, volume_id=whole, key_z=int(lesion.key_slice) - first)
            assert back == theirs[lesion_id]


@pytest.mark.parametrize("packing", [(), ("zips",)], ids=["folders", "zips"])
@pytest.mark.parametrize("quirk", ["missing_series", "empty_series"])
def test_an_absent_series_is_listed_with_its_lesions(quirk, packing, make, clean_store):
    folder, store, report = make(quirk, *packing)
    rows = [row for row in cells(folder / "DL_info.csv") if row["File_name"].startswith(HIT)]
    (lost,) = set(map(volume_of, rows))
    (missing,) = report.missing
    assert (missing.kind, missing.item) == ("missing-volume", lost)
    assert f"{len(rows)} lesions" in missing.message
    assert len(missing.lesions) == len(rows) == 3
    assert (report.failed, report.issues) == ((), ())
    assert_rest_is_clean(store, clean_store, lost)


# zips


def test_a_zip_that_cannot_be_opened_costs_its_own_series(make, clean_store):
    folder, store, report = make("corrupt_zip")
    assert [(issue.kind, issue.item, issue.file) for issue in report.failed] == [
        ("bad-root", "Images_png_02.zip", "Images_png_02.zip")
    ]
    assert "Images_png_02.zip" in report.failed[0].message
    with zipfile.ZipFile(folder / "Images_png_01.zip") as archive:
        first = {name.split("/")[-2] for name in archive.namelist()}
    lost = {volume_of(row) for row in cells(folder / "DL_info.csv") if row["File_name"][:12] not in first}
    assert {issue.item for issue in report.missing} == lost
    assert 0 < len(lost) < len(volumes_of(clean_store))
    assert_rest_is_clean(store, clean_store, *lost)


def test_a_member_that_points_out_of_its_zip_is_left_alone(make, clean_store, tmp_path):
    folder, store, report = make("zip_escape")
    with zipfile.ZipFile(folder / "Images_png_01.zip") as archive:
        assert "../../evil/001.png" in archive.namelist()
    assert [(issue.kind, issue.file) for issue in report.issues] == [("escaping-name", "Images_png_01.zip")]
    assert "../../evil/001.png" in report.issues[0].message
    assert (report.failed, report.missing) == ((), ())
    assert list(tmp_path.parent.rglob("evil*")) == []
    assert_rest_is_clean(store, clean_store)


def test_zips_whose_sums_are_the_published_ones_pass(make, clean_store):
    folder, store, report = make("zips", md5="MD5_checksums.txt")
    official = re.compile(r"[0-9a-f]{32}  Images_png_\d\d\.zip")
    assert all(official.fullmatch(line) for line in (folder / "MD5_checksums.txt").read_text().splitlines())
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    assert_rest_is_clean(store, clean_store)


def test_a_zip_whose_sum_is_another_is_left_out_even_if_it_opens(clean_store, tmp_path):
    folder = deeplesion(tmp_path / "DeepLesion", quirks=["zips"], **SAMPLE)
    with zipfile.ZipFile(folder / "Images_png_01.zip", "a") as archive:
        archive.comment = b"changed"
    checksums = folder / "MD5_checksums.txt"
    checksums.write_text(checksums.read_text() + "\n")
    report = lesionzarr.convert("deeplesion", folder, tmp_path / "s.zarr", md5=checksums)
    found = hashlib.md5((folder / "Images_png_01.zip").read_bytes(), usedforsecurity=False).hexdigest()
    (failure,) = report.failed
    assert (failure.kind, failure.file) == ("md5-differs", "Images_png_01.zip")
    assert found in failure.message
    assert checksums.read_text().split()[0] in failure.message
    with zipfile.ZipFile(folder / "Images_png_02.zip") as archive:
        second = {name.split("/")[-2] for name in archive.namelist()}
    lost = {volume_id for volume_id in volumes_of(clean_store) if volume_id[:12] not in second}
    assert {issue.item for issue in report.missing} == lost
    assert_rest_is_clean(tmp_path / "s.zarr", clean_store, *lost)


def test_a_zip_that_the_published_list_lacks_is_left_out(real, tmp_path):
    folder = deeplesion(tmp_path / "DeepLesion", quirks=["zips"], **SAMPLE)
    (folder / "Images_png_02.zip").rename(folder / "Images_png_99.zip")
    report = lesionzarr.convert("deeplesion", folder, tmp_path / "s.zarr", md5=real / "MD5_checksums.txt")
    assert {(issue.kind, issue.file) for issue in report.failed} == {
        ("md5-differs", "Images_png_01.zip"),
        ("md5-differs", "Images_png_99.zip"),
    }
    # the official sum of the first zip, from the published list
    assert any("6a3efff2cc8afeebcf9d532f5306807f" in issue.message for issue in report.failed)
    assert report.converted == ()


@pytest.mark.parametrize("content", [None, b"only-one-word\n", b"\xff\xfe\x00"])
def test_a_list_of_sums_that_is_none_is_refused(content, clean, tmp_path):
    path = tmp_path / "sums.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"sums\.txt"):
        lesionzarr.convert("deeplesion", clean, tmp_path / "s.zarr", md5=path)
    assert not (tmp_path / "s.zarr").exists()


# rows


@pytest.mark.parametrize(("quirk", "cell"), [("bad_row", "n/a"), ("dotdot_name", "../../000002_01_01")])
def test_an_unreadable_row_costs_its_lesion_alone(quirk, cell, make, clean_store):
    folder, store, report = make(quirk)
    (bad,) = [number for number, row in enumerate(cells(folder / "DL_info.csv")) if cell in str(row)]
    (failure,) = report.failed
    assert (failure.kind, failure.item, failure.file) == ("bad-row", f"row {bad}", "DL_info.csv")
    assert cell in failure.message
    assert (report.missing, report.issues) == ((), ())
    assert volumes_of(store) == volumes_of(clean_store)
    expected = {lesion.source_row: (lesion.volume_id, lesion.recist) for lesion in lesions_of(clean_store).values()}
    del expected[bad]
    found = {lesion.source_row: (lesion.volume_id, lesion.recist) for lesion in lesions_of(store).values()}
    assert found == expected


def test_a_range_that_runs_backwards_costs_its_rows(make, clean, clean_store):
    folder, store, report = make("backwards_range")
    rows = cells(folder / "DL_info.csv")
    bad = [number for number, row in enumerate(rows) if row["File_name"].startswith(HIT)]
    assert [(issue.kind, issue.item, issue.file) for issue in report.failed] == [
        ("bad-row", f"row {number}", "DL_info.csv") for number in bad
    ]
    assert all(rows[bad[0]]["Slice_range"] in issue.message for issue in report.failed)
    assert [(issue.kind, issue.item) for issue in report.issues] == [("unlisted-slices", HIT)]
    assert report.missing == ()
    assert_rest_is_clean(store, clean_store, volume_of(cells(clean / "DL_info.csv")[bad[0]]))


def with_cell(clean, folder, column, text):
    """Copy the clean dataset, with another text in one cell of the first row of the series that is hit."""
    shutil.copytree(clean, folder)
    rows = cells(folder / "DL_info.csv")
    number = min(number for number, row in enumerate(rows) if row["File_name"].startswith(HIT))
    rows[number][column] = text
    with (folder / "DL_info.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return number


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("Spacing_mm_px_", "inf, 0.8, 5"),
        ("Spacing_mm_px_", "0.8, 0.8, inf"),
        ("Measurement_coordinates", "1, 2, 3, 4, 5, 6, 7, inf"),
        ("Bounding_boxes", "1, 2, 3, 1e999"),
        ("Slice_range", "271, inf"),
        ("Image_size", "0, -48"),
        ("Image_size", "nan, 48"),
        ("Lesion_diameters_Pixel_", "inf, 1"),
        ("Normalized_lesion_location", "nan, nan, nan"),
        ("Coarse_lesion_type", "inf"),
        ("Possibly_noisy", "inf"),
        ("DICOM_windows", "-inf, inf"),
        ("Patient_age", "inf"),
        ("Patient_age", "-nan"),
        ("Train_Val_Test", "1e999"),
        ("Key_slice_index", "inf"),
        ("Patient_gender", "other"),
    ],
)
def test_a_number_that_is_none_never_stops_the_conversion(column, text, clean, clean_store, tmp_path):
    folder, store = tmp_path / "DeepLesion", tmp_path / "s.zarr"
    number = with_cell(clean, folder, column, text)
    report = lesionzarr.convert("deeplesion", folder, store)
    # an age that is NaN, however it is spelled, is legal
    assert text == "-nan" or f"row {number}" in {issue.item for issue in (*report.failed, *report.issues)}
    (hit,) = {volume_of(row) for row in cells(clean / "DL_info.csv") if row["File_name"].startswith(HIT)}
    for volume_id in volumes_of(clean_store) - {hit}:
        assert volume_bytes(store, volume_id) == volume_bytes(clean_store, volume_id)
    # lesions on one slice are counted, so that their ids follow from what else is on it
    found, expected = (
        {lesion.source_row: replace(lesion, lesion_id="") for lesion in lesions_of(path).values()}
        for path in (store, clean_store)
    )
    assert {row: found[row] for row in expected if row != number} == {
        row: lesion for row, lesion in expected.items() if row != number
    }


def test_an_absurd_slice_range_is_said_in_a_few_lines(clean, clean_store, tmp_path):
    number = with_cell(clean, tmp_path / "DeepLesion", "Slice_range", "271, 99999")
    report = lesionzarr.convert("deeplesion", tmp_path / "DeepLesion", tmp_path / "s.zarr")
    assert set(report.converted) == volumes_of(clean_store)
    assert len(lesions_of(tmp_path / "s.zarr")) + len(report.failed) == len(lesions_of(clean_store))
    told = [*report.failed, *report.issues]
    assert any(HIT in issue.item or issue.item == f"row {number}" for issue in told)
    assert max(len(issue.message) for issue in told) < 1000


# everything at once


@pytest.mark.parametrize("without", [(), ("corrupt_zip",), ("zips", "zip_escape", "corrupt_zip")], ids="no {}".format)
@pytest.mark.parametrize("seed", [0, 5, 14])
def test_every_row_and_every_slice_is_in_the_store_or_in_the_report(seed, without, tmp_path):
    quirks = set(QUIRKS) - set(without)
    folder, store = tmp_path / "DeepLesion", tmp_path / "s.zarr"
    deeplesion(folder, quirks=quirks, **{**SAMPLE, "seed": seed, "lesions": 30})
    report = lesionzarr.convert("deeplesion", folder, store)
    assert min(map(len, (report.converted, report.failed, report.missing, report.issues))) > 1
    rows = cells(folder / "DL_info.csv")
    told = {"bad-row", "duplicate-row"}
    left_out = [int(issue.item[4:]) for issue in (*report.failed, *report.issues) if issue.kind in told]
    lost = [lesion for issue in (*report.missing, *report.failed) for lesion in issue.lesions]
    stored = lesionzarr.open(store).lesions
    assert len(left_out) + len(lost) + len(stored) == len(rows)
    assert set(left_out).isdisjoint(stored["source_row"])
    assert set(lost).isdisjoint(stored.index)
    assert stored.index.is_unique
    assert set(report.converted) == volumes_of(store)
    for lesion in lesions_of(store).values():
        row = rows[lesion.source_row]
        assert [end + 1 for end in lesion.recist] == pytest.approx(numbers(row["Measurement_coordinates"]), abs=1e-9)
        assert lesion.key_slice == str(key_slice_of(row))
    unlisted = sum(int(re.search(r": (\d+) slices", issue.message)[1]) for issue in report.issues
                   if issue.kind == "unlisted-slices")  # fmt: skip
    failed = 0
    for issue in report.failed:
        if issue.kind == "failed-volume":
            first, last = map(int, issue.item[13:].split("-"))
            failed += last - first + 1
    volumes = lesionzarr.open(store).volumes
    if "corrupt_zip" not in quirks:
        inside = [name for name in slice_bytes(folder) if not name.startswith("evil/")]
        assert volumes["slices"].sum() + failed + unlisted == len(inside)
    assert volumes["slices"].sum() == report.counts["slices converted"]


def test_the_report_names_no_path_of_the_machine(clean, tmp_path):
    quirks = ["empty_png", "bad_row", "missing_slice", "corrupt_zip"]
    damaged = deeplesion(tmp_path / "DeepLesion", quirks=quirks, **SAMPLE)
    roots = [damaged / "Images_png_01.zip", damaged / "Images_png_02.zip", tmp_path / "nowhere", clean / "DL_info.csv"]
    lesionzarr.convert("deeplesion", damaged, tmp_path / "s.zarr", images=roots)
    text = (tmp_path / "s.zarr" / "catalog" / "report.json").read_text()
    assert all(root.name in text for root in roots[1:])
    assert str(tmp_path) not in text
    assert str(clean) not in text
