"""The border clipping of 3DCE, against the opening written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

import lesionzarr
from lesionzarr.body import BodyRegion, find_body
from lesionzarr.errors import GeometryError
from lesionzarr.geometry import Box
from lesionzarr.samples import phantom


def opened(mask, side):
    """Every pixel of every square of that side that fits into the mask."""
    kept = np.zeros_like(mask)
    for y in range(mask.shape[0] - side + 1):
        for x in range(mask.shape[1] - side + 1):
            if mask[y : y + side, x : x + side].all():
                kept[y : y + side, x : x + side] = True
    return kept


@given(arrays.arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14))), st.sampled_from([1, 3, 5]))
def test_the_region_is_what_the_opened_mask_spans(mask, side):
    kept = opened(mask, side)
    region = find_body(np.where(mask, 40, -1000), opening=side)
    if kept.any():
        y, x = np.nonzero(kept)
        assert region == BodyRegion(y.min(), y.max() + 1, x.min(), x.max() + 1)
    else:
        assert region == BodyRegion(0, mask.shape[0], 0, mask.shape[1])


def test_a_block_of_seven_pixels_is_body_and_one_of_six_is_table():
    hu = np.full((60, 80), -1024, dtype=np.int16)
    hu[50:56] = 100
    hu[10:17, 20:27] = -767
    assert find_body(hu) == BodyRegion(10, 17, 20, 27)
    # the threshold of 32000 in stored values is -768 HU, and not above itself
    hu[10:17, 20:27] = -768
    assert find_body(hu) == BodyRegion(0, 60, 0, 80)


@pytest.mark.parametrize(("series", "number", "lesion"), [
    ("000001_01_01", 109, Box(0, 89.0204, 225.169, 0, 110.977, 240.252)),
    ("000001_03_01", 88, Box(0, 127.524, 245.735, 0, 161.618, 269.288)),
])  # fmt: skip
def test_on_real_slices_what_is_cut_away_is_air_or_thin(real, series, number, lesion):
    stored = np.asarray(Image.open(real / "Images_png" / series / f"{number:03d}.png"))
    hu = stored.astype(np.int32) - 32768
    region = find_body(hu)
    kept = opened(stored > 32000, 7)
    assert kept[region.y0 : region.y1, region.x0 : region.x1].sum() == kept.sum() > 50_000
    for corner in (hu[:8, :8], hu[:8, -8:], hu[-8:, :8], hu[-8:, -8:]):
        assert corner.max() < -768
    inside = region.to_clipped(lesion)
    assert 0 <= inside.y0 < inside.y1 <= region.y1 - region.y0 - 1
    assert 0 <= inside.x0 < inside.x1 <= region.x1 - region.x0 - 1


def test_a_made_up_body_lies_inside_and_a_table_does_not():
    (hu,) = phantom((1, 128, 128), (5.0, 3.0, 3.0), np.random.default_rng(0))
    kept = opened(hu > -768, 7)
    wide = np.full((200, 220), -1000, dtype=np.int16)
    wide[31 : 31 + 128, 47 : 47 + 128] = np.where(kept, hu, -1000)
    wide[170:174, 20:200] = 300
    region = find_body(wide)
    y, x = np.nonzero(kept)
    assert region == BodyRegion(31 + y.min(), 31 + y.max() + 1, 47 + x.min(), 47 + x.max() + 1)
    cut = wide.copy()
    region.clip(cut)[...] = -1000
    assert (cut[:170] == -1000).all()
    clipped = region.clip(wide)
    assert max(clipped[0, 0], clipped[0, -1]) < -768


@given(st.integers(0, 99), st.integers(0, 99), st.floats(-9, 300), st.floats(-9, 300))
def test_a_box_goes_into_the_clipped_slice_and_back(y0, x0, y, x):
    region, box = BodyRegion(y0, 200, x0, 200), Box(3, y, x, 4, y + 5, x + 6)
    clipped = region.to_clipped(box)
    assert (clipped.y0, clipped.x0, clipped.z0) == (y - y0, x - x0, 3)
    back = region.from_clipped(clipped)
    assert (back.y0, back.x0, back.y1, back.x1) == pytest.approx((box.y0, box.x0, box.y1, box.x1))


def test_a_stack_is_clipped_as_3dce_clips_it(real_store):
    """The way of a detector: whole slices at 0.8 mm, clipped; its boxes come back to the volume."""
    catalog = lesionzarr.open(real_store)
    stack = lesionzarr.StackReader(catalog, slices=3, spacing_mm=0.8, window=["full"]).read("000001_03_01_088_1")
    region = find_body(stack.image[0, 1].astype(float) / 255 * 4095 - 1024)
    clipped = region.clip(stack.image)
    assert clipped.shape == (1, 3, region.y1 - region.y0, region.x1 - region.x0)
    assert clipped.shape[2] < 400
    back = region.from_clipped(region.to_clipped(stack.box))
    assert stack.to_volume((1, back.y0, back.x0))[1:] == pytest.approx((127.524, 245.735))


def test_what_is_no_slice_is_refused():
    with pytest.raises(GeometryError, match="one slice"):
        find_body(np.zeros((3, 4, 5)))
    with pytest.raises(GeometryError, match="odd"):
        find_body(np.zeros((4, 5)), opening=6)
