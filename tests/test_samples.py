import csv
import hashlib

import numpy as np
import pytest
from PIL import Image

import lesionzarr
from lesionzarr.samples import QUIRKS, add_lesion, deeplesion, phantom

OFFICIAL = [
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
]


def digests(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def numbers(cell):
    return [float(part) for part in cell.split(",")]


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    small = {"image_size": 48, "slices": 3, "lesions": 4}
    first = digests(deeplesion(tmp_path / "a", **small))
    assert digests(deeplesion(tmp_path / "b", **small)) == first
    assert digests(deeplesion(tmp_path / "c", seed=1, **small)) != first


def test_the_layout_is_the_official_one(sample):
    with (sample / "DL_info.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == OFFICIAL
    assert {row["Train_Val_Test"] for row in rows} == {"1", "2", "3"}
    for row in rows:
        series, _, name = row["File_name"].rpartition("_")
        with Image.open(sample / "Images_png" / series / name) as image:
            assert (image.mode, list(image.size)) == ("I;16", numbers(row["Image_size"]))
        # the published rows: the box is the axes' extent and five pixels, diameters are end-point distances
        ends = np.reshape(numbers(row["Measurement_coordinates"]), (4, 2))
        box = np.reshape(numbers(row["Bounding_boxes"]), (2, 2))
        np.testing.assert_allclose(box, [ends.min(0) - 5, ends.max(0) + 5], atol=2e-3)
        lengths = np.hypot(*(ends[1::2] - ends[::2]).T)
        np.testing.assert_allclose(numbers(row["Lesion_diameters_Pixel_"]), lengths, atol=2e-3)
        assert lengths[0] >= lengths[1]


def test_a_lesion_lies_where_its_axes_say(sample_store):
    catalog = lesionzarr.open(sample_store)
    reader = lesionzarr.CropReader(catalog, size=(1, 33, 33))
    for lesion in catalog.find_lesions(list(catalog.lesions.index)):
        crop = reader.read(lesion)
        centre = np.mean(np.reshape(crop.lesion.recist, (4, 2)), axis=0)
        assert abs(centre - [(lesion.x0 + lesion.x1) / 2, (lesion.y0 + lesion.y1) / 2]).max() < 6


def test_a_lesion_of_known_axes_measures_that(tmp_path):
    rng = np.random.default_rng(0)
    voxels = phantom((9, 128, 128), (2.0, 1.0, 1.0), rng, "abdomen")
    before = voxels.copy()
    lesion = add_lesion(voxels, (2.0, 1.0, 1.0), (4, 60.0, 64.0), (8.0, 12.0, 6.0), 0.3, 300)
    changed = np.argwhere(voxels != before)
    assert abs(changed[:, 0] - 4).max() <= 8 / 2 + 2
    (x0, y0), (x1, y1) = np.reshape(lesion.long_axis, (2, 2))
    assert np.hypot(x1 - x0, y1 - y0) == pytest.approx(24, abs=2.5)


def test_a_folder_that_holds_a_dataset_is_left_alone(sample):
    before = digests(sample)
    with pytest.raises(FileExistsError, match="empty folder"):
        deeplesion(sample)
    assert digests(sample) == before


def test_an_unknown_quirk_is_refused(tmp_path):
    with pytest.raises(ValueError, match="truncated_pgn"):
        deeplesion(tmp_path / "a", quirks=["truncated_pgn"])
    with pytest.raises(ValueError, match="at least 1, 16 and 1"):
        deeplesion(tmp_path / "b", image_size=8)


@pytest.mark.parametrize("quirk", QUIRKS)
def test_every_quirk_changes_the_dataset(quirk, tmp_path):
    small = {"image_size": 32, "slices": 4, "lesions": 8}
    clean = digests(deeplesion(tmp_path / "clean", **small))
    hit = digests(deeplesion(tmp_path / "hit", quirks=[quirk], **small))
    assert hit != clean
