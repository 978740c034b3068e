"""recist-dataset by the command line: from raw, with instances made, and with input that is broken."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters.recist_dataset import RecistDataset
from lesionzarr.errors import SettingError
from lesionzarr.samples import RECIST_QUIRKS, recist_dataset
from lesionzarr.samples._recist_draft import draw
from lesionzarr.samples._recist_plan import plan

SMALL = {"patients": 2, "image_size": 64, "slices": 20}


@pytest.fixture
def run(capsys):
    """Run a command; give its exit code, stdout and stderr."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    pytest.importorskip("pydicom", reason="the extra dicom is absent")
    pytest.importorskip("cc3d", reason="the extra masks is absent")
    return recist_dataset(tmp_path_factory.mktemp("raw") / "raw", layout="raw", **SMALL)


@pytest.fixture
def source(tmp_path):
    return recist_dataset(tmp_path / "source", **SMALL)


def scans(**settings):
    return [scan for patient in plan(0, 2, 64, 20, **settings) for scan in patient.scans]


def test_raw_dicom_and_masks_become_instances_by_the_command_line(run, raw, tmp_path):
    code, _, err = run("convert", "recist-dataset", raw, tmp_path / "a.zarr", "--instances", "--workers", 1)
    assert code == 0, err
    catalog = lesionzarr.open(tmp_path / "a.zarr")
    for scan in scans(prefixed=False):
        voxels, mask = draw(0, scan)
        np.testing.assert_array_equal(catalog.volume(scan.uid)["hu"], voxels)
        kept = [n for n in (1, 2, 3) if (mask == n).sum() >= 50]
        assert len(catalog.select(f"volume_id == '{scan.uid}'")) == len(kept)
        np.testing.assert_array_equal(catalog.mask(scan.uid).to_numpy() > 0, np.isin(mask, kept))


def test_dicom_that_lies_elsewhere_is_named(run, raw, tmp_path):
    shutil.copytree(raw, tmp_path / "masks")
    shutil.move(tmp_path / "masks" / "images" / "dicom", tmp_path / "elsewhere")
    moved = ("--dicom", tmp_path / "elsewhere", "--workers", 1)
    code, _, err = run("convert", "recist-dataset", tmp_path / "masks", tmp_path / "a.zarr", *moved)
    assert code == 0, err
    catalog = lesionzarr.open(tmp_path / "a.zarr")
    assert set(catalog.volumes.index) == {scan.uid for scan in scans(prefixed=False)}
    assert catalog.lesions["mask_label"].notna().all()


def test_the_least_size_of_an_instance_can_be_chosen(run, raw, tmp_path):
    masks = {scan.uid: draw(0, scan)[1] for scan in scans(prefixed=False)}
    sizes = sorted((mask == n).sum() for mask in masks.values() for n in (1, 2, 3))
    least = int(sizes[len(sizes) // 2])
    settings = ("--instances", "--min-voxels", least, "--workers", 1)
    code, _, err = run("convert", "recist-dataset", raw, tmp_path / "a.zarr", *settings)
    assert code == 0
    assert f"smaller than {least} voxels or 2 slices" in err
    catalog = lesionzarr.open(tmp_path / "a.zarr")
    assert len(catalog.lesions) == sum(size >= least for size in sizes)
    # another rule makes other masks
    again = ("--instances", "--min-voxels", 1, "--min-slices", 1, "--workers", 1)
    code, _, _ = run("convert", "recist-dataset", raw, tmp_path / "a.zarr", *again)
    assert (code, len(lesionzarr.open(tmp_path / "a.zarr").lesions)) == (0, len(sizes))
    deep = ("--instances", "--min-voxels", 1, "--min-slices", 20, "--workers", 1)
    run("convert", "recist-dataset", raw, tmp_path / "a.zarr", *deep)
    assert lesionzarr.open(tmp_path / "a.zarr").lesions.empty


def test_the_least_size_is_told_in_the_provenance_and_has_to_be_one(raw, tmp_path):
    lesionzarr.convert("recist-dataset", raw, tmp_path / "a.zarr", instances=True, min_voxels=60)
    volume_id = lesionzarr.open(tmp_path / "a.zarr").volumes.index[0]
    group = json.loads((tmp_path / "a.zarr" / "volumes" / volume_id / "zarr.json").read_text())
    settings = group["attributes"]["lesionzarr"]["provenance"]["settings"]
    assert settings == {"dicom": ["dicom"], "instances": True, "min_voxels": 60}
    for wrong in (0, 2.5, "50"):
        with pytest.raises(SettingError, match="min_slices"):
            lesionzarr.convert("recist-dataset", raw, tmp_path / "b.zarr", min_slices=wrong)


def test_every_quirk_there_is_converts_in_one_release(run, tmp_path):
    source = recist_dataset(tmp_path / "source", patients=18, image_size=64, slices=20, quirks=set(RECIST_QUIRKS))
    code, out, _ = run("convert", "recist-dataset", source, tmp_path / "a.zarr", "--json", "--workers", 1)
    told = json.loads(out)
    kinds = {issue["kind"] for name in ("failed", "missing", "issues") for issue in told[name]}
    assert code == 1
    assert kinds >= {
        *("oblique", "bad-image", "label-gaps", "label-without-mask", "mask-without-label", "odd-label"),
        *("split-instance", "mask-shape", "mask-affine", "unknown-window", "failed-volume", "bad-mask", "no-mask"),
        *("bad-labels", "no-labels", "bad-table", "unusual-storage", "contradiction", "series-twice"),
    }
    series = len(list(source.rglob("images/*.nii*")))
    # three images cannot be read: cut off, a text, and one of four dimensions; one is there twice
    assert len(told["converted"]) == series - 4


def remove_column(path, name):
    header, *rows = path.read_text().splitlines()
    place = header.split(",").index(name)
    kept = [",".join(cell for n, cell in enumerate(row.split(",")) if n != place) for row in (header, *rows)]
    path.write_text("\n".join(kept) + "\n")


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def shorten_date(path):
    """Make 202113 of a date, which strptime takes for the third of January."""
    text, count = re.subn(r"\b20[12]\d{5}\b", "202113", path.read_text(), count=1)
    assert count == 1
    path.write_text(text)


def series_file(source, kind):
    return min(source.rglob(f"{kind}/*.*"))


BREAK = {
    "a column of patients.csv": (
        lambda source: remove_column(source / "metadata/patients.csv", "patient_id"),
        ("failed", "bad-table", "patients.csv"),
    ),
    "a column of the targets": (
        lambda source: remove_column(source / "recist_measurements.csv", "recist_measurement_mm"),
        ("failed", "bad-table", "recist_measurements.csv"),
    ),
    "series.json cut off": (
        lambda source: cut(source / "metadata/series.json"),
        ("failed", "bad-table", "series.json"),
    ),
    "series.json of another form": (
        lambda source: (source / "metadata/series.json").write_text('{"uuid": 3}'),
        ("failed", "bad-table", "series.json"),
    ),
    "series without uuid": (
        lambda source: rewrite(source / "metadata/series.json", '"uuid"', '"uid"'),
        ("issues", "odd-row", "series.json"),
    ),
    "windows_mapping.json cut off": (
        lambda source: cut(source / "metadata/windows_mapping.json"),
        ("failed", "bad-table", "windows_mapping.json"),
    ),
    "windows_mapping.json of another form": (
        lambda source: (source / "metadata/windows_mapping.json").write_text("[]"),
        ("failed", "bad-table", "windows_mapping.json"),
    ),
    "a date of series.json": (
        lambda source: rewrite(source / "metadata/series.json", '"study_date": "2', '"study_date": "x'),
        ("issues", "odd-date", "series.json"),
    ),
    "a date of series.json that lacks digits": (
        lambda source: shorten_date(source / "metadata/series.json"),
        ("issues", "odd-date", "series.json"),
    ),
    "a date of the targets that lacks digits": (
        lambda source: shorten_date(source / "recist_measurements.csv"),
        ("issues", "odd-date", "recist_measurements.csv"),
    ),
    "a label that is there twice": (
        lambda source: rewrite(series_file(source, "labels"), "{", '{"01": "t,lung",'),
        ("issues", "odd-label", ".json"),
    ),
    "a date of patients.csv": (
        lambda source: rewrite(source / "metadata/patients.csv", ",20", ",99-"),
        ("issues", "odd-date", "patients.csv"),
    ),
    "a date of the targets": (
        lambda source: rewrite(source / "recist_measurements.csv", ",20", ",99-"),
        ("issues", "odd-date", "recist_measurements.csv"),
    ),
    "labels cut off": (lambda source: cut(series_file(source, "labels")), ("failed", "bad-labels", ".json")),
    "labels of another form": (
        lambda source: series_file(source, "labels").write_text('["m,liver"]'),
        ("failed", "bad-labels", ".json"),
    ),
    "a mask cut off": (lambda source: cut(series_file(source, "masks")), ("failed", "bad-mask", ".nii.gz")),
    "an image cut off": (lambda source: cut(series_file(source, "images")), ("failed", "failed-volume", ".nii.gz")),
}


@pytest.mark.parametrize("name", BREAK)
def test_broken_input_is_told_with_its_file_and_the_rest_converts(run, source, tmp_path, name):
    spoil, (where, kind, file) = BREAK[name]
    spoil(source)
    code, out, err = run("convert", "recist-dataset", source, tmp_path / "a.zarr", "--json", "--workers", 1)
    told = json.loads(out)
    (issue,) = (issue for issue in told[where] if issue["kind"] == kind)
    assert issue["file"].endswith(file)
    assert "\n" not in issue["message"]
    assert str(tmp_path) not in out + err
    assert code == (1 if where == "failed" else 0)
    assert len(told["converted"]) == len(scans(prefixed=True)) - (kind == "failed-volume")
    catalog = lesionzarr.open(tmp_path / "a.zarr")
    assert len(catalog.lesions) >= 3 * (len(catalog.volumes) - 1)


def test_settings_have_their_values_without_being_asked(source):
    made = RecistDataset(source)
    assert (made.min_voxels, made.min_slices, made.instances) == (50, 2, False)
