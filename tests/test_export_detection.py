"""Key slices and what is on them: COCO, VOC, YOLO and PNG, against pycocotools, PIL and a published file."""

from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters._deeplesion_lesions import Companions, make_lesions
from lesionzarr.converters._deeplesion_table import group_marks, read_table
from lesionzarr.export.coco import run_lengths
from lesionzarr.features.pseudo_mask import pseudo_outline
from lesionzarr.formats.voc import read_voc
from lesionzarr.recist import Recist
from lesionzarr.samples import lung_pet_ct_dx, recist_dataset
from lesionzarr.store.generations import read_generation
from lesionzarr.store.index import LESIONS, VOLUMES
from lesionzarr.store.layout import LESIONS_TABLE, VOLUMES_TABLE
from lesionzarr.store.location import open_location
from lesionzarr.store.tables import write_table
from lesionzarr.store.writer import create_store

coco_api = pytest.importorskip("pycocotools.coco", reason="pycocotools has no wheel for this platform")
DECODING = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)
"""pycocotools with numpy 2."""
KEYS = ("source", "title", "licence", "citation")


@pytest.fixture
def run(capsys):
    """Run an export; give its exit code, what it tells as JSON, and stderr."""

    def command(*arguments):
        code = main(["export", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return command


@pytest.fixture(scope="module")
def recist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recist")
    source = recist_dataset(folder / "source", patients=1, image_size=64, slices=20)
    assert not lesionzarr.convert("recist-dataset", source, folder / "recist.zarr").failed
    return folder / "recist.zarr"


@pytest.fixture(scope="module")
def lung(tmp_path_factory):
    pytest.importorskip("pydicom", reason="the extra dicom is absent")
    folder = tmp_path_factory.mktemp("lung")
    source = lung_pet_ct_dx(folder / "source", subjects=1)
    assert not lesionzarr.convert("lung-pet-ct-dx", source, folder / "lung.zarr").failed
    return folder / "lung.zarr"


def tables_alone(path, info, lesions, volumes):
    """Write a store that has a catalog and no voxels."""
    location = open_location(path)
    create_store(location, {key: info[key] for key in KEYS})
    location.write(LESIONS_TABLE, write_table(lesions, LESIONS))
    location.write(VOLUMES_TABLE, write_table(volumes, VOLUMES))
    return path


@pytest.fixture(scope="module")
def val_store(real, sample_store, tmp_path_factory):
    """Catalog of the whole validation table of DeepLesion."""
    table = read_table(real / "DL_info_val.csv")
    sample = lesionzarr.open(sample_store)
    lesions, volumes = [], []
    for sub in group_marks(table.marks)[0]:
        lesions += [lesion.to_row() for lesion in make_lesions(sub, [(sub.first, sub.last)], Companions())]
        spacing = dict(zip(("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"), sub.spacing_mm, strict=True))
        shape = {"slices": sub.last - sub.first + 1, "rows": sub.size[0], "columns": sub.size[1]}
        identity = {"volume_id": sub.name, "series_id": sub.series_id, "modality": "CT", "tags": "{}", "shards": "{}"}
        places = {"first_slice": sub.first, "last_slice": sub.last, "array": sample.volumes["array"].iloc[0]}
        volumes.append(identity | spacing | shape | places)
    lesions.sort(key=lambda row: row["source_row"])
    return tables_alone(tmp_path_factory.mktemp("val") / "val.zarr", sample.info, lesions, volumes)


def test_coco_of_the_validation_table_equals_the_file_that_mvp_net_published(run, real, val_store, tmp_path):
    code, told, _ = run("coco", val_store, "-o", tmp_path, "--convention", "mvp-net")
    assert (code, told["counts"]) == (0, {"images": 4793, "lesions": 4889})
    found = json.loads((tmp_path / "val.json").read_text())
    published = json.loads((real / "coco_val_mvpnet.json").read_text())
    # the store's boxes are decimals again, which may differ in the last bit
    for one, other in zip(found["annotations"], published["annotations"], strict=True):
        for key in ("bbox", "area"):
            assert one.pop(key) == pytest.approx(other.pop(key), abs=1e-9)
    # who made the file, and what its licence is, differ; nothing else does
    for part in ("images", "annotations", "categories"):
        assert found[part] == published[part], part
    assert set(found) == set(published)


def test_coco_of_the_raw_convention_has_the_numbers_of_the_table(run, real, val_store, tmp_path):
    assert run("coco", val_store, "-o", tmp_path, "--convention", "raw")[0] == 0
    found = json.loads((tmp_path / "val.json").read_text())
    table = pd.read_csv(real / "DL_info_val.csv")
    names = {image["id"]: image["file_name"] for image in found["images"]}
    assert list(names.values()) == list(dict.fromkeys(table["File_name"]))
    assert [names[each["image_id"]] for each in found["annotations"]] == list(table["File_name"])
    boxes = table["Bounding_boxes"].str.split(",", expand=True).astype(float).to_numpy()
    expected = np.column_stack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    np.testing.assert_allclose([each["bbox"] for each in found["annotations"]], expected, atol=1e-9)
    assert all(each["area"] == each["bbox"][2] * each["bbox"][3] for each in found["annotations"])


def test_coco_boxes_of_its_own_convention_stay_inside_of_their_images(run, val_store, tmp_path):
    assert run("coco", val_store, "-o", tmp_path)[0] == 0
    found = json.loads((tmp_path / "val.json").read_text())
    sizes = {image["id"]: (image["width"], image["height"]) for image in found["images"]}
    for each in found["annotations"]:
        x, y, width, height = each["bbox"]
        columns, rows = sizes[each["image_id"]]
        assert x >= 0
        assert y >= 0
        assert x + width <= columns
        assert y + height <= rows
    by_id = {each["lesion_id"]: each for each in found["annotations"]}
    # 229.222, 256.228, 245.36, 273.594 in the table, from 1
    assert by_id["000002_01_01_162_1"]["bbox"] == pytest.approx([228.222, 255.228, 17.138, 18.366])


@DECODING
def test_coco_masks_fill_the_pixels_of_the_source_mask(run, recist, tmp_path):
    code, _, _ = run("coco", recist, "-o", tmp_path, "--segmentation", "mask", "--classes", "type")
    catalog = lesionzarr.open(recist)
    assert code == 0
    seen = 0
    for path in tmp_path.glob("*.json"):
        api = coco_api.COCO(str(path))
        categories = {each["id"]: each["name"] for each in api.loadCats(api.getCatIds())}
        for each in api.loadAnns(api.getAnnIds()):
            (lesion,) = catalog.find_lesions([each["lesion_id"]])
            image = api.loadImgs([each["image_id"]])[0]
            expected = catalog.mask(lesion.volume_id)[image["z"]].to_numpy() == lesion.mask_label
            np.testing.assert_array_equal(api.annToMask(each).astype(bool), expected)
            assert each["area"] == expected.sum()
            y, x = np.nonzero(expected)
            assert each["bbox"] == [x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1]
            assert categories[each["category_id"]] == lesion.type
            seen += 1
    assert seen == len(catalog)


def test_run_lengths_begin_with_the_background():
    assert run_lengths(np.array([[True, False], [True, True]])) == {"counts": [0, 2, 1, 1], "size": [2, 2]}
    assert run_lengths(np.array([[False, False], [True, False]])) == {"counts": [1, 1, 2], "size": [2, 2]}


def test_an_outline_of_perpendicular_axes_is_their_ellipse():
    points = np.array(pseudo_outline(Recist(10, 20, 30, 20, 20, 14, 20, 26), steps=16)) - (20, 20)
    assert len(points) == 64
    np.testing.assert_allclose((points[:, 0] / 10) ** 2 + (points[:, 1] / 6) ** 2, 1)
    np.testing.assert_allclose(points[[0, 16, 32, 48]], [(10, 0), (0, 6), (-10, 0), (0, -6)], atol=1e-9)


@DECODING
def test_coco_ellipses_have_the_area_of_the_axes_and_lie_in_their_boxes(run, sample_store, tmp_path):
    assert run("coco", sample_store, "-o", tmp_path, "--segmentation", "ellipse")[0] == 0
    catalog = lesionzarr.open(sample_store)
    for path in tmp_path.glob("*.json"):
        api = coco_api.COCO(str(path))
        for each in api.loadAnns(api.getAnnIds()):
            (lesion,) = catalog.find_lesions([each["lesion_id"]])
            long, short = lesion.mark.lengths_mm(1, 1)
            assert each["area"] == pytest.approx(math.pi / 4 * long * short, rel=0.02)
            x, y, width, height = each["bbox"]
            drawn = Image.new("1", (96, 96))
            ImageDraw.Draw(drawn).rectangle([x, y, x + width, y + height], fill=1)
            assert not (api.annToMask(each).astype(bool) & ~np.asarray(drawn)).any()


def test_pictures_of_16_bits_are_the_pngs_that_the_store_was_made_of(run, real, real_store, tmp_path):
    code, told, _ = run("png", real_store, "-o", tmp_path, "--pictures", "uint16")
    assert code == 0
    assert len(told["written"]) == 2
    for path in tmp_path.rglob("*.png"):
        with Image.open(path) as found, Image.open(real / "Images_png" / path.relative_to(tmp_path)) as source:
            assert found.mode == source.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(found), np.asarray(source))


@pytest.mark.parametrize(("window", "low", "high"), [((), -175, 275), (("--window=-1400,0",), -1400, 0)])
def test_pictures_of_8_bits_are_in_the_window_of_the_lesion_or_in_another(
    run, real, real_store, tmp_path, window, low, high
):
    lesion = "000001_01_01_109_1"
    assert run("png", real_store, lesion, "-o", tmp_path, *window)[0] == 0
    with Image.open(real / "Images_png" / "000001_01_01" / "109.png") as source:
        hu = np.asarray(source).astype(float) - 32768
    with Image.open(tmp_path / "000001_01_01" / "109.png") as found:
        assert found.mode == "L"
        expected = np.floor(np.clip((hu - low) / (high - low), 0, 1) * 255)
        np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize(("convention", "origin"), [("voc", 1), ("labelimg", 0)])
def test_voc_files_are_read_back(run, sample_store, tmp_path, convention, origin):
    code, told, _ = run("voc", sample_store, "-o", tmp_path, "--convention", convention, "--classes", "type")
    catalog = lesionzarr.open(sample_store)
    assert (code, told["counts"]["lesions"]) == (0, len(catalog))
    read = 0
    for stem, rows in catalog.lesions.groupby(
        catalog.lesions["series_id"] + "_" + catalog.lesions["key_slice"].str.zfill(3)
    ):
        path = tmp_path / "Annotations" / f"{stem}.xml"
        image = read_voc(path.read_bytes(), path.name)
        with Image.open(tmp_path / "JPEGImages" / f"{stem}.png") as picture:
            assert picture.size == (image.width, image.height)
        assert [each.name for each in image.objects] == list(rows["type"].fillna("unknown"))
        found = np.array([(each.x0, each.y0, each.x1, each.y1) for each in image.objects]) - origin
        assert (np.abs(found - rows[["x0", "y0", "x1", "y1"]].to_numpy()) <= 0.5).all()
        assert stem in (tmp_path / "ImageSets" / "Main" / f"{rows['split'].iloc[0]}.txt").read_text().split()
        read += len(image.objects)
    assert read == len(catalog)


def test_boxes_of_lung_pet_ct_dx_come_out_as_they_were_read(run, lung, tmp_path):
    assert run("voc", lung, "-o", tmp_path, "--convention", "labelimg")[0] == 0
    sources = {path.stem: path for path in lung.parent.glob("source/**/Annotation/**/*.xml")}
    catalog = lesionzarr.open(lung)
    assert len(catalog)
    for lesion in catalog.find_lesions(list(catalog.lesions.index)):
        (path,) = tmp_path.glob(f"Annotations/{lesion.volume_id}_{lesion.key_z:03d}.xml")
        found, source = (read_voc(each.read_bytes(), each.name).objects for each in (path, sources[lesion.key_slice]))
        assert [(each.x0, each.y0, each.x1, each.y1) for each in found] == [
            (each.x0, each.y0, each.x1, each.y1) for each in source
        ]


def test_yolo_lines_are_the_boxes_as_shares_of_the_image(run, sample_store, tmp_path):
    code, told, _ = run("yolo", sample_store, "-o", tmp_path, "--classes", "type")
    catalog = lesionzarr.open(sample_store)
    assert (code, told["counts"]["lesions"]) == (0, len(catalog))
    settings = (tmp_path / "data.yaml").read_text()
    names = [line.split(": ")[1].strip('"') for line in settings.split("names:\n")[1].splitlines()]
    assert names == [*sorted(catalog.lesions["type"].dropna().unique()), "unknown"]
    read = 0
    for lesion_id, row in catalog.lesions.iterrows():
        stem = lesion_id.rsplit("_", 1)[0]
        assert f"{row['split']}: images/{row['split']}\n" in settings
        with Image.open(tmp_path / "images" / row["split"] / f"{stem}.png") as picture:
            width, height = picture.size
        lines = np.loadtxt(tmp_path / "labels" / row["split"] / f"{stem}.txt", ndmin=2)
        expected = [
            names.index("unknown" if pd.isna(row["type"]) else row["type"]),
            *((row["x0"] + row["x1"] + 1) / 2 / width, (row["y0"] + row["y1"] + 1) / 2 / height),
            *((row["x1"] - row["x0"] + 1) / width, (row["y1"] - row["y0"] + 1) / height),
        ]
        assert np.abs(lines - expected).max(axis=1).min() < 1e-6
        read += 1
    assert read == len(catalog)


def test_what_has_no_split_has_a_folder_of_its_own(run, lung, tmp_path):
    assert run("yolo", lung, "-o", tmp_path)[0] == 0
    assert (tmp_path / "data.yaml").read_text() == 'unsplit: images/unsplit\nnames:\n  0: "lesion"\n'
    assert list((tmp_path / "images" / "unsplit").glob("*.png"))


@pytest.fixture
def odd_store(sample_store, tmp_path):
    """Copy of the store with a lesion that has no position, one outside of its image, and a damaged volume."""
    path = shutil.copytree(sample_store, tmp_path / "odd.zarr")
    catalog = lesionzarr.open(path)
    ids = [rows.index[0] for _, rows in catalog.lesions.groupby("volume_id")][:3]
    rows = {lesion_id: dict(catalog.find_lesions([lesion_id])[0].to_row()) for lesion_id in catalog.lesions.index}
    rows[ids[0]]["key_z"] = None
    rows[ids[1]] |= {"x0": 500.0, "x1": 510.0}
    location = open_location(path)
    location.write(read_generation(location).tables[1], write_table(list(rows.values()), LESIONS))
    volume = rows[ids[2]]["volume_id"]
    for shard in (path / "volumes" / volume / "hu" / "c").rglob("*"):
        if shard.is_file():
            data = bytearray(shard.read_bytes())
            data[:-2000] = bytes(len(data[:-2000]))
            shard.write_bytes(data)
    return path, ids[:2], set(catalog.lesions.index[catalog.lesions["volume_id"] == volume])


@pytest.mark.parametrize("kind", ["coco", "voc", "yolo", "png"])
def test_what_cannot_be_written_is_listed_and_the_others_are_written(run, odd_store, tmp_path, kind):
    path, (lost, outside), damaged = odd_store
    pictures = ["--pictures", "uint8"] if kind == "coco" else []
    code, told, _ = run(kind, path, "-o", tmp_path / "out", *pictures)
    assert code == 1
    reasons = dict(text.split(": ", 1) for text in told["failed"])
    assert set(reasons) == {lost, outside, *damaged}
    assert "no position" in reasons[lost]
    assert "outside of the image" in reasons[outside]
    assert told["counts"]["lesions"] == len(lesionzarr.open(path)) - len(reasons)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["coco", "STORE", "--query", "key_z > 1e6"], "no lesion is like that"),
        (["voc", "STORE", "--window", "lungs"], "lung"),
        (["yolo", "STORE", "nothing"], "no lesion"),
    ],
)
def test_misuse_is_one_clear_line(run, sample_store, tmp_path, arguments, text):
    arguments = [sample_store if argument == "STORE" else argument for argument in arguments]
    code, told, err = run(*arguments, "-o", tmp_path / "out")
    assert (code, told) == (2, None)
    assert err.count("\n") == 1
    assert text in err
    assert not (tmp_path / "out").exists()
