"""URLs of stores and sources: what ends them is refused, and what is secret in them is told to nobody."""

from __future__ import annotations

import base64
import json
import pickle
import shutil
import threading
import zipfile
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import obstore
import pandas as pd
import pytest
from obstore.store import S3Store

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters._run import source_path
from lesionzarr.errors import LesionzarrError, SettingError, SourceError, UnreachableError
from lesionzarr.samples import lung_pet_ct_dx
from lesionzarr.store._options import VARIABLE, obstore_arguments
from lesionzarr.store.location import open_location, shown

SECRET = "s3cr3t/+="  # noqa: S105 - of these tests
QUICK = {"retries": 0, "patience_s": 0.5, "timeout_s": 2, "connect_timeout_s": 1}


class Guarded(BaseHTTPRequestHandler):
    """Gives the files of a folder to those who have the password, or the signature in the query, and only by GET."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server, url = self.server, urlsplit(self.path)
        basic = "Basic " + base64.b64encode(f"user:{SECRET}".encode()).decode()
        server.asked.append((self.command, url.path, url.query))
        path = server.folder / unquote(url.path).lstrip("/")
        if self.headers.get("Authorization") != basic and parse_qs(url.query).get("sig") != [SECRET]:
            self.answer(403, b"no")
        elif self.command == "HEAD" and url.query:
            self.answer(403, b"")
        elif not path.is_file():
            self.answer(404, b"")
        else:
            data, status, more = path.read_bytes(), 200, {}
            if wanted := self.headers.get("Range"):
                first, last = wanted.removeprefix("bytes=").split("-")
                last = min(int(last), len(data) - 1)
                more = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
                data, status = data[int(first) : last + 1], 206
            self.answer(status, data, more)

    do_HEAD = do_GET  # noqa: N815 - named by the base class

    def answer(self, status, data, more=None):
        self.send_response(status)
        fields = {"Content-Length": str(len(data)), "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT", **(more or {})}
        for name, value in fields.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        """Keep the tests' stderr to the tests."""


@contextmanager
def guarding(folder):
    """Serve a folder, and log what was asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        server.folder, server.asked, server.daemon_threads = folder, [], True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield server, f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def zipped(tmp_path_factory):
    """A dataset in one zip, and the store that it becomes."""
    folder = tmp_path_factory.mktemp("zipped")
    source = lung_pet_ct_dx(folder / "source", subjects=1)
    with zipfile.ZipFile(folder / "all data.zip", "w") as archive:
        for path in sorted(source.rglob("*.dcm")):
            archive.write(path, path.relative_to(source).as_posix())
    report = lesionzarr.convert("lung-pet-ct-dx", folder / "all data.zip", folder / "s.zarr")
    assert report.converted
    return folder


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("s3://bucket/a#b.zarr", r"^s3://bucket/a: a # in the URL"),
        ("https://host/a.zarr#top", r"^https://host/a\.zarr: a # in the URL"),
        ("s3://bucket/a?versionId=1", r"^s3://bucket/a: a \? in the URL"),
        ("gs://bucket/a?b", r"^gs://bucket/a: a \? in the URL"),
        (f"az://c/a?sig={SECRET}", r"^az://c/a: a \? in the URL"),
        (f"https://host/a.zarr?X-Amz-Signature={SECRET}", r"^https://host/a\.zarr: a query"),
        (f"s3://user:{SECRET}@bucket/a", r"^s3://bucket/a: credentials in the URL; give them as storage options"),
    ],
)
def test_what_ends_a_url_is_refused_in_one_line_without_what_is_secret(url, fault, sample, tmp_path, capsys):
    for call in (
        lambda: lesionzarr.open(url),
        lambda: lesionzarr.convert("deeplesion", sample, url),
        lambda: lesionzarr.verify(url),
        lambda: lesionzarr.sync(tmp_path, url),
    ):
        with pytest.raises(SettingError, match=fault) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert SECRET not in str(caught.value)
    assert main(["info", url]) == 2
    assert SECRET not in capsys.readouterr().err


def test_a_source_with_a_fragment_is_refused_too(tmp_path):
    with pytest.raises(SettingError, match="a # in the URL"):
        lesionzarr.convert("deeplesion", "s3://bucket/Deep#Lesion", tmp_path / "s.zarr")


def test_a_hash_and_a_question_mark_that_are_written_out_are_part_of_the_name(sample_store, s3_server, bucket):
    url = f"s3://{bucket}/a%23b%3Fc.zarr"
    lesionzarr.sync(sample_store, url, destination_options=s3_server.options)
    store = S3Store(bucket, **s3_server.options)
    assert {item["path"].split("/")[0] for page in store.list() for item in page} == {"a#b?c.zarr"}
    assert len(lesionzarr.open(url, s3_server.options)) == len(lesionzarr.open(sample_store))


def test_paths_may_have_any_sign(sample_store, tmp_path):
    store = shutil.copytree(sample_store, tmp_path / "a#b?c@d.zarr")
    assert len(lesionzarr.open(store)) > 0
    assert shown(store) == str(store)


def test_a_password_in_the_url_of_a_web_server_opens_the_store_and_is_told_to_nobody(sample_store, capsys):
    with guarding(sample_store.parent) as (_, host):
        url = f"http://user:{SECRET.replace('/', '%2F')}@{host}/{sample_store.name}"
        catalog = lesionzarr.open(url)
        pd.testing.assert_frame_equal(catalog.lesions, lesionzarr.open(sample_store).lesions)
        location = catalog.location
        for text in (repr(catalog), repr(location), location.name, location.url, shown(url)):
            assert "s3cr3t" not in text
            assert "user" not in text
        assert len(pickle.loads(pickle.dumps(catalog))) == len(catalog)  # noqa: S301 - as workers get it
        assert main(["info", url, "--json"]) == 0
        assert "s3cr3t" not in capsys.readouterr().out
        with pytest.raises(LesionzarrError, match="access denied") as caught:
            lesionzarr.open(url.replace("s3cr3t", "wr0ng"), QUICK)
    for told in (str(caught.value), str(caught.value.__cause__)):
        assert "wr0ng" not in told
    with pytest.raises(LesionzarrError, match="cannot be reached") as caught:
        lesionzarr.open(url, QUICK)
    assert "s3cr3t" not in str(caught.value)


def test_a_zip_behind_a_signed_url_is_converted_by_get_alone_and_its_signature_stays_secret(zipped, tmp_path):
    store = tmp_path / "s.zarr"
    with guarding(zipped) as (server, host):
        url = f"http://{host}/all%20data.zip?sig={SECRET.replace('+', '%2B')}&x=a/b.c"
        place = source_path({}, url)
        assert (place.is_zip, place.name, str(place)) == (True, "all data.zip", f"http://{host}/all data.zip")
        assert SECRET not in repr(place)
        report = lesionzarr.convert("lung-pet-ct-dx", url, store)
        assert {method for method, _, _ in server.asked} == {"GET"}
        again = lesionzarr.convert("lung-pet-ct-dx", url, store)
    assert not report.failed
    assert again.converted == ()
    ours, theirs = lesionzarr.open(store), lesionzarr.open(zipped / "s.zarr")
    pd.testing.assert_frame_equal(ours.lesions, theirs.lesions)
    assert ours.volumes["voxels"].tolist() == theirs.volumes["voxels"].tolist()
    for path in store.rglob("*"):
        if path.is_file():
            assert b"s3cr3t" not in path.read_bytes()


@pytest.mark.parametrize("what", ["expired", "gone", "absent"])
def test_a_signed_url_that_gives_nothing_is_one_clear_line_without_its_signature(what, zipped, tmp_path):
    with guarding(zipped) as (_, host):
        secret = "0ld" if what == "expired" else "s3cr3t%2F%2B="
        name = "no.zip" if what == "absent" else "all%20data.zip"
        url = f"http://{'127.0.0.1:9' if what == 'gone' else host}/{name}?sig={secret}"
        with pytest.raises((SourceError, UnreachableError)) as caught:
            lesionzarr.convert("lung-pet-ct-dx", url, tmp_path / "s.zarr", source_options=QUICK)
    assert "\n" not in str(caught.value)
    known = {"expired": "access denied", "gone": "the server cannot be reached", "absent": "no.zip"}
    assert known[what] in str(caught.value)
    fault = caught.value
    while fault is not None:
        assert "0ld" not in str(fault)
        assert "s3cr3t" not in str(fault)
        fault = fault.__cause__


def test_a_zip_behind_a_url_that_a_bucket_has_signed_is_converted(zipped, s3_server, bucket, tmp_path):
    store = S3Store(bucket, **s3_server.options)
    store.put("some/all data.zip", zipped / "all data.zip")
    url = obstore.sign(store, "GET", "some/all data.zip", timedelta(minutes=10))
    report = lesionzarr.convert("lung-pet-ct-dx", url, tmp_path / "s.zarr")
    assert report.converted
    voxels = [lesionzarr.open(path).volumes["voxels"].tolist() for path in (tmp_path / "s.zarr", zipped / "s.zarr")]
    assert voxels[0] == voxels[1]
    assert "Signature" not in (tmp_path / "s.zarr/catalog/report.json").read_text()


def test_signed_urls_of_the_great_clouds_are_asked_as_they_are():
    for host in ("bucket.s3.eu-west-1.amazonaws.com", "acc.blob.core.windows.net/cont", "storage.googleapis.com/b"):
        place = source_path(QUICK, f"https://{host}/a.zip?X-Amz-Signature={SECRET}")
        assert place.is_zip
        assert str(place) == f"https://{host}/a.zip"
        asked = []
        place.objects.bucket.ask("", asked.append)
        assert asked


def test_options_of_the_line_reach_web_servers_from_the_environment(monkeypatch):
    common = {"timeout_s": 7, "region": "x", "client_options": {"user_agent": "me"}, "access_key_id": "a"}
    monkeypatch.setenv(VARIABLE, json.dumps(common))
    location = open_location("https://host/a.zarr", {"retries": 3})
    assert location.merged == {"timeout_s": 7, "client_options": {"user_agent": "me"}, "retries": 3}
    arguments = obstore_arguments("https", location.merged)
    assert arguments["client_options"]["read_timeout"] == timedelta(seconds=7)
    assert arguments["client_options"]["user_agent"] == "me"
    assert open_location("s3://b/a").merged == common


def test_secrets_of_the_environment_stay_in_it(monkeypatch):
    common = {"region": "us-east-1", "access_key_id": "mykey", "client_options": {"user_agent": "lab"}}
    monkeypatch.setenv("LESIONZARR_STORAGE_OPTIONS", json.dumps({**common, "secret_access_key": "hidden"}))
    there = pickle.dumps(open_location("s3://lab/a.zarr", {"client_options": {"allow_http": False}}))
    assert b"hidden" not in there
    assert b"mykey" not in there
    # a worker has its own
    monkeypatch.setenv("LESIONZARR_STORAGE_OPTIONS", json.dumps({**common, "secret_access_key": "its own"}))
    merged = pickle.loads(there).merged  # noqa: S301 - made above
    client = {"user_agent": "lab", "allow_http": False}
    assert merged == {**common, "secret_access_key": "its own", "client_options": client}
    # what a call gives goes with it
    assert b"given" in pickle.dumps(open_location("s3://lab/a.zarr", {"secret_access_key": "given"}))


@pytest.mark.parametrize("value", ["no", "False", 0, 1])
def test_a_flag_that_is_neither_true_nor_false_is_told(value):
    with pytest.raises(SettingError, match=r"path_style=.*: true or false is needed"):
        obstore_arguments("s3", {"path_style": value})


def test_numbers_of_json_reach_obstore_as_text():
    assert obstore_arguments("s3", {"access_key_id": 12345})["access_key_id"] == "12345"


def test_storage_options_that_would_be_lost_are_told(tmp_path, capsys):
    command = ["convert", "deeplesion", "s3://lab/source", str(tmp_path / "s.zarr"), "--storage-option", "region=x"]
    assert main(command) == 2
    assert "which is a folder" in capsys.readouterr().err
