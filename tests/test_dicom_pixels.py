"""Voxels of stacks: rescale, encodings, multi-frame objects, and files that do not hold what they say."""

from __future__ import annotations

import io
import struct
import sys
import tracemalloc
import zipfile
import zlib

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_rescale
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from test_dicom import AXIAL, ct, encode, kinds, only, read_with_itk, stacks_of, unpack, write

from lesionzarr.errors import MissingExtraError, SourceError
from lesionzarr.formats.dicom import find_stacks, pixels, read_stack, reading, scan_headers
from lesionzarr.formats.dicom.codestream import frame_size

PET = "1.2.840.10008.5.1.4.1.1.128"
ENHANCED = "1.2.840.10008.5.1.4.1.1.2.1"
RNG = np.random.default_rng(3)


def slices(count=3, shape=(6, 4), **values):
    """Slices of random 12-bit pixels and what they hold."""
    arrays = RNG.integers(0, 4096, (count, *shape), np.uint16)
    size = {"Rows": shape[0], "Columns": shape[1]}
    return [ct(n, n, PixelData=array.tobytes(), **size, **values) for n, array in enumerate(arrays)], arrays


def smooth(count=3, syntax=None):
    """Slices of 64 x 48 pixels as encoders like them, encoded, and what they hold."""
    rows, columns = np.mgrid[:64, :48]
    noise = RNG.integers(0, 8, (count, 64, 48))
    arrays = (noise + 20 * rows + 30 * columns).astype(np.uint16)
    files = [ct(n, n, Rows=64, Columns=48, PixelData=array.tobytes()) for n, array in enumerate(arrays)]
    for dataset in files if syntax else ():
        dataset.compress(syntax, generate_instance_uid=False)
    return files, arrays


def read_folder(folder):
    return read_stack(only(stacks_of(folder)))


# -- real files --------------------------------------------------------------------------------------------------------


def by_pydicom(stack):
    """The voxels as pydicom gives them, in float64."""
    planes = []
    for file in stack.files:
        with zipfile.ZipFile(file.root) as archive:
            dataset = pydicom.dcmread(io.BytesIO(archive.read(file.name)))
        planes.append(apply_rescale(dataset.pixel_array, dataset))
    return np.stack(planes)


def test_both_real_series_of_lung_pet_ct_dx_equal_pydicom_and_simpleitk(data, tmp_path):
    archive = data / "lung_pet_ct_dx" / "Lung_Dx-A0002_manifest.zip"
    unpack(archive, tmp_path)
    found = stacks_of(archive)
    assert len(found.stacks) == 2
    for stack in found.stacks:
        voxels = read_stack(stack)
        assert voxels.dtype == np.int16
        np.testing.assert_array_equal(voxels, by_pydicom(stack))
        image = read_with_itk((tmp_path / stack.files[0].name).parent, stack.series_uid)
        np.testing.assert_array_equal(voxels, SimpleITK.GetArrayFromImage(image))


@pytest.mark.parametrize(
    ("name", "count", "low"),
    [("lungmask_hu-2048_2slices", 2, -2048), ("philips_phantom_2.5mm_54slices", 54, -1024)],
)
def test_real_ct_equals_pydicom_down_to_its_padding(data, name, count, low):
    stack = only(stacks_of(data / "ct" / f"{name}.zip"))
    voxels = read_stack(stack)
    assert (len(voxels), voxels.min()) == (count, low)
    np.testing.assert_array_equal(voxels, by_pydicom(stack))


def test_real_jpeg_2000_ct_equals_its_uncompressed_decoding(data, tmp_path):
    archive = data / "ct" / "totalsegmentator_abdomen_J2K_20slices.zip"
    stack = only(stacks_of(archive))
    assert stack.tags["TransferSyntaxUID"] == JPEG2000Lossless
    voxels = read_stack(stack)
    np.testing.assert_array_equal(voxels, by_pydicom(stack))
    plain = unpack(archive, tmp_path / "plain")
    for path in (path for path in plain.rglob("*") if path.is_file()):
        dataset = pydicom.dcmread(path)
        dataset.decompress(generate_instance_uid=False)
        dataset.save_as(path)
    plain_stack = only(stacks_of(plain))
    assert plain_stack.grid == stack.grid
    np.testing.assert_array_equal(voxels, read_stack(plain_stack))
    # SimpleITK decodes with GDCM's own OpenJPEG
    image = SimpleITK.ReadImage([str(plain / file.name) for file in plain_stack.files[:1]])
    np.testing.assert_array_equal(voxels[0], SimpleITK.GetArrayFromImage(image)[0])


def test_real_pet_is_bq_per_ml(data):
    stack = only(stacks_of(data / "pet" / "QIN-HEADNECK-01-0024_WB_60slices.zip"))
    voxels = read_stack(stack)
    expected = by_pydicom(stack)
    assert (stack.modality, stack.tags["Units"], voxels.dtype) == ("PT", "BQML", np.float32)
    np.testing.assert_array_equal(voxels, expected.astype(np.float32))


def test_real_pet_and_ct_in_lossy_jpeg_2000_equal_pydicom(data):
    found = stacks_of(data / "pet" / "Comunix_PETCT_J2K_2+2slices.zip")
    assert sorted(stack.modality for stack in found.stacks) == ["CT", "PT"]
    for stack in found.stacks:
        voxels = read_stack(stack)
        np.testing.assert_array_equal(voxels, by_pydicom(stack).astype(voxels.dtype))


def test_a_real_localizer_beside_a_series_adds_nothing_to_it(data, tmp_path):
    write(tmp_path / "a", *slices(3)[0])
    unpack(data / "ct" / "philips_localizer_and_secondary_captures.zip", tmp_path / "a")
    assert read_folder(tmp_path / "a").shape == (3, 6, 4)


# -- rescale and depth -------------------------------------------------------------------------------------------------


def test_each_slice_has_its_own_rescale(tmp_path):
    files, arrays = slices(3)
    for n, dataset in enumerate(files):
        dataset.RescaleSlope, dataset.RescaleIntercept = n + 1, -1000 * n
    expected = np.stack([array.astype(int) * (n + 1) - 1000 * n for n, array in enumerate(arrays)])
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files)), expected)


def test_a_fraction_of_hu_is_rounded_to_the_nearest(tmp_path):
    files, arrays = slices(2, RescaleSlope=0.75, RescaleIntercept=-100.25)
    expected = np.rint(arrays * 0.75 - 100.25)
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files)), expected)


def test_pet_keeps_fractions_and_the_slope_of_each_slice(tmp_path):
    files, arrays = slices(3, SOPClassUID=PET, Modality="PT", RescaleIntercept=0, Units="BQML")
    slopes = [0.123456, 1.5, 2.0222414]
    for dataset, slope in zip(files, slopes, strict=True):
        dataset.RescaleSlope = slope
    voxels = read_folder(write(tmp_path / "a", *files))
    expected = np.stack([array * slope for array, slope in zip(arrays, slopes, strict=True)])
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(voxels, expected, rtol=1e-7)


def test_signed_pixels_of_16_bits(tmp_path):
    values = np.array([-32768, -2000, -1, 0, 1, 32767], np.int16).repeat(4).reshape(6, 4)
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "RescaleIntercept": 0}
    files = [ct(n, n, PixelData=values.tobytes(), **signed) for n in range(2)]
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files))[1], values)


def test_signed_pixels_of_12_bits_whose_sign_was_not_extended(tmp_path):
    values = np.arange(-12, 12, dtype=np.int16).reshape(6, 4) * 170
    packed = (values & 0x0FFF).astype(np.uint16)
    files = [ct(n, n, PixelData=packed.tobytes(), PixelRepresentation=1, RescaleIntercept=0) for n in range(2)]
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files))[0], values)


def test_bits_above_those_stored_are_no_part_of_the_pixel(tmp_path):
    files, arrays = slices(2)
    for dataset, array in zip(files, arrays, strict=True):
        dataset.PixelData = (array | 0xA000).tobytes()
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files)), arrays.astype(int) - 1024)


def test_pixels_of_8_bits(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(6, 4)
    depth = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    files = [ct(n, n, PixelData=values.tobytes(), **depth) for n in range(2)]
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files))[0], values.astype(int) - 1024)


def test_padding_keeps_its_value_in_hu_and_is_told(tmp_path):
    values = np.full((6, 4), 63536, np.uint16).view(np.int16)
    signed = {"PixelRepresentation": 1, "BitsStored": 16, "HighBit": 15, "PixelPaddingValue": -2000}
    files = [ct(n, n, PixelData=values.tobytes(), **signed, RescaleIntercept=-24) for n in range(2)]
    stack = only(stacks_of(write(tmp_path / "a", *files)))
    assert stack.padding == -2024
    assert np.unique(read_stack(stack)).tolist() == [-2024]


def test_hu_that_leave_16_bits_are_refused(tmp_path):
    files, _ = slices(2)
    files[1].RescaleSlope = 20
    files[1].PixelData = np.full((6, 4), 4000, np.uint16).tobytes()
    write(tmp_path / "a", *files)
    with pytest.raises(SourceError, match=r"dcm: HU from 78976 to 78976 do not fit into 16 bits \(slope 20"):
        read_folder(tmp_path / "a")


# -- encodings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_lossless_encodings_give_what_was_encoded(tmp_path, syntax):
    files, arrays = smooth(3, syntax)
    stack = only(stacks_of(write(tmp_path / "a", *files)))
    assert stack.tags["TransferSyntaxUID"] == syntax
    np.testing.assert_array_equal(read_stack(stack), arrays.astype(int) - 1024)


def jpeg_lossless(array):
    """Encode 16-bit pixels in JPEG Lossless, first-order prediction (T.81, annex H), with a flat Huffman table."""
    rows, columns = array.shape
    left = np.pad(array[:, :-1].astype(int), ((0, 0), (1, 0)))
    left[1:, 0], left[0, 0] = array[:-1, 0], 1 << 15
    bits = ""
    for value in (array - left).ravel().tolist():
        difference = (value + 32768) % 65536 - 32768
        length = abs(difference).bit_length()
        bits += f"{length:05b}"
        if 0 < length < 16:
            bits += f"{difference if difference > 0 else difference + (1 << length) - 1:0{length}b}"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    # table 0 of class 0: 17 codes of 5 bits
    table = bytes([0, 0, 0, 0, 0, 17, *[0] * 11, *range(17)])
    return b"".join(
        [
            b"\xff\xd8\xff\xc3" + struct.pack(">HBHHB3B", 11, 16, rows, columns, 1, 1, 0x11, 0),
            b"\xff\xc4" + struct.pack(">H", 2 + len(table)) + table,
            b"\xff\xda" + struct.pack(">HB2B3B", 8, 1, 1, 0, 1, 0, 0) + scan + b"\xff\xd9",
        ]
    )


def test_jpeg_lossless_gives_what_was_encoded(tmp_path):
    files, arrays = slices(2)
    for dataset, array in zip(files, arrays, strict=True):
        dataset.PixelData = encapsulate([jpeg_lossless(array)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGLosslessSV1
    voxels = read_folder(write(tmp_path / "a", *files))
    np.testing.assert_array_equal(voxels, arrays.astype(int) - 1024)


@pytest.mark.parametrize(
    "syntax", [DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian], ids=lambda uid: uid.name
)
def test_uncompressed_encodings_give_what_was_encoded(tmp_path, syntax):
    files, arrays = slices(3)
    for dataset, array in zip(files, arrays, strict=True):
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = array.astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
        # the encoding is told by the transfer syntax alone
        dataset._read_implicit = dataset._read_little = None
    np.testing.assert_array_equal(read_folder(write(tmp_path / "a", *files)), arrays.astype(int) - 1024)


def test_a_decoder_that_is_not_installed_is_named(tmp_path, monkeypatch):
    stack = only(stacks_of(write(tmp_path / "a", *smooth(2, JPEG2000Lossless)[0])))
    decoder = pydicom.pixels.get_decoder(JPEG2000Lossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(MissingExtraError, match=r"JPEG 2000 Lossless needs .*pip install pylibjpeg pylibjpeg-openjpeg"):
        read_stack(stack)


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lesionzarr\[dicom\]'"):
        scan_headers([tmp_path])


def test_a_transfer_syntax_that_nothing_decodes_is_refused(tmp_path):
    files, _ = slices(2)
    for dataset in files:
        dataset.compress(RLELossless, generate_instance_uid=False)
        # MPEG2, which holds film
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.100"
    stack = only(stacks_of(write(tmp_path / "a", *files)))
    with pytest.raises(SourceError, match=r"transfer syntax 1\.2\.840\.10008\.1\.2\.4\.100 is not known"):
        read_stack(stack)


# -- multi-frame -------------------------------------------------------------------------------------------------------


def item(**values):
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def enhanced(places, arrays, number=1, **values):
    """An enhanced CT object with one frame at each place, and a rescale for each."""
    frames = [
        item(
            PlanePositionSequence=Sequence([item(ImagePositionPatient=[-10, -20, z])]),
            PixelValueTransformationSequence=Sequence([item(RescaleSlope=n + 1, RescaleIntercept=-1024 - n)]),
        )
        for n, z in enumerate(places)
    ]
    shared = item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.7, 0.8], SliceThickness=2.5)]),
        PlaneOrientationSequence=Sequence([item(ImageOrientationPatient=AXIAL)]),
    )
    bare = dict.fromkeys(("PixelSpacing", "ImageOrientationPatient", "RescaleSlope", "RescaleIntercept"))
    given = {"SOPClassUID": ENHANCED, "NumberOfFrames": len(frames), "PixelData": arrays.tobytes(), **bare, **values}
    dataset = ct(number, None, **given)
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    dataset.PerFrameFunctionalGroupsSequence = Sequence(frames)
    return dataset


@pytest.mark.parametrize("syntax", [None, RLELossless], ids=["uncompressed", "RLE"])
def test_frames_of_an_enhanced_ct_are_slices(tmp_path, syntax):
    arrays = RNG.integers(0, 4096, (5, 6, 4), np.uint16)
    dataset = enhanced([10, 0, 5, 20, 15], arrays)
    if syntax:
        dataset.compress(syntax, generate_instance_uid=False)
    stack = only(stacks_of(write(tmp_path / "a", dataset)))
    assert stack.frames == (1, 2, 0, 4, 3)
    assert len(set(stack.files)) == 1
    assert len(stack.files) == len(stack.sop_uids) == 5
    assert stack.grid.affine == ((0, 0, 0.8, -10), (0, 0.7, 0, -20), (5, 0, 0, 0))
    expected = [arrays[n].astype(int) * (n + 1) - 1024 - n for n in stack.frames]
    np.testing.assert_array_equal(read_stack(stack), expected)


def test_an_enhanced_ct_with_a_hole_is_two_stacks_and_two_objects_of_a_series_one(tmp_path):
    arrays = RNG.integers(0, 4096, (6, 6, 4), np.uint16)
    found = stacks_of(write(tmp_path / "hole", enhanced([0, 1, 2, 5, 6, 7], arrays)))
    assert [stack.frames for stack in found.stacks] == [(0, 1, 2), (3, 4, 5)]
    halves = [enhanced([0, 1, 2], arrays[:3], 1), enhanced([3, 4, 5], arrays[3:], 2)]
    stack = only(stacks_of(write(tmp_path / "two", *halves)))
    assert (stack.frames, stack.instance_numbers) == ((0, 1, 2, 0, 1, 2), (1, 1, 1, 2, 2, 2))
    assert read_stack(stack).shape == (6, 6, 4)


def test_an_enhanced_ct_whose_frames_and_groups_differ_in_number_is_left_out(tmp_path):
    dataset = enhanced([0, 1, 2], np.zeros((4, 6, 4), np.uint16))
    dataset.NumberOfFrames = 4
    found = stacks_of(write(tmp_path / "a", dataset))
    assert (found.stacks, kinds(found.left_out)) == ((), {"bad-frames": 1})


# -- files that do not hold what they say ------------------------------------------------------------------------------


def spoil(folder, number, change):
    """Change the bytes of one file after the scan; give the stack of that scan."""
    stack = only(stacks_of(folder))
    path = folder / stack.files[number].name
    path.write_bytes(change(path.read_bytes()))
    return stack, path.name


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param(lambda data: data[:-20], "28 bytes where its size says 48|cannot be parsed", id="cut-off"),
        pytest.param(lambda _: b"", "not a DICOM file", id="empty"),
        pytest.param(lambda _: encode(ct(1, 1, Rows=3, PixelData=bytes(24))), "scan the source again", id="resized"),
        pytest.param(lambda _: encode(ct(1, 1, PixelData=None)), "no pixel data", id="no-pixels"),
        pytest.param(lambda _: encode(ct(1, 1, PixelData=bytes(46))), "46 bytes where", id="wrong-length"),
        pytest.param(lambda _: encode(ct(1, 1, RescaleSlope=None)), "Rescale Slope", id="no-slope"),
    ],
)
def test_a_file_that_changed_after_the_scan_is_named(tmp_path, change, fault):
    stack, name = spoil(write(tmp_path / "a", *slices(3)[0]), 1, change)
    with pytest.raises(SourceError, match=fault) as error:
        read_stack(stack)
    assert name in str(error.value)
    assert error.value.file in {name, f"a/{name}"}


def test_a_file_that_is_gone_is_named(tmp_path):
    stack = only(stacks_of(write(tmp_path / "a", *slices(3)[0])))
    (tmp_path / "a" / stack.files[2].name).unlink()
    with pytest.raises(SourceError, match=f"a/{stack.files[2].name}: cannot be read"):
        read_stack(stack)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_a_damaged_frame_is_an_error_that_names_the_file_or_other_voxels_but_no_crash(tmp_path, syntax):
    folder = write(tmp_path / "a", *smooth(1, syntax)[0])
    stack = only(stacks_of(folder))
    path = folder / stack.files[0].name
    whole = path.read_bytes()
    start = whole.index(b"\xe0\x7f\x10\x00")
    refused = []
    for position in [*range(start, start + 120), *range(start + 120, len(whole), 41)]:
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            voxels = read_stack(stack)
        except SourceError as error:
            refused.append(str(error))
        else:
            assert voxels.shape == (1, 64, 48)
    assert refused
    assert all(path.name in text for text in refused)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.name)
def test_a_frame_that_unpacks_to_more_than_its_header_says_is_not_decoded(tmp_path, syntax):
    large = ct(1, 1, Rows=3000, Columns=3000, PixelData=bytes(2 * 3000 * 3000))
    large.compress(syntax, generate_instance_uid=False)
    assert len(large.PixelData) < 300_000
    large.Rows, large.Columns = 6, 4
    stack = only(stacks_of(write(tmp_path / "a", large)))
    tracemalloc.start()
    try:
        with pytest.raises(SourceError, match="its compressed frame is 3000 x 3000 pixels of 1 components"):
            read_stack(stack)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_deflated_bomb_is_not_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "MAX_INFLATED", 2**24)
    dataset = ct(1, 1)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    whole = encode(dataset)
    start = 144 + struct.unpack_from("<I", whole, 140)[0]
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    folder = write(tmp_path / "a", *slices(2)[0])
    (folder / "bomb.dcm").write_bytes(whole[:start] + bomb)
    tracemalloc.start()
    try:
        headers = scan_headers([folder])
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert [issue.file for issue in headers.issues] == ["bomb.dcm"]
    assert "unpacks to more than 16777216 bytes" in headers.issues[0].message
    assert read_stack(only(find_stacks(headers))).shape == (2, 6, 4)


def test_a_size_beyond_any_slice_is_refused_before_anything_is_allocated(tmp_path, monkeypatch):
    stack = only(stacks_of(write(tmp_path / "a", *slices(2)[0])))
    monkeypatch.setattr(pixels, "MAX_PIXELS", 20)
    with pytest.raises(SourceError, match="more than is read"):
        read_stack(stack)


def test_the_size_of_a_frame_is_read_from_its_own_header():
    (dataset,) = smooth(1, JPEG2000Lossless)[0]
    j2k = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
    assert frame_size(j2k) == (64, 48, 1)
    assert frame_size(jpeg_lossless(np.zeros((5, 7), np.uint16))) == (5, 7, 1)
    assert frame_size(j2k[:20]) is None
    assert frame_size(b"") is frame_size(b"RLE") is frame_size(b"\xff\xd8\xff") is None
