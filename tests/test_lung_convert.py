"""Lung-PET-CT-Dx from its files to an opened store: real CT and PET, legal oddities, bad input, de-identification.

Expectations come from pydicom, SimpleITK, ElementTree and hand calculations.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import ome_zarr_models.v05
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its own short name
import tensorstore
import zarr
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import SettingError, SourceError
from lesionzarr.export.pictures import contact_sheet
from lesionzarr.samples import LUNG_QUIRKS, lung_pet_ct_dx
from lesionzarr.samples._nbia_image_quirks import SECRETS
from lesionzarr.store.layout import REPORT

NAME = "lung-pet-ct-dx"
SMALL = {"image_size": 48, "slices": 8, "subjects": 4}

LEFT_OUT = {
    "S21570/S1000/I10": "localizer",
    "S21570/S4010/I10": "secondary-capture",
    "S21610/S4010/I40": "dose-page",
    "S21570/S1000/DIRFILE": "directory",
}
"""Files of ct/philips_localizer_and_secondary_captures.zip, none of which is a slice."""

TOLD = {
    "two_series_in_one_folder": set(),
    "localizer": {"localizer"},
    "rgb_secondary_capture": {"fused-rgb", "annotation-outside-volume"},
    "dose_page": {"dose-page"},
    "enhanced_multiframe": set(),
    "bomb": {"too-large"},
    "dicomdir_file": {"directory"},
    "not_dicom": {"not-dicom"},
    "duplicate_slice": {"duplicate"},
    "duplicate_position": {"same-position", "single-slice"},
    "missing_slice": {"uneven-spacing", "single-slice"},
    "uneven_spacing": {"uneven-spacing"},
    "gantry_tilt": {"gantry-tilt"},
    "mixed_size": {"mixed-geometry", "uneven-spacing", "single-slice"},
    "missing_pixel_spacing": {"no-spacing", "annotation-outside-volume"},
    "missing_position": {"no-position"},
    "zero_pixel_data": {"no-pixel-data", "uneven-spacing", "single-slice"},
    "wrong_length": {"wrong-length", "uneven-spacing", "single-slice"},
    "truncated_dicom": {"truncated", "uneven-spacing", "single-slice"},
    **dict.fromkeys(("signed_pixels", "rle_compressed", "deflated", "implicit_vr", "instance_order"), frozenset()),
    **dict.fromkeys(("private_tags", "no_weight", "zero_weight", "image_without_annotation"), frozenset()),
    "removed_subject": {"subject-without-images"},
    "xml_without_image": {"annotation-without-image"},
    "folder_letter_mismatch": {"label-differs"},
    **dict.fromkeys(("xml_empty", "xml_cut_off", "xml_with_entities"), frozenset({"bad-annotation"})),
    "xml_label_q": {"unknown-label"},
    "xml_no_object": {"no-object"},
    "xml_several_objects": set(),
    "xml_box_outside": {"box-outside"},
    "xml_in_two_folders": {"annotated-twice", "label-differs", "other-subject"},
    "clinical_missing_column": {"bad-clinical"},
}
"""What the report has to say of each quirk; nothing where the quirk is legal, or tells in the volume's attributes."""


def unpack(archive, folder):
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


def objects(folder):
    """Datasets by SeriesInstanceUID, each with its path, lowest z first."""
    series = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.read_bytes()[128:132] == b"DICM":
            series.setdefault(pydicom.dcmread(path).get("SeriesInstanceUID", ""), []).append(path)
    found = {uid: [(pydicom.dcmread(path), path) for path in paths] for uid, paths in series.items()}
    for pairs in found.values():
        pairs.sort(key=lambda pair: float(pair[0].get("ImagePositionPatient", (0, 0, 0))[2]))
    return found


def values(datasets):
    """Stored values with the rescale of each slice, as pydicom reads them."""
    return np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets])


def itk(paths):
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


def convert(source, store, **options):
    return lesionzarr.convert(NAME, source, store, **options)


def voxels(store, volume_id):
    catalog = lesionzarr.open(store)
    name = "hu" if catalog.volumes["modality"][volume_id] == "CT" else "activity"
    return catalog.volume(volume_id)[name].to_numpy()


def attributes(store, volume_id):
    return json.loads((store / "volumes" / volume_id / "zarr.json").read_text())["attributes"]["lesionzarr"]


def lesions_of(store):
    catalog = lesionzarr.open(store)
    return catalog.find_lesions(list(catalog.lesions.index))


def all_issues(report):
    return [*report.failed, *report.missing, *report.issues]


def volume_objects(store, volume_id):
    """Every object of a volume, without what tells the source's files apart, which have other times here."""
    folder = store / "volumes" / volume_id
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    group = json.loads(found.pop("zarr.json"))
    for name in ("fingerprint", "roots", "files", "file_bytes", "settings"):
        del group["attributes"]["lesionzarr"]["provenance"][name]
    del group["attributes"]["lesionzarr"]["checksum"]
    return found, group


def digests(store):
    """SHA-256 by name; the report tells of a run, and the root group the time at which the store was made."""
    found = {}
    for path in store.rglob("*"):
        name = path.relative_to(store).as_posix()
        if path.is_file() and name not in {REPORT, "zarr.json"}:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def every_byte(store):
    """All that a store says: objects as they lie there, attributes, and the tables in clear."""
    catalog = lesionzarr.open(store)
    tables = catalog.lesions.to_csv() + catalog.volumes.to_csv()
    parts = [path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()]
    names = [path.relative_to(store).as_posix() for path in store.rglob("*")]
    return b"\n".join([*parts, tables.encode(), "\n".join(names).encode()])


@pytest.fixture(scope="module")
def lung(data):
    return data / "lung_pet_ct_dx"


@pytest.fixture(scope="module")
def lung_store(lung, tmp_path_factory):
    store = tmp_path_factory.mktemp("lung") / "lung.zarr"
    report = convert(lung, store)
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    return store


@pytest.fixture(scope="module")
def lung_objects(lung, tmp_path_factory):
    return objects(unpack(lung / "Lung_Dx-A0002_manifest.zip", tmp_path_factory.mktemp("unpacked")))


@pytest.fixture(scope="module")
def ct_store(data, tmp_path_factory):
    store = tmp_path_factory.mktemp("ct") / "ct.zarr"
    return store, convert(data / "ct", store)


@pytest.fixture(scope="module")
def ct_objects(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ct_unpacked")
    for archive in (data / "ct").glob("*.zip"):
        unpack(archive, folder / archive.stem)
    return {name.name: objects(name) for name in folder.iterdir()}


@pytest.fixture(scope="module")
def pet_store(data, tmp_path_factory):
    store = tmp_path_factory.mktemp("pet") / "pet.zarr"
    report = convert(data / "pet", store)
    assert not report.failed
    return store


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return lung_pet_ct_dx(tmp_path_factory.mktemp("clean") / "lung", **SMALL)


@pytest.fixture(scope="module")
def clean_store(clean, tmp_path_factory):
    store = tmp_path_factory.mktemp("clean_store") / "lung.zarr"
    report = convert(clean, store)
    assert (report.failed, report.missing, report.issues) == ((), (), ())
    return store


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "secret.key"
    path.write_text("correct horse battery staple\n")
    return path


# real CT


def test_real_voxels_are_those_of_pydicom_and_of_simpleitk(lung_store, lung_objects):
    assert set(lesionzarr.open(lung_store).volumes.index) == set(lung_objects)
    for uid, pairs in lung_objects.items():
        found = voxels(lung_store, uid)
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, values([dataset for dataset, _ in pairs]))
        np.testing.assert_array_equal(found, sitk.GetArrayFromImage(itk([path for _, path in pairs])))


def assert_is_placed_as(grid, image):
    """Hold a grid against origin, spacing and direction of SimpleITK, whose axes are (x, y, z)."""
    matrix = np.array(grid.affine)
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    np.testing.assert_allclose(matrix[:, 3], image.GetOrigin(), atol=1e-6)
    np.testing.assert_allclose(matrix[:, 2::-1], direction, atol=1e-6)
    np.testing.assert_allclose(grid.spacing_mm[::-1], image.GetSpacing(), atol=1e-6)


def test_real_geometry_is_that_of_simpleitk(lung_store, lung_objects):
    catalog = lesionzarr.open(lung_store)
    for uid, pairs in lung_objects.items():
        assert_is_placed_as(catalog.grid(uid), itk([path for _, path in pairs]))


def test_real_boxes_lie_on_their_slices_of_the_right_series(lung, lung_store, lung_objects):
    expected = Counter()
    place = {d.SOPInstanceUID: (uid, z) for uid, pairs in lung_objects.items() for z, (d, _) in enumerate(pairs)}
    for path in lung.glob("Annotation/A0002/*.xml"):
        for item in ET.parse(path).getroot().iter("bndbox"):  # noqa: S314 - a file of the collection
            ends = [float(item.find(name).text) for name in ("xmin", "ymin", "xmax", "ymax")]
            uid, z = place[path.stem]
            expected[uid, z, *ends] += 1
    assert expected.total() == 18
    found = Counter()
    for lesion in lesions_of(lung_store):
        boxes = lesion.extras["slice_boxes"]
        found.update((lesion.series_id, *box) for box in boxes)
        rows = [box[0] for box in boxes]
        assert (lesion.z0, lesion.z1) == (min(rows), max(rows))
        assert lesion.key_slice == lung_objects[lesion.series_id][lesion.key_z][0].SOPInstanceUID
        assert [lesion.x0, lesion.y0] == [min(box[1] for box in boxes), min(box[2] for box in boxes)]
        assert [lesion.x1, lesion.y1] == [max(box[3] for box in boxes), max(box[4] for box in boxes)]
        assert (lesion.type, lesion.labels, lesion.patient_id) == ("adenocarcinoma", ("A",), "Lung_Dx-A0002")
    assert found == expected
    by_kernel = {
        pairs[0][0].ConvolutionKernel: sum(key[0] == uid for key in found) for uid, pairs in lung_objects.items()
    }
    assert by_kernel == {"B40f": 10, "B70f": 8}


def assert_read_alike(store, volume_id, name):
    """Zarr-python, tensorstore and xarray read the same, and ome-zarr-models accepts the group."""
    folder = store / "volumes" / volume_id
    expected = voxels(store, volume_id)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder / name}/"}}
    np.testing.assert_array_equal(tensorstore.open(spec).result().read().result(), expected)
    np.testing.assert_array_equal(zarr.open_array(folder / name, mode="r")[:], expected)
    image = ome_zarr_models.v05.Image.from_zarr(zarr.open_group(folder, mode="r"))
    assert image.ome_attributes.multiscales[0].datasets[0].path == name


def test_other_readers_read_the_same(lung_store, pet_store):
    for uid in lesionzarr.open(lung_store).volumes.index:
        assert_read_alike(lung_store, uid, "hu")
    for uid, row in lesionzarr.open(pet_store).volumes.iterrows():
        assert_read_alike(pet_store, uid, "hu" if row["modality"] == "CT" else "activity")


# a folder of everything


def test_a_mixed_folder_gives_the_right_volumes_and_a_reason_for_every_file_left_out(ct_store, ct_objects):
    store, report = ct_store
    assert not report.failed
    left_out = {issue.file: issue.kind for issue in report.issues if "left out" in issue.message}
    assert left_out == LEFT_OUT
    shapes = sorted(lesionzarr.open(store).volumes[["slices", "rows", "columns"]].itertuples(index=False, name=None))
    assert shapes == [(2, 512, 512), (20, 512, 512), (54, 512, 512)]
    written = json.loads((store / REPORT).read_text())
    assert [issue["message"] for issue in written["issues"]] == [issue.message for issue in report.issues]
    slices = sum(len(pairs) for series in ct_objects.values() for pairs in series.values())
    # the directory is an object too
    assert slices == 76 + len(LEFT_OUT)


def test_real_series_of_other_scanners_equal_pydicom(ct_store, ct_objects):
    catalog = lesionzarr.open(ct_store[0])
    for name, shape in (("philips_phantom_2.5mm_54slices", 54), ("lungmask_hu-2048_2slices", 2)):
        ((pairs,),) = [series.values() for folder, series in ct_objects.items() if folder == name]
        (volume_id,) = catalog.volumes.index[catalog.volumes["slices"] == shape]
        found = voxels(ct_store[0], volume_id)
        np.testing.assert_array_equal(found, values([dataset for dataset, _ in pairs]))
    assert found.min() == -2048


@pytest.fixture(scope="module")
def abdomen(ct_store, ct_objects):
    catalog = lesionzarr.open(ct_store[0])
    (volume_id,) = catalog.volumes.index[catalog.volumes["slices"] == 20]
    (pairs,) = ct_objects["totalsegmentator_abdomen_J2K_20slices"].values()
    return voxels(ct_store[0], volume_id), catalog.grid(volume_id), pairs


def test_the_jpeg_2000_series_equals_its_decoding(abdomen):
    found, grid, pairs = abdomen
    assert {dataset.file_meta.TransferSyntaxUID.name for dataset, _ in pairs} == {
        "JPEG 2000 Image Compression (Lossless Only)"
    }
    np.testing.assert_array_equal(found, values([dataset for dataset, _ in pairs]))
    # GDCM decodes with OpenJPEG of its own
    image = itk([path for _, path in pairs])
    np.testing.assert_array_equal(found, sitk.GetArrayFromImage(image))
    assert_is_placed_as(grid, image)


def test_a_mask_of_the_jpeg_2000_series_lies_on_its_organs(abdomen, data):
    found, grid, _ = abdomen
    mask = sitk.ReadImage(str(data / "nifti/seg_of_ct_totalsegmentator_abdomen_LAS_uint8.nii.gz"))
    assert sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(mask.GetDirection()) == "LAS"
    mask = sitk.DICOMOrient(mask, "LPS")
    assert_is_placed_as(grid, mask)
    labels = sitk.GetArrayFromImage(mask)
    means = {label: float(found[labels == label].mean()) for label in (1, 5, 52, 79, 86, 87, 69, 70)}
    # labels of TotalSegmentator 2, in a scan with contrast: spleen, liver
    assert 70 < means[1] < 130
    assert 70 < means[5] < 130
    # aorta, spinal cord, muscles of the back
    assert 150 < means[52] < 400
    assert 0 < means[79] < 50
    assert all(0 < means[label] < 70 for label in (86, 87))
    # bones of the arms
    assert all(300 < means[label] < 1200 for label in (69, 70))
    assert found[labels == 5].std() < 40
    # and not where rows run the other way
    assert not 70 < found[:, ::-1][labels == 1].mean() < 130


# real PET


def seconds(time_of_day):
    """Seconds since midnight of a DICOM time, such as 101530.25."""
    return 3600 * int(time_of_day[:2]) + 60 * int(time_of_day[2:4]) + float(time_of_day[4:])


def test_real_pet_is_bq_per_ml_and_its_suv_factor_that_of_a_hand_calculation(pet_store, data, tmp_path):
    folder = unpack(data / "pet/QIN-HEADNECK-01-0024_WB_60slices.zip", tmp_path)
    ((uid, pairs),) = objects(folder).items()
    datasets = [dataset for dataset, _ in pairs]
    found = voxels(pet_store, uid)
    assert (found.dtype, found.shape) == (np.float32, (60, 128, 128))
    np.testing.assert_array_equal(found, values(datasets).astype(np.float32))
    image = itk([path for _, path in pairs])
    np.testing.assert_allclose(found, sitk.GetArrayFromImage(sitk.Cast(image, sitk.sitkFloat32)), rtol=1e-6)
    assert_is_placed_as(lesionzarr.open(pet_store).grid(uid), image)
    first = datasets[0]
    tracer = first.RadiopharmaceuticalInformationSequence[0]
    began, injected = (seconds(text) for text in (first.SeriesTime, tracer.RadiopharmaceuticalStartTime))
    decay = 2 ** (-(began - injected) / float(tracer.RadionuclideHalfLife))
    factor = 1000 * float(first.PatientWeight) / (float(tracer.RadionuclideTotalDose) * decay)
    suv = lesionzarr.open(pet_store).array(uid).tags["SUV"]
    assert suv["body_weight"] == pytest.approx(factor, rel=1e-9)
    assert suv["body_weight"] == pytest.approx(2.944804e-4, rel=1e-6)
    assert lesionzarr.open(pet_store).study(str(first.StudyInstanceUID))["suv_factor"][uid] == suv["body_weight"]


def test_a_weight_of_0_gives_no_suv_and_says_so(pet_store):
    catalog = lesionzarr.open(pet_store)
    (uid,) = catalog.volumes.index[(catalog.volumes["modality"] == "PT") & (catalog.volumes["slices"] == 2)]
    suv = attributes(pet_store, uid)["volume"]["tags"]["SUV"]
    assert suv["body_weight"] is None
    assert suv["reason"] == "PatientWeight is 0 kg"
    assert math.isnan(catalog.study(catalog.volumes["study_id"][uid])["suv_factor"].astype(float)[uid])


# made-up data


def test_every_made_up_volume_equals_its_files(clean, clean_store):
    found = objects(clean)
    catalog = lesionzarr.open(clean_store)
    assert set(catalog.volumes.index) == set(found)
    assert Counter(catalog.volumes["modality"]) == {"CT": 8, "PT": 2}
    for uid, pairs in found.items():
        expected = values([dataset for dataset, _ in pairs])
        got = voxels(clean_store, uid)
        np.testing.assert_array_equal(got, expected.astype(got.dtype))
        assert_is_placed_as(catalog.grid(uid), itk([path for _, path in pairs]))


def test_rows_of_the_clinical_table_are_joined(clean, clean_store):
    import openpyxl

    (sheet,) = clean.glob("statistics-clinical-*.xlsx")
    rows = list(openpyxl.load_workbook(sheet).active.iter_rows(values_only=True))
    by_subject = {row[1]: dict(zip(rows[0], row, strict=True)) for row in rows[1:]}
    for lesion in lesions_of(clean_store):
        row = by_subject[lesion.patient_id.removeprefix("Lung_Dx-")]
        told = lesion.extras
        assert (lesion.sex, lesion.study_date[:2]) == (row["Sex"], "20")
        assert str(row["T-Stage"]) in json.dumps(told)
        assert str(row["\N{FULLWIDTH LATIN CAPITAL LETTER M}-Stage"]) in json.dumps(told)


def changed(clean, folder):
    """Files that differ from the clean dataset: names, and the series that they belong to or annotate."""

    def contents(root):
        return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    ours, theirs = contents(folder), contents(clean)
    names = {name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)}
    names -= {name for name in names if name.endswith("metadata.csv")}
    series_of = {d.SOPInstanceUID: uid for uid, pairs in objects(clean).items() for d, _ in pairs}
    touched = set()
    for name in names:
        if name.endswith(".xml"):
            touched.add(series_of.get(Path(name).stem, ""))
        for data in (ours.get(name, b""), theirs.get(name, b"")):
            if data[128:132] == b"DICM":
                touched.add(pydicom.dcmread(io.BytesIO(data), force=True).get("SeriesInstanceUID", ""))
    return names, touched


ALONE = "rgb_secondary_capture"
"""What is told of it depends on the series that is free for it."""
TOGETHER = [quirk for quirk in LUNG_QUIRKS if quirk != ALONE]


# three at a time, which act on a series each: most of the time is that of writing DICOM
@pytest.mark.parametrize("quirks", [[ALONE], *(TOGETHER[n::13] for n in range(13))], ids=", ".join)
def test_quirks_are_told_by_their_files_and_leave_other_volumes_as_they_are(quirks, clean, clean_store, tmp_path):
    folder = lung_pet_ct_dx(tmp_path / "lung", quirks=quirks, **SMALL)
    report = convert(folder, tmp_path / "s.zarr")
    expected = set().union(*(TOLD[quirk] for quirk in quirks))
    assert {issue.kind for issue in all_issues(report)} == expected
    names, touched = changed(clean, folder)
    told = [issue for issue in all_issues(report) if issue.file]
    # of a missing slice only its neighbours can be named, of a slice boxed twice the first of its files
    for issue in told:
        own = any(Path(issue.file).name in name for name in names)
        assert own or any(Path(issue.file).parent.as_posix() in name for name in names), issue
        assert "\n" not in issue.message
    if expected:
        assert told
    same = set(lesionzarr.open(clean_store).volumes.index) - touched
    assert len(same) >= 10 - 2 * len(quirks)
    for volume_id in same:
        (ours, our_group), (theirs, their_group) = (
            volume_objects(store, volume_id) for store in (tmp_path / "s.zarr", clean_store)
        )
        assert ours == theirs
        if "clinical_missing_column" in quirks:
            for group in (our_group, their_group):
                del group["attributes"]["lesionzarr"]["lesions"]
        assert our_group == their_group


def test_every_quirk_has_its_expectation():
    assert set(TOLD) == set(LUNG_QUIRKS)


def test_series_of_one_folder_are_told_apart(clean_store, tmp_path):
    folder = lung_pet_ct_dx(tmp_path / "lung", quirks=["two_series_in_one_folder", "instance_order"], **SMALL)
    convert(folder, tmp_path / "s.zarr")
    for volume_id in lesionzarr.open(clean_store).volumes.index:
        assert volume_objects(tmp_path / "s.zarr", volume_id)[0] == volume_objects(clean_store, volume_id)[0]


@pytest.mark.parametrize("quirk", ["rle_compressed", "deflated", "implicit_vr"])
def test_another_encoding_gives_the_same_voxels(quirk, clean_store, tmp_path):
    folder = lung_pet_ct_dx(tmp_path / "lung", quirks=[quirk], **SMALL)
    convert(folder, tmp_path / "s.zarr")
    for volume_id in lesionzarr.open(clean_store).volumes.index:
        assert volume_objects(tmp_path / "s.zarr", volume_id)[0] == volume_objects(clean_store, volume_id)[0]


def test_signed_pixels_and_frames_of_one_object_are_read(tmp_path):
    folder = lung_pet_ct_dx(tmp_path / "lung", quirks=["signed_pixels", "enhanced_multiframe"], **SMALL)
    convert(folder, tmp_path / "s.zarr")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    frames, signed = 0, 0
    for uid, pairs in objects(folder).items():
        got = voxels(tmp_path / "s.zarr", uid)
        if len(pairs) == 1:
            frames += 1
            np.testing.assert_array_equal(got, pairs[0][0].pixel_array.astype(np.int64) - 1024)
            assert catalog.grid(uid).spacing_mm[0] == 5
        elif pairs[0][0].Modality == "CT":
            np.testing.assert_array_equal(got, values([dataset for dataset, _ in pairs]))
            signed += got.min() == -3024
    assert (frames, signed) == (1, 1)


@pytest.mark.parametrize("quirk", ["no_weight", "zero_weight"])
def test_a_weight_that_the_header_lacks_is_that_of_the_clinical_table_or_there_is_no_suv(quirk, tmp_path):
    folder = lung_pet_ct_dx(tmp_path / "lung", quirks=[quirk], **SMALL)
    uid = next(u for u, pairs in objects(folder).items() if not pairs[0][0].get("PatientWeight", 0) and len(pairs) > 8)
    convert(folder, tmp_path / "a.zarr")
    found = attributes(tmp_path / "a.zarr", uid)["volume"]["tags"]["SUV"]
    assert found["body_weight"] > 0
    assert found["provenance"]["PatientWeight from"] == "clinical table"
    (sheet,) = folder.glob("statistics-clinical-*.xlsx")
    sheet.unlink()
    convert(folder, tmp_path / "b.zarr")
    found = attributes(tmp_path / "b.zarr", uid)["volume"]["tags"]["SUV"]
    assert found["body_weight"] is None
    assert "PatientWeight is " in found["reason"]


def test_a_zip_inside_a_folder_is_told(clean, tmp_path):
    shutil.copytree(clean, tmp_path / "lung")
    with zipfile.ZipFile(tmp_path / "lung" / "Annotation" / "more.zip", "w") as file:
        file.writestr("a.txt", "nothing")
    report = convert(tmp_path / "lung", tmp_path / "s.zarr")
    assert [(issue.kind, issue.file) for issue in report.issues] == [("not-dicom", "Annotation/more.zip")]


@pytest.mark.parametrize(
    ("options", "text"),
    [({"clinical": "absent.xlsx"}, "absent.xlsx"), ({"annotations": "absent"}, "absent")],
)
def test_an_input_that_is_not_there_is_one_clear_line(options, text, clean, tmp_path):
    with pytest.raises(SourceError, match=text) as caught:
        convert(clean, tmp_path / "s.zarr", **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s.zarr").exists()


def test_a_folder_without_dicom_is_one_clear_line(tmp_path):
    (tmp_path / "lung").mkdir()
    with pytest.raises(SourceError, match="no DICOM object"):
        convert(tmp_path / "lung", tmp_path / "s.zarr")


# again


def test_a_second_conversion_skips_all_and_a_changed_box_updates_its_volume_alone(clean, clean_store, tmp_path):
    folder, store = tmp_path / "lung", tmp_path / "s.zarr"
    shutil.copytree(clean, folder)
    shutil.copytree(clean_store, store)
    before = digests(store)
    report = convert(folder, store)
    assert (len(report.skipped), report.converted, report.updated) == (10, (), ())
    assert digests(store) == before
    lesion = lesions_of(store)[0]
    (path,) = folder.rglob(f"{lesion.key_slice}.xml")
    path.write_text(path.read_text().replace(f"<xmin>{lesion.x0:.0f}<", f"<xmin>{lesion.x0 - 1:.0f}<"))
    report = convert(folder, store)
    assert (len(report.skipped), report.converted, report.updated) == (9, (), (lesion.volume_id,))
    after = digests(store)
    assert {name for name in before if before[name] != after[name]} == {
        "catalog/tables.json",
        f"volumes/{lesion.volume_id}/zarr.json",
    }
    assert {name.split("/")[-1] for name in after.keys() - before.keys()} == {"lesions.parquet", "volumes.parquet"}


KILLED = """
import sys, lesionzarr
lesionzarr.convert("lung-pet-ct-dx", sys.argv[1], sys.argv[2])
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("volumes", [0, 3, 7])
def test_a_conversion_that_was_killed_goes_on_to_the_same_bytes(volumes, clean, clean_store, tmp_path):
    store = tmp_path / "s.zarr"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(clean), str(store)])
    deadline = time.monotonic() + 60
    while process.poll() is None and len(list(store.glob("volumes/*/zarr.json"))) < volumes + 1:
        assert time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    report = convert(clean, store)
    assert len(report.converted) + len(report.skipped) == 10
    assert digests(store) == digests(clean_store)


def test_headers_are_read_once_where_an_index_is_kept(clean, clean_store, tmp_path, monkeypatch):
    index = tmp_path / "headers.parquet"
    convert(clean, tmp_path / "a.zarr", index=index)
    assert index.stat().st_size > 0
    opened = []
    dcmread = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **named: opened.append(args) or dcmread(*args, **named))
    report = convert(clean, tmp_path / "a.zarr", index=index)
    assert (opened, len(report.skipped)) == ([], 10)
    convert(clean, tmp_path / "b.zarr", index=index)
    assert len(opened) == sum(1 for _ in clean.rglob("*.dcm"))
    for volume_id in lesionzarr.open(clean_store).volumes.index:
        assert volume_objects(tmp_path / "b.zarr", volume_id) == volume_objects(clean_store, volume_id)


def test_two_workers_give_the_same_store(clean, clean_store, tmp_path):
    convert(clean, tmp_path / "s.zarr", workers=2)
    assert digests(tmp_path / "s.zarr") == digests(clean_store)


# de-identification


@pytest.fixture(scope="module")
def named(tmp_path_factory):
    """A dataset in which a series names its patient."""
    return lung_pet_ct_dx(tmp_path_factory.mktemp("named") / "lung", quirks=["private_tags"], **SMALL)


def test_no_name_or_birth_date_or_private_tag_reaches_the_store(named, tmp_path):
    told = b"".join(path.read_bytes() for path in named.rglob("*.dcm"))
    assert all(secret.encode() in told for secret in SECRETS)
    convert(named, tmp_path / "s.zarr")
    found = every_byte(tmp_path / "s.zarr")
    for secret in (*SECRETS, "PatientName", "PatientBirthDate", "LESIONZARR SAMPLE"):
        assert secret.encode() not in found, secret


def rebuilt(headers, number):
    return {**headers["common"], **headers["files"][number]}


def test_headers_that_are_asked_for_are_those_of_pydicom(named, tmp_path):
    convert(named, tmp_path / "s.zarr", keep_headers=True)
    for uid, pairs in objects(named).items():
        headers = attributes(tmp_path / "s.zarr", uid)["provenance"]["headers"]
        assert len(headers["files"]) == len(pairs)
        for number, (dataset, _) in enumerate(pairs):
            expected = json.loads(dataset.to_json(bulk_data_element_handler=lambda _: ""))
            del expected["7FE00010"]
            assert rebuilt(headers, number) == expected
        # only differences are told by slice
        for tag in set.intersection(*(set(own) for own in headers["files"])):
            assert len({json.dumps(own[tag]) for own in headers["files"]}) > 1
        assert {"00100020", "0020000D"} <= set(headers["common"])
        assert {"00080018", "00200013"} <= set(headers["files"][0])
    assert b"Musterfrau" in every_byte(tmp_path / "s.zarr")
    # asked for no more, they go
    report = convert(named, tmp_path / "s.zarr")
    assert len(report.converted) == 10
    assert b"Musterfrau" not in every_byte(tmp_path / "s.zarr")


def original_uids(folder):
    """Every UID of the files that names a thing of this dataset, not a kind of the standard."""
    found = set()
    for pairs in objects(folder).values():
        for dataset, _ in pairs:
            found |= {str(item.value) for item in dataset.iterall() if item.VR == "UI"}
            found.add(str(dataset.file_meta.MediaStorageSOPInstanceUID))
    found |= {path.stem for path in folder.rglob("*.xml")}
    return {uid for uid in found if uid and not uid.startswith("1.2.840.10008.")}


ODD = ["duplicate_slice", "missing_slice", "xml_without_image", "xml_empty", "xml_no_object", "xml_in_two_folders"]
"""Quirks whose messages name files and UIDs."""


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A dataset of many messages, whose files are named by UIDs, as those of IDC are; one cannot be decoded."""
    folder = lung_pet_ct_dx(tmp_path_factory.mktemp("odd") / "lung", quirks=[*ODD, "rle_compressed"], **SMALL)
    broken = False
    for path in sorted(folder.rglob("*.dcm")):
        dataset = pydicom.dcmread(path)
        if dataset.file_meta.TransferSyntaxUID.is_compressed and not broken:
            dataset.PixelData = dataset.PixelData[:8] + bytes(len(dataset.PixelData) - 8)
            dataset.save_as(path)
            broken = True
        path.rename(path.with_name(f"{path.stem}.{dataset.SOPInstanceUID}.dcm"))
    assert broken
    return folder


def test_no_uid_of_the_source_is_left_where_a_key_is_given(odd, key, tmp_path):
    report = convert(odd, tmp_path / "s.zarr", uid_key=key)
    assert len(report.failed) == 2
    kinds = {issue.kind for issue in all_issues(report)}
    assert {"duplicate", "annotation-without-image", "bad-annotation", "no-object", "failed-volume"} <= kinds
    found = every_byte(tmp_path / "s.zarr").decode("latin-1") + json.dumps(report.to_json())
    uids = original_uids(odd)
    assert len(uids) > 80
    assert [uid for uid in uids if uid in found] == []
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    assert all(volume_id.startswith("2.25.") for volume_id in catalog.volumes.index)
    # folders of the NBIA layout end in the last digits of a UID
    assert not any(series.name in found for series in odd.glob("manifest-*/*/*/*/*/"))


def test_keyed_uids_are_the_same_each_time_and_others_for_another_key(clean, clean_store, key, tmp_path):
    other = tmp_path / "other.key"
    other.write_text("another secret of enough bytes")
    convert(clean, tmp_path / "a.zarr", uid_key=key)
    convert(clean, tmp_path / "b.zarr", uid_key=key)
    convert(clean, tmp_path / "c.zarr", uid_key=other)
    a, b, c, original = (
        set(lesionzarr.open(store).volumes.index)
        for store in (*(tmp_path / f"{name}.zarr" for name in "abc"), clean_store)
    )
    assert a == b
    assert len(a | c | original) == 30
    assert digests(tmp_path / "a.zarr") == digests(tmp_path / "b.zarr")
    # what belongs together still does
    found = lesionzarr.open(tmp_path / "a.zarr")
    assert len(found.pairs) == len(lesionzarr.open(clean_store).pairs) == 4
    assert found.lesions["volume_id"].isin(found.volumes.index).all()
    assert found.volumes["study_id"].nunique() == 4
    # the same key goes on where it was
    assert len(convert(clean, tmp_path / "a.zarr", uid_key=key).skipped) == 10


def test_a_key_that_is_short_or_absent_or_goes_with_full_headers_is_one_clear_line(clean, key, tmp_path, capsys):
    short = tmp_path / "short.key"
    short.write_text("abc")
    with pytest.raises(SettingError, match=r"short\.key: a key of 3 bytes; at least 16 are needed"):
        convert(clean, tmp_path / "s.zarr", uid_key=short)
    with pytest.raises(SettingError, match=r"none\.key: no key"):
        convert(clean, tmp_path / "s.zarr", uid_key=tmp_path / "none.key")
    with pytest.raises(SettingError, match="give one of them"):
        convert(clean, tmp_path / "s.zarr", uid_key=key, keep_headers=True)
    arguments = ["convert", NAME, str(clean), str(tmp_path / "s.zarr"), "--uid-key", str(key), "--keep-headers"]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("lesionzarr: ")
    assert not (tmp_path / "s.zarr").exists()


def test_the_settings_of_a_conversion_name_no_folder(clean_store):
    for volume_id in lesionzarr.open(clean_store).volumes.index:
        assert str(clean_store.parent.parent) not in json.dumps(attributes(clean_store, volume_id))


def test_a_lesion_row_goes_there_and_back(clean_store):
    for lesion in lesions_of(clean_store):
        assert type(lesion).from_row(lesion.to_row()) == lesion
        assert dataclasses.asdict(lesion)["source"] == NAME


# pictures


def test_a_picture_shows_the_box_of_its_own_slice(lung_store, capsys, tmp_path):
    assert main(["render", str(lung_store), "-o", str(tmp_path), "--window", "lung"]) == 0
    capsys.readouterr()
    for lesion in lesions_of(lung_store):
        with Image.open(tmp_path / f"{lesion.lesion_id}.png") as picture:
            yellow = (np.asarray(picture) == (255, 214, 10)).all(-1)
        y, x = np.nonzero(yellow)
        (own,) = [box[1:] for box in lesion.extras["slice_boxes"] if box[0] == lesion.key_z]
        assert own != [lesion.x0, lesion.y0, lesion.x1, lesion.y1]
        assert [x.min(), y.min(), x.max(), y.max()] == pytest.approx(own, abs=1)


def test_a_long_caption_stays_below_its_own_picture():
    tiles = [(Image.new("RGB", (64, 64)), [line]) for line in ("1.2.840." * 12 + "lesion1", "")]
    sheet = np.asarray(contact_sheet(tiles, columns=2, tile=64))
    beside = sheet[:, 8 + 64 + 8 :]
    ink = (sheet[72:, 8:72] > 100).any()
    assert ink
    assert (beside[72:] == sheet[-1, -1]).all()


def test_a_study_date_that_lacks_digits_is_none(tmp_path):
    source = lung_pet_ct_dx(tmp_path / "source", **SMALL)
    head = b"\x08\x00\x20\x00DA\x08\x00"
    for path in source.rglob("*.dcm"):
        data = path.read_bytes()
        at = data.index(head) + len(head)
        path.write_bytes(data[:at] + b"202113  " + data[at + 8 :])
    store = tmp_path / "store"
    convert(source, store)
    lesions = lesionzarr.open(store).lesions
    assert len(lesions)
    assert lesions["study_date"].isna().all()
