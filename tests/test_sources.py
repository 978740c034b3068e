"""Sources in a bucket become the store that they become from a folder, by few requests and never a zip read whole."""

from __future__ import annotations

import io
import json
import pickle
import random
import re
import shlex
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from obstore.store import S3Store
from proxy import Faults
from servers import Static

import lesionzarr
from lesionzarr import samples
from lesionzarr.cli import main
from lesionzarr.converters._base import make_converter
from lesionzarr.converters._run import plan, source_path
from lesionzarr.errors import SettingError, SourceError, UnreachableError
from lesionzarr.formats.archive import iter_files, open_file, read_file
from lesionzarr.source import MOST_BYTES
from lesionzarr.store._bucket import Bucket
from lesionzarr.store.layout import REPORT

MAKERS = {
    "deeplesion": lambda folder: samples.deeplesion(folder, lesions=6, image_size=64, slices=5),
    "lung-pet-ct-dx": lambda folder: samples.lung_pet_ct_dx(folder, subjects=1),
    "recist-dataset": lambda folder: samples.recist_dataset(folder, patients=1),
}
QUICK = {"retries": 1, "patience_s": 2, "timeout_s": 2, "connect_timeout_s": 2}


@pytest.fixture
def store(s3_server, bucket):
    return S3Store(bucket, **s3_server.options)


@pytest.fixture
def options(s3_server):
    """Storage options of the owner."""
    return {name: value for name, value in s3_server.options.items() if name != "client_options"}


@pytest.fixture
def in_bucket(sample, store, bucket):
    """URL of the synthetic DeepLesion, as a folder in a bucket."""
    upload(store, sample, "DeepLesion/")
    return f"s3://{bucket}/DeepLesion"


@pytest.fixture
def in_zips(sample, tmp_path):
    """Folder of the synthetic DeepLesion with its slices in two zips."""
    folder = tmp_path / "Zips"
    folder.mkdir()
    (folder / "DL_info.csv").write_bytes((sample / "DL_info.csv").read_bytes())
    series = sorted((sample / "Images_png").iterdir())
    for number, part in enumerate((series[::2], series[1::2]), 1):
        with zipfile.ZipFile(folder / f"Images_png_{number:02d}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in (file for folder in part for file in sorted(folder.iterdir())):
                archive.write(file, f"Images_png/{file.parent.name}/{file.name}")
    return folder


def upload(store, folder, prefix=""):
    files = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: store.put(f"{prefix}{path.relative_to(folder).as_posix()}", path), files))


def zipped(members):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def noise(size, seed=0):
    return np.random.default_rng(seed).bytes(size)


def assert_equal_volumes(path, other_path):
    one, other = lesionzarr.open(path), lesionzarr.open(other_path)
    pd.testing.assert_frame_equal(one.lesions, other.lesions)
    assert list(one.volumes.index) == list(other.volumes.index)
    for volume_id, row in one.volumes.iterrows():
        xr.testing.assert_equal(one.volume(volume_id).load(), other.volume(volume_id).load())
        if pd.notna(row["mask"]):
            xr.testing.assert_equal(one.mask(volume_id).load(), other.mask(volume_id).load())


def assert_equal_stores(path, other_path):
    assert_equal_volumes(path, other_path)
    assert told(path) == told(other_path)


def told(path):
    """The report of a store, with its lists in one order."""
    report = json.loads((path / REPORT).read_text())
    return report | {name: sorted(report[name], key=str) for name in ("failed", "missing", "issues")}


@pytest.mark.parametrize("name", MAKERS)
def test_a_dataset_in_a_bucket_becomes_the_store_that_its_folder_becomes(name, store, bucket, options, tmp_path):
    folder = MAKERS[name](tmp_path / "Some data")
    lesionzarr.convert(name, folder, tmp_path / "local.zarr")
    upload(store, folder, "Some data/")
    source, path = f"s3://{bucket}/Some data", tmp_path / "s.zarr"
    assert lesionzarr.convert(name, source, path, source_options=options).converted
    assert_equal_stores(path, tmp_path / "local.zarr")
    again = lesionzarr.convert(name, source, path, source_options=options)
    assert (again.converted, again.updated) == ((), ())


def test_zips_in_a_bucket_become_the_same_store_and_have_the_fingerprints_of_those_on_a_disk(
    in_zips, store, bucket, options, sample_store, tmp_path
):
    upload(store, in_zips)
    lesionzarr.convert("deeplesion", f"s3://{bucket}/", tmp_path / "s.zarr", source_options=options)
    assert_equal_stores(tmp_path / "s.zarr", sample_store)
    _, what = plan("deeplesion", in_zips, tmp_path / "s.zarr")
    assert (what.convert, what.update) == ((), ())
    assert what.skip


def test_a_converter_and_its_volumes_reach_workers_with_what_reading_takes(in_zips, store, bucket, options):
    upload(store, in_zips, "a/")
    converter = make_converter("deeplesion", f"s3://{bucket}/a", {}, partial(source_path, options))
    volume = converter.scan().volumes[0]
    local = make_converter("deeplesion", in_zips, {})
    sent, volume = pickle.loads(pickle.dumps((converter, volume)))  # noqa: S301 - as workers get it
    assert np.array_equal(sent.read_volume(volume), local.read_volume(local.scan().volumes[0]))
    assert options["secret_access_key"] not in repr((sent, volume))


@pytest.mark.parametrize("name", ["lung-pet-ct-dx", "recist-dataset"])
def test_whole_datasets_in_one_zip_of_a_bucket(name, store, bucket, options, tmp_path):
    folder = MAKERS[name](tmp_path / "x")
    lesionzarr.convert(name, folder, tmp_path / "local.zarr")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    settings = {}
    if name == "lung-pet-ct-dx":
        store.put("all.zip", zipped(files))
        source = f"s3://{bucket}/all.zip"
        store.put("boxes.zip", zipped({key: data for key, data in files.items() if key.startswith("Annotation")}))
        sheet = next(key for key in files if key.endswith(".xlsx"))
        store.put("clinical.xlsx", files[sheet])
        settings = {"annotations": f"s3://{bucket}/boxes.zip", "clinical": f"s3://{bucket}/clinical.xlsx"}
    else:
        images = {key: data for key, data in files.items() if "nii" in key or "labels" in key}
        store.put("release/images.zip", zipped(images))
        for key in files.keys() - images.keys():
            store.put(f"release/{key}", files[key])
        source = f"s3://{bucket}/release"
    lesionzarr.convert(name, source, tmp_path / "s.zarr", source_options=options, **settings)
    assert_equal_volumes(tmp_path / "s.zarr", tmp_path / "local.zarr")


def test_a_volume_is_read_from_a_zip_by_few_ranges_and_little_waste(store, bucket, options, proxy):
    slices = {f"Images_png/000001_01_01/{number:03d}.png": noise(100_000, number) for number in range(400)}
    store.put("slices.zip", zipped(slices))
    root = source_path(options | {"endpoint": proxy.endpoint}, f"s3://{bucket}/slices.zip")
    files = sorted(iter_files(root), key=lambda file: file.name)
    assert [(file.name, file.size) for file in files] == [(name, len(data)) for name, data in slices.items()]
    assert (proxy.requests, proxy.bytes_down) < (3, 300_000)  # a HEAD, and the end with the directory
    proxy.reset_counts()
    assert all(read_file(file) == slices[file.name] for file in files[120:180])
    assert proxy.requests <= 5
    assert proxy.bytes_down <= 6_000_000 + MOST_BYTES


def test_headers_of_files_in_a_bucket_are_read_without_their_pixels(store, bucket, options, proxy):
    for number in range(20):
        store.put(f"images/{number}.dcm", noise(500_000, number))
    root = source_path(options | {"endpoint": proxy.endpoint}, f"s3://{bucket}/images")
    for file in iter_files(root):
        with open_file(file) as stream:
            assert stream.read(5000) == noise(500_000, int(file.name[:-4]))[:5000]
            assert stream.seek(0) == 0
    assert proxy.requests == 21  # one lists
    assert proxy.bytes_down < 21 * 20_000


def test_any_sequence_of_reads_gives_the_bytes_of_the_file(store, bucket, options):
    data, dice = noise(3_000_000), random.Random(1)
    store.put("x.bin", data)
    here, there = io.BytesIO(data), source_path(options, f"s3://{bucket}/x.bin").open("rb")
    for _ in range(150):
        if dice.random() < 0.4:
            where = dice.randrange(-len(data), 1), io.SEEK_END
            assert here.seek(*where) == there.seek(*where)
        length = dice.choice([0, 1, 30, 5000, 70_000, 900_000])
        assert here.read(length) == there.read(length)
    assert there.seek(0) == 0
    assert there.read() == data


def test_threads_read_from_one_zip_at_once(store, bucket, options, proxy):
    slices = {
        f"{series}/{number:03d}.png": noise(20_000, 100 * series + number)
        for series in range(8)
        for number in range(50)
    }
    store.put("slices.zip", zipped(slices))
    files = list(iter_files(source_path(options | {"endpoint": proxy.endpoint}, f"s3://{bucket}/slices.zip")))

    def read(series):
        return all(read_file(file) == slices[file.name] for file in files[50 * series : 50 * series + 50])

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))
    assert proxy.requests < 40


def test_a_zip_that_was_replaced_is_read_anew(store, bucket, options):
    root = source_path(options, f"s3://{bucket}/a.zip")
    for text in (b"first", b"second, and longer"):
        store.put("a.zip", zipped({"a": text}))
        (file,) = iter_files(root)
        assert read_file(file) == text


def test_an_empty_object_of_the_name_of_a_folder_is_no_file():
    location = Bucket("memory:///")
    for key in ("data/series", "data/series/1", "data/series2", "data/x"):
        location.write(key, b"" if key in {"data/series", "data/x"} else b"1")
    assert [key for key, _ in location.walk("data")] == ["data/series/1", "data/series2", "data/x"]


def test_a_line_that_fails_now_and_then_changes_nothing(in_bucket, options, sample_store, proxy, tmp_path):
    proxy.faults = Faults(reset=0.03, unavailable=0.03, truncated=0.03)
    reached = options | {"endpoint": proxy.endpoint}
    lesionzarr.convert("deeplesion", in_bucket, tmp_path / "s.zarr", source_options=reached)
    assert any(request.fault for request in proxy.log)
    assert_equal_stores(tmp_path / "s.zarr", sample_store)


def test_an_object_that_is_gone_is_named_and_costs_no_other(sample, in_bucket, options, store):
    lost, *others = iter_files(source_path(options, f"{in_bucket}/Images_png"))
    store.delete(f"DeepLesion/Images_png/{lost.name}")
    with pytest.raises(SourceError, match=rf"Images_png/{lost.name}: cannot be read \(no such object\)"):
        read_file(lost)
    assert read_file(others[0]) == (sample / "Images_png" / others[0].name).read_bytes()


def test_what_cannot_be_reached_is_one_clear_line_within_the_timeout(in_bucket, bucket, options, tmp_path):
    def fault(kind, source, **changes):
        begun = time.monotonic()
        with pytest.raises(kind) as caught:
            lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr", source_options=options | QUICK | changes)
        assert time.monotonic() - begun < 10
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "s.zarr").exists()
        return str(caught.value)

    assert "access denied; check the credentials" in fault(UnreachableError, in_bucket, secret_access_key="wrong")  # noqa: S106
    assert "no such bucket" in fault(UnreachableError, "s3://absent-bucket/DeepLesion")
    assert "the server cannot be reached" in fault(UnreachableError, in_bucket, endpoint="http://127.0.0.1:9")
    assert "DL_info.csv" in fault(SourceError, f"s3://{bucket}/Elsewhere")


def test_a_bucket_without_a_dataset_says_so(store, bucket, options, tmp_path):
    store.put("other/readme.txt", b"x")
    for name in ("lung-pet-ct-dx", "recist-dataset"):
        for source in (f"s3://{bucket}/other", f"s3://{bucket}/absent", f"s3://{bucket}/absent.zip"):
            with pytest.raises(SourceError):
                lesionzarr.convert(name, source, tmp_path / "s.zarr", source_options=options)


def test_over_http_files_that_are_named_are_read_and_folders_are_refused(in_zips, sample_store, tmp_path):
    with Static(in_zips) as host:
        images = [f"{host.endpoint}/Images_png_{number:02d}.zip" for number in (1, 2)]
        report = lesionzarr.convert("deeplesion", host.endpoint, tmp_path / "s.zarr", images=images)
        assert not report.failed
        wholes = [one for one in host.log if one.method == "GET" and not one.range]
        assert {one.path for one in wholes} == {"/DL_info.csv"}
        for name in ("deeplesion", "lung-pet-ct-dx", "recist-dataset"):
            with pytest.raises(SourceError, match="a folder cannot be listed over HTTP; name zips"):
                lesionzarr.convert(name, host.endpoint, tmp_path / "t.zarr", source_options=QUICK)
    assert_equal_volumes(tmp_path / "s.zarr", sample_store)


def test_a_dicom_collection_in_a_zip_is_read_over_http(tmp_path):
    folder = MAKERS["lung-pet-ct-dx"](tmp_path / "x")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.dcm")}
    (tmp_path / "all.zip").write_bytes(zipped(files))
    with Static(tmp_path) as host:
        report = lesionzarr.convert("lung-pet-ct-dx", f"{host.endpoint}/all.zip", tmp_path / "s.zarr")
    assert report.converted
    assert not report.failed


def test_headers_of_a_bucket_that_an_index_keeps_are_not_read_again(store, bucket, options, proxy, tmp_path):
    folder = MAKERS["lung-pet-ct-dx"](tmp_path / "x")
    upload(store, folder)
    reached = options | {"endpoint": proxy.endpoint}
    settings = {"source_options": reached, "index": tmp_path / "index.parquet"}
    scans, ranges = [], []
    for _ in range(2):
        proxy.reset_counts()
        scan, _ = plan("lung-pet-ct-dx", f"s3://{bucket}", tmp_path / "s.zarr", **settings)
        scans.append(scan.volumes)
        ranges.append(sum(request.path.endswith(".dcm") for request in proxy.log))
    assert scans[0] == scans[1]
    assert ranges == [len(list(folder.rglob("*.dcm"))), 0]


def test_an_index_has_to_be_a_file_of_this_machine(tmp_path):
    with pytest.raises(SettingError, match="--index is written too"):
        lesionzarr.convert("lung-pet-ct-dx", tmp_path, tmp_path / "s.zarr", index="s3://bucket/index.parquet")


def test_the_command_line_takes_the_options_of_a_source(in_bucket, options, capsys, monkeypatch, tmp_path):
    given = [f"--source-option={name}={value}" for name, value in options.items() if "key" not in name]
    keys = {name: value for name, value in options.items() if "key" in name}
    monkeypatch.setenv("LESIONZARR_STORAGE_OPTIONS", json.dumps(keys))
    assert main(["convert", "deeplesion", in_bucket, str(tmp_path / "s.zarr"), "--workers=1", "--json", *given]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown)["counts"]["failures"] == 0
    assert options["secret_access_key"] not in shown
    assert main(["convert", "deeplesion", in_bucket, str(tmp_path / "s.zarr"), "--dry-run", *given]) == 0


def test_the_commands_of_the_readme_run(store, bucket, options, capsys, monkeypatch, tmp_path):
    upload(store, samples.deeplesion(tmp_path / "x", lesions=4, image_size=32, slices=3), "DeepLesion/")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LESIONZARR_STORAGE_OPTIONS", json.dumps(options))
    blocks = re.findall(r"```bash\n(.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.DOTALL)
    (block,) = (block for block in blocks if "s3://lab/DeepLesion" in block)
    for line in block.replace("s3://lab", f"s3://{bucket}").replace(" --workers 8", "").splitlines():
        alone = ["--workers=1"] if "convert" in line else []
        assert main([*shlex.split(line)[1:], *alone]) == 0, capsys.readouterr()
    pd.testing.assert_frame_equal(
        lesionzarr.open("deeplesion.zarr").lesions, lesionzarr.open(f"s3://{bucket}/deeplesion.zarr").lesions
    )
    assert "volumes" in capsys.readouterr().out
