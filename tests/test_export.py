"""What leaves a store as NIfTI, against nibabel, SimpleITK and the scripts of recist-dataset."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pytest
import SimpleITK

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import SettingError
from lesionzarr.export.nifti import export_nifti
from lesionzarr.samples import lung_pet_ct_dx, recist_dataset

PAIRS = ("RL", "AP", "SI")
ORDERS = ["".join(letters) for axes in itertools.permutations(PAIRS) for letters in itertools.product(*axes)]
IMAGE, MASK = "ct_3mm_RAS_int16.nii.gz", "seg_3mm_RAS_uint8.nii.gz"
NO_HEADER = ("ITK_", "qfac", "qto_xyz", "nifti_type", "pixdim[0]")
"""What SimpleITK tells beside the header, as its keys begin; pixdim[0] is 0 there, whatever the file has."""


@pytest.fixture
def run(capsys):
    """Run a command; give its exit code, stdout and stderr."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recist")
    source = recist_dataset(folder / "source", patients=2, image_size=64, slices=20)
    assert not lesionzarr.convert("recist-dataset", source, folder / "recist.zarr").failed
    return folder / "recist.zarr"


def turned(source, order):
    wanted = nibabel.orientations.axcodes2ornt(order)
    return source.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(source.affine), wanted))


def in_lps(path):
    """Voxels (z, y, x) and affine (LPS, of z, y, x) by nibabel."""
    image = turned(nibabel.load(path), "LPS")
    affine = np.diag([-1, -1, 1, 1]) @ image.affine
    return np.asarray(image.dataobj).transpose(2, 1, 0), affine[:3][:, [2, 1, 0, 3]]


@pytest.fixture(scope="module")
def orientations(data, tmp_path_factory):
    """Release whose series are a part of a real image and of its mask, in all orders of axes, and the store of it."""
    source = tmp_path_factory.mktemp("orders") / "release"
    folder = source / "images" / "train"
    for kind in ("images", "masks", "labels"):
        (folder / kind).mkdir(parents=True)
    # three sizes, so that no axis is taken for another; test_nifti.py has the whole image
    image, mask = (nibabel.load(data / "nifti" / name).slicer[30:90, 20:72, 4:26] for name in (IMAGE, MASK))
    values = np.unique(np.asarray(mask.dataobj)).tolist()
    assert len(values) > 1
    labels = json.dumps({str(value): "m,liver" for value in values if value})
    for number, order in enumerate(ORDERS):
        stem = f"1.2.3.{number}"
        nibabel.save(turned(image, order), folder / "images" / f"{stem}.nii.gz")
        # a mask need not have the order of its image
        nibabel.save(turned(mask, ORDERS[number - 11]), folder / "masks" / f"{stem}.nii.gz")
        (folder / "labels" / f"{stem}.json").write_text(labels)
    path = source.with_name("orders.zarr")
    report = lesionzarr.convert("recist-dataset", source, path)
    assert not report.failed
    return folder, lesionzarr.open(path)


@pytest.mark.parametrize("number", range(48), ids=ORDERS)
def test_real_images_and_masks_of_every_orientation_stay_what_they_are(orientations, tmp_path, number):
    folder, catalog = orientations
    volume_id = f"1.2.3.{number}"
    # the first order is that of the real file
    expected, affine = in_lps(folder / "images" / "1.2.3.0.nii.gz")
    labels, _ = in_lps(folder / "masks" / "1.2.3.0.nii.gz")
    by_itk = SimpleITK.DICOMOrient(SimpleITK.ReadImage(folder / "images" / f"{volume_id}.nii.gz"), "LPS")
    np.testing.assert_array_equal(catalog.volume(volume_id)["hu"], expected)
    np.testing.assert_array_equal(catalog.volume(volume_id)["hu"], SimpleITK.GetArrayFromImage(by_itk))
    np.testing.assert_array_equal(catalog.mask(volume_id), labels)
    grid = catalog.grid(volume_id)
    np.testing.assert_allclose(grid.affine, affine, atol=1e-4)
    np.testing.assert_allclose(np.array(grid.affine)[:, 3], by_itk.GetOrigin(), atol=1e-4)
    image, mask, _ = export_nifti(catalog, volume_id, tmp_path)
    for path, voxels in ((image, expected), (mask, labels)):
        found = nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(found.dataobj).transpose(2, 1, 0), voxels)
        np.testing.assert_allclose((np.diag([-1, -1, 1, 1]) @ found.affine)[:3][:, [2, 1, 0, 3]], affine, atol=1e-4)
        itk = SimpleITK.ReadImage(path)
        np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), voxels)
        np.testing.assert_allclose(itk.GetOrigin(), by_itk.GetOrigin(), atol=1e-4)
        np.testing.assert_allclose(itk.GetDirection(), by_itk.GetDirection(), atol=1e-6)
        np.testing.assert_allclose(itk.GetSpacing(), by_itk.GetSpacing(), rtol=1e-6)


def test_lesions_of_every_orientation_are_the_same(orientations):
    _, catalog = orientations
    columns = ["key_z", "x0", "y0", "z0", "x1", "y1", "z1", "mask_label"]
    tables = [rows[columns].to_numpy().tolist() for _, rows in catalog.lesions.groupby("volume_id")]
    assert len(tables) == 48
    assert all(table == tables[0] for table in tables)


def test_a_real_dicom_series_and_its_real_nifti_mask_go_through_the_store_and_out(run, data, tmp_path):
    pytest.importorskip("pydicom", reason="the extra dicom is absent")
    from lesionzarr.formats.dicom import find_stacks, scan_headers

    series = data / "ct" / "totalsegmentator_abdomen_J2K_20slices.zip"
    (stack,) = find_stacks(scan_headers([series])).stacks
    masks = tmp_path / "raw" / "images" / "nifti" / "train" / "masks"
    masks.mkdir(parents=True)
    given = masks / f"{stack.series_uid}.nii.gz"
    shutil.copy(data / "nifti" / "seg_of_ct_totalsegmentator_abdomen_LAS_uint8.nii.gz", given)
    code, _, err = run(
        "convert", "recist-dataset", tmp_path / "raw", tmp_path / "a.zarr", "--dicom", series, "--workers", 1
    )
    assert code == 0, err
    assert run("export", "nifti", tmp_path / "a.zarr", "-o", tmp_path / "out")[0] == 0
    image, mask = (SimpleITK.ReadImage(next((tmp_path / "out" / kind).iterdir())) for kind in ("images", "masks"))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(image, name)() == getattr(mask, name)()
    # laid on the exported image by their places in the world, the given mask is the exported one
    laid = SimpleITK.Resample(SimpleITK.ReadImage(given), image, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(laid), SimpleITK.GetArrayFromImage(mask))
    # organs are denser than lung and air
    assert np.mean(SimpleITK.GetArrayFromImage(image)[SimpleITK.GetArrayFromImage(mask) > 0] < -300) < 0.1


def test_the_command_writes_images_masks_and_labels(run, store, tmp_path):
    catalog = lesionzarr.open(store)
    code, out, _ = run("export", "nifti", store, "-o", tmp_path / "all", "--json")
    written = json.loads(out)["written"]
    assert (code, len(written)) == (0, 3 * len(catalog.volumes))
    assert {Path(path).parent.name for path in written} == {"images", "masks", "labels"}
    first = catalog.volumes.index[0]
    found = nibabel.load(tmp_path / "all" / "images" / f"{first}.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj).transpose(2, 1, 0), catalog.volume(first)["hu"])
    run("export", "nifti", store, "-o", tmp_path / "nodes", "--query", "type == 'lymph node' and patient_id == '2'")
    nodes = catalog.select("type == 'lymph node' and patient_id == '2'")["volume_id"].unique()
    assert {path.name for path in (tmp_path / "nodes" / "images").iterdir()} == {f"{name}.nii.gz" for name in nodes}
    run("export", "nifti", store, first, "-o", tmp_path / "one")
    assert [path.name for path in (tmp_path / "one" / "images").iterdir()] == [f"{first}.nii.gz"]


def test_windowed_by_mapping_has_the_windows_of_the_mapping(run, store, tmp_path):
    # level and width of normalize_ct_images.py
    windows = {"lung": (-500, 1400), "abdomen": (40, 350)}
    mapping = json.loads((store.parent / "source" / "metadata" / "windows_mapping.json").read_text())
    assert set(mapping.values()) == set(windows)
    assert run("export", "nifti", store, "--windowed", "-o", tmp_path / "grey")[0] == 0
    assert run("export", "nifti", store, "--windowed", "--levels", "upstream", "-o", tmp_path / "upstream")[0] == 0
    for name, window in mapping.items():
        level, width = windows[window]
        image = next((store.parent / "source").rglob(f"images/{name}"))
        clipped = np.clip(in_lps(image)[0].astype(float), level - width / 2, level + width / 2)
        ours, upstream = (
            np.asarray(nibabel.load(tmp_path / folder / "images" / name).dataobj).transpose(2, 1, 0)
            for folder in ("grey", "upstream")
        )
        exact = (clipped - (level - width / 2)) / width * 255
        # a float64 product may fall on the other side of a whole number
        assert np.abs(ours - np.floor(exact)).max() <= 1
        assert np.mean(ours != np.floor(exact)) < 0.01
        stretched = (clipped - clipped.min() + 1e-6) / (clipped.max() - clipped.min() + 1e-6) * 255.0
        np.testing.assert_array_equal(upstream, stretched.astype(np.uint8))
        assert ours.dtype == upstream.dtype == np.uint8


def test_upstreams_levels_differ_where_the_voxels_do_not_reach_the_window(store, tmp_path):
    catalog = lesionzarr.open(store)
    first = catalog.volumes.index[0]
    hu = catalog.volume(first)["hu"].to_numpy()
    wide = (float(hu.min()) - 1000, float(hu.max()) + 1000)
    (ours, *_) = export_nifti(catalog, first, tmp_path / "a", window=wide)
    (upstream, *_) = export_nifti(catalog, first, tmp_path / "b", window=wide, levels="upstream")
    ours, upstream = (np.asarray(nibabel.load(path).dataobj) for path in (ours, upstream))
    assert (ours.min() > 0, ours.max() < 255) == (True, True)
    assert (upstream.min(), upstream.max()) == (0, 255)
    for settings in ({"levels": "upstream"}, {"levels": "upstream", "window": wide, "dtype": "float32"}):
        with pytest.raises(SettingError, match="upstream"):
            export_nifti(catalog, first, tmp_path, **settings)


def header_of(path):
    image = SimpleITK.ReadImage(path)
    return {key: image.GetMetaData(key) for key in image.GetMetaDataKeys() if not key.startswith(NO_HEADER)}


def test_metadata_of_a_store_is_that_of_its_export(run, store, tmp_path):
    run("export", "nifti", store, "-o", tmp_path)
    code, out, _ = run("metadata", store, "--json")
    assert code == 0
    told = json.loads(out)
    assert len(told) == len(lesionzarr.open(store).volumes)
    for row in told:
        expected = header_of(tmp_path / "images" / row.pop("filename"))
        assert row == {**expected, "pixdim[0]": "1"}


def test_metadata_of_files_is_what_upstreams_script_finds(run, data, store, tmp_path):
    for number, folder in enumerate((data / "nifti", store.parent / "source")):
        code, out, _ = run("metadata", folder, "-o", tmp_path / str(number))
        images = [path for path in folder.rglob("*.nii.gz") if path.parent.name != "masks"]
        assert (code, out) == (0, f"{len(images)} images told in {tmp_path / str(number)}\n")
        told = {row["filename"]: row for row in json.loads((tmp_path / str(number) / "metadata.json").read_text())}
        table = pd.read_csv(tmp_path / str(number) / "resolution.csv").set_index("filename")
        for path in images:
            row, expected = told[path.name], header_of(path)
            assert {key: row[key] for key in expected} == expected
            assert row["orientation"] == "".join(nibabel.aff2axcodes(nibabel.load(path).affine))
            sizes = [int(expected[f"dim[{n}]"]) for n in (2, 1, 3)]
            spacing = [float(expected[f"pixdim[{n}]"]) for n in (2, 1, 3)]
            assert table.loc[path.name].tolist() == [*sizes, *spacing]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("codes", [(1, 0), (1, 2), (0, 4), (3, 1)], ids=["qform", "both", "mni", "other"])
def test_header_fields_are_those_of_simpleitk(run, tmp_path, order, codes):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.int16), None, nibabel.Nifti1Header(endianness=order))
    image.header.set_data_dtype(np.int16)
    cos, sin = np.cos(0.3), np.sin(0.3)
    affine = np.diag([0.7, 0.8, -2.5, 1])
    affine[:3, :3] = [[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]] @ affine[:3, :3]
    affine[:3, 3] = 10.125, -20, 1234.5678
    image.header.set_qform(affine, code=codes[0])
    image.header.set_sform(affine, code=codes[1])
    image.header["descrip"] = b"dcm2niix v1"
    image.header["xyzt_units"] = 2
    nibabel.save(image, tmp_path / "a.nii.gz")
    code, out, _ = run("metadata", tmp_path, "--json")
    (told,) = json.loads(out)
    expected = header_of(tmp_path / "a.nii.gz")
    assert code == 0
    assert {key: told[key] for key in expected} == expected
    assert (told["descrip"], told["pixdim[0]"]) == ("dcm2niix v1", "-1")


def test_nifti_2_has_other_fields_and_is_told(run, store, tmp_path):
    nibabel.save(nibabel.Nifti2Image(np.zeros((4, 5, 6), np.int16), np.eye(4)), tmp_path / "a.nii")
    code, out, err = run("metadata", tmp_path, "--json")
    assert (code, json.loads(out)) == (1, [])
    assert "a.nii: no NIfTI-1 header" in err


def test_the_resolution_of_a_store_is_that_of_series_json(run, store, tmp_path):
    code, out, _ = run("metadata", store)
    assert code == 0
    assert out.splitlines()[0].split()[:3] == ["filename", "rows", "columns"]
    run("metadata", store, "-o", tmp_path)
    table = pd.read_csv(tmp_path / "resolution.csv").set_index("filename")
    series = {row["uuid"]: row for row in json.loads((store.parent / "source/metadata/series.json").read_text())}
    assert len(table) == len(series)
    for name, row in table.iterrows():
        known = series[name.removesuffix(".nii.gz").split("_")[1]]
        assert [row["rows"], row["columns"], row["slices"]] == [known["rows"], known["columns"], known["slices"]]
        names = ("row_spacing", "column_spacing", "slice_spacing")
        assert [row[f"{each}_mm"] for each in names] == pytest.approx([known[each] for each in names])


def test_a_broken_file_is_told_and_the_others_are_read(run, store, tmp_path):
    first, second = sorted((store.parent / "source").rglob("images/*.nii.gz"))[:2]
    (tmp_path / first.name).write_bytes(first.read_bytes())
    (tmp_path / "broken.nii.gz").write_bytes(second.read_bytes()[:100])
    code, out, err = run("metadata", tmp_path, "--json")
    assert (code, [row["filename"] for row in json.loads(out)]) == (1, [first.name])
    assert "broken.nii.gz" in err


def test_sides_of_deeplesion_are_right_though_its_places_are_unknown(run, sample_store, tmp_path):
    assert run("export", "nifti", sample_store, "-o", tmp_path)[0] == 0
    catalog = lesionzarr.open(sample_store)
    volume_id = catalog.volumes.index[0]
    image = nibabel.load(tmp_path / "images" / f"{volume_id}.nii.gz")
    # rows run to the back, columns to the left, slices to the feet
    assert nibabel.aff2axcodes(image.affine) == ("L", "P", "I")
    assert image.header["sform_code"] == 2
    assert image.affine[:3, 3].tolist() == [0, 0, 0]
    assert nibabel.affines.voxel_sizes(image.affine) == pytest.approx(catalog.grid(volume_id).spacing_mm[::-1])
    itk = SimpleITK.ReadImage(tmp_path / "images" / f"{volume_id}.nii.gz")
    assert SimpleITK.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(itk.GetDirection()) == "LPI"
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(itk), catalog.volume(volume_id)["hu"])


def test_what_has_no_window_is_listed_and_the_others_are_written(run, tmp_path):
    pytest.importorskip("pydicom", reason="the extra dicom is absent")
    source = lung_pet_ct_dx(tmp_path / "Lung", subjects=2)
    lesionzarr.convert("lung-pet-ct-dx", source, tmp_path / "lung.zarr")
    modalities = lesionzarr.open(tmp_path / "lung.zarr").volumes["modality"]
    assert set(modalities) == {"CT", "PT"}
    code, out, err = run("export", "nifti", tmp_path / "lung.zarr", "--window", "lung", "-o", tmp_path / "grey")
    assert code == 1
    assert f"{(modalities == 'CT').sum()} written" in out
    assert err.count("(PT)") == (modalities == "PT").sum()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["export", "nifti", "STORE", "nothing", "-o", "out"], "no volume"),
        (["export", "nifti", "STORE", "a", "--query", "key_z > 3", "-o", "out"], "give one of the two"),
        (["export", "nifti", "STORE", "--query", "key_z > 1e6", "-o", "out"], "no lesion"),
        (["export", "nifti", "STORE", "--window", "lungs", "-o", "out"], "lung"),
        (["metadata", "empty"], "neither a store nor NIfTI"),
        (["metadata", "nothing-here"], "no store at"),
    ],
)
def test_misuse_is_one_clear_line(run, store, tmp_path, monkeypatch, arguments, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, out, err = run(*(store if argument == "STORE" else argument for argument in arguments))
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert text in err
    assert not (tmp_path / "out").exists()
