"""Claims to volumes: no run loses one that it holds, whatever others do at the same moment, and whatever clocks say."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

import lesionzarr
from lesionzarr.converters import _work
from lesionzarr.errors import StoreError
from lesionzarr.store import claims, layout
from lesionzarr.store._bucket import Bucket
from lesionzarr.store._folder import Folder
from lesionzarr.store.claims import Claims, Run, check_writable

if TYPE_CHECKING:
    from collections.abc import Callable

DEADLINE_S = 60


@dataclass(frozen=True)
class Interrupted(Folder):
    """A folder in which something else happens before the operation of a number."""

    number: int
    act: Callable[[], object]
    begun: list[str] = field(default_factory=list)

    def _begin(self, verb):
        self.begun.append(verb)
        if len(self.begun) == self.number + 1:
            self.act()

    def read(self, key):
        self._begin("read")
        return super().read(key)

    def create(self, key, data):
        self._begin("create")
        return super().create(key, data)

    def delete(self, key):
        self._begin("delete")
        super().delete(key)

    def list_objects(self, key):
        self._begin("list")
        return super().list_objects(key)


def each_moment(tmp_path, interrupted, act, prepare):
    """Do one thing as often as it has operations, with another before each of them; give the folder after each time."""
    for number in range(100):
        location = Folder(tmp_path / str(number))
        prepare(location)
        busy = Interrupted(location.root, number, lambda location=location: act(location))
        interrupted(busy)
        if len(busy.begun) <= number:
            assert number > 3
            return
        yield location


def live(location, run):
    """Let a run of another machine live."""
    location.write(f"{claims.LEASE}{run}", b'{"renewals": 1, "machine": "another"}')


def end(location, run="ended"):
    """Do what a run does last."""
    last = Run(location)
    last._run = run
    last._release()


def left(location):
    return [key for key in location.list_objects(claims.CLAIMS) if not key.startswith(claims.LEASE)]


def test_a_claim_above_that_of_a_dead_run_is_seen_after_a_third_run_has_ended(tmp_path):
    location = Folder(tmp_path)
    assert Claims(location, "gone").take("v") is None
    heir = Claims(location, "heir", frozenset({"gone"}))
    live(location, "heir")
    assert heir.take("v") is None
    end(location, "third")
    assert heir.is_held("v")
    assert Claims(location, "fourth").take("v") == "heir"
    end(location, "heir")
    assert left(location) == []


def test_a_dead_run_is_inherited_whenever_another_deletes_its_claims(tmp_path):
    def prepare(location):
        Claims(location, "gone").take("v")
        live(location, "heir")

    def inherit(location):
        heir = Claims(location, "heir", frozenset({"gone"}))
        # where the one that deletes has taken the claim over, it is asked again until that one has ended
        taken.append(heir.take("v"))

    taken = []
    for location in each_moment(tmp_path, lambda busy: end(busy, "third"), inherit, prepare):
        heir = Claims(location, "heir", frozenset({"gone"}))
        holder = taken.pop()
        assert holder in {None, "third"}
        assert heir.is_held("v") == (holder is None)
        if holder is not None:
            assert heir.take("v") is None
        assert Claims(location, "fourth").take("v") == "heir"
        end(location, "heir")
        assert left(location) == []


def test_a_claim_is_seen_whenever_those_below_it_are_deleted_while_it_is_taken(tmp_path):
    def prepare(location):
        Claims(location, "gone").take("v")
        live(location, "heir")

    def inherit(busy):
        assert Claims(busy, "heir", frozenset({"gone"})).take("v") is None

    for location in each_moment(tmp_path, inherit, lambda location: end(location, "third"), prepare):
        assert Claims(location, "heir").is_held("v")
        assert Claims(location, "fourth").take("v") == "heir"
        end(location, "heir")
        assert left(location) == []


def test_a_run_that_was_thought_dead_leaves_the_claim_of_its_heir_in_sight_when_it_ends(tmp_path):
    def prepare(location):
        Claims(location, "slow").take("v")
        live(location, "heir")

    def inherit(location):
        assert Claims(location, "heir", frozenset({"slow"})).take("v") is None

    for location in each_moment(tmp_path, lambda busy: end(busy, "slow"), inherit, prepare):
        assert Claims(location, "heir").is_held("v")
        assert Claims(location, "fourth").take("v") == "heir"
        end(location, "heir")
        assert left(location) == []


def test_neither_the_time_of_a_lease_nor_a_clock_tells_whether_its_run_is_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "LEASE_S", 0.2)
    monkeypatch.setattr(claims, "RENEWAL_S", 0.1)
    location = Folder(tmp_path)
    looker = Run(location)
    for hours in (-24 * 365, 24 * 365):
        live(location, f"{hours}")
        stamp = time.time() + 3600 * hours
        os.utime(tmp_path / f"{claims.LEASE}{hours}", (stamp, stamp))
        assert not looker.is_dead(f"{hours}")
    deadline = time.monotonic() + DEADLINE_S
    while not all(looker.is_dead(f"{hours}") for hours in (-24 * 365, 24 * 365)):
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture(params=["ignored", "refused"])
def unconditional(request, s3_server, proxy):
    """URL and options of a store on a server that ignores, or does not know, conditional requests."""
    proxy.conditions = request.param
    # a request from which the condition is taken is no longer what was signed
    bucket = s3_server.create_bucket("open")
    options = {"endpoint": proxy.endpoint, "path_style": True, "anonymous": True, "region": "us-east-1"}
    return f"s3://{bucket}/{request.node.name}.zarr", options


def test_a_server_without_conditional_requests_is_noted_and_written_by_one(
    unconditional, sample, sample_store, proxy, monkeypatch
):
    url, options = unconditional
    report = lesionzarr.convert("deeplesion", sample, url, storage_options=options)
    assert [issue.kind for issue in report.issues] == ["not-exclusive"]
    assert "knows no conditional requests; one conversion at a time" in report.issues[0].message
    # asked once for each object, and not again where it said no
    asked = [request.path for request in proxy.log if request.fault in {"ignored", "unknown"}]
    assert len(asked) == len(set(asked)) > 0
    assert len(report.converted) == len(list(sample_store.glob("volumes/*/zarr.json")))
    assert lesionzarr.verify(url, storage_options=options).issues == ()
    monkeypatch.setattr(claims, "RENEWAL_S", 0.05)
    monkeypatch.setattr(claims, "LOOK_S", 0.01)
    location = Bucket(url, options)
    with Run(location):
        for write in (lesionzarr.convert, lambda _, source, store, **rest: lesionzarr.repair(store, source, **rest)):
            with pytest.raises(StoreError, match=r"another run writes there.*; run the same again once") as caught:
                write("deeplesion", sample, url, storage_options=options)
            assert "\n" not in str(caught.value)
        # of those that gave up nothing is left
        assert len(location.list_objects(claims.CLAIMS)) == 1
    assert location.list_objects(claims.CLAIMS) == {}


def test_a_dead_run_does_not_keep_others_from_a_server_without_conditional_requests(unconditional, monkeypatch):
    location = Bucket(*unconditional)
    monkeypatch.setattr(claims, "LEASE_S", 0.1)
    monkeypatch.setattr(claims, "LOOK_S", 0.01)
    live(location, "far")
    with Run(location) as run:
        assert not run.exclusive
        assert run.claims() is None
    assert location.list_objects(claims.CLAIMS) == {}


def test_a_store_that_can_be_written_is_left_as_it_was(tmp_path):
    check_writable(Folder(tmp_path))
    assert [*tmp_path.iterdir()] == []


def test_no_empty_folder_stays_behind_a_run_and_no_lease_is_deleted_with_it(tmp_path):
    location = Folder(tmp_path)
    with Run(location):
        with Run(location):
            pass
        assert len([*(tmp_path / claims.CLAIMS).iterdir()]) == 1
    assert [*tmp_path.iterdir()] == []


def test_a_run_begins_while_others_delete_the_folder_of_the_claims(tmp_path):
    location, ended, written = Folder(tmp_path), threading.Event(), []

    def write():
        for number in range(300):
            location.write(f"{claims.CLAIMS}/{number}", b"")
            location.delete(f"{claims.CLAIMS}/{number}")
            written.append(number)

    def delete():
        while not ended.is_set():
            claims._delete_empty(location)

    deleting, writing = threading.Thread(target=delete), threading.Thread(target=write)
    deleting.start()
    writing.start()
    writing.join()
    ended.set()
    deleting.join()
    assert len(written) == 300


@pytest.fixture
def damaged(sample, sample_store, tmp_path, monkeypatch):
    """A store of which two volumes are damaged, one of them so that its attributes are right."""
    location = Folder(tmp_path / "deeplesion.zarr")
    for key in Folder(sample_store).list_objects(""):
        location.write(key, Folder(sample_store).read(key))
    volume_ids = location.list_folders(layout.VOLUMES)[:2]
    for volume_id, key in zip(volume_ids, ("hu/c/0/0/0", "zarr.json"), strict=True):
        location.write(f"{layout.volume_key(volume_id)}/{key}", b"damaged")
    monkeypatch.setattr(_work, "LOOK_S", 0.01)
    return location, tuple(volume_ids)


def content(location):
    keys = (key for key in location.list_objects("") if key not in {layout.REPORT, layout.GROUP_FILE})
    return {key: location.read(key) for key in keys}


def test_two_repairs_at_once_write_each_volume_once(damaged, sample, sample_store):
    location, volume_ids = damaged
    start_line, done = threading.Barrier(2), []
    found = lesionzarr.verify(location.root)

    def repair():
        start_line.wait()
        done.append(lesionzarr.repair(location.root, sample, verification=found))

    threads = [threading.Thread(target=repair) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert sorted(done[0].rewritten + done[1].rewritten) == list(volume_ids)
    assert all(sorted(one.rewritten + one.by_others) == list(volume_ids) and not one.remaining for one in done)
    assert content(location) == content(Folder(sample_store))


@pytest.mark.parametrize("mended", [True, False])
def test_a_repair_waits_for_another_run_that_is_at_a_volume(damaged, sample, sample_store, mended):
    location, volume_ids = damaged
    done = []
    with Run(location) as run:
        assert run.claims().take(volume_ids[0]) is None
        waiting = threading.Thread(target=lambda: done.append(lesionzarr.repair(location.root, sample)))
        waiting.start()
        deadline = time.monotonic() + DEADLINE_S
        group = f"{layout.volume_key(volume_ids[1])}/{layout.GROUP_FILE}"
        while location.read(group) != Folder(sample_store).read(group):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        key = f"{layout.volume_key(volume_ids[0])}/hu/c/0/0/0"
        assert location.read(key) == b"damaged"
        if mended:
            location.write(key, Folder(sample_store).read(key))
        run.drop(volume_ids[0])
        waiting.join(DEADLINE_S)
    assert done[0].rewritten == (volume_ids[1:] if mended else volume_ids)
    assert done[0].by_others == (volume_ids[:1] if mended else ())
    assert done[0].remaining == ()
    assert content(location) == content(Folder(sample_store))
