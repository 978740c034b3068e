"""Epochs as they are read: the same voxels as a batch, errors where they belong, no thread left behind."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest

import lesionzarr
from lesionzarr.errors import IntegrityError, MissingExtraError, NotFoundError, SettingError
from lesionzarr.readers._prefetch import THREAD, read_ahead

DEADLINE_S = 30


@pytest.fixture(scope="module")
def catalog(sample_store):
    return lesionzarr.open(sample_store)


@pytest.fixture(scope="module")
def reader(catalog):
    return lesionzarr.CropReader(catalog, size=(5, 24, 24), window=["dicom", "lung"])


def ids(batches):
    return [crop.lesion.lesion_id for batch in batches for crop in batch.crops]


def ahead_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(THREAD)]


@pytest.fixture(autouse=True)
def no_thread_is_left():
    yield
    for thread in ahead_threads():
        thread.join(DEADLINE_S)
    assert not ahead_threads()


def assert_threads_end(threads):
    assert threads
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("prefetch", [0, 1, 2, 50])
@pytest.mark.parametrize("threads", [None, 1])
def test_batches_are_what_read_batch_gives(reader, catalog, prefetch, threads):
    batches = list(reader.batches(batch_size=5, seed=3, prefetch=prefetch, threads=threads))
    assert [len(batch) for batch in batches] == [5, 5, 5, 1]
    assert sorted(ids(batches)) == sorted(catalog.lesions.index)
    assert ids(batches) != list(catalog.lesions.index)
    expected = reader.read_batch(ids(batches))
    np.testing.assert_array_equal(np.concatenate([batch.image for batch in batches]), expected.image)
    np.testing.assert_array_equal(np.concatenate([batch.valid for batch in batches]), expected.valid)


def test_batches_of_stacks(catalog):
    stacks = lesionzarr.StackReader(catalog, slices=3, size=(16, 16))
    image = np.concatenate([batch.image for batch in stacks.batches(batch_size=3)])
    np.testing.assert_array_equal(image, stacks.read_batch(catalog.lesions).image)


def test_chosen_lesions_in_the_order_given(reader, catalog):
    chosen = catalog.lesions.iloc[[7, 2, 9, 4]]
    assert ids(reader.batches(chosen, batch_size=3)) == list(chosen.index)
    assert ids(reader.batches(list(chosen.index))) == list(chosen.index)
    assert ids(reader.batches(chosen.index[0])) == [chosen.index[0]]


def test_a_split_alone(reader, catalog):
    assert ids(reader.batches(split="val")) == list(catalog.select("split == 'val'").index)


def test_noisy_lesions_and_those_without_a_position_are_left_out(reader, catalog):
    one, two, three, four = catalog.find_lesions(list(catalog.lesions.index[:4]))
    given = [one, dataclasses.replace(two, noisy=True), dataclasses.replace(three, key_z=None), four]
    assert ids(reader.batches(given, drop_noisy=True)) == [one.lesion_id, four.lesion_id]
    assert ids(reader.batches(given)) == [one.lesion_id, two.lesion_id, four.lesion_id]


def test_ranks_read_one_epoch_between_them_and_go_on_in_its_middle(reader):
    whole = [ids([batch]) for batch in reader.batches(batch_size=3, seed=1, epoch=2)]
    asked = {"batch_size": 3, "seed": 1, "epoch": 2, "ranks": 2}
    ranks = [[ids([batch]) for batch in reader.batches(rank=rank, **asked)] for rank in range(2)]
    assert ranks == [whole[0::2], whole[1::2]]
    rest = [[ids([batch]) for batch in reader.batches(rank=rank, start_batch=2, **asked)] for rank in range(2)]
    assert rest == [part[1:] for part in ranks]


@pytest.mark.parametrize(
    "asked",
    [{"batch_size": 0}, {"prefetch": -1}, {"prefetch": 1.5}, {"threads": 0}, {"split": "nowhere"}, {"balance": "type"}],
)
def test_what_means_nothing_is_refused_before_the_first_batch(reader, asked):
    with pytest.raises(SettingError) as caught:
        reader.batches(**asked)
    assert next(iter(asked)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_lesion_is_refused_before_the_first_batch(reader):
    with pytest.raises(NotFoundError, match="nobody"):
        reader.batches(["nobody"])


@pytest.mark.parametrize("prefetch", [0, 2])
def test_what_is_wrong_with_the_store_is_raised_in_place_of_the_batch(sample_store, tmp_path, prefetch):
    store = shutil.copytree(sample_store, tmp_path / "s.zarr")
    catalog = lesionzarr.open(store)
    broken = catalog.lesions["volume_id"].iloc[-1]
    shutil.rmtree(store / "volumes" / broken / "hu" / "c")
    good = int((catalog.lesions["volume_id"] != broken).to_numpy().argmin())
    batches = lesionzarr.CropReader(catalog, size=(3, 8, 8)).batches(batch_size=1, prefetch=prefetch)
    assert [next(batches).crops[0].lesion.lesion_id for _ in range(good)] == list(catalog.lesions.index[:good])
    threads = ahead_threads()
    with pytest.raises(IntegrityError, match=broken):
        next(batches)
    with pytest.raises(StopIteration):
        next(batches)
    if prefetch:
        assert_threads_end(threads)


def test_a_reader_reads_no_further_ahead_than_it_may():
    begun = []
    allowed = threading.Semaphore(0)

    def read(item):
        begun.append(item)
        allowed.release()
        return item

    results = read_ahead(read, range(100), 3)
    assert next(results) == 0
    for _ in range(4):  # the one delivered, and three ahead
        assert allowed.acquire(timeout=DEADLINE_S)
    thread = ahead_threads()
    results.close()
    assert_threads_end(thread)
    assert begun == [0, 1, 2, 3]


def test_reading_ahead_goes_on_while_the_caller_works():
    read_third = threading.Event()
    results = read_ahead(lambda item: item == 2 and read_third.set(), range(3), 2)
    next(results)
    assert read_third.wait(DEADLINE_S)
    results.close()


def test_nothing_is_read_before_the_first_batch_is_asked_for():
    begun = []
    read_ahead(begun.append, range(3), 2).close()
    assert not begun
    assert not ahead_threads()


def started(reader):
    batches = reader.batches(batch_size=1, seed=0)
    next(batches)
    return batches, ahead_threads()


def test_a_closed_iterator_leaves_no_thread(reader):
    batches, threads = started(reader)
    batches.close()
    assert_threads_end(threads)


def test_a_dropped_iterator_leaves_no_thread(reader):
    batches, threads = started(reader)
    del batches
    gc.collect()
    assert_threads_end(threads)


def test_an_error_in_the_loop_leaves_no_thread(reader):
    threads = []

    def loop():
        for _ in reader.batches(batch_size=1, seed=0):
            threads.extend(ahead_threads())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert_threads_end(threads)


def test_an_epoch_to_its_end_leaves_no_thread(reader):
    batches, threads = started(reader)
    list(batches)
    assert_threads_end(threads)


def run_python(code, *arguments):
    """Run code in a process of its own, which may neither fail nor hang."""
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def test_a_program_may_end_in_the_middle_of_an_epoch(sample_store):
    code = """
import sys, lesionzarr
batches = lesionzarr.CropReader(lesionzarr.open(sys.argv[1]), size=(3, 8, 8)).batches(batch_size=1)
print(len(next(batches)))
"""
    done = run_python(code, sample_store)
    assert done.stdout == "1\n"
    assert done.stderr == ""


FORKED = """
import os, sys, warnings, lesionzarr
from lesionzarr.errors import SettingError
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
reader = lesionzarr.CropReader(lesionzarr.open(sys.argv[1]), size=(3, 8, 8))
batches = reader.batches(batch_size=1, seed=0)
first = next(batches)
child = os.fork()
if not child:
    try:
        next(batches)
    except SettingError as error:
        assert "before a fork" in str(error)
        again = next(reader.batches(batch_size=1, seed=0))
        os._exit(0 if (again.image == first.image).all() else 3)
    os._exit(2)
assert len(list(batches)) == len(reader.catalog) - 1
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_refused_its_parents_iterator_and_begins_its_own(sample_store):
    run_python(FORKED, sample_store)


def test_without_torch_the_extra_is_named(reader, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "lesionzarr.readers._torch", raising=False)
    with pytest.raises(MissingExtraError, match=r"lesionzarr\[torch\]"):
        reader.to_torch()


def test_torch_is_imported_by_nothing_but_to_torch(sample_store):
    code = """
import sys, lesionzarr
list(lesionzarr.CropReader(lesionzarr.open(sys.argv[1]), size=(3, 8, 8)).batches())
assert "torch" not in sys.modules
"""
    run_python(code, sample_store)
