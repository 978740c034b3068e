"""Headers of whole collections: one table row per object, read in parallel, kept in a Parquet file between runs.

Memory holds the table, about half a kB a row, and in each process one batch of files; no pydicom dataset outlives the
reading of its file. Of a file in a folder and of a member of a zip only the part before the pixel data is read.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr.errors import SourceError, StoreError
from lesionzarr.formats.archive import escapes, iter_files, open_file, read_ahead, read_head
from lesionzarr.formats.dicom.classify import IMAGE_CLASSES
from lesionzarr.formats.dicom.columns import FILE_COLUMNS, KEYWORDS, PRIVATE_TAGS, SCHEMA, header_values
from lesionzarr.formats.dicom.reading import load_pydicom, parsing, read_header
from lesionzarr.report import Issue
from lesionzarr.source import Remote

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from lesionzarr.series import SourceFile
    from lesionzarr.source import SourcePath

DEPTH = 12
"""Folder levels below a root that are searched; the NBIA layout has five."""
BATCH = 256
"""Files that a worker reads at a time."""
WAITING = 3
"""Batches per worker that are handed out at a time."""


@dataclass(frozen=True)
class Headers:
    """What the headers of a collection say."""

    table: pa.Table
    """One row per DICOM object that could be read, with the columns of `lesionzarr.formats.dicom.columns.SCHEMA`."""
    issues: tuple[Issue, ...]
    """Roots that cannot be used, files that are no DICOM, and those that are cut off."""
    remote: dict[str, Remote] = field(default_factory=dict)
    """Roots behind URLs, by the name that the table has of them."""


def scan_headers(roots: Sequence[SourcePath], *, index: Path | None = None, workers: int = 1) -> Headers:
    """Read the headers of every DICOM object under some folders and zips.

    Parameters
    ----------
    roots
        Folders (links are followed, `DEPTH` levels deep) and zips.
    index
        Parquet file that keeps the table: headers of files that have not changed in size and time (CRC-32 in a zip)
        are taken from it, and it is written anew at the end. One that cannot be read is replaced.
    workers
        Processes that read; with 1 it is this one.

    Returns
    -------
    Headers

    Raises
    ------
    MissingExtraError
        pydicom is not installed.
    StoreError
        The index cannot be written.
    """
    load_pydicom()
    issues: list[Issue] = []
    kept, known = _read_index(index, issues)
    unchanged: list[int] = []
    remote: dict[str, Remote] = {}
    todo = _new_files(roots, known, unchanged, issues, remote)
    batches = []
    for batch, odd in _read_batches(todo, workers):
        batches.append(batch)
        issues += odd
    # the list of unchanged files is whole only now
    table = pa.concat_tables([kept.take(pa.array(unchanged, pa.int64())), pa.Table.from_batches(batches, SCHEMA)])
    table = table.unify_dictionaries().combine_chunks()
    if index is not None:
        _write_index(table, index)
    return Headers(table, tuple(issues), remote)


def _new_files(
    roots: Sequence[SourcePath],
    known: dict[tuple[str, str], tuple[int, int, int]],
    unchanged: list[int],
    issues: list[Issue],
    remote: dict[str, Remote],
) -> Iterator[SourceFile]:
    for root in roots:
        try:
            for file in iter_files(root, DEPTH):
                if isinstance(file.root, Remote):
                    remote[str(file.root)] = file.root
                size, stamp, row = known.get((str(file.root), file.name), (-1, -1, -1))
                if (size, stamp) == (file.size, file.stamp):
                    unchanged.append(row)
                elif not file.name.isprintable():
                    text = f"{root.name}: {file.name!r} is no name that can be kept; rename it"
                    issues.append(Issue("bad-name", root.name, repr(file.name), text))
                elif root.is_file() and escapes(file.name):
                    text = f"{root.name}: member {file.name!r} points outside of the archive; it is left out"
                    issues.append(Issue("escaping-name", root.name, root.name, text))
                else:
                    yield file
        except SourceError as error:
            issues.append(Issue("bad-root", root.name, root.name, str(error)))


def _read_batches(files: Iterator[SourceFile], workers: int) -> Iterator[tuple[pa.RecordBatch, list[Issue]]]:
    """Read files in order, batch by batch; no more batches wait than the workers need."""
    batches = iter(lambda: list(islice(files, BATCH)), [])
    if workers == 1:
        yield from map(_read_batch, batches)
        return
    # a fork of a process with threads may hang, and callers have threads
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = deque(pool.submit(_read_batch, batch) for batch in islice(batches, WAITING * workers))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(_read_batch, batch) for batch in islice(batches, 1))
            yield result


def _read_batch(files: list[SourceFile]) -> tuple[pa.RecordBatch, list[Issue]]:
    rows, issues = [], []
    for file, head in zip(files, read_ahead(read_head, files), strict=True):
        try:
            rows.append(_read_row(file, head()))
        except SourceError as error:
            kind = "truncated" if isinstance(error, _TruncatedError) else "not-dicom"
            issues.append(Issue(kind, "", file.name, f"{error}; it is left out"))
    return pa.RecordBatch.from_pylist(rows, SCHEMA), issues


class _TruncatedError(SourceError):
    pass


def _read_row(file: SourceFile, head: bytes) -> dict[str, Any]:
    with open_file(file, head) as stream:
        dataset, pixel_bytes, end = read_header(stream, file.name, _tags())
    with parsing(file.name):
        values = header_values(dataset)
    if end > file.size:
        text = f"{file.name}: cut off: {file.size} bytes, its pixel data ends at {end}; fetch the file again"
        raise _TruncatedError(text, file.name)
    if pixel_bytes is None and values["sop_class_uid"] in IMAGE_CLASSES:
        raise _TruncatedError(f"{file.name}: cut off before its pixel data; fetch the file again", file.name)
    place = {"root": str(file.root), "name": file.name, "size": file.size, "stamp": file.stamp}
    return place | values | {"pixel_bytes": pixel_bytes}


@cache
def _tags() -> list[Any]:
    from pydicom.tag import Tag

    return [*map(Tag, KEYWORDS), *map(Tag, PRIVATE_TAGS)]


def _read_index(
    index: Path | None, issues: list[Issue]
) -> tuple[pa.Table, dict[tuple[str, str], tuple[int, int, int]]]:
    """Give the table of an index, and size, stamp and row of each file in it."""
    table = SCHEMA.empty_table()
    if index is not None and index.exists():
        try:
            found = pq.read_table(index)
        except (OSError, pa.ArrowException) as error:
            text = f"{index.name}: cannot be read as an index ({error}); it is made anew"
            issues.append(Issue("bad-index", index.name, index.name, text))
        else:
            # one of another version has other columns, and all files are read again
            table = found if found.schema.equals(SCHEMA, check_metadata=True) else table
    roots, names, sizes, stamps = (table.column(name).to_pylist() for name, _ in FILE_COLUMNS)
    rows = range(table.num_rows)
    return table, dict(zip(zip(roots, names, strict=True), zip(sizes, stamps, rows, strict=True), strict=True))


def _write_index(table: pa.Table, index: Path) -> None:
    part = index.with_name(f"{index.name}.{os.getpid()}.part")
    try:
        index.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, part, compression="zstd")
        part.replace(index)
    except OSError as error:
        raise StoreError(f"{index.name}: the index cannot be written ({error.strerror or error})") from error
    finally:
        part.unlink(missing_ok=True)
