"""The made-up recist-dataset: its layouts, its ellipsoids, and its quirks, read by others."""

from __future__ import annotations

import csv
import hashlib
import json
import math

import nibabel
import numpy as np
import pytest

from lesionzarr.samples import RECIST_QUIRKS, recist_dataset, recist_truth

SMALL = {"patients": 3, "image_size": 64, "slices": 20}
TABLES = {"series_no_json", "targets_missing_column", "training_folders"}


def digests(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return recist_dataset(tmp_path_factory.mktemp("clean") / "recist", **SMALL)


def test_the_same_seed_gives_the_same_bytes(clean, tmp_path):
    assert digests(recist_dataset(tmp_path / "a", **SMALL)) == digests(clean)
    assert not set(digests(recist_dataset(tmp_path / "b", seed=1, **SMALL))) & {
        name for name in digests(clean) if name.endswith(".nii.gz")
    }


@pytest.mark.parametrize(
    ("layout", "places"),
    [
        ("final-formatted", {"images/thorax/train/images", "images/abdomen/test/masks", "images/abdomen/test/labels"}),
        ("final", {"images/train/images", "images/test/masks", "images/test/labels"}),
        ("raw", {"images/nifti/train/masks", "images/nifti/test/labels"}),
    ],
)
def test_the_layouts_are_those_of_the_releases(tmp_path, layout, places):
    if layout == "raw":
        pytest.importorskip("pydicom", reason="the extra dicom is absent")
    folder = recist_dataset(tmp_path, layout=layout, **SMALL)
    names = digests(folder)
    assert places <= {name.rsplit("/", 1)[0] for name in names}
    assert {"metadata/series.json", "metadata/patients.csv", "metadata/windows_mapping.json"} <= set(names)
    assert "recist_measurements.csv" in names
    series = json.loads((folder / "metadata" / "series.json").read_text())
    masks = {name.rsplit("/", 1)[1] for name in names if "/masks/" in name}
    prefix = "{patient_id:03d}_" if layout == "final-formatted" else ""
    assert masks == {f"{prefix}{{uuid}}.nii.gz".format(**row) for row in series}
    if layout == "raw":
        assert "images/dicom/1" in {"/".join(name.split("/")[:3]) for name in names}
        assert any("Portal   5.0  I30f  1   iMAR/CT000000.dcm" in name for name in names)


def test_the_tables_have_the_published_columns(clean, data):
    with (clean / "recist_measurements.csv").open() as file:
        ours = next(csv.reader(file))
    with (data / "recist" / "published_recist_measurements_first_last_rows.csv").open() as file:
        # the last two were added by the notebook that printed them
        assert ours == next(csv.reader(file))[:-2]
    with (data / "recist" / "published_patients.csv").open() as file:
        published = set(next(csv.reader(file)))
    with (clean / "metadata" / "patients.csv").open() as file:
        assert published <= set(next(csv.reader(file)))


def test_images_are_stored_as_dcm2niix_does(clean):
    for path in clean.rglob("images/*.nii.gz"):
        image = nibabel.load(path)
        assert nibabel.aff2axcodes(image.affine) == ("L", "A", "S")
        assert image.get_data_dtype() == np.int16
        assert image.shape == (64, 64, 20)
        mask = nibabel.load(path.parents[1] / "masks" / path.name)
        np.testing.assert_array_equal(mask.affine, image.affine)


def test_masks_are_the_ellipsoids_that_the_truth_tells(tmp_path):
    asked = {"patients": 1, "image_size": 256, "slices": 40}
    folder = recist_dataset(tmp_path, **asked)
    for one in recist_truth(**asked):
        (path,) = folder.rglob(f"masks/{one.stem}.nii.gz")
        image = nibabel.load(path)
        voxels = np.asarray(image.dataobj) == one.label
        # centres of voxels inside an ellipsoid: the error of the count is a fraction of its surface layer
        volume = voxels.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert volume == pytest.approx(one.volume_ml, rel=0.04)
        assert one.volume_ml == pytest.approx(math.pi / 6 * one.long_mm * one.short_mm * 2 * one.semi_axes_mm[0] / 1000)
        places = np.argwhere(voxels) * np.abs(np.diag(image.affine)[:3])
        widest = max(
            np.linalg.norm(plane[:, None] - plane[None], axis=-1).max()
            for plane in (places[places[:, 2] == z][:, :2] for z in np.unique(places[:, 2]))
        )
        assert widest == pytest.approx(one.long_mm, abs=2 * abs(image.affine[0, 0]))


def test_lesions_can_be_seen_in_the_images(tmp_path):
    asked = {"patients": 1, "image_size": 192, "slices": 20}
    folder = recist_dataset(tmp_path, **asked)
    for one in recist_truth(**asked):
        (path,) = folder.rglob(f"masks/{one.stem}.nii.gz")
        inside = np.asarray(nibabel.load(path).dataobj) == one.label
        voxels = np.asarray(nibabel.load(path.parents[1] / "images" / path.name).dataobj)
        assert abs(np.median(voxels[inside]) - one.hu) < 60


def test_follow_ups_carry_the_same_lesions(clean):
    truth = recist_truth(**SMALL)
    for one in truth:
        same = [other for other in truth if (other.patient, other.alias, other.location) == (1, "A", "liver")]
        assert len(same) == 2
        assert same[0].measured_mm != same[1].measured_mm
        assert same[0].angle == same[1].angle
        assert one.measured_mm == round(one.short_mm if one.type == "n" else one.long_mm)


@pytest.mark.parametrize("quirk", sorted(set(RECIST_QUIRKS) - TABLES))
def test_a_quirk_changes_one_series_and_never_the_first_patient(clean, tmp_path, quirk):
    before, after = digests(clean), digests(recist_dataset(tmp_path, quirks=[quirk], **SMALL))
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    assert changed
    stems = {name.rsplit("/", 1)[1].split(".nii")[0].removesuffix(".json") for name in changed if "/labels/" in name}
    stems |= {name.rsplit("/", 1)[1].split(".nii")[0] for name in changed if ".nii" in name}
    assert len({stem.removesuffix("_Eq") for stem in stems}) <= 1
    assert not any(stem.startswith("001_") for stem in stems)


def test_quirks_that_are_unknown_or_too_many_are_refused(tmp_path):
    with pytest.raises(ValueError, match="did you mean order_ras"):
        recist_dataset(tmp_path / "a", quirks=["order_rsa"])
    with pytest.raises(ValueError, match="no series is left"):
        recist_dataset(tmp_path / "b", patients=1, quirks=["order_ras"])
    with pytest.raises(ValueError, match="layout"):
        recist_dataset(tmp_path / "c", layout="finale")
    with pytest.raises(ValueError, match="at least"):
        recist_dataset(tmp_path / "d", image_size=8)


def test_a_dataset_is_not_written_over_another(clean):
    with pytest.raises(FileExistsError):
        recist_dataset(clean)
