"""Conversions on workers: lost workers, a restarted server and a bad network, and clusters that run already."""

from __future__ import annotations

import distributed
import pytest
from turmoil import convert_under_fire, digests, digests_of_folder

import lesionzarr
from lesionzarr._progress import _rates
from lesionzarr.converters._run import Progress
from lesionzarr.converters._work import order_by_cost
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.samples import deeplesion
from lesionzarr.store._bucket import Bucket


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return deeplesion(tmp_path_factory.mktemp("many") / "DeepLesion", lesions=24, image_size=96, slices=6)


@pytest.fixture(scope="module")
def whole(many, tmp_path_factory):
    store = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert not lesionzarr.convert("deeplesion", many, store).failed
    return store


def test_killed_workers_a_killed_server_and_a_bad_network_cost_nothing(many, whole, s3_server, bucket, proxy):
    url = f"s3://{bucket}/s.zarr"
    everything = [path.parent.name for path in whole.glob("volumes/*/zarr.json")]
    told = convert_under_fire(many, url, s3_server, proxy, volumes=len(everything), kills=2, restarts=1)
    assert (told.kills, told.restarts) == (2, 1), told.errors
    assert told.broken > 0
    assert told.report["failed"] == []
    assert sorted(told.report["converted"]) == sorted(everything)
    assert digests(Bucket(url, s3_server.options)) == digests_of_folder(whole)
    assert lesionzarr.verify(url, storage_options=s3_server.options).issues == ()


def test_a_cluster_that_runs_already_is_used_and_left_running(many, whole, tmp_path):
    told = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=False, protocol="tcp://", dashboard_address="127.0.0.1:0"
    ) as cluster:
        address = cluster.scheduler_address
        report = lesionzarr.convert("deeplesion", many, tmp_path / "s.zarr", scheduler=address, progress=told.append)
        with distributed.Client(address) as client:
            assert len(client.nthreads()) == 2
    assert {progress.workers for progress in told} == {2}
    assert len(report.converted) == told[-1].volumes == told[-1].total_volumes
    assert digests_of_folder(tmp_path / "s.zarr") == digests_of_folder(whole)


def test_the_costliest_volumes_come_first_folder_by_folder(many):
    volumes = DeepLesion(many).scan().volumes
    costs = [len(volume.files) for volume in order_by_cost(volumes)]
    assert costs == sorted(costs, reverse=True)
    assert len(set(costs)) > 1
    roots = [volume.files[0].root for volume in volumes]
    assert [volume.files[0].root for volume in order_by_cost(volumes)] == sorted(roots, key=roots.index)


def test_progress_tells_what_all_workers_do_together():
    text = _rates(Progress(30, 90, 20, 60, bytes=50_000_000, workers=3), seconds=10.0)
    assert text == "20/60 volumes, 2 volumes/s, 5 MB/s, 3 workers"
