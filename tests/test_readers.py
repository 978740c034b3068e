"""Crops and stacks against slices cut out of the source by hand."""

from __future__ import annotations

import dataclasses
import pickle
import shutil

import dask
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lesionzarr
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.errors import GeometryError, IntegrityError, NotFoundError, SettingError
from lesionzarr.geometry import crop_start
from lesionzarr.readers._assemble import assemble, pad
from lesionzarr.readers._plan import plan_request, stack_positions
from lesionzarr.readers._request import Request
from lesionzarr.samples import deeplesion
from lesionzarr.window import PRESETS, Window, apply_window

EDGE_LESION = "000001_03_01_088_1"


@pytest.fixture(scope="module")
def catalog(sample_store):
    return lesionzarr.open(sample_store)


@pytest.fixture(scope="module")
def real_catalog(real_store):
    return lesionzarr.open(real_store)


def source_voxels(folder):
    converter = DeepLesion(folder)
    return {volume.volume_id: converter.read_volume(volume) for volume in converter.scan().volumes}


@pytest.fixture(scope="module")
def voxels(sample):
    return source_voxels(sample)


def cut(voxels, start, size, outside):
    """Cut a block out of a padded copy, voxel by voxel wherever it leaves the volume."""
    grid = np.meshgrid(*(np.arange(a, a + n) for a, n in zip(start, size, strict=True)), indexing="ij")
    inside = np.all([(axis >= 0) & (axis < n) for axis, n in zip(grid, voxels.shape, strict=True)], axis=0)
    block = np.full(size, outside, dtype=voxels.dtype)
    block[inside] = voxels[tuple(axis[inside] for axis in grid)]
    return block, inside


def test_real_crop_is_the_block_of_png_round_the_box_centre(real, real_catalog):
    crop = lesionzarr.CropReader(real_catalog, size=(3, 64, 32)).read("000001_03_01_088_1")
    # box 246.735-1 .. 270.288-1 by 128.524-1 .. 162.618-1: centre x 257.5115, y 144.571
    rows, columns = slice(145 - 32, 145 + 32), slice(258 - 16, 258 + 16)
    files = [real / "Images_png" / "000001_03_01" / f"{number:03d}.png" for number in (87, 88, 89)]
    expected = np.stack([np.asarray(Image.open(file))[rows, columns].astype(int) - 32768 for file in files])
    assert crop.image.dtype == np.int16
    np.testing.assert_array_equal(crop.image[0], expected)
    assert crop.valid.all()
    assert crop.key_index == 1
    assert crop.spacing_mm == (1.0, 0.732422, 0.732422)


@pytest.mark.parametrize("size", [(9, 48, 48), (40, 200, 150), (1, 1, 1), (4, 33, 20)])
@pytest.mark.parametrize("padding", [None, -500.0])
def test_every_crop_equals_a_block_cut_by_hand(catalog, voxels, size, padding):
    batch = lesionzarr.CropReader(catalog, size=size, padding=padding).read_batch(catalog.lesions)
    assert batch.image.shape == (len(catalog), 1, *size)
    for crop in batch.crops:
        lesion, whole = crop.lesion, voxels[crop.lesion.volume_id]
        centre = (lesion.key_z, (lesion.y0 + lesion.y1) / 2, (lesion.x0 + lesion.x1) / 2)
        start = [round(c) - n // 2 for c, n in zip(centre, size, strict=True)]
        expected, inside = cut(whole, start, size, -1024 if padding is None else padding)
        fill = expected[~inside]
        if padding is None and len(fill):
            expected[~inside] = min(int(whole.min()), -1024) if whole[0, 0, 0] == whole.min() else -1024
        np.testing.assert_array_equal(crop.image[0], expected)
        np.testing.assert_array_equal(crop.valid, inside)


def test_edge_padding_repeats_the_nearest_voxel(catalog, voxels):
    size = (31, 160, 160)
    for crop in lesionzarr.CropReader(catalog, size=size, padding="edge").read_batch(catalog.lesions).crops:
        whole = voxels[crop.lesion.volume_id]
        start = [int(o) for o in crop.origin]
        index = [np.clip(np.arange(a, a + n), 0, m - 1) for a, n, m in zip(start, size, whole.shape, strict=True)]
        np.testing.assert_array_equal(crop.image[0], whole[np.ix_(*index)])


def test_windows_become_channels_and_outside_is_their_low_end(catalog):
    windows = ["lung", (-175, 275), Window(0, 100), "dicom"]
    hu = lesionzarr.CropReader(catalog, size=(21, 140, 140)).read_batch(catalog.lesions)
    batch = lesionzarr.CropReader(catalog, size=(21, 140, 140), window=windows).read_batch(catalog.lesions)
    assert batch.image.shape[1] == 4
    assert batch.image.dtype == np.uint8
    for raw, crop in zip(hu.crops, batch.crops, strict=True):
        resolved = [PRESETS["lung"], Window(-175, 275), Window(0, 100), crop.lesion.window]
        for channel, window in zip(crop.image, resolved, strict=True):
            expected = np.where(crop.valid, apply_window(raw.image[0], window), 0)
            np.testing.assert_array_equal(channel, expected)


def test_float_images_are_in_0_to_1(catalog):
    image = lesionzarr.CropReader(catalog, window="full", dtype="float32").read_batch(catalog.lesions).image
    assert image.dtype == np.float32
    assert 0 <= image.min() < image.max() <= 1


def test_box_and_axes_come_along_and_go_back(real_catalog):
    crop = lesionzarr.CropReader(real_catalog, size=(5, 64, 64)).read("000001_03_01_088_1")
    assert crop.box.centre == pytest.approx((2, 32, 32), abs=0.5)
    back = crop.to_volume((crop.box.z0, crop.box.y0, crop.box.x0))
    assert back == pytest.approx((30, 127.524, 245.735))
    (x0, y0, x1, y1), _ = crop.recist.axes
    assert np.hypot(x1 - x0, y1 - y0) == pytest.approx(24.1998, abs=1e-3)
    # LPS: z falls from head to feet by 1 mm, y and x grow by 0.732422 mm
    assert crop.to_mm((0, 0, 0)) == pytest.approx((-28, (145 - 32) * 0.732422, (258 - 32) * 0.732422))


@given(st.floats(-1e4, 1e4), st.integers(1, 64))
def test_crops_are_centred_with_the_extra_voxel_before(centre, size):
    start = crop_start(centre, size)
    before, after = round(centre) - start, start + size - 1 - round(centre)
    assert before - after == (size + 1) % 2


def test_halves_are_rounded_to_even():
    assert [crop_start(centre, 1) for centre in (0.5, 1.5, 2.5, -0.5)] == [0, 2, 2, 0]


requests = st.builds(
    Request,
    volume_id=st.just("v"),
    shape=st.tuples(*[st.integers(1, 6)] * 3),
    z=st.lists(st.floats(-8, 14).map(lambda z: round(z, 2)), min_size=1, max_size=5).map(tuple),
    y=st.integers(-9, 9),
    x=st.integers(-9, 9),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    windows=st.just((Window(0, 1000),)),
    padding=st.sampled_from([None, "edge", 500.0]),
    nearest_slice=st.booleans(),
)


@given(requests)
def test_any_request_equals_its_definition_voxel_by_voxel(request):
    rng = np.random.default_rng(7)
    volume = rng.integers(-100, 1200, request.shape, dtype=np.int16)
    plan = plan_request(request)
    region = plan.region
    assert all(0 <= a <= b <= n for a, b, n in zip(region.start, region.stop, request.shape, strict=True))
    image = np.empty((1, len(request.z), *request.size), dtype=np.float32)
    if 0 in region.shape:
        pad(plan, request, image, everything=True)
    else:
        assemble(volume[region.slices], plan, request, image)
    for i, z in enumerate(request.z):
        for j in range(request.size[0]):
            for k in range(request.size[1]):
                expected, valid = voxel(volume, request, z, request.y + j, request.x + k)
                assert plan.valid[i, j, k] == valid
                assert image[0, i, j, k] == pytest.approx(min(max(expected / 1000, 0), 1), abs=1e-6)


def voxel(volume, request, z, y, x):
    """The definition of one voxel: linear along z, padded, from nothing but its position."""
    depth, rows, columns = volume.shape
    inside_z, inside_plane = 0 <= z <= depth - 1, 0 <= y < rows and 0 <= x < columns
    edge = request.padding == "edge"
    if (not inside_plane and not edge) or (not inside_z and not edge and not request.nearest_slice):
        return 0 if request.padding is None else request.padding, False
    z, y, x = min(max(z, 0), depth - 1), min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)
    below = int(np.floor(z))
    above = min(below + 1, depth - 1)
    value = float(volume[below, y, x]) * (1 - (z - below)) + float(volume[above, y, x]) * (z - below)
    return value, inside_z and inside_plane


def test_only_the_touched_region_is_read():
    request = Request("v", (100, 512, 512), (40.2, 41.0), 500, -20, (30, 30), (), None)
    region = plan_request(request).region
    assert (region.start, region.stop) == ((40, 500, 0), (42, 512, 10))


@pytest.mark.parametrize(
    ("spacing", "expected"),
    [
        (1.0, (26, 28, 30, 32, 34)),
        (2.0, (28, 29, 30, 31, 32)),
        (5.0, (29.2, 29.6, 30, 30.4, 30.8)),  # upstream's second neighbour would be mixed 0.4 : 0.6
        (0.6, (23.333333333, 26.666666667, 30, 33.333333333, 36.666666667)),
    ],
)
def test_stack_rows_lie_at_whole_multiples_of_the_interval(spacing, expected):
    assert stack_positions(30, 5, 2.0, spacing) == pytest.approx(expected)


def test_real_stack_mixes_neighbours_by_their_distance(real, real_catalog):
    stack = lesionzarr.StackReader(real_catalog, slices=9, interval_mm=2.0).read("000001_01_01_109_1")
    folder = real / "Images_png" / "000001_01_01"
    slices = {n: np.asarray(Image.open(folder / f"{n:03d}.png")).astype(float) - 32768 for n in range(103, 116)}
    for i, offset_mm in enumerate(range(-8, 9, 2)):
        position = 109 + offset_mm / 5
        below = int(np.floor(position))
        share = position - below
        expected = slices[below] * (1 - share) + (slices[below + 1] * share if share else 0)
        np.testing.assert_array_equal(stack.image[0, i], np.rint(expected))
    assert stack.spacing_mm == pytest.approx((2.0, 0.488281, 0.488281))
    assert stack.key_index == 4


def test_past_the_volume_the_nearest_slice_stands_and_is_marked(catalog, voxels):
    reader = lesionzarr.StackReader(catalog, slices=101, interval_mm=2.0, size=(16, 16))
    stack = reader.read(catalog.lesions.index[0])
    whole = voxels[stack.lesion.volume_id]
    y, x = int(stack.origin[1]), int(stack.origin[2])
    np.testing.assert_array_equal(stack.image[0, 0], whole[0, y : y + 16, x : x + 16])
    np.testing.assert_array_equal(stack.image[0, -1], whole[-1, y : y + 16, x : x + 16])
    assert not stack.valid[0].any()
    assert not stack.valid[-1].any()
    assert stack.valid[50].all()


@pytest.mark.parametrize("quirk", ["nan_interval", "negative_interval"])
def test_an_unknown_interval_repeats_the_key_slice(quirk, tmp_path):
    source = deeplesion(tmp_path / "DeepLesion", image_size=48, quirks=[quirk])
    lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    volume_id = catalog.volumes.index[catalog.volumes["spacing_z_mm"].isna()][0]
    lesion = catalog.select(f"volume_id == '{volume_id}'").index[0]
    stack = lesionzarr.StackReader(catalog, slices=5).read(lesion)
    key = source_voxels(source)[volume_id][stack.lesion.key_z]
    for i in range(5):
        np.testing.assert_array_equal(stack.image[0, i], key)
        assert stack.valid[i].all() == stack.valid[i].any() == (i == 2)
    assert stack.key_index == 2
    assert stack.spacing_mm[0] is None


def test_dask_and_xarray_deliver_what_a_batch_does(catalog):
    reader = lesionzarr.CropReader(catalog, size=(5, 40, 40), window=["dicom", "lung"])
    batch = reader.read_batch(catalog.lesions)
    lazy = reader.to_dask(catalog.lesions, batch_size=3)
    assert lazy.shape == batch.image.shape
    assert lazy.dtype == np.uint8
    np.testing.assert_array_equal(lazy.compute(scheduler="threads"), batch.image)
    dataset = reader.to_xarray(catalog.lesions, batch_size=3)
    np.testing.assert_array_equal(dataset["image"].values, batch.image)
    np.testing.assert_array_equal(dataset["valid"].values, batch.valid)
    assert list(dataset["lesion"].values) == list(catalog.lesions.index)
    assert list(dataset["window"].values) == ["dicom", "lung"]
    assert dataset["long_mm"].dtype == float


def test_a_dask_task_is_a_batch_of_lesions_and_carries_no_table(catalog):
    lazy = lesionzarr.CropReader(catalog, size=(3, 8, 8)).to_dask(catalog.lesions, batch_size=4)
    batches = -(-len(catalog) // 4)
    assert lazy.npartitions == batches
    (graph,) = dask.optimize(lazy)
    reads = [key for key in dict(graph.__dask_graph__()) if "read_part" in str(key)]
    assert len(reads) == batches
    assert len(pickle.dumps(reads)) < 10_000


def test_readers_and_catalogs_survive_pickling(catalog):
    reader = pickle.loads(pickle.dumps(lesionzarr.CropReader(catalog, size=(3, 8, 8), window="lung")))  # noqa: S301
    lesion = catalog.lesions.index[-1]
    expected = lesionzarr.CropReader(catalog, size=(3, 8, 8), window="lung").read(lesion)
    np.testing.assert_array_equal(reader.read(lesion).image, expected.image)
    assert len(pickle.dumps(reader)) < 5_000


def test_lesions_may_be_ids_rows_or_lesions_in_any_order(catalog):
    reader = lesionzarr.CropReader(catalog, size=(1, 8, 8))
    chosen = catalog.lesions.iloc[[3, 0, 2]]
    expected = reader.read_batch(chosen).image
    ids = list(chosen.index)
    np.testing.assert_array_equal(reader.read_batch(ids).image, expected)
    np.testing.assert_array_equal(reader.read_batch(catalog.find_lesions(ids)).image, expected)
    np.testing.assert_array_equal(reader.read_batch(chosen.reset_index()).image, expected)


def test_what_cannot_be_read_is_said(catalog):
    reader = lesionzarr.CropReader(catalog)
    with pytest.raises(NotFoundError, match=f"near: .*{catalog.lesions.index[0]}"):
        reader.read(catalog.lesions.index[0] + "0")
    with pytest.raises(SettingError, match="no lesions"):
        reader.read_batch([])
    with pytest.raises(SettingError, match="an id, a Lesion or rows"):
        reader.read_batch([7])
    with pytest.raises(NotFoundError, match="no window 'lungs'"):
        lesionzarr.CropReader(catalog, window="lungs")
    with pytest.raises(SettingError, match="'uint8', 'float16' or 'float32'"):
        lesionzarr.CropReader(catalog, dtype="int8")
    with pytest.raises(SettingError, match="'edge'"):
        lesionzarr.CropReader(catalog, padding="mirror")
    with pytest.raises(SettingError, match="whole numbers of at least 1"):
        lesionzarr.CropReader(catalog, size=(0, 8, 8))
    with pytest.raises(SettingError, match=r"at least 1|positive number"):
        lesionzarr.StackReader(catalog, interval_mm=0)


def test_a_batch_of_different_shapes_asks_for_a_size(tmp_path):
    source = deeplesion(tmp_path / "DeepLesion", image_size=48, quirks=["size_768"])
    lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    with pytest.raises(GeometryError, match="give a size"):
        lesionzarr.StackReader(catalog).read_batch(catalog.lesions)
    assert len(lesionzarr.StackReader(catalog, size=(16, 16)).read_batch(catalog.lesions)) == len(catalog)


def test_a_lesion_without_its_key_slice_has_no_crop(tmp_path):
    source = deeplesion(tmp_path / "DeepLesion", image_size=48, quirks=["missing_key_slice"])
    lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    lost = catalog.lesions.index[catalog.lesions["key_z"].isna()][0]
    for reader in (lesionzarr.CropReader(catalog), lesionzarr.StackReader(catalog)):
        with pytest.raises(GeometryError, match=f"{lost}: its key slice is not in the store"):
            reader.read(lost)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
def test_a_damaged_shard_is_never_read_as_voxels(damage, sample, tmp_path):
    lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    lesion = catalog.find_lesions([catalog.lesions.index[0]])[0]
    shard = tmp_path / "s.zarr" / "volumes" / lesion.volume_id / "hu" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    if damage == "missing":
        shard.unlink()
    else:
        data[200] ^= 1
        shard.write_bytes({"empty": b"", "cut": data[:-30], "flipped": data}[damage])
    with pytest.raises(IntegrityError, match=lesion.volume_id):
        lesionzarr.CropReader(catalog, size=(999, 999, 999)).read(lesion)


@pytest.mark.parametrize(
    "settings",
    [
        {"size": 128},
        {"size": (9, 128.0, 128)},
        {"window": []},
        {"window": 5},
        {"window": [None]},
        {"window": [("a", "b")]},
        {"padding": 40000},
        {"padding": float("nan")},
        {"window": "lung", "padding": "mirror"},
        {"window": "lung", "dtype": "int8"},
    ],
)
def test_a_setting_that_means_nothing_is_refused_before_reading(catalog, settings):
    with pytest.raises(SettingError):
        lesionzarr.CropReader(catalog, **settings)


def test_two_numbers_are_a_window_in_a_list_too(catalog):
    lesion = catalog.lesions.index[0]
    pair, listed = (lesionzarr.CropReader(catalog, window=window).read(lesion) for window in [(-175, 275), [-175, 275]])
    np.testing.assert_array_equal(pair.image, listed.image)


def test_a_lesion_is_read_where_it_says_and_not_looked_up_again(catalog):
    (lesion,) = catalog.find_lesions(catalog.lesions.index[0])
    moved = dataclasses.replace(lesion, x0=lesion.x0 + 7, x1=lesion.x1 + 7)
    reader = lesionzarr.CropReader(catalog, size=(1, 20, 20))
    assert reader.read(moved).origin[2] == reader.read(lesion).origin[2] + 7


def test_several_lesions_are_no_lesion(catalog):
    with pytest.raises(SettingError, match="read_batch"):
        lesionzarr.CropReader(catalog).read(list(catalog.lesions.index[:2]))


def test_a_store_is_found_from_any_folder(sample_store, tmp_path, monkeypatch):
    monkeypatch.chdir(sample_store.parent)
    catalog = lesionzarr.open(sample_store.name)
    monkeypatch.chdir(tmp_path)
    assert lesionzarr.CropReader(catalog).read(catalog.lesions.index[0]).image.shape == (1, 9, 128, 128)


def test_a_missing_shard_is_no_padding_for_xarray_either(sample_store, tmp_path):
    store = shutil.copytree(sample_store, tmp_path / "s.zarr")
    catalog = lesionzarr.open(store)
    first = catalog.volumes.index[0]
    (store / "volumes" / first / "hu/c/0/0/0").unlink()
    with pytest.raises(IntegrityError, match=first):
        catalog.volume(first)


def test_a_3d_box_without_a_mark_has_a_stack_round_its_middle(catalog):
    (lesion,) = catalog.find_lesions(catalog.lesions.index[0])
    box = dataclasses.replace(lesion, key_z=None, recist=None, z0=1.0, z1=5.0)
    stack = lesionzarr.StackReader(catalog, slices=1).read(box)
    np.testing.assert_array_equal(stack.image[0, 0], catalog.volume(lesion.volume_id)["hu"].to_numpy()[3])


def test_the_way_from_an_image_of_a_dataset_back_to_its_volume(catalog):
    dataset = lesionzarr.CropReader(catalog, size=(3, 16, 16)).to_xarray(catalog.lesions)
    one = dataset.isel(lesion=0).load()
    z, y, x = (one["origin"] + 1 * one["step"]).to_numpy().astype(int)
    volume = catalog.volume(str(one["volume_id"].item()))["hu"]
    assert one["image"][0, 1, 1, 1] == volume[z, y, x]


def test_a_crop_wholly_outside_is_padding_whatever_reads_the_volume(sample, sample_store, tmp_path):
    lesionzarr.convert("deeplesion", sample, tmp_path / "dense.zarr", profile="dense")
    for store in (sample_store, tmp_path / "dense.zarr"):
        catalog = lesionzarr.open(store)
        (lesion,) = catalog.find_lesions(catalog.lesions.index[0])
        far = dataclasses.replace(lesion, x0=5000.0, x1=5001.0)
        for reader in (lesionzarr.CropReader, lesionzarr.StackReader):
            size = (3, 8, 8) if reader is lesionzarr.CropReader else (8, 8)
            crop = reader(catalog, size=size, padding=-77).read(far)
            assert (crop.image == -77).all()
            assert not crop.valid.any()
