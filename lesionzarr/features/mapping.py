"""A function of the user's own, run over the crops of lesions as the features of this room are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import SettingError
from lesionzarr.features._code import describe_function
from lesionzarr.features._units import AGAIN, FAULT, Output, index_of, plan_units, run_units
from lesionzarr.readers._checks import check_whole
from lesionzarr.readers._request import find_lesions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from lesionzarr.lesion import Lesion
    from lesionzarr.readers._reader import Reader
    from lesionzarr.readers._request import LesionsLike
    from lesionzarr.readers.batch import Batch

RESERVED = ("lesion_id", "split", FAULT, AGAIN)
"""Columns that a function cannot give, since the table or the output has its own."""


def map_lesions(  # noqa: PLR0913 - keywords, of which most calls need none
    reader: Reader,
    lesions: LesionsLike | None,
    function: Callable[[Batch], Any],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    batch_size: int = 64,
    output: str | os.PathLike[str] | None = None,
    version: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Run a function over crops.

    Parameters
    ----------
    reader
        Makes the crops, such as a `lesionzarr.CropReader`.
    lesions
        Ids, lesions, or rows of ``catalog.lesions``; None for all. Those without a position are left out.
    function
        Takes a `Batch` and gives one row per lesion: an array (lesion,) or (lesion, value), whose columns are called
        ``"0"``, ``"1"``, ..., a mapping from names to columns, or a DataFrame. No column is called ``lesion_id``,
        ``split``, ``fault`` or ``again``.
    workers, scheduler
        Processes that read and compute, as of `lesionzarr.convert`; the function is sent to them.
    batch_size
        Most lesions per batch. Batches are the same for any number of workers.
    output
        Folder for a Parquet dataset partitioned by split, one file a batch. What is there from an earlier run of the
        same function, version, reader, lesions and voxels is kept. A function is the same if its name, code, defaults
        and the plain values and functions that it took from those round it are; what it reads from its module and the
        weights of a model are not looked at.
    version
        What tells this function from others with the same code, such as the name of a checkpoint: change it after
        training. With an output it is needed for what is no plain function of Python: an object with ``__call__`` (a
        torch module), a bound method, a `functools.partial`.
    progress
        Called with the lesions that are done and all of them.

    Returns
    -------
    pandas.DataFrame
        Indexed by lesion_id, in the order given: ``split``, then the values.

    Raises
    ------
    SettingError
        No lesion to read, a result of another number of rows or with a reserved column, an output of something
        else, or one without `version` of what has no code of its own.
    NotFoundError, GeometryError, IntegrityError
        As `read_batch` of the reader. What the function raises is raised; batches that are done stay in the output.

    Examples
    --------
    Embeddings of a small network, four numbers for each lesion:

    >>> import torch  # doctest: +SKIP
    >>> crops = lesionzarr.CropReader(catalog, size=(1, 64, 64), window="lung", dtype="float32")  # doctest: +SKIP
    >>> layers = torch.nn.Conv2d(1, 4, 5), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ... # doctest: +SKIP
    >>> network = torch.nn.Sequential(*layers).eval()  # doctest: +SKIP
    >>> def embed(batch):  # doctest: +SKIP
    ...     with torch.inference_mode():
    ...         return network(torch.from_numpy(batch.image[:, :, 0])).numpy()
    >>> lesionzarr.map_lesions(
    ...     crops, catalog.lesions, embed, output="embeddings.parquet", version="untrained"
    ... )  # doctest: +SKIP
    """
    check_whole(batch_size, "batch_size", 1)
    catalog = reader.catalog
    found = find_lesions(catalog, catalog.lesions if lesions is None else lesions)
    chosen = list({lesion.lesion_id: lesion for lesion in found if lesion.box is not None}.values())
    if not chosen:
        raise SettingError(f"none of {len(found):,} lesions has a position")
    kept = None if output is None else Output(Path(output), catalog, _describe(reader, function, batch_size, version))
    frame = run_units(
        plan_units(chosen, batch_size, whole_volumes=False),
        partial(_rows, reader, function, 1 if workers > 1 or scheduler else None),
        output=kept,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    frame = frame.loc[index_of(chosen)]
    return frame[["split", *(name for name in frame if name != "split")]]


def _rows(
    reader: Reader, function: Callable[[Batch], Any], threads: int | None, lesions: Sequence[Lesion]
) -> pd.DataFrame:
    result = function(reader.read_batch(lesions, threads=threads))
    if not isinstance(result, (pd.DataFrame, Mapping)):
        array = np.asarray(result)
        columns = array.reshape(len(array), -1).T if array.ndim else array[None, None]
        result = {str(number): column for number, column in enumerate(columns)}
    frame = pd.DataFrame(result).reset_index(drop=True)
    if taken := [name for name in RESERVED if name in frame]:
        raise SettingError(f"the function gave a column {taken[0]!r}, which the table has already: rename it")
    if len(frame) != len(lesions):
        raise SettingError(f"the function gave {len(frame)} rows for {len(lesions)} lesions: one each is needed")
    return frame.set_axis(index_of(lesions))


def _describe(reader: Reader, function: Callable[[Batch], Any], batch_size: int, version: str) -> dict[str, Any]:
    """Give plain values that tell this work from others."""
    name = getattr(function, "__qualname__", type(function).__qualname__)
    if not isinstance(function, FunctionType) and not version:
        raise SettingError(f"{name} is no plain function, so a change of it is not seen: give version= with output=")
    settings = {item.name: repr(getattr(reader, item.name)) for item in fields(reader) if item.name != "catalog"}
    code = describe_function(function) if isinstance(function, FunctionType) else []
    made_by = [name, version, code]
    return {"function": made_by, "reader": type(reader).__name__, "settings": settings, "batch_size": batch_size}
