"""Datasets of PyTorch: the epoch of `batches`, whatever the loader, its workers and how they are started."""

from __future__ import annotations

import dataclasses
import multiprocessing
import pickle

import numpy as np
import pytest

import lesionzarr
from lesionzarr.errors import GeometryError, SettingError

try:
    import torch
    from torch.utils.data import DataLoader
except ImportError as fault:
    pytest.skip(f"torch cannot be imported: {fault}", allow_module_level=True)

# a fork of a process with threads is what is to work here
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")

TIMEOUT_S = 120
METHODS = multiprocessing.get_all_start_methods()
ORDER = {"batch_size": 3, "seed": 5, "epoch": 1}


@pytest.fixture(scope="module")
def catalog(sample_store):
    return lesionzarr.open(sample_store)


@pytest.fixture(scope="module")
def reader(catalog):
    return lesionzarr.CropReader(catalog, size=(5, 24, 24), window=["dicom", "lung"])


def loader(dataset, method=None, **settings):
    """A loader with two workers, which raises where a worker hangs or dies."""
    if method is not None:
        settings |= {"num_workers": 2, "multiprocessing_context": method, "timeout": TIMEOUT_S}
    return DataLoader(dataset, **settings)


def assert_epoch(delivered, reader, **order):
    """The very batches of `Reader.batches`, in their order."""
    expected = list(reader.batches(**(ORDER | order)))
    delivered = list(delivered)
    assert len(delivered) == len(expected)
    names = list(reader.catalog.lesions.index)
    for sample, batch in zip(delivered, expected, strict=True):
        assert sample["lesion_id"] == [crop.lesion.lesion_id for crop in batch.crops]
        assert [names[index] for index in sample["index"].tolist()] == sample["lesion_id"]
        np.testing.assert_array_equal(sample["image"].numpy(), batch.image)
        np.testing.assert_array_equal(sample["valid"].numpy(), batch.valid)
        boxes = [[getattr(crop.box, name) for name in ("z0", "y0", "x0", "z1", "y1", "x1")] for crop in batch.crops]
        np.testing.assert_array_equal(sample["box"].numpy(), np.array(boxes, dtype=np.float32))


def test_an_item_is_a_crop(reader):
    dataset = reader.to_torch()
    crop = reader.read(dataset[4]["lesion_id"])
    item = dataset[4]
    assert item["index"] == 4
    assert item["image"].dtype == torch.uint8
    assert item["valid"].dtype == torch.bool
    assert item["box"].dtype == torch.float32
    np.testing.assert_array_equal(item["image"].numpy(), crop.image)
    np.testing.assert_array_equal(item["valid"].numpy(), crop.valid)
    assert item["box"].tolist() == pytest.approx(
        [crop.box.z0, crop.box.y0, crop.box.x0, crop.box.z1, crop.box.y1, crop.box.x1], abs=1e-4
    )


def test_items_are_counted_as_those_of_a_list(reader, catalog):
    dataset = reader.to_torch()
    assert len(dataset) == len(catalog)
    assert dataset[-1]["lesion_id"] == catalog.lesions.index[-1]
    with pytest.raises(IndexError):
        dataset[len(catalog)]


@pytest.mark.parametrize("dtype", ["uint8", "float32", None])
def test_images_of_every_dtype_become_tensors(catalog, dtype):
    settings = {} if dtype is None else {"window": "lung", "dtype": dtype}
    crops = lesionzarr.CropReader(catalog, size=(3, 8, 8), **settings)
    (sample,) = crops.to_torch(iterable=True)
    np.testing.assert_array_equal(sample["image"].numpy(), crops.read_batch(catalog.lesions).image)


@pytest.mark.parametrize("method", [None, *METHODS])
def test_a_map_style_dataset_gives_the_epoch(reader, method):
    reader.read_batch(reader.catalog.lesions)  # the parent has read before its workers start
    dataset = reader.to_torch(**ORDER)
    assert_epoch(loader(dataset, method, batch_size=3, collate_fn=dataset.collate), reader)


def test_the_loader_s_own_collate_does_as_well(reader):
    assert_epoch(loader(reader.to_torch(**ORDER), batch_size=3), reader)


@pytest.mark.parametrize("method", [None, *METHODS])
def test_an_iterable_dataset_gives_the_epoch(reader, method):
    reader.read_batch(reader.catalog.lesions)  # the parent has read before its workers start
    dataset = reader.to_torch(iterable=True, **ORDER)
    assert len(dataset) == 6  # of 16 lesions
    assert_epoch(loader(dataset, method, batch_size=None), reader)


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")  # more workers than cores, on purpose
@pytest.mark.parametrize("workers", [1, 3, 8])
def test_any_number_of_workers_gives_the_same_epoch(reader, workers):
    dataset = reader.to_torch(iterable=True, **ORDER)
    assert_epoch(DataLoader(dataset, batch_size=None, num_workers=workers, timeout=TIMEOUT_S), reader)


def test_without_a_loader_whole_batches_come_too(reader):
    assert_epoch(reader.to_torch(iterable=True, **ORDER), reader)


@pytest.mark.parametrize("iterable", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_the_epoch_is_set_in_workers_that_stay(reader, iterable, method):
    dataset = reader.to_torch(iterable=iterable, **ORDER)
    many = loader(dataset, method, batch_size=None if iterable else 3, persistent_workers=True)
    assert_epoch(many, reader)
    dataset.set_epoch(7, start_batch=4)
    assert_epoch(many, reader, epoch=7, start_batch=4)
    dataset.set_epoch(8)
    assert_epoch(many, reader, epoch=8)


@pytest.mark.parametrize("iterable", [True, False])
def test_ranks_splits_and_resuming_are_those_of_batches(reader, iterable):
    asked = {"batch_size": 2, "rank": 1, "ranks": 2, "start_batch": 2, "split": "train", "drop_last": True}
    dataset = reader.to_torch(iterable=iterable, **(ORDER | asked))
    assert_epoch(loader(dataset, batch_size=None if iterable else 2), reader, **asked)


@pytest.mark.parametrize("iterable", [True, False])
def test_an_epoch_without_a_full_batch_is_empty(reader, iterable):
    dataset = reader.to_torch(iterable=iterable, batch_size=100, drop_last=True)
    assert len(dataset) == 0
    with pytest.raises((IndexError, StopIteration)):
        next(iter(dataset)) if iterable else dataset[0]


def test_an_epoch_that_cannot_be_is_refused_and_the_one_before_stays(reader):
    dataset = reader.to_torch(iterable=True, **ORDER)
    for epoch, start_batch in [(-1, 0), (0, -1), (0, 7)]:
        with pytest.raises(SettingError):
            dataset.set_epoch(epoch, start_batch)
    assert_epoch(dataset, reader)


@pytest.mark.parametrize("iterable", [True, False])
@pytest.mark.parametrize("asked", [{"batch_size": 0}, {"split": "nowhere"}, {"prefetch": -1}, {"threads": 0}])
def test_what_means_nothing_is_refused_at_once(reader, iterable, asked):
    with pytest.raises(SettingError, match=next(iter(asked))):
        reader.to_torch(iterable=iterable, **asked)


def test_items_of_different_shapes_make_no_batch(reader, catalog):
    dataset = reader.to_torch()
    other = lesionzarr.CropReader(catalog, size=(5, 24, 25), window=["dicom", "lung"]).to_torch()
    with pytest.raises(GeometryError, match="different shapes"):
        dataset.collate([dataset[0], other[0]])


def test_a_lesion_that_was_moved_is_read_where_it_says(reader, catalog):
    (lesion,) = catalog.find_lesions(catalog.lesions.index[0])
    moved = dataclasses.replace(lesion, x0=lesion.x0 + 7, x1=lesion.x1 + 7)
    dataset = pickle.loads(pickle.dumps(reader.to_torch([lesion, moved])))  # noqa: S301
    np.testing.assert_array_equal(dataset[0]["image"][..., 7:].numpy(), dataset[1]["image"][..., :-7].numpy())


def test_embeddings_of_a_network_become_columns(sample_store):
    catalog = lesionzarr.open(sample_store)
    crops = lesionzarr.CropReader(catalog, size=(1, 16, 16), window="soft-tissue", dtype="float32")
    torch.manual_seed(0)
    layers = torch.nn.Conv2d(1, 4, 5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    network = torch.nn.Sequential(*layers).eval()

    def embed(batch):
        with torch.inference_mode():
            return network(torch.from_numpy(batch.image[:, :, 0])).numpy()

    found = lesionzarr.map_lesions(crops, catalog.lesions.index[:10], embed, batch_size=4)
    assert list(found.columns) == ["split", "0", "1", "2", "3"]
    np.testing.assert_allclose(found.iloc[[7], 1:], embed(crops.read_batch(found.index[7])), rtol=1e-5)
