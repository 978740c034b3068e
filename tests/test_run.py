"""Converting, stopped and started again: resumption, workers, kills, full disks, memory, progress and plans."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import distributed
import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image
from turmoil import digests_of_folder as tree

import lesionzarr
from lesionzarr import _workers
from lesionzarr.cli import main
from lesionzarr.converters._run import plan
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.errors import NotFoundError, SettingError, SourceError, StoreError
from lesionzarr.samples import deeplesion
from lesionzarr.store.layout import REPORT

# the handler is set because a process that a shell starts in the background ignores Ctrl-C
COMMAND = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from lesionzarr.cli import main
sys.exit(main())
"""

# VmHWM, not ru_maxrss: the latter begins at the size of the process that forked this one
PEAK = """
import sys
from pathlib import Path
import lesionzarr
def status(name):
    words = Path("/proc/self/status").read_text().split()
    return int(words[words.index(name + ":") + 1]) * 1024
warm, source, folder = sys.argv[1:]
lesionzarr.convert("deeplesion", warm, folder + "/warm.zarr")
before = status("VmRSS")
lesionzarr.convert("deeplesion", source, folder + "/store.zarr")
print(status("VmHWM") - before)
"""

DEADLINE_S = 60

posix = pytest.mark.skipif(os.name != "posix", reason="signals and sessions of POSIX")


def stamps(store, pattern="*"):
    """Give name -> time and number of every file of the volumes: both change when a file is replaced."""
    files = [path for path in store.glob(f"volumes/*/**/{pattern}") if path.is_file()]
    return {
        path.relative_to(store / "volumes").as_posix(): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files
    }


def complete(store):
    return {path.parent.name for path in store.glob("volumes/*/zarr.json")}


def half_written(store):
    return {path.name for path in store.glob("volumes/*/") if path.is_dir()} - complete(store)


def of(found, volume_ids):
    return {name: value for name, value in found.items() if name.split("/")[0] in volume_ids}


def written_report(store):
    return json.loads((store / REPORT).read_text())


def edit(source, column, change, row=0):
    """Change one cell of DL_info.csv, as text; give its file name."""
    table = pd.read_csv(source / "DL_info.csv", dtype=str, keep_default_na=False)
    table.loc[row, column] = change(table.loc[row, column])
    table.to_csv(source / "DL_info.csv", index=False)
    return table.loc[row, "File_name"]


def wait_until(holds):
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def work(sample, sample_store, tmp_path):
    """A source and its store, to be changed: files keep their times, so that nothing is to be done at first."""
    source, store = tmp_path / "DeepLesion", tmp_path / "deeplesion.zarr"
    shutil.copytree(sample, source)
    shutil.copytree(sample_store, store)
    return source, store


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Folder of a dataset that takes long enough to be stopped in the middle."""
    return deeplesion(tmp_path_factory.mktemp("many") / "DeepLesion", lesions=24, image_size=256)


@pytest.fixture(scope="module")
def many_store(many, tmp_path_factory):
    """Store of it, converted at one go."""
    path = tmp_path_factory.mktemp("many_store") / "deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", many, path).failed
    return path


@pytest.fixture(scope="module")
def whole(many_store):
    """Files of that store."""
    return tree(many_store)


def test_a_second_conversion_skips_everything(work):
    source, store = work
    before, files = stamps(store), tree(store)
    report = lesionzarr.convert("deeplesion", source, store)
    assert set(report.skipped) == complete(store) != set()
    assert (report.converted, report.updated, report.failed) == ((), (), ())
    assert written_report(store)["counts"]["volumes skipped"] == len(report.skipped)
    assert stamps(store) == before
    assert tree(store) == files


def test_a_changed_slice_redoes_its_volume_alone(work):
    source, store = work
    before = stamps(store)
    volume = DeepLesion(source).scan().volumes[1]
    path = source / "Images_png" / volume.files[0].name
    pixels = np.array(Image.open(path))
    pixels[0, 0] += 1
    Image.fromarray(pixels).save(path)
    report = lesionzarr.convert("deeplesion", source, store)
    assert report.converted == (volume.volume_id,)
    after = stamps(store)
    others = complete(store) - {volume.volume_id}
    assert of(after, others) == of(before, others)
    assert not set(of(after, report.converted).items()) & set(of(before, report.converted).items())
    dataset = lesionzarr.open(store).volume(volume.volume_id)
    assert dataset["hu"].to_numpy()[0, 0, 0] == int(pixels[0, 0]) - 32768


def test_another_profile_redoes_every_volume(work):
    source, store = work
    before = stamps(store)
    report = lesionzarr.convert("deeplesion", source, store, profile="fast")
    assert set(report.converted) == complete(store)
    assert not set(stamps(store).items()) & set(before.items())
    assert set(lesionzarr.open(store).volumes["profile"]) == {"fast"}


@pytest.mark.parametrize(
    ("column", "cell", "expected"),
    [
        ("Patient_age", "7", {"age": 7.0}),
        ("DICOM_windows", "-1234, 567", {"window_low": -1234.0, "window_high": 567.0}),
        ("Possibly_noisy", "1", {"noisy": True}),
    ],
)
def test_a_changed_cell_of_the_table_updates_the_lesion_and_no_voxel(work, column, cell, expected):
    source, store = work
    before = stamps(store)
    edit(source, column, lambda _: cell)
    series = edit(source, column, lambda _: cell).rsplit("_", 1)[0]
    report = lesionzarr.convert("deeplesion", source, store)
    assert len(report.updated) == 1
    assert report.updated[0].startswith(series)
    assert set(report.skipped) == complete(store) - set(report.updated)
    assert (report.converted, report.failed) == ((), ())
    changed = {name for name, stamp in stamps(store).items() if before[name] != stamp}
    assert changed == {f"{report.updated[0]}/zarr.json"}
    lesions = lesionzarr.open(store).lesions
    assert lesions[lesions["source_row"] == 0].iloc[0][list(expected)].to_dict() == expected
    rows = json.loads((store / "volumes" / report.updated[0] / "zarr.json").read_text())["attributes"]["lesionzarr"]
    (row,) = [row for row in rows["lesions"] if row["source_row"] == 0]
    assert {name: row[name] for name in expected} == expected
    assert lesionzarr.convert("deeplesion", source, store).updated == ()


@pytest.mark.parametrize("spacing", ["0.25, 0.25, 1.5", "same, same, 7.5"])
def test_a_changed_spacing_of_the_table_reaches_the_store(work, spacing, tmp_path):
    source, store = work

    def change(cell):
        return ", ".join(
            new.replace("same", old) for new, old in zip(spacing.split(", "), cell.split(", "), strict=True)
        )

    series = pd.read_csv(source / "DL_info.csv")["File_name"][0].rsplit("_", 1)[0]
    names = pd.read_csv(source / "DL_info.csv")["File_name"]
    for row in names.index[names.str.startswith(series)]:
        edit(source, "Spacing_mm_px_", change, row)
    lesionzarr.convert("deeplesion", source, store)
    lesionzarr.convert("deeplesion", source, tmp_path / "new.zarr")
    assert tree(store) == tree(tmp_path / "new.zarr")


def test_a_slice_that_arrives_later_leaves_no_lesion_twice(work, tmp_path):
    source, store = work
    volume = max(DeepLesion(source).scan().volumes, key=lambda volume: len(volume.lesions))
    middle = source / "Images_png" / volume.files[len(volume.files) // 2].name
    middle.rename(tmp_path / "late.png")
    shutil.rmtree(store)
    assert len(lesionzarr.convert("deeplesion", source, store).issues) > 0
    (tmp_path / "late.png").rename(middle)
    assert lesionzarr.convert("deeplesion", source, store).converted == (volume.volume_id,)
    lesions = lesionzarr.open(store).lesions
    assert lesions.index[lesions.index.duplicated()].tolist() == []
    assert set(lesions["volume_id"]) == {volume.volume_id for volume in DeepLesion(source).scan().volumes}


def test_volumes_are_not_replaced_by_one_that_failed(work, tmp_path):
    source, store = work
    volume = max(DeepLesion(source).scan().volumes, key=lambda volume: len(volume.files))
    middle = source / "Images_png" / volume.files[len(volume.files) // 2].name
    middle.rename(tmp_path / "late.png")
    shutil.rmtree(store)
    lesionzarr.convert("deeplesion", source, store)
    parts = complete(store) - {volume.volume_id for volume in DeepLesion(source).scan().volumes}
    before = complete(store)
    middle.write_bytes(b"")
    report = lesionzarr.convert("deeplesion", source, store)
    assert [issue.item for issue in report.failed] == [volume.volume_id]
    assert parts == set()
    assert complete(store) == before


def test_a_poorer_copy_takes_nothing_from_the_store(work):
    source, store = work
    volume = max(DeepLesion(source).scan().volumes, key=lambda volume: len(volume.files))
    before = stamps(store)
    (source / "Images_png" / volume.files[-1].name).unlink()
    report = lesionzarr.convert("deeplesion", source, store)
    (kept,) = [issue for issue in report.issues if issue.kind == "kept-volume"]
    assert volume.volume_id in kept.message
    assert report.converted == ()
    assert stamps(store) == before
    assert lesionzarr.open(store).lesions.index.is_unique


def test_a_volume_that_lost_a_shard_is_converted_again(work, sample_store):
    source, store = work
    for name, damage in zip(sorted(complete(store)), ("hu/c/0/0/0", "z/c/0", "y/zarr.json"), strict=False):
        (store / "volumes" / name / damage).unlink()
    report = lesionzarr.convert("deeplesion", source, store)
    assert len(report.converted) == 3
    assert tree(store) == tree(sample_store)


@pytest.mark.parametrize("damage", ["no group", "empty group", "shard cut short", "part left", "arrays alone left"])
def test_a_half_written_volume_is_redone_to_the_same_bytes(work, sample_store, damage):
    source, store = work
    half = store / "volumes" / sorted(complete(store))[2]
    (half / "zarr.json").unlink()
    if damage == "empty group":
        (half / "zarr.json").touch()
    elif damage == "shard cut short":
        shard = half / "hu" / "c" / "0" / "0" / "0"
        shard.write_bytes(shard.read_bytes()[:1000])
    elif damage == "part left":
        shard = half / "hu" / "c" / "0" / "0" / "0"
        shard.rename(shard.with_name(".0.part"))
    elif damage == "arrays alone left":
        shutil.rmtree(half / "hu" / "c")
        (half / "stray").write_text("of a writer of another version")
    before = stamps(store)
    report = lesionzarr.convert("deeplesion", source, store)
    assert report.converted == (half.name,)
    assert of(stamps(store), report.skipped) == of(before, report.skipped)
    assert tree(store) == tree(sample_store)


def test_a_volume_whose_array_lost_its_metadata_is_healed_by_converting_again(work, sample_store):
    source, store = work
    lost = store / "volumes" / min(complete(store)) / "hu" / "zarr.json"
    lost.unlink()
    # what the error of the catalog advises
    assert lesionzarr.convert("deeplesion", source, store).converted == (lost.parents[1].name,)
    assert tree(store) == tree(sample_store)


def test_a_store_whose_root_was_lost_by_a_power_cut_is_named(work):
    source, store = work
    (store / "zarr.json").write_bytes(b"")
    with pytest.raises((StoreError, SettingError), match=store.name):
        lesionzarr.convert("deeplesion", source, store)


def test_two_workers_write_the_same_bytes_as_one(many, whole, tmp_path):
    report = lesionzarr.convert("deeplesion", many, tmp_path / "two.zarr", workers=2)
    assert set(report.converted) == complete(tmp_path / "two.zarr")
    assert not report.failed
    assert tree(tmp_path / "two.zarr") == whole


def test_workers_listen_to_this_machine_alone_whatever_port_is_taken(sample, tmp_path):
    heard = set()

    def listen(_):
        processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
        for process in processes:
            heard.update(c.laddr for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN)

    # the port of dask's dashboard, as another conversion or a notebook takes it
    with socket.socket() as other:
        with suppress(OSError):
            other.bind(("", 8787))
            other.listen()
        own = other.getsockname()
        lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr", workers=2, progress=listen)
    heard = {address for address in heard if tuple(address) != own}
    assert heard
    assert {address for address in heard if not ip_address(address.ip).is_loopback} == set()


def test_an_external_scheduler_writes_the_same_bytes(many, whole, tmp_path):
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0", silence_logs=50
    ) as cluster:
        report = lesionzarr.convert("deeplesion", many, tmp_path / "s.zarr", scheduler=cluster.scheduler_address)
        assert not report.failed
        assert tree(tmp_path / "s.zarr") == whole
        again = lesionzarr.convert("deeplesion", many, tmp_path / "s.zarr", scheduler=cluster.scheduler_address)
        assert again.skipped == report.converted
        assert cluster.scheduler_info["workers"]
    with pytest.raises(ValueError, match="No client"):
        distributed.default_client()


def test_a_scheduler_that_is_not_there_is_named(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(_workers, "PATIENCE_S", 0.5)
    with socket.socket() as taken:
        # bound and not listening: nobody answers, and nobody else can take the port meanwhile
        taken.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingError, match=address):
            lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr", scheduler=address)
    with pytest.raises(ValueError, match="No client"):
        distributed.default_client()


def test_a_scheduler_without_workers_is_named_and_let_go(sample, tmp_path, monkeypatch):
    monkeypatch.setattr(_workers, "PATIENCE_S", 0.5)
    with distributed.LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster:
        with pytest.raises(SettingError, match="without workers"):
            lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr", scheduler=cluster.scheduler_address)
        # a client left open is what all later dask work of the caller would be sent to
        with pytest.raises(ValueError, match="No client"):
            distributed.default_client()


@contextmanager
def started(*arguments):
    """Start `lesionzarr convert deeplesion` as a terminal does, in a session of its own; leave nothing of it behind."""
    command = [sys.executable, "-c", COMMAND, "convert", "deeplesion", *map(str, arguments)]
    with subprocess.Popen(
        command, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            for member in session(process.pid):
                member.kill()


def session(leader):
    """Give the living processes of a session."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError, PermissionError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop_when(process, store, holds):
    """Stop all processes of a session at a moment when `holds()`: from the first volume on, again and again to look."""
    leader = psutil.Process(process.pid)
    ended = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}
    deadline = time.monotonic() + DEADLINE_S
    wait_until(lambda: process.poll() is not None or holds() or half_written(store) | complete(store))
    while True:
        os.killpg(process.pid, signal.SIGSTOP)
        while leader.status() not in {psutil.STATUS_STOPPED, *ended}:
            assert time.monotonic() < deadline
        if leader.status() not in ended and holds():
            return
        os.killpg(process.pid, signal.SIGCONT)
        if leader.status() in ended:
            pytest.fail("ended before the moment came: " + "".join(process.communicate(timeout=DEADLINE_S)))
        assert time.monotonic() < deadline
        time.sleep(0.001)


MOMENTS = {
    "the store is made": lambda store, _: (store / "volumes").is_dir(),
    "a volume is being written": lambda store, _: half_written(store),
    "one volume is complete": lambda store, _: len(complete(store)) >= 1,
    "half are complete": lambda store, count: len(complete(store)) >= count // 2,
    "all but one are complete": lambda store, count: len(complete(store)) >= count - 1,
}


@posix
@pytest.mark.parametrize(("moment", "workers"), list(zip(MOMENTS, (2, 1, 2, 1, 2), strict=True)))
def test_a_conversion_killed_at_any_moment_goes_on_to_the_same_bytes(
    many, many_store, whole, tmp_path, workers, moment
):
    store, everything = tmp_path / "s.zarr", complete(many_store)
    with started(many, store, "--workers", workers) as process:
        stop_when(process, store, lambda: MOMENTS[moment](store, len(everything)))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
        wait_until(lambda: not session(process.pid))
    done, before = complete(store), stamps(store)
    if workers == 1 and moment == "a volume is being written":
        assert half_written(store)
    report = lesionzarr.convert("deeplesion", many, store)
    assert set(report.skipped) == done
    assert set(report.converted) == everything - done
    assert of(stamps(store), done) == of(before, done)
    assert not list(store.rglob("*.part"))
    assert tree(store) == whole


@posix
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_with_130_and_the_same_command_goes_on(many, whole, tmp_path, workers):
    store = tmp_path / "s.zarr"
    with started(many, store, "--workers", workers) as process:
        stop_when(process, store, lambda: complete(store))
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGCONT)
        _, errors = process.communicate(timeout=DEADLINE_S)
        wait_until(lambda: not session(process.pid))
    assert process.returncode == 130
    assert "lesionzarr: stopped; a conversion goes on" in errors
    assert "Traceback" not in errors
    done = complete(store)
    assert main(["convert", "deeplesion", str(many), str(store), "--workers", "1"]) == 0
    assert set(written_report(store)["skipped"]) == done
    assert tree(store) == whole


@posix
def test_a_worker_that_is_killed_costs_no_volume(many, whole, tmp_path):
    killed = []

    def kill(progress):
        if progress.volumes == 1:
            children = psutil.Process().children(recursive=True)
            workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
            assert len(workers) == 2
            workers[0].kill()
            killed.append(workers[0])

    report = lesionzarr.convert("deeplesion", many, tmp_path / "s.zarr", workers=2, progress=kill)
    assert len(killed) == 1
    assert not killed[0].is_running()
    assert report.failed == ()
    assert tree(tmp_path / "s.zarr") == whole


@contextmanager
def disk(folder, options):
    """Mount a disk of its own, which the test can fill and write-protect."""
    mount = shutil.which("mount")
    if not sys.platform.startswith("linux") or mount is None:
        pytest.skip("a tmpfs is mounted by Linux alone")
    folder.mkdir()
    done = subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield lambda new: subprocess.run([mount, "-o", f"remount,{new}", folder], check=True)
    finally:
        subprocess.run([shutil.which("umount"), folder], check=True)


def assert_refused_in_one_line(source, store, word, capfd):
    with pytest.raises(StoreError, match=rf"{store.name}.*{word}"):
        lesionzarr.convert("deeplesion", source, store)
    capfd.readouterr()
    assert main(["convert", "deeplesion", str(source), str(store), "--workers", "1"]) == 1
    out, errors = capfd.readouterr()
    assert out == ""
    (line,) = errors.splitlines()
    assert line.startswith("lesionzarr: ")
    assert word in line


def test_a_write_protected_disk_is_one_clear_line(sample, tmp_path, capfd):
    with disk(tmp_path / "disk", "size=1m,ro"):
        assert_refused_in_one_line(sample, tmp_path / "disk" / "s.zarr", "Read-only", capfd)


def test_a_store_that_became_write_protected_is_one_clear_line(sample, sample_store, tmp_path, capfd):
    with disk(tmp_path / "disk", "size=64m") as remount:
        store = tmp_path / "disk" / "s.zarr"
        shutil.copytree(sample_store, store)
        remount("ro")
        assert_refused_in_one_line(sample, store, "Read-only", capfd)
        assert len(lesionzarr.open(store)) > 0


def test_a_folder_without_the_right_to_write_is_one_clear_line(sample, tmp_path, capfd):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o555)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere, as root does")
    assert_refused_in_one_line(sample, folder / "s.zarr", "denied", capfd)


@pytest.mark.parametrize("below", ["", "s.zarr", "deep/s.zarr"])
def test_a_destination_below_a_file_is_one_clear_line(sample, tmp_path, capfd, below):
    (tmp_path / "taken").write_text("a file")
    assert_refused_in_one_line(sample, tmp_path / "taken" / below, "", capfd)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_ends_with_a_report_and_whole_volumes(many, many_store, whole, tmp_path, workers):
    bytes_ = sum(path.stat().st_size for path in many_store.rglob("*") if path.is_file())
    everything = complete(many_store)
    with disk(tmp_path / "disk", f"size={bytes_ // 2}") as remount:
        store = tmp_path / "disk" / "s.zarr"
        report = lesionzarr.convert("deeplesion", many, store, workers=workers)
        assert report.failed
        assert any("No space left" in issue.message for issue in report.failed)
        assert all("No space left" in i.message or "takes no more" in i.message for i in report.failed)
        assert {issue.item for issue in report.failed} | set(report.converted) == everything
        assert written_report(store)["failed"][0]["message"] == report.failed[0].message
        assert not list(store.rglob("*.part"))
        catalog = lesionzarr.open(store)
        assert set(catalog.volumes.index) == set(report.converted) == complete(store) != set()
        assert half_written(store) == set()
        for volume_id in catalog.volumes.index:
            voxels = catalog.volume(volume_id)["hu"].to_numpy()
            checksum = "sha256:" + hashlib.sha256(voxels.astype("<i2").tobytes()).hexdigest()
            assert checksum == catalog.volumes.loc[volume_id, "voxels"]
        remount(f"size={2 * bytes_}")
        again = lesionzarr.convert("deeplesion", many, store)
        assert again.failed == ()
        assert set(again.skipped) == set(report.converted)
        assert tree(store) == whole


def test_a_disk_without_a_byte_left_is_one_clear_line(sample, tmp_path, capfd):
    with disk(tmp_path / "disk", "size=64k"):
        with suppress(OSError), (tmp_path / "disk" / "filler").open("wb", buffering=0) as filler:
            while filler.write(bytes(4096)):
                pass
        assert_refused_in_one_line(sample, tmp_path / "disk" / "s.zarr", "No space left", capfd)


def test_a_disk_that_fills_up_at_the_last_moment_costs_no_volume(sample, sample_store, tmp_path):
    with disk(tmp_path / "disk", "size=4m"):
        store, filler = tmp_path / "disk" / "s.zarr", tmp_path / "disk" / "filler"

        def fill(progress):
            if progress.volumes == progress.total_volumes:
                with suppress(OSError), filler.open("wb", buffering=0) as file:
                    while file.write(bytes(4096)):
                        pass

        with pytest.raises(StoreError, match=r"s\.zarr/catalog/.*No space left"):
            lesionzarr.convert("deeplesion", sample, store, progress=fill)
        assert complete(store) == complete(sample_store)
        filler.unlink()
        report = lesionzarr.convert("deeplesion", sample, store)
        assert set(report.skipped) == complete(sample_store)
        assert tree(store) == tree(sample_store)


@posix
def test_a_volume_that_the_disk_refuses_fails_alone(work, sample_store):
    resource = pytest.importorskip("resource")
    source, store = work
    sizes = {path.parts[-6]: path.stat().st_size for path in sample_store.glob("volumes/*/hu/c/0/0/0")}
    limit = sorted(sizes.values())[len(sizes) // 2]
    shutil.rmtree(store)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        report = lesionzarr.convert("deeplesion", source, store)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert {issue.item for issue in report.failed} == {name for name, size in sizes.items() if size > limit}
    assert all("File too large" in issue.message for issue in report.failed)
    assert set(report.converted) == complete(store) == {name for name, size in sizes.items() if size <= limit}
    assert half_written(store) == set()
    assert lesionzarr.convert("deeplesion", source, store).skipped == report.converted
    assert tree(store) == tree(sample_store)


def refused(error, match, source, store, **options):
    with pytest.raises(error, match=match):
        lesionzarr.convert("deeplesion", source, store, **options)
    assert not store.exists()


def test_a_folder_without_the_table_is_named_with_the_remedy(tmp_path):
    (tmp_path / "empty").mkdir()
    refused(SourceError, r"empty: no DL_info\.csv in it; .*--csv", tmp_path / "empty", tmp_path / "s.zarr")
    refused(SourceError, r"absent: no DL_info\.csv in it; .*--csv", tmp_path / "absent", tmp_path / "s.zarr")


def test_a_download_without_images_is_named_with_the_remedy(sample, tmp_path):
    shutil.copy(sample / "DL_info.csv", tmp_path)
    refused(SourceError, r"no Images_png\* folder or zip in it; .*--images", tmp_path, tmp_path / "s.zarr")


@pytest.mark.parametrize("workers", [0, -1])
def test_less_than_one_worker_is_refused(sample, tmp_path, workers):
    refused(SettingError, f"^{workers} workers: at least 1", sample, tmp_path / "s.zarr", workers=workers)


def test_an_unknown_profile_is_refused_and_the_nearest_named(sample, tmp_path):
    refused(NotFoundError, "no profile 'portabel'; near: portable", sample, tmp_path / "s.zarr", profile="portabel")
    with pytest.raises(NotFoundError, match="no profile 'portabel'"):
        plan("deeplesion", sample, tmp_path / "s.zarr", profile="portabel")


def test_an_unknown_converter_is_refused_and_the_nearest_named(sample, tmp_path):
    with pytest.raises(NotFoundError, match="no converter 'deeplesions'; near: deeplesion"):
        lesionzarr.convert("deeplesions", sample, tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


def test_an_unknown_option_is_refused_and_the_known_ones_named(sample, tmp_path):
    match = "deeplesion has no option colour; its options are csv, images, labels"
    refused(SettingError, match, sample, tmp_path / "s.zarr", colour=1)


def test_faults_of_the_source_and_of_the_call_have_their_own_exit_codes(sample, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    store = str(tmp_path / "s.zarr")
    assert main(["convert", "deeplesion", str(tmp_path / "empty"), store]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lesionzarr: ")
    assert "no DL_info.csv" in line
    with pytest.raises(SystemExit, match="2"):
        main(["convert", "deeplesion", str(sample), store, "--workers", "0"])
    assert "'0' is not a whole number of at least 1" in capsys.readouterr().err


def peak(warm, source, folder):
    folder.mkdir()
    command = [sys.executable, "-c", PEAK, str(warm), str(source), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_is_one_volume_however_many_there_are(sample, tmp_path):
    if not sys.platform.startswith("linux"):
        pytest.skip("reads the peak of memory from /proc, which Linux alone has")
    one = deeplesion(tmp_path / "one", lesions=1, image_size=512, slices=24)
    (volume,) = DeepLesion(one).scan().volumes
    four = tmp_path / "four"
    header, *rows = (one / "DL_info.csv").read_text().splitlines()
    patient = volume.patient_id
    for number in range(4):
        name = volume.series_id.replace(patient, f"90000{number}")
        shutil.copytree(one / "Images_png" / volume.series_id, four / "Images_png" / name)
    copies = [row.replace(patient, f"90000{number}", 1) for number in range(4) for row in rows]
    (four / "DL_info.csv").write_text("\n".join([header, *copies]) + "\n")
    assert len(DeepLesion(four).scan().volumes) == 4
    voxels = 2 * int(np.prod(volume.grid.shape))
    of_one, of_four = (peak(sample, source, tmp_path / f"{source.name}_store") for source in (one, four))
    assert voxels < of_one < 2.5 * voxels + (8 << 20)
    assert of_four < of_one + voxels // 2


def test_progress_is_told_once_per_volume_and_ends_at_the_total(work):
    source, store = work
    shutil.rmtree(store)
    told = []
    report = lesionzarr.convert("deeplesion", source, store, progress=told.append)
    assert [each.volumes for each in told] == list(range(1, len(report.converted) + 1))
    slices = [each.slices for each in told]
    assert slices == sorted(set(slices))
    assert {(each.total_slices, each.total_volumes) for each in told} == {(slices[-1], len(report.converted))}
    assert slices[-1] == report.counts["slices converted"] == len(list(source.glob("Images_png/*/*.png")))
    told.clear()
    lesionzarr.convert("deeplesion", source, store, progress=told.append)
    assert told == []


def test_progress_counts_what_is_to_be_done_failures_included(work):
    source, store = work
    # the costliest is converted first
    first, second = sorted(DeepLesion(source).scan().volumes[:2], key=lambda volume: -len(volume.files))
    for volume in (first, second):
        shutil.rmtree(store / "volumes" / volume.volume_id)
    (source / "Images_png" / first.files[0].name).write_bytes(b"no PNG")
    told = []
    report = lesionzarr.convert("deeplesion", source, store, progress=told.append)
    assert [issue.item for issue in report.failed] == [first.volume_id]
    assert report.converted == (second.volume_id,)
    total = len(first.files) + len(second.files)
    assert [(each.slices, each.volumes) for each in told] == [(len(first.files), 1), (total, 2)]
    assert {(each.total_slices, each.total_volumes) for each in told} == {(total, 2)}
    assert [each.bytes for each in told] == [0, 2 * np.prod(second.grid.shape)]


def test_a_plan_tells_what_a_conversion_then_does(work):
    source, store = work
    volumes = DeepLesion(source).scan().volumes
    shutil.rmtree(store / "volumes" / volumes[0].volume_id)
    row = next(lesion.source_row for lesion in volumes[1].lesions)
    edit(source, "Patient_age", lambda _: "7", row)
    before, files = stamps(store), tree(store)
    scan, what = plan("deeplesion", source, store)
    assert (stamps(store), tree(store)) == (before, files)
    names = [[volume.volume_id for volume in part] for part in (what.convert, what.update, what.skip)]
    assert names[:2] == [[volumes[0].volume_id], [volumes[1].volume_id]]
    assert what.slices == len(volumes[0].files)
    assert what.raw_bytes == 2 * np.prod(volumes[0].grid.shape)
    report = lesionzarr.convert("deeplesion", source, store)
    assert [list(part) for part in (report.converted, report.updated, report.skipped)] == names
    assert scan.volumes == DeepLesion(source).scan().volumes
    assert report.counts["slices converted"] == what.slices


def test_a_plan_writes_nothing(sample, tmp_path, capsys):
    store = tmp_path / "s.zarr"
    scan, what = plan("deeplesion", sample, store)
    assert what.convert == scan.volumes
    assert main(["convert", "deeplesion", str(sample), str(store), "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["volumes to convert"] == len(scan.volumes) > 1
    assert told["slices to read"] == len(list(sample.glob("Images_png/*/*.png")))
    assert not store.exists()
