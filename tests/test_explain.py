"""What a batch costs, and what the cache of decoded chunks saves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import lesionzarr
from lesionzarr.errors import SettingError
from lesionzarr.readers._cache import ChunkCache
from lesionzarr.store import layout


def corner(catalog, z=0, y=0, x=0):
    """A lesion whose box is one voxel, anywhere in the first volume."""
    (lesion,) = catalog.find_lesions(catalog.lesions.index[0])
    return dataclasses.replace(lesion, key_z=z, x0=x, x1=x, y0=y, y1=y, z0=None, z1=None)


def test_a_crop_inside_one_chunk_costs_one_request(sample_store):
    catalog = lesionzarr.open(sample_store)
    told = lesionzarr.CropReader(catalog, size=(1, 8, 8)).explain(corner(catalog, 3, 20, 20))
    assert (told.images, told.volumes, told.shards, told.chunks, told.requests) == (1, 1, 1, 1, 1)
    # a block of four slices of a chunk of (8, 64, 64) int16 is decoded for a crop of 8 x 8
    assert (told.decoded_bytes, told.wanted_bytes) == (4 * 64 * 64 * 2, 8 * 8 * 2)
    assert told.waste == 256
    assert 0 < told.read_bytes < 8 * 64 * 64 * 2
    assert told.seconds is None


def test_of_a_chunk_only_the_blocks_that_are_wanted_are_decoded(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "BLOCK_SLICES", 2)
    lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    lesion = corner(catalog, 3, 20, 20)
    reader = lesionzarr.CropReader(catalog, size=(3, 8, 8))
    # slices 2, 3 and 4 lie in two of the four blocks
    assert reader.explain(lesion).decoded_bytes == 4 * 64 * 64 * 2
    whole = catalog.volume(lesion.volume_id).hu.values
    np.testing.assert_array_equal(reader.read(lesion).image[0], whole[2:5, 16:24, 16:24])


def test_one_request_brings_the_chunks_of_a_lesion(real_store):
    catalog = lesionzarr.open(real_store)
    for lesion in catalog.find_lesions(list(catalog.lesions.index)):
        reader = lesionzarr.CropReader(catalog)
        told = reader.explain(lesion)
        assert told.chunks > 4
        assert told.requests == told.shards


def test_lesions_that_share_chunks_pay_for_them_once(sample_store):
    catalog = lesionzarr.open(sample_store)
    reader = lesionzarr.CropReader(catalog, size=(1, 8, 8))
    one = reader.explain(corner(catalog, 3, 20, 20))
    many = reader.explain([corner(catalog, 3, 20, 20), corner(catalog, 3, 30, 40), corner(catalog, 3, 25, 25)])
    assert (many.images, many.chunks, many.read_bytes) == (3, one.chunks, one.read_bytes)


def test_neighbours_in_the_file_are_one_request(sample_store):
    catalog = lesionzarr.open(sample_store)
    # rows of chunks lie side by side in a shard: 2 x 2 chunks of one slice of 96 x 96 are four in a row
    told = lesionzarr.CropReader(catalog, size=(1, 90, 90)).explain(corner(catalog, 3, 48, 48))
    assert (told.chunks, told.requests) == (4, 1)


def test_a_crop_outside_of_its_volume_costs_nothing(sample_store):
    catalog = lesionzarr.open(sample_store)
    told = lesionzarr.CropReader(catalog, size=(1, 4, 4)).explain(corner(catalog, 3, 500, 500))
    assert (told.chunks, told.requests, told.read_bytes, told.waste) == (0, 0, 0, 0)


def test_running_tells_the_time_too(sample_store):
    catalog = lesionzarr.open(sample_store)
    told = lesionzarr.StackReader(catalog, size=(8, 8)).explain(catalog.lesions, run=True)
    assert told.images == len(catalog)
    assert told.seconds > 0


def test_what_zarr_python_reads_tells_no_cost(sample, tmp_path):
    lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr", profile="dense")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    with pytest.raises(SettingError, match="zarr-python"):
        lesionzarr.CropReader(catalog).explain(catalog.lesions)


def test_the_cache_is_off_unless_asked_for(sample_store):
    catalog = lesionzarr.open(sample_store)
    reader = lesionzarr.CropReader(catalog, size=(3, 32, 32))
    reader.read_batch(catalog.lesions)
    info = reader.cache_info()
    assert (info.hits, info.misses, info.chunks, info.bytes, info.budget_bytes) == (0, 0, 0, 0, 0)
    with pytest.raises(SettingError, match="-1 bytes"):
        lesionzarr.open(sample_store, cache_bytes=-1)


@pytest.mark.parametrize("budget", [10**8, 10 * 2**16, 1000])
def test_a_cache_changes_no_voxel_and_keeps_to_its_budget(sample_store, budget):
    catalog = lesionzarr.open(sample_store, cache_bytes=budget)
    plain = lesionzarr.CropReader(lesionzarr.open(sample_store), size=(5, 50, 50)).read_batch(catalog.lesions).image
    reader = lesionzarr.CropReader(catalog, size=(5, 50, 50))
    for _ in range(3):
        np.testing.assert_array_equal(reader.read_batch(catalog.lesions, threads=2).image, plain)
    info = reader.cache_info()
    assert info.bytes <= budget
    if budget == 10**8:
        assert info.misses == info.chunks == reader.explain(catalog.lesions).chunks
        assert info.hits == 2 * info.misses
        assert lesionzarr.StackReader(catalog, size=(8, 8)).cache_info() == info


def test_the_chunk_that_was_not_used_for_longest_goes_first():
    cache = ChunkCache(3 * 8)
    for number in range(3):
        cache.put(("v", 0, number), np.array([number]))
    cache.get(("v", 0, 0))
    cache.put(("v", 0, 3), np.array([3]))
    assert [cache.get(("v", 0, number)) is not None for number in range(4)] == [True, False, True, True]
    assert cache.info().bytes == 24


def test_what_is_kept_is_a_copy():
    cache, chunk = ChunkCache(100), np.array([7])
    cache.put(("v", 0, 0), chunk)
    chunk[0] = 8
    assert cache.get(("v", 0, 0)) == 7
