"""NIfTI in every order of axes, data type and state of repair, against nibabel and SimpleITK."""

from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
import zipfile

import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionzarr.errors import SettingError, SourceError
from lesionzarr.formats.archive import iter_files
from lesionzarr.formats.nifti import (
    is_same_grid,
    nifti_grid,
    read_nifti,
    read_nifti_header,
    read_nifti_mask,
    write_nifti,
)
from lesionzarr.geometry import Grid

PAIRS = ("RL", "AP", "SI")
ORDERS = ["".join(letters) for axes in itertools.permutations(PAIRS) for letters in itertools.product(*axes)]
RAMP = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6) - 60
AFFINE = np.array([[-0.75, 0, 0, 90.5], [0, 0.5, 0, 120.25], [0, 0, 2.5, -310], [0, 0, 0, 1]])


def only(folder):
    (file,) = iter_files(folder)
    return file


def named(folder, name):
    return next(file for file in iter_files(folder) if file.name == name)


def save(path, voxels, affine=AFFINE, *, change=None, kind=nibabel.Nifti1Image):
    image = kind(voxels, affine)
    if change:
        change(image.header)
    nibabel.save(image, path)
    return named(path.parent, path.name)


def write_raw(path, voxels, affine, slope, inter):
    """Write stored values with a scale: nibabel would choose one of its own."""
    save(path, voxels, affine)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as stream:
        data = bytearray(stream.read())
    struct.pack_into("<ff", data, 112, slope, inter)
    with opened(path, "wb") as stream:
        stream.write(data)
    return named(path.parent, path.name)


def in_lps(path):
    """Voxels (z, y, x) and affine (LPS, of z, y, x) by nibabel."""
    image = nibabel.load(path)
    lps = nibabel.orientations.axcodes2ornt("LPS")
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), lps))
    affine = np.diag([-1, -1, 1, 1]) @ turned.affine
    return np.asarray(turned.dataobj).transpose(2, 1, 0), affine[:3][:, [2, 1, 0, 3]]


@pytest.mark.parametrize(
    "name",
    ["ct_3mm_RAS_int16.nii.gz", "seg_3mm_RAS_uint8.nii.gz", "seg_of_ct_totalsegmentator_abdomen_LAS_uint8.nii.gz"],
)
def test_real_files_are_those_of_nibabel_and_simpleitk(data, name):
    path = data / "nifti" / name
    file = named(data / "nifti", name)
    voxels, grid = read_nifti(file), nifti_grid(read_nifti_header(file))
    expected, affine = in_lps(path)
    np.testing.assert_array_equal(voxels, expected)
    np.testing.assert_array_equal(grid.affine, affine)
    turned = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "LPS")
    np.testing.assert_array_equal(voxels, SimpleITK.GetArrayFromImage(turned))
    assert grid.spacing_mm == pytest.approx(turned.GetSpacing()[::-1])
    np.testing.assert_allclose(np.array(grid.affine)[:, 3], turned.GetOrigin(), atol=1e-5)
    if "seg" in name:
        mask = read_nifti_mask(file)
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_axes_gives_the_same_array(data, tmp_path, order):
    source = nibabel.load(data / "nifti" / "ct_3mm_RAS_int16.nii.gz")
    ornt = nibabel.orientations.axcodes2ornt(order)
    turned = source.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(source.affine), ornt))
    nibabel.save(turned, tmp_path / "turned.nii")
    file = only(tmp_path)
    header = read_nifti_header(file)
    assert header.codes == order == "".join(nibabel.aff2axcodes(turned.affine))
    expected, affine = in_lps(data / "nifti" / "ct_3mm_RAS_int16.nii.gz")
    np.testing.assert_array_equal(read_nifti(file), expected)
    np.testing.assert_allclose(nifti_grid(header).affine, affine, atol=1e-4)


def test_the_axes_grow_to_head_back_and_left(tmp_path):
    grid = nifti_grid(read_nifti_header(save(tmp_path / "a.nii.gz", RAMP)))
    assert grid.orientation == ("inferior-to-superior", "anterior-to-posterior", "right-to-left")
    assert grid.shape == (6, 5, 4)
    assert grid.spacing_mm == (2.5, 0.5, 0.75)
    # LAS: x already grows to the left; the last row of the file, at 120.25 + 4 * 0.5 to the front, is the first here
    assert grid.origin_mm == (-310, -122.25, -90.5)
    np.testing.assert_array_equal(grid.affine, in_lps(tmp_path / "a.nii.gz")[1])


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
def test_both_versions_and_byte_orders_are_read(tmp_path, kind, order):
    header = kind.header_class(endianness=order)
    image = kind(RAMP, AFFINE, header)
    image.header.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_nifti_header(only(tmp_path))
    assert found.dtype == np.dtype(f"{order}i2")
    np.testing.assert_array_equal(read_nifti(only(tmp_path)), in_lps(tmp_path / "a.nii")[0])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "float32", "float64"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_every_data_type_is_read(tmp_path, dtype, ending):
    voxels = np.abs(RAMP).astype(dtype)
    file = save(tmp_path / f"a{ending}", voxels)
    found = read_nifti(file)
    assert found.dtype == np.int16
    np.testing.assert_array_equal(found, in_lps(tmp_path / f"a{ending}")[0])


@pytest.mark.parametrize(("slope", "inter"), [(1, -1024), (0.25, 0), (2, 3), (0.5, -0.5), (0, 7), (float("nan"), 7)])
@pytest.mark.parametrize("dtype", ["int16", "int32", "float32"])
def test_the_scale_is_that_of_nibabel(tmp_path, slope, inter, dtype):
    stored = RAMP * 4 + (1 if slope == 0.5 else 0)
    file = write_raw(tmp_path / "a.nii.gz", stored.astype(dtype), AFFINE, slope, inter)
    np.testing.assert_array_equal(read_nifti(file), in_lps(tmp_path / "a.nii.gz")[0])


def test_floats_next_to_whole_numbers_are_rounded(tmp_path):
    file = save(tmp_path / "a.nii", RAMP + np.float32(4e-4))
    np.testing.assert_array_equal(read_nifti(file), RAMP.transpose(2, 1, 0)[:, ::-1])


@pytest.mark.parametrize("name", ["qform", "sform", "both"])
def test_sform_goes_before_qform(tmp_path, name):
    angle = 0.3
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    qform = np.eye(4)
    qform[:3, :3] = turn @ np.diag([0.7, 0.8, 3.0]) @ np.diag([1, 1, -1])
    qform[:3, 3] = 10, 20, 30
    image = nibabel.Nifti1Image(RAMP, None)
    image.header.set_qform(qform, code=1 if name != "sform" else 0)
    image.header.set_sform(AFFINE, code=2 if name != "qform" else 0)
    nibabel.save(image, tmp_path / "a.nii")
    header = read_nifti_header(only(tmp_path))
    expected = np.diag([-1, -1, 1, 1]) @ nibabel.load(tmp_path / "a.nii").affine
    np.testing.assert_allclose(header.affine, expected[:3], atol=1e-5)
    assert header.affine_from == ("qform" if name == "qform" else "sform")


def test_without_sform_and_qform_the_axes_stay_and_nothing_is_invented(tmp_path):
    def forget(header):
        header.set_sform(None, code=0)
        header.set_qform(None, code=0)
        header.set_zooms((0.75, 0.5, 2.5))

    save(tmp_path / "a.nii", RAMP, None, change=forget)
    header = read_nifti_header(only(tmp_path))
    grid = nifti_grid(header)
    assert (header.affine, header.codes, grid.affine, grid.orientation) == (None, None, None, None)
    assert grid.spacing_mm == (2.5, 0.5, 0.75)
    np.testing.assert_array_equal(read_nifti(only(tmp_path)), RAMP.transpose(2, 1, 0))


@settings(deadline=None, max_examples=60)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6.0)] * 3),
    mirrored=st.booleans(),
    index=st.tuples(st.integers(0, 3), st.integers(0, 4), st.integers(0, 5)),
)
def test_every_voxel_of_an_oblique_image_keeps_its_place(tmp_path_factory, angles, spacing, mirrored, index):
    folder = tmp_path_factory.mktemp("oblique")
    a, b, c = angles
    turn = np.eye(3)
    for axis, angle in enumerate((a, b, c)):
        i, j = [n for n in range(3) if n != axis]
        part = np.eye(3)
        part[i, i] = part[j, j] = np.cos(angle)
        part[i, j], part[j, i] = -np.sin(angle), np.sin(angle)
        turn = turn @ part
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag(spacing) @ np.diag([1, 1, -1 if mirrored else 1])
    affine[:3, 3] = 12, -34, 56
    file = save(folder / "a.nii", RAMP, affine)
    voxels, grid = read_nifti(file), nifti_grid(read_nifti_header(file))
    ((z, y, x),) = np.argwhere(voxels == RAMP[index])
    stored = nibabel.load(folder / "a.nii").affine @ [*index, 1]
    np.testing.assert_allclose(np.array(grid.affine) @ [z, y, x, 1], stored[:3] * [-1, -1, 1], atol=1e-3)
    assert grid.spacing_mm == pytest.approx(tuple(np.linalg.norm(np.array(grid.affine)[:, :3], axis=0)), rel=1e-6)


@pytest.mark.parametrize("order", ORDERS[::5])
def test_a_mask_in_another_order_is_laid_on_its_image(tmp_path, order):
    image = save(tmp_path / "image.nii", RAMP)
    lesion = np.zeros(RAMP.shape, np.uint8)
    lesion[1, 2, 4] = 7
    source = nibabel.Nifti1Image(lesion, AFFINE)
    ornt = nibabel.orientations.axcodes2ornt(order)
    turned = source.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(AFFINE), ornt))
    nibabel.save(turned, tmp_path / "mask.nii.gz")
    mask_file = named(tmp_path, "mask.nii.gz")
    grid = nifti_grid(read_nifti_header(image))
    assert is_same_grid(grid, nifti_grid(read_nifti_header(mask_file), grid))
    assert read_nifti(image)[read_nifti_mask(mask_file, grid) == 7].tolist() == [RAMP[1, 2, 4]]


def test_the_real_mask_lies_on_the_real_dicom_series(data, tmp_path):
    pytest.importorskip("pydicom", reason="the extra dicom is absent")
    from lesionzarr.formats.dicom import find_stacks, read_stack, scan_headers

    (stack,) = find_stacks(scan_headers([data / "ct" / "totalsegmentator_abdomen_J2K_20slices.zip"])).stacks
    file = named(data / "nifti", "seg_of_ct_totalsegmentator_abdomen_LAS_uint8.nii.gz")
    header = read_nifti_header(file)
    assert header.codes == "LAS"
    assert is_same_grid(stack.grid, nifti_grid(header, stack.grid))
    mask = read_nifti_mask(file, stack.grid)
    # organs of TotalSegmentator are denser than air; a mask that is flipped would lie outside of the body
    flipped = mask[:, ::-1]
    voxels = read_stack(stack)
    assert np.mean(voxels[mask > 0] < -300) < np.mean(voxels[flipped > 0] < -300) / 2


def test_wide_masks_stay_wide(tmp_path):
    file = save(tmp_path / "a.nii", np.where(RAMP == 0, 300, 0).astype(np.int32))
    mask = read_nifti_mask(file)
    assert mask.dtype == np.uint16
    assert np.unique(mask).tolist() == [0, 300]


def test_a_member_of_a_zip_is_read_in_place(tmp_path):
    file = save(tmp_path / "a.nii.gz", RAMP)
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.write(tmp_path / "a.nii.gz", "deep/a.nii.gz")
    (member,) = iter_files(tmp_path / "all.zip")
    np.testing.assert_array_equal(read_nifti(member), read_nifti(file))


def test_memory_is_the_array_and_a_few_slices(tmp_path):
    voxels = np.random.default_rng(0).integers(-1024, 2000, (160, 256, 256), dtype=np.int16)
    write_nifti(tmp_path / "a.nii.gz", voxels, Grid(voxels.shape, (1.0, 1.0, 1.0)))
    file = only(tmp_path)
    read_nifti_header(file)
    tracemalloc.start()
    found = read_nifti(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(found, voxels)
    assert peak < voxels.nbytes + 16 * 2**20


def test_reading_the_header_unpacks_no_voxel(tmp_path):
    file = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (64, 64, 64), dtype=np.int16))
    path = tmp_path / "a.nii.gz"
    data = path.read_bytes()
    path.write_bytes(data[:50000] + bytes(len(data) - 50000))
    assert read_nifti_header(file).shape == (64, 64, 64)
    with pytest.raises(SourceError, match=r"a\.nii\.gz: damaged gzip"):
        read_nifti(file)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0, 10, 200, 351, 400, -40, -3])
def test_a_file_that_ends_early_is_refused(tmp_path, ending, kept):
    path = tmp_path / f"a{ending}"
    save(path, np.random.default_rng(0).integers(-1024, 2000, (8, 8, 8), dtype=np.int16))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SourceError, match=r"fetch|is needed"):
        read_nifti(only(tmp_path))


def test_one_wrong_byte_of_a_gzip_is_found(tmp_path):
    path = tmp_path / "a.nii.gz"
    save(path, RAMP)
    data = bytearray(path.read_bytes())
    for position in range(40, len(data) - 4, 9):
        broken = bytearray(data)
        broken[position] ^= 0x20
        path.write_bytes(broken)
        try:
            found = read_nifti(only(tmp_path))
        except SourceError:
            continue
        np.testing.assert_array_equal(found, in_lps(path)[0])


def forge(header, offset, form, *values):
    data = bytearray(header)
    struct.pack_into(form, data, offset, *values)
    return bytes(data)


@pytest.mark.parametrize(
    ("offset", "form", "values", "message"),
    [
        (0, "<i", [12345], "no NIfTI"),
        (344, "<4s", [b"\0\0\0\0"], "ANALYZE"),
        (344, "<4s", [b"ni1\0"], r"\.img"),
        (40, "<5h", [4, 4, 5, 6, 2], "three dimensions"),
        (40, "<3h", [2, 4, 5], "three dimensions"),
        (40, "<4h", [3, 4, -5, 6], "three dimensions"),
        (40, "<4h", [3, 32767, 32767, 32767], "are read"),
        (40, "<4h", [3, 900, 900, 900], "truncated"),
        (70, "<h", [128], "data type 128"),
        (70, "<h", [32], "data type 32"),
        (112, "<ff", [float("inf"), 0], "scale"),
        (108, "<f", [float("nan")], "begin at byte"),
        (280, "<4f", [0, 0, 0, 0], "spans no volume"),
        (280, "<f", [float("nan")], "spans no volume"),
    ],
)
def test_a_header_that_cannot_be_is_refused(tmp_path, offset, form, values, message):
    path = tmp_path / "a.nii"
    save(path, RAMP)
    path.write_bytes(forge(path.read_bytes(), offset, form, *values))
    with pytest.raises(SourceError, match=message) as caught:
        read_nifti_header(only(tmp_path))
    assert caught.value.file == "a.nii"


@pytest.mark.parametrize(
    ("value", "message"),
    [(float("nan"), "NaN"), (float("inf"), "NaN"), (0.4, "whole number"), (40000.0, "int16"), (-3.4e38, "int16")],
)
def test_values_that_are_no_hu_are_refused(tmp_path, value, message):
    voxels = RAMP.astype(np.float32)
    voxels[1, 1, 1] = value
    with pytest.raises(SourceError, match=message):
        read_nifti(save(tmp_path / "a.nii", voxels))


@pytest.mark.parametrize(("value", "dtype"), [(-1, np.int16), (70000, np.int32)])
def test_values_that_are_no_labels_are_refused(tmp_path, value, dtype):
    voxels = np.zeros(RAMP.shape, dtype)
    voxels[0, 0, 0] = value
    with pytest.raises(SourceError, match="labels"):
        read_nifti_mask(save(tmp_path / "a.nii", voxels))


def test_a_trailing_axis_of_one_volume_is_no_fourth_dimension(tmp_path):
    file = save(tmp_path / "a.nii", RAMP[..., None])
    assert read_nifti_header(file).shape == RAMP.shape


@pytest.mark.parametrize("shift", [0.05, 0.2])
def test_grids_are_the_same_within_a_tenth_of_a_voxel(tmp_path, shift):
    grid = nifti_grid(read_nifti_header(save(tmp_path / "a.nii", RAMP)))
    affine = AFFINE.copy()
    affine[0, 3] += shift * 0.75
    moved = nifti_grid(read_nifti_header(save(tmp_path / "b.nii", RAMP, affine)))
    assert is_same_grid(grid, moved) == (shift < 0.1)
    assert not is_same_grid(grid, Grid(grid.shape, grid.spacing_mm))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_written_is_read_by_nibabel_and_simpleitk(tmp_path, dtype, name):
    grid = nifti_grid(read_nifti_header(save(tmp_path / "source.nii", RAMP)))
    voxels = np.abs(read_nifti(named(tmp_path, "source.nii"))).astype(dtype)
    write_nifti(tmp_path / name, voxels, grid)
    found, affine = in_lps(tmp_path / name)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, voxels)
    np.testing.assert_array_equal(affine, grid.affine)
    image = SimpleITK.ReadImage(tmp_path / name)
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image), voxels)
    np.testing.assert_allclose(image.GetOrigin(), np.array(grid.affine)[:, 3])
    first = (tmp_path / name).read_bytes()
    write_nifti(tmp_path / name, voxels, grid)
    assert (tmp_path / name).read_bytes() == first


def test_what_nifti_cannot_hold_is_refused(tmp_path):
    with pytest.raises(SettingError, match="complex"):
        write_nifti(tmp_path / "a.nii", RAMP.astype(np.complex64), Grid(RAMP.shape, (1.0, 1.0, 1.0)))
    with pytest.raises(SettingError, match="grid"):
        write_nifti(tmp_path / "a.nii", RAMP, Grid((9, 9, 9), (1.0, 1.0, 1.0)))
