"""CT and PET of one study: which belong together, and crops with a channel of each, against SimpleITK's resampling."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its own short name
from hypothesis import given, settings
from hypothesis import strategies as st

import lesionzarr
from lesionzarr.errors import GeometryError, NotFoundError, SettingError
from lesionzarr.geometry import Grid
from lesionzarr.lesion import Lesion
from lesionzarr.samples import lung_pet_ct_dx
from lesionzarr.series import SourceFile, Volume
from lesionzarr.store.index import write_catalog
from lesionzarr.store.location import open_location
from lesionzarr.store.writer import create_store, write_volume

NAME = "lung-pet-ct-dx"
SMALL = {"subjects": 2, "image_size": 64, "slices": 10}
SIZE = (7, 40, 48)
WINDOW = (0.0, 8.0)


def series(folder):
    """Path by SeriesInstanceUID, in no order, with one header each."""
    found = {}
    for path in folder.rglob("*.dcm"):
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        found.setdefault(str(dataset.SeriesInstanceUID), (dataset, []))[1].append(path)
    return found


def itk(paths):
    """Read a series by SimpleITK, lowest z first, with the rescale of each slice by pydicom: GDCM's takes one slope."""
    datasets = sorted((pydicom.dcmread(path) for path in paths), key=lambda d: float(d.ImagePositionPatient[2]))
    values = np.stack([d.pixel_array * float(d.RescaleSlope) + float(d.RescaleIntercept) for d in datasets])
    image = sitk.GetImageFromArray(values)
    first, last = datasets[0], datasets[-1]
    step = (float(last.ImagePositionPatient[2]) - float(first.ImagePositionPatient[2])) / (len(datasets) - 1)
    rows, columns = map(float, first.PixelSpacing)
    image.SetSpacing((columns, rows, step))
    image.SetOrigin([float(value) for value in first.ImagePositionPatient])
    return image


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return lung_pet_ct_dx(tmp_path_factory.mktemp("study") / "lung", **SMALL)


@pytest.fixture(scope="module")
def catalog(source, tmp_path_factory):
    store = tmp_path_factory.mktemp("study_store") / "lung.zarr"
    assert not lesionzarr.convert(NAME, source, store).failed
    return lesionzarr.open(store)


@pytest.fixture(scope="module")
def ids(catalog):
    """Lesions of the subject that has a PET."""
    return list(catalog.lesions.index[catalog.lesions["volume_id"].isin(catalog.pairs["ct"])])


@pytest.fixture(scope="module")
def reader(catalog):
    return lesionzarr.StudyReader(catalog, size=SIZE, window=["lung", "mediastinum"], pet_window=WINDOW)


def converted(tmp_path, *quirks, sheet=True):
    folder = lung_pet_ct_dx(tmp_path / "lung", quirks=quirks, **SMALL)
    if not sheet:
        next(folder.glob("statistics-clinical-*.xlsx")).unlink()
    lesionzarr.convert(NAME, folder, tmp_path / "s.zarr")
    return lesionzarr.open(tmp_path / "s.zarr")


def of_pairs(catalog):
    return list(catalog.lesions.index[catalog.lesions["volume_id"].isin(catalog.pairs["ct"])])


# what belongs together


def test_pairs_share_study_and_frame_of_reference(catalog, source):
    headers = {uid: dataset for uid, (dataset, _) in series(source).items()}
    expected = {
        (ct, pet)
        for ct, a in headers.items()
        for pet, b in headers.items()
        if (a.Modality, b.Modality) == ("CT", "PT") and a.FrameOfReferenceUID == b.FrameOfReferenceUID
    }
    assert len(expected) == 2
    assert set(zip(catalog.pairs["ct"], catalog.pairs["pet"], strict=True)) == expected
    # ten slices of a CT 5 mm apart, all of them inside of the PET
    assert list(catalog.pairs["overlap_mm"]) == [45.0, 45.0]


def test_a_study_lists_its_series_with_kernel_and_suv(catalog, source):
    headers = {uid: dataset for uid, (dataset, _) in series(source).items()}
    study_id = str(headers[catalog.pairs["pet"][0]].StudyInstanceUID)
    table = catalog.study(study_id)
    assert set(table.index) == {uid for uid, dataset in headers.items() if dataset.StudyInstanceUID == study_id}
    for uid, row in table.iterrows():
        assert (row["modality"], row["description"]) == (headers[uid].Modality, headers[uid].SeriesDescription)
        if row["modality"] == "CT":
            assert row["kernel"] == headers[uid].ConvolutionKernel
        else:
            assert row["suv_factor"] > 0
    with pytest.raises(NotFoundError, match="study"):
        catalog.study("1.2.3")


# against SimpleITK


def halfway(ct, pet):
    """Voxels of an image that lie halfway between two of another whose axes run the same way."""
    found = np.zeros(ct.GetSize()[::-1], dtype=bool)
    for axis in range(3):
        places = ct.GetOrigin()[axis] + np.arange(ct.GetSize()[axis]) * ct.GetSpacing()[axis]
        index = (places - pet.GetOrigin()[axis]) / pet.GetSpacing()[axis]
        shape = [1, 1, 1]
        shape[2 - axis] = -1
        found |= (np.abs(index % 1 - 0.5) < 1e-6).reshape(shape)
    return found


def shown(grid_size, crop):
    """Slices of the volume that a crop shows, and those of the crop that lie in the volume."""
    starts = [round(start) for start in crop.origin]
    inside = [slice(max(0, -a), min(n, size - a)) for a, n, size in zip(starts, SIZE, grid_size, strict=True)]
    there = [slice(a + part.start, a + part.stop) for a, part in zip(starts, inside, strict=True)]
    return tuple(there), tuple(inside)


@pytest.mark.parametrize(
    ("interpolation", "method"), [("linear", sitk.sitkLinear), ("nearest", sitk.sitkNearestNeighbor)]
)
def test_the_pet_channel_is_that_of_simpleitk_on_the_grid_of_the_ct(catalog, source, ids, interpolation, method):
    files = series(source)
    reader = lesionzarr.StudyReader(
        catalog, size=SIZE, window="lung", dtype="float32", pet_window=WINDOW, interpolation=interpolation
    )
    for lesion_id in ids:
        crop = reader.read(lesion_id)
        pet_id = catalog.pairs["pet"][0]
        assert crop.pet_volume_id == pet_id
        ct, pet = itk(files[crop.lesion.volume_id][1]), itk(files[pet_id][1])
        ct = sitk.Cast(ct, sitk.sitkFloat64)
        on_ct = sitk.GetArrayFromImage(sitk.Resample(pet, ct, sitk.Transform(), method, 0.0))
        inside = sitk.GetArrayFromImage(
            sitk.Resample(sitk.Cast(pet * 0 + 1, sitk.sitkUInt8), ct, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
        )
        dataset = files[pet_id][0]
        tracer = dataset.RadiopharmaceuticalInformationSequence[0]
        injected, began = (
            int(text[:2]) * 3600 + int(text[2:4]) * 60 + float(text[4:])
            for text in (tracer.RadiopharmaceuticalStartTime, dataset.SeriesTime)
        )
        decayed = float(tracer.RadionuclideTotalDose) * 2 ** (-(began - injected) / float(tracer.RadionuclideHalfLife))
        suv = on_ct * 1000 * float(dataset.PatientWeight) / decayed
        expected = np.clip((suv - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1)
        there, part = shown(catalog.grid(crop.lesion.volume_id).shape, crop)
        got, right = crop.image[1][part], expected[there]
        assert got.max() > 0.5
        if interpolation == "linear":
            np.testing.assert_allclose(got, right, atol=2e-6)
        else:
            # a CT voxel halfway between two of the PET may go to either
            clear = ~halfway(ct, pet)[there]
            assert clear.mean() > 0.3
            np.testing.assert_allclose(got[clear], right[clear], atol=2e-6)
        np.testing.assert_array_equal(crop.pet_valid[part], inside[there] == 1)
        # centre -700, width 1400
        hu = np.clip((sitk.GetArrayFromImage(ct)[there] + 1400) / 1400, 0, 1)
        np.testing.assert_allclose(crop.image[0][part], hu, atol=1e-6)


def test_ct_channels_are_those_of_a_crop(catalog, reader, ids):
    plain = lesionzarr.CropReader(catalog, size=SIZE, window=["lung", "mediastinum"])
    batch = reader.read_batch(ids)
    assert (batch.image.shape, batch.image.dtype) == ((len(ids), 3, *SIZE), np.uint8)
    np.testing.assert_array_equal(batch.image[:, :2], plain.read_batch(ids).image)


def test_outside_of_the_pet_is_the_low_end_and_not_valid(catalog, ids):
    lesion = catalog.find_lesions(ids)[0]
    far = dataclasses.replace(lesion, z0=-200.0, z1=-200.0, key_z=None)
    crop = lesionzarr.StudyReader(catalog, size=(3, 8, 8), window="lung", pet_window=WINDOW).read(far)
    assert not crop.pet_valid.any()
    assert not crop.valid.any()
    assert not crop.image[1].any()


def test_units_differ_by_their_factors(catalog, ids):
    pet_id = catalog.pairs["pet"][0]
    suv = catalog.array(pet_id).tags["SUV"]
    images = {}
    for unit, factor in (
        ("bqml", 1.0),
        ("suv_bw", suv["body_weight"]),
        ("suv_lbm", suv["lean_body_mass"]),
        ("suv_bsa", suv["body_surface"]),
    ):
        window = (0.0, 40_000 * factor)
        reader = lesionzarr.StudyReader(
            catalog, size=SIZE, window="lung", dtype="float32", pet_window=window, pet_unit=unit
        )
        images[unit] = reader.read(ids[0]).image[1]
    for image in images.values():
        np.testing.assert_allclose(image, images["bqml"], atol=1e-6)
    assert images["bqml"].max() > 0.2


# every way to the same image


def test_every_delivery_gives_the_same_images(reader, ids):
    expected = reader.read_batch(ids).image
    np.testing.assert_array_equal(np.stack([reader.read(lesion_id).image for lesion_id in ids]), expected)
    np.testing.assert_array_equal(reader.read_batch(ids, threads=1).image, expected)
    out = np.empty_like(expected)
    reader.read_batch(ids, out=out)
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(reader.to_dask(ids, batch_size=1).compute(), expected)
    dataset = reader.to_xarray(ids)
    np.testing.assert_array_equal(dataset["image"].to_numpy(), expected)
    assert list(dataset["window"].to_numpy()) == ["lung", "mediastinum", "PET 0..8 suv_bw"]
    (batch,) = reader.batches(ids)
    np.testing.assert_array_equal(batch.image, expected)


def test_pytorch_gets_the_same_images(reader, ids):
    pytest.importorskip("torch", reason="the extra torch is not installed")
    expected = reader.read_batch(ids).image
    dataset = reader.to_torch(ids)
    for number in range(len(ids)):
        np.testing.assert_array_equal(dataset[number]["image"].numpy(), expected[number])
    (sample,) = reader.to_torch(ids, iterable=True)
    np.testing.assert_array_equal(sample["image"].numpy(), expected)


def test_what_a_study_costs_is_told_for_both(catalog, reader, ids):
    told = reader.explain(ids, run=True)
    plain = lesionzarr.CropReader(catalog, size=SIZE, window="lung").explain(ids)
    assert (told.images, told.volumes) == (len(ids), plain.volumes + 1)
    assert told.read_bytes > plain.read_bytes
    assert told.seconds > 0


# what cannot be


def one_line(caught, *words):
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_a_ct_without_pet_is_one_clear_line(catalog, reader):
    alone = catalog.lesions.index[~catalog.lesions["volume_id"].isin(catalog.pairs["ct"])][0]
    with pytest.raises(GeometryError) as caught:
        reader.read(alone)
    one_line(caught, catalog.lesions["volume_id"][alone], "no PET of its study")


def test_a_tilted_ct_is_one_clear_line(tmp_path):
    catalog = converted(tmp_path, "gantry_tilt")
    reader = lesionzarr.StudyReader(catalog, size=SIZE, window="lung")
    told = []
    for lesion_id in of_pairs(catalog):
        try:
            reader.read(lesion_id)
        except GeometryError as error:
            told.append(str(error))
    # the other kernel is not tilted
    assert len(told) == 1
    assert "their axes do not run the same way" in told[0]


def test_without_suv_the_reason_is_told_and_bq_per_ml_are_left(tmp_path):
    catalog = converted(tmp_path, "zero_weight", sheet=False)
    (first, *_) = of_pairs(catalog)
    with pytest.raises(SettingError) as caught:
        lesionzarr.StudyReader(catalog, size=SIZE, window="lung").read(first)
    one_line(caught, "no suv_bw", "PatientWeight is 0 kg", "'bqml'")
    reader = lesionzarr.StudyReader(catalog, size=SIZE, window="lung", pet_window=(0, 30_000), pet_unit="bqml")
    assert reader.read(first).image[1].max() > 100


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"window": None}, "give the CT a window"),
        ({"pet_unit": "suv"}, "suv_bw"),
        ({"pet_window": "lung"}, "(low, high)"),
        ({"pet_window": (5, 5)}, "window"),
        ({"interpolation": "cubic"}, "interpolation"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(catalog, options, word):
    with pytest.raises(SettingError) as caught:
        lesionzarr.StudyReader(catalog, **{"window": "lung", **options})
    one_line(caught, word)


# PET by itself


def on_pet(catalog, ids):
    """A lesion of a CT, moved to the middle of the PET."""
    pet_id = catalog.pairs["pet"][0]
    lesion = catalog.find_lesions(ids)[0]
    z, y, x = (size / 2 for size in catalog.grid(pet_id).shape)
    place = {"z0": z, "z1": z, "y0": y, "y1": y, "x0": x, "x1": x, "key_z": int(z)}
    return dataclasses.replace(lesion, volume_id=pet_id, series_id=pet_id, **place)


def test_a_crop_of_a_pet_is_in_suv(catalog, ids):
    lesion = on_pet(catalog, ids)
    crop = lesionzarr.CropReader(catalog, size=(5, 16, 16), window=WINDOW, dtype="float32").read(lesion)
    stored = catalog.volume(lesion.volume_id)["activity"].to_numpy()
    z, y, x = (int(start) for start in crop.origin)
    suv = stored[z : z + 5, y : y + 16, x : x + 16] * catalog.array(lesion.volume_id).tags["SUV"]["body_weight"]
    np.testing.assert_allclose(crop.image[0], np.clip((suv - WINDOW[0]) / (WINDOW[1] - WINDOW[0]), 0, 1), atol=1e-6)


@pytest.mark.parametrize("window", [None, "lung", ["lung", (0, 5)]])
def test_a_window_in_hu_is_refused_for_pet(catalog, ids, window):
    with pytest.raises(SettingError) as caught:
        lesionzarr.CropReader(catalog, size=(5, 16, 16), window=window).read(on_pet(catalog, ids))
    one_line(caught, "holds PET", "SUV")


def test_a_study_is_not_read_from_its_pet(catalog, reader, ids):
    with pytest.raises(GeometryError) as caught:
        reader.read(on_pet(catalog, ids))
    one_line(caught, "a study is read from its CT")


# any geometry


@st.composite
def grids(draw):
    """Axes along the patient's, in either direction."""
    shape = tuple(draw(st.integers(2, 14)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.4, 9).map(lambda mm: round(mm, 3))) for _ in range(3))
    signs = [draw(st.sampled_from((1, -1))) for _ in range(3)]
    centre = [draw(st.integers(-30, 30)) for _ in range(3)]
    affine = np.zeros((3, 4))
    for axis, row in enumerate((2, 1, 0)):
        step = signs[axis] * spacing[axis]
        affine[row, axis] = step
        affine[row, 3] = centre[row] - step * (shape[axis] - 1) / 2
    return Grid(shape, spacing, None, tuple(map(tuple, affine.tolist())))


def volume(name, modality, grid, lesions=()):
    tags = {"FrameOfReferenceUID": "1.2.3.4", "Units": "BQML"}
    file = SourceFile("", name, 1, 1)
    return Volume(
        *(name, name, "study", "patient", grid, 1, grid.shape[0], (file,) * grid.shape[0]),
        lesions=lesions,
        modality=modality,
        tags=tags,
    )


def positions(grid, shape=None):
    """LPS of every voxel: (3, z, y, x)."""
    index = np.indices(shape or grid.shape).reshape(3, -1)
    matrix = np.array(grid.affine)
    return (matrix[:, :3] @ index + matrix[:, 3:]).reshape(3, *(shape or grid.shape))


@settings(deadline=None, max_examples=40)
@given(grids(), grids(), st.tuples(*[st.floats(-9, 9)] * 3))
def test_activity_that_is_linear_in_space_is_read_as_it_is(ct, pet, slope):
    def activity(grid):
        return 5000 + np.tensordot(slope, positions(grid), 1)

    depth, rows, columns = ct.shape
    lesion = Lesion(
        *("ct_1", "ct", "ct", "study", "patient"),
        key_z=depth // 2,
        x0=columns // 2,
        x1=columns // 2,
        y0=rows // 2,
        y1=rows // 2,
    )
    with tempfile.TemporaryDirectory() as name:
        location = open_location(Path(name) / "s.zarr")
        create_store(location, dict.fromkeys(("source", "title", "licence", "citation"), "test"))
        made = {"converter": "test", "settings": {}}
        write_volume(location, volume("ct", "CT", ct, (lesion,)), np.zeros(ct.shape, np.int16), made, "fast")
        write_volume(location, volume("pet", "PT", pet), activity(pet).astype(np.float32), made, "fast")
        write_catalog(location)
        catalog = lesionzarr.open(Path(name) / "s.zarr")
        if catalog.pairs.empty:
            return
        low, high = 4000.0, 6000.0
        reader = lesionzarr.StudyReader(
            catalog, size=ct.shape, window="lung", dtype="float32", pet_window=(low, high), pet_unit="bqml"
        )
        crop = reader.read("ct_1")
    # a voxel lies in the PET as far as half a pixel past the centres of the outermost ones, but not past its slices
    to_pet = np.linalg.inv(np.array(pet.affine)[:, :3])
    index = np.tensordot(to_pet, positions(ct) - np.array(pet.affine)[:, 3].reshape(3, 1, 1, 1), 1)
    ends = np.array(pet.shape).reshape(3, 1, 1, 1) - 1
    core = ((index >= 0) & (index <= ends)).all(axis=0)
    expected = np.clip((activity(ct) - low) / (high - low), 0, 1)
    assert crop.image.shape == (2, *ct.shape)
    np.testing.assert_allclose(crop.image[1][core], expected[core], atol=1e-4)
    near = (np.abs(index) < 1e-6).any(axis=0) | (np.abs(index - ends) < 1e-6).any(axis=0)
    assert crop.pet_valid[core & ~near].all()
    outside = ((index < -0.51) | (index > ends + 0.51)).any(axis=0)
    assert not crop.pet_valid[outside].any()
    assert not crop.image[1][outside].any()
