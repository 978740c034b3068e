"""The servers and the faulty network of the tests do what other tests rely on."""

from __future__ import annotations

import os
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import obstore
import pytest
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError
from obstore.store import HTTPStore, S3Store
from proxy import Faults, Proxy, Request
from servers import Answered, Static

NO_RETRIES = {"max_retries": 0}
BYTES = os.urandom(1_000_000)


@pytest.fixture
def store(s3_server, bucket):
    return S3Store(bucket, **s3_server.options)


@pytest.fixture
def far(s3_server, bucket, proxy):
    """The bucket as it is seen through the proxy, without retries."""
    return S3Store(bucket, retry_config=NO_RETRIES, **s3_server.options | {"endpoint": proxy.endpoint})


def test_an_object_is_read_back_whole_by_range_and_by_suffix(store):
    store.put("a/b", BYTES)
    assert bytes(store.get("a/b").bytes()) == BYTES
    assert bytes(store.get_range("a/b", start=1000, end=5000)) == BYTES[1000:5000]
    assert bytes(obstore.get(store, "a/b", options={"range": {"suffix": 999}}).bytes()) == BYTES[-999:]
    assert [found["path"] for page in store.list() for found in page] == ["a/b"]


def test_an_object_is_created_once(store):
    store.put("once", b"first", mode="create")
    with pytest.raises(AlreadyExistsError):
        store.put("once", b"second", mode="create")
    assert bytes(store.get("once").bytes()) == b"first"


def test_the_reader_may_not_write_and_a_wrong_secret_may_nothing(store, s3_server, bucket):
    store.put("a", b"1")
    reader = S3Store(bucket, **s3_server.reader_options)
    assert bytes(reader.get("a").bytes()) == b"1"
    with pytest.raises(PermissionDeniedError):
        reader.put("b", b"2")
    with pytest.raises(PermissionDeniedError):
        S3Store(bucket, **s3_server.options | {"secret_access_key": "wrong"}).get("a")


def test_anybody_reads_the_public_bucket_only(s3_server, store, bucket):
    S3Store("public", **s3_server.options).put("shown", b"1")
    store.put("hidden", b"1")
    with urllib.request.urlopen(f"{s3_server.endpoint}/public/shown") as answer:
        assert answer.read() == b"1"
    with pytest.raises(urllib.error.HTTPError, match="403") as refusal:
        urllib.request.urlopen(f"{s3_server.endpoint}/{bucket}/hidden")
    refusal.value.close()


def test_the_proxy_counts_requests_and_bytes_and_keeps_a_log(far, proxy, bucket):
    far.put("a", BYTES)
    far.get_range("a", start=10, end=30)
    far.get("a").bytes()
    assert (proxy.requests, proxy.bytes_up, proxy.bytes_down) == (3, len(BYTES), len(BYTES) + 20)
    assert (proxy.counts["GET"].requests, proxy.counts["PUT"].bytes_up) == (2, len(BYTES))
    assert proxy.log[1] == Request("GET", f"/{bucket}/a", "bytes=10-29", "", 206, 0, 20)
    proxy.reset_counts()
    assert (proxy.requests, proxy.bytes_down, len(proxy.log)) == (0, 0, 0)


def test_listings_in_many_pages_and_answers_without_bodies_pass_the_proxy(far, store):
    for number in range(1100):
        store.put(f"many/{number:04}", b"")
    assert sum(len(page) for page in far.list("many")) == 1100
    assert far.head("many/0001")["size"] == 0
    far.delete("many/0001")
    with pytest.raises(FileNotFoundError):
        far.head("many/0001")


def test_latency_is_added_to_each_round_trip(far, proxy):
    far.put("a", b"1")
    proxy.latency_ms = 40
    start = time.perf_counter()
    for _ in range(3):
        far.get("a").bytes()
    assert time.perf_counter() - start >= 3 * 0.04


def test_latency_does_not_thin_the_line(far, proxy, store):
    store.put("big", BYTES * 20)
    proxy.latency_ms = 400
    start = time.perf_counter()
    assert bytes(far.get("big").bytes()) == BYTES * 20
    # 20 MB in pieces of 256 KiB at half a round trip each would take 15 s
    assert time.perf_counter() - start < 8


def test_bandwidth_is_shared_by_both_directions_each(far, proxy):
    proxy.bandwidth = 10e6
    start = time.perf_counter()
    far.put("a", BYTES)
    far.get("a").bytes()
    assert time.perf_counter() - start >= 0.2


@pytest.mark.parametrize(("fault", "reached"), [("reset", False), ("lost", True), ("unavailable", False)])
def test_a_request_that_fails_is_an_error_without_retries(far, proxy, store, fault, reached):
    proxy.faults = Faults(**{fault: 1.0})
    with pytest.raises(BaseError):
        far.put("a", b"1")
    assert proxy.log[0].fault == fault
    assert bool(store.list().collect()) == reached


def test_a_truncated_body_is_an_error(far, proxy, store):
    store.put("a", BYTES)
    proxy.faults = Faults(truncated=1.0)
    with pytest.raises(BaseError):
        far.get("a").bytes()
    assert 0 < proxy.bytes_down < len(BYTES)


def test_a_stalled_body_comes_late_or_runs_into_the_timeout_of_the_client(proxy, s3_server, bucket, store):
    store.put("a", BYTES)
    proxy.faults = Faults(stalled=1.0, stall_s=0.5)
    options = s3_server.options | {"endpoint": proxy.endpoint}
    start = time.perf_counter()
    assert bytes(S3Store(bucket, **options).get("a").bytes()) == BYTES
    assert time.perf_counter() - start >= 0.5
    options["client_options"] = {"allow_http": True, "timeout": "100ms"}
    with pytest.raises(BaseError):
        S3Store(bucket, retry_config=NO_RETRIES, **options).get("a").bytes()


def test_obstore_repeats_requests_that_were_answered_503(proxy, s3_server, bucket):
    proxy.faults = Faults(unavailable=0.3)
    patient = S3Store(bucket, **s3_server.options | {"endpoint": proxy.endpoint})
    for number in range(10):
        patient.put(f"{number}", b"%d" % number)
        assert bytes(patient.get(f"{number}").bytes()) == b"%d" % number
    assert {request.status for request in proxy.log} == {200, 503}


def test_faults_are_drawn_alike_from_the_same_seed(s3_server, bucket, proxy):
    drawn = []
    for seed in (1, 1, 2):
        with Proxy(s3_server.endpoint, seed=seed) as line:
            line.faults = Faults(unavailable=0.5)
            store = S3Store(bucket, retry_config=NO_RETRIES, **s3_server.options | {"endpoint": line.endpoint})
            for _ in range(20):
                with pytest.raises((BaseError, FileNotFoundError)):
                    store.head("none")
            drawn.append([request.fault for request in line.log])
    assert drawn[0] == drawn[1] != drawn[2]


def test_32_connections_at_once_pass_the_proxy(far, proxy, store):
    store.put("a", BYTES)
    with ThreadPoolExecutor(32) as pool:
        assert all(part == BYTES for part in pool.map(lambda _: bytes(far.get("a").bytes()), range(128)))
    assert (proxy.requests, proxy.bytes_down) == (128, 128 * len(BYTES))


def test_a_killed_server_has_its_objects_after_a_restart_and_the_proxy_finds_it_again(s3_server, proxy):
    direct = S3Store("public", retry_config=NO_RETRIES, **s3_server.options)
    through = S3Store("public", retry_config=NO_RETRIES, **s3_server.options | {"endpoint": proxy.endpoint})
    through.put("kept", BYTES)
    s3_server.kill()
    for store in (direct, through):
        with pytest.raises(BaseError):
            store.get("kept")
    s3_server.restart()
    for store in (direct, through):
        assert bytes(store.get("kept").bytes()) == BYTES


def test_the_static_host_answers_ranges_and_lists_nothing(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a b").write_bytes(BYTES)
    with Static(tmp_path) as static:
        store = HTTPStore.from_url(static.endpoint, client_options={"allow_http": True})
        assert bytes(store.get("folder/a b").bytes()) == BYTES
        assert bytes(store.get_range("folder/a b", start=5, end=25)) == BYTES[5:25]
        assert bytes(obstore.get(store, "folder/a b", options={"range": {"suffix": 7}}).bytes()) == BYTES[-7:]
        assert list(static.log)[1] == Answered("GET", "/folder/a%20b", "bytes=5-24", 206)
        with pytest.raises(FileNotFoundError):
            store.get("folder/none")
        with pytest.raises(BaseError):
            store.list("folder").collect()
        for path, code in (("folder/", "403"), ("..%2F..%2Fetc%2Fpasswd", "403")):
            with pytest.raises(urllib.error.HTTPError, match=code) as refusal:
                urllib.request.urlopen(f"{static.endpoint}/{path}")
            refusal.value.close()
