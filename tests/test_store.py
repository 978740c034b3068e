"""The store format, read by others: zarr-python, tensorstore, xarray, ome-zarr-models."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import ome_zarr_models
import pandas as pd
import pytest
import tensorstore
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.errors import IntegrityError, NotFoundError, SettingError, SourceError, StoreError
from lesionzarr.geometry import Region
from lesionzarr.lesion import COLUMNS, Lesion
from lesionzarr.store import layout
from lesionzarr.store.generations import read_generation
from lesionzarr.store.location import open_location
from lesionzarr.store.shards import chunks_of_regions, encode_shard
from lesionzarr.store.writer import create_store, write_volume

DESCRIPTION = {"source": "deeplesion", "title": "", "licence": "", "citation": ""}


def tensorstore_read(path):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/"}}
    return tensorstore.open(spec).result().read().result()


def groups(store):
    return sorted(path.parent for path in (store / "volumes").glob("*/zarr.json"))


def strict_json(path):
    def refuse(word):
        raise AssertionError(f"{path} holds {word}, which is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_every_voxel_is_the_stored_png_less_32768(real, real_store):
    for series, first, last in [("000001_01_01", 103, 115), ("000001_03_01", 58, 118)]:
        files = [real / "Images_png" / series / f"{number:03d}.png" for number in range(first, last + 1)]
        expected = np.stack([np.asarray(Image.open(file)).astype(np.int64) - 32768 for file in files])
        found = zarr.open_array(real_store / "volumes" / f"{series}_{first:03d}-{last:03d}" / "hu", mode="r")
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found[:], expected)
    assert expected.min() == -1024
    assert expected.max() == 1543


@pytest.mark.parametrize("which", ["real_store", "sample_store"])
def test_zarr_tensorstore_and_xarray_read_equal_voxels(which, request):
    store = request.getfixturevalue(which)
    catalog = lesionzarr.open(store)
    for path in groups(store):
        by_zarr = zarr.open_array(path / "hu", mode="r")[:]
        np.testing.assert_array_equal(tensorstore_read(path / "hu"), by_zarr)
        dataset = catalog.volume(path.name)
        np.testing.assert_array_equal(dataset["hu"].to_numpy(), by_zarr)
        for name in "zyx":
            np.testing.assert_array_equal(tensorstore_read(path / name), dataset[name].to_numpy())


@pytest.mark.parametrize("which", ["real_store", "sample_store"])
def test_every_group_is_a_valid_ome_zarr_image(which, request):
    for path in groups(request.getfixturevalue(which)):
        image = ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))
        assert type(image).__module__.startswith("ome_zarr_models.v05")
        (scale,) = image.attributes.ome.multiscales[0].datasets[0].coordinateTransformations
        volume = strict_json(path / "zarr.json")["attributes"]["lesionzarr"]["volume"]
        assert scale.scale == [mm or 1.0 for mm in volume["spacing_mm"]]


def test_world_coordinates_are_those_of_the_official_nifti_export(real_store):
    # DL_save_nifti writes RAS affine rows [0, -sy, 0], [-sx, 0, 0], [0, 0, -sz] for axes (row, column, slice): in LPS a
    # column adds +sx to x, a row +sy to y, a slice -sz to z
    dataset = lesionzarr.open(real_store).volume("000001_01_01_103-115")
    assert dataset["x"].to_numpy()[1] == 0.488281
    assert dataset["y"].to_numpy()[1] == 0.488281
    assert dataset["z"].to_numpy()[:3].tolist() == [0, -5, -10]
    axes = dataset.attrs["ome"]["multiscales"][0]["axes"]
    assert [axis["orientation"]["value"] for axis in axes] == [
        "superior-to-inferior",
        "anterior-to-posterior",
        "right-to-left",
    ]


def test_lesions_are_the_rows_of_the_table_under_the_stated_convention(real, real_store):
    lesions = lesionzarr.open(real_store).lesions
    table = pd.read_csv(real / "DL_info_shared_images.csv")
    for (_, ours), (_, row) in zip(lesions.iterrows(), table.iterrows(), strict=True):

        def numbers(name, row=row):
            return [float(value) for value in row[name].split(",")]

        assert [ours[name] + 1 for name in ("x0", "y0", "x1", "y1")] == pytest.approx(numbers("Bounding_boxes"))
        assert [v + 1 for v in ours["recist"]] == pytest.approx(numbers("Measurement_coordinates"))
        spacing, diameters = numbers("Spacing_mm_px_"), numbers("Lesion_diameters_Pixel_")
        assert [ours["long_mm"], ours["short_mm"]] == pytest.approx([px * spacing[0] for px in diameters])
        first = numbers("Slice_range")[0]
        assert ours["key_z"] + first == row["Key_slice_index"]
        assert ours["key_slice"] == str(row["Key_slice_index"])
        assert (ours["sex"], ours["age"], ours["split"]) == (row["Patient_gender"], row["Patient_age"], "test")
        assert (ours["window_low"], ours["window_high"]) == (-175, 275)
        assert list(ours["derived"]) == ["long_mm", "short_mm"]


def test_padding_value_of_the_scanner_becomes_the_fill_value(real_store):
    fills = {path.name: strict_json(path / "hu" / "zarr.json")["fill_value"] for path in groups(real_store)}
    assert fills == {"000001_01_01_103-115": -3024, "000001_03_01_058-118": -1024}


def test_checksum_is_that_of_the_little_endian_voxels(real_store):
    catalog = lesionzarr.open(real_store)
    for volume_id, row in catalog.volumes.iterrows():
        voxels = catalog.volume(volume_id)["hu"].to_numpy()
        assert row["voxels"] == "sha256:" + hashlib.sha256(voxels.astype("<i2").tobytes()).hexdigest()


def test_attributes_are_strict_json_without_a_path_of_the_machine(sample_store, sample):
    for path in [sample_store, *groups(sample_store)]:
        text = (path / "zarr.json").read_text()
        strict_json(path / "zarr.json")
        assert str(sample.parent) not in text
        assert str(sample_store.parent) not in text


def test_provenance_names_the_source_files_and_their_sizes(real, real_store):
    made = strict_json(real_store / "volumes" / "000001_01_01_103-115" / "zarr.json")["attributes"]["lesionzarr"]
    provenance = made["provenance"]
    assert provenance["roots"] == ["Images_png"]
    assert provenance["files"][0] == "000001_01_01/103.png"
    sizes = [(real / "Images_png" / name).stat().st_size for name in provenance["files"]]
    assert provenance["file_bytes"] == sizes
    assert provenance["tool"] == f"lesionzarr {lesionzarr.__version__}"


def test_catalog_equals_the_attributes_that_it_is_derived_from(sample_store):
    rows = []
    for path in groups(sample_store):
        rows += strict_json(path / "zarr.json")["attributes"]["lesionzarr"]["lesions"]
    from_attributes = {row["lesion_id"]: Lesion.from_row(row) for row in rows}
    catalog = lesionzarr.open(sample_store)
    from_catalog = {lesion.lesion_id: lesion for lesion in catalog.find_lesions(list(catalog.lesions.index))}
    assert from_catalog == from_attributes
    assert list(rows[0]) == list(COLUMNS)
    assert ["lesion_id", *catalog.lesions.columns] == list(COLUMNS)


def test_index_makes_the_same_catalog_again(sample_store, tmp_path, capsys):
    tables = [sample_store / key for key in read_generation(open_location(sample_store)).tables]
    before = [path.read_bytes() for path in tables]
    for path in tables:
        path.unlink()
    with pytest.raises(StoreError, match="lesionzarr index"):
        lesionzarr.open(sample_store)
    assert main(["index", str(sample_store)]) == 0
    assert [path.read_bytes() for path in tables] == before


def test_a_store_is_the_same_through_obstore(sample_store):
    here, there = lesionzarr.open(sample_store), lesionzarr.open(f"file://{sample_store}", {"mkdir": False})
    pd.testing.assert_frame_equal(here.lesions, there.lesions)
    first = here.volumes.index[0]
    np.testing.assert_array_equal(here.volume(first)["hu"].to_numpy(), there.volume(first)["hu"].values)
    lesion = here.lesions.index[0]
    np.testing.assert_array_equal(
        lesionzarr.CropReader(here).read(lesion).image, lesionzarr.CropReader(there).read(lesion).image
    )


def test_a_store_can_be_written_through_obstore(sample, sample_store, tmp_path):
    lesionzarr.convert("deeplesion", sample, f"file://{tmp_path}/copy.zarr", storage_options={"mkdir": True})
    copy_ = tmp_path / "copy.zarr"
    names = sorted(path.relative_to(copy_ / "volumes") for path in (copy_ / "volumes").rglob("*") if path.is_file())
    expected = sorted(
        p.relative_to(sample_store / "volumes") for p in (sample_store / "volumes").rglob("*") if p.is_file()
    )
    assert names == expected
    for name in names:
        assert (copy_ / "volumes" / name).read_bytes() == (sample_store / "volumes" / name).read_bytes()


@pytest.mark.parametrize("profile", layout.PROFILES)
def test_every_profile_is_read_back_by_zarr_python(profile, sample, tmp_path):
    report = lesionzarr.convert("deeplesion", sample, tmp_path / "s.zarr", profile=profile)
    converter = DeepLesion(sample)
    for volume in converter.scan().volumes:
        path = tmp_path / "s.zarr" / "volumes" / volume.volume_id / "hu"
        np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], converter.read_volume(volume))
    assert len(report.converted) > 1


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 70), st.integers(1, 70)),
    chunk=st.tuples(st.integers(1, 5), st.integers(8, 40), st.integers(8, 40)),
    codecs=st.sampled_from([layout.volume_codecs("portable"), layout.volume_codecs("fast")]),
    seed=st.integers(0, 2**32 - 1),
)
def test_shards_of_any_shape_are_read_equal_by_zarr_and_tensorstore(tmp_path_factory, shape, chunk, codecs, seed):
    shard = tuple(-(-size // edge) * edge for size, edge in zip(shape, chunk, strict=True))
    voxels = np.random.default_rng(seed).integers(-3024, 3071, shape, dtype=np.int16)
    metadata = copy.deepcopy(layout.voxel_metadata(shape, -1024, "portable"))
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = list(shard)
    metadata["codecs"][0]["configuration"] |= {"chunk_shape": list(chunk), "codecs": codecs}
    path = tmp_path_factory.mktemp("array")
    (path / "c/0/0").mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(metadata))
    (path / "c/0/0/0").write_bytes(encode_shard(voxels, shard, chunk, -1024, codecs).data)
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], voxels)
    np.testing.assert_array_equal(tensorstore_read(path), voxels)


def test_a_catalog_of_an_older_version_is_refused_until_it_is_derived_anew(sample_store, tmp_path, capsys):
    store = shutil.copytree(sample_store, tmp_path / "s.zarr")
    table = store / read_generation(open_location(store)).tables[0]
    pd.read_parquet(table).drop(columns=["tags", "affine"]).to_parquet(table)
    with pytest.raises(StoreError, match="older lesionzarr; run `lesionzarr index`"):
        lesionzarr.open(store)
    assert main(["index", str(store)]) == 0
    capsys.readouterr()
    pd.testing.assert_frame_equal(lesionzarr.open(store).volumes, lesionzarr.open(sample_store).volumes)


@settings(max_examples=40, deadline=None)
@given(
    starts=st.lists(st.tuples(st.integers(-9, 40), st.integers(-30, 90), st.integers(-30, 90)), max_size=4),
    size=st.tuples(st.integers(1, 9), st.integers(1, 60), st.integers(1, 60)),
    first=st.sampled_from([0, 8, 16]),
)
def test_the_chunks_of_a_region_come_first_each_once_and_in_order(starts, size, first):
    shard, chunk = (16, 96, 80), (4, 32, 16)
    regions = [Region(start, tuple(a + b for a, b in zip(start, size, strict=True))) for start in starts]
    found = chunks_of_regions(regions, first, shard, chunk)
    assert len(found) == len(set(found))
    expected = []
    for number in range(4 * 3 * 5):
        z, y, x = number // 15, number // 5 % 3, number % 5
        low = (first + 4 * z, 32 * y, 16 * x)
        touches = [
            all(a < c + d and c < b for a, b, c, d in zip(region.start, region.stop, low, chunk, strict=True))
            for region in regions
        ]
        if any(touches):
            expected.append((touches.index(True), number))
    assert found == [number for _, number in sorted(expected)]


@settings(max_examples=20, deadline=None)
@given(order=st.lists(st.integers(0, 7), unique=True))
def test_a_shard_reads_the_same_in_any_order_of_its_chunks(tmp_path_factory, order):
    voxels = np.random.default_rng(0).integers(-1000, 1000, (4, 8, 6), dtype=np.int16)
    codecs = layout.volume_codecs("portable")
    metadata = layout.voxel_metadata((4, 8, 6), -1024, "portable")
    metadata["chunk_grid"]["configuration"]["chunk_shape"] = [4, 8, 6]
    metadata["codecs"][0]["configuration"]["chunk_shape"] = [2, 4, 3]
    path = tmp_path_factory.mktemp("array")
    (path / "c/0/0").mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(metadata))
    data, head = encode_shard(voxels, (4, 8, 6), (2, 4, 3), -1024, codecs, order)
    (path / "c/0/0/0").write_bytes(data)
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], voxels)
    offsets, lengths = np.frombuffer(data[-4 - 16 * 8 : -4], dtype="<u8").reshape(-1, 2).T
    assert head == sum(lengths[order])
    assert np.argsort(offsets).tolist() == [*order, *(number for number in range(8) if number not in order)]


def test_volumes_of_more_than_one_shard_are_whole(tmp_path):
    rng = np.random.default_rng(0)
    voxels = rng.integers(-1024, 3071, (layout.SHARD_SLICES * 2 + 3, 70, 130), dtype=np.int16)
    location = open_location(tmp_path)
    create_store(location, DESCRIPTION)
    volume = _volume("000001_01_01_001-131", voxels.shape)
    write_volume(location, volume, voxels, {"converter": "deeplesion"}, "portable")
    path = tmp_path / "volumes" / volume.volume_id / "hu"
    assert sorted(p.name for p in (path / "c").iterdir()) == ["0", "1", "2"]
    np.testing.assert_array_equal(zarr.open_array(path, mode="r")[:], voxels)
    np.testing.assert_array_equal(tensorstore_read(path), voxels)


def test_an_unknown_slice_interval_is_null_and_its_axis_has_no_unit(tmp_path):
    location = open_location(tmp_path)
    create_store(location, DESCRIPTION)
    volume = _volume("000001_01_01_001-002", (2, 8, 8), spacing_z=None)
    write_volume(location, volume, np.zeros((2, 8, 8), np.int16), {"converter": "deeplesion"}, "portable")
    path = tmp_path / "volumes" / volume.volume_id
    attributes = strict_json(path / "zarr.json")["attributes"]
    assert attributes["lesionzarr"]["volume"]["spacing_mm"] == [None, 0.5, 0.5]
    assert "unit" not in attributes["ome"]["multiscales"][0]["axes"][0]
    ome_zarr_models.open_ome_zarr(zarr.open_group(path, mode="r"))
    assert "units" not in strict_json(path / "z" / "zarr.json")["attributes"]


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\b", "", ".hidden", "a..b", "ü", "-a"])
def test_volume_ids_that_are_no_folder_names_are_refused(name):
    with pytest.raises(SourceError, match="volume id"):
        layout.check_ids([name])


def test_volume_ids_that_differ_only_in_case_are_refused():
    layout.check_ids(["a", "b", "a"])
    with pytest.raises(SourceError, match="differ only in case"):
        layout.check_ids(["Scan", "scan"])


def test_an_absent_store_and_another_group_are_told_apart(tmp_path):
    with pytest.raises(NotFoundError, match="no store"):
        lesionzarr.open(tmp_path / "absent.zarr")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(SettingError, match="no lesionzarr store"):
        lesionzarr.open(tmp_path / "other.zarr")
    zarr.create_group(tmp_path / "new.zarr", zarr_format=3, attributes={"lesionzarr": {"format": 99}})
    with pytest.raises(SettingError, match="format 99"):
        lesionzarr.open(tmp_path / "new.zarr")


def test_a_store_of_another_source_is_not_written_into(tmp_path):
    location = open_location(tmp_path)
    create_store(location, DESCRIPTION)
    with pytest.raises(StoreError, match="holds deeplesion, not other"):
        create_store(location, {**DESCRIPTION, "source": "other"})


def test_a_destination_below_a_file_is_refused(sample, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"a.zarr/zarr.json: Not a directory"):
        lesionzarr.convert("deeplesion", sample, tmp_path / "file" / "a.zarr")


def test_a_damaged_catalog_is_named(sample_store, tmp_path):
    location = open_location(tmp_path)
    create_store(location, DESCRIPTION)
    location.write(layout.LESIONS_TABLE, b"PAR1 nonsense PAR1")
    location.write(layout.VOLUMES_TABLE, b"PAR1 nonsense PAR1")
    with pytest.raises(IntegrityError, match=r"lesions.parquet: damaged"):
        lesionzarr.open(tmp_path)


def test_volume_ids_near_the_one_asked_for_are_named(sample_store):
    catalog = lesionzarr.open(sample_store)
    known = catalog.volumes.index[0]
    with pytest.raises(NotFoundError, match=known):
        catalog.volume(known[:-1])


def test_opening_reads_no_group_of_a_volume(sample_store, tmp_path):
    for key in (layout.GROUP_FILE, layout.CATALOG_FILE, *read_generation(open_location(sample_store)).tables):
        path = tmp_path / key
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_bytes((sample_store / key).read_bytes())
    catalog = lesionzarr.open(tmp_path)
    assert len(catalog) == len(lesionzarr.open(sample_store)) > 0
    assert catalog.series["lesions"].sum() == len(catalog)
    assert math.isclose(catalog.volumes["slices"].sum(), catalog.series["slices"].sum())


def _volume(volume_id, shape, spacing_z=2.0):
    from lesionzarr.geometry import Grid
    from lesionzarr.series import SourceFile, Volume

    files = tuple(SourceFile("Images_png", f"{n:03d}.png", 1, 1) for n in range(shape[0]))
    grid = Grid(shape, (spacing_z, 0.5, 0.5))
    return Volume(volume_id, "000001_01_01", "000001_01", "000001", grid, 1, shape[0], files)


def test_a_fork_after_a_bucket_was_read_is_refused_at_once(sample_store, tmp_path):
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    code = f"""
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import lesionzarr
from lesionzarr.errors import StoreError
url = "file://{sample_store}"
lesionzarr.open(url, {{"mkdir": False}})
child = os.fork()
if child == 0:
    try:
        lesionzarr.open(url, {{"mkdir": False}})
    except StoreError as error:
        os._exit(7 if "spawn" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "7\n"
