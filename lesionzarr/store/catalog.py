"""The catalog: the handle that users open, made of two tables.

Opening reads the root group, which tables are the catalog, and those; no group of a volume.
"""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr._lazy import cached_property
from lesionzarr._shown import ShownCatalog
from lesionzarr.errors import IntegrityError, NotFoundError, SettingError, StoreError, not_found
from lesionzarr.geometry import Grid
from lesionzarr.lesion import Lesion
from lesionzarr.store import layout
from lesionzarr.store.arrays import ArrayLayout, parse_layout
from lesionzarr.store.index import VOLUMES
from lesionzarr.store.location import Location, open_location
from lesionzarr.store.studies import describe_study, pair_volumes
from lesionzarr.store.tables import read_catalog
from lesionzarr.store.writer import missing_objects, read_root

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr

LOCAL_CACHE_BYTES = 10 * 1024**3

BLOCK_ROWS, MOST_BLOCKS = 256, 4096
"""Rows of a column of volumes that are made Python's together, and how many such blocks are kept: 100 MB at most."""

LATER = {"mask", "mask_array", "shards"}
"""Columns of volumes that stores of the first versions lack, and that can be done without."""

QUERY_ERRORS = (
    *(NameError, SyntaxError, TypeError, ValueError, LookupError, AttributeError, ArithmeticError, NotImplementedError),
)
"""What pandas raises for the many ways in which a query can mean nothing."""


@dataclass(frozen=True)
class Stored:
    """How the voxels of a volume are stored."""

    layout: ArrayLayout | None
    """None for an array that is left to zarr-python."""
    fill_value: float
    """The volume's own padding value in HU; of PET 0."""
    modality: str
    tags: dict[str, Any]
    """What the source says of the series, by keywords of DICOM."""


@dataclass(frozen=True, eq=False)
class Catalog(ShownCatalog):
    """An opened store: its volumes and lesions, and no pixels."""

    location: Location = field(repr=False)
    info: dict[str, Any]
    """Source, title, licence and citation of the dataset, format and tool of the store."""
    lesions: pd.DataFrame = field(repr=False)
    """One row per lesion, indexed by lesion_id; columns as `lesionzarr.lesion.Lesion`."""
    volumes: pd.DataFrame = field(repr=False)
    """One row per volume, indexed by volume_id."""
    cache_bytes: int = 0
    """Most bytes of decoded chunks that its readers keep together for later batches; 0 keeps none."""
    local_cache: Path | None = None
    """Folder where its readers keep what they read of a bucket."""
    local_cache_bytes: int = LOCAL_CACHE_BYTES

    # rows of a table become objects slowly, and a training loop asks for the same ones in every epoch
    _known: dict[str, Lesion] = field(default_factory=dict, init=False, repr=False)
    _grids: dict[str, Grid] = field(default_factory=dict, init=False, repr=False)
    _arrays: dict[str, Stored] = field(default_factory=dict, init=False, repr=False)
    _blocks: dict[tuple[str, int], list[Any]] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.lesions)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy in another process reads the tables itself: they are megabytes, the location is a path
        return _open, (self.location, self.cache_bytes, self.local_cache, self.local_cache_bytes)

    @cached_property
    def series(self) -> pd.DataFrame:
        """One row per series, indexed by series_id: its study and patient, number of volumes, slices and lesions."""
        groups = self.volumes.reset_index().groupby("series_id")
        return groups.agg(
            study_id=("study_id", "first"),
            patient_id=("patient_id", "first"),
            modality=("modality", "first"),
            volumes=("volume_id", "count"),
            slices=("slices", "sum"),
            lesions=("lesions", "sum"),
        )

    def study(self, study_id: str) -> pd.DataFrame:
        """List the volumes of one study.

        Parameters
        ----------
        study_id
            As in `volumes`.

        Returns
        -------
        pandas.DataFrame
            Indexed by volume_id: modality, kernel, description, contrast agent, spacing, slices, lesions, and for PET
            the SUV factor.

        Raises
        ------
        NotFoundError
            No study of that id; near ones are named.
        """
        if study_id not in set(self.volumes["study_id"]):
            raise not_found("study", study_id, self.volumes["study_id"].dropna().unique())
        return describe_study(self.volumes[self.volumes["study_id"] == study_id])

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """CT and PET volumes of one study and frame of reference: `ct`, `pet`, and the `overlap_mm` along z."""
        return pair_volumes(self.volumes)

    def select(self, query: str) -> pd.DataFrame:
        """Choose lesions by a query of `pandas.DataFrame.query`.

        Parameters
        ----------
        query
            Such as ``"type == 'lung' and long_mm > 10 and split == 'train'"``.

        Returns
        -------
        pandas.DataFrame
            Rows of `lesions`.

        Raises
        ------
        SettingError
            A query that pandas does not understand, or that names no column.
        """
        try:
            chosen: pd.DataFrame = self.lesions.query(query, engine="python")
        except QUERY_ERRORS as error:
            columns = ", ".join(map(str, self.lesions))
            raise SettingError(f"query {query!r}: {error}; the columns are {columns}") from error
        return chosen

    def counts(self) -> dict[str, Any]:
        """Count what the store holds, lesions also by split and type; plain JSON values."""
        return {
            "patients": int(self.volumes["patient_id"].nunique()),
            "studies": int(self.volumes["study_id"].nunique()),
            "series": int(self.volumes["series_id"].nunique()),
            "volumes": len(self.volumes),
            "slices": int(self.volumes["slices"].sum()),
            "lesions": len(self.lesions),
            "lesions without position": int((self.lesions["key_z"].isna() & self.lesions["z0"].isna()).sum()),
            "by split": self._count("split"),
            "by type": self._count("type"),
        }

    def find_lesions(self, ids: Sequence[str]) -> list[Lesion]:
        """Give lesions by id.

        Parameters
        ----------
        ids
            Lesion ids.

        Returns
        -------
        list of Lesion
            In the order given.

        Raises
        ------
        NotFoundError
            No lesion of that id; near ones are named.
        """
        if isinstance(ids, str):
            ids = [ids]
        new = [lesion_id for lesion_id in ids if lesion_id not in self._known]
        if new:
            places = self.lesions.index.get_indexer(pd.Index(new, dtype=object))
            if (places < 0).any():
                raise not_found("lesion", new[int((places < 0).argmax())], self.lesions.index)
            rows = self.lesions.iloc[places].reset_index().to_dict("records")
            lesions = (Lesion.from_row({str(name): value for name, value in row.items()}) for row in rows)
            self._known.update((lesion.lesion_id, lesion) for lesion in lesions)
        return [self._known[lesion_id] for lesion_id in ids]

    def _count(self, column: str) -> dict[str, int]:
        counts = self.lesions[column].fillna("unknown").value_counts()
        return {str(name): int(number) for name, number in counts.items()}

    def grid(self, volume_id: str) -> Grid:
        """Give shape, spacing and orientation of a volume.

        Raises
        ------
        NotFoundError
            No volume of that id; near ones are named.
        """
        known = self._grids.get(volume_id)
        if known is None:
            known = self._grids[volume_id] = self._make_grid(volume_id)
        return known

    def array(self, volume_id: str) -> Stored:
        """Say how the voxels of a volume are stored; nothing is read for that.

        Raises
        ------
        NotFoundError
            No volume of that id; near ones are named.
        """
        known = self._arrays.get(volume_id)
        if known is None:
            self._check_volume(volume_id)
            modality = str(self._cell(volume_id, "modality"))
            parsed, fill_value = _parse_array(str(self._cell(volume_id, "array")), layout.KINDS[modality].array)
            array = self._with_shards(parsed, volume_id, "voxels")
            tags = json.loads(str(self._cell(volume_id, "tags")))
            known = self._arrays[volume_id] = Stored(array, fill_value, modality, tags)
        return known

    def _cell(self, volume_id: str, column: str) -> Any:
        # pandas takes a hundredth of a millisecond for a cell, and thousands of volumes have dozens
        place: Any = self.volumes.index.get_loc(volume_id)
        block, row = divmod(place, BLOCK_ROWS)
        known = self._blocks.get((column, block))
        if known is None:
            if len(self._blocks) >= MOST_BLOCKS:
                self._blocks.clear()
            rows = slice(block * BLOCK_ROWS, (block + 1) * BLOCK_ROWS)
            known = self._blocks[column, block] = self.volumes[column].iloc[rows].tolist()
        return known[row]

    def _check_volume(self, volume_id: str) -> None:
        if volume_id not in self.volumes.index:
            raise not_found("volume", volume_id, self.volumes.index)

    def _make_grid(self, volume_id: str) -> Grid:
        self._check_volume(volume_id)
        names = ("slices", "rows", "columns", "orientation", "affine")
        row = {name: self._cell(volume_id, name) for name in names}
        z_mm, y_mm, x_mm = (self._cell(volume_id, f"spacing_{name}_mm") for name in "zyx")
        return Grid(
            (row["slices"], row["rows"], row["columns"]),
            (None if math.isnan(z_mm) else z_mm, y_mm, x_mm),
            None if row["orientation"] is None else tuple(row["orientation"]),
            None if row["affine"] is None else tuple(map(tuple, row["affine"].reshape(3, 4).tolist())),
        )

    def volume(self, volume_id: str) -> xr.Dataset:
        """Open a volume with xarray, lazily.

        Parameters
        ----------
        volume_id
            Such as ``"000001_01_01_103-115"``.

        Returns
        -------
        xarray.Dataset
            `hu`, int16 (z, y, x), or of PET `activity`, float32, with coordinates z, y, x in mm; nothing is read before
            it is asked for.

        Raises
        ------
        NotFoundError
            No volume of that id; near ones are named.
        IntegrityError
            A part of the volume is missing.
        """
        shape, modality = self.grid(volume_id).shape, self.volumes["modality"][volume_id]
        missing = missing_objects(
            self.location, volume_id, shape, modality, has_mask=self.mask_array(volume_id) is not None
        )
        if missing:
            # zarr would give padding for a shard that is not there
            raise IntegrityError(f"{self.location.name}: {missing[0]} is missing; convert the volume again")
        return self._open_group(layout.volume_key(volume_id), (layout.KINDS[modality].array, *"zyx"))

    def mask(self, volume_id: str) -> xr.DataArray:
        """Open the instance mask of a volume with xarray, lazily.

        Parameters
        ----------
        volume_id
            Of a volume whose source has a mask (`volumes` tells its checksum in the column ``mask``).

        Returns
        -------
        xarray.DataArray
            uint8 or uint16 (z, y, x), on the coordinates of the volume: 0, or the ``mask_label`` of a lesion.

        Raises
        ------
        NotFoundError
            No volume of that id, or it has no mask.
        IntegrityError
            A part of the volume is missing.
        """
        dataset = self.volume(volume_id)
        if self.mask_array(volume_id) is None:
            raise NotFoundError(f"volume {volume_id} has no mask: its source gives none")
        mask = self._open_group(f"{layout.volume_key(volume_id)}/{layout.MASK}", [layout.MASK_ARRAY])[layout.MASK_ARRAY]
        return mask.rename("lesions").assign_coords(dataset.coords)

    def mask_array(self, volume_id: str) -> dict[str, Any] | None:
        """Give the Zarr metadata of the mask of a volume; None where it has none. Nothing is read for that."""
        self._check_volume(volume_id)
        # stores of the first versions have no such column
        cell = self._cell(volume_id, "mask_array") if "mask_array" in self.volumes else None
        return json.loads(cell) if isinstance(cell, str) else None

    def mask_layout(self, volume_id: str) -> ArrayLayout | None:
        """Say how the mask of a volume is stored; None where it has none, or one that is left to zarr-python."""
        metadata = self.mask_array(volume_id)
        if metadata is None:
            return None
        return self._with_shards(parse_layout(metadata, layout.MASK_ARRAY), volume_id, "mask")

    def _with_shards(self, array: ArrayLayout | None, volume_id: str, name: str) -> ArrayLayout | None:
        """Add what the catalog knows of the objects of an array."""
        # stores of the first versions have no such column
        if array is None or "shards" not in self.volumes:
            return array
        shards = json.loads(str(self._cell(volume_id, "shards")))
        objects = tuple((length, head) for length, head in shards.get(name, ()))
        return replace(
            array, objects=objects, version=f"{self._cell(volume_id, name)} {self._cell(volume_id, 'profile')}"
        )

    def _open_group(self, key: str, names: Sequence[str]) -> xr.Dataset:
        import xarray as xr

        from lesionzarr.store._members import KnownMembers

        store = KnownMembers(self.location.zarr_store(), {key: names})
        dataset: xr.Dataset = xr.open_zarr(store, group=key, chunks=None, consolidated=False, zarr_format=3)
        return dataset


@lru_cache(maxsize=1024)
def _parse_array(text: str, name: str) -> tuple[ArrayLayout | None, float]:
    # volumes of one shape share their metadata
    metadata = json.loads(text)
    return parse_layout(metadata, name), metadata["fill_value"]


def open_catalog(
    url: str | os.PathLike[str],
    storage_options: Mapping[str, Any] | None = None,
    *,
    cache_bytes: int = 0,
    local_cache: str | os.PathLike[str] | None = None,
    local_cache_bytes: int = LOCAL_CACHE_BYTES,
) -> Catalog:
    """Open a store.

    Parameters
    ----------
    url
        Path or URL of the store.
    storage_options
        Options of the object store, where `url` is a URL.
    cache_bytes
        Most bytes of decoded chunks that the readers of this catalog keep together for later batches. It pays where
        lesions of one volume are read again and again, as with several windows or random shifts.
    local_cache
        Folder where what is read of a bucket is kept for later, also for other processes; it has no use for a store in
        a folder. Nothing else belongs into it.
    local_cache_bytes
        Most bytes of that folder; what was not used for longest is deleted.

    Returns
    -------
    Catalog

    Raises
    ------
    NotFoundError
        Nothing is there.
    SettingError
        Something else than a lesionzarr store of a known format is there.
    StoreError
        The store cannot be reached, or has no catalog.
    """
    check_cache(cache_bytes)
    check_cache(local_cache_bytes)
    folder = None if local_cache is None else Path(local_cache).absolute()
    return _open(open_location(url, storage_options), cache_bytes, folder, local_cache_bytes)


def check_cache(cache_bytes: int) -> None:
    """Raise SettingError for a cache of less than nothing."""
    if cache_bytes < 0:
        raise SettingError(f"a cache of {cache_bytes} bytes: 0 keeps nothing, more keeps that much")


def _open(
    location: Location,
    cache_bytes: int = 0,
    local_cache: Path | None = None,
    local_cache_bytes: int = LOCAL_CACHE_BYTES,
) -> Catalog:
    with ThreadPoolExecutor(1) as pool:
        # of a bucket these take two round trips
        tables = pool.submit(read_catalog, location)
        info = read_root(location)
    if info is None:
        raise NotFoundError(f"no store at {location.name}: no zarr.json in it")
    if info.get("kind") == "pack":
        raise SettingError(f"{location.name}: a pack; open it with lesionzarr.open_pack")
    lesions, volumes = tables.result()
    if not {*VOLUMES.names} - LATER <= {*volumes, "volume_id"}:
        raise StoreError(f"{location.name}: its catalog is of an older lesionzarr; run `lesionzarr index`")
    # it has answered: what fails from now on is an outage, which is waited for
    return Catalog(location.reached(), info, lesions, volumes, cache_bytes, local_cache, local_cache_bytes)
