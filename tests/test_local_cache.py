"""What is kept of a bucket on a disk: within its limit, whoever writes, and never in place of what is in the bucket."""

import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import lesionzarr
from lesionzarr.errors import IntegrityError
from lesionzarr.readers._disk_cache import BLOCK_BYTES, PART_S, CachedBlob, DiskCache
from lesionzarr.readers._pace import Pace, PacedBlob
from lesionzarr.readers._shards import Shard, Shards
from lesionzarr.store.location import open_location

SIZE = (9, 64, 64)
STAMP = bytes(range(16))


@pytest.fixture(scope="module")
def published(s3_server, sample):
    """URL of the sample store in a bucket."""
    url = f"s3://{s3_server.create_bucket('local-cache')}/deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", sample, url, storage_options=s3_server.options).failed
    return url


@pytest.fixture(scope="module")
def expected(sample_store):
    """Ids of all lesions with a position, and their crops from the disk."""
    catalog = lesionzarr.open(sample_store)
    ids = [name for name in catalog.lesions.index if catalog.find_lesions([name])[0].box is not None]
    return ids, lesionzarr.CropReader(catalog, size=SIZE, window="lung").read_batch(ids).image


def reader_of(url, options, **settings):
    return lesionzarr.CropReader(lesionzarr.open(url, options, **settings), size=SIZE, window="lung")


def block(number=0):
    return np.random.default_rng(number).integers(0, 256, BLOCK_BYTES, dtype=np.uint8)


def files_in(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def size_of(folder):
    return sum(path.stat().st_size for path in files_in(folder))


def in_a_process(code, *arguments):
    """Start Python on some code, with arguments as JSON."""
    lines = code.splitlines()
    indent = len(lines[1]) - len(lines[1].lstrip())
    text = "\n".join(line[indent:] for line in lines)
    command = [sys.executable, "-c", text, json.dumps(arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


# damage, and other versions


@pytest.fixture
def damaged(published, s3_server, expected):
    """Damage a chunk of the first lesion; gives that lesion, and a function that mends it."""
    catalog = lesionzarr.open(published, s3_server.options)
    (lesion,) = catalog.find_lesions(expected[0][:1])
    key = f"volumes/{lesion.volume_id}/hu/c/0/0/0"
    good = catalog.location.read(key)
    catalog.location.write(key, good[:10] + bytes(190) + good[200:])

    def mend():
        catalog.location.write(key, good)

    yield lesion, mend
    mend()


def test_damage_that_was_read_is_not_kept(damaged, published, s3_server, expected, tmp_path):
    lesion, mend = damaged
    reader = reader_of(published, s3_server.options, local_cache=tmp_path)
    for _ in range(2):
        with pytest.raises(IntegrityError, match=f"{lesion.volume_id}/hu/c/0/0/0: the checksum of a chunk is wrong"):
            reader.read(lesion)
    mend()
    for each in (reader, reader_of(published, s3_server.options, local_cache=tmp_path)):
        np.testing.assert_array_equal(each.read(lesion).image, expected[1][0])


def test_damage_that_came_along_with_good_chunks_goes_when_it_is_met(published, s3_server, expected, tmp_path):
    options, settings = s3_server.options, {"local_cache": tmp_path}
    catalog = lesionzarr.open(published, options)
    (lesion,) = catalog.find_lesions(expected[0][:1])
    array = catalog.array(lesion.volume_id).layout
    key, ((size, _),) = f"volumes/{lesion.volume_id}/hu/c/0/0/0", array.objects
    assert size < BLOCK_BYTES, "one block holds all"
    good = catalog.location.read(key)
    # the last chunk, which a small crop has no part in
    end = size - array.index_bytes
    catalog.location.write(key, good[: end - 20] + bytes(10) + good[end - 10 :])
    small = {"size": (1, 4, 4), "window": "lung"}
    lesionzarr.CropReader(lesionzarr.open(published, options, **settings), **small).read(lesion)
    catalog.location.write(key, good)
    whole = {"size": (40, 128, 128), "window": "lung"}
    image = lesionzarr.CropReader(catalog, **whole).read(lesion).image
    for requests in (1, 0):
        reader = lesionzarr.CropReader(lesionzarr.open(published, options, **settings), **whole)
        np.testing.assert_array_equal(reader.read(lesion).image, image)
        assert (reader.traffic().requests > 0) == requests


def cached(location, folder):
    blob = PacedBlob(location.open("object"), Pace())
    return CachedBlob(blob, DiskCache(folder, 100 * BLOCK_BYTES), "object")


def test_blocks_of_two_objects_of_one_name_are_never_taken_together(s3_server, bucket, tmp_path):
    location = open_location(f"s3://{bucket}", s3_server.options)
    one, two, three = (block(number).tobytes() for number in range(3))
    location.write("object", one + two + three)
    first = np.empty(100, dtype=np.uint8)
    cached(location, tmp_path).read_ranges([(0, first)])
    assert first.tobytes() == one[:100]
    location.write("object", two + one + three)
    both = np.empty(2 * BLOCK_BYTES, dtype=np.uint8)
    cached(location, tmp_path).read_ranges([(0, both)])
    assert both.tobytes() == two + one
    # one that has not been asked yet takes what is kept at its word, and finds out at the first answer
    blob = CachedBlob(PacedBlob(location.open("object", 3 * BLOCK_BYTES), Pace()), DiskCache(tmp_path, 10**9), "object")
    location.write("object", three + one + two)
    with pytest.raises(IntegrityError, match="object: written anew while it is read"):
        blob.read_ranges([(BLOCK_BYTES, both)])
    blob.drop()
    cached(location, tmp_path).read_ranges([(BLOCK_BYTES, both)])
    assert both.tobytes() == one + two


@pytest.mark.parametrize("change", ["version", "form"])
def test_an_object_of_another_version_or_form_has_another_name(change, published, s3_server, expected, tmp_path):
    catalog = lesionzarr.open(published, s3_server.options)
    (lesion,) = catalog.find_lesions(expected[0][:1])
    array = catalog.array(lesion.volume_id).layout
    other = replace(array, version="other fast") if change == "version" else replace(array, compressor="zstd")
    names = set()
    for layout in (array, other, array):
        shards = Shards(catalog.location, DiskCache(tmp_path, 10 * BLOCK_BYTES))
        names.add(shards.open(Shard(lesion.volume_id, layout, 0)).blob._name)
    assert len(names) == 2


# the limit


def test_the_limit_of_the_folder_is_kept(tmp_path):
    cache = DiskCache(tmp_path, 5 * BLOCK_BYTES)
    for number in range(40):
        cache.put(str(number), block(number), STAMP)
        assert size_of(tmp_path) <= 5.1 * BLOCK_BYTES
    assert cache.get("0", BLOCK_BYTES) is None
    kept = cache.get("39", BLOCK_BYTES)
    np.testing.assert_array_equal(kept.data, block(39))
    assert kept.stamp == STAMP


WRITER = """
    import json, os, sys
    import numpy as np
    from pathlib import Path
    from lesionzarr.readers._disk_cache import BLOCK_BYTES, DiskCache

    def size_of(path):
        try:
            return os.path.getsize(path)
        except FileNotFoundError:
            return 0

    folder, limit, name = json.loads(sys.argv[1])
    cache = DiskCache(Path(folder), limit)
    most = 0
    for number in range(60):
        cache.put(f"{name} {number}", np.zeros(BLOCK_BYTES, dtype=np.uint8), bytes(16))
        most = max(most, sum(map(size_of, Path(folder).glob("??/[0-9a-f]*"))))
    print(most, cache.get(f"{name} {number}", BLOCK_BYTES) is not None)
"""


def test_three_processes_keep_one_limit(tmp_path):
    limit = 40 * BLOCK_BYTES
    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda name: in_a_process(WRITER, str(tmp_path), limit, name), "abc", timeout=120))
    for process in done:
        most, is_kept = process.stdout.split()
        # a block of each, and what they write while one counts, which is no more than what it then deletes
        assert int(most) <= 1.2 * limit + 3 * BLOCK_BYTES
        assert is_kept == "True"
        assert not process.stderr
    assert size_of(tmp_path) > limit // 2


def test_a_process_counts_what_others_wrote_before(tmp_path):
    limit = 10 * BLOCK_BYTES
    caches = [DiskCache(tmp_path, limit) for _ in range(4)]
    for number in range(12):
        for name, cache in enumerate(caches):
            cache.put(f"{name} {number}", block(number), STAMP)
            assert size_of(tmp_path) <= limit + BLOCK_BYTES
    # and what was there before there was a tally
    (tmp_path / "tally").unlink()
    DiskCache(tmp_path, limit // 2).put("one more", block(), STAMP)
    assert size_of(tmp_path) <= limit // 2 + BLOCK_BYTES


def test_a_tally_that_misses_blocks_is_mended(tmp_path):
    cache = DiskCache(tmp_path, 8 * BLOCK_BYTES)
    for number in range(30):
        cache.put(str(number), block(number), STAMP)
        os.truncate(tmp_path / "tally", 1)
        # a quarter of the limit more
        assert size_of(tmp_path) <= 11 * BLOCK_BYTES


def test_only_what_is_left_of_dead_processes_is_deleted(tmp_path):
    cache = DiskCache(tmp_path, 3 * BLOCK_BYTES)
    cache.put("first", block(), STAMP)
    folder = files_in(tmp_path / next(path.name for path in tmp_path.iterdir() if path.is_dir()))[0].parent
    alive, dead = folder / f".{'a' * 16}.part", folder / f".{'b' * 16}.part"
    other, foreign = tmp_path / "thesis.tex", folder / "notes.txt"
    for path in (alive, dead, other, foreign):
        path.write_bytes(bytes(1000))
    long_ago = time.time() - PART_S - 60
    for path in (dead, other, foreign):
        os.utime(path, (long_ago, long_ago))
    for number in range(12):
        cache.put(str(number), block(number), STAMP)
    assert [path.exists() for path in (alive, dead, other, foreign)] == [True, False, True, True]


def test_what_cannot_be_deleted_stays_and_harms_nobody(tmp_path):
    cache = DiskCache(tmp_path, 5 * BLOCK_BYTES)
    cache.put("first", block(), STAMP)
    (first,) = [path for path in files_in(tmp_path) if len(path.name) == 62]
    first.unlink()
    # a folder in place of a file can be deleted by no unlink
    first.mkdir()
    os.utime(first, (0, 0))
    for number in range(12):
        cache.put(str(number), block(number), STAMP)
        assert cache.get(str(number), BLOCK_BYTES) is not None
    assert cache.get("first", BLOCK_BYTES) is None
    cache.drop("first")
    assert first.is_dir()


# folders that cannot be written

READER = """
    import json, resource, signal, sys, warnings
    import lesionzarr
    url, options, folder, ids, most = json.loads(sys.argv[1])
    catalog = lesionzarr.open(url, options, local_cache=folder)
    reader = lesionzarr.CropReader(catalog, size=(9, 64, 64), window="lung")
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # every file that grows over so many bytes fails, as on a disk that is full
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        images = [int(reader.read_batch(ids).image.sum()) for _ in range(3)]
    print(json.dumps([images, [str(each.message) for each in told], reader.traffic().requests]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of file sizes for a process")
def test_a_full_disk_is_told_once_and_reads_go_on(published, s3_server, expected, tmp_path):
    ids, images = expected
    done = in_a_process(READER, published, s3_server.options, str(tmp_path), ids, 10_000)
    sums, told, _ = json.loads(done.stdout)
    assert sums == [int(images.sum())] * 3
    assert len(told) == 1
    assert "nothing more is kept there: free some space, or name another folder" in told[0]
    assert not [path for path in files_in(tmp_path) if path.name != "tally"], "half a block is left"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limits of file sizes for a process")
def test_a_folder_that_somebody_else_filled_is_read(published, s3_server, expected, tmp_path):
    ids, images = expected
    reader_of(published, s3_server.options, local_cache=tmp_path).read_batch(ids)
    done = in_a_process(READER, published, s3_server.options, str(tmp_path), ids, 0)
    assert json.loads(done.stdout) == [[int(images.sum())] * 3, [], 0]


def test_a_path_that_is_no_folder_is_told_once(published, s3_server, expected, tmp_path):
    ids, images = expected
    file = tmp_path / "file"
    file.write_text("")
    reader = reader_of(published, s3_server.options, local_cache=file)
    with pytest.warns(UserWarning, match=r"local cache file: .*; nothing more is kept there") as told:
        found = reader.read_batch(ids).image
    assert len(told) == 1
    np.testing.assert_array_equal(found, images)
    np.testing.assert_array_equal(reader.read_batch(ids).image, images)
    assert file.read_text() == ""
