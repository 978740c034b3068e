"""Stores that are written anew while a reader is open: it reads what is there now, or says that it cannot."""

import json
import shutil
import struct
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer

import google_crc32c
import numcodecs
import numpy as np
import pytest
from servers import Static

import lesionzarr
from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.samples import deeplesion
from lesionzarr.store.location import open_location

SIZE = (9, 64, 64)
ANEW = "was written anew in another form; open the store again"


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Folder of one small dataset as a store of each profile."""
    folder = tmp_path_factory.mktemp("stores")
    source = deeplesion(folder / "DeepLesion", lesions=4, image_size=96)
    for profile in ("portable", "fast", "dense"):
        assert not lesionzarr.convert("deeplesion", source, folder / profile, profile=profile).failed
    return folder


@pytest.fixture(scope="module")
def expected(stores):
    """Ids of all lesions with a position, and their crops from the disk."""
    catalog = lesionzarr.open(stores / "portable")
    ids = [name for name in catalog.lesions.index if catalog.find_lesions([name])[0].box is not None]
    return ids, reader_of(stores / "portable").read_batch(ids).image


@pytest.fixture
def rewrite(s3_server, bucket, stores):
    """Write the dataset into a bucket, again and again; gives its URL."""
    url = f"s3://{bucket}/store.zarr"

    def write(profile="portable"):
        location = open_location(url, s3_server.options)
        files = {path.relative_to(stores / profile).as_posix(): path for path in (stores / profile).rglob("*")}
        for key, path in files.items():
            if path.is_file():
                location.write(key, path.read_bytes())
        return url

    return write


@pytest.fixture(params=["no local cache", "local cache"])
def settings(request, tmp_path):
    """Settings of `lesionzarr.open` with and without a local cache."""
    return {"local_cache": tmp_path / "kept"} if request.param == "local cache" else {}


def reader_of(url, options=None, **settings):
    return lesionzarr.CropReader(lesionzarr.open(url, options, **settings), size=SIZE, window="lung")


def shards_of(catalog):
    for volume_id in catalog.volumes.index:
        for number in range(catalog.array(volume_id).layout.grid[0]):
            yield volume_id, f"volumes/{volume_id}/hu/c/{number}/0/0"


def stored_as_they_are(data, chunks, seed):
    """Give a shard whose chunks Blosc has only copied, so that all have one length, in some order."""
    end = len(data) - 16 * chunks - 4
    index = struct.unpack(f"<{2 * chunks}Q", data[end:-4])
    found = list(zip(index[::2], index[1::2], strict=True))
    copy = numcodecs.Blosc("zstd", 0, numcodecs.Blosc.NOSHUFFLE)
    coded = [bytes(copy.encode(numcodecs.blosc.decompress(data[a : a + length - 4]))) for a, length in found]
    parts = [chunk + crc(chunk) for chunk in coded]
    assert len({len(part) for part in parts}) == 1
    order = np.random.default_rng(seed).permutation(chunks).tolist()
    places = {number: at * len(parts[0]) for at, number in enumerate(order)}
    table = struct.pack(f"<{2 * chunks}Q", *(n for number in range(chunks) for n in (places[number], len(parts[0]))))
    return b"".join([*(parts[number] for number in order), table, crc(table)])


def crc(data):
    return google_crc32c.value(data).to_bytes(4, "little")


def test_a_warm_and_a_cold_reader_read_other_codecs_as_they_are_now(s3_server, rewrite, expected, settings):
    ids, images = expected
    url = rewrite("fast")
    warm, cold = (reader_of(url, s3_server.options, **settings) for _ in range(2))
    np.testing.assert_array_equal(warm.read_batch(ids).image, images)
    # smaller ones, so that nothing is where it was, and the index was behind what is the end now
    before = warm.catalog.location.list_objects("volumes")
    rewrite("portable")
    after = warm.catalog.location.list_objects("volumes")
    shards = [key for _, key in shards_of(warm.catalog)]
    assert all(after[key] < before[key] - 1000 for key in shards)
    for reader in (warm, cold, warm, reader_of(url, s3_server.options, **settings)):
        np.testing.assert_array_equal(reader.read_batch(ids).image, images)


def test_chunks_of_one_length_in_another_order_are_not_confused(s3_server, rewrite, expected, settings):
    ids, images = expected
    url = rewrite()
    reader = reader_of(url, s3_server.options, **settings)
    catalog = reader.catalog
    good = {key: (catalog.location.read(key), catalog.array(volume_id).layout) for volume_id, key in shards_of(catalog)}
    for seed in range(2):
        for key, (data, array) in good.items():
            catalog.location.write(key, stored_as_they_are(data, array.index_bytes // 16, seed))
        # every checksum is right, and every chunk another than that which the index told before
        for each in (reader, reader_of(url, s3_server.options, **settings)):
            np.testing.assert_array_equal(each.read_batch(ids).image, images)


@pytest.mark.parametrize("size", [0, 100, "half"])
def test_an_object_that_was_cut_off_is_told_and_read_once_it_is_mended(s3_server, rewrite, expected, settings, size):
    ids, images = expected
    url = rewrite()
    warm = reader_of(url, s3_server.options, **settings)
    (lesion,) = warm.catalog.find_lesions(ids[:1])
    warm.read_batch(ids[1:])
    location, key = warm.catalog.location, f"volumes/{lesion.volume_id}/hu/c/0/0/0"
    good = location.read(key)
    location.write(key, good[: len(good) // 2 if size == "half" else size])
    cold = reader_of(url, s3_server.options)
    for reader in (cold, cold) if settings else (warm, cold, warm):
        with pytest.raises(IntegrityError, match=f"{lesion.volume_id}.*/hu/c/0/0/0: ") as caught:
            reader.read(lesion)
        assert "\n" not in str(caught.value)
    location.write(key, good)
    for reader in (warm, cold):
        np.testing.assert_array_equal(reader.read_batch(ids).image, images)


def test_another_form_is_one_clear_line(s3_server, rewrite, expected):
    ids, images = expected
    url = rewrite()
    warm, cold = (reader_of(url, s3_server.options) for _ in range(2))
    warm.read_batch(ids)
    rewrite("dense")
    for reader in (cold, warm, warm):
        with pytest.raises(StoreError, match=rf"^store\.zarr: volume [\w-]+ {ANEW}$"):
            reader.read_batch(ids)
    np.testing.assert_array_equal(reader_of(url, s3_server.options).read_batch(ids).image, images)


@pytest.mark.parametrize("change", ["other voxels", "half written"])
def test_other_voxels_are_not_read_for_those_of_the_catalog(change, s3_server, rewrite, expected):
    url = rewrite()
    reader = reader_of(url, s3_server.options)
    reader.read_batch(expected[0])
    location = reader.catalog.location
    (lesion,) = reader.catalog.find_lesions(expected[0][:1])
    group = f"volumes/{lesion.volume_id}/zarr.json"
    shard = f"volumes/{lesion.volume_id}/hu/c/0/0/0"
    (other,) = (key for _, key in list(shards_of(reader.catalog))[1:2])
    location.write(shard, location.read(other))
    if change == "half written":
        location.delete(group)
        match = "is gone or is being written anew; open the store again"
    else:
        metadata = json.loads(location.read(group))
        metadata["attributes"]["lesionzarr"]["provenance"]["voxels"] = "sha256:0"
        location.write(group, json.dumps(metadata).encode())
        match = "was written anew with other voxels; open the store again"
    for each in (reader, reader_of(url, s3_server.options), reader):
        with pytest.raises(StoreError, match=f"volume {lesion.volume_id} {match}"):
            each.read(lesion)


def test_a_folder_that_was_written_anew_says_so(stores, expected, tmp_path):
    ids, images = expected
    store = tmp_path / "store.zarr"
    shutil.copytree(stores / "portable", store)
    warm, cold = reader_of(store), reader_of(store)
    warm.read_batch(ids)
    shutil.rmtree(store)
    shutil.copytree(stores / "dense", store)
    # its files are still open
    np.testing.assert_array_equal(warm.read_batch(ids).image, images)
    with pytest.raises(StoreError, match=ANEW):
        cold.read_batch(ids)
    np.testing.assert_array_equal(reader_of(store).read_batch(ids).image, images)


def test_a_pack_that_was_made_anew_says_so(s3_server, bucket, stores, expected):
    catalog = lesionzarr.open(stores / "portable")
    url, options = f"s3://{bucket}/pack.zarr", s3_server.options

    def make(lesions):
        open_location(url, options).delete_tree("")
        lesionzarr.pack(catalog, url, lesions=lesions, size=(5, 32, 32), storage_options=options)
        return lesionzarr.PackReader(lesionzarr.open_pack(url, options))

    ids = expected[0]
    reader = make(ids)
    first = reader.read_batch(ids).image
    again = make(ids[::-1])
    with pytest.raises(StoreError, match=r"/c/0/0/0/0 was written anew; open it again"):
        reader.read_batch(ids)
    np.testing.assert_array_equal(again.read_batch(ids).image, first)


# hosts with ways of their own


class Odd(BaseHTTPRequestHandler):
    """A host that answers requests for parts of a file in the way that its server was told."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format, *args):  # noqa: A002 - named by its base class
        """Keep the tests' stderr to the tests."""

    def do_GET(self):
        self.server.requests += 1
        status, fields, body = self.server.answer
        self.send_response(status)
        for name, value in {**fields, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def odd():
    """A host whose `answer` is set by the test: status, fields and body."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    server.requests = 0
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


PART = {"Content-Range": "bytes 10-19/100"}
ANSWERS = {
    "the whole file": (200, {}, bytes(100), StoreError, "the server sends whole files only"),
    "no content": (204, {}, b"", StoreError, "the server sends whole files only"),
    "no word of which part": (206, {}, bytes(10), StoreError, "Content-Range header not present"),
    "another part": (206, {"Content-Range": "bytes 0-9/100"}, bytes(10), StoreError, r"Requested 10\.\.20, got"),
    "a part of unknown length": (206, {"Content-Range": "bytes 10-19/*"}, bytes(10), StoreError, "CONTENT_RANGE"),
    "less than it says": (206, PART, bytes(5), IntegrityError, "cut off at byte 15"),
    "nothing there": (416, {"Content-Range": "bytes */5"}, b"", IntegrityError, "cut off before byte 10"),
    "gone": (410, {}, b"", StoreError, "410 Gone"),
    "not implemented": (501, {}, b"", StoreError, "501 Not Implemented"),
    "a redirect to nowhere": (301, {}, b"", StoreError, "redirect without LOCATION"),
    "a redirect to itself": (302, {"Location": "/"}, b"", StoreError, "redirect"),
}


@pytest.mark.parametrize(("status", "fields", "body", "error", "message"), ANSWERS.values(), ids=ANSWERS)
def test_an_odd_answer_is_one_clear_line_and_not_asked_for_again(odd, status, fields, body, error, message):
    odd.answer = status, fields, body
    url = f"http://127.0.0.1:{odd.server_address[1]}/store.zarr"
    # a service that has answered before is waited for, for a minute
    location = open_location(url, {"retries": 0}).reached()
    part = np.empty(10, dtype=np.uint8)
    with pytest.raises(error, match=rf"^store\.zarr/object: .*{message}") as caught:
        location.open("object", 100).read_ranges([(10, part)])
    assert "\n" not in str(caught.value)
    assert odd.requests <= 11, "reqwest follows ten redirects"


def test_a_host_that_tells_no_version_is_read(odd):
    odd.answer = 206, PART, b"0123456789"
    location = open_location(f"http://127.0.0.1:{odd.server_address[1]}/store.zarr")
    part = np.empty(10, dtype=np.uint8)
    location.open("object", 100).read_ranges([(10, part)] * 2)
    assert part.tobytes() == b"0123456789"


def test_part_of_an_object_that_ended_before_is_empty(s3_server, bucket):
    location = open_location(f"s3://{bucket}", s3_server.options)
    for size in (0, 5):
        location.write("object", b"01234"[:size])
        assert location.read_range("object", 3, 4) == b"34"[: max(0, size - 3)]
        assert location.read_range("object", 10, 4) == b""
        blob, tail = location.open_tail("object", 10)
        assert (blob.size, tail) == (size, b"01234"[:size])
    assert location.read_range("nothing", 0, 4) is None


def test_servers_that_name_one_version_differently_are_read(stores, expected, settings):
    """As mirrors do, whose ETags are made of the numbers of inodes."""
    ids, images = expected
    with Static(stores) as host:
        host.mirrors = 3
        reader = reader_of(f"{host.endpoint}/portable", **settings)
        for _ in range(3):
            np.testing.assert_array_equal(reader.read_batch(ids).image, images)
        assert {answered.etag[1] for answered in host.log if answered.status == 206} == {"0", "1", "2"}


def test_a_web_server_is_not_written_to(stores, tmp_path):
    message = r"^new\.zarr: a web server is for reading; write to a folder or a bucket$"
    with Static(tmp_path) as host:
        url = f"{host.endpoint}/new.zarr"
        with pytest.raises(StoreError, match=message):
            lesionzarr.convert("deeplesion", stores / "DeepLesion", url)
        location = open_location(url)
        for write in (
            lambda: location.write("a", b""),
            lambda: location.create("a", b""),
            lambda: location.delete("a"),
            lambda: location.delete_tree("a"),
        ):
            with pytest.raises(StoreError, match=message):
                write()


def test_azure_which_knows_no_last_bytes_is_asked_for_the_length_first(tmp_path):
    folder = tmp_path / "container" / "store.zarr"
    folder.mkdir(parents=True)
    (folder / "full").write_bytes(b"0123456789")
    (folder / "empty").write_bytes(b"")
    with Static(tmp_path) as host:
        options = {"endpoint": host.endpoint, "account_name": "anybody", "anonymous": True}
        location = open_location("az://container/store.zarr", options)
        found = {key: location.open_tail(key, 4) for key in ("full", "empty", "nothing")}
        assert [answered.method for answered in host.log] == ["HEAD", "GET", "HEAD", "HEAD"]
    assert (found["full"][0].size, found["full"][1]) == (10, b"6789")
    assert (found["empty"][0].size, found["empty"][1]) == (0, b"")
    assert found["nothing"] is None


def test_the_web_server_of_python_sends_whole_files_and_that_is_told(stores, expected):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format, *args):  # noqa: A002 - named by its base class
            """Keep the tests' stderr to the tests."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=stores)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        reader = reader_of(f"http://127.0.0.1:{server.server_address[1]}/portable")
        message = (
            r"^portable/volumes/.*: the server sends whole files only; serve the store by one that knows byte ranges"
        )
        with pytest.raises(StoreError, match=message) as caught:
            reader.read_batch(expected[0])
        assert "\n" not in str(caught.value)
        server.shutdown()
        thread.join()
