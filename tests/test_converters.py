"""What holds for every converter that is installed: its own example becomes a store, and stays it."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

import lesionzarr
from lesionzarr.converters._base import converter_names, load_converter, make_converter, parse_day
from lesionzarr.store.layout import KINDS, REPORT

DTYPES = {modality: kind.dtype for modality, kind in KINDS.items()}


@pytest.fixture(scope="module", params=converter_names())
def example(request, tmp_path_factory):
    """Name and folder of the example of a converter."""
    folder = tmp_path_factory.mktemp(request.param) / "source"
    return request.param, load_converter(request.param).example(folder, 0)


def test_an_example_converts_without_a_fault_and_a_second_time_not_at_all(example, tmp_path):
    name, folder = example
    report = lesionzarr.convert(name, folder, tmp_path / "s.zarr")
    assert (report.failed, report.missing) == ((), ())
    assert report.converted
    assert json.loads((tmp_path / "s.zarr" / REPORT).read_text())["source"] == name
    catalog = lesionzarr.open(tmp_path / "s.zarr")
    assert set(catalog.volumes.index) == set(report.converted)
    assert len(catalog) > 0
    assert catalog.lesions["volume_id"].isin(catalog.volumes.index).all()
    again = lesionzarr.convert(name, folder, tmp_path / "s.zarr")
    assert (again.converted, again.updated, len(again.skipped)) == ((), (), len(report.converted))


def test_voxels_and_lesions_are_as_the_contract_says(example):
    name, folder = example
    converter = pickle.loads(pickle.dumps(make_converter(name, folder, {})))  # noqa: S301 - as workers get it
    for volume in converter.scan().volumes:
        voxels = converter.read_volume(volume)
        assert voxels.dtype == np.dtype(DTYPES[volume.modality])
        assert (voxels.shape, len(volume.files)) == (volume.grid.shape, volume.grid.shape[0])
        json.dumps([volume.tags, [lesion.to_row() for lesion in volume.lesions]], allow_nan=False)
        for lesion in volume.lesions:
            assert lesion.volume_id == volume.volume_id
            assert lesion.key_z is None or 0 <= lesion.key_z < volume.grid.shape[0]


def test_an_example_is_the_same_for_the_same_seed(example, tmp_path):
    name, folder = example
    other = load_converter(name).example(tmp_path / "again", 0)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert all((folder / path).read_bytes() == (other / path).read_bytes() for path in files)


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("20210103", "2021-01-03"),
        (20210103, "2021-01-03"),
        *((text, None) for text in ("202113", "2021113", "20210230", "2021 1 3", "2021-01-03", "", None)),
    ],
)
def test_a_day_has_eight_digits(text, day):
    assert parse_day(text) == day
