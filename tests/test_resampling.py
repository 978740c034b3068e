"""Images at a spacing of their own, against definitions written out by hand."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lesionzarr
from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.geometry import Box, Grid
from lesionzarr.lesion import Lesion
from lesionzarr.readers._assemble import assemble, pad
from lesionzarr.readers._plan import plan_request, sample_positions, upstream_mixes, whole_positions
from lesionzarr.readers._request import Mix, Request
from lesionzarr.readers.batch import Crop
from lesionzarr.samples import deeplesion
from lesionzarr.window import Window, apply_window


@pytest.fixture(scope="module")
def catalog(sample_store):
    return lesionzarr.open(sample_store)


@pytest.fixture(scope="module")
def real_catalog(real_store):
    return lesionzarr.open(real_store)


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """Store with a volume of unknown slice interval, and a lesion of that."""
    folder = tmp_path_factory.mktemp("unknown")
    source = deeplesion(folder / "DeepLesion", image_size=48, quirks=["nan_interval"])
    lesionzarr.convert("deeplesion", source, folder / "s.zarr")
    catalog = lesionzarr.open(folder / "s.zarr")
    volume_id = catalog.volumes.index[catalog.volumes["spacing_z_mm"].isna()][0]
    return catalog, catalog.select(f"volume_id == '{volume_id}'").index[0]


def positions(low, high):
    return st.lists(st.floats(low, high).map(lambda p: round(p, 2)), min_size=1, max_size=5).map(tuple)


@st.composite
def requests(draw):
    mixes, y, x = None, draw(st.integers(-9, 9) | positions(-9, 9)), draw(st.integers(-9, 9) | positions(-9, 9))
    z = draw(positions(-8, 14))
    nearest_slice = draw(st.booleans())
    interpolation = draw(st.sampled_from(["linear", "nearest"]))
    if draw(st.booleans()):
        mix = st.tuples(st.integers(-4, 8), st.integers(0, 2), st.floats(0, 1).map(lambda w: round(w, 2)))
        mixes = [draw(mix) for _ in z]
        mixes, nearest_slice = tuple(Mix(below, below + more, weight) for below, more, weight in mixes), True
    return Request(
        volume_id="v",
        shape=draw(st.tuples(*[st.integers(1, 6)] * 3)),
        z=z,
        y=y,
        x=x,
        size=tuple(draw(st.integers(1, 9)) if isinstance(rows, int) else len(rows) for rows in (y, x)),
        windows=(Window(0, 1000),),
        padding=draw(st.sampled_from([None, "edge", 500.0])),
        nearest_slice=nearest_slice,
        interpolation=interpolation,
        mixes=mixes,
    )


def make(volume, request):
    plan = plan_request(request)
    image = np.empty((1, len(request.z), *request.size), dtype=np.float32)
    if 0 in plan.region.shape:
        pad(plan, request, image, everything=True)
    else:
        assemble(volume[plan.region.slices], plan, request, image)
    return image, plan


def along(rows, i):
    return rows + i if isinstance(rows, int) else rows[i]


@given(requests())
def test_any_request_equals_its_definition_voxel_by_voxel(request):
    volume = np.random.default_rng(7).integers(-100, 1200, request.shape, dtype=np.int16)
    image, plan = make(volume, request)
    for i in range(len(request.z)):
        for j in range(request.size[0]):
            for k in range(request.size[1]):
                expected, valid = voxel(volume, request, i, (along(request.y, j), along(request.x, k)))
                assert plan.valid[i, j, k] == valid
                assert image[0, i, j, k] == pytest.approx(min(max(expected / 1000, 0), 1), abs=1e-6)


def voxel(volume, request, i, place):
    """The definition of one voxel: the sum over all voxels of the volume, each weighted by its distance."""
    depth, *extents = volume.shape
    z = request.z[i]
    inside_z = 0 <= z <= depth - 1
    inside_plane = all(-0.5 <= p <= n - 0.5 for p, n in zip(place, extents, strict=True))
    edge = request.padding == "edge"
    if (not inside_plane and not edge) or (not inside_z and not edge and not request.nearest_slice):
        return 0 if request.padding is None else request.padding, False
    if request.mixes is None:
        along_z = tent(z, depth, request.interpolation)
    else:
        below, above, weight = request.mixes[i]
        along_z = (1 - weight) * tent(below, depth) + weight * tent(above, depth)
    along_y, along_x = (tent(p, n, request.interpolation) for p, n in zip(place, extents, strict=True))
    return float(np.einsum("z,y,x,zyx", along_z, along_y, along_x, volume)), inside_z and inside_plane


def tent(position, extent, interpolation="linear"):
    """The share of each row, one minus its distance; past either end all of the last row."""
    position = min(max(position, 0), extent - 1)
    if interpolation == "nearest":
        position = round(position)
    return np.maximum(1 - np.abs(np.arange(extent) - position), 0)


@given(requests())
def test_no_row_is_read_in_vain(request):
    """Every end of the region is a row that some voxel takes a share of."""
    region = plan_request(request).region
    assert all(0 <= a <= b <= n for a, b, n in zip(region.start, region.stop, request.shape, strict=True))
    if 0 in region.shape:
        return
    volume = np.random.default_rng(7).integers(1, 900, request.shape, dtype=np.int16)
    image, plan = make(volume, request)
    needed = image.copy()
    for axis, (first, last) in enumerate(zip(region.start, region.stop, strict=True)):
        samples = (plan.z, plan.y, plan.x)[axis].samples
        if samples is None:
            continue
        taken = samples.inside | (request.padding == "edge") | (axis == 0 and request.nearest_slice)
        rows = np.concatenate([samples.below[taken], samples.above[taken]]) + first
        assert (rows.min(), rows.max()) == (first, last - 1)
    outside = np.full_like(volume, -9999)
    outside[region.slices] = volume[region.slices]
    np.testing.assert_array_equal(make(outside, request)[0], needed)


def test_only_the_rows_beside_the_positions_are_read():
    request = Request("v", (100, 512, 512), (40.2, 41.0), (9.5, 11.1), (-0.4, 300.0), (2, 2), (), None)
    region = plan_request(request).region
    assert (region.start, region.stop) == ((40, 9, 0), (42, 13, 301))
    nearest = plan_request(dataclasses.replace(request, interpolation="nearest")).region
    assert (nearest.start, nearest.stop) == ((40, 10, 0), (42, 12, 301))


def test_linear_resampling_is_what_scipy_calls_order_1():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is no dependency; compared where it is present")
    volume = np.random.default_rng(3).integers(-1000, 1000, (8, 30, 40), dtype=np.int16)
    z, y, x = (tuple(np.linspace(0.1, n - 1.2, m).tolist()) for n, m in zip(volume.shape, (5, 23, 61), strict=True))
    request = Request("v", volume.shape, z, y, x, (23, 61), (Window(-1000, 1000),), None)
    expected = ndimage.map_coordinates(volume.astype(float), np.meshgrid(z, y, x, indexing="ij"), order=1)
    np.testing.assert_allclose(make(volume, request)[0][0], (expected + 1000) / 2000, atol=1e-6)


@pytest.mark.parametrize("spacing", [0.5, 0.8, 1.0, 1.7])
def test_whole_slices_are_resampled_as_opencv_does_it_for_3dce(spacing):
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with lesionzarr[bench]; compared where it is present")
    hu = np.random.default_rng(5).integers(-1000, 2000, (37, 50), dtype=np.int16)
    rows, columns = (whole_positions(n, spacing / 0.7) for n in hu.shape)
    size = len(rows), len(columns)
    request = Request("v", (1, *hu.shape), (0.0,), rows, columns, size, (Window(-1000, 2000),), None)
    image, plan = make(hu[None], request)
    scale = 0.7 / spacing
    expected = cv2.resize(hu.astype(np.float32), None, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    assert plan.valid.all()
    assert expected.shape == size
    np.testing.assert_allclose(image[0, 0] * 3000 - 1000, expected, atol=0.1)


def test_a_constant_stays_constant_to_the_last_bit():
    request = Request("v", (4, 9, 9), (0.3, 1.7), (0.1, 3.3, 7.9), (2.2, 5.6), (3, 2), (), None)
    volume = np.full(request.shape, -777, dtype=np.int16)
    image = np.empty((1, 2, 3, 2), dtype=np.float64)
    assemble(volume[plan_request(request).region.slices], plan_request(request), request, image)
    assert (image == -777).all()


def test_voxels_further_apart_than_int16_reaches_are_mixed():
    volume = np.array([-32768, 32767], dtype=np.int16).reshape(1, 1, 2)
    request = Request("v", volume.shape, (0.0,), 0, (0.25,), (1, 1), (), None)
    image = np.empty((1, 1, 1, 1), dtype=np.int16)
    assemble(volume, plan_request(request), request, image)
    assert image.item() == -16384


@given(st.floats(-600, 600), st.integers(1, 64), st.floats(0.05, 9))
def test_positions_lie_round_the_centre_with_the_extra_one_before(centre, size, step):
    found = sample_positions(centre, size, step)
    assert len(found) == size
    assert found[size // 2] == pytest.approx(centre, abs=1e-9)
    np.testing.assert_allclose(np.diff(found), step, atol=1e-8)


@given(st.integers(1, 1024), st.floats(0.2, 5))
def test_whole_slices_keep_within_their_edges(extent, step):
    found = whole_positions(extent, step)
    assert len(found) == max(1, round(extent / step))
    assert found[0] == pytest.approx(step / 2 - 0.5, abs=1e-9)
    assert found[-1] - step / 2 <= extent - 0.5 + step / 2 + 1e-6


def test_a_crop_of_the_volumes_own_spacing_is_the_crop_between_its_voxels(real, real_catalog):
    """At 1 x 0.732422 x 0.732422 mm a crop shows the voxels moved by the fraction of the box centre."""
    reader = lesionzarr.CropReader(real_catalog, size=(3, 8, 6), spacing_mm=(1.0, 0.732422, 0.732422))
    crop = reader.read("000001_03_01_088_1")
    # box 246.735-1 .. 270.288-1 by 128.524-1 .. 162.618-1: centre x 257.5115, y 144.571
    files = [real / "Images_png" / "000001_03_01" / f"{number:03d}.png" for number in (87, 88, 89)]
    hu = np.stack([np.asarray(Image.open(file)).astype(float) - 32768 for file in files])
    block = hu[:, 140 : 140 + 9, 254 : 254 + 7]
    down = 0.429 * block[:, :-1] + 0.571 * block[:, 1:]
    expected = (1 - 0.5115) * down[:, :, :-1] + 0.5115 * down[:, :, 1:]
    np.testing.assert_allclose(crop.image[0], expected, atol=0.501)
    assert crop.origin == pytest.approx((29, 140.571, 254.5115))
    assert crop.spacing_mm == pytest.approx((1, 0.732422, 0.732422))


def test_real_stacks_at_0_8_mm_show_what_lies_there(real, real_catalog):
    stack = lesionzarr.StackReader(real_catalog, slices=3, spacing_mm=0.8).read("000001_03_01_088_1")
    # 512 * 0.732422 / 0.8 = 468.75
    assert stack.image.shape == (1, 3, 469, 469)
    assert stack.valid.all()
    assert stack.spacing_mm == pytest.approx((2, 0.8, 0.8))
    hu = np.asarray(Image.open(real / "Images_png" / "000001_03_01" / "088.png")).astype(float) - 32768
    rng = np.random.default_rng(1)
    for j, i in rng.integers(1, 468, (200, 2)):
        _, y, x = stack.to_volume((1, j, i))
        a, b = math.floor(y), math.floor(x)
        v, u = y - a, x - b
        (p, q), (r, s) = hu[a : a + 2, b : b + 2]
        expected = (1 - v) * ((1 - u) * p + u * q) + v * ((1 - u) * r + u * s)
        assert stack.image[0, 1, j, i] == pytest.approx(expected, abs=0.501)


@pytest.mark.parametrize("lesion", ["000001_03_01_088_1", "000001_01_01_109_1"])
def test_the_axes_of_a_resampled_lesion_keep_their_length_in_mm(real_catalog, lesion):
    crop = lesionzarr.CropReader(real_catalog, size=(9, 96, 96), spacing_mm=(2.0, 0.8, 0.5)).read(lesion)
    _, y_mm, x_mm = crop.grid.spacing_mm
    assert crop.recist.lengths_mm(*crop.spacing_mm[1:]) == pytest.approx(crop.lesion.mark.lengths_mm(y_mm, x_mm))
    assert crop.spacing_mm == pytest.approx((2.0, 0.8, 0.5))
    # the box centre is not rounded: it lies in the middle voxel, to the last bit
    assert crop.box.centre == pytest.approx((4, 48, 48), abs=1e-6)
    assert crop.key_index == 4
    steps = np.array(crop.to_mm((1, 1, 1))) - crop.to_mm((0, 0, 0))
    assert np.abs(steps) == pytest.approx((2.0, 0.8, 0.5))


number = st.floats(-500, 500)
length = st.floats(0.05, 9)


@given(st.tuples(*[number] * 3), st.tuples(*[length] * 3), st.tuples(*[number] * 3), st.tuples(*[length] * 3))
def test_a_box_goes_into_an_image_and_back(origin, step, corner, extent):
    lesion = Lesion(
        "l", "v", "s", key_z=3, **dict(zip(("z0", "y0", "x0"), corner, strict=True)),
        z1=corner[0] + extent[0], y1=corner[1] + extent[1], x1=corner[2] + extent[2],
        recist=(*corner, *extent, 1.0, 2.0),
    )  # fmt: skip
    grid = Grid((9, 9, 9), (2.0, 0.7, 0.7))
    crop = Crop(np.empty((1, 9, 9, 9)), None, lesion, (), grid, origin, step)
    box = crop.box
    back = Box(*crop.to_volume((box.z0, box.y0, box.x0)), *crop.to_volume((box.z1, box.y1, box.x1)))
    assert dataclasses.astuple(back) == pytest.approx(dataclasses.astuple(lesion.box), abs=1e-6)
    assert crop.from_volume(crop.to_volume(corner)) == pytest.approx(corner, abs=1e-6)
    points = np.array(crop.recist.axes).reshape(-1, 2)
    volume = [crop.to_volume((0, y, x))[:0:-1] for x, y in points]
    np.testing.assert_allclose(np.ravel(volume), lesion.recist, atol=1e-6)


def test_a_size_in_mm_is_so_many_voxels_of_the_spacing(real_catalog):
    both = list(real_catalog.lesions.index)
    reader = lesionzarr.CropReader(real_catalog, size_mm=(18, 64, 51), spacing_mm=(2, 0.8, 1))
    assert reader.read_batch(both).image.shape == (2, 1, 9, 80, 51)
    own = lesionzarr.CropReader(real_catalog, size_mm=(20, 50.2, 0.1))
    # 20 / 1, 50.2 / 0.732422 = 68.54; and 20 / 5, 50.2 / 0.488281 = 102.81
    assert own.read("000001_03_01_088_1").image.shape == (1, 20, 69, 1)
    assert own.read("000001_01_01_109_1").image.shape == (1, 4, 103, 1)
    with pytest.raises(GeometryError, match="different shapes"):
        own.read_batch(both)


def test_axes_without_a_spacing_stay_as_they_are(real_catalog):
    lesion = "000001_03_01_088_1"
    plain = lesionzarr.CropReader(real_catalog, size=(9, 32, 32))
    mixed = lesionzarr.CropReader(real_catalog, size=(9, 32, 32), spacing_mm=(None, None, 0.8))
    a, b = plain.read(lesion), mixed.read(lesion)
    assert (a.origin[:2], a.step[:2], b.step[2]) == (b.origin[:2], b.step[:2], pytest.approx(0.8 / 0.732422))
    assert a.plan.y == b.plan.y
    assert lesionzarr.StackReader(real_catalog, spacing_mm=(None, 0.8)).read(lesion).image.shape == (1, 9, 512, 469)


def test_resampled_images_come_through_batch_dask_and_xarray(catalog):
    reader = lesionzarr.CropReader(catalog, size=(5, 40, 36), spacing_mm=(2, 3, 2.5), window="full", dtype="float32")
    batch = reader.read_batch(catalog.lesions)
    dataset = reader.to_xarray(catalog.lesions, batch_size=3)
    np.testing.assert_array_equal(dataset["image"].values, batch.image)
    np.testing.assert_array_equal(dataset["valid"].values, batch.valid)
    np.testing.assert_array_equal(dataset["origin"].values, [crop.origin for crop in batch.crops])
    np.testing.assert_array_equal(dataset["step"].values, [crop.step for crop in batch.crops])
    for crop in batch.crops:
        assert (crop.image[0][~crop.valid] == 0).all()
        np.testing.assert_array_equal(reader.read(crop.lesion).image, crop.image)


def test_nearest_takes_voxels_as_they_are(catalog):
    reader = lesionzarr.CropReader(catalog, size=(5, 40, 36), spacing_mm=(2, 0.9, 1.1), interpolation="nearest")
    for crop in reader.read_batch(catalog.lesions).crops:
        hu = catalog.volume(crop.lesion.volume_id)["hu"].to_numpy()
        places = [[crop.to_volume((i,) * 3)[axis] for i in range(n)] for axis, n in enumerate(crop.image.shape[1:])]
        rows = [np.clip(np.rint(p), 0, n - 1).astype(int) for p, n in zip(places, hu.shape, strict=True)]
        np.testing.assert_array_equal(crop.image[0][crop.valid], hu[np.ix_(*rows)][crop.valid])


def test_edge_padding_holds_for_resampled_images_too(catalog):
    reader = lesionzarr.CropReader(catalog, size=(3, 9, 9), spacing_mm=(1, 90, 90), padding="edge")
    crop = reader.read(catalog.lesions.index[0])
    hu = catalog.volume(crop.lesion.volume_id)["hu"].to_numpy()
    assert not crop.valid[:, 0, 0].any()
    assert crop.image[0, 1, 0, 0] == hu[crop.lesion.key_z, 0, 0]


def test_an_unknown_interval_has_no_mm_along_z(unknown):
    catalog, lesion = unknown
    for settings in ({"spacing_mm": 1.0}, {"size_mm": (9, 9, 9)}, {"size_mm": (9, 9, 9), "spacing_mm": (2, None, 1)}):
        with pytest.raises(GeometryError, match="slice interval is unknown"):
            lesionzarr.CropReader(catalog, **settings).read(lesion)
    crop = lesionzarr.CropReader(catalog, size=(3, 20, 20), spacing_mm=(None, 0.8, 0.8)).read(lesion)
    assert crop.spacing_mm == (None, pytest.approx(0.8), pytest.approx(0.8))
    stack = lesionzarr.StackReader(catalog, slices=3, size=(20, 20), spacing_mm=0.8, weights="upstream").read(lesion)
    np.testing.assert_array_equal(stack.image[0, 0], stack.image[0, 2])
    np.testing.assert_array_equal(stack.image[0, 1], crop.image[0, 1])


@pytest.mark.parametrize(
    ("reader", "settings"),
    [
        (reader, settings)
        for reader in (lesionzarr.CropReader, lesionzarr.StackReader)
        for settings in (
            {"spacing_mm": 0},
            {"spacing_mm": "0.8"},
            {"spacing_mm": (1,)},
            {"spacing_mm": (1, -1, 1)},
            {"interpolation": "cubic"},
        )
    ]
    + [
        (lesionzarr.CropReader, {"size_mm": 20}),
        (lesionzarr.CropReader, {"size_mm": (20, 0, 20)}),
        (lesionzarr.CropReader, {"size_mm": (20, 20, 20), "size": (1, 2, 3)}),
        (lesionzarr.StackReader, {"weights": "3dce"}),
        (lesionzarr.StackReader, {"weights": "upstream", "interpolation": "nearest"}),
    ],
)
def test_a_setting_that_means_nothing_is_refused(catalog, reader, settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        reader(catalog, **settings)


def test_half_precision_is_the_ramp_in_0_to_1(catalog):
    size = (21, 140, 140)
    hu = lesionzarr.CropReader(catalog, size=size).read_batch(catalog.lesions)
    half = lesionzarr.CropReader(catalog, size=size, window=["lung", "dicom"], dtype="float16").read_batch(
        catalog.lesions
    )
    assert half.image.dtype == np.float16
    for raw, crop in zip(hu.crops, half.crops, strict=True):
        for channel, window in zip(crop.image, crop.windows, strict=True):
            expected = apply_window(raw.image[0].astype(float), window, "float16")
            np.testing.assert_array_equal(channel, np.where(crop.valid, expected, 0))


def test_upstream_takes_the_weights_of_the_first_neighbour_for_all():
    # slices 5 mm apart, at 2 mm: r = 0.4, a = 0.4 for the farther slice and b = 0.6 for the nearer, at every distance
    mixes = upstream_mixes(30, 7, 2.0, 5.0)
    assert [mix[:2] for mix in mixes] == [(28, 29), (29, 30), (29, 30), (30, 30), (30, 31), (30, 31), (31, 32)]
    assert [mix.weight for mix in mixes] == pytest.approx([0.6, 0.6, 0.6, 0.4, 0.4, 0.4, 0.4])
    # r = 2.5: p = 2 is a slice of its own, and stays one whatever the weights
    assert [mix[:2] for mix in upstream_mixes(30, 5, 2.0, 0.8)] == [(25, 25), (27, 28), (30, 30), (32, 33), (35, 35)]
    assert upstream_mixes(30, 9, 2.0, 1.0) is None


def test_upstream_weights_on_real_slices(real, real_catalog):
    settings = {"slices": 9, "interval_mm": 2.0}
    stack = lesionzarr.StackReader(real_catalog, **settings, weights="upstream").read("000001_01_01_109_1")
    exact = lesionzarr.StackReader(real_catalog, **settings).read("000001_01_01_109_1")
    folder = real / "Images_png" / "000001_01_01"
    hu = {n: np.asarray(Image.open(folder / f"{n:03d}.png")).astype(float) - 32768 for n in range(103, 116)}
    # p = 4 lies 1.6 slices away: between the first and the second, 0.4 of the second where 0.6 is right
    for image, far in ((stack.image, 0.4), (exact.image, 0.6)):
        np.testing.assert_array_equal(image[0, 0], np.rint(far * hu[107] + (1 - far) * hu[108]))
        np.testing.assert_array_equal(image[0, 8], np.rint(far * hu[111] + (1 - far) * hu[110]))
    for i, same in enumerate([False, False, False, True, True, True, False, False, False]):
        assert np.array_equal(stack.image[0, i], exact.image[0, i]) == same
    assert stack.origin == exact.origin
    np.testing.assert_array_equal(stack.valid, exact.valid)
    # slices 1 mm apart need no mixing
    thin = [
        lesionzarr.StackReader(real_catalog, **settings, weights=w).read("000001_03_01_088_1")
        for w in ("exact", "upstream")
    ]
    np.testing.assert_array_equal(thin[0].image, thin[1].image)


def test_past_the_volume_upstream_repeats_the_nearest_slice(catalog):
    lesion = catalog.lesions.index[0]
    reader = lesionzarr.StackReader(catalog, slices=101, interval_mm=2.3, size=(16, 16), weights="upstream")
    stack = reader.read(lesion)
    hu = catalog.volume(stack.lesion.volume_id)["hu"].to_numpy()
    y, x = int(stack.origin[1]), int(stack.origin[2])
    np.testing.assert_array_equal(stack.image[0, 0], hu[0, y : y + 16, x : x + 16])
    np.testing.assert_array_equal(stack.image[0, -1], hu[-1, y : y + 16, x : x + 16])
    assert not stack.valid[0].any()
    assert not stack.valid[-1].any()
