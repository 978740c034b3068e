"""Several conversions at one destination: each volume is written by one of them, and the store is whole in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
from proxy import Faults
from turmoil import digests, digests_of_folder, start

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters import _work
from lesionzarr.errors import StoreError
from lesionzarr.samples import deeplesion
from lesionzarr.store import claims, layout
from lesionzarr.store._bucket import Bucket
from lesionzarr.store._folder import Folder
from lesionzarr.store._replace import replace_object
from lesionzarr.store.claims import Claims, Run
from lesionzarr.store.generations import read_generation
from lesionzarr.store.index import write_catalog
from lesionzarr.store.writer import read_attributes, update_volume

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 120

linux = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="only there is a process known for dead at once"
)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """A dataset that takes two conversions long enough to meet."""
    return deeplesion(tmp_path_factory.mktemp("many") / "DeepLesion", lesions=24, image_size=64, slices=6)


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    """Store of it, converted by one."""
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert not lesionzarr.convert("deeplesion", many, store).failed
    return store


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    """URL, storage options and location of an empty store."""
    if request.param == "folder":
        return str(tmp_path / "s.zarr"), None, Folder(tmp_path / "s.zarr")
    server, bucket = (request.getfixturevalue(name) for name in ("s3_server", "bucket"))
    return f"s3://{bucket}/s.zarr", server.options, Bucket(f"s3://{bucket}/s.zarr", server.options)


def content(location):
    return digests_of_folder(location.root) if isinstance(location, Folder) else digests(location)


def complete(store):
    return {path.parent.name for path in store.glob("volumes/*/zarr.json")}


def wait_until(holds):
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_of_many_that_create_an_object_one_does(place):
    _, _, location = place
    start_line = threading.Barrier(3)
    created = []

    def create(number):
        start_line.wait()
        created.append(location.create("a/b", b"%d" % number))

    threads = [threading.Thread(target=create, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False, False, True]


def test_an_object_whose_answer_was_lost_counts_as_created(s3_server, bucket, proxy):
    far = Bucket(f"s3://{bucket}/s.zarr", {**s3_server.options, "endpoint": proxy.endpoint})
    proxy.faults = Faults(lost=0.5)
    assert [far.create(f"{number}", b"mine") for number in range(8)] == [True] * 8
    assert {request.fault for request in proxy.log} == {"", "lost"}
    proxy.faults = Faults()
    assert not far.create("0", b"another's")


def test_a_volume_is_held_by_the_run_that_claimed_it_first(place):
    _, _, location = place
    first, second = Claims(location, "first"), Claims(location, "second")
    assert first.take("v") is None
    assert second.take("v") == "first"
    # a worker of the same run goes on where one was lost
    assert first.take("v") == "first"
    assert (first.is_held("v"), second.is_held("v")) == (True, False)
    second.drop("v")
    assert first.is_held("v")
    first.drop("v")
    assert second.take("v") is None


def test_of_two_that_find_a_run_dead_one_takes_its_volume_and_the_dead_one_knows(place):
    _, _, location = place
    gone, *heirs = (Claims(location, run, frozenset({"gone"})) for run in ("gone", "a", "b"))
    gone.take("v")
    assert [heir.take("v") for heir in heirs] == [None, "a"]
    assert [each.is_held("v") for each in (gone, *heirs)] == [False, True, False]


def test_a_run_is_dead_once_its_lease_stands_still_and_not_while_nobody_looked(tmp_path, monkeypatch):
    location = Folder(tmp_path)
    monkeypatch.setattr(claims, "LEASE_S", 0.2)
    monkeypatch.setattr(claims, "RENEWAL_S", 0.1)
    # of a machine that is not this one
    location.write(f"{claims.LEASE}far", b'{"renewals": 1, "machine": "another"}')
    with Run(location) as run:
        assert not run.is_dead("far")
        assert run.is_dead("nobody")
        looked = time.monotonic()
        wait_until(lambda: run.is_dead("far"))
        assert time.monotonic() - looked > claims.LEASE_S - claims.RENEWAL_S
        location.write(f"{claims.LEASE}far", b'{"renewals": 2, "machine": "another"}')
        assert not run.is_dead("far")


def test_leases_hold_no_time_of_day_and_no_name_of_a_machine(tmp_path):
    with Run(Folder(tmp_path)):
        (lease,) = (tmp_path / claims.CLAIMS).iterdir()
        assert set(json.loads(lease.read_text())) <= {"renewals", "machine", "process", "started"}
        assert os.uname().nodename not in lease.read_text()
    assert list(tmp_path.rglob("*.*")) == []


@linux
def test_the_claims_of_a_process_that_was_killed_here_are_free_at_once(tmp_path):
    location = Folder(tmp_path)
    code = (
        "import sys, time\nfrom lesionzarr.store.location import open_location\n"
        "from lesionzarr.store.claims import Run\n"
        "with Run(open_location(sys.argv[1])) as run:\n"
        "    run.claims().take('v')\n    print('ready', flush=True)\n    time.sleep(1000)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        with Run(location) as run:
            holder = run.claims().take("v")
            assert holder is not None
            assert not run.is_dead(holder)
            process.kill()
            process.wait()
            assert run.is_dead(holder)
            assert run.claims({holder}).take("v") is None
    assert location.list_objects(claims.CLAIMS) == {}


@pytest.mark.parametrize(("place", "workers"), [("folder", (1, 1)), ("bucket", (1, 2))], indirect=["place"])
def test_two_conversions_at_one_destination_write_each_volume_once(many, whole, place, workers):
    url, options, location = place
    both = [start(many, url, options or {}, "--workers", number) for number in workers]
    reports = []
    try:
        for process in both:
            out, errors = process.communicate(timeout=DEADLINE_S)
            assert process.returncode == 0, errors
            reports.append(json.loads(out))
    finally:
        for process in both:
            process.kill()
            process.wait()
    everything = {path.parent.name for path in whole.glob("volumes/*/zarr.json")}
    first, second = (set(report["converted"]) for report in reports)
    assert first | second == everything
    assert first & second == set()
    for report, others in zip(reports, (second, first), strict=True):
        assert set(report["skipped"]) == others
    assert content(location) == digests_of_folder(whole)


def test_two_conversions_meet_at_one_volume_and_one_waits_for_the_other(sample, sample_store, tmp_path, monkeypatch):
    store, location = tmp_path / "s.zarr", Folder(tmp_path / "s.zarr")
    monkeypatch.setattr(_work, "LOOK_S", 0.01)
    volume_ids = sorted(path.name for path in sample_store.glob("volumes/*/"))
    lesionzarr.convert("deeplesion", sample, store)
    location.delete_tree(layout.volume_key(volume_ids[0]))
    reports = []
    with Run(location) as run:
        assert run.claims().take(volume_ids[0]) is None
        waiting = threading.Thread(target=lambda: reports.append(lesionzarr.convert("deeplesion", sample, store)))
        waiting.start()
        # as the other conversion would: the arrays, and last the group
        source = Folder(sample_store)
        keys = source.list_objects(layout.volume_key(volume_ids[0]))
        wait_until(lambda: len(list((store / claims.CLAIMS).glob("_run-*"))) == 2)
        for key in sorted(keys, key=lambda key: key.count("/") == 2):
            assert waiting.is_alive()
            location.write(key, source.read(key))
        waiting.join(DEADLINE_S)
    assert reports[0].converted == ()
    assert set(reports[0].skipped) == set(volume_ids)
    assert reports[0].counts["volumes left to another conversion"] == 1
    assert content(location) == digests_of_folder(sample_store)


def test_a_volume_that_another_makes_with_other_settings_is_not_waited_for(sample, sample_store, tmp_path, monkeypatch):
    store, location = tmp_path / "s.zarr", Folder(tmp_path / "s.zarr")
    monkeypatch.setattr(_work, "LOOK_S", 0.01)
    converter, volume = _converted(sample)
    reports = []
    with Run(location) as run:
        assert run.claims().take(volume.volume_id) is None
        waiting = threading.Thread(
            target=lambda: reports.append(lesionzarr.convert("deeplesion", sample, store)), daemon=True
        )
        waiting.start()
        wait_until(lambda: len(complete(store)) == len(complete(sample_store)) - 1)
        assert waiting.is_alive()
        _work._write(_work.Task(converter, location, "dense"), volume)
        # the run that wrote it goes on, and keeps its claim
        waiting.join(DEADLINE_S)
        assert not waiting.is_alive()
    assert volume.volume_id in reports[0].skipped
    (issue,) = [issue for issue in reports[0].issues if issue.item == volume.volume_id]
    assert issue.kind == "another-conversion"
    assert "made by another conversion from other files or settings" in issue.message
    assert set(lesionzarr.open(store).volumes.index) == complete(sample_store)
    assert lesionzarr.convert("deeplesion", sample, store).converted == (volume.volume_id,)
    assert content(location) == digests_of_folder(sample_store)


def test_two_conversions_with_other_settings_wait_for_each_other_no_longer(many, whole, tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    monkeypatch.setattr(_work, "LOOK_S", 0.01)
    start_line, reports = threading.Barrier(2), {}

    def convert(profile):
        start_line.wait()
        reports[profile] = lesionzarr.convert("deeplesion", many, store, profile=profile)

    both = [threading.Thread(target=convert, args=(profile,), daemon=True) for profile in ("portable", "dense")]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(DEADLINE_S)
    assert not any(thread.is_alive() for thread in both)
    profiles = lesionzarr.open(store).volumes["profile"]
    assert set(profiles.index) == complete(whole)
    assert set(profiles) <= {"portable", "dense"}
    assert all(set(report.converted) | set(report.skipped) == complete(whole) for report in reports.values())
    assert lesionzarr.verify(store).issues == ()


def test_a_volume_that_the_other_gives_up_is_converted_here(sample, sample_store, tmp_path, monkeypatch):
    store, location = tmp_path / "s.zarr", Folder(tmp_path / "s.zarr")
    monkeypatch.setattr(_work, "LOOK_S", 0.01)
    volume_id = min(path.name for path in sample_store.glob("volumes/*/"))
    reports = []
    with Run(location) as run:
        assert run.claims().take(volume_id) is None
        waiting = threading.Thread(target=lambda: reports.append(lesionzarr.convert("deeplesion", sample, store)))
        waiting.start()
        wait_until(
            lambda: len(list(store.glob("volumes/*/zarr.json"))) == len(list(sample_store.glob("volumes/*/"))) - 1
        )
        run.drop(volume_id)
        waiting.join(DEADLINE_S)
    assert volume_id in reports[0].converted
    assert content(location) == digests_of_folder(sample_store)


def test_a_writer_that_lost_its_claim_commits_nothing_and_deletes_nothing(sample, sample_store, tmp_path):
    location = Folder(tmp_path / "s.zarr")
    lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr")
    converter, volume = _converted(sample)
    task = _work.Task(converter, location, "portable")
    late, heir = Claims(location, "late"), Claims(location, "heir", frozenset({"late"}))
    late.take(volume.volume_id)
    heir.take(volume.volume_id)
    before = content(location)
    outcome = _work._write(task, volume, lambda: late.is_held(volume.volume_id))
    assert outcome.by_another
    assert content(location) == before
    # had the heir not got so far, nothing would be there that the next conversion takes for a volume
    location.delete(f"{layout.volume_key(volume.volume_id)}/{layout.GROUP_FILE}")
    assert _work._write(task, volume, lambda: late.is_held(volume.volume_id)).by_another
    assert location.read(f"{layout.volume_key(volume.volume_id)}/{layout.GROUP_FILE}") is None
    assert not _work._write(task, volume, lambda: heir.is_held(volume.volume_id)).by_another
    assert lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr").converted == ()
    assert content(location) == digests_of_folder(sample_store)


@dataclass(frozen=True)
class Interrupted(Folder):
    """A folder in which another writer acts before an object of a name is written."""

    act: Callable[[], object]
    suffix: str

    def write(self, key, data):
        if key.endswith(self.suffix):
            self.act()
        super().write(key, data)


def _edited(sample, tmp_path):
    """A store, a converter whose table has another spacing for one of its volumes, and that volume."""
    converter, volume = _converted(sample)
    lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr")
    spacing = (9.0, *volume.grid.spacing_mm[1:])
    return converter, replace(volume, grid=replace(volume.grid, spacing_mm=spacing))


def test_an_update_does_not_bring_back_a_volume_that_another_began_to_rewrite(sample, tmp_path):
    _, volume = _edited(sample, tmp_path)
    location = Folder(tmp_path / "s.zarr")
    key = layout.volume_key(volume.volume_id)

    def begin():
        location.delete(f"{key}/{layout.GROUP_FILE}")
        location.delete(f"{key}/hu/c/0/0/0")

    assert not update_volume(Interrupted(location.root, begin, "/z/c/0"), volume)
    assert location.read(f"{key}/{layout.GROUP_FILE}") is None


def test_an_update_leaves_a_volume_that_another_run_has_and_comes_back_to_it(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(_work, "LOOK_S", 0.01)
    converter, volume = _edited(sample, tmp_path)
    location = Folder(tmp_path / "s.zarr")
    group = f"{layout.volume_key(volume.volume_id)}/{layout.GROUP_FILE}"
    before = location.read(group)
    task = _work.Task(converter, location, "portable", update=True)
    checksums = {volume.volume_id: read_attributes(location, volume.volume_id)[layout.CHECKSUM]}

    def update(run):
        work = partial(_work.update_volumes, task)
        outcomes.extend(_work.iter_outcomes(task, work, [volume], run, checksums))

    for another_writes in (False, True):
        outcomes = []
        location.write(group, before)
        with Run(location) as run, Run(location) as other:
            assert other.claims().take(volume.volume_id) is None
            (met,) = _work.update_volumes(task, [volume], run.claims())
            assert met.holder == other.claims().run
            assert location.read(group) == before
            waiting = threading.Thread(target=update, args=(run,), daemon=True)
            waiting.start()
            if another_writes:
                own = layout.seal({**json.loads(before)["attributes"]["lesionzarr"], "lesions": []})
                metadata = layout.group_metadata({"lesionzarr": own})
                location.write(group, json.dumps(metadata).encode())
            else:
                other.drop(volume.volume_id)
            waiting.join(DEADLINE_S)
            assert not waiting.is_alive()
        (outcome,) = outcomes
        assert (outcome.by_another, outcome.is_converted) == (another_writes, not another_writes)
        assert [issue.kind for issue in outcome.issues] == ["another-conversion"] * another_writes
    assert read_attributes(location, volume.volume_id)["lesions"] == []


def test_an_object_is_replaced_unless_another_was_quicker(place):
    _, _, location = place
    assert not replace_object(location, "a/b", b"old", b"new")
    assert location.read("a/b") is None
    location.write("a/b", b"old")
    assert replace_object(location, "a/b", b"old", b"new")
    assert not replace_object(location, "a/b", b"old", b"newer")
    assert location.read("a/b") == b"new"


def test_of_many_that_replace_an_object_in_a_bucket_one_does(s3_server, bucket):
    location = Bucket(f"s3://{bucket}/s.zarr", s3_server.options)
    location.write("a/b", b"old")
    start_line, replaced = threading.Barrier(3), []

    def rewrite(number):
        start_line.wait()
        replaced.append(replace_object(location, "a/b", b"old", b"%d" % number))

    threads = [threading.Thread(target=rewrite, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(replaced) == [False, False, True]


def test_an_object_whose_answer_was_lost_counts_as_replaced(s3_server, bucket, proxy):
    far = Bucket(f"s3://{bucket}/s.zarr", {**s3_server.options, "endpoint": proxy.endpoint})
    for number in range(8):
        far.write(f"{number}", b"old")
    proxy.faults = Faults(lost=0.3)
    assert [replace_object(far, f"{number}", b"old", b"new") for number in range(8)] == [True] * 8


def _converted(source):
    from lesionzarr.converters.deeplesion import DeepLesion

    converter = DeepLesion(source)
    return converter, converter.scan().volumes[0]


@linux
def test_another_conversion_goes_on_after_one_that_was_killed(many, whole, place):
    url, options, location = place
    process = start(many, url, options or {}, "--workers", 1)
    wait_until(lambda: any(key.endswith("/hu/zarr.json") for key in location.list_objects(layout.VOLUMES)))
    process.kill()
    process.communicate()
    assert location.list_objects(claims.CLAIMS)
    began = time.monotonic()
    report = lesionzarr.convert("deeplesion", many, url, storage_options=options)
    assert time.monotonic() - began < claims.LEASE_S
    assert not report.failed
    assert content(location) == digests_of_folder(whole)


@dataclass(frozen=True)
class Forgetful(Folder):
    """A place that lists one volume less than there are."""

    def list_folders(self, key):
        return super().list_folders(key)[1:]


def test_a_server_that_lists_less_than_was_written_is_told(sample, sample_store, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionzarr.converters._run.open_location", lambda path, _: Forgetful(path))
    with pytest.raises(
        StoreError, match=r"s\.zarr: the server lists less than was written; 1 of \d+ volumes"
    ) as caught:
        lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr")
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert main(["index", str(tmp_path / "s.zarr")]) == 0
    assert content(Folder(tmp_path / "s.zarr")) == digests_of_folder(sample_store)


def test_catalogs_written_at_the_same_time_tell_of_every_volume(whole, tmp_path):
    source, location = Folder(whole), Folder(tmp_path)
    keys = source.list_objects("")
    groups = sorted(key for key in keys if key.endswith(layout.GROUP_FILE) and key.count("/") == 2)
    for key in keys.keys() - set(groups):
        location.write(key, source.read(key))

    def commit_and_write(part):
        for key in part:
            location.write(key, source.read(key))
            write_catalog(location)

    threads = [threading.Thread(target=commit_and_write, args=(groups[number::3],)) for number in range(3)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        catalog = lesionzarr.open(tmp_path)
        assert set(catalog.lesions["volume_id"]) <= set(catalog.volumes.index)
    assert content(location) == digests_of_folder(whole)


def test_tables_that_do_not_belong_together_are_told_with_the_remedy(sample_store, whole, tmp_path, monkeypatch):
    monkeypatch.setattr("lesionzarr.store.tables.PAUSES_S", (0.001,))
    location = Folder(tmp_path)
    for key in Folder(whole).list_objects(""):
        location.write(key, Folder(whole).read(key))
    another = read_generation(Folder(sample_store)).tables[1]
    location.write(read_generation(location).tables[1], Folder(sample_store).read(another))
    with pytest.raises(StoreError, match="do not belong together; run `lesionzarr index`"):
        lesionzarr.open(tmp_path)
    assert main(["index", str(tmp_path)]) == 0
    assert content(location) == digests_of_folder(whole)
