"""Checking a store: everything in it compared with everything else in it that vouches for it.

A voxel is vouched for by the CRC-32C of its chunk and the SHA-256 of its volume, a shard by its index, attributes by
their checksum, the metadata of arrays by what is written for such attributes, the catalog by the attributes.

Memory: the catalog, some 200 bytes for each object, and for each thread one shard as stored and its decoded voxels.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import NotFoundError, SettingError
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store._parallel import cores, work_through
from lesionzarr.store._verify_catalog import read_tables
from lesionzarr.store._verify_shards import Fault, read_object
from lesionzarr.store._verify_volume import Checked, check_seal, check_volume, holds, parse_document
from lesionzarr.store.listing import Listing, list_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lesionzarr.store._verify_catalog import Tables
    from lesionzarr.store.location import Location

ROOT = {"format", "source", "title", "licence", "citation", "tool", "created"}
"""What the attributes of the root group hold, but for their checksum."""
OF_STORE = (layout.GROUP_FILE, f"{layout.VOLUMES}/{layout.GROUP_FILE}")
OF_CATALOG = (layout.CATALOG_FILE, layout.REPORT, layout.CROISSANT)


@dataclass(frozen=True)
class Verification:
    """What is wrong with a store."""

    issues: tuple[Issue, ...]
    """Every damage, once: `item` is the volume, empty for what belongs to none; `file` the key of the object."""
    leftovers: tuple[Issue, ...] = ()
    """Half-written volumes, and objects that belong to nothing: no damage, they take room."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of volumes, of those whose voxels were read, of objects, bytes, leftovers, and issues of each kind."""

    @property
    def damaged(self) -> tuple[str, ...]:
        """Ids of the volumes that have to be written anew, sorted."""
        return tuple(sorted({issue.item for issue in self.issues if issue.kind in FROM_SOURCE}))

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON values; keys as the attributes of this class."""
        return asdict(self)


FROM_SOURCE = {
    *("damaged-attributes", "damaged-metadata", "damaged-coordinates", "damaged-shard"),
    *("missing-object", "missing-volume", "wrong-voxels", "half-written"),
}
"""Kinds of issues of volumes that have to be written anew from their source."""
OF_THE_CATALOG = {"damaged-catalog", "not-in-catalog", "stale-row", "stale-lesions"}
"""Kinds of issues that end when the catalog is derived anew."""


def reach_store(location: Location) -> Location:
    """Give a store as a location that is known to answer.

    What makes a store unreachable, such as a wrong host or key, is so told by its first request and after some seconds;
    what fails from then on is an outage, which is waited for.

    Raises
    ------
    NotFoundError
        Nothing is there.
    StoreError
        It cannot be reached.
    """
    # the answer to a GET says why it was refused, that to a HEAD does not
    if location.read(layout.GROUP_FILE) is None and not location.list_folders(layout.VOLUMES):
        raise NotFoundError(f"no store at {location.name}: no zarr.json in it")
    return location.reached()


def is_sound(location: Location, volume_id: str) -> bool:
    """Tell whether a volume is there with every object and voxel as it was written; its voxels are read."""
    key = layout.volume_key(volume_id)
    objects = location.list_objects(key)
    return (
        f"{key}/{layout.GROUP_FILE}" in objects and not check_volume(location, volume_id, objects, voxels=True).issues
    )


def verify_store(
    location: Location,
    *,
    sample: float = 1.0,
    seed: int = 0,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Check a store.

    Parameters
    ----------
    location
        The store.
    sample
        Share of the volumes whose voxels are read; metadata, and the index of each shard, are read of all.
    seed
        Chooses them.
    threads
        Volumes that are looked at at a time; None for as many as there are cores.
    progress
        Called after every volume whose voxels were read, with the bytes that are done, and of how many.

    Returns
    -------
    Verification

    Raises
    ------
    NotFoundError
        Nothing is there.
    SettingError
        Something else than a store of this format is there, or a sample that is no share.
    StoreError
        The store cannot be reached.
    """
    if not 0 <= sample <= 1:
        raise SettingError(f"sample {sample}: a share from 0 to 1 is needed")
    if threads is not None and threads < 1:
        raise SettingError(f"{threads} threads: at least 1 is needed")
    location = reach_store(location)
    listing = list_store(location)
    issues = list(_check_groups(location, listing))
    tables, unreadable = read_tables(location)
    halves, leftovers = _half_written(location, listing, tables)
    issues += [*unreadable, *halves, *tables.missing({*listing.volumes, *(issue.item for issue in halves)})]
    chosen = _choose(list(listing.volumes), sample, seed)
    sizes = {name: sum(objects.values()) for name, objects in listing.volumes.items() if name in chosen}
    done, total = 0, sum(sizes.values())

    def check(volume_id: str) -> Checked:
        return check_volume(location, volume_id, listing.volumes[volume_id], voxels=volume_id in chosen)

    for checked in work_through(check, listing.volumes, threads or cores()):
        issues += checked.issues
        issues += tables.compare(checked)
        leftovers += [_stray(location, key) for key in checked.strays]
        if progress and checked.volume_id in sizes:
            done += sizes[checked.volume_id]
            progress(done, total)
    if not OF_THE_CATALOG.intersection(issue.kind for issue in issues):
        # else it is derived anew in any case
        issues += tables.apart()
    own = {*OF_STORE, *OF_CATALOG}
    leftovers += [_stray(location, key) for key in listing.others if key not in own and not tables.knows(key)]
    return _told(listing, issues, leftovers, chosen)


def _told(listing: Listing, issues: list[Issue], leftovers: list[Issue], chosen: set[str]) -> Verification:
    sizes = [*listing.others.values(), *(size for objects in listing.volumes.values() for size in objects.values())]
    counts = {
        "volumes": len(listing.volumes),
        "volumes read whole": len(chosen),
        "objects": len(sizes),
        "bytes": sum(sizes),
        "leftovers": len(leftovers),
        "issues": len(issues),
        **{f"issues: {kind}": number for kind, number in sorted(Counter(issue.kind for issue in issues).items())},
    }

    def order(issue: Issue) -> tuple[str, str]:
        return issue.item, issue.file

    return Verification(tuple(sorted(issues, key=order)), tuple(sorted(leftovers, key=order)), counts)


def _check_groups(location: Location, listing: Listing) -> Iterator[Issue]:
    """Check the root group and that of the volumes."""
    root, volumes = OF_STORE
    try:
        _check_root(location, root, has_volumes=bool(listing.volumes))
    except Fault as fault:
        text = f"{location.name}/{root}: {fault}; write it anew (`lesionzarr repair --source`)"
        yield Issue("damaged-root", "", root, text)
    try:
        if not holds(parse_document(read_object(location, volumes)), layout.group_metadata({})):
            raise Fault("not what is written for such a group")  # noqa: TRY301 - told as the others are
    except Fault as fault:
        text = f"{location.name}/{volumes}: {fault}; write it anew (`lesionzarr repair`)"
        yield Issue("damaged-group", "", volumes, text)


def _check_root(location: Location, key: str, *, has_volumes: bool) -> None:
    document = parse_document(read_object(location, key))
    attributes = document.get("attributes")
    own = attributes.get("lesionzarr") if isinstance(attributes, dict) else None
    if not isinstance(own, dict):
        if not has_volumes:
            raise SettingError(f"{location.name}: a Zarr group, but no lesionzarr store")
        raise Fault("no lesionzarr attributes in it")
    if own.get("kind") == "pack":
        raise SettingError(f"{location.name}: a pack; only stores are verified")
    check_seal(own, ROOT)
    layout.check_root(attributes, location.name)
    if not (holds(document, layout.group_metadata({})) and ROOT.issubset(own)):
        raise Fault("not what is written for such a group")


def _half_written(location: Location, listing: Listing, tables: Tables) -> tuple[list[Issue], list[Issue]]:
    """Tell volumes without a group: as damage where no catalog can say whether they had one, else as leftovers.

    Those that the catalog has are left to it.
    """
    what = "half written" if tables.volumes else "half written, or its group is lost"
    told = []
    for volume_id in listing.half_written:
        if volume_id not in tables.known:
            key = layout.volume_key(volume_id)
            text = f"{location.name}/{key}: {what}; convert again, or delete it"
            told.append(Issue("half-written", volume_id, f"{key}/{layout.GROUP_FILE}", text))
    return ([], told) if tables.volumes else (told, [])


def _stray(location: Location, key: str) -> Issue:
    return Issue("stray-object", "", key, f"{location.name}/{key}: belongs to nothing; delete it")


def _choose(volume_ids: list[str], sample: float, seed: int) -> set[str]:
    number = round(sample * len(volume_ids)) or (1 if sample and volume_ids else 0)
    if not number:
        return set()
    return set(np.random.default_rng(seed).choice(volume_ids, number, replace=False).tolist())
