"""Copying a store to another place, so that a volume exists there only when it is whole.

The root group comes first, then the volumes, each with its group last, then the catalog. What is there already is
skipped, so that a copy that was stopped goes on. Memory: the listings of both stores, some 200 bytes for each object,
and for each thread one object, of which a shard is the largest; to compare contents, two.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr.errors import IntegrityError, NotFoundError, SettingError, StoreError
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store._parallel import work_through
from lesionzarr.store._verify_shards import Fault, damage, index_bytes, read_object
from lesionzarr.store._verify_volume import OWN, check_seal, parse_document
from lesionzarr.store.generations import is_of_catalog, publish, read_pointer
from lesionzarr.store.index import write_catalog
from lesionzarr.store.listing import Listing, is_web, list_store
from lesionzarr.store.location import open_location
from lesionzarr.store.writer import delete_volume, has_mask, read_root

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from lesionzarr.store.generations import Pointer
    from lesionzarr.store.location import Location

THREADS = 8
REMEDY = "repair the store first (`lesionzarr repair`)"
PART = ".part"
"""End of the names of files that a writer has not finished."""


@dataclass(frozen=True)
class Synced:
    """What became of a copy."""

    copied: tuple[str, ...] = ()
    """Ids of the volumes that were written."""
    skipped: tuple[str, ...] = ()
    """Ids of the volumes that were there already."""
    deleted: tuple[str, ...] = ()
    """Ids of the volumes that the source no longer has, and the copy no longer."""
    kept: tuple[str, ...] = ()
    """Ids of the volumes that the source does not have, and the copy has."""
    failed: tuple[Issue, ...] = ()
    """Volumes that were not copied, since the source is damaged or changed meanwhile."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of volumes, also of half-written ones, which are not copied, and of objects and bytes written."""

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON values; keys as the attributes of this class."""
        return asdict(self)


@dataclass(frozen=True)
class _Copied:
    """What became of one volume."""

    volume_id: str
    objects: int = 0
    size: int = 0
    fault: str | None = None


def sync(
    store: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    destination_options: Mapping[str, Any] | None = None,
    verify: bool = False,
    delete: bool = False,
    threads: int = THREADS,
    progress: Callable[[int, int], None] | None = None,
) -> Synced:
    """Copy a store to another place, or go on with a copy that was stopped.

    A volume is skipped where its group is the same there and each of its objects has the same length; one whose lesions
    alone have changed keeps its shards. The checksums of every shard are looked at on its way, and its length at its
    end. Volumes that the source does not have are kept, unless `delete` says otherwise; where some are kept, or have
    failed, or the store is being written, the catalog is derived from what is there.

    Parameters
    ----------
    store
        Path or URL of the store to copy.
    destination
        Path or URL of the copy; made if it is not there.
    storage_options, destination_options
        Options of the object stores of the two, where they are URLs.
    verify
        Read back what was written, and what would be skipped, and compare it with the source byte by byte.
    delete
        Delete volumes from the copy that the source does not have.
    threads
        Volumes that are copied at a time.
    progress
        Called after every volume with the bytes that are done, and of how many.

    Returns
    -------
    Synced

    Raises
    ------
    NotFoundError
        Nothing is at `store`.
    SettingError
        It is no store of a known format.
    StoreError
        The destination holds something else, one of the two cannot be reached, or the destination cannot be written.
    """
    if threads < 1:
        raise SettingError(f"{threads} threads: at least 1 is needed")
    source, there = open_location(store, storage_options), open_location(destination, destination_options)
    if source == there:
        raise SettingError(f"{there.name}: source and destination are the same")
    if is_web(there):
        raise StoreError(f"{there.name}: a web server is for reading; name a folder or a bucket")
    _open_destination(source, there)
    source, there = source.reached(), there.reached()
    # before the listings, which may take long: a destination that cannot be written is so found at once
    _copy_groups(source, there)
    named = read_pointer(source)
    have, has = list_store(source), list_store(there)
    total = sum(sum(objects.values()) for objects in have.volumes.values())
    copied: list[_Copied] = []
    done = 0
    copier = _Copier(source, there, verify)

    def copy(volume_id: str) -> _Copied:
        old = has.volumes.get(volume_id) or has.half_written.get(volume_id) or {}
        return copier.copy_volume(volume_id, have.volumes[volume_id], old)

    for one in work_through(copy, have.volumes, threads):
        copied.append(one)
        done += sum(have.volumes[one.volume_id].values())
        if progress:
            progress(done, total)
    gone = sorted(set(has.volumes) - set(have.volumes))
    failed = [one for one in copied if one.fault is not None]
    _copy_others(source, there, have)
    copies = not (failed or (gone and not delete)) and copy_catalog(source, there, named, set(have.volumes))
    for volume_id in gone if delete else ():
        delete_volume(there, volume_id)
    if not copies:
        write_catalog(there)
    return _told(source, have, copied, gone, delete=delete)


def _told(source: Location, have: Listing, copied: list[_Copied], gone: list[str], *, delete: bool) -> Synced:
    written = sorted(one.volume_id for one in copied if one.objects and one.fault is None)
    skipped = sorted(one.volume_id for one in copied if not one.objects and one.fault is None)
    failed = tuple(
        Issue("failed-volume", one.volume_id, "", f"{source.name}: volume {one.volume_id}: not copied: {one.fault}")
        for one in sorted(copied, key=lambda one: one.volume_id)
        if one.fault is not None
    )
    counts = {
        "volumes copied": len(written),
        "volumes skipped": len(skipped),
        "volumes deleted": len(gone) if delete else 0,
        "volumes kept": 0 if delete else len(gone),
        "volumes half written": len(have.half_written),
        "failures": len(failed),
        "objects copied": sum(one.objects for one in copied),
        "bytes copied": sum(one.size for one in copied),
    }
    deleted, kept = (gone, []) if delete else ([], gone)
    return Synced(tuple(written), tuple(skipped), tuple(deleted), tuple(kept), failed, counts)


def _open_destination(source: Location, there: Location) -> None:
    """Raise unless the destination is empty, or holds an earlier copy of the same store."""
    own = read_root(source)
    if own is None:
        raise NotFoundError(f"no store at {source.name}: no zarr.json in it")
    if own.get("kind") == "pack":
        raise SettingError(f"{source.name}: a pack; only stores are copied, a pack is made where it is to be")
    try:
        other = read_root(there)
    except SettingError as error:
        raise StoreError(f"{error}; name another destination") from error
    if other is None:
        if there.list_folders(layout.VOLUMES):
            raise StoreError(f"{there.name}: holds volumes without a store; name another destination, or delete them")
    elif [own.get(name) for name in ("source", "created")] != [other.get(name) for name in ("source", "created")]:
        what = f"{other.get('source')}, made {other.get('created')}"
        raise StoreError(f"{there.name}: holds another store ({what}); name another destination")


def _copy_groups(source: Location, there: Location) -> None:
    """Copy the groups that hold the volumes."""
    for key in (layout.GROUP_FILE, f"{layout.VOLUMES}/{layout.GROUP_FILE}"):
        data = source.read(key)
        if data is None:
            raise IntegrityError(f"{source.name}/{key}: missing; {REMEDY}")
        # written even if it is there, to find out whether it can be
        there.write(key, data)


def _copy_others(source: Location, there: Location, have: Listing) -> None:
    """Copy what belongs to no volume, but for the catalog."""
    groups = {layout.GROUP_FILE, f"{layout.VOLUMES}/{layout.GROUP_FILE}"}
    for key in sorted(set(have.others) - groups):
        if is_of_catalog(key):
            continue
        data = source.read(key)
        if data is not None and not key.endswith(PART) and there.read(key) != data:
            there.write(key, data)


def copy_catalog(source: Location, there: Location, named: Pointer, volume_ids: set[str]) -> bool:
    """Copy the catalog of a store, if it tells of what was copied.

    Parameters
    ----------
    source, there
        The store and its copy.
    named
        What named the tables of `source` before its volumes were listed.
    volume_ids
        Those that were copied.

    Returns
    -------
    bool
        False, and nothing is copied, where the store has no catalog, or another than before, or one of other volumes,
        or a catalog was written at the copy meanwhile.
    """
    before = read_pointer(there)
    try:
        generation = named.generation(source.name)
    except IntegrityError:
        return False
    volumes, lesions = (source.read(key) for key in generation.tables)
    # under fixed names nothing tells that both are of one writing
    if generation.checksum is None or volumes is None or lesions is None:
        return False
    if read_pointer(source).data != named.data or _ids(volumes) != volume_ids:
        return False
    return publish(there, before, generation.checksum, [volumes, lesions], generation.revision)


def _ids(table: bytes) -> set[str] | None:
    """Give the ids in a table of volumes; None of a damaged one."""
    try:
        return set(pq.read_table(pa.BufferReader(table), columns=["volume_id"])["volume_id"].to_pylist())
    except (pa.ArrowException, OSError, ValueError, KeyError):
        return None


@dataclass(frozen=True)
class _Copier:
    """Copies volumes, each by one thread."""

    source: Location
    there: Location
    verify: bool

    def copy_volume(self, volume_id: str, objects: dict[str, int], old: dict[str, int]) -> _Copied:
        """Copy one volume; what is wrong with it at its source is in the outcome.

        Parameters
        ----------
        volume_id
            Which volume.
        objects, old
            Length of each of its objects at the source, and at the destination, by key.
        """
        group = f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}"
        count = size = 0
        try:
            attributes, own = _read_group(self.source, group)
            before = self.there.read(group) if group in old else None
            same = before == attributes
            alike = before is not None and _voxels(before) == _voxels(attributes)
            shape, modality = own["volume"]["shape"], own["volume"]["modality"]
            names = layout.object_keys(shape, modality, has_mask=has_mask(own))
            wanted = [f"{layout.volume_key(volume_id)}/{name}" for name in names]
            for key in wanted:
                there = key in objects and old.get(key) == objects[key]
                if there and self._is_there(key, shape, same=same, alike=alike):
                    continue
                data = self._read_sound(key, shape)
                if before is not None and not count:
                    # from here on the volume does not exist until it is complete
                    self.there.delete(group)
                self._write(key, data)
                count, size = count + 1, size + len(data)
            if count or not same:
                if self.source.read(group) != attributes:
                    raise Fault("it was written anew meanwhile; run the same again")  # noqa: TRY301
                for key in set(old) - {*wanted, group}:
                    self.there.delete(key)
                self.there.write(group, attributes)
                count, size = count + 1, size + len(attributes)
        except Fault as fault:
            return _Copied(volume_id, count, size, str(fault))
        return _Copied(volume_id, count, size)

    def _is_there(self, key: str, shape: tuple[int, int, int], *, same: bool, alike: bool) -> bool:
        """Tell whether an object of the same length need not be copied, of a volume of the same group or voxels."""
        if self.verify:
            return self.there.read(key) == self.source.read(key)
        # the same voxels may lie in another order of chunks
        return same or (
            alike and layout.is_shard(key) and self._tail(self.source, key, shape) == self._tail(self.there, key, shape)
        )

    def _tail(self, location: Location, key: str, shape: tuple[int, int, int]) -> bytes | None:
        opened = location.open_tail(key, index_bytes(shape))
        return None if opened is None else opened[1]

    def _read_sound(self, key: str, shape: tuple[int, int, int]) -> bytes:
        """Read an object of the source; Fault where it is absent, or its own checksums say that it is damaged."""
        try:
            data = read_object(self.source, key)
            fault = damage(data, shape) if layout.is_shard(key) else None
        except Fault as error:
            fault = str(error)
        if fault is not None:
            raise Fault(f"{key}: {fault}; {REMEDY}")
        return data

    def _write(self, key: str, data: bytes) -> None:
        self.there.write(key, data)
        if self.there.size(key) != len(data) or (self.verify and self.there.read(key) != data):
            raise StoreError(f"{self.there.name}/{key}: not what was written there; run the same again")


def _read_group(source: Location, group: str) -> tuple[bytes, dict[str, Any]]:
    """Read the group of a volume; give its bytes, and its attributes."""
    try:
        data = read_object(source, group)
        own: dict[str, Any] = parse_document(data)["attributes"]["lesionzarr"]
        check_seal(own, OWN)
        layout.object_keys(own["volume"]["shape"], own["volume"]["modality"], has_mask=has_mask(own))
    except (KeyError, TypeError, ValueError) as error:
        raise Fault(f"{group}: damaged ({error}); {REMEDY}") from error
    return data, own


def _voxels(group: bytes) -> list[Any] | None:
    """Give what tells of a group which voxels its volume has, and how they are encoded; None of a damaged group."""
    try:
        made = json.loads(group)["attributes"]["lesionzarr"]["provenance"]
        return [made["voxels"], made.get("mask"), made["profile"]]
    except (KeyError, TypeError, ValueError):
        return None
