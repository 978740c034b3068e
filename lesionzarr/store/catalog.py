"""The catalog: two Parquet tables derived from the groups, and the handle that users open.

Opening reads the root group and the two tables, and no group of a volume.
"""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr._lazy import cached_property
from lesionzarr.errors import IntegrityError, NotFoundError, SettingError, StoreError, not_found
from lesionzarr.geometry import Grid
from lesionzarr.lesion import COLUMNS, Lesion
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store.arrays import ArrayLayout, parse_layout
from lesionzarr.store.location import Location, open_location
from lesionzarr.store.studies import describe_study, pair_volumes
from lesionzarr.store.writer import has_mask, missing_objects, read_attributes, read_root

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import xarray as xr

ARROW: dict[str, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "tuple[float]": pa.list_(pa.float64()),
    "tuple[str]": pa.list_(pa.string()),
}
LESIONS = pa.schema([(name, ARROW[word]) for name, word in COLUMNS.items()])
VOLUMES = pa.schema(
    [
        *((name, pa.string()) for name in ("volume_id", "series_id", "study_id", "patient_id", "modality")),
        *((name, pa.int64()) for name in ("slices", "rows", "columns", "lesions")),
        *((name, pa.float64()) for name in ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm")),
        *((name, pa.int64()) for name in ("first_slice", "last_slice")),
        ("orientation", pa.list_(pa.string())),
        ("affine", pa.list_(pa.float64())),
        *((name, pa.string()) for name in ("frame_uid", "study_date", "kernel", "description")),
        ("tags", pa.string()),
        ("profile", pa.string()),
        ("voxels", pa.string()),
        ("array", pa.string()),
        ("mask", pa.string()),
        ("mask_array", pa.string()),
    ]
)
"""`lesions` counts the volume's lesions, `voxels` is their checksum, `array` the content of its ``zarr.json``; `mask`
and `mask_array` are those of the mask, null where there is none. `affine` is its three rows, one after the other;
`frame_uid`, `study_date`, `kernel` and `description` are copies of `tags`, an object of JSON."""

NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}
"""Integers stay integers where values are missing."""


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
class Catalog:
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

    # rows of a table become objects slowly, and a training loop asks for the same ones in every epoch
    _known: dict[str, Lesion] = field(default_factory=dict, init=False, repr=False)
    _grids: dict[str, Grid] = field(default_factory=dict, init=False, repr=False)
    _arrays: dict[str, Stored] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.lesions)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy in another process reads the tables itself: they are megabytes, the location is a path
        return _open, (self.location, self.cache_bytes)

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
            metadata = json.loads(str(self.volumes["array"][volume_id]))
            modality = str(self.volumes["modality"][volume_id])
            array = parse_layout(metadata, layout.KINDS[modality].array)
            tags = json.loads(str(self.volumes["tags"][volume_id]))
            known = self._arrays[volume_id] = Stored(array, metadata["fill_value"], modality, tags)
        return known

    def _check_volume(self, volume_id: str) -> None:
        if volume_id not in self.volumes.index:
            raise not_found("volume", volume_id, self.volumes.index)

    def _make_grid(self, volume_id: str) -> Grid:
        self._check_volume(volume_id)
        row: dict[Any, Any] = self.volumes.loc[volume_id].to_dict()
        z_mm, y_mm, x_mm = (row[f"spacing_{name}_mm"] for name in "zyx")
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
        return self._open_group(layout.volume_key(volume_id))

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
        mask = self._open_group(f"{layout.volume_key(volume_id)}/{layout.MASK}")[layout.MASK_ARRAY]
        return mask.rename("lesions").assign_coords(dataset.coords)

    def mask_array(self, volume_id: str) -> dict[str, Any] | None:
        """Give the Zarr metadata of the mask of a volume; None where it has none. Nothing is read for that."""
        self._check_volume(volume_id)
        # stores of the first versions have no such column
        cell = self.volumes["mask_array"][volume_id] if "mask_array" in self.volumes else None
        return json.loads(cell) if isinstance(cell, str) else None

    def _open_group(self, key: str) -> xr.Dataset:
        import xarray as xr

        dataset: xr.Dataset = xr.open_zarr(
            self.location.zarr_store(), group=key, chunks=None, consolidated=False, zarr_format=3
        )
        return dataset


def open_catalog(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None, *, cache_bytes: int = 0
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
    return _open(open_location(url, storage_options), cache_bytes)


def check_cache(cache_bytes: int) -> None:
    """Raise SettingError for a cache of less than nothing."""
    if cache_bytes < 0:
        raise SettingError(f"a cache of {cache_bytes} bytes: 0 keeps nothing, more keeps that much")


def write_catalog(location: Location) -> tuple[int, list[Issue]]:
    """Derive both tables from the groups of the volumes, and write them.

    Parameters
    ----------
    location
        The store.

    Returns
    -------
    int
        Number of lesions.
    list of Issue
        Volumes that are damaged, and left out.
    """
    volumes: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []
    issues: list[Issue] = []
    for volume_id in location.list_folders(layout.VOLUMES):
        try:
            own = _read_own(location, volume_id)
            if own is not None:
                volumes.append(_volume_row(location, volume_id, own))
                lesions += own["lesions"]
        except IntegrityError as error:
            issues.append(Issue("damaged-volume", volume_id, "", f"{error}; it is left out of the catalog"))
    lesions.sort(key=_order)
    location.write(layout.VOLUMES_TABLE, write_table(volumes, VOLUMES))
    location.write(layout.LESIONS_TABLE, write_table(lesions, LESIONS))
    return len(lesions), issues


def _open(location: Location, cache_bytes: int = 0) -> Catalog:
    info = read_root(location)
    if info is None:
        raise NotFoundError(f"no store at {location.name}: no zarr.json in it")
    if info.get("kind") == "pack":
        raise SettingError(f"{location.name}: a pack; open it with lesionzarr.open_pack")
    lesions = read_table(location, layout.LESIONS_TABLE, "lesion_id")
    volumes = read_table(location, layout.VOLUMES_TABLE, "volume_id")
    if not {*VOLUMES.names} <= {*volumes, "volume_id"}:
        raise StoreError(f"{location.name}: its catalog is of an older lesionzarr; run `lesionzarr index`")
    return Catalog(location, info, lesions, volumes, cache_bytes)


def _order(row: dict[str, Any]) -> tuple[bool, int, str]:
    # the source's own order; rows that come from no row of its table follow
    number = row["source_row"]
    return number is None, number or 0, row["lesion_id"]


def _read_own(location: Location, volume_id: str) -> dict[str, Any] | None:
    """Read a volume's attributes; None for one that is half written, which the next conversion makes anew."""
    own = read_attributes(location, volume_id)
    group = f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}"
    if own is None and location.size(group):
        raise IntegrityError(f"{location.name}/{group}: damaged; convert the volume again")
    return own


def _volume_row(location: Location, volume_id: str, own: dict[str, Any]) -> dict[str, Any]:
    volume, made = own["volume"], own["provenance"]
    if volume["volume_id"] != volume_id:
        raise IntegrityError(f"{location.name}: volume {volume_id} is a copy of {volume['volume_id']}; delete it")
    array = _array_file(location, volume_id, layout.KINDS[volume["modality"]].array)
    mask = _array_file(location, volume_id, f"{layout.MASK}/{layout.MASK_ARRAY}") if has_mask(own) else None
    tags, affine = volume.get("tags", {}), volume.get("affine")
    return {
        **volume,
        "affine": [number for row in affine for number in row] if affine else None,
        "frame_uid": tags.get("FrameOfReferenceUID"),
        "study_date": tags.get("StudyDate"),
        "kernel": tags.get("ConvolutionKernel"),
        "description": tags.get("SeriesDescription"),
        "tags": json.dumps(tags),
        **dict(zip(("slices", "rows", "columns"), volume["shape"], strict=True)),
        **dict(zip(("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"), volume["spacing_mm"], strict=True)),
        "lesions": len(own["lesions"]),
        "profile": made["profile"],
        "voxels": made["voxels"],
        "array": array,
        "mask": made.get("mask"),
        "mask_array": mask,
    }


def _array_file(location: Location, volume_id: str, name: str) -> str:
    """Read the ``zarr.json`` of an array of a volume."""
    data = location.read(f"{layout.volume_key(volume_id)}/{name}/{layout.GROUP_FILE}") or b""
    try:
        json.loads(data)
    except ValueError as error:
        raise IntegrityError(
            f"{location.name}: volume {volume_id}, {name}/zarr.json: missing or damaged; convert it again"
        ) from error
    return data.decode()


def write_table(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Give rows as Parquet; columns that the schema lacks are left out."""
    kept = [{name: row.get(name) for name in schema.names} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(kept, schema=schema), buffer, compression="zstd")
    return buffer.getvalue()


def write_frame(frame: pd.DataFrame, schema: pa.Schema) -> bytes:
    """Give a table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame, schema=schema, preserve_index=False), buffer, compression="zstd")
    return buffer.getvalue()


def read_table(location: Location, key: str, index: str) -> pd.DataFrame:
    """Read a table of a store, indexed by one of its columns; StoreError where it is missing or damaged."""
    data = location.read(key)
    if data is None:
        raise StoreError(f"{location.name}: no {key}; the conversion did not end: run it again, or `lesionzarr index`")
    try:
        table = pq.read_table(io.BytesIO(data))
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{location.name}/{key}: damaged ({error}); run `lesionzarr index`") from error
    frame: pd.DataFrame = table.to_pandas(types_mapper=NULLABLE.get)
    return frame.set_index(index)
