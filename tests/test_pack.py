"""Packs: the images of a crop reader, from one chunk a lesion."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import IntegrityError, NotFoundError, SettingError, StoreError

SIZE = (5, 40, 30)


@pytest.fixture(scope="module")
def catalog(sample_store):
    return lesionzarr.open(sample_store)


@pytest.fixture(scope="module")
def packed(catalog, tmp_path_factory):
    path = tmp_path_factory.mktemp("pack") / "pack.zarr"
    assert lesionzarr.pack(catalog, path, size=SIZE, margin=(1, 6, 4)) == len(catalog)
    return path


@pytest.mark.parametrize("window", [None, "lung", ["full", "dicom"]])
@pytest.mark.parametrize("padding", [None, -500])
def test_without_shifts_a_pack_gives_what_its_store_gives(catalog, packed, window, padding):
    expected = lesionzarr.CropReader(catalog, size=SIZE, window=window, padding=padding).read_batch(catalog.lesions)
    found = lesionzarr.PackReader(lesionzarr.open_pack(packed), window=window, padding=padding)
    batch = found.read_batch(found.catalog.lesions)
    np.testing.assert_array_equal(batch.image, expected.image)
    np.testing.assert_array_equal(batch.valid, expected.valid)
    for ours, theirs in zip(batch.crops, expected.crops, strict=True):
        assert (ours.lesion, ours.origin, ours.step, ours.grid) == (
            theirs.lesion,
            theirs.origin,
            theirs.step,
            theirs.grid,
        )
        assert ours.box == theirs.box


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 3))
def test_a_shifted_image_is_the_crop_at_its_place(catalog, packed, seed, epoch):
    reader = lesionzarr.PackReader(lesionzarr.open_pack(packed), seed=seed, epoch=epoch)
    for crop in reader.read_batch(list(catalog.lesions.index[:4])).crops:
        hu = catalog.volume(crop.lesion.volume_id)["hu"].to_numpy()
        z, y, x = (int(part) for part in crop.origin)
        inside = np.argwhere(crop.valid)
        assert len(inside) > 0
        np.testing.assert_array_equal(crop.image[0][crop.valid], hu[tuple((inside + np.array((z, y, x))).T)])
        unshifted = lesionzarr.CropReader(catalog, size=SIZE).read(crop.lesion).origin
        assert all(abs(a - b) <= m for a, b, m in zip(crop.origin, unshifted, (1, 6, 4), strict=True))


def test_shifts_differ_between_epochs_and_not_between_runs(packed):
    opened = lesionzarr.open_pack(packed)
    first, same, other = (
        [crop.origin for crop in lesionzarr.PackReader(opened, seed=1, epoch=epoch).read_batch(opened.lesions).crops]
        for epoch in (0, 0, 1)
    )
    assert first == same
    assert first != other


def test_epochs_of_batches_bring_shifts_of_their_own(packed):
    opened = lesionzarr.open_pack(packed)
    reader = lesionzarr.PackReader(opened, seed=1)
    epochs = [
        {crop.lesion.lesion_id: crop.origin for batch in reader.batches(epoch=epoch) for crop in batch.crops}
        for epoch in (0, 0, 1)
    ]
    assert epochs[0] == epochs[1]
    assert epochs[0].keys() == epochs[2].keys()
    assert epochs[0] != epochs[2]


def test_a_resampled_pack_has_no_edge_voxels_to_repeat(catalog, tmp_path):
    lesionzarr.pack(catalog, tmp_path / "p.zarr", size=(3, 8, 8), spacing_mm=(None, 2.0, 2.0))
    with pytest.raises(SettingError, match="padding 'edge'"):
        lesionzarr.PackReader(lesionzarr.open_pack(tmp_path / "p.zarr"), padding="edge")


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1.5}, {"epoch": -1}])
def test_shifts_that_mean_nothing_are_refused(packed, wrong):
    with pytest.raises(SettingError, match=next(iter(wrong))):
        lesionzarr.PackReader(lesionzarr.open_pack(packed), **wrong)


def test_a_margin_and_a_cache_that_mean_nothing_are_refused(catalog, packed, tmp_path):
    with pytest.raises(SettingError, match="margin 5"):
        lesionzarr.pack(catalog, tmp_path / "p.zarr", margin=5)
    with pytest.raises(SettingError, match="a cache of -1 bytes"):
        lesionzarr.open_pack(packed, cache_bytes=-1)


def test_a_pack_is_a_plain_zarr_array_with_a_chunk_for_each_lesion(catalog, packed):
    array = zarr.open_array(packed / "volumes/lesions/hu", mode="r")
    assert array.shape == (len(catalog), 7, 52, 38)
    assert array.chunks == (1, 7, 52, 38)
    assert array.metadata.dimension_names == ("lesion", "z", "y", "x")
    crop = lesionzarr.CropReader(catalog, size=(7, 52, 38), padding=-1024).read_batch(catalog.lesions)
    np.testing.assert_array_equal(array[:], crop.image[:, 0])


def test_chosen_lesions_keep_their_order(catalog, tmp_path):
    chosen = list(catalog.lesions.index[[5, 2, 9]])
    lesionzarr.pack(catalog, tmp_path / "p.zarr", size=(1, 8, 8), lesions=chosen)
    opened = lesionzarr.open_pack(tmp_path / "p.zarr")
    assert list(opened.lesions.index) == list(opened.places.index) == chosen
    with pytest.raises(NotFoundError, match=catalog.lesions.index[0]):
        lesionzarr.PackReader(opened).read(catalog.lesions.index[0])


def test_more_lesions_than_a_shard_holds(catalog, tmp_path):
    many = list(catalog.lesions.index) * 5
    lesionzarr.pack(catalog, tmp_path / "p.zarr", size=(2, 9, 7), lesions=many[:70])
    array = zarr.open_array(tmp_path / "p.zarr/volumes/lesions/hu", mode="r")
    expected = lesionzarr.CropReader(catalog, size=(2, 9, 7), padding=-1024).read_batch(many[:70]).image
    np.testing.assert_array_equal(array[:], expected[:, 0])


def test_a_pack_survives_pickling_and_dask(packed):
    reader = pickle.loads(pickle.dumps(lesionzarr.PackReader(lesionzarr.open_pack(packed), window="lung")))  # noqa: S301
    batch = reader.read_batch(reader.catalog.lesions)
    np.testing.assert_array_equal(reader.to_dask(reader.catalog.lesions, batch_size=5).compute(), batch.image)
    assert reader.explain(reader.catalog.lesions).chunks == len(reader.catalog)


def test_the_command_packs_and_what_is_there_is_kept(sample_store, tmp_path, capsys):
    arguments = ["pack", str(sample_store), str(tmp_path / "p.zarr"), "--size", "1,8,8", "--margin", "0,1,1"]
    assert main([*arguments, "--query", "split == 'train'"]) == 0
    assert "8 lesions packed" in capsys.readouterr().out
    assert main(arguments) == 1
    assert "something already" in capsys.readouterr().err
    assert len(lesionzarr.open_pack(tmp_path / "p.zarr")) == 8


def test_packs_and_stores_are_told_apart(sample_store, packed, catalog, tmp_path):
    with pytest.raises(SettingError, match="no pack"):
        lesionzarr.open_pack(sample_store)
    with pytest.raises(NotFoundError, match="no pack at"):
        lesionzarr.open_pack(tmp_path / "none.zarr")
    with pytest.raises(SettingError, match="open_pack"):
        lesionzarr.PackReader(catalog)
    with pytest.raises(SettingError, match="a pack; open it with"):
        lesionzarr.open(packed)
    with pytest.raises(SettingError, match="margin"):
        lesionzarr.pack(catalog, tmp_path / "p.zarr", margin=(0, -1, 0))
    with pytest.raises(StoreError, match="something already"):
        lesionzarr.pack(catalog, packed)


def test_a_damaged_pack_never_gives_voxels(catalog, tmp_path):
    lesionzarr.pack(catalog, tmp_path / "p.zarr", size=(1, 8, 8))
    shard = tmp_path / "p.zarr/volumes/lesions/hu/c/0/0/0/0"
    data = bytearray(shard.read_bytes())
    data[20] ^= 1
    shard.write_bytes(data)
    opened = lesionzarr.open_pack(tmp_path / "p.zarr")
    with pytest.raises(IntegrityError, match="lesions/hu/c/0/0/0/0"):
        lesionzarr.PackReader(opened).read_batch(opened.lesions)


def test_a_lesion_moved_by_hand_is_read_where_it_was_packed(catalog, packed):
    opened = lesionzarr.open_pack(packed)
    (lesion,) = opened.find_lesions(opened.lesions.index[0])
    moved = dataclasses.replace(lesion, x0=lesion.x0 + 9, x1=lesion.x1 + 9)
    reader = lesionzarr.PackReader(opened)
    np.testing.assert_array_equal(reader.read(moved).image, reader.read(lesion).image)


def test_a_pack_may_be_resampled(catalog, tmp_path):
    spacing = (2.0, 1.5, 1.5)
    lesionzarr.pack(catalog, tmp_path / "p.zarr", size=(3, 24, 24), margin=(1, 2, 2), spacing_mm=spacing)
    opened = lesionzarr.open_pack(tmp_path / "p.zarr")
    assert opened.info["spacing_mm"] == list(spacing)
    expected = lesionzarr.CropReader(catalog, size=(3, 24, 24), spacing_mm=spacing).read_batch(catalog.lesions)
    found = lesionzarr.PackReader(opened).read_batch(opened.lesions)
    np.testing.assert_array_equal(found.image, expected.image)
    np.testing.assert_array_equal(found.valid, expected.valid)
    for ours, theirs in zip(found.crops, expected.crops, strict=True):
        assert ours.origin == pytest.approx(theirs.origin)
        assert ours.spacing_mm == pytest.approx(spacing)


def test_the_command_takes_a_spacing(sample_store, tmp_path, capsys):
    assert main(["pack", str(sample_store), str(tmp_path / "p.zarr"), "--size", "1,8,8", "--spacing", "2,1,1"]) == 0
    assert lesionzarr.open_pack(tmp_path / "p.zarr").info["spacing_mm"] == [2, 1, 1]
