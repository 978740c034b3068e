"""Headers and stacks: what belongs together, in which order, where it lies, and why the rest is left out."""

from __future__ import annotations

import gc
import io
import json
import os
import shutil
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pydicom
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from lesionzarr.formats.dicom import classify, file_headers, find_stacks, header_json, remap_uid, scan_headers
from lesionzarr.formats.dicom.columns import SCHEMA
from lesionzarr.formats.dicom.spacing import even_runs

CT = "1.2.840.10008.5.1.4.1.1.2"
SERIES, STUDY, FRAME = "1.2.3.4", "1.2.3", "1.2.3.9"
AXIAL = [1, 0, 0, 0, 1, 0]
SHEARED = [1, 0, 0, 0, 0.9483237, -0.3173047]


def ct(number, z, **values):
    """One CT slice of 6 x 4 pixels at (-10, -20, z); a value of None takes the attribute out."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CT
    meta.MediaStorageSOPInstanceUID = f"{SERIES}.{number}"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    pixels = np.arange(24, dtype=np.uint16).reshape(6, 4) + 100 * (number % 16)
    given = {
        "SOPClassUID": CT,
        "SOPInstanceUID": f"{SERIES}.{number}",
        "SeriesInstanceUID": SERIES,
        "StudyInstanceUID": STUDY,
        "FrameOfReferenceUID": FRAME,
        "PatientID": "P1",
        "Modality": "CT",
        "InstanceNumber": number,
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "PixelSpacing": [0.7, 0.8],
        "ImagePositionPatient": None if z is None else [-10, -20, z],
        "ImageOrientationPatient": AXIAL,
        "Rows": 6,
        "Columns": 4,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        "PixelData": pixels.tobytes(),
        **values,
    }
    for keyword, value in given.items():
        if value is not None:
            setattr(dataset, keyword, value)
    if "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    return dataset


def encode(dataset):
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def write(folder, *datasets):
    """Write files under names that tell nothing, in an order that is not theirs."""
    folder.mkdir(parents=True, exist_ok=True)
    for dataset in datasets:
        (folder / f"{generate_uid()}.dcm").write_bytes(encode(dataset))
    return folder


def stacks_of(*roots, **options):
    return find_stacks(scan_headers(roots, **options))


def only(found):
    (stack,) = found.stacks
    return stack


def heights(stack):
    """Instance numbers of each stack, in the order of rows."""
    return list(stack.instance_numbers)


def kinds(issues):
    return Counter(issue.kind for issue in issues)


def unpack(archive, folder):
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    return folder


@pytest.fixture(scope="module")
def mixed(data, tmp_path_factory):
    """One folder that holds everything of the real CT data."""
    folder = tmp_path_factory.mktemp("mixed")
    for archive in sorted((data / "ct").glob("*.zip")):
        unpack(archive, folder / archive.stem)
    (folder / "notes.txt").write_text("no image")
    return folder


# -- order and geometry ------------------------------------------------------------------------------------------------


def test_slices_are_ordered_along_the_normal_whatever_the_files_are_called(tmp_path):
    heights_mm = {1: 40.0, 2: 37.5, 3: 35.0, 4: 32.5}
    stack = only(stacks_of(write(tmp_path / "a", *(ct(n, z) for n, z in heights_mm.items()))))
    assert stack.instance_numbers == (4, 3, 2, 1)
    assert stack.grid.shape == (4, 6, 4)
    assert stack.grid.spacing_mm == (2.5, 0.7, 0.8)
    assert stack.grid.orientation == ("inferior-to-superior", "anterior-to-posterior", "right-to-left")
    assert stack.grid.affine == ((0, 0, 0.8, -10), (0, 0.7, 0, -20), (2.5, 0, 0, 32.5))
    assert (stack.volume_id, stack.study_uid, stack.frame_uid, stack.patient_id) == (SERIES, STUDY, FRAME, "P1")
    assert stack.sop_uids == tuple(f"{SERIES}.{n}" for n in (4, 3, 2, 1))
    assert (stack.modality, stack.frames, stack.padding) == ("CT", None, None)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_geometry_of_any_orientation_is_that_of_simpleitk(seed, tmp_path_factory):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    normal = np.cross(rotation[0], rotation[1])
    origin, step = rng.uniform(-200, 200, 3), rng.uniform(0.6, 6)
    orientation = [*map(float, [*rotation[0], *rotation[1]])]
    places = [[*map(float, np.round(origin + n * step * normal, 6))] for n in range(5)]
    orientation = [round(value, 9) for value in orientation]
    folder = tmp_path_factory.mktemp("any")
    slices = (
        ct(9 - n, None, ImagePositionPatient=p, ImageOrientationPatient=orientation) for n, p in enumerate(places)
    )
    stack = only(stacks_of(write(folder, *slices)))
    assert heights(stack) == [9, 8, 7, 6, 5]
    assert_same_geometry(stack, read_with_itk(folder), tolerance=1e-5)


def read_with_itk(folder, series_uid=None):
    reader = SimpleITK.ImageSeriesReader()
    names = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), *([series_uid] if series_uid else []))
    reader.SetFileNames(names)
    return reader.Execute()


def assert_same_geometry(stack, image, tolerance=1e-6):
    """Compare with an image of SimpleITK, which counts x, y, z."""
    affine = np.array(stack.grid.affine)
    direction = np.array(image.GetDirection()).reshape(3, 3)
    assert stack.grid.shape == image.GetSize()[::-1]
    np.testing.assert_allclose(affine[:, 3], image.GetOrigin(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(stack.grid.spacing_mm, image.GetSpacing()[::-1], rtol=0, atol=tolerance)
    np.testing.assert_allclose(affine[:, 2::-1], direction * image.GetSpacing(), rtol=0, atol=tolerance)


def test_gantry_tilt_is_told_and_kept_in_the_affine(tmp_path):
    slices = [ct(n, 2.5 * n, ImageOrientationPatient=SHEARED) for n in range(1, 6)]
    found = stacks_of(write(tmp_path / "tilt", *slices))
    stack = only(found)
    assert [issue.kind for issue in found.issues] == ["gantry-tilt"]
    assert "18.50 degrees" in found.issues[0].message
    assert stack.grid.spacing_mm == (2.5, 0.7, 0.8)
    affine = np.array(stack.grid.affine)
    np.testing.assert_allclose(affine[:, 0], [0, 0, 2.5])
    np.testing.assert_allclose(affine[:, 1], [0, 0.7 * 0.9483237, -0.7 * 0.3173047])


def test_flipped_columns_turn_the_stack_over(tmp_path):
    slices = [ct(n, 2.0 * n, ImageOrientationPatient=[1, 0, 0, 0, -1, 0]) for n in range(1, 4)]
    stack = only(stacks_of(write(tmp_path / "flip", *slices)))
    assert heights(stack) == [3, 2, 1]
    assert stack.grid.orientation == ("superior-to-inferior", "posterior-to-anterior", "right-to-left")


# -- splits ------------------------------------------------------------------------------------------------------------


def test_two_series_of_one_folder_are_two_stacks_and_one_series_of_two_folders_is_one(tmp_path):
    write(tmp_path / "a", *(ct(n, n, SeriesInstanceUID="1.2.5") for n in range(3)), ct(7, 7), ct(8, 8))
    write(tmp_path / "b", ct(9, 9))
    found = stacks_of(tmp_path)
    assert {stack.volume_id: heights(stack) for stack in found.stacks} == {"1.2.3.4": [7, 8, 9], "1.2.5": [0, 1, 2]}
    assert found.issues == found.left_out == ()


def test_the_same_instance_twice_is_read_once(tmp_path):
    slices = [ct(n, n) for n in range(4)]
    for folder in ("a", "b"):
        write(tmp_path / folder, *slices)
    found = stacks_of(tmp_path / "a", tmp_path / "b")
    stack = only(found)
    assert heights(stack) == [0, 1, 2, 3]
    assert {file.root for file in stack.files} == {str(tmp_path / "a")}
    assert kinds(found.left_out) == {"duplicate": 4}


def test_a_missing_slice_parts_a_series_in_two(tmp_path):
    found = stacks_of(write(tmp_path / "a", *(ct(n, 2.5 * n) for n in (1, 2, 3, 5, 6, 7, 8))))
    assert {stack.volume_id: heights(stack) for stack in found.stacks} == {
        SERIES: [1, 2, 3],
        f"{SERIES}_2": [5, 6, 7, 8],
    }
    assert [stack.grid.spacing_mm[0] for stack in found.stacks] == [2.5, 2.5]
    assert [stack.grid.affine[2][3] for stack in found.stacks] == [2.5, 12.5]
    assert kinds(found.issues) == {"uneven-spacing": 1}


def test_a_slice_that_lies_apart_is_a_stack_without_interval(tmp_path):
    found = stacks_of(write(tmp_path / "a", *(ct(n, 2.5 * n) for n in (1, 3, 4, 5))))
    assert [(heights(stack), stack.grid.spacing_mm[0]) for stack in found.stacks] == [([1], None), ([3, 4, 5], 2.5)]
    assert found.stacks[0].grid.affine is None
    assert kinds(found.issues) == {"uneven-spacing": 1, "single-slice": 1}


@pytest.mark.parametrize(
    ("places", "runs"),
    [
        pytest.param([5.0], [(0, 1)], id="one"),
        pytest.param([0, 5, 10, 15], [(0, 4)], id="even"),
        pytest.param([0, 1.2, 2.5, 3.7, 5.0, 6.2], [(0, 6)], id="rounded-to-a-tenth"),
        pytest.param([0, 5, 10, 20, 25, 30], [(0, 3), (3, 6)], id="hole"),
        pytest.param([0, 5, 15, 20], [(0, 2), (2, 4)], id="hole-between-pairs"),
        pytest.param([0, 10, 15, 20], [(0, 1), (1, 4)], id="first-apart"),
        pytest.param([0, 5, 10, 20], [(0, 3), (3, 4)], id="last-apart"),
        pytest.param([0, 5, 10, 15, 17, 19, 21, 23], [(0, 3), (3, 8)], id="finer-part"),
        pytest.param([0, 0.5, 1.5, 2.0], [(0, 2), (2, 4)], id="hole-between-thin-slices"),
        pytest.param([0, 1, 2, 3, 4.2, 5.4, 6.6], [(0, 4), (4, 7)], id="two-spacings"),
    ],
)
def test_runs_are_even(places, runs):
    assert even_runs(np.array(places, float)[:, None]) == runs


@given(st.lists(st.floats(0.3, 12), min_size=1, max_size=40))
@settings(deadline=None)
def test_runs_hold_every_slice_once(gaps):
    places = np.cumsum([0.0, *gaps])[:, None]
    runs = even_runs(places)
    assert [n for start, stop in runs for n in range(start, stop)] == list(range(len(places)))
    for start, stop in runs:
        steps = np.diff(places[start:stop, 0])
        assert steps.size == 0 or np.ptp(steps) <= 4 * max(0.051, 0.01 * steps.mean())


def test_a_sideways_jump_parts_a_series(tmp_path):
    slices = [ct(n, None, ImagePositionPatient=[-10 if n < 4 else -14, -20, n]) for n in range(1, 8)]
    found = stacks_of(write(tmp_path / "a", *slices))
    assert [heights(stack) for stack in found.stacks] == [[1, 2, 3], [4, 5, 6, 7]]


def test_phases_at_one_position_are_told_apart_by_the_acquisition(tmp_path):
    slices = [ct(n + 10 * phase, n, AcquisitionNumber=phase) for phase in (1, 2) for n in range(4)]
    found = stacks_of(write(tmp_path / "a", *slices))
    assert [heights(stack) for stack in found.stacks] == [[10, 11, 12, 13], [20, 21, 22, 23]]
    assert "told apart by Acquisition Number" in found.issues[0].message


def test_images_at_one_position_that_nothing_tells_apart_are_parted_by_number(tmp_path):
    found = stacks_of(write(tmp_path / "a", *(ct(n, n) for n in range(5)), ct(50, 2)))
    assert [heights(stack) for stack in found.stacks] == [[0, 1, 2, 3, 4], [50]]
    assert kinds(found.issues) == {"same-position": 1, "single-slice": 1}


@pytest.mark.parametrize(
    "other",
    [
        {"Rows": 3, "PixelData": bytes(24)},
        {"PixelSpacing": [0.6, 0.8]},
        {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]},
        {"FrameOfReferenceUID": "1.2.99"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_size_spacing_orientation_or_frame_is_another_stack(tmp_path, other):
    found = stacks_of(write(tmp_path / "a", *(ct(n, n) for n in range(4)), ct(9, 9, **other)))
    assert [heights(stack) for stack in found.stacks] == [[0, 1, 2, 3], [9]]
    assert kinds(found.issues) == {"mixed-geometry": 1, "single-slice": 1}


def test_a_rounded_orientation_is_the_same(tmp_path):
    slices = [ct(n, n, ImageOrientationPatient=[1, 0, n * 1e-6, 0, 1, 0]) for n in range(5)]
    assert only(stacks_of(write(tmp_path / "a", *slices))).grid.shape == (5, 6, 4)


# -- attributes that are missing ---------------------------------------------------------------------------------------


def test_without_positions_the_slice_location_gives_order_and_interval(tmp_path):
    found = stacks_of(write(tmp_path / "a", *(ct(n, None, SliceLocation=100 - 3 * n) for n in range(4))))
    stack = only(found)
    assert (heights(stack), stack.grid.spacing_mm[0], stack.grid.affine) == ([3, 2, 1, 0], 3.0, None)
    assert "ordered by Slice Location" in found.issues[0].message


def test_without_any_position_the_instance_number_gives_the_order(tmp_path):
    found = stacks_of(write(tmp_path / "a", *(ct(n, None) for n in (3, 1, 2))))
    stack = only(found)
    assert (heights(stack), stack.grid.spacing_mm, stack.grid.affine) == ([1, 2, 3], (None, 0.7, 0.8), None)
    assert stack.grid.orientation is None
    assert "ordered by Instance Number" in found.issues[0].message


def test_without_pixel_spacing_an_object_is_left_out_unless_the_imager_spacing_is_there(tmp_path):
    found = stacks_of(write(tmp_path / "a", *(ct(n, n, PixelSpacing=None) for n in range(3))))
    assert found.stacks == ()
    assert kinds(found.left_out) == {"no-spacing": 3}
    spacing = {"PixelSpacing": None, "ImagerPixelSpacing": [0.5, 0.5]}
    found = stacks_of(write(tmp_path / "b", *(ct(n, n, **spacing) for n in range(3))))
    assert only(found).grid.spacing_mm == (1.0, 0.5, 0.5)
    assert kinds(found.issues) == {"imager-spacing": 1}


def test_an_orientation_that_is_none_counts_as_absent(tmp_path):
    slices = [ct(n, n, ImageOrientationPatient=[1, 0, 0, 1, 0, 0]) for n in range(3)]
    assert only(stacks_of(write(tmp_path / "a", *slices))).grid.affine is None


def test_a_series_uid_that_is_no_uid_is_not_used_as_a_name(tmp_path):
    slices = [ct(n, n) for n in range(3)]
    for dataset in slices:
        dataset["SeriesInstanceUID"]._value = "../../etc"
    found = stacks_of(write(tmp_path / "a", *slices))
    assert only(found).volume_id.startswith("2.25.")
    assert kinds(found.issues) == {"no-series-uid": 1}
    assert only(stacks_of(tmp_path / "a")).volume_id == only(found).volume_id


def test_the_order_of_the_files_changes_nothing(tmp_path):
    write(tmp_path / "a", *(ct(n, 2.5 * n) for n in (1, 2, 3, 5, 6)), ct(6, 15), ct(7, 2.5, PixelSpacing=[1, 1]))
    headers = scan_headers([tmp_path / "a"])
    turned = type(headers)(headers.table.take(list(range(headers.table.num_rows))[::-1]), ())
    assert find_stacks(headers) == find_stacks(turned)


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "kind", "reason"),
    [
        ({"PixelData": b""}, "no-pixel-data", "length 0"),
        ({"PixelData": bytes(46)}, "wrong-length", "46 bytes where its size says 48"),
        ({"PixelData": bytes(60)}, "wrong-length", "60 bytes where its size says 48"),
        ({"Rows": 60000, "Columns": 60000}, "too-large", "60000 x 60000"),
        ({"NumberOfFrames": 2**31 - 1}, "too-large", "2147483647 frames"),
        ({"RescaleSlope": None}, "no-rescale", "Rescale Slope"),
        ({"RescaleSlope": 0}, "no-rescale", "or 0"),
        ({"RescaleType": "HU_MOD"}, "not-hu", "HU_MOD"),
        ({"PixelSpacing": [0, 0]}, "no-spacing", "not positive"),
        ({"BitsAllocated": 12}, "bad-pixels", "12 bits"),
        ({"NumberOfFrames": 2, "PixelData": bytes(96)}, "bad-frames", "functional groups"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, "other", "neither CT nor PET"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_one_bad_slice_is_left_out_with_its_reason_and_the_rest_is_kept(tmp_path, values, kind, reason):
    found = stacks_of(write(tmp_path / "a", *(ct(n, n) for n in range(4)), ct(4, 4, **values)))
    assert heights(only(found)) == [0, 1, 2, 3]
    (issue,) = found.left_out
    assert (issue.kind, issue.item) == (kind, SERIES)
    assert reason in issue.message
    assert issue.file in issue.message


def test_files_that_are_cut_off_or_no_dicom_are_named(tmp_path):
    folder = write(tmp_path / "a", *(ct(n, n) for n in range(3)))
    whole = encode(ct(7, 7))
    start = whole.index(b"\xe0\x7f\x10\x00")
    bad = {
        "pixels.dcm": ("truncated", whole[:-10], "cut off: "),
        "header.dcm": ("truncated", whole[: start - 60], "before its pixel data"),
        "element.dcm": ("truncated", whole[: start + 6], "before its pixel data"),
        "mark.dcm": ("not-dicom", whole[:140], ""),
        "text.dcm": ("not-dicom", b"x" * 500, "no DICM mark"),
        "empty.dcm": ("not-dicom", b"", "no DICM mark"),
        "noise.dcm": ("not-dicom", whole[:132] + np.random.default_rng(0).bytes(900), ""),
    }
    for name, (_, content, _) in bad.items():
        (folder / name).write_bytes(content)
    headers = scan_headers([folder])
    assert headers.table.num_rows == len(find_stacks(headers).stacks[0].files) + len(find_stacks(headers).left_out)
    assert heights(only(find_stacks(headers))) == [0, 1, 2]
    told = {issue.file: issue for issue in headers.issues} | {i.file: i for i in find_stacks(headers).left_out}
    assert set(told) == set(bad)
    for name, (kind, _, reason) in bad.items():
        if name in {"pixels.dcm", "header.dcm", "element.dcm", "text.dcm", "empty.dcm"}:
            assert told[name].kind == kind
        assert told[name].message.startswith(name)
        assert reason in told[name].message


def test_a_header_cut_off_anywhere_stops_nothing(tmp_path):
    folder = write(tmp_path / "a", ct(1, 1), ct(2, 2))
    whole = encode(ct(3, 3))
    for length in range(0, len(whole) - 1, 7):
        (folder / f"cut{length}").write_bytes(whole[:length])
    headers = scan_headers([folder])
    assert heights(only(find_stacks(headers))) == [1, 2]


def test_damaged_and_absent_roots_are_told_and_the_others_are_read(tmp_path):
    (tmp_path / "bad.zip").write_bytes(b"PK no zip")
    headers = scan_headers([tmp_path / "bad.zip", tmp_path / "absent", write(tmp_path / "a", ct(1, 1), ct(2, 2))])
    assert [issue.kind for issue in headers.issues] == ["bad-root", "bad-root"]
    assert headers.table.num_rows == 2


def test_members_that_point_out_of_a_zip_are_left_out(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("../out.dcm", encode(ct(1, 1)))
        file.writestr("in/1.dcm", encode(ct(2, 2)))
    headers = scan_headers([tmp_path / "a.zip"])
    assert headers.table.column("name").to_pylist() == ["in/1.dcm"]
    assert [issue.kind for issue in headers.issues] == ["escaping-name"]


# -- what an object is -------------------------------------------------------------------------------------------------


def row(**values):
    return dict.fromkeys(SCHEMA.names) | {"rows": 512, "columns": 512, "samples": 1} | values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"sop_class_uid": CT}, "CT"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.2.1"}, "CT"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.128"}, "PT"),
        ({"sop_class_uid": CT, "image_type": "ORIGINAL\\PRIMARY\\LOCALIZER"}, "localizer"),
        ({"sop_class_uid": CT, "image_type": "ORIGINAL\\PRIMARY\\LOCALIZER\\CT_SOM5 TOP"}, "localizer"),
        ({"sop_class_uid": CT, "image_type": "DERIVED\\SECONDARY\\SCREEN SAVE"}, "secondary-capture"),
        ({"sop_class_uid": CT, "image_type": "DERIVED\\SECONDARY\\AXIAL\\MIP"}, "other"),
        ({"sop_class_uid": CT, "image_type": "DERIVED\\PRIMARY\\MPR"}, "CT"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7"}, "secondary-capture"),
        (
            {"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7", "samples": 3, "series_description": "Fused Trans"},
            "fused-rgb",
        ),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.7", "series_description": "Dose Report"}, "dose-page"),
        ({"sop_class_uid": CT, "samples": 3}, "secondary-capture"),
        ({"sop_class_uid": "1.2.840.10008.1.3.10", "rows": None}, "directory"),
        ({"sop_class_uid": "1.2.840.10008.5.1.4.1.1.88.67", "rows": None}, "other"),
        ({"modality": "CT"}, "CT"),
        ({"modality": "MR"}, "other"),
        ({}, "other"),
    ],
    ids=str,
)
def test_objects_are_told_apart(values, kind):
    found, reason = classify(row(**values))
    assert found == kind
    assert reason


def test_without_class_and_modality_other_attributes_decide():
    geometry = {"position": [0, 0, 0], "orientation": AXIAL, "pixel_spacing": [1, 1], "slope": 1.0}
    assert classify(row(intercept=-1024.0, **geometry))[0] == "CT"
    assert classify(row(intercept=0.0, units="BQML", **geometry))[0] == "PT"
    assert classify(row(intercept=0.0, **geometry))[0] == "other"


# -- real files --------------------------------------------------------------------------------------------------------


def test_a_folder_of_all_real_ct_gives_its_three_volumes_and_a_reason_for_all_else(mixed):
    headers = scan_headers([mixed])
    found = find_stacks(headers)
    modalities = {stack.grid.shape[0]: stack.modality for stack in found.stacks}
    assert modalities == {2: "CT", 20: "CT", 54: "CT"}
    left_out = {issue.file.split("/", 1)[1]: issue.kind for issue in found.left_out}
    assert left_out == {
        "S21570/S1000/DIRFILE": "directory",
        "S21570/S1000/I10": "localizer",
        "S21570/S4010/I10": "secondary-capture",
        "S21610/S4010/I40": "dose-page",
    }
    assert [issue.file for issue in headers.issues] == ["notes.txt"]
    files = sum(path.is_file() for path in mixed.rglob("*"))
    assert files == sum(len(stack.files) for stack in found.stacks) + len(found.left_out) + len(headers.issues)


def test_the_real_series_of_lung_pet_ct_dx_lie_where_simpleitk_says(data, tmp_path):
    archive = data / "lung_pet_ct_dx" / "Lung_Dx-A0002_manifest.zip"
    found = stacks_of(archive)
    assert [stack.tags["ConvolutionKernel"] for stack in found.stacks] == ["B40f", "B70f"]
    unpack(archive, tmp_path)
    for stack in found.stacks:
        assert stack.grid.shape == (30, 512, 512)
        assert heights(stack) == list(range(30, 0, -1))
        folder = (tmp_path / stack.files[0].name).parent
        assert_same_geometry(stack, read_with_itk(folder, stack.series_uid))


def test_the_real_tilted_series_is_flagged_and_its_corners_are_where_the_tags_say(mixed):
    found = find_stacks(scan_headers([mixed]))
    (tilted,) = [stack for stack in found.stacks if stack.grid.shape[0] == 54]
    assert [issue.item for issue in found.issues if issue.kind == "gantry-tilt"] == [tilted.volume_id]
    affine = np.array(tilted.grid.affine)
    for number in (0, 17, 53):
        header = pydicom.dcmread(Path(tilted.files[number].root) / tilted.files[number].name, stop_before_pixels=True)
        np.testing.assert_allclose(affine @ [number, 0, 0, 1], header.ImagePositionPatient, atol=1e-6)
        across, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
        corner = header.ImagePositionPatient + 511 * (header.PixelSpacing[0] * down + header.PixelSpacing[1] * across)
        np.testing.assert_allclose(affine @ [number, 511, 511, 1], corner, atol=1e-6)


# -- index and workers -------------------------------------------------------------------------------------------------


def test_an_index_gives_the_same_table_and_reads_only_what_has_changed(tmp_path):
    folder, index = write(tmp_path / "a", *(ct(n, n) for n in range(5))), tmp_path / "cache" / "headers.parquet"
    first = scan_headers([folder], index=index)
    names = sorted(path.name for path in folder.iterdir())
    # the first file becomes unreadable without its size or time changing: a row that is there was not read again
    status = (folder / names[0]).stat()
    (folder / names[0]).write_bytes(bytes(status.st_size))
    os.utime(folder / names[0], ns=(status.st_atime_ns, status.st_mtime_ns))
    assert scan_headers([folder], index=index).table.sort_by("name").equals(first.table.sort_by("name"))
    (folder / names[0]).write_bytes(encode(ct(77, 77)) + b"\0" * 2)
    (folder / names[1]).unlink()
    again = scan_headers([folder], index=index)
    assert sorted(again.table.column("name").to_pylist()) == [names[0], *names[2:]]
    assert 77 in again.table.column("instance_number").to_pylist()
    assert pq.read_table(index).num_rows == 4
    assert [path.name for path in index.parent.iterdir()] == ["headers.parquet"]


@pytest.mark.parametrize("content", [b"no parquet", None], ids=["damaged", "other-columns"])
def test_an_index_that_cannot_be_used_is_made_anew(tmp_path, content):
    folder, index = write(tmp_path / "a", *(ct(n, n) for n in range(3))), tmp_path / "i.parquet"
    if content is None:
        pq.write_table(scan_headers([folder]).table.drop_columns(["slope"]), index)
    else:
        index.write_bytes(content)
    assert scan_headers([folder], index=index).table.num_rows == 3
    assert pq.read_table(index).schema.equals(SCHEMA, check_metadata=True)


def test_several_workers_give_the_same_table(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        for number in range(600):
            file.writestr(f"{number}.dcm", encode(ct(number, number)) if number % 100 else b"none")
    one, two = (scan_headers([tmp_path / "a.zip"], workers=workers) for workers in (1, 2))
    assert one.table.equals(two.table)
    assert one.issues == two.issues
    assert (one.table.num_rows, len(one.issues)) == (594, 6)


def test_memory_grows_with_the_table_and_no_more(tmp_path):
    """A pydicom dataset of these headers takes some 20 kB; a hundred thousand would be 2 GB."""
    template = encode(ct(10**7, 0))
    for name, count in (("few", 300), ("many", 4000)):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as file:
            for number in range(count):
                file.writestr(f"{number}.dcm", template.replace(b"10000000", b"%08d" % (10**7 + number)))
    scan_headers([tmp_path / "few.zip"])
    gc.collect()
    process = psutil.Process()
    before = process.memory_info().rss
    headers = scan_headers([tmp_path / "many.zip"])
    grown = process.memory_info().rss - before
    assert headers.table.num_rows == len(set(headers.table.column("sop_instance_uid").to_pylist())) == 4000
    assert headers.table.nbytes / 4000 < 1000
    assert grown / 4000 < 5000


# -- de-identification -------------------------------------------------------------------------------------------------


def named(number, z):
    dataset = ct(number, z, PatientName="Doe^Jane^Anna", PatientBirthDate="19500102", InstitutionName="St Elsewhere")
    dataset.SeriesDescription = "Thorax DOE recon"
    dataset.StudyDescription = "Chest routine"
    dataset.ReferringPhysicianName = "House^Gregory"
    dataset.AccessionNumber = "ACC-4711"
    dataset.PatientAddress = "12 Elm Street"
    dataset.OtherPatientIDs = "SSN-0815"
    dataset.PatientComments = "Jane told me"
    dataset.add_new((0x0029, 0x0010), "LO", "SECRET VENDOR")
    dataset.add_new((0x0029, 0x1010), "LO", "private Jane Doe")
    return dataset


SECRETS = ["doe", "jane", "19500102", "elsewhere", "house", "4711", "elm", "0815", "private", "secret"]


def test_names_birth_dates_and_private_elements_reach_neither_table_nor_tags(tmp_path):
    headers = scan_headers([write(tmp_path / "a", *(named(n, n) for n in range(3)))], index=tmp_path / "i.parquet")
    stack = only(find_stacks(headers))
    table = headers.table.drop_columns(["root", "name"])
    for text in (json.dumps(stack.tags), str(table.to_pylist())):
        assert [secret for secret in SECRETS if secret in text.lower()] == []
    assert stack.tags["StudyDescription"] == "Chest routine"
    assert "SeriesDescription" not in stack.tags


def test_tags_are_json_and_hold_what_is_the_same_in_all_slices(tmp_path):
    kernels = {"ConvolutionKernel": "B40f", "KVP": 120}
    stack = only(stacks_of(write(tmp_path / "a", *(ct(n, n, ProtocolName=f"p{n}", **kernels) for n in range(3)))))
    assert json.loads(json.dumps(stack.tags, allow_nan=False)) == stack.tags
    assert (stack.tags["ConvolutionKernel"], stack.tags["KVP"]) == ("B40f", 120.0)
    assert "ProtocolName" not in stack.tags


def test_full_headers_are_told_once_and_then_by_their_differences(tmp_path):
    stack = only(stacks_of(write(tmp_path / "a", *(named(n, n) for n in range(3)))))
    headers = file_headers(stack.files)
    assert headers["common"]["00100010"]["Value"] == [{"Alphabetic": "Doe^Jane^Anna"}]
    assert [entry["00200013"]["Value"] for entry in headers["files"]] == [[0], [1], [2]]
    assert all(set(entry) == {"00080018", "00200013", "00200032"} for entry in headers["files"])
    assert "7FE00010" not in headers["common"]
    again = Dataset.from_json({**headers["common"], **headers["files"][1]})
    assert again.ImagePositionPatient == [-10, -20, 1]


def test_a_header_in_json_holds_no_pixels_at_any_depth():
    dataset = ct(1, 1)
    icon = Dataset()
    icon.Rows = 2
    icon.add_new((0x7FE0, 0x0010), "OW", bytes(8))
    dataset.IconImageSequence = Sequence([icon])
    dataset.add_new((0x0029, 0x1010), "OB", bytes(5000))
    found = header_json(dataset)
    assert "7FE00010" not in json.dumps(found)
    assert "00291010" not in found
    assert "PixelData" in dataset
    assert "PixelData" in dataset.IconImageSequence[0]
    assert found["00880200"]["Value"][0]["00280010"]["Value"] == [2]


def test_uids_are_mapped_the_same_by_the_same_key_only():
    uid = remap_uid("1.2.3", b"key")
    assert uid == remap_uid("1.2.3", b"key")
    assert len({uid, remap_uid("1.2.3", b"other"), remap_uid("1.2.4", b"key")}) == 3
    assert pydicom.uid.UID(uid).is_valid
    # printf 1.2.3 | openssl dgst -sha256 -hmac key
    assert hex(int(uid.removeprefix("2.25."))) == "0xfdd9cca0781e88dd483c471bf289dbdb"


def test_a_vendor_s_private_factors_are_read_by_their_creator(tmp_path):
    def pet(number):
        dataset = ct(number, number, SOPClassUID="1.2.840.10008.5.1.4.1.1.128", Modality="PT", Units="CNTS")
        dataset.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.000551")
        other = dataset.private_block(0x0009, "SOMEONE ELSE", create=True)
        other.add_new(0x0D, "DT", "20200101")
        dataset.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20200101101500")
        return dataset

    found = stacks_of(write(tmp_path / "a", *(pet(n) for n in range(3))))
    stack = only(found)
    assert stack.tags["PhilipsSUVScaleFactor"] == 0.000551
    assert stack.tags["GEPrivatePostInjectionDateTime"] == "20200101101500"
    assert kinds(found.issues) == {"other-units": 1}


def test_links_that_go_round_end(tmp_path):
    folder = write(tmp_path / "a", ct(1, 1), ct(2, 2))
    (folder / "again").symlink_to(folder)
    found = stacks_of(folder)
    assert heights(only(found)) == [1, 2]
    shutil.rmtree(folder)
