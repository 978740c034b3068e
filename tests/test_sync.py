"""Copies of stores: whole, resumed, verified, and nothing lost on the way."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from proxy import Faults
from servers import Static

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.errors import NotFoundError, SettingError, StoreError
from lesionzarr.samples import deeplesion
from lesionzarr.store import layout
from lesionzarr.store._folder import Folder
from lesionzarr.store.location import open_location
from lesionzarr.store.sync import _Copier

COMMAND = "import sys; from lesionzarr.cli import main; sys.exit(main())"
DEADLINE_S = 60


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Folder of a synthetic dataset of six volumes, which are copied and read for each test."""
    return deeplesion(tmp_path_factory.mktemp("small") / "DeepLesion", lesions=6, image_size=64)


@pytest.fixture(scope="module")
def sample_store(sample, tmp_path_factory):
    """Store of it."""
    path = tmp_path_factory.mktemp("small_store") / "deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", sample, path).failed
    return path


@pytest.fixture
def store(sample_store, tmp_path):
    """A copy of the synthetic store, to be changed."""
    return shutil.copytree(sample_store, tmp_path / "source/deeplesion.zarr")


@pytest.fixture
def there(tmp_path):
    """Where a copy is to be."""
    return tmp_path / "copy.zarr"


def ids(store):
    return sorted(path.parent.name for path in store.glob("volumes/*/zarr.json"))


def contents(store):
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in store.rglob("*") if path.is_file()}


def stamps(store):
    return {
        path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in store.glob("volumes/*/**/*") if path.is_file()
    }


def bucket_contents(location):
    return {key: location.read(key) for key in location.list_objects("")}


def flip(path, at=800):
    data = bytearray(path.read_bytes())
    data[at // 8] ^= 1 << at % 8
    path.write_bytes(data)


def test_a_copy_holds_the_same_bytes_and_is_verified_clean(store, there):
    done = lesionzarr.sync(store, there)
    assert done.copied == tuple(ids(store))
    assert contents(there) == contents(store)
    assert done.counts["bytes copied"] == sum(p.stat().st_size for p in store.glob("volumes/*/**/*") if p.is_file())
    assert lesionzarr.verify(there).issues == ()


def test_a_second_copy_writes_no_volume(store, there):
    lesionzarr.sync(store, there)
    before = stamps(there)
    done = lesionzarr.sync(store, there)
    assert (done.copied, done.skipped) == ((), tuple(ids(store)))
    assert done.counts["objects copied"] == 0
    assert stamps(there) == before


def test_the_group_of_a_volume_comes_after_its_objects_and_the_catalog_last(store, there):
    lesionzarr.sync(store, there, threads=1)
    for group in there.glob("volumes/*/zarr.json"):
        others = [path for path in group.parent.rglob("*") if path.is_file() and path != group]
        assert max(path.stat().st_mtime_ns for path in others) <= group.stat().st_mtime_ns
    groups = [path.stat().st_mtime_ns for path in there.glob("volumes/*/zarr.json")]
    tables = [path.stat().st_mtime_ns for path in there.glob("catalog/*/*.parquet")]
    assert max(groups) <= min(tables) <= max(tables) <= (there / layout.CATALOG_FILE).stat().st_mtime_ns


def test_a_copy_that_was_stopped_goes_on(store, there):
    class StoppedError(Exception):
        pass

    def stop(done, total):
        if 0 < done < total:
            raise StoppedError

    with pytest.raises(StoppedError):
        lesionzarr.sync(store, there, threads=1, progress=stop)
    done = set(ids(there))
    assert 0 < len(done) < len(ids(store))
    assert not (there / layout.CATALOG_FILE).exists()
    before = {path: stamp for path, stamp in stamps(there).items() if path.relative_to(there).parts[1] in done}
    # half of a volume, as a kill leaves it
    half = min(set(ids(store)) - done)
    (there / "volumes" / half / "hu/c/0/0").mkdir(parents=True, exist_ok=True)
    (there / "volumes" / half / "hu/c/0/0/0").write_bytes(b"half")
    again = lesionzarr.sync(store, there)
    assert set(again.skipped) == done
    assert contents(there) == contents(store)
    assert {path: stamp for path, stamp in stamps(there).items() if path in before} == before


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_copy_that_is_killed_leaves_whole_volumes_and_goes_on(store, there):
    command = [sys.executable, "-c", COMMAND, "sync", str(store), str(there), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + DEADLINE_S
        while len(ids(there)) < 2 and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.0005)
        process.send_signal(signal.SIGKILL)
    whole = ids(there)
    for volume_id in whole:
        assert contents(there / "volumes" / volume_id) == contents(store / "volumes" / volume_id)
    assert set(whole) <= set(lesionzarr.sync(store, there).skipped)
    assert {name: data for name, data in contents(there).items() if not name.endswith(".part")} == contents(store)


def test_what_changed_is_copied_and_the_rest_is_not(sample, tmp_path, there):
    source, store = shutil.copytree(sample, tmp_path / "DeepLesion"), tmp_path / "s.zarr"
    lesionzarr.convert("deeplesion", source, store)
    lesionzarr.sync(store, there)
    before = stamps(there)
    rows = (source / "DL_info.csv").read_text().splitlines()
    cells = rows[1].split(",")
    cells[-2] = "99"
    (source / "DL_info.csv").write_text("\n".join([rows[0], ",".join(cells), *rows[2:]]))
    slices = DeepLesion(source).scan().volumes[-1].files
    shutil.copy(source / "Images_png" / slices[1].name, source / "Images_png" / slices[0].name)
    report = lesionzarr.convert("deeplesion", source, store)
    done = lesionzarr.sync(store, there)
    assert set(done.copied) == {*report.updated, *report.converted}
    assert len(done.copied) == 2
    assert contents(there) == contents(store)
    changed = {
        path.relative_to(there / "volumes").as_posix() for path, stamp in stamps(there).items() if before[path] != stamp
    }
    # its voxels are those that were there
    assert f"{report.updated[0]}/hu/c/0/0/0" not in changed
    assert f"{report.updated[0]}/zarr.json" in changed
    assert f"{report.converted[0]}/hu/c/0/0/0" in changed
    assert {name.split("/")[0] for name in changed} == set(done.copied)


def test_a_copy_that_is_damaged_is_mended(store, there):
    lesionzarr.sync(store, there)
    first, second, third = (there / "volumes" / name for name in ids(store)[:3])
    (first / "hu/c/0/0/0").unlink()
    (second / "zarr.json").write_text("{")
    (third / "y/c/0").write_bytes(b"short")
    (third / "hu/c/7").mkdir()
    done = lesionzarr.sync(store, there)
    assert done.copied == (first.name, second.name, third.name)
    assert contents(there) == contents(store)


def test_a_flipped_bit_of_a_copy_is_found_when_it_is_verified(store, there):
    lesionzarr.sync(store, there)
    flip(there / "volumes" / ids(store)[1] / "hu/c/0/0/0")
    assert lesionzarr.sync(store, there).copied == ()
    assert lesionzarr.sync(store, there, verify=True).copied == (ids(store)[1],)
    assert contents(there) == contents(store)


@pytest.mark.parametrize("verify", [False, True])
def test_a_damaged_volume_is_not_copied_and_costs_the_others_nothing(store, there, verify):
    lesionzarr.sync(store, there)
    first, second, third = ids(store)[:3]
    for volume_id in (first, second):
        shutil.rmtree(there / "volumes" / volume_id)
    flip(store / "volumes" / first / "hu/c/0/0/0")
    (store / "volumes" / second / "x/c/0").unlink()
    flip(store / "volumes" / third / "hu/c/0/0/0")
    done = lesionzarr.sync(store, there, verify=verify)
    told = {issue.item: issue.message for issue in done.failed}
    assert set(told) == ({first, second, third} if verify else {first, second})
    assert f"volumes/{first}/hu/c/0/0/0: the checksum is wrong" in told[first]
    assert f"volumes/{second}/x/c/0: missing" in told[second]
    assert all("lesionzarr repair" in text for text in told.values())
    # what was there stays as it was, though the store is damaged now, and the catalog tells what is there
    assert ids(there) == ids(store)[2:]
    assert lesionzarr.verify(there).issues == ()


def test_volumes_that_the_store_no_longer_has_are_kept_unless_they_are_to_go(store, there):
    lesionzarr.sync(store, there)
    gone = ids(store)[0]
    shutil.rmtree(store / "volumes" / gone)
    main(["index", str(store)])
    done = lesionzarr.sync(store, there)
    assert (done.kept, done.deleted) == ((gone,), ())
    assert lesionzarr.verify(there).issues == ()
    assert gone in lesionzarr.open(there).volumes.index
    done = lesionzarr.sync(store, there, delete=True)
    assert (done.kept, done.deleted) == ((), (gone,))
    assert contents(there) == contents(store)


def test_a_volume_that_comes_while_a_store_is_copied_is_not_in_the_catalog_of_the_copy(store, there, tmp_path):
    late = ids(store)[0]
    shutil.move(store / "volumes" / late, tmp_path / "late")
    main(["index", str(store)])

    def add(*_):
        if (tmp_path / "late").exists():
            shutil.move(tmp_path / "late", store / "volumes" / late)
            main(["index", str(store)])

    lesionzarr.sync(store, there, progress=add)
    assert lesionzarr.verify(there).issues == ()
    assert late not in lesionzarr.open(there).volumes.index
    lesionzarr.sync(store, there)
    assert lesionzarr.verify(there).issues == ()
    assert late in lesionzarr.open(there).volumes.index


def test_a_catalog_of_other_volumes_than_the_store_has_is_not_copied(store, there, tmp_path):
    name = ids(store)[0]
    shutil.move(store / "volumes" / name, tmp_path / "aside")
    lesionzarr.sync(store, there)
    assert lesionzarr.verify(there).issues == ()
    # and one of fewer
    main(["index", str(store)])
    shutil.move(tmp_path / "aside", store / "volumes" / name)
    lesionzarr.sync(store, there)
    assert lesionzarr.verify(there).issues == ()


def test_deleted_volumes_are_not_in_a_catalog_that_is_derived(store, there):
    lesionzarr.sync(store, there)
    gone, damaged = ids(store)[:2]
    shutil.rmtree(store / "volumes" / gone)
    main(["index", str(store)])
    (store / "volumes" / damaged / "zarr.json").write_text("{")
    done = lesionzarr.sync(store, there, delete=True)
    assert (done.deleted, [issue.item for issue in done.failed]) == ((gone,), [damaged])
    assert lesionzarr.verify(there).issues == ()


def test_a_web_server_is_no_destination(store, tmp_path):
    with Static(tmp_path) as host, pytest.raises(StoreError, match="a web server is for reading"):
        lesionzarr.sync(store, f"{host.endpoint}/copy.zarr")


def test_what_is_half_written_is_not_copied(store, there):
    half = store / "volumes" / ids(store)[0]
    (half / "zarr.json").unlink()
    main(["index", str(store)])
    (store / "volumes" / ids(store)[1] / "hu/.c.part").write_text("half")
    assert lesionzarr.sync(store, there).counts["volumes half written"] == 1
    assert not (there / "volumes" / half.name).exists()
    assert not list(there.rglob("*.part"))
    assert lesionzarr.verify(there).issues == ()


def test_another_store_at_the_destination_is_refused(store, sample, there, tmp_path):
    lesionzarr.convert("deeplesion", sample, there)
    root = json.loads((there / "zarr.json").read_text())
    root["attributes"]["lesionzarr"]["created"] = "2001-01-01T00:00:00+00:00"
    (there / "zarr.json").write_text(json.dumps(root))
    before = contents(there)
    with pytest.raises(StoreError, match=r"copy.zarr: holds another store .*2001.*; name another destination"):
        lesionzarr.sync(store, there)
    assert contents(there) == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other/zarr.json").write_text('{"zarr_format": 3, "node_type": "group"}')
    with pytest.raises(StoreError, match="name another destination"):
        lesionzarr.sync(store, tmp_path / "other")
    (there / "zarr.json").unlink()
    with pytest.raises(StoreError, match="without a store"):
        lesionzarr.sync(store, there)


def test_misuse_is_named(store, there, tmp_path):
    with pytest.raises(NotFoundError, match="no store at"):
        lesionzarr.sync(tmp_path / "none", there)
    with pytest.raises(SettingError, match="the same"):
        lesionzarr.sync(store, store)
    with pytest.raises(SettingError, match="at least 1"):
        lesionzarr.sync(store, there, threads=0)
    lesionzarr.pack(lesionzarr.open(store), tmp_path / "pack.zarr", size=(3, 8, 8))
    with pytest.raises(SettingError, match="a pack"):
        lesionzarr.sync(tmp_path / "pack.zarr", there)
    assert not there.exists()


def test_a_volume_that_is_written_meanwhile_is_told_and_not_torn(store, there):
    class Busy(Folder):
        """A folder in which another process writes a volume anew as soon as one of its shards has been read."""

        def read(self, key):
            data = super().read(key)
            if layout.is_shard(key):
                group = self.root / "/".join(key.split("/")[:2]) / "zarr.json"
                document = json.loads(group.read_text())
                document["attributes"]["lesionzarr"]["provenance"]["tool"] = "another"
                document["attributes"]["lesionzarr"] = layout.seal(document["attributes"]["lesionzarr"])
                group.write_text(json.dumps(document))
            return data

    volume_id = ids(store)[0]
    objects = open_location(store).list_objects(f"volumes/{volume_id}")
    lesionzarr.sync(store, there)
    shutil.rmtree(there / "volumes" / volume_id)
    copied = _Copier(Busy(store), Folder(there), verify=False).copy_volume(volume_id, objects, {})
    assert "written anew meanwhile" in copied.fault
    assert volume_id not in ids(there)
    assert lesionzarr.sync(store, there).copied == (volume_id,)
    assert contents(there) == contents(store)


def test_memory_is_one_object_for_each_thread(tmp_path, there):
    from lesionzarr.geometry import Grid
    from lesionzarr.series import SourceFile, Volume
    from lesionzarr.store.writer import create_store, write_volume

    location = open_location(tmp_path / "s.zarr")
    create_store(location, {"source": "deeplesion", "title": "", "licence": "", "citation": ""})
    shape = (layout.SHARD_SLICES * 4, 256, 256)
    voxels = np.random.default_rng(0).integers(-1024, 3071, shape, dtype=np.int16)
    files = tuple(SourceFile("Images_png", f"{n:03d}.png", 1, 1) for n in range(shape[0]))
    volume = Volume("v", "s", "t", "p", Grid(shape, (2.0, 0.5, 0.5)), 1, shape[0], files)
    write_volume(location, volume, voxels, {"converter": "deeplesion"}, "portable")
    shard = (tmp_path / "s.zarr/volumes/v/hu/c/0/0/0").stat().st_size
    tracemalloc.start()
    lesionzarr.sync(tmp_path / "s.zarr", there, threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * shard


def test_a_store_goes_into_a_bucket_and_comes_back_the_same(store, there, s3_server, bucket):
    url, options = f"s3://{bucket}/a/deeplesion.zarr", s3_server.options
    done = lesionzarr.sync(store, url, destination_options=options, verify=True)
    assert done.copied == tuple(ids(store))
    assert bucket_contents(open_location(url, options)) == contents(store)
    assert lesionzarr.sync(store, url, destination_options=options).skipped == tuple(ids(store))
    lesionzarr.sync(url, there, storage_options=options)
    assert contents(there) == contents(store)
    other = f"s3://{bucket}/b.zarr"
    lesionzarr.sync(url, other, storage_options=options, destination_options=options)
    assert bucket_contents(open_location(other, options)) == contents(store)


def test_a_copy_into_a_bucket_survives_a_server_that_is_killed(store, s3_server, bucket):
    url, options = f"s3://{bucket}/deeplesion.zarr", {**s3_server.options, "retries": 1, "patience_s": 1}

    def kill(done, total):
        if 0 < done < total:
            s3_server.kill()

    try:
        with pytest.raises(StoreError):
            lesionzarr.sync(store, url, destination_options=options, threads=1, progress=kill)
    finally:
        s3_server.restart()
    again = lesionzarr.sync(store, url, destination_options=options)
    assert again.skipped
    assert set(again.skipped) | set(again.copied) == set(ids(store))
    assert bucket_contents(open_location(url, options)) == contents(store)


def test_a_broken_network_costs_no_object(store, s3_server, bucket, proxy):
    proxy.faults = Faults(reset=0.03, lost=0.03, unavailable=0.03, truncated=0.03)
    url = f"s3://{bucket}/s.zarr"
    lesionzarr.sync(store, url, destination_options={**s3_server.options, "endpoint": proxy.endpoint}, verify=True)
    assert any(request.fault for request in proxy.log)
    assert bucket_contents(open_location(url, s3_server.options)) == contents(store)


def test_a_store_is_fetched_from_a_web_server_that_lists_nothing(store, there):
    with Static(store.parent) as host:
        lesionzarr.sync(f"{host.endpoint}/{store.name}", there)
    assert contents(there) == contents(store)


def test_the_command_line_copies_and_tells_what_it_did(store, there, s3_server, bucket, capsys):
    assert main(["sync", str(store), str(there)]) == 0
    assert f"volumes copied:            {len(ids(store))}" in capsys.readouterr().out
    options = [
        f"--storage-option={name}={value}" for name, value in s3_server.options.items() if name != "client_options"
    ]
    assert main(["sync", str(there), f"s3://{bucket}/s.zarr", *options, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["copied"] == ids(store)
    assert main(["sync", f"s3://{bucket}/s.zarr", str(there), *options, "--verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == ids(store)
    options = [option.replace("--storage-option", "--destination-option") for option in options]
    assert main(["sync", str(store), f"s3://{bucket}/t.zarr", *options]) == 0
    shutil.rmtree(store / "volumes" / ids(store)[0])
    assert main(["sync", str(store), str(there)]) == 0
    assert "kept: volume " in capsys.readouterr().out
    assert main(["sync", str(store), str(there), "--delete"]) == 0
    assert "deleted: volume " in capsys.readouterr().out
    (store / "volumes" / ids(store)[0] / "hu/c/0/0/0").write_bytes(b"")
    shutil.rmtree(there / "volumes" / ids(store)[0])
    assert main(["sync", str(store), str(there)]) == 1
    assert "failed: " in capsys.readouterr().err
    assert main(["sync", str(store), str(store)]) == 2
