"""Work on lesions in units that are the same however many workers there are, and Parquet files that keep what is done.

A unit is some lesions of one split, those of a volume together. With an output each unit leaves one file,
``split=train/part-00000.parquet``, written under another name first: what is there is whole. Its metadata say of what
it was made, and a later run makes only the files that are not there.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr._workers import iter_done, open_client
from lesionzarr.errors import LesionzarrError, SettingError, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lesionzarr.lesion import Lesion
    from lesionzarr.store.catalog import Catalog

    Work = Callable[[tuple[Lesion, ...]], pd.DataFrame]
    Progress = Callable[[int, int], None]

NO_SPLIT = "unknown"
"""Folder of lesions without a split: readers of partitioned Parquet cannot do with nulls alone."""
STAMP = b"lesionzarr"
"""Key of the metadata of a file."""
FAULT, AGAIN = "fault", "again"
"""Columns: why a lesion has no values, and whether to try once more in a later run (this one is not written)."""


@dataclass(frozen=True)
class Unit:
    """Lesions that are worked on together."""

    split: str | None
    number: int
    lesions: tuple[Lesion, ...]

    @property
    def file(self) -> str:
        """Path of the file of its rows in the output."""
        split = NO_SPLIT if self.split is None else quote(self.split, safe="")
        return f"split={split}/part-{self.number:05}.parquet"


@dataclass(frozen=True)
class Output:
    """Where the rows go, and what they depend on besides lesions and voxels."""

    folder: Path
    catalog: Catalog
    settings: dict[str, Any]
    """Plain JSON values."""

    def stamp(self, unit: Unit) -> str:
        """Give a checksum of all that the rows of a unit are made of."""
        volumes = dict.fromkeys(lesion.volume_id for lesion in unit.lesions)
        table = self.catalog.volumes
        names = [name for name in ("voxels", "mask") if name in table]
        made_of = {
            "settings": self.settings,
            "lesions": [lesion.to_row() for lesion in unit.lesions],
            "voxels": {volume_id: [str(table[name][volume_id]) for name in names] for volume_id in volumes},
        }
        return hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()


def plan_units(lesions: Sequence[Lesion], most: int, *, whole_volumes: bool = True) -> list[Unit]:
    """Sort lesions into units.

    Parameters
    ----------
    lesions
        Each once.
    most
        Lesions of a unit.
    whole_volumes
        A volume with more is one unit nevertheless.

    Returns
    -------
    list of Unit
        By split (none last) and volume.
    """
    splits: dict[str | None, dict[str, list[Lesion]]] = {}
    for lesion in lesions:
        splits.setdefault(lesion.split, {}).setdefault(lesion.volume_id, []).append(lesion)
    units = []
    for split in sorted(splits, key=lambda name: (name is None, name or "")):
        groups: list[list[Lesion]] = [[]]
        for _, own in sorted(splits[split].items()):
            pieces = [own] if whole_volumes else [[lesion] for lesion in own]
            for piece in pieces:
                if groups[-1] and len(groups[-1]) + len(piece) > most:
                    groups.append([])
                groups[-1].extend(piece)
        units += [Unit(split, number, tuple(group)) for number, group in enumerate(groups)]
    return units


def index_of(lesions: Sequence[Lesion]) -> pd.Index:
    """Give the index of a table with a row for each of some lesions."""
    return pd.Index([lesion.lesion_id for lesion in lesions], name="lesion_id", dtype=object)


def run_units(
    units: Sequence[Unit],
    work: Work,
    *,
    output: Output | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> pd.DataFrame:
    """Do the work of units that is not done yet.

    Parameters
    ----------
    units
        At least one.
    work
        Gives the rows of some lesions, indexed by ``lesion_id``.
    output
        Where they go; None keeps them in memory.
    workers, scheduler
        As of `lesionzarr.convert`.
    progress
        Called with the lesions that are done and all of them.

    Returns
    -------
    pandas.DataFrame
        All rows, in the order of the units, with a column ``split``.

    Raises
    ------
    SettingError
        Fewer than one worker; or files in the output that are of other lesions, voxels or settings.
    LesionzarrError
        Workers were killed. What `work` raises is raised too; the files of other units stay.
    """
    if workers < 1:
        raise SettingError(f"{workers} workers: at least 1 is needed")
    done = {} if output is None else _find_done(output, units)
    total = sum(len(unit.lesions) for unit in units)
    ready = sum(len(unit.lesions) for unit in units if unit.file in done)
    if progress:
        progress(ready, total)
    todo = [unit for unit in units if unit.file not in done]
    frames: dict[str, pd.DataFrame] = {}
    for unit, frame in _results(todo, partial(_do, work, output), min(workers, len(todo)), scheduler):
        frames[unit.file] = frame
        ready += len(unit.lesions)
        if progress:
            progress(ready, total)
    if output is not None:
        frames = {unit.file: pd.read_parquet(output.folder / unit.file, partitioning=None) for unit in units}
    return pd.concat([frames[unit.file].assign(split=unit.split) for unit in units])


def _do(work: Work, output: Output | None, unit: Unit) -> pd.DataFrame | None:
    """Do the work of one unit: the task that a worker runs."""
    frame = work(unit.lesions)
    again = bool(frame[AGAIN].any()) if AGAIN in frame else False
    frame = frame.drop(columns=AGAIN, errors="ignore")
    if output is None:
        return frame
    path = output.folder / unit.file
    table = pa.Table.from_pandas(frame)
    stamp = json.dumps({"stamp": output.stamp(unit), AGAIN: again})
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), STAMP: stamp.encode()})
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, hidden)
        hidden.replace(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written ({error})") from error
    return None


def _find_done(output: Output, units: Sequence[Unit]) -> dict[str, str]:
    """Give the files that need not be made again; delete what an earlier run left half written."""
    folder = output.folder
    if folder.exists() and not folder.is_dir():
        raise SettingError(f"{folder}: a file; the features go to a folder of that name, so delete it or name another")
    for rest in folder.glob("split=*/.part-*"):
        rest.unlink(missing_ok=True)
    planned = {unit.file: unit for unit in units}
    done = {}
    for path in sorted(folder.glob("split=*/part-*.parquet")):
        name = path.relative_to(folder).as_posix()
        try:
            told = json.loads((pq.read_schema(path).metadata or {}).get(STAMP, b"{}"))
        except (OSError, pa.ArrowException, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise StoreError(f"{path}: cannot be read ({error})") from error
            if name not in planned:
                raise SettingError(f"{path}: no Parquet file ({error}); delete it") from error
            # cut off, as of a disk that was full: it is made again, in its place
            continue
        if name not in planned or told.get("stamp") != output.stamp(planned[name]):
            raise SettingError(f"{folder}: {name} is of other lesions or settings; delete the folder or name another")
        if not told[AGAIN]:
            done[name] = told["stamp"]
    return done


def _results(
    units: Sequence[Unit], task: Callable[[Unit], pd.DataFrame | None], workers: int, scheduler: str | None
) -> Iterator[tuple[Unit, Any]]:
    if not units:
        return
    if scheduler is None and workers <= 1:
        for unit in units:
            yield unit, task(unit)
        return
    with open_client(workers, scheduler) as client:
        # the store is opened once by each worker, not once a task
        shared = client.scatter(task, broadcast=True, hash=False)
        for done in iter_done(client, units, lambda unit: client.submit(_call, shared, unit, pure=False)):
            if done.was_killed:
                raise LesionzarrError(f"{done.item.file}: its workers were killed, out of memory? use fewer")
            yield done.item, done.future.result()


def _call(task: Callable[[Unit], pd.DataFrame | None], unit: Unit) -> pd.DataFrame | None:
    return task(unit)
