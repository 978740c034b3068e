"""Volume, density and axes of lesions, held to analytic values, to other libraries and to slow answers."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import SimpleITK
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lesionzarr.errors import GeometryError, NotFoundError, SettingError
from lesionzarr.features._pieces import fill_holes, find_pieces
from lesionzarr.features.axes import METHODS, ellipse_axes, feret_axes, rectangle_axes
from lesionzarr.features.measure import UNCONNECTED, choose_slice, measure_mask, measure_slices
from lesionzarr.features.pseudo_mask import pseudo_mask
from lesionzarr.features.upstream import measure_as_upstream
from lesionzarr.recist import Recist

planes = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)).filter(np.any)
volumes = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6)).filter(np.any)
spacings = st.sampled_from([(1.0, 1.0), (0.7, 0.7), (0.5, 1.25), (2.0, 0.6)])


def ellipsoid(halves_mm, spacing_mm, angle=0.0, centre=(0.0, 0.0, 0.0)):
    """Voxels whose centre lies in an ellipsoid of half axes (z, long, short), turned by an angle in the slice."""
    reach = [int(max(halves_mm[0], 0) / spacing_mm[0]) + 2] + [int(max(halves_mm) / mm) + 2 for mm in spacing_mm[1:]]
    z, y, x = ((np.arange(-n, n + 1) - c) * mm for n, c, mm in zip(reach, centre, spacing_mm, strict=True))
    z, y, x = z[:, None, None], y[None, :, None], x[None, None, :]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    return (z / halves_mm[0]) ** 2 + (along / halves_mm[1]) ** 2 + (across / halves_mm[2]) ** 2 <= 1


def corners(plane, spacing_mm):
    points = {(y + dy, x + dx) for y, x in np.argwhere(plane).tolist() for dy in (0, 1) for dx in (0, 1)}
    return [(y * spacing_mm[0], x * spacing_mm[1]) for y, x in points]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.2, math.pi / 2, 2.5])
@pytest.mark.parametrize("spacing", [(1.0, 0.7, 0.7), (2.5, 0.6, 0.9), (5.0, 0.8, 0.8)])
def test_an_ellipsoid_has_the_axes_and_the_volume_that_it_was_drawn_with(method, angle, spacing):
    halves = (21.4, 18.0, 11.0)
    mask = ellipsoid(halves, spacing, angle, centre=(0.0, 0.3, -0.2))
    measured = measure_mask(mask, None, spacing, method=method)
    # a rectangle turns to where its area is the smallest, which a pixel more or less decides
    diagonal = math.hypot(*spacing[1:]) * (2 if method == "rectangle" else 1)
    assert measured.volume_ml == pytest.approx(4 / 3 * math.pi * math.prod(halves) / 1000, rel=0.02)
    assert measured.long_mm == pytest.approx(2 * halves[1], abs=diagonal)
    assert measured.short_mm == pytest.approx(2 * halves[2], abs=diagonal)
    # slices near the middle are shorter by less than a pixel
    height = (measured.key_z - mask.shape[0] // 2) * spacing[0]
    assert 2 * halves[1] * math.sqrt(1 - (height / halves[0]) ** 2) == pytest.approx(2 * halves[1], abs=diagonal)
    assert measured.slices == 2 * int(halves[0] / spacing[0]) + 1


@pytest.mark.parametrize("method", METHODS)
def test_the_axes_run_along_those_of_a_turned_ellipse(method):
    angle = 0.6
    measured = measure_mask(ellipsoid((5.0, 30.0, 12.0), (1.0, 0.7, 0.9), angle), None, (1.0, 0.7, 0.9), method=method)
    mark = measured.recist
    run = math.atan2((mark.long_y1 - mark.long_y0) * 0.7, (mark.long_x1 - mark.long_x0) * 0.9) % math.pi
    assert run == pytest.approx(angle, abs=math.radians(6 if method == "rectangle" else 2))


def test_the_axes_of_drawn_ellipses_miss_theirs_by_as_much_as_is_told():
    rng = np.random.default_rng(1)
    misses = []
    for _ in range(300):
        half, angle, centre = rng.uniform(4, 25), rng.uniform(0, math.pi), rng.uniform(-0.5, 0.5, 2)
        short = half * rng.uniform(0.4, 1)
        plane = ellipsoid((1.0, half, short), (1.0, 1.0, 1.0), angle, (0.0, *centre))
        plane = plane[plane.shape[0] // 2]
        found = [feret_axes(plane, (1.0, 1.0)), ellipse_axes(plane, (1.0, 1.0))]
        misses.append([[axes.long_mm - 2 * half, axes.short_mm - 2 * short] for axes in found])
    feret, ellipse = np.mean(misses, axis=0)
    assert feret == pytest.approx(0.8, abs=0.1)
    assert ellipse == pytest.approx(0, abs=0.1)


@settings(max_examples=200, deadline=None)
@given(planes, spacings)
def test_the_feret_diameter_is_the_longest_distance_of_any_two_corners(plane, spacing):
    longest = max(math.dist(a, b) for a, b in itertools.combinations(corners(plane, spacing), 2))
    axes = feret_axes(plane, spacing)
    assert axes.long_mm == pytest.approx(longest, rel=1e-12)
    assert axes.recist.lengths_mm(*spacing) == pytest.approx((axes.long_mm, axes.short_mm), rel=1e-9)


@settings(max_examples=200, deadline=None)
@given(planes, spacings)
def test_the_short_axis_is_perpendicular_and_crosses_the_long_one(plane, spacing):
    for method in METHODS.values():
        axes = method(plane, spacing)
        (ax, ay, bx, by), (cx, cy, dx, dy) = axes.recist.axes
        long = ((bx - ax) * spacing[1], (by - ay) * spacing[0])
        short = ((dx - cx) * spacing[1], (dy - cy) * spacing[0])
        assert abs(long[0] * short[0] + long[1] * short[1]) <= 1e-9 * axes.long_mm**2
        assert axes.short_mm <= axes.long_mm * (1 + 1e-9)
    assert pseudo_mask(feret_axes(plane, spacing).recist, plane.shape) is not None


@settings(max_examples=100, deadline=None)
@given(planes)
def test_the_short_axis_is_the_longest_perpendicular_in_the_hull(plane):
    # slow answer: chords of the hull at many places along the long axis, the hull as all lines between two corners
    axes = feret_axes(plane, (1.0, 1.0))
    (ax, ay, bx, by), _ = axes.recist.axes
    along = np.array([by - ay, bx - ax]) / axes.long_mm
    across = np.array([-along[1], along[0]])
    points = np.array(corners(plane, (1.0, 1.0))) - 0.5 - [ay, ax]
    t, s = points @ along, points @ across
    longest = 0.0
    for place in np.unique(t):
        at = [
            s[i] + (s[j] - s[i]) * (place - t[i]) / (t[j] - t[i])
            for i in np.flatnonzero(t <= place + 1e-12)
            for j in np.flatnonzero(t > place + 1e-12)
        ] + list(s[np.abs(t - place) <= 1e-12])
        longest = max(longest, max(at) - min(at))
    assert axes.short_mm == pytest.approx(longest, abs=1e-9)


@settings(max_examples=150, deadline=None)
@given(volumes, st.sampled_from(sorted(METHODS)), st.sampled_from(UNCONNECTED))
def test_a_measurement_does_not_depend_on_place_mirror_or_quarter_turn(mask, method, unconnected):
    # which of two pieces of one size counts does depend on their order
    assume(unconnected in ("join", "sum") or all(len(find_pieces(plane)) < 2 for plane in mask))

    def lengths(turned, spacing):
        measured = measure_mask(turned, None, spacing, method=method, unconnected=unconnected)
        return [measured.voxels, measured.volume_ml, measured.slices, measured.long_mm, measured.short_mm]

    expected = pytest.approx(lengths(mask, (3.0, 0.5, 1.25)), rel=1e-7)
    for axis in range(3):
        assert lengths(np.flip(mask, axis), (3.0, 0.5, 1.25)) == expected
    assert lengths(np.rot90(mask, axes=(1, 2)), (3.0, 1.25, 0.5)) == expected
    assert lengths(np.pad(mask, ((2, 1), (5, 3), (1, 4))), (3.0, 0.5, 1.25)) == expected


@settings(max_examples=50, deadline=None)
@given(volumes, st.sampled_from(sorted(METHODS)))
def test_end_points_and_box_move_with_the_lesion(mask, method):
    before = measure_mask(mask, None, (1.0, 0.5, 1.25), method=method)
    after = measure_mask(np.pad(mask, ((2, 0), (5, 0), (3, 0))), None, (1.0, 0.5, 1.25), method=method)
    assert after.box == before.box.shift(2, 5, 3)
    assert after.key_z == before.key_z + 2
    moved = before.recist.shift(5, 3)
    assert np.array(after.recist.axes) == pytest.approx(np.array(moved.axes), abs=1e-9)


def test_a_single_voxel_is_as_long_as_it_is():
    mask = np.zeros((3, 5, 5), dtype=np.bool_)
    mask[1, 2, 3] = True
    hu = np.full(mask.shape, -7, dtype=np.int16)
    measured = measure_mask(mask, hu, (2.0, 0.5, 0.5))
    assert measured.voxels == measured.slices == 1
    assert measured.volume_ml == pytest.approx(0.0005)
    assert (measured.mean_hu, measured.std_hu) == (-7, 0)
    assert measured.long_mm == pytest.approx(0.5 * math.sqrt(2))
    assert measured.short_mm == pytest.approx(0.5 * math.sqrt(2))
    box = measured.box
    assert (box.z0, box.y0, box.x0, box.z1, box.y1, box.x1) == (1, 2, 3, 1, 2, 3)
    assert measure_mask(mask, None, (2.0, 0.5, 0.5), method="rectangle").long_mm == pytest.approx(0.5)
    # a uniform square with the side a has the second moment of a circle with the diameter 2 a / sqrt(3)
    assert measure_mask(mask, None, (2.0, 0.5, 0.5), method="ellipse").long_mm == pytest.approx(1 / math.sqrt(3))


def test_a_line_of_pixels_is_as_long_and_as_thick_as_its_pixels():
    mask = np.zeros((1, 4, 12), dtype=np.bool_)
    mask[0, 2, 1:11] = True
    rectangle = measure_mask(mask, None, (1.0, 2.0, 0.5), method="rectangle")
    assert (rectangle.long_mm, rectangle.short_mm) == pytest.approx((5.0, 2.0))
    assert measure_mask(mask, None, (1.0, 2.0, 0.5)).long_mm == pytest.approx(math.hypot(5.0, 2.0))


def test_of_a_node_the_short_axis_counts():
    measured = measure_mask(ellipsoid((8.0, 20.0, 9.0), (1.0, 1.0, 1.0)), None, (1.0, 1.0, 1.0))
    assert measured.diameter_mm(node=True) == measured.short_mm < measured.long_mm == measured.diameter_mm(node=False)


def test_the_slice_is_that_of_the_longest_diameter_not_of_the_largest_area():
    mask = np.zeros((3, 20, 20), dtype=np.bool_)
    mask[0, 2:12, 2:12] = True
    mask[2, 10, 1:19] = True
    measured = measure_mask(mask, None, (1.0, 1.0, 1.0))
    assert measured.key_z == 2
    assert measured.short_mm < 2


def test_of_equally_long_slices_the_longest_short_axis_decides_then_the_lowest_slice():
    mask = np.zeros((4, 12, 12), dtype=np.bool_)
    mask[0, 5, 1:11] = True
    mask[1, 1:11, 1:11] = np.eye(10, dtype=np.bool_)
    mask[2] = mask[3] = mask[1] | mask[1][:, ::-1]
    axes = measure_slices(mask, (1.0, 1.0, 1.0))
    assert list(axes) == [0, 1, 2, 3]
    assert axes[1].long_mm == axes[2].long_mm == axes[3].long_mm
    assert choose_slice(axes) == 2


def test_density_is_that_of_the_lesion_alone():
    mask = np.zeros((2, 3, 3), dtype=np.bool_)
    mask[:, 1, 1] = True
    hu = np.full(mask.shape, 3000, dtype=np.int16)
    hu[mask] = (10, 30)
    measured = measure_mask(mask, hu, (None, 1.0, 1.0))
    assert (measured.mean_hu, measured.std_hu) == (20, 10)
    assert measured.volume_ml is None


@pytest.mark.parametrize(
    ("mask", "spacing", "message"),
    [
        (np.zeros((2, 3, 3), dtype=np.bool_), (1, 1, 1), "without a voxel"),
        (np.zeros((0, 3, 3), dtype=np.bool_), (1, 1, 1), "without a voxel"),
        (np.ones((3, 3), dtype=np.bool_), (1, 1, 1), "bool"),
        (np.ones((1, 3, 3), dtype=np.uint8), (1, 1, 1), "bool"),
        (np.ones((1, 3, 3), dtype=np.bool_), (1, 0, 1), "along y"),
        (np.ones((1, 3, 3), dtype=np.bool_), (1, 1, math.nan), "along x"),
        (np.ones((1, 3, 3), dtype=np.bool_), (1, None, 1), "along y"),
    ],
)
def test_what_cannot_be_measured_is_refused(mask, spacing, message):
    for measure in (measure_mask, measure_as_upstream):
        with pytest.raises(GeometryError, match=message):
            measure(mask, None, spacing)


def test_words_and_shapes_that_mean_nothing_are_refused():
    mask = np.ones((1, 3, 3), dtype=np.bool_)
    with pytest.raises(NotFoundError, match="feret"):
        measure_mask(mask, None, (1, 1, 1), method="ferret")
    with pytest.raises(NotFoundError, match="largest-area"):
        measure_mask(mask, None, (1, 1, 1), unconnected="largest")
    with pytest.raises(GeometryError, match="must be equal"):
        measure_mask(mask, np.zeros((1, 3, 4)), (1, 1, 1))
    with pytest.raises(NotFoundError, match="method"):
        measure_as_upstream(mask, None, (1, 1, 1), method="feret")
    with pytest.raises(SettingError, match="joined"):
        measure_as_upstream(mask, None, (1, 1, 1), method="ellipse", unconnected="join")


def two_pieces():
    mask = np.zeros((1, 12, 20), dtype=np.bool_)
    mask[0, 1:5, 1:5] = True
    mask[0, 8, 8:19] = True
    return mask


@pytest.mark.parametrize(
    ("unconnected", "long"),
    [
        ("join", math.hypot(8, 18)),
        ("largest-area", math.hypot(4, 4)),
        ("largest-measurement", math.hypot(1, 11)),
        ("sum", math.hypot(4, 4) + math.hypot(1, 11)),
    ],
)
def test_pieces_on_one_slice_are_measured_as_asked(unconnected, long):
    measured = measure_mask(two_pieces(), None, (1.0, 1.0, 1.0), unconnected=unconnected)
    assert measured.long_mm == pytest.approx(long)
    assert (measured.recist is None) == (unconnected == "sum")


@settings(max_examples=200, deadline=None)
@given(planes)
def test_pieces_and_holes_are_those_of_simpleitk(plane):
    image = SimpleITK.GetImageFromArray(plane.astype(np.uint8))
    for diagonal in (True, False):
        labelled = SimpleITK.GetArrayFromImage(SimpleITK.ConnectedComponent(image, diagonal))
        pieces = find_pieces(plane, diagonal=diagonal)
        assert len(pieces) == labelled.max()
        for piece in pieces:
            (value,) = np.unique(labelled[piece])
            np.testing.assert_array_equal(labelled == value, piece)
    filled = SimpleITK.GetArrayFromImage(SimpleITK.BinaryFillhole(image, fullyConnected=False))
    np.testing.assert_array_equal(fill_holes(plane), filled.astype(np.bool_))


@settings(max_examples=300, deadline=None)
@given(planes, spacings)
def test_the_rectangle_is_opencvs_smallest(plane, spacing):
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with lesionzarr[bench]; compared where it is present")
    points = np.array(corners(plane, spacing), dtype=np.float32)
    _, sides, _ = cv2.minAreaRect(points)
    axes = rectangle_axes(plane, spacing)
    assert axes.long_mm * axes.short_mm == pytest.approx(math.prod(sides), rel=1e-4)
    if axes.long_mm == pytest.approx(max(sides), rel=1e-4):
        assert axes.short_mm == pytest.approx(min(sides), rel=1e-4)
    else:
        # another rectangle of the same area: ours is the longer one
        assert axes.long_mm > max(sides)


@settings(max_examples=200, deadline=None)
@given(planes, spacings)
def test_the_ellipse_is_scikit_images_but_for_the_size_of_a_pixel(plane, spacing):
    measure = pytest.importorskip("skimage.measure", reason="scikit-image is no dependency; compared where present")
    (region,) = measure.regionprops(plane.astype(np.uint8), spacing=spacing)
    points = ellipse_axes(plane, spacing, pixel_size=False)
    assert points.long_mm == pytest.approx(region.axis_major_length, abs=1e-6)
    assert points.short_mm == pytest.approx(region.axis_minor_length, abs=1e-6)
    # the moments of a union of rectangles are those of their centres and a twelfth of the square of their sides
    moments = np.array(region.inertia_tensor)
    moments = np.eye(2) * np.trace(moments) - moments + np.diag(np.square(spacing)) / 12
    minor, major = 4 * np.sqrt(np.linalg.eigvalsh(moments))
    whole = ellipse_axes(plane, spacing)
    assert (whole.long_mm, whole.short_mm) == pytest.approx((major, minor), abs=1e-6)


# --- upstream's errors, each beside what is right ---


def upstream_by_opencv(plane, row_mm, unconnected):
    """Give the sides of upstream's rectangle by the library that upstream uses."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with lesionzarr[bench]; compared where it is present")
    found, _ = cv2.findContours(plane.astype(np.uint8) * 255, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    contours = [contour for contour in found if len(contour) > 1]
    if not contours:
        return None
    if unconnected == "join":
        chosen = [np.vstack(contours)]
    elif unconnected == "largest-area":
        chosen = [max(contours, key=cv2.contourArea)]
    else:
        chosen = contours
    sides = [sorted(cv2.minAreaRect(contour)[1]) for contour in chosen]
    if unconnected == "largest-measurement":
        sides = [max(sides, key=lambda pair: pair[1])]
    factor = 1.0 if unconnected == "sum" else row_mm
    return sum(long for _, long in sides) * factor, sum(short for short, _ in sides) * factor


@settings(max_examples=300, deadline=None)
@given(planes, st.sampled_from(UNCONNECTED))
def test_upstreams_rectangle_is_reproduced(plane, unconnected):
    expected = upstream_by_opencv(plane, 0.7, unconnected)
    if expected is None:
        with pytest.raises(GeometryError, match="single pixels"):
            measure_as_upstream(plane[None], None, (1.0, 0.7, 0.9), unconnected=unconnected)
        return
    measured = measure_as_upstream(plane[None], None, (1.0, 0.7, 0.9), unconnected=unconnected)
    if measured.long_mm == pytest.approx(expected[0], abs=1e-4):
        # several pieces of one length may be of different widths, and single precision chooses
        assert unconnected == "largest-measurement" or measured.short_mm == pytest.approx(expected[1], abs=1e-4)
    else:
        # of several rectangles of one area OpenCV takes another
        assert measured.long_mm > expected[0]
        if unconnected in ("join", "largest-area"):
            assert measured.long_mm * measured.short_mm == pytest.approx(math.prod(expected), abs=1e-4)


def test_upstreams_rectangle_is_a_pixel_short():
    mask = np.zeros((1, 12, 22), dtype=np.bool_)
    mask[0, 1:11, 1:21] = True
    upstream = measure_as_upstream(mask, None, (1.0, 0.5, 0.5))
    right = measure_mask(mask, None, (1.0, 0.5, 0.5), method="rectangle")
    assert (upstream.long_mm, upstream.short_mm) == pytest.approx((9.5, 4.5))
    assert (right.long_mm, right.short_mm) == pytest.approx((10.0, 5.0))
    assert (upstream.method, upstream.unconnected) == ("obb", "largest-area")


def test_upstreams_rectangle_takes_every_pixel_for_a_square():
    mask = np.zeros((1, 12, 22), dtype=np.bool_)
    mask[0, 1:11, 1:21] = True
    assert measure_as_upstream(mask, None, (1.0, 0.5, 2.0)).long_mm == pytest.approx(19 * 0.5)
    assert measure_mask(mask, None, (1.0, 0.5, 2.0), method="rectangle").long_mm == pytest.approx(40.0)


def test_upstreams_sum_forgets_the_spacing():
    upstream = measure_as_upstream(two_pieces(), None, (1.0, 0.5, 0.5), unconnected="sum")
    assert upstream.long_mm == pytest.approx(3 + 10)
    right = measure_mask(two_pieces(), None, (1.0, 0.5, 0.5), method="rectangle", unconnected="sum")
    assert right.long_mm == pytest.approx((4 + 11) * 0.5)


def test_upstream_takes_the_lowest_of_equally_long_slices():
    mask = np.zeros((2, 6, 12), dtype=np.bool_)
    mask[0, 1, 1:11] = True
    mask[1, 1:5, 1:11] = True
    assert measure_as_upstream(mask, None, (1.0, 1.0, 1.0)).key_z == 0
    assert measure_mask(mask, None, (1.0, 1.0, 1.0)).key_z == 1


def test_upstreams_ellipse_has_no_size_on_a_single_pixel():
    mask = np.ones((1, 1, 1), dtype=np.bool_)
    assert measure_as_upstream(mask, None, (1.0, 1.0, 1.0), method="ellipse").long_mm == 0
    assert measure_mask(mask, None, (1.0, 1.0, 1.0), method="ellipse").long_mm > 1


# --- real masks ---


@pytest.fixture(scope="module")
def real_ct(data):
    """Real CT and organ mask on one grid, and their spacing (z, y, x)."""
    paths = [data / "nifti" / name for name in ("ct_3mm_RAS_int16.nii.gz", "seg_3mm_RAS_uint8.nii.gz")]
    ct, mask = (SimpleITK.ReadImage(str(path)) for path in paths)
    return ct, mask


def test_real_masks_have_the_volume_and_density_that_simpleitk_finds(real_ct):
    ct, mask = real_ct
    shapes, densities = SimpleITK.LabelShapeStatisticsImageFilter(), SimpleITK.LabelStatisticsImageFilter()
    shapes.Execute(mask)
    densities.Execute(ct, mask)
    voxels, hu = SimpleITK.GetArrayFromImage(mask), SimpleITK.GetArrayFromImage(ct)
    labels = shapes.GetLabels()
    assert len(labels) > 1
    for label in labels:
        measured = measure_mask(voxels == label, hu, ct.GetSpacing()[::-1])
        assert measured.voxels == shapes.GetNumberOfPixels(label)
        assert measured.volume_ml == pytest.approx(shapes.GetPhysicalSize(label) / 1000, rel=1e-6)
        assert measured.mean_hu == pytest.approx(densities.GetMean(label))
        count = measured.voxels
        sample = densities.GetSigma(label)
        assert measured.std_hu == pytest.approx(sample * math.sqrt((count - 1) / count))
        x0, y0, z0, width, height, depth = shapes.GetBoundingBox(label)
        box = measured.box
        assert (box.x0, box.y0, box.z0) == (x0, y0, z0)
        assert (box.x1, box.y1, box.z1) == (x0 + width - 1, y0 + height - 1, z0 + depth - 1)


def test_real_slices_are_as_long_as_simpleitk_and_scikit_image_find(real_ct):
    regionprops = pytest.importorskip("skimage.measure", reason="scikit-image is no dependency").regionprops
    _, mask = real_ct
    voxels, (x_mm, y_mm, z_mm) = SimpleITK.GetArrayFromImage(mask), mask.GetSpacing()
    shapes = SimpleITK.LabelShapeStatisticsImageFilter()
    shapes.ComputeFeretDiameterOn()
    label = int(np.bincount(voxels[voxels > 0]).argmax())
    compared = 0
    for z, axes in measure_slices(voxels == label, (z_mm, y_mm, x_mm)).items():
        plane = SimpleITK.GetImageFromArray((voxels[z] == label).astype(np.uint8))
        plane.SetSpacing((x_mm, y_mm))
        shapes.Execute(plane)
        # ITK measures between the centres of pixels, here it is between their corners
        between_centres = shapes.GetFeretDiameter(1)
        assert between_centres < axes.long_mm <= between_centres + math.hypot(x_mm, y_mm) + 1e-6
        (region,) = regionprops(SimpleITK.GetArrayFromImage(plane), spacing=(y_mm, x_mm))
        ellipse = ellipse_axes(voxels[z] == label, (y_mm, x_mm), pixel_size=False)
        assert ellipse.long_mm == pytest.approx(region.axis_major_length)
        compared += 1
    assert compared > 10


# --- masks made of RECIST axes ---


def test_perpendicular_axes_make_the_ellipse_that_they_are_those_of():
    mask = pseudo_mask(Recist(10, 30, 50, 30, 30, 20, 30, 40), (60, 60))
    y, x = np.mgrid[:60, :60]
    np.testing.assert_array_equal(mask, ((x - 30) / 20) ** 2 + ((y - 30) / 10) ** 2 <= 1)


def test_each_quarter_has_half_axes_of_its_own():
    # crossing at (20, 30): 10 to the left, 30 to the right, 6 up, 14 down
    mask = pseudo_mask(Recist(10, 30, 50, 30, 20, 24, 20, 44), (60, 60))
    assert mask[30, 10]
    assert not mask[30, 9]
    assert mask[30, 50]
    assert mask[24, 20]
    assert not mask[23, 20]
    assert mask[44, 20]
    assert mask.sum() == pytest.approx(math.pi / 4 * (10 + 30) * (6 + 14), rel=0.05)


def test_a_pseudo_mask_is_mulans_polygon_filled():
    # MULAN's rule, written out: quarters of right angles from each end to the next, round the crossing
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with lesionzarr[bench]; compared where it is present")
    angle, crossing, halves = 0.5, np.array([30.2, 28.7]), (17.0, 11.0, 12.5, 6.0)
    polygon = []
    for n, (a, b) in enumerate(zip(halves, (*halves[1:], halves[0]), strict=True)):
        turn = angle + n * math.pi / 2
        for t in np.arange(0, math.pi / 2, 0.01):
            u, v = a * math.cos(t), b * math.sin(t)
            polygon.append(
                crossing + np.array([u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)])
            )
    ends = [
        crossing + half * np.array([math.cos(angle + n * math.pi / 2), math.sin(angle + n * math.pi / 2)])
        for n, half in enumerate(halves)
    ]
    mask = pseudo_mask(Recist(*ends[0], *ends[2], *ends[1], *ends[3]), (60, 60))
    contour = np.array(polygon, dtype=np.float32)
    inside = [
        [cv2.pointPolygonTest(contour, (float(x), float(y)), measureDist=False) > 0 for x in range(60)]
        for y in range(60)
    ]
    assert np.count_nonzero(mask != np.array(inside)) <= 2
    assert mask.sum() > 300


def test_axes_that_are_not_perpendicular_reach_all_four_ends():
    ends = (10, 20, 50, 40, 25, 45, 35, 15)
    mask = pseudo_mask(Recist(*ends), (60, 60))
    for x, y in zip(ends[::2], ends[1::2], strict=True):
        assert mask[y, x]


def test_axes_that_just_do_not_touch_are_closed_and_those_apart_are_refused():
    assert pseudo_mask(Recist(10, 30, 50, 30, 30, 30.5, 30, 45), (60, 60)).any()
    with pytest.raises(GeometryError, match=r"5\.0 pixels before"):
        pseudo_mask(Recist(10, 30, 50, 30, 30, 35, 30, 45), (60, 60))
    with pytest.raises(GeometryError, match="parallel"):
        pseudo_mask(Recist(10, 30, 50, 30, 10, 31, 50, 31), (60, 60))
    with pytest.raises(GeometryError, match="without a length"):
        pseudo_mask(Recist(10, 30, 10, 30, 10, 20, 10, 40), (60, 60))


def test_a_mark_that_leaves_the_slice_is_cut_off():
    mask = pseudo_mask(Recist(-20, 5, 20, 5, 0, -8, 0, 18), (30, 30))
    assert mask[5, 0]
    assert mask[0, 0]
    assert not mask[29].any()


@settings(max_examples=60, deadline=None)
@given(st.floats(10, 25), st.floats(0.5, 1), st.floats(0, math.pi), st.floats(28, 32), st.floats(28, 32))
def test_an_ellipse_drawn_from_its_axes_measures_as_they_do(half, share, angle, x, y):
    run, across = np.array([math.cos(angle), math.sin(angle)]), np.array([-math.sin(angle), math.cos(angle)])
    ends = [(x, y) + sign * part for part in (half * run, half * share * across) for sign in (-1, 1)]
    mask = pseudo_mask(Recist(*np.concatenate(ends)), (70, 70))
    measured = measure_mask(mask[None], None, (1.0, 1.0, 1.0), method="ellipse")
    assert measured.long_mm == pytest.approx(2 * half, abs=math.sqrt(2))
    assert measured.short_mm == pytest.approx(2 * half * share, abs=math.sqrt(2))


def test_real_marks_of_deeplesion_become_masks_but_for_a_few_whose_axes_lie_apart(real):
    table = pd.read_csv(real / "DL_info_val.csv")
    refused = 0
    for text in table["Measurement_coordinates"]:
        points = np.array([float(value) for value in text.split(",")]).reshape(4, 2)
        points -= np.floor(points.min(axis=0)) - 5
        width, height = (np.ceil(points.max(axis=0)) + 5).astype(int).tolist()
        try:
            mask = pseudo_mask(Recist(*points.ravel()), (height, width))
        except GeometryError:
            refused += 1
        else:
            assert mask.any()
    assert refused == 6
