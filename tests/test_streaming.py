"""Crops from a bucket: right whatever the network does, by few requests, with parts kept on a disk."""

import json
import subprocess
import sys

import numpy as np
import pytest
from proxy import Faults
from servers import Static

import lesionzarr
from lesionzarr.errors import LesionzarrError, NotFoundError, StoreError
from lesionzarr.store.index import write_catalog

SIZE = (9, 64, 64)


@pytest.fixture(scope="module")
def published(s3_server, sample):
    """URL of the sample store in a bucket."""
    bucket = s3_server.create_bucket("streaming")
    url = f"s3://{bucket}/deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", sample, url, storage_options=s3_server.options).failed
    return url


@pytest.fixture
def through(s3_server, proxy):
    """Storage options that lead through the proxy."""
    return {**s3_server.options, "endpoint": proxy.endpoint}


@pytest.fixture(scope="module")
def expected(sample_store):
    """Ids of all lesions with a position, and their crops from the disk."""
    catalog = lesionzarr.open(sample_store)
    ids = [name for name in catalog.lesions.index if catalog.find_lesions([name])[0].box is not None]
    return ids, lesionzarr.CropReader(catalog, size=SIZE, window="lung").read_batch(ids).image


def reader_of(url, options, **settings):
    return lesionzarr.CropReader(lesionzarr.open(url, options, **settings), size=SIZE, window="lung")


def test_a_store_is_opened_by_four_requests(published, through, proxy):
    proxy.reset_counts()
    catalog = lesionzarr.open(published, through)
    assert len(catalog) > 0
    assert sorted(request.path.rsplit("/", 1)[-1] for request in proxy.log) == [
        "lesions.parquet",
        "tables.json",
        "volumes.parquet",
        "zarr.json",
    ]


def test_a_cold_crop_is_one_round_trip_and_a_warm_one_a_request(published, through, proxy, expected):
    ids, images = expected
    reader = reader_of(published, through)
    proxy.reset_counts()
    np.testing.assert_array_equal(reader.read(ids[0]).image, images[0])
    cold = list(proxy.log)
    assert [request.method for request in cold] == ["GET", "GET"]
    # neither waits for the other: both ranges are known from the catalog
    lesion = reader.catalog.find_lesions(ids[:1])[0]
    ((size, head),) = reader.catalog.array(lesion.volume_id).layout.objects
    index = reader.catalog.array(lesion.volume_id).layout.index_bytes
    assert {request.range for request in cold} == {f"bytes=0-{head - 1}", f"bytes={size - index}-{size - 1}"}
    proxy.reset_counts()
    np.testing.assert_array_equal(reader.read(ids[0]).image, images[0])
    assert proxy.requests == 1


def test_a_store_that_does_not_know_its_shards_is_read_by_their_tails(s3_server, bucket, sample, proxy, expected):
    url = f"s3://{bucket}/old.zarr"
    lesionzarr.convert("deeplesion", sample, url, storage_options=s3_server.options)
    location = lesionzarr.open(url, s3_server.options).location
    for volume_id in location.list_folders("volumes"):
        key = f"volumes/{volume_id}/zarr.json"
        group = json.loads(location.read(key))
        del group["attributes"]["lesionzarr"]["provenance"]["shards"]
        location.write(key, json.dumps(group).encode())
    write_catalog(location)
    ids, images = expected
    reader = reader_of(url, {**s3_server.options, "endpoint": proxy.endpoint})
    proxy.reset_counts()
    np.testing.assert_array_equal(reader.read(ids[0]).image, images[0])
    ranges = [request.range for request in proxy.log]
    assert ranges[0].startswith("bytes=-")
    assert {request.method for request in proxy.log} == {"GET"}
    np.testing.assert_array_equal(reader.read_batch(ids).image, images)


@pytest.mark.parametrize("kind", ["reset", "lost", "unavailable", "truncated", "stalled"])
def test_every_crop_is_right_whatever_the_network_does(kind, published, through, proxy, expected):
    ids, images = expected
    # a round of requests in which none fails would show nothing
    proxy.faults = Faults(**{kind: 0.2}, stall_s=30)
    options = {**through, "timeout_s": 0.5, "retries": 20}
    for _ in range(3):
        np.testing.assert_array_equal(reader_of(published, options).read_batch(ids).image, images)
    assert {request.fault for request in proxy.log} == {"", kind}


def test_a_network_that_never_answers_is_one_clear_line(published, through, proxy, expected):
    options = {**through, "retries": 2, "timeout_s": 0.5, "patience_s": 1}
    reader = reader_of(published, options)
    proxy.faults = Faults(unavailable=1)
    with pytest.raises(StoreError, match=r"^deeplesion\.zarr/volumes/.*/hu/c/0/0/0: .*503") as caught:
        reader.read(expected[0][0])
    assert "\n" not in str(caught.value)


def test_a_volume_that_was_written_anew_is_read_as_it_is_now(s3_server, bucket, sample, expected):
    url = f"s3://{bucket}/deeplesion.zarr"
    lesionzarr.convert("deeplesion", sample, url, storage_options=s3_server.options)
    reader = reader_of(url, s3_server.options)
    ids, images = expected
    # other codecs, so that nothing is where the opened catalog thinks it is
    location = reader.catalog.location
    for volume_id in location.list_folders("volumes"):
        location.delete(f"volumes/{volume_id}/zarr.json")
    lesionzarr.convert("deeplesion", sample, url, storage_options=s3_server.options, profile="fast")
    np.testing.assert_array_equal(reader.read_batch(ids).image, images)


def test_an_object_that_is_gone_is_named(s3_server, bucket, sample, expected):
    url = f"s3://{bucket}/deeplesion.zarr"
    lesionzarr.convert("deeplesion", sample, url, storage_options=s3_server.options)
    reader = reader_of(url, s3_server.options)
    (lesion,) = reader.catalog.find_lesions(expected[0][:1])
    reader.catalog.location.delete(f"volumes/{lesion.volume_id}/hu/c/0/0/0")
    with pytest.raises(LesionzarrError, match=f"volume {lesion.volume_id}, .*/hu/c/0/0/0: missing; convert it again"):
        reader.read(lesion)


def test_traffic_is_what_the_server_sees(published, through, proxy, expected):
    reader = reader_of(published, through)
    proxy.reset_counts()
    reader.explain(expected[0])
    opened = reader.traffic()
    assert (opened.requests, opened.bytes) == (proxy.requests, proxy.bytes_down)
    proxy.reset_counts()
    told = reader.explain(expected[0], run=True)
    assert (told.requests_made, told.bytes_fetched) == (proxy.requests, proxy.bytes_down)
    assert reader.traffic().requests == opened.requests + told.requests_made


# what is kept on a disk


def test_what_was_read_is_kept_for_other_processes(published, through, proxy, expected, tmp_path):
    ids, images = expected
    np.testing.assert_array_equal(reader_of(published, through, local_cache=tmp_path).read_batch(ids).image, images)
    proxy.reset_counts()
    code = """
        import json, sys
        import lesionzarr
        url, options, folder, ids = json.loads(sys.argv[1])
        catalog = lesionzarr.open(url, options, local_cache=folder)
        reader = lesionzarr.CropReader(catalog, size=(9, 64, 64), window="lung")
        print(int(reader.read_batch(ids).image.sum()), reader.traffic().requests)
    """
    asked = json.dumps([published, through, str(tmp_path), ids])
    command = [sys.executable, "-c", "\n".join(line.strip() for line in code.splitlines()), asked]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == [str(int(images.sum())), "0"]
    assert proxy.requests == 4, "the catalog is always read anew"


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_torn_file_is_read_again(damage, published, s3_server, expected, tmp_path):
    ids, images = expected
    reader_of(published, s3_server.options, local_cache=tmp_path).read_batch(ids)
    for path in [path for path in tmp_path.rglob("*") if path.is_file()]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes({"cut": data[: len(data) // 2], "flip": data, "empty": b""}[damage])
    reader = reader_of(published, s3_server.options, local_cache=tmp_path)
    np.testing.assert_array_equal(reader.read_batch(ids).image, images)
    assert reader.traffic().requests > 0
    again = reader_of(published, s3_server.options, local_cache=tmp_path)
    np.testing.assert_array_equal(again.read_batch(ids).image, images)
    assert again.traffic().requests == 0


# publishing, and what can be wrong with an address


def test_a_static_host_without_a_listing_is_enough(sample_store, expected):
    ids, images = expected
    with Static(sample_store.parent) as host:
        reader = reader_of(f"{host.endpoint}/{sample_store.name}", None)
        np.testing.assert_array_equal(reader.read_batch(ids).image, images)
        volume = reader.catalog.volume(reader.catalog.volumes.index[0])
        assert volume["hu"].shape == tuple(reader.catalog.grid(reader.catalog.volumes.index[0]).shape)
        assert {answered.method for answered in host.log} <= {"GET", "HEAD"}
        assert all(answered.status in {200, 206, 404} for answered in host.log)


BAD = {
    "wrong secret": ({"secret_access_key": "wrong"}, StoreError, "check the credentials"),
    "unknown key": ({"access_key_id": "nobody"}, StoreError, "check the credentials"),
    "no server": ({"endpoint": "http://127.0.0.1:9"}, StoreError, "the server cannot be reached"),
    "no host": ({"endpoint": "http://no-such-host.invalid"}, StoreError, "no such host, or no network"),
    "unknown option": ({"colour": "blue"}, LesionzarrError, "check the storage options"),
    "no number": ({"retries": "many"}, LesionzarrError, "storage option retries='many': a number"),
}


@pytest.mark.parametrize(("change", "error", "message"), BAD.values(), ids=BAD)
def test_a_wrong_address_is_one_clear_line(change, error, message, published, s3_server):
    options = {**s3_server.options, "retries": 1, **change}
    with pytest.raises(error, match=message) as caught:
        lesionzarr.open(published, options)
    assert "\n" not in str(caught.value)
    assert "lzsecret" not in str(caught.value)


def test_a_missing_store_and_a_missing_bucket_are_told(published, s3_server, sample):
    with pytest.raises(NotFoundError, match=r"no store at nothing\.zarr"):
        lesionzarr.open(published.replace("deeplesion", "nothing"), s3_server.options)
    with pytest.raises(LesionzarrError, match="no such bucket; create it, or mend the URL"):
        lesionzarr.convert("deeplesion", sample, "s3://no-such-bucket/x.zarr", storage_options=s3_server.options)
