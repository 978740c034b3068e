"""The reader of shards: equal to zarr-python on any layout, to the definition of a crop, and never fooled by damage."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Event, Lock, Thread, get_ident

import google_crc32c
import numcodecs
import numpy as np
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import lesionzarr
from lesionzarr.errors import IntegrityError, LesionzarrError, SettingError
from lesionzarr.geometry import Region, crop_start
from lesionzarr.readers import _fetch
from lesionzarr.readers._chunks import plan_chunks
from lesionzarr.readers._fetch import Fetcher, Regions
from lesionzarr.readers._pace import LEAST_GAP_BYTES
from lesionzarr.readers._threads import run_all
from lesionzarr.readers._zarr import read_region
from lesionzarr.store import layout
from lesionzarr.store._folder import Folder
from lesionzarr.store.arrays import parse_layout
from lesionzarr.store.shards import parse_index
from lesionzarr.window import Window, apply_window

LITTLE, BIG = ({"name": "bytes", "configuration": {"endian": endian}} for endian in ("little", "big"))
CRC = {"name": "crc32c"}
INTEGERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
DTYPES = [*INTEGERS, "float16", "float32", "float64", "bool"]


@pytest.fixture(scope="module", autouse=True)
def eager_threads():
    """Let threads share even a few chunks, as they do those of large batches."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_fetch, "CHUNKS_PER_THREAD", 1)
        yield


def blosc(cname="zstd", shuffle="shuffle", blocksize=0, typesize=2):
    settings = {"cname": cname, "clevel": 3, "shuffle": shuffle, "typesize": typesize, "blocksize": blocksize}
    return {"name": "blosc", "configuration": settings}


def zstandard(level=1, *, checksum=False):
    return {"name": "zstd", "configuration": {"level": level, "checksum": checksum}}


def sharding(inner, codecs, location="end", index_codecs=(LITTLE, CRC)):
    settings = {"chunk_shape": inner, "codecs": codecs, "index_codecs": index_codecs, "index_location": location}
    return {"name": "sharding_indexed", "configuration": settings}


def describe(shape, outer, codecs, dtype="int16", fill=0, keys="default", separator="/"):
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": shape,
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": outer}},
        "chunk_key_encoding": {"name": keys, "configuration": {"separator": separator}},
        "fill_value": fill,
        "codecs": codecs,
        "attributes": {},
    }


def shuffled(shape, dtype, seed=0):
    """Voxels of every value that the type has, half of the array smooth so that compressors find something to do."""
    rng = np.random.default_rng(seed)
    count = int(np.prod(shape))
    size = np.dtype(dtype).itemsize
    noise = rng.integers(0, 256, count * size, dtype=np.uint8)
    noise[: len(noise) // 2] //= 64
    voxels = (noise & 1).astype(bool) if dtype == "bool" else noise.view(dtype)
    voxels = voxels[:count].reshape(shape)
    return np.where(np.isfinite(voxels), voxels, 1).astype(dtype) if voxels.dtype.kind == "f" else voxels


def store_array(root, metadata, voxels, volume_id="v", *, by="zarr", empty=True):
    """Write an array as the voxels of a volume, by zarr-python or tensorstore, and give what is known of its layout."""
    path = root / "volumes" / volume_id / "hu"
    path.mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(metadata))
    if by == "zarr":
        with zarr.config.set({"array.write_empty_chunks": empty}):
            zarr.open_array(path, mode="r+")[...] = voxels
    else:
        kvstore = {"driver": "file", "path": f"{path}/"}
        spec = {"driver": "zarr3", "kvstore": kvstore, "store_data_equal_to_fill_value": empty}
        tensorstore.open(spec).result().write(voxels).result()
    return parse_layout(json.loads((path / "zarr.json").read_text()))


def read_regions(location, arrays, requests, threads=1):
    """Read (volume, start, stop) through a new Fetcher, into arrays full of something else."""
    volumes = list(arrays)
    regions = Regions(
        volumes,
        list(arrays.values()),
        np.array([volumes.index(volume) for volume, _, _ in requests]),
        np.array([start for _, start, _ in requests]),
        np.array([stop for _, _, stop in requests]),
    )
    shapes = [Region(tuple(start), tuple(stop)).shape for _, start, stop in requests]
    dtypes = [arrays[volume].dtype.newbyteorder("=") for volume, _, _ in requests]
    made = [np.full(shape, 85, dtype=dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
    finished = []
    Fetcher(location).read(regions, made.__getitem__, finished.append, threads)
    assert sorted(finished) == list(range(len(requests)))
    return made


def read_whole(location, array, threads=1):
    return read_regions(location, {"v": array}, [("v", (0, 0, 0), array.shape)], threads)[0]


def some_regions(shape, seed, count=6):
    rng = np.random.default_rng(seed)
    ends = [np.sort(rng.integers(0, n + 1, (count, 2)), axis=1) for n in shape]
    pairs = list(zip(*(axis.tolist() for axis in ends), strict=True))
    boxes = [tuple(zip(*pair, strict=True)) for pair in pairs]
    return [((0, 0, 0), shape), *boxes]


def check_conformance(root, metadata, voxels, *, by="zarr", seed=0, threads=1):
    array = store_array(root, metadata, voxels, by=by)
    assert array is not None
    boxes = some_regions(voxels.shape, seed)
    other = zarr.open_array(root / "volumes/v/hu", mode="r")
    made = read_regions(Folder(root), {"v": array}, [("v", *box) for box in boxes], threads)
    for box, found in zip(boxes, made, strict=True):
        expected = other[Region(*box).slices]
        assert found.dtype == voxels.dtype
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(found, voxels[Region(*box).slices])


CODECS = {
    **{
        f"blosc-{cname}-{shuffle}-{size}": [blosc(cname, shuffle, size)]
        for cname in ("lz4", "zstd")
        for shuffle in ("noshuffle", "shuffle", "bitshuffle")
        for size in (0, 128, 1024)
    },
    **{f"blosc-{cname}": [blosc(cname)] for cname in ("lz4hc", "blosclz", "zlib")},
    "zstd": [zstandard()],
    "zstd-checksum": [zstandard(7, checksum=True)],
    "zstd-fast": [zstandard(-3)],
    "none": [],
}


@pytest.mark.parametrize("by", ["zarr", "tensorstore"])
@pytest.mark.parametrize("checked", [True, False], ids=["crc", "bare"])
@pytest.mark.parametrize("name", CODECS)
def test_every_codec_decodes_to_what_zarr_python_reads(name, checked, by, tmp_path):
    chain = [LITTLE, *CODECS[name], *([CRC] if checked else [])]
    metadata = describe((9, 30, 25), (8, 32, 26), [sharding((4, 16, 13), chain)])
    check_conformance(tmp_path, metadata, shuffled((9, 30, 25), "int16"), by=by)


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("codec", ["blosc-zstd-shuffle-0", "zstd", "none"])
def test_every_dtype_is_read_in_both_byte_orders(codec, dtype, endian, tmp_path):
    order = {"little": LITTLE, "big": BIG}[endian]
    fill = False if dtype == "bool" else 1.5 if dtype.startswith("float") else 3
    metadata = describe((5, 9, 7), (4, 6, 10), [sharding((2, 3, 5), [order, *CODECS[codec], CRC])], dtype, fill)
    check_conformance(tmp_path, metadata, shuffled((5, 9, 7), dtype))


@pytest.mark.parametrize("index_codecs", [[LITTLE, CRC], [LITTLE]], ids=["crc", "bare"])
@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("by", ["zarr", "tensorstore"])
def test_the_index_may_stand_at_either_end_with_or_without_a_checksum(by, location, index_codecs, tmp_path):
    codecs = [sharding((3, 5, 4), [LITTLE, blosc()], location, index_codecs)]
    metadata = describe((10, 11, 13), (6, 10, 8), codecs)
    check_conformance(tmp_path, metadata, shuffled((10, 11, 13), "int16"), by=by)


@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("codecs", [[LITTLE], [BIG, blosc("lz4"), CRC], [LITTLE, zstandard()]])
def test_arrays_without_shards_are_read_too(codecs, separator, tmp_path):
    metadata = describe((10, 11, 13), (3, 5, 13), codecs, separator=separator)
    check_conformance(tmp_path, metadata, shuffled((10, 11, 13), "int16"))


@st.composite
def written(draw):
    """An array of any known layout: its metadata, and its voxels."""
    shape = draw(st.tuples(*[st.integers(1, 17)] * 3))
    inner = draw(st.tuples(*[st.integers(2, 9)] * 3))
    outer = tuple(n * draw(st.integers(1, 3)) for n in inner)
    dtype = draw(st.sampled_from(DTYPES))
    chain = [draw(st.sampled_from([LITTLE, BIG])), *draw(st.sampled_from(list(CODECS.values())))]
    if draw(st.booleans()):
        chain.append(CRC)
    index = [LITTLE, CRC] if draw(st.booleans()) else [LITTLE]
    codecs = chain
    if draw(st.booleans()):
        codecs = [sharding(inner, chain, draw(st.sampled_from(["start", "end"])), index)]
    fill = False if dtype == "bool" else draw(st.integers(0, 100))
    metadata = describe(shape, outer, codecs, dtype, fill, separator=draw(st.sampled_from("/.")))
    return metadata, shuffled(shape, dtype, draw(st.integers(0, 1000)))


@settings(max_examples=120, deadline=None)
@given(written(), st.sampled_from(["zarr", "tensorstore"]), st.integers(0, 1000), st.sampled_from([1, 2, 8]))
def test_any_known_layout_is_read_as_zarr_python_reads_it(tmp_path_factory, array, by, seed, threads):
    root = tmp_path_factory.mktemp("array")
    check_conformance(root, *array, by=by, seed=seed, threads=threads)
    shutil.rmtree(root)


def test_one_read_may_take_from_volumes_of_different_layouts(tmp_path):
    makers = {
        "a": describe((10, 11, 13), (6, 10, 8), [sharding((3, 5, 4), [LITTLE, blosc("lz4"), CRC])]),
        "b": describe((7, 20, 6), (4, 5, 6), [BIG, zstandard(), CRC]),
        "c": describe((3, 9, 30), (3, 10, 30), [sharding((1, 5, 6), [LITTLE, CRC], "start")]),
    }
    voxels = {name: shuffled(metadata["shape"], "int16", ord(name)) for name, metadata in makers.items()}
    arrays = {name: store_array(tmp_path, metadata, voxels[name], name) for name, metadata in makers.items()}
    requests = [(name, *box) for name in "abc" for box in some_regions(voxels[name].shape, ord(name), 20)]
    order = np.random.default_rng(0).permutation(len(requests))
    requests = [requests[number] for number in order]
    for threads in (1, 2, 8):
        found = read_regions(Folder(tmp_path), arrays, requests, threads)
        for (name, start, stop), block in zip(requests, found, strict=True):
            np.testing.assert_array_equal(block, voxels[name][Region(start, stop).slices])


@pytest.mark.parametrize("by", ["zarr", "tensorstore"])
@pytest.mark.parametrize("codecs", [[sharding((4, 4, 4), [LITTLE, blosc(), CRC])], [LITTLE, zstandard()]])
def test_a_chunk_that_was_not_written_is_damage_and_its_neighbours_are_read(codecs, by, tmp_path):
    outer = (4, 8, 8) if codecs[0]["name"] == "sharding_indexed" else (4, 4, 4)
    voxels = shuffled((8, 16, 16), "int16")
    voxels[:4, 4:8, :4] = -7
    voxels[4:, 8:, 8:] = -7
    array = store_array(tmp_path, describe(voxels.shape, outer, codecs, fill=-7), voxels, by=by, empty=False)
    location = Folder(tmp_path)
    for start, stop in [((0, 0, 0), (8, 16, 16)), ((3, 7, 3), (4, 8, 4)), ((4, 8, 8), (5, 9, 9))]:
        with pytest.raises(IntegrityError, match=r"volume v, volumes/v/hu/c/\d.*(absent|missing)"):
            read_regions(location, {"v": array}, [("v", start, stop)])
    (found,) = read_regions(location, {"v": array}, [("v", (0, 0, 0), (8, 4, 16))])
    np.testing.assert_array_equal(found, voxels[:, :4])


INNER = [LITTLE, blosc(), CRC]
UNKNOWN = {
    "gzip": describe((9, 30, 25), (4, 16, 13), [LITTLE, {"name": "gzip", "configuration": {"level": 1}}]),
    "gzip in shards": describe(
        (9, 30, 25), (8, 32, 26), [sharding((4, 16, 13), [LITTLE, {"name": "gzip", "configuration": {"level": 1}}])]
    ),
    "transpose": describe(
        (9, 30, 25),
        (8, 32, 26),
        [sharding((4, 16, 13), [{"name": "transpose", "configuration": {"order": [2, 0, 1]}}, *INNER])],
    ),
    "two compressors": describe((9, 30, 25), (4, 16, 13), [LITTLE, blosc(), zstandard()]),
    "shards in shards": describe((9, 30, 25), (8, 32, 52), [sharding((8, 16, 26), [sharding((4, 16, 13), INNER)])]),
    "checksum round the shard": describe((9, 30, 25), (8, 32, 26), [sharding((4, 16, 13), INNER), CRC]),
    "big-endian index": describe((9, 30, 25), (8, 32, 26), [sharding((4, 16, 13), INNER, index_codecs=[BIG, CRC])]),
    "keys of version 2": describe((9, 30, 25), (4, 16, 13), INNER, keys="v2", separator="."),
    "keys of version 2 of shards": describe((9, 30, 25), (8, 16, 13), [sharding((4, 16, 13), INNER)], keys="v2"),
    "tiny chunks": describe((9, 30, 25), (1, 1, 4), [LITTLE, zstandard(), CRC], keys="v2"),
}


def with_array(store, path, metadata, voxels):
    """Copy a store with other voxels in its first volume, and open it."""
    shutil.copytree(store, path)
    first = lesionzarr.open(path).volumes.index[0]
    shutil.rmtree(path / "volumes" / first / "hu")
    store_array(path, metadata, voxels, first)
    catalog = lesionzarr.open(path)
    rows = catalog.volumes.copy()
    rows.loc[first, ["slices", "rows", "columns"]] = voxels.shape
    rows["array"] = rows["array"].astype(object)
    rows.loc[first, "array"] = json.dumps(metadata)
    return dataclasses.replace(catalog, volumes=rows), first


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_layout_is_left_to_zarr_python_and_read_all_the_same(name, sample_store, tmp_path):
    metadata = UNKNOWN[name]
    assert parse_layout(json.loads(json.dumps(metadata))) is None
    voxels = np.random.default_rng(3).integers(-1024, 3071, metadata["shape"], dtype=np.int16)
    catalog, volume_id = with_array(sample_store, tmp_path / "s.zarr", metadata, voxels)
    lesions = moved(catalog, 30, 5, volumes=catalog.volumes.index[:2])
    reader = lesionzarr.CropReader(catalog, size=(5, 12, 16), padding=-2000)
    whole = whole_volumes(catalog)
    np.testing.assert_array_equal(whole[volume_id], voxels)
    for threads in (1, 2):
        check_batch(reader, reader.read_batch(lesions, threads=threads), lesions, whole)
    for path in (tmp_path / "s.zarr" / "volumes" / volume_id / "hu").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.unlink()
    inside = [lesion for lesion in lesions if lesion.volume_id == volume_id and 2 < lesion.key_z < 7]
    inside = [dataclasses.replace(lesion, x0=5, x1=15, y0=5, y1=15) for lesion in inside]
    with pytest.raises(IntegrityError, match=f"volume {volume_id}, .*missing"):
        reader.read_batch(inside)


ODD = [
    {"fill_value": "NaN", "data_type": "float32"},
    {"fill_value": "0x7fc00000", "data_type": "float32"},
    {"fill_value": [0, 0], "data_type": "complex64"},
    {"data_type": {"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 1}}},
    {"data_type": "r16"},
    {"data_type": "int4"},
    {"data_type": None},
    {"chunk_grid": {"name": "rectilinear", "configuration": {}}},
    {"chunk_grid": "regular"},
    {"chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}}},
    {"chunk_key_encoding": "default"},
    {"storage_transformers": [{"name": "other"}]},
    {"node_type": "group"},
    {"shape": [], "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": []}}},
    {"codecs": [{"name": "transpose", "configuration": {"order": [0, 1, 2]}}, LITTLE]},
    {"codecs": [LITTLE, CRC, CRC]},
    {"codecs": [LITTLE, CRC, blosc()]},
    {"codecs": [CRC]},
    {"codecs": [{"name": "numcodecs.pcodec", "configuration": {"level": 8}}, CRC]},
    {"codecs": [sharding((1, 1, 1), [LITTLE], index_codecs=[LITTLE, zstandard()])]},
]


@pytest.mark.parametrize("other", ODD, ids=lambda other: " ".join(map(str, other.items()))[:50])
def test_metadata_of_another_kind_is_no_known_layout(other):
    plain = describe([4, 4, 4], [2, 2, 2], [LITTLE])
    assert parse_layout(plain) is not None
    assert parse_layout(plain | other) is None


def test_codecs_may_be_bare_names():
    array = parse_layout(describe([4, 4, 4], [2, 2, 2], ["bytes", "crc32c"], "uint8"))
    assert (array.compressor, array.checked, array.dtype) == (None, True, np.uint8)


# end to end


@pytest.fixture(scope="module", params=list(layout.PROFILES))
def catalog(request, sample, tmp_path_factory):
    path = tmp_path_factory.mktemp("engine") / "deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", sample, path, profile=request.param).failed
    return lesionzarr.open(path)


@pytest.fixture(scope="module")
def whole(catalog):
    return whole_volumes(catalog)


def whole_volumes(catalog):
    """Every volume by another reader: tensorstore, or zarr-python for layouts that tensorstore may not know."""
    found = {}
    for volume_id, metadata in catalog.volumes["array"].items():
        path = catalog.location.root / "volumes" / volume_id / "hu"
        if parse_layout(json.loads(metadata)) is None:
            found[volume_id] = zarr.open_array(path, mode="r")[:]
        else:
            spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
            found[volume_id] = tensorstore.open(spec).result().read().result()
    return found


def moved(catalog, count, seed, volumes=None):
    """Lesions of the store with their boxes anywhere, also far outside of their volumes."""
    rng = np.random.default_rng(seed)
    known = catalog.find_lesions(list(catalog.lesions.index))
    lesions = []
    for _ in range(count):
        volume_id = str(rng.choice(catalog.volumes.index if volumes is None else volumes))
        shape = catalog.grid(volume_id).shape
        z, y, x = (rng.uniform(-0.3 * n, 1.3 * n) for n in shape)
        height, width = rng.uniform(0, 40, 2)
        box = {"x0": x, "y0": y, "x1": x + width, "y1": y + height}
        lesion = known[rng.integers(len(known))]
        lesions.append(dataclasses.replace(lesion, volume_id=volume_id, key_z=int(z), z0=None, z1=None, **box))
    return lesions


def defined(voxels, start, size):
    """A crop by its definition, from the whole volume: HU of the nearest voxels, and which of them lie inside."""
    rows = [np.arange(a, a + n) for a, n in zip(start, size, strict=True)]
    inside = [(row >= 0) & (row < n) for row, n in zip(rows, voxels.shape, strict=True)]
    valid = inside[0][:, None, None] & inside[1][:, None] & inside[2]
    nearest = voxels[np.ix_(*(np.clip(row, 0, n - 1) for row, n in zip(rows, voxels.shape, strict=True)))]
    return nearest, valid


def check_batch(reader, batch, lesions, whole):
    """Hold every image of a batch against its definition."""
    for crop, lesion in zip(batch.crops, lesions, strict=True):
        start = [crop_start(centre, size) for centre, size in zip(lesion.box.centre, reader.size, strict=True)]
        hu, valid = defined(whole[lesion.volume_id], start, reader.size)
        np.testing.assert_array_equal(crop.valid, valid)
        fill_value = reader.catalog.array(lesion.volume_id).fill_value
        for channel, window in zip(crop.image, crop.windows or [None], strict=True):
            image = hu if window is None else apply_window(hu, window, reader.dtype)
            if reader.padding is None:
                outside = 0 if window else fill_value
            elif reader.padding == "edge":
                outside = image
            else:
                outside = apply_window(np.array(reader.padding), window, reader.dtype) if window else reader.padding
            expected = np.where(valid, image, outside)
            np.testing.assert_array_equal(channel, expected)


SIZES = [(9, 32, 32), (1, 1, 1), (4, 33, 20), (8, 64, 64), (3, 17, 40), (40, 120, 130), (5, 96, 96), (2, 70, 7)]
WINDOWS = [None, "lung", ["lung", (-175, 275), "dicom"], Window(0, 100)]


def test_a_thousand_random_crops_equal_their_definition(catalog, whole):
    rng = np.random.default_rng(11)
    done = 0
    for number, size in enumerate(SIZES * 5):
        lesions = moved(catalog, 25, number)
        window, padding = WINDOWS[number % 4], [None, "edge", -500.0, 12][rng.integers(4)]
        dtype = ["uint8", "float32"][rng.integers(2)]
        reader = lesionzarr.CropReader(catalog, size=size, window=window, padding=padding, dtype=dtype)
        batch = reader.read_batch(lesions, threads=[1, 2, 8, None][rng.integers(4)])
        check_batch(reader, batch, lesions, whole)
        done += len(batch)
    assert done == 1000


def test_the_number_of_threads_changes_nothing(catalog):
    lesions = moved(catalog, 40, 99)
    for window in (None, ["lung", "dicom"]):
        reader = lesionzarr.CropReader(catalog, size=(9, 48, 48), window=window)
        first = reader.read_batch(lesions, threads=1)
        for threads in (2, 3, 8, 64):
            np.testing.assert_array_equal(reader.read_batch(lesions, threads=threads).image, first.image)


def test_stacks_show_what_a_crop_shows_on_whole_slices(catalog, whole):
    lesions = moved(catalog, 30, 4)
    lesions = [lesion for lesion in lesions if catalog.grid(lesion.volume_id).spacing_mm[0] == 1]
    stacks = lesionzarr.StackReader(catalog, slices=5, interval_mm=2.0, size=(30, 30), padding=-2000)
    for lesion, stack in zip(lesions, stacks.read_batch(lesions, threads=8).crops, strict=True):
        voxels = whole[lesion.volume_id]
        rows = np.clip(lesion.key_z + 2 * np.arange(-2, 3), 0, len(voxels) - 1)
        y, x = (crop_start(centre, 30) for centre in lesion.box.centre[1:])
        hu, valid = defined(voxels[rows], (0, y, x), (5, 30, 30))
        np.testing.assert_array_equal(stack.image[0], np.where(valid, hu, -2000))


@pytest.mark.parametrize("window", [None, ["lung", "dicom"]])
def test_images_are_written_to_an_array_that_is_given(catalog, window):
    lesions = moved(catalog, 12, 3)
    reader = lesionzarr.CropReader(catalog, size=(4, 40, 30), window=window)
    expected = reader.read_batch(lesions).image
    out = np.full_like(expected, 77)
    batch = reader.read_batch(lesions, out=out)
    assert batch.image is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(batch.crops[5].image, expected[5])
    # every second of many, from the back, and in the other order of axes
    base = np.full((24, *expected.shape[1:]), 77, dtype=expected.dtype)
    reader.read_batch(lesions, out=base[::-2], threads=2)
    np.testing.assert_array_equal(base[::-2], expected)
    assert (base[::2] == 77).all()
    fortran = np.full(expected.shape, 77, dtype=expected.dtype, order="F")
    np.testing.assert_array_equal(reader.read_batch(lesions, out=fortran).image, expected)


def test_an_array_of_another_shape_or_dtype_is_refused_and_left_alone(catalog):
    lesions = moved(catalog, 3, 3)
    reader = lesionzarr.CropReader(catalog, size=(4, 40, 30), window="lung")
    shape = (3, 1, 4, 40, 30)
    wrong = [np.full((2, *shape[1:]), 7, np.uint8), np.full((*shape[:-1], 31), 7, np.uint8)]
    wrong += [np.full(shape, 7, dtype) for dtype in (np.int16, np.float32, np.int8)]
    for out in wrong:
        with pytest.raises(SettingError, match=r"uint8 \(3, 1, 4, 40, 30\) is needed"):
            reader.read_batch(lesions, out=out)
        assert (out == 7).all()


# reads are few


@dataclass
class CountedBlob:
    """An object of a folder that writes down what is read of it."""

    blob: object
    key: str
    reads: list

    @property
    def size(self):
        return self.blob.size

    def read_ranges(self, wanted):
        self.reads.extend((self.key, offset, offset + len(out)) for offset, out in wanted)
        self.blob.read_ranges(wanted)


@dataclass(frozen=True)
class CountedFolder(Folder):
    """A folder that writes down what is read of it."""

    reads: list = field(default_factory=list, compare=False)
    opened: list = field(default_factory=list, compare=False)

    def open(self, key, size=None):
        blob = super().open(key, size)
        self.opened.append(key)
        return blob and CountedBlob(blob, key, self.reads)


@dataclass(frozen=True)
class FarFolder:
    """A folder that does not say that it is one, as if it were a bucket."""

    folder: CountedFolder

    @property
    def name(self):
        return self.folder.name

    def open(self, key, size=None):
        return self.folder.open(key, size)

    def open_tail(self, key, length):
        return self.folder.open_tail(key, length)


def dense_requests():
    """Many regions of few chunks."""
    rng = np.random.default_rng(5)
    starts = rng.integers(0, 12, (60, 3))
    return [("v", tuple(start), tuple(start + rng.integers(1, 12, 3))) for start in starts.tolist()]


@pytest.fixture
def crowded(tmp_path):
    voxels = shuffled((24, 24, 24), "int16")
    metadata = describe((24, 24, 24), (12, 24, 24), [sharding((6, 6, 6), [LITTLE, CRC])])
    return tmp_path, store_array(tmp_path, metadata, voxels), voxels


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_each_byte_of_a_batch_is_read_once_however_many_crops_share_it(crowded, threads):
    root, array, voxels = crowded
    location = CountedFolder(root)
    requests = dense_requests()
    for (_, start, stop), block in zip(requests, read_regions(location, {"v": array}, requests, threads), strict=True):
        np.testing.assert_array_equal(block, voxels[Region(start, stop).slices])
    boxes = [np.array([request[side] for request in requests]) for side in (1, 2)]
    plan = plan_chunks([array], np.zeros(len(requests), dtype=np.int64), *boxes)
    size = location.size("volumes/v/hu/c/0/0/0")
    payload = [read for read in location.reads if read[1] < size - array.index_bytes]
    for (key, _, end), (other, start, _) in pairwise(sorted(payload)):
        assert key != other or end <= start
    # stored plain, so every chunk has the same length
    assert sum(end - start for _, start, end in payload) == len(plan.owner) * (6**3 * 2 + 4)
    assert len(plan.owner) < len(plan.region)


@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_chunks_of_one_byte_are_all_read_by_any_number_of_threads(tmp_path, threads):
    voxels = shuffled((4, 4, 4), "uint8")
    array = store_array(
        tmp_path, describe((4, 4, 4), (4, 4, 4), [sharding((1, 1, 1), [LITTLE, CRC])], dtype="uint8"), voxels
    )
    np.testing.assert_array_equal(read_whole(Folder(tmp_path), array, threads), voxels)


def test_chunks_of_one_shard_are_one_request_however_the_regions_are_mixed(tmp_path):
    voxels = shuffled((6, 6, 24), "int16")
    metadata = describe((6, 6, 24), (6, 6, 24), [sharding((6, 6, 6), [LITTLE, CRC])])
    arrays = {name: store_array(tmp_path, metadata, voxels, name) for name in "ab"}
    requests = [(name, (0, 0, x), (6, 6, x + 6)) for x in (0, 6, 12, 18) for name in "ab"]
    location = CountedFolder(tmp_path)
    for (_, start, stop), block in zip(requests, read_regions(location, arrays, requests), strict=True):
        np.testing.assert_array_equal(block, voxels[Region(start, stop).slices])
    # the index of each volume's shard, and all of its chunks
    assert len(location.reads) == 4


@pytest.mark.parametrize("reach", [-1, 1])
def test_a_block_that_its_chunk_says_to_lie_in_a_neighbour_is_damage(tmp_path, reach):
    voxels = shuffled((8, 8, 16), "int16")
    codecs = [LITTLE, blosc(blocksize=2 * 2 * 64), CRC]
    array = store_array(tmp_path, describe((8, 8, 16), (8, 8, 16), [sharding((8, 8, 8), codecs)]), voxels)
    path = tmp_path / "volumes/v/hu/c/0/0/0"
    data = bytearray(path.read_bytes())
    index = np.frombuffer(data[-4 - 32 : -4], dtype="<u8").reshape(2, 2).tolist()
    (here, length), (other, _) = index if reach == 1 else index[::-1]
    # the last block of this chunk is said to lie where one of the other chunk does
    table = np.frombuffer(data[other + 16 : other + 32], dtype="<i4")
    data[here + 16 + 12 : here + 32] = int(other - here + table[0]).to_bytes(4, "little", signed=True)
    data[here + length - 4 : here + length] = checksum(bytes(data[here : here + length - 4]))
    path.write_bytes(data)
    with pytest.raises(IntegrityError, match="volume v, volumes/v/hu/c/0/0/0"):
        read_whole(Folder(tmp_path), array)


def test_a_chunk_that_the_index_calls_absent_is_damage_to_zarr_python_too(sample, tmp_path):
    lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr", profile="dense")
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    volume_id = catalog.volumes.index[0]
    path = tmp_path / f"s.zarr/volumes/{volume_id}/hu/c/0/0/0"
    data = bytearray(path.read_bytes())
    chunks = 2 * 2 * 2
    table = len(data) - 4 - 16 * chunks
    data[table + 16 : table + 32] = b"\xff" * 16
    data[-4:] = checksum(bytes(data[table:-4]))
    path.write_bytes(data)
    lesion = dataclasses.replace(
        catalog.find_lesions(catalog.lesions.index[0])[0], volume_id=volume_id, key_z=2, x0=80, x1=80, y0=10, y1=10
    )
    with pytest.raises(IntegrityError, match="a chunk is absent"):
        lesionzarr.CropReader(catalog, size=(3, 8, 8)).read(lesion)


def test_a_shard_is_opened_once_and_its_index_read_once(crowded):
    root, array, _ = crowded
    location = CountedFolder(root)
    fetcher = Fetcher(location)
    made = np.empty((24, 24, 24), dtype=np.int16)
    region = Regions(["v"], [array], np.array([0]), np.array([[0, 0, 0]]), np.array([[24, 24, 24]]))
    for _ in range(3):
        fetcher.read(region, lambda _: made, lambda _: None, 1)
    assert Counter(location.opened) == {f"volumes/v/hu/c/{number}/0/0": 1 for number in (0, 1)}
    size = location.size("volumes/v/hu/c/0/0/0")
    index = [read for read in location.reads if read[1:] == (size - array.index_bytes, size)]
    assert len(index) == 2


def test_from_afar_bytes_between_chunks_are_read_to_save_requests(crowded):
    root, array, voxels = crowded
    near, far = CountedFolder(root), FarFolder(CountedFolder(root))
    # a column of chunks: each lies one row of chunks after the one before
    requests = [("v", (0, 0, 0), (6, 24, 6))]
    for location in (near, far):
        (block,) = read_regions(location, {"v": array}, requests)
        np.testing.assert_array_equal(block, voxels[:6, :, :6])
    assert far.folder.reads[1:] != near.reads[1:]
    assert (len(near.reads), len(far.folder.reads)) == (5, 2)
    assert all(end - start < LEAST_GAP_BYTES for _, start, end in far.folder.reads)


def test_a_batch_of_a_reader_reads_no_byte_of_a_chunk_twice(sample_store):
    catalog = lesionzarr.open(sample_store)
    location = CountedFolder(catalog.location.root)
    catalog = dataclasses.replace(catalog, location=location)
    lesions = moved(catalog, 100, 1)
    lesionzarr.CropReader(catalog, size=(9, 64, 64), window="lung").read_batch(lesions, threads=2)
    # two threads may meet at a shard that is not open yet, and both read its index, which stands at its end
    payload = [read for read in location.reads if read[2] < location.size(read[0])]
    assert payload
    for (key, _, end), (other, start, _) in pairwise(sorted(payload)):
        assert key != other or end <= start


# damage

DAMAGED = r"volume v, volumes/v/hu/c/0/0/0: .*convert it again"


@pytest.fixture(scope="module", params=["end", "start"])
def shard(request, tmp_path_factory):
    """A shard of eight small chunks, its index at either end."""
    root = tmp_path_factory.mktemp("shard")
    voxels = np.random.default_rng(0).integers(-50, 50, (4, 6, 8), dtype=np.int16)
    codecs = [sharding((2, 3, 4), [LITTLE, blosc("lz4"), CRC], request.param)]
    array = store_array(root, describe(voxels.shape, voxels.shape, codecs), voxels)
    return root, array, voxels, (root / "volumes/v/hu/c/0/0/0").read_bytes()


def write_shard(root, data):
    """Replace the shard by another file: what is open stays as it was."""
    path = root / "volumes/v/hu/c/0/0/0"
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def check_damage(shard, data, threads=1):
    """Read a damaged shard, then the good one again."""
    root, array, voxels, good = shard
    write_shard(root, data)
    with pytest.raises(IntegrityError, match=DAMAGED):
        read_whole(Folder(root), array, threads)
    write_shard(root, good)
    np.testing.assert_array_equal(read_whole(Folder(root), array, threads), voxels)


def flip(data, byte, bit=0):
    changed = bytearray(data)
    changed[byte] ^= 1 << bit
    return bytes(changed)


def test_a_flipped_bit_anywhere_in_a_shard_is_found(shard):
    good = shard[-1]
    for byte in range(len(good)):
        check_damage(shard, flip(good, byte, byte % 8))


@pytest.mark.parametrize("threads", [2, 8])
def test_a_flipped_bit_is_found_by_any_number_of_threads(shard, threads):
    good = shard[-1]
    for byte in range(0, len(good), 11):
        check_damage(shard, flip(good, byte), threads)


def test_a_shard_cut_off_anywhere_is_found(shard):
    good = shard[-1]
    for length in range(len(good)):
        check_damage(shard, good[:length])


def test_a_shard_with_something_before_or_after_it_is_found(shard):
    good = shard[-1]
    for data in (b"\0" + good, good[:100] + b"\0" + good[100:], good[1:]):
        check_damage(shard, data)


def test_a_missing_shard_is_found(shard):
    root, array, _, good = shard
    (root / "volumes/v/hu/c/0/0/0").unlink()
    with pytest.raises(IntegrityError, match="volume v, volumes/v/hu/c/0/0/0: missing"):
        read_whole(Folder(root), array)
    write_shard(root, good)


def test_a_shard_that_shrinks_while_it_is_open_is_no_voxels(shard):
    root, array, voxels, good = shard
    path = root / "volumes/v/hu/c/0/0/0"
    fetcher = Fetcher(Folder(root))
    made = np.empty(array.shape, dtype=np.int16)
    region = Regions(["v"], [array], np.array([0]), np.array([[0, 0, 0]]), np.array([array.shape]))
    fetcher.read(region, lambda _: made, lambda _: None, 1)
    np.testing.assert_array_equal(made, voxels)
    os.truncate(path, len(good) // 3)
    with pytest.raises(LesionzarrError, match="volumes/v/hu/c/0/0/0"):
        fetcher.read(region, lambda _: made, lambda _: None, 1)
    path.write_bytes(good)
    made[:] = 0
    fetcher.read(region, lambda _: made, lambda _: None, 1)
    np.testing.assert_array_equal(made, voxels)


def checksum(data):
    return google_crc32c.value(bytes(data)).to_bytes(4, "little")


def reindex(array, data, entries):
    """Put other entries into the index of a shard, with the right checksum."""
    table = np.array(entries, dtype="<u8").tobytes()
    index = table + (checksum(table) if array.index_checked else b"")
    return index + data[len(index) :] if array.index_first else data[: -len(index)] + index


def entries_of(array, data):
    stored = data[: array.index_bytes] if array.index_first else data[-array.index_bytes :]
    return np.frombuffer(stored[: 16 * 8], dtype="<u8").reshape(8, 2).copy()


HUGE = 2**64
BAD_ENTRIES = [
    *[(HUGE - 1, HUGE - 1), (HUGE - 1, 0), (HUGE - 1, 5), (0, HUGE - 1), (5, HUGE - 1), (HUGE // 2, HUGE // 2)],
    *[(HUGE // 4, HUGE // 4), (HUGE // 2 - 1, HUGE // 2 - 1), (HUGE // 2 - 1, 1), (1, HUGE // 2 - 1), (1, HUGE // 2)],
    *[(HUGE // 4 - 1, HUGE // 4), (HUGE - 20, 40), (HUGE - 2, HUGE - 2), (2**32, 2**32), (10**6, 10), (0, 10**6)],
    *[(0, length) for length in range(20)],
    *[(3, 50), (300, 0)],
]


@pytest.mark.parametrize("place", [0, 3, 7])
@pytest.mark.parametrize("entry", BAD_ENTRIES, ids=str)
def test_an_index_that_points_elsewhere_gives_no_voxels(shard, entry, place):
    _, array, _, good = shard
    entries = entries_of(array, good)
    entries[place] = entry
    for threads in (1, 2):
        check_damage(shard, reindex(array, good, entries), threads)


def test_an_index_that_points_past_the_end_gives_no_voxels(shard):
    _, array, _, good = shard
    for more in (1, 15, 10**4):
        entries = entries_of(array, good)
        entries[entries[:, 0].argmax(), 1] += len(good) - entries.sum(axis=1).max() + more
        check_damage(shard, reindex(array, good, entries))


numbers = st.one_of(st.integers(0, HUGE - 1), st.integers(0, 700), st.integers(0, 64).map(lambda bits: 2**bits - 1))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=8, max_size=8), st.integers(0, 700))
def test_an_index_that_is_taken_points_into_its_shard(entries, size):
    array = parse_layout(describe([4, 6, 8], [4, 6, 8], [sharding([2, 3, 4], [LITTLE, CRC])]))
    table = np.array(entries, dtype="<u8").tobytes()
    data = np.frombuffer(table + checksum(table), dtype=np.uint8)
    inside = [offset + length <= size or {offset, length} == {HUGE - 1} for offset, length in entries]
    if not all(inside):
        with pytest.raises(ValueError, match="outside"):
            parse_index(data, array, size)
        return
    for (offset, length), found in zip(entries, parse_index(data, array, size).tolist(), strict=True):
        assert found == ([-1, -1] if offset == HUGE - 1 else [offset, length])


def one_chunk(tmp_path, codecs, payload, *, sharded=True):
    """A volume of one chunk of 2 x 5 x 10 int16 whose stored bytes are given; its checksum and index are right."""
    chain = [LITTLE, *codecs, CRC]
    chain = [sharding((2, 5, 10), chain)] if sharded else chain
    metadata = describe((2, 5, 10), (2, 5, 10), chain)
    if not (tmp_path / "volumes").exists():
        store_array(tmp_path, metadata, np.arange(100, dtype=np.int16).reshape(2, 5, 10))
    data = bytes(payload) + checksum(payload)
    table = np.array([0, len(data)], dtype="<u8").tobytes()
    write_shard(tmp_path, data + table + checksum(table) if sharded else data)
    return parse_layout(json.loads(json.dumps(metadata)))


@pytest.mark.parametrize("sharded", [True, False])
@pytest.mark.parametrize("count", [0, 1, 50, 99, 101, 5000])
@pytest.mark.parametrize("codec", ["blosc", "zstd", "none"])
def test_a_chunk_of_another_size_with_a_right_checksum_gives_no_voxels(codec, count, sharded, tmp_path):
    voxels = np.arange(count, dtype=np.int16)
    codecs = {"blosc": [blosc()], "zstd": [zstandard()], "none": []}[codec]
    encode = {"blosc": numcodecs.Blosc().encode, "zstd": numcodecs.Zstd().encode, "none": np.ndarray.tobytes}[codec]
    array = one_chunk(tmp_path, codecs, encode(voxels), sharded=sharded)
    with pytest.raises(IntegrityError, match=DAMAGED):
        read_whole(Folder(tmp_path), array)


@pytest.mark.parametrize("codecs", [[blosc()], [zstandard()], []], ids=["blosc", "zstd", "none"])
def test_an_empty_object_without_checksums_gives_no_voxels(codecs, tmp_path):
    metadata = describe((2, 5, 10), (2, 5, 10), [LITTLE, *codecs])
    array = store_array(tmp_path, metadata, shuffled((2, 5, 10), "int16"))
    write_shard(tmp_path, b"")
    with pytest.raises(IntegrityError, match=DAMAGED):
        read_whole(Folder(tmp_path), array)


def zstd_frame(blocks, *, size=None):
    """A Zstandard frame of raw blocks, made by hand: by default it does not say how long its content is."""
    head = b"\x28\xb5\x2f\xfd" + (b"\x00\x58" if size is None else b"\xa0" + size.to_bytes(4, "little"))
    raw = [(len(block) << 3 | (number == len(blocks) - 1)).to_bytes(3, "little") + block
           for number, block in enumerate(blocks)]  # fmt: skip
    return head + b"".join(raw)


@pytest.mark.parametrize("size", [None, 200])
def test_a_zstd_frame_need_not_say_how_long_it_is(size, tmp_path):
    voxels = np.arange(100, dtype=np.int16)
    data = voxels.tobytes()
    frame = zstd_frame([data[:70], data[70:]], size=size)
    array = one_chunk(tmp_path, [zstandard()], frame)
    try:
        numcodecs.Zstd().decode(frame)
    except RuntimeError:
        with pytest.raises(IntegrityError, match=DAMAGED):
            read_whole(Folder(tmp_path), array)
        pytest.skip("this numcodecs decodes no frame of open size")
    np.testing.assert_array_equal(read_whole(Folder(tmp_path), array).ravel(), voxels)
    for wrong in (data[:70], data + b"\0\0", b""):
        one_chunk(tmp_path, [zstandard()], zstd_frame([wrong], size=size))
        with pytest.raises(IntegrityError, match=DAMAGED):
            read_whole(Folder(tmp_path), array)


def test_a_zstd_frame_that_says_it_is_longer_than_any_memory_is_damaged(tmp_path):
    array = one_chunk(tmp_path, [zstandard()], b"(\xb5/\xfd\xc0\x00M\x00\x00\x10\x00\x00\x01\x00C\n`\x01")
    with pytest.raises(IntegrityError, match=r"a chunk says that it is too long|Zstd"):
        read_whole(Folder(tmp_path), array)


def test_a_blosc_header_is_not_believed(tmp_path):
    good = bytearray(numcodecs.Blosc("lz4", 5, 1, 0).encode(np.arange(100, dtype=np.int16)))
    array = one_chunk(tmp_path, [blosc()], good)
    assert read_whole(Folder(tmp_path), array).ravel().tolist() == list(range(100))
    fields = {"nbytes": 4, "cbytes": 12}
    for at in fields.values():
        for value in (0, 1, 16, 198, 199, 201, 202, 400, 2**31 - 1, 2**31, 2**32 - 1):
            changed = bytearray(good)
            changed[at : at + 4] = value.to_bytes(4, "little")
            if changed != good:
                one_chunk(tmp_path, [blosc()], changed)
                with pytest.raises(IntegrityError, match=DAMAGED):
                    read_whole(Folder(tmp_path), array)
    for length in range(len(good)):
        one_chunk(tmp_path, [blosc()], good[:length])
        with pytest.raises(IntegrityError, match=DAMAGED):
            read_whole(Folder(tmp_path), array)


def run_script(code, *arguments):
    """Run a script in another interpreter, which may crash or hang there, and give what it printed."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


GARBAGE = """
    import sys, json, pathlib
    import google_crc32c, numcodecs, numpy as np
    from hypothesis import given, settings, strategies as st
    from lesionzarr.errors import IntegrityError
    from lesionzarr.readers._fetch import Fetcher, Regions
    from lesionzarr.store.arrays import parse_layout
    from lesionzarr.store._folder import Folder

    root = pathlib.Path(sys.argv[1])
    array = parse_layout(json.loads((root / "volumes/v/hu/zarr.json").read_text()))
    shard = root / "volumes/v/hu/c/0/0/0"
    zstd = array.compressor == "zstd"
    codecs = [numcodecs.Zstd(1)] if zstd else [
        numcodecs.Blosc(cname, 1, shuffle, size)
        for cname in ("lz4", "zstd", "blosclz", "zlib") for shuffle in (0, 1, 2) for size in (0, 128)
    ]
    rng = np.random.default_rng(0)
    payloads = [np.arange(100), np.zeros(100), rng.integers(-9999, 9999, 100), np.arange(60), np.arange(100) // 9]
    real = [codec.encode(voxels.astype(np.int16)) for codec in codecs for voxels in payloads]

    @st.composite
    def changed(draw):
        data = bytearray(draw(st.sampled_from(real)))
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(data) - 1))
            new = draw(st.binary(min_size=1, max_size=4))
            data[start : start + len(new)] = new
        return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)

    def checksum(data):
        return google_crc32c.value(bytes(data)).to_bytes(4, "little")

    seen = {"voxels": 0, "damage": 0}

    @settings(max_examples=600, deadline=None, database=None)
    @given(st.one_of(changed(), changed(), st.binary(max_size=300)))
    def attack(payload):
        data = payload + checksum(payload)
        table = np.array([0, len(data)], dtype="<u8").tobytes()
        shard.write_bytes(data + table + checksum(table))
        results = [result(before) for before in "ab"]
        # what is no damage is decoded whole: nothing is left of the chunk that was decoded before
        assert results[0] == results[1]
        seen["damage" if results[0] is None else "voxels"] += 1

    def result(before):
        made = np.empty((2, *array.shape), dtype=np.int16)
        corners = np.zeros((2, 3), dtype=int), np.array([array.shape] * 2)
        regions = Regions([before, "v"], [array, array], np.array([0, 1]), *corners)
        try:
            Fetcher(Folder(root)).read(regions, made.__getitem__, lambda _: None, 1)
        except IntegrityError as error:
            assert "volume v, volumes/v/hu/c/0/0/0: " in str(error)
            return None
        return made[1].tobytes()

    attack()
    print(seen["voxels"], seen["damage"])
"""


@pytest.mark.parametrize("codec", [blosc(), zstandard()], ids=["blosc", "zstd"])
def test_garbage_with_a_right_checksum_does_not_crash_the_interpreter(codec, tmp_path):
    one_chunk(tmp_path, [codec], b"")
    metadata = json.loads((tmp_path / "volumes/v/hu/zarr.json").read_text())
    for name, value in {"a": 111, "b": -222}.items():
        store_array(tmp_path, metadata, np.full((2, 5, 10), value, dtype=np.int16), name)
    _, damage = map(int, run_script(GARBAGE, tmp_path))
    assert damage > 500


@pytest.mark.parametrize("profile", layout.PROFILES)
def test_damage_is_named_by_a_reader_of_every_profile(profile, sample, tmp_path):
    store = tmp_path / "s.zarr"
    lesionzarr.convert("deeplesion", sample, store, profile=profile)
    catalog = lesionzarr.open(store)
    first = catalog.lesions["volume_id"].iloc[0]
    (lesion,) = catalog.find_lesions(catalog.lesions.index[0])
    whole = whole_volumes(catalog)
    path = store / "volumes" / first / "hu/c/0/0/0"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    damages = [
        flip(good, int(byte), int(bit))
        for byte, bit in zip(rng.integers(len(good), size=40), [*range(8)] * 5, strict=True)
    ]
    damages += [flip(good, -end) for end in (1, 4, 5, 30)] + [good[:length] for length in (0, 1, 99, len(good) - 1)]
    others = [other for other in catalog.find_lesions(list(catalog.lesions.index)) if other.volume_id != first]
    for number, data in enumerate(damages):
        path.unlink()
        path.write_bytes(data)
        reader = lesionzarr.CropReader(lesionzarr.open(store), size=(99, 200, 200))
        with pytest.raises(IntegrityError, match=f"volume {first}, .*hu"):
            reader.read_batch([*others[:2], lesion, *others[2:]], threads=number % 3 + 1)
    small = lesionzarr.CropReader(reader.catalog, size=(5, 20, 20))
    check_batch(small, small.read_batch(others), others, whole)


def test_zarr_python_is_not_asked_for_regions_of_missing_objects(tmp_path):
    metadata = describe((4, 8, 8), (2, 4, 4), [sharding((2, 2, 2), [LITTLE, zstandard()])], keys="v2")
    voxels = shuffled((4, 8, 8), "int16")
    assert store_array(tmp_path, metadata, voxels) is None
    (tmp_path / "volumes/v/hu/1/0/1").unlink()
    for start, stop in [((0, 0, 0), (4, 8, 4)), ((0, 4, 0), (4, 8, 8)), ((0, 0, 0), (2, 8, 8)), ((1, 1, 1), (1, 5, 5))]:
        found = read_region(Folder(tmp_path), "v", Region(start, stop))
        np.testing.assert_array_equal(found, voxels[Region(start, stop).slices])
    with pytest.raises(IntegrityError, match="volume v, volumes/v/hu/1/0/1: missing"):
        read_region(Folder(tmp_path), "v", Region((0, 0, 0), (3, 4, 5)))


# threads, processes

FORKED = """
    import os, sys, signal
    import numpy as np
    import lesionzarr

    catalog = lesionzarr.open(sys.argv[1])
    readers = [lesionzarr.CropReader(catalog, size=(9, 64, 64), window=window) for window in (None, "lung")]
    ids = list(catalog.lesions.index)
    before = [reader.read_batch(ids, threads=threads).image for reader in readers for threads in (1, 2, 8)]
    print("parent")
    sys.stdout.flush()
    for _ in range(3):
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            after = [reader.read_batch(ids, threads=threads).image for reader in readers for threads in (1, 2, 8)]
            os._exit(0 if all(map(np.array_equal, before, after)) else 7)
        during = [reader.read_batch(ids, threads=2).image for reader in readers]
        assert os.waitpid(pid, 0)[1] == 0, "the child read something else, or hung"
        assert np.array_equal(during[0], before[0])
    print("done")
"""

SPAWNED = """
    import multiprocessing, pickle, sys
    import numpy as np
    import lesionzarr

    if __name__ == "__main__":
        catalog = lesionzarr.open(sys.argv[1])
        reader = lesionzarr.CropReader(catalog, size=(9, 64, 64), window=["lung", "dicom"])
        ids = list(catalog.lesions.index)
        expected = reader.read_batch(ids, threads=2).image
        for method in ("fork", "spawn", "forkserver"):
            with multiprocessing.get_context(method).Pool(2) as pool:
                parts = [pool.apply_async(reader.read_batch, (ids[n::2],), {"threads": 2}) for n in range(2)]
                for n, part in enumerate(parts):
                    assert np.array_equal(part.get(100).image, expected[n::2])
        print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_reads_right_after_its_parent_has_read(catalog):
    assert run_script(FORKED, catalog.location.root) == ["parent", "done"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_of_a_busy_parent_does_not_wait_for_its_locks(sample_store):
    code = """
        import os, signal, sys, threading, time
        import numpy as np
        import lesionzarr

        catalog = lesionzarr.open(sys.argv[1])
        reader = lesionzarr.CropReader(catalog, size=(9, 64, 64), window="lung")
        ids = list(catalog.lesions.index)
        expected = reader.read_batch(ids).image
        stop = threading.Event()

        def busy():
            while not stop.is_set():
                reader.read_batch(ids, threads=2)

        threads = [threading.Thread(target=busy) for _ in range(3)]
        for thread in threads:
            thread.start()
        for _ in range(15):
            pid = os.fork()
            if not pid:
                signal.alarm(60)
                found = reader.read_batch(ids, threads=2).image
                os._exit(0 if np.array_equal(found, expected) else 7)
            assert os.waitpid(pid, 0)[1] == 0, "the child read something else, or hung"
        stop.set()
        for thread in threads:
            thread.join()
        print("done")
    """
    assert run_script(code, sample_store) == ["done"]


def test_a_pickled_reader_reads_the_same_in_other_processes(sample_store, tmp_path):
    script = tmp_path / "main.py"
    script.write_text(textwrap.dedent(SPAWNED))
    command = [sys.executable, script, sample_store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def in_threads(works):
    """Run functions at once, and raise what one of them raised."""
    errors = []

    def guard(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            errors.append(error)

    threads = [Thread(target=guard, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_eight_threads_may_share_a_reader(catalog, whole):
    reader = lesionzarr.CropReader(catalog, size=(9, 40, 40), window=["lung", "dicom"])
    jobs = [moved(catalog, 10, 1000 + number) for number in range(24)]

    def work(first):
        for number in range(first, len(jobs), 8):
            check_batch(reader, reader.read_batch(jobs[number], threads=number % 4 + 1), jobs[number], whole)

    in_threads([lambda first=first: work(first) for first in range(8)])


def test_damage_in_one_thread_leaves_the_others_alone(sample_store, tmp_path):
    store = shutil.copytree(sample_store, tmp_path / "s.zarr")
    catalog = lesionzarr.open(store)
    whole = whole_volumes(catalog)
    bad = catalog.volumes.index[0]
    path = store / "volumes" / bad / "hu/c/0/0/0"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(flip(data, 200))
    reader = lesionzarr.CropReader(catalog, size=(5, 32, 32))
    good = moved(catalog, 20, 1, volumes=catalog.volumes.index[1:])
    (broken,) = moved(catalog, 1, 1, volumes=[bad])
    everything = lesionzarr.CropReader(catalog, size=(99, 300, 300))

    def fails():
        for _ in range(10):
            with pytest.raises(IntegrityError, match=bad):
                everything.read_batch([good[0], broken, good[1]], threads=2)

    def reads():
        for _ in range(10):
            check_batch(reader, reader.read_batch(good, threads=2), good, whole)

    in_threads([fails, reads, fails, reads])


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize("count", [0, 1, 2, 500])
def test_every_item_is_worked_on_once(count, threads):
    seen, lock = Counter(), Lock()

    def work(item):
        with lock:
            seen[item] += 1

    run_all(work, range(count), threads)
    assert seen == Counter(range(count))


def test_no_more_threads_work_than_were_asked_for():
    seen, lock = set(), Lock()
    busy, most = 0, 0

    def work(_):
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
            seen.add(get_ident())
        with lock:
            busy -= 1

    run_all(work, range(300), 3)
    assert most <= 3
    assert len(seen) <= 3


def test_an_error_is_raised_when_all_others_have_ended():
    started, ended, release = Event(), [], Event()

    def work(item):
        if item == 0:
            started.set()
            assert release.wait(60)
            ended.append(item)
        else:
            assert started.wait(60)
            release.set()
            raise KeyError(item)

    with pytest.raises(KeyError, match="1"):
        run_all(work, [0, 1], 2)
    assert ended == [0]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_nothing_new_begins_after_an_error(threads):
    begun, lock = [], Lock()

    def work(item):
        with lock:
            begun.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"\d"):
        run_all(work, range(1000), threads)
    assert len(begun) <= threads
    run_all(begun.append, range(10), threads)
    assert sorted(begun[-10:]) == list(range(10))


def test_work_may_be_given_out_from_many_threads_at_once():
    totals = []

    def outer():
        seen = []
        run_all(seen.append, range(200), 2)
        totals.append(sorted(seen))

    in_threads([outer] * 8)
    assert totals == [list(range(200))] * 8
