import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionzarr.errors import GeometryError
from lesionzarr.geometry import Box, Grid, Region, crop_start
from lesionzarr.recist import Recist

places = st.floats(-1000, 1000)
LPS_OF_DEEPLESION = ("superior-to-inferior", "anterior-to-posterior", "right-to-left")


def boxes():
    axis = st.tuples(places, places).map(sorted)
    return st.tuples(axis, axis, axis).map(lambda zyx: Box(*(low for low, _ in zyx), *(high for _, high in zyx)))


@given(st.floats(-500, 1500), st.integers(1, 300))
def test_a_crop_has_its_centre_where_it_should(centre, size):
    start = crop_start(centre, size)
    middle = start + size // 2
    assert abs(middle - centre) <= 0.5
    before, after = middle - start, start + size - 1 - middle
    assert before - after == (size + 1) % 2


@pytest.mark.parametrize(("centre", "start"), [(10.5, 8), (11.5, 10), (10.0, 8), (-0.5, -2)])
def test_a_centre_between_two_pixels_goes_to_the_even_one(centre, start):
    assert crop_start(centre, 4) == start


@given(boxes(), boxes())
def test_overlap_is_symmetric_and_a_share(a, b):
    assert a.overlap_in_plane(b) == pytest.approx(b.overlap_in_plane(a))
    assert 0 <= a.overlap_in_plane(b) <= 1 + 1e-9
    assert a.overlap_in_plane(a) == pytest.approx(1)


def test_overlap_counts_inclusive_ends():
    # two boxes of 3 x 3 pixels that share 2 x 3
    assert Box(0, 0, 0, 0, 2, 2).overlap_in_plane(Box(0, 0, 1, 0, 2, 3)) == pytest.approx(6 / 12)
    assert Box(0, 0, 0, 0, 2, 2).overlap_in_plane(Box(0, 0, 3, 0, 2, 5)) == 0


@given(boxes(), places, places, places)
def test_a_shifted_box_keeps_its_size(box, dz, dy, dx):
    moved = box.shift(dz, dy, dx)
    assert moved.centre == pytest.approx([c + d for c, d in zip(box.centre, (dz, dy, dx), strict=True)], abs=1e-9)
    assert moved.y1 - moved.y0 == pytest.approx(box.y1 - box.y0, abs=1e-9)


def test_a_box_or_grid_that_cannot_be_is_refused():
    with pytest.raises(GeometryError, match="ends before it begins"):
        Box(0, 5, 0, 0, 4, 1)
    with pytest.raises(GeometryError, match="three sizes"):
        Grid((0, 4, 4), (1, 1, 1))
    for spacing in (0, -1.0, math.nan, math.inf):
        with pytest.raises(GeometryError, match="positive, or None"):
            Grid((4, 4, 4), (spacing, 1, 1))


def test_coordinates_follow_the_patient_axes():
    axes = Grid((3, 2, 2), (5.0, 0.5, 0.25), LPS_OF_DEEPLESION).coordinates()
    assert axes["z"].tolist() == [0, -5, -10]
    assert axes["y"].tolist() == [0, 0.5]
    assert axes["x"].tolist() == [0, 0.25]
    assert not np.signbit(axes["z"][0])
    flipped = Grid((1, 2, 2), (None, 0.5, 0.25), ("inferior-to-superior", "posterior-to-anterior", "left-to-right"))
    assert flipped.coordinates()["y"].tolist() == [0, -0.5]
    assert flipped.coordinates()["x"].tolist() == [0, -0.25]


def test_an_unknown_slice_interval_numbers_the_slices():
    assert Grid((3, 1, 1), (None, 1, 1)).coordinates()["z"].tolist() == [0, 1, 2]


def test_a_region_is_half_open():
    region = Region((1, 2, 3), (4, 2, 9))
    assert region.shape == (3, 0, 6)
    assert np.zeros((10, 10, 10))[region.slices].shape == region.shape


def test_axes_are_measured_with_the_spacing_of_rows_and_columns():
    # 3 columns and 4 rows: 3-4-5
    mark = Recist(0, 0, 3, 4, 1, 1, 1, 3)
    assert mark.lengths_mm(1, 1) == (5, 2)
    assert mark.lengths_mm(0.5, 1) == (pytest.approx(math.hypot(3, 2)), 1)
    assert mark.shift(10, 20).axes == ((20, 10, 23, 14), (21, 11, 21, 13))
