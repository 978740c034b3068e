"""Stores that cannot be used are told by one line, within seconds; an outage in the midst of work is waited for."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from proxy import Faults
from turmoil import environment

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import StoreError
from lesionzarr.store import _options
from lesionzarr.store._bucket import Bucket
from lesionzarr.store._options import parse_option

DEADLINE_S = 60


@pytest.fixture(scope="module")
def published(s3_server, sample_store):
    """URL of a store in a bucket."""
    url = f"s3://{s3_server.create_bucket('reach')}/s.zarr"
    lesionzarr.sync(sample_store, url, destination_options=s3_server.options)
    return url


@pytest.fixture
def silent():
    """URL of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def skewed(proxy):
    """URL of a server whose clock is hours from that of this machine."""
    proxy.faults = Faults(skewed=1)
    return proxy.endpoint


COMMANDS = {
    "convert": ["convert", "deeplesion", "{source}", "{url}", "--workers", "1"],
    "info": ["info", "{url}"],
    "verify": ["verify", "{url}"],
    "repair": ["repair", "{url}"],
    "index": ["index", "{url}"],
    "sync from": ["sync", "{url}", "{folder}"],
    "sync to": ["sync", "{store}", "{url}"],
}
WRITING = ("convert", "repair", "index", "sync to")


@pytest.fixture
def run(monkeypatch, capsys, sample, sample_store, tmp_path):
    """Run a command on a URL with storage options of the environment; give its exit code and lines on stderr."""

    def run(command, url, options):
        for name in os.environ.keys() - environment({}).keys():
            monkeypatch.delenv(name)
        monkeypatch.setenv(_options.VARIABLE, json.dumps(options))
        places = {"url": url, "source": sample, "store": sample_store, "folder": tmp_path / "copy.zarr"}
        capsys.readouterr()
        code = main([word.format(**places) for word in COMMANDS[command]])
        return code, capsys.readouterr().err.splitlines()

    return run


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"secret_access_key": "wrong"}, "the secret key is wrong"),
        ({"access_key_id": "12345"}, "the access key is not known"),
        # the patience with a service that has not answered yet would be five seconds
        ({"endpoint": "http://127.0.0.1:1", "patience_s": 0.2}, "the server cannot be reached"),
        ({"endpoint": "http://nowhere.invalid:1", "patience_s": 0.2}, "no such host, or no network"),
        ({"endpoint": "silent", "timeout_s": 0.2, "patience_s": 0.1}, "the server does not answer in time"),
        ({"endpoint": "skewed"}, "the clock of this machine is wrong"),
        ({"bucket": "absent"}, "no such bucket"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_bucket_that_cannot_be_used_is_one_clear_line(run, s3_server, published, request, command, fault, words):
    options = {**s3_server.options, **fault}
    if not options["endpoint"].startswith("http"):
        options["endpoint"] = request.getfixturevalue(options["endpoint"])
    url = f"s3://{options.pop('bucket', 'reach')}/s.zarr"
    began = time.monotonic()
    code, lines = run(command, url, options)
    assert time.monotonic() - began < 10
    assert (code, len(lines)) == (1, 1)
    assert words in lines[0]
    assert s3_server.options["secret_access_key"] not in lines[0]


@pytest.mark.parametrize("command", WRITING)
def test_a_bucket_that_cannot_be_written_is_told_before_anything_is_read(
    run, s3_server, published, proxy, monkeypatch, command
):
    proxy.reset_counts()
    code, lines = run(command, published, {**s3_server.reader_options, "endpoint": proxy.endpoint})
    assert (code, len(lines)) == (1, 1)
    assert "access denied; check the credentials and what they allow" in lines[0]
    # neither voxels nor the catalog
    assert not [request.path for request in proxy.log if "/c/" in request.path or "parquet" in request.path]
    assert run("verify", published, s3_server.reader_options)[0] == 0


def test_an_outage_in_the_midst_is_waited_for(s3_server, sample_store, published, proxy, bucket, tmp_path, monkeypatch):
    # a service that has not answered yet would be given up at once
    monkeypatch.setattr(_options, "FIRST_PATIENCE_S", 0.0)
    options = {**s3_server.options, "endpoint": proxy.endpoint, "retries": 0}

    def break_down(done, total):
        if not helper:
            proxy.reset_counts()
            proxy.faults = Faults(unavailable=1)
            helper.append(threading.Thread(target=recover))
            helper[0].start()

    def recover():
        deadline = time.monotonic() + DEADLINE_S
        while sum(bool(request.fault) for request in list(proxy.log)) < 2 and time.monotonic() < deadline:
            time.sleep(0.005)
        proxy.faults = Faults()

    works = (
        lambda: lesionzarr.verify(published, threads=1, storage_options=options, progress=break_down).issues,
        lambda: (
            lesionzarr.sync(
                published, tmp_path / "c.zarr", threads=1, storage_options=options, progress=break_down
            ).failed
        ),
        lambda: (
            lesionzarr.sync(
                sample_store, f"s3://{bucket}/c.zarr", threads=1, destination_options=options, progress=break_down
            ).failed
        ),
    )
    for work in works:
        helper = []
        assert work() == ()
        helper[0].join()


def test_a_place_that_has_answered_once_is_waited_for(s3_server, published, proxy, monkeypatch):
    monkeypatch.setattr(_options, "FIRST_PATIENCE_S", 0.0)
    far = Bucket(published, {**s3_server.options, "endpoint": proxy.endpoint})
    proxy.faults = Faults(unavailable=1)
    with pytest.raises(StoreError, match="503"):
        far.read("zarr.json")
    proxy.faults = Faults()
    assert far.read("zarr.json")
    proxy.faults = Faults(unavailable=0.5)
    for _ in range(5):
        assert far.read("zarr.json")
    assert [request.status for request in proxy.log].count(503) > 1


def test_a_listing_goes_on_where_it_broke_off(s3_server, bucket, proxy):
    keys = [f"many/{number:04}" for number in range(1100)]
    near = Bucket(f"s3://{bucket}/s.zarr", s3_server.options)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: near.write(key, b"1"), keys))
    far = Bucket(near.url, {**s3_server.options, "endpoint": proxy.endpoint})
    proxy.faults = Faults(truncated=0.5)
    for _ in range(3):
        assert [key for key, _ in far.walk("many")] == keys
        assert far.list_objects("many") == dict.fromkeys(keys, 1)
    assert {request.fault for request in proxy.log} == {"", "truncated"}
    # the second page is asked for behind the last object of the first, or by the token of the server
    assert any("start-after=" in request.path for request in proxy.log)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("secret_access_key=0123", "0123"),
        ("access_key_id=123456", "123456"),
        ("account_key=1e5", "1e5"),
        ("token=true", "true"),
        ("service_account_key={}", "{}"),
        ("anonymous=true", True),
        ("path_style=false", False),
        ("retries=3", 3),
        ("timeout_s=0.5", 0.5),
        ('client_options={"user_agent": "x"}', {"user_agent": "x"}),
        ("endpoint=http://host:1/a=b", "http://host:1/a=b"),
    ],
)
def test_what_a_service_takes_as_text_stays_text(text, value):
    assert parse_option(text) == (text.partition("=")[0], value)


def test_a_key_of_digits_reaches_the_server(published, s3_server, capsys):
    options = {**s3_server.options, "access_key_id": "12345", "secret_access_key": "007"}
    del options["client_options"]
    words = [f"--storage-option={name}={value}" for name, value in options.items()]
    assert main(["verify", published, *words]) == 1
    assert "the access key is not known" in capsys.readouterr().err
