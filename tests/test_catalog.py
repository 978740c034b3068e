"""The catalog is replaced at once: a store opens at any moment, whoever else writes one, and however they end."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest
import servers
from proxy import Faults
from servers import Static

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.samples import deeplesion
from lesionzarr.store import layout
from lesionzarr.store._bucket import Bucket
from lesionzarr.store._folder import Folder
from lesionzarr.store.generations import Pointer, publish, read_generation, read_pointer
from lesionzarr.store.index import VOLUMES, write_catalog
from lesionzarr.store.sync import copy_catalog
from lesionzarr.store.tables import read_table, write_frame

POINTER = layout.CATALOG_FILE
DEADLINE_S = 60


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Store of three volumes in a folder."""
    folder = tmp_path_factory.mktemp("few")
    source = deeplesion(folder / "DeepLesion", lesions=3, image_size=32, slices=3)
    assert not lesionzarr.convert("deeplesion", source, folder / "s.zarr").failed
    return folder / "s.zarr"


@pytest.fixture(params=["folder", "bucket"])
def place(request, few, tmp_path):
    """URL, storage options and location of a copy of the store."""
    if request.param == "folder":
        store = shutil.copytree(few, tmp_path / "s.zarr")
        return str(store), None, Folder(store)
    server, bucket = (request.getfixturevalue(name) for name in ("s3_server", "bucket"))
    there = Bucket(f"s3://{bucket}/s.zarr", server.options)
    for key in Folder(few).list_objects(""):
        there.write(key, Folder(few).read(key))
    return there.url, server.options, there


def groups(location):
    return [f"{layout.volume_key(name)}/{layout.GROUP_FILE}" for name in location.list_folders(layout.VOLUMES)]


def mark(location, key, value):
    """Change the lesions of a volume, so that the next catalog is another."""
    group = json.loads(location.read(key))
    own = group["attributes"]["lesionzarr"]
    own["lesions"][0]["type"] = value
    group["attributes"]["lesionzarr"] = layout.seal(own)
    location.write(key, json.dumps(group).encode())


def types(url, options=None):
    return {str(kind) for kind in lesionzarr.open(url, options).lesions["type"]}


def tables(location):
    return {key for key in location.list_objects(layout.CATALOG) if key.endswith(".parquet")}


def make_old(store):
    """Give a store the form of the first versions: tables under fixed names."""
    folder = Folder(store)
    for key, fixed in zip(read_generation(folder).tables, (layout.VOLUMES_TABLE, layout.LESIONS_TABLE), strict=True):
        folder.write(fixed, folder.read(key))
        folder.delete(key)
    for name in folder.list_folders(layout.CATALOG):
        folder.delete_tree(f"{layout.CATALOG}/{name}")
    folder.delete(POINTER)
    return store


class StoppedError(Exception):
    pass


class Stopping(Folder):
    """A folder whose writer is stopped before it changes an object for the `left`-th time."""

    left = 1000

    def _change(self):
        Stopping.left -= 1
        if not Stopping.left:
            raise StoppedError

    def write(self, key, data):
        self._change()
        super().write(key, data)

    def create(self, key, data):
        self._change()
        return super().create(key, data)

    def delete(self, key):
        self._change()
        super().delete(key)

    def delete_tree(self, key):
        self._change()
        super().delete_tree(key)


@pytest.mark.parametrize("old", [False, True], ids=["as it is now", "of the first versions"])
def test_a_store_opens_wherever_the_writer_of_its_catalog_was_stopped(few, tmp_path, old):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    if old:
        make_old(store)
    before, moment, seen = types(store), 0, []
    while not seen or seen[-1] == "stopped":
        moment += 1
        Stopping.left = moment
        mark(Folder(store), groups(Folder(store))[0], f"kind {moment}")
        try:
            write_catalog(Stopping(store))
            seen.append("ended")
        except StoppedError:
            seen.append("stopped")
        now = types(store)
        assert now == before or f"kind {moment}" in now
        before = now
    assert f"kind {moment}" in now
    # before each of two tables, of the object that names them, and of what is deleted
    assert seen.count("stopped") >= 3
    assert not lesionzarr.verify(store).issues


KILLED = """
import sys
from lesionzarr.store._folder import Folder
from test_catalog import groups, mark
from lesionzarr.store.index import write_catalog
location, number = Folder(__import__("pathlib").Path(sys.argv[1])), 0
while True:
    number += 1
    mark(location, groups(location)[0], f"kind {number}")
    write_catalog(location)
    print(number, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_store_opens_after_its_indexer_was_killed(few, tmp_path):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    path = os.pathsep.join([os.path.dirname(__file__), os.environ.get("PYTHONPATH", "")])  # noqa: PTH120
    command = [sys.executable, "-c", KILLED, str(store)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as process:
        for number in range(1, 11):
            assert int(process.stdout.readline()) == number
        for _ in range(20):
            assert any(kind.startswith("kind ") for kind in types(store))
        process.send_signal(signal.SIGKILL)
    assert any(kind.startswith("kind ") for kind in types(store))
    write_catalog(Folder(store))
    assert not lesionzarr.verify(store).issues


def test_the_tables_before_are_kept_and_older_ones_are_not(place):
    url, options, location = place
    first = tables(location)
    mark(location, groups(location)[0], "second")
    write_catalog(location)
    both = tables(location)
    assert (len(first), len(both)) == (2, 4)
    assert first < both
    mark(location, groups(location)[0], "third")
    write_catalog(location)
    assert len(tables(location)) == 4
    assert not tables(location) & first
    assert "third" in types(url, options)
    assert lesionzarr.verify(url, storage_options=options).leftovers == ()


def test_a_catalog_that_says_the_same_is_not_written_again(place):
    _, _, location = place
    before = read_pointer(location), location.list_objects(layout.CATALOG)
    write_catalog(location)
    assert (read_pointer(location), location.list_objects(layout.CATALOG)) == before


def test_of_two_that_publish_after_the_same_catalog_one_does(place):
    url, options, location = place
    before = read_pointer(location)
    old = [location.read(key) for key in read_generation(location).tables]
    assert publish(location, before, "a" * 64, old)
    assert not publish(location, before, "b" * 64, old)
    assert read_generation(location).checksum == "a" * 64
    lesionzarr.open(url, options)


def test_of_two_that_publish_the_first_catalog_one_does(place):
    _, _, location = place
    old = [location.read(key) for key in read_generation(location).tables]
    location.delete(POINTER)
    assert publish(location, Pointer(None), "a" * 64, old)
    assert not publish(location, Pointer(None), "b" * 64, old)
    assert read_generation(location).checksum == "a" * 64


def test_a_server_that_knows_no_conditions_gets_its_catalog(few, tmp_path):
    class Unconditional(Folder):
        """A place that refuses to create, as a server that answers 501."""

        def create(self, key, data):  # noqa: ARG002
            fault = StoreError("no such requests")
            fault.errno = errno.ENOTSUP
            raise fault

    store = shutil.copytree(few, tmp_path / "s.zarr")
    shutil.rmtree(store / layout.CATALOG)
    write_catalog(Unconditional(store))
    pd.testing.assert_frame_equal(lesionzarr.open(store).lesions, lesionzarr.open(few).lesions)


def test_a_catalog_whose_answer_was_lost_counts_as_published(few, s3_server, bucket, proxy):
    near = Bucket(f"s3://{bucket}/s.zarr", s3_server.options)
    far = Bucket(near.url, {**s3_server.options, "endpoint": proxy.endpoint})
    for key in Folder(few).list_objects(layout.CATALOG):
        near.write(key, Folder(few).read(key))
    old = [near.read(key) for key in read_generation(near).tables]
    proxy.faults = Faults(lost=0.5)
    for number in range(3):
        checksum = f"{number:064x}"
        assert publish(far, read_pointer(far), checksum, old)
        assert read_generation(near).checksum == checksum
    assert {request.fault for request in proxy.log} == {"", "lost"}


def test_who_was_overtaken_by_another_indexer_derives_anew(few, tmp_path):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    plain = Folder(store)
    first, second, _ = groups(plain)

    class Overtaken(Folder):
        """A folder in which another indexer ends as soon as this one has read the volumes."""

        done = False

        def list_folders(self, key):
            found = super().list_folders(key)
            if key == layout.VOLUMES and not Overtaken.done:
                Overtaken.done = True
                mark(plain, first, "other's")
                write_catalog(plain)
                mark(plain, second, "last")
            return found

    write_catalog(Overtaken(store))
    assert {"other's", "last"} <= types(store)
    assert read_generation(plain).revision == 3


def test_a_reader_whose_tables_are_deleted_before_it_reads_them_reads_the_new_ones(few, tmp_path):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    plain = Folder(store)
    from lesionzarr.store.catalog import _open

    class Slow(Folder):
        """A folder in which two catalogs are written before the first table is read."""

        done = False

        def read(self, key):
            if key.endswith(".parquet") and not Slow.done:
                Slow.done = True
                for number in range(2):
                    mark(plain, groups(plain)[0], f"kind {number}")
                    write_catalog(plain)
            return super().read(key)

    assert "kind 1" in {str(kind) for kind in _open(Slow(store)).lesions["type"]}


def test_a_store_of_the_first_versions_is_opened_verified_copied_and_indexed(few, tmp_path, capsys):
    store = make_old(shutil.copytree(few, tmp_path / "old.zarr"))
    assert tables(Folder(store)) == {layout.VOLUMES_TABLE, layout.LESIONS_TABLE}
    expected = lesionzarr.open(few)
    checked = lesionzarr.verify(store)
    assert (checked.issues, checked.leftovers) == ((), ())
    lesionzarr.sync(store, tmp_path / "copy.zarr")
    with Static(tmp_path) as host:
        url = f"{host.endpoint}/old.zarr"
        pd.testing.assert_frame_equal(lesionzarr.open(url).lesions, expected.lesions)
        assert lesionzarr.verify(url).issues == ()
        lesionzarr.sync(url, tmp_path / "fetched.zarr")
    for copy in ("old.zarr", "copy.zarr", "fetched.zarr"):
        pd.testing.assert_frame_equal(lesionzarr.open(tmp_path / copy).lesions, expected.lesions)
    assert main(["index", str(store)]) == 0
    pd.testing.assert_frame_equal(lesionzarr.open(store).volumes, expected.volumes)
    assert layout.VOLUMES_TABLE in tables(Folder(store))
    checked = lesionzarr.verify(store)
    assert (checked.issues, checked.leftovers) == ((), ())
    mark(Folder(store), groups(Folder(store))[0], "new")
    assert main(["index", str(store)]) == 0
    assert layout.VOLUMES_TABLE not in tables(Folder(store))
    assert "new" in types(store)


def test_a_store_of_the_first_versions_is_read_where_what_is_absent_is_forbidden(few, tmp_path):
    class Denying(servers._Handler):
        """As a bucket whose objects may be read, and not listed."""

        def _answer(self, status, *rest):
            super()._answer(403 if status == 404 else status, *rest)

    make_old(shutil.copytree(few, tmp_path / "old.zarr"))
    with Static(tmp_path) as host:
        host._server.RequestHandlerClass = Denying
        opened = lesionzarr.open(f"{host.endpoint}/old.zarr")
    pd.testing.assert_frame_equal(opened.lesions, lesionzarr.open(few).lesions)


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b'{"revision": "../..", "generation": "0"}',
        b'{"revision": -1, "generation": "aaaaaaaaaaaa"}',
    ],
)
def test_damage_of_what_names_the_tables_is_told_and_mended(few, tmp_path, damage):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    (store / POINTER).write_bytes(damage)
    with pytest.raises(IntegrityError, match=r"s\.zarr/catalog/tables\.json: damaged; run `lesionzarr index`"):
        lesionzarr.open(store)
    found = [(issue.kind, issue.file) for issue in lesionzarr.verify(store).issues]
    assert found == [("damaged-catalog", POINTER)]
    assert lesionzarr.repair(store).catalog
    assert lesionzarr.verify(store).issues == ()
    pd.testing.assert_frame_equal(lesionzarr.open(store).lesions, lesionzarr.open(few).lesions)


def test_a_lost_name_of_the_tables_is_told_once_and_the_tables_are_no_leftovers(few, tmp_path, capsys):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    mark(Folder(store), groups(Folder(store))[0], "new")
    write_catalog(Folder(store))
    (store / POINTER).unlink()
    checked = lesionzarr.verify(store)
    assert [(issue.kind, issue.file) for issue in checked.issues] == [("damaged-catalog", POINTER)]
    assert "s.zarr/catalog/tables.json: missing" in checked.issues[0].message
    assert checked.leftovers == ()
    assert main(["info", str(store)]) == 1
    assert "no catalog/tables.json" in capsys.readouterr().err


def test_after_a_lost_name_the_next_catalog_has_the_highest_number(few, tmp_path):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    for kind in ("second", "third"):
        mark(Folder(store), groups(Folder(store))[0], kind)
        write_catalog(Folder(store))
    before = tables(Folder(store))
    (store / POINTER).unlink()
    write_catalog(Folder(store))
    # it says the same
    assert (read_generation(Folder(store)).revision, tables(Folder(store))) == (3, before)
    (store / POINTER).unlink()
    mark(Folder(store), groups(Folder(store))[0], "fourth")
    write_catalog(Folder(store))
    assert read_generation(Folder(store)).revision == 4
    checked = lesionzarr.verify(store)
    assert (checked.issues, checked.leftovers) == ((), ())
    assert "fourth" in types(store)


def test_a_volume_that_another_conversion_ends_meanwhile_is_not_called_damaged(few, tmp_path):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    group = groups(Folder(store))[0]
    data = (store / group).read_bytes()
    (store / group).unlink()

    class Busy(Folder):
        """A folder in which the volume is there as soon as somebody has looked."""

        def read(self, key):
            found = super().read(key)
            if key == group:
                (store / group).write_bytes(data)
            return found

    assert write_catalog(Busy(store))[1] == []
    (store / group).write_bytes(b"{")
    assert [issue.kind for issue in write_catalog(Folder(store))[1]] == ["damaged-volume"]
    (store / group).write_bytes(b"")
    assert [issue.kind for issue in write_catalog(Folder(store))[1]] == ["damaged-volume"]


def test_a_table_that_is_lost_is_named_and_written_again_under_its_name(few, tmp_path):
    store = shutil.copytree(few, tmp_path / "s.zarr")
    key = read_generation(Folder(store)).tables[1]
    data = (store / key).read_bytes()
    (store / key).unlink()
    with pytest.raises(StoreError, match=rf"no {key}; .*`lesionzarr index`"):
        lesionzarr.open(store)
    write_catalog(Folder(store))
    assert (store / key).read_bytes() == data


def test_a_copy_keeps_its_catalog_until_it_has_the_new_one(few, tmp_path):
    store, copy = shutil.copytree(few, tmp_path / "s.zarr"), tmp_path / "copy.zarr"
    lesionzarr.sync(store, copy)
    mark(Folder(store), groups(Folder(store))[0], "new")
    write_catalog(Folder(store))
    names = set(Folder(store).list_folders(layout.VOLUMES))
    for moment in (1, 2, 3):
        Stopping.left = moment
        with pytest.raises(StoppedError):
            copy_catalog(Folder(store), Stopping(copy), read_pointer(Folder(store)), names)
        assert "new" not in types(copy)
    lesionzarr.sync(store, copy)
    assert "new" in types(copy)
    assert read_generation(Folder(copy)) == read_generation(Folder(store))


def test_the_metadata_of_arrays_takes_no_memory_for_each_row(few, tmp_path):
    location = Folder(few)
    rows = read_table(location, read_generation(location).tables[0], "volume_id").reset_index()
    many = pd.concat([rows] * 2000, ignore_index=True)
    Folder(tmp_path).write("many.parquet", write_frame(many, VOLUMES))
    read = read_table(Folder(tmp_path), "many.parquet", "volume_id")
    size = len(rows["array"][0])
    assert read["array"].memory_usage(index=False, deep=True) < len(many) * 4 + 100 * size < len(many) * size / 10
    # and it is written as what it is
    Folder(tmp_path).write("again.parquet", write_frame(read.reset_index(), VOLUMES))
    assert pq.read_schema(tmp_path / "again.parquet").equals(VOLUMES)
