"""Planning of chunks: every voxel of every region comes from its own chunk, once, and every chunk is read once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionzarr.readers._chunks import merge_ranges, plan_chunks
from lesionzarr.store.arrays import ArrayLayout


def make_layout(shape, chunk, per_shard):
    shard = tuple(c * n for c, n in zip(chunk, per_shard, strict=True))
    sharding = {"indexed": True, "index_first": False, "index_checked": True}
    coding = {"dtype": np.dtype("<i2"), "compressor": "blosc", "block_bytes": 0, "checked": True}
    return ArrayLayout(
        name="hu", shape=shape, chunk=chunk, shard=shard, fill_value=0, separator="/", **coding, **sharding
    )


sizes = st.tuples(*[st.integers(1, 20)] * 3)
layouts = st.builds(make_layout, sizes, st.tuples(*[st.integers(1, 6)] * 3), st.tuples(*[st.integers(1, 3)] * 3))


@st.composite
def batches(draw):
    arrays = draw(st.lists(layouts, min_size=1, max_size=3))
    volume, start, stop = [], [], []
    for _ in range(draw(st.integers(1, 6))):
        number = draw(st.integers(0, len(arrays) - 1))
        ends = [sorted(draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in arrays[number].shape]
        volume.append(number)
        start.append([low for low, _ in ends])
        stop.append([high for _, high in ends])
    return arrays, np.array(volume), np.array(start), np.array(stop)


def voxels(array):
    return np.arange(np.prod(array.shape)).reshape(array.shape)


def chunk_of(array, shard, inner):
    """The chunk at a place in a shard, cut out of the whole array padded to whole shards."""
    whole = [n * s for n, s in zip(array.grid, array.shard, strict=True)]
    padded = np.pad(voxels(array), [(0, n - m) for n, m in zip(whole, array.shape, strict=True)], constant_values=-1)
    outer, part = np.unravel_index(shard, array.grid), np.unravel_index(inner, array.chunks_per_shard)
    corner = [o * s + p * c for o, s, p, c in zip(outer, array.shard, part, array.chunk, strict=True)]
    return padded[tuple(slice(a, a + c) for a, c in zip(corner, array.chunk, strict=True))]


@settings(max_examples=200)
@given(batches())
def test_regions_put_together_from_chunks_are_the_regions(batch):
    arrays, volume, start, stop = batch
    plan = plan_chunks(arrays, volume, start, stop)
    made = [np.full(b - a, -2) for a, b in zip(start, stop, strict=True)]
    chunks = list(zip(plan.volume.tolist(), plan.shard.tolist(), plan.inner.tolist(), strict=True))
    assert len(set(chunks)) == len(chunks)
    for number, (array, shard, inner) in enumerate(chunks):
        chunk = chunk_of(arrays[array], shard, inner)
        pairs = range(plan.pairs[number], plan.pairs[number + 1])
        assert len(pairs) > 0
        assert plan.owner[number] == min(plan.region[pair] for pair in pairs)
        for pair in pairs:
            z, y, x, z1, y1, x1, tz, ty, tx, tz1, ty1, tx1 = plan.boxes[pair]
            target = made[plan.region[pair]][tz:tz1, ty:ty1, tx:tx1]
            assert (target == -2).all()
            target[...] = chunk[z:z1, y:y1, x:x1]
    for region, (number, a, b) in enumerate(zip(volume, start, stop, strict=True)):
        block = tuple(slice(low, high) for low, high in zip(a, b, strict=True))
        np.testing.assert_array_equal(made[region], voxels(arrays[number])[block])


@given(batches())
def test_chunks_come_by_owner_then_as_they_lie_in_the_object(batch):
    plan = plan_chunks(*batch)
    order = list(zip(plan.owner, plan.volume, plan.shard, plan.inner, strict=True))
    assert order == sorted(order)


ranges = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 30)), max_size=12)


@given(ranges, st.integers(0, 40), st.integers(1, 120))
def test_merged_ranges_hold_every_range_and_waste_no_more_than_the_gap(gaps, gap, limit):
    entries, end = [], 0
    for before, length in gaps:
        entries.append((end + before, length))
        end += before + length
    entries_ = np.array(entries, dtype=np.int64).reshape(-1, 2)
    begin = merge_ranges(entries_, np.zeros(len(entries), dtype=np.int64), gap, limit).tolist()
    assert begin[-1] == len(entries)
    assert begin == sorted(set(begin))
    for a, b in pairwise(begin):
        part = entries[a:b]
        assert b == a + 1 or part[-1][0] + part[-1][1] - part[0][0] <= limit
        for (offset, length), (following, _) in pairwise(part):
            assert 0 <= following - (offset + length) <= gap
    for a in begin[1:-1]:
        before, here = entries[a - 1], entries[a]
        first = entries[max(start for start in begin if start < a)]
        apart = here[0] - before[0] - before[1] > gap
        assert apart or here[0] + here[1] - first[0] > limit


def test_ranges_that_do_not_follow_each_other_are_not_merged():
    entries = np.array([[100, 10], [0, 10], [10, 10]])
    assert merge_ranges(entries, np.zeros(3), 1000, 10**6).tolist() == [0, 1, 3]


def test_ranges_of_two_objects_are_not_merged():
    entries = np.array([[0, 10], [10, 10], [20, 10], [30, 10]])
    assert merge_ranges(entries, np.array([0, 0, 1, 1]), 1000, 10**6).tolist() == [0, 2, 4]
