"""Checking a store against its source too, and repairing it from there.

A repair takes what the intact volumes say of their making: converter, settings and profile; the user names the folder.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.converters._base import Converter, load_converter, make_converter
from lesionzarr.converters._plan import plan_conversion
from lesionzarr.converters._run import convert_volumes, description, source_path
from lesionzarr.errors import NotFoundError, SettingError, SourceError, StoreError
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store._verify_catalog import read_tables
from lesionzarr.store._verify_shards import Fault
from lesionzarr.store._verify_volume import OWN, check_seal
from lesionzarr.store.claims import Run
from lesionzarr.store.generations import find_generations, read_generation
from lesionzarr.store.index import write_catalog
from lesionzarr.store.location import Location, open_location
from lesionzarr.store.tables import read_table
from lesionzarr.store.verify import FROM_SOURCE, OF_THE_CATALOG, Verification, reach_store, verify_store
from lesionzarr.store.writer import create_store, delete_volume, read_attributes, read_root, restore_root

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from lesionzarr.converters._run import Progress
    from lesionzarr.series import Scan, Volume
    from lesionzarr.source import SourcePath


@dataclass(frozen=True)
class Repair:
    """What was done about the damage of a store."""

    rewritten: tuple[str, ...] = ()
    """Ids of the volumes that were written anew from the source."""
    by_others: tuple[str, ...] = ()
    """Ids of the volumes that another repair or conversion had made whole by the time this one came to them."""
    deleted: tuple[str, ...] = ()
    """Names of the folders that held a copy of another volume."""
    groups: bool = False
    """The root group and that of the volumes were written anew."""
    catalog: bool = False
    """The catalog was derived anew."""
    changed: tuple[Issue, ...] = ()
    """Rewritten volumes whose voxels are not those that they were: the source has changed."""
    remaining: tuple[Issue, ...] = ()
    """Damage that is still there."""

    def to_json(self) -> dict[str, Any]:
        """Give it as plain JSON values; keys as the attributes of this class."""
        return asdict(self)


@dataclass(frozen=True)
class _Recipe:
    """How the volumes of a store were made."""

    converter: str
    profile: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Flags, and names of the files that were given."""


def verify(
    url: str | os.PathLike[str],
    *,
    sample: float = 1.0,
    seed: int = 0,
    source: str | Path | None = None,
    threads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
    **options: Any,
) -> Verification:
    """Check a store: every object is there and whole, every voxel as it was written, the catalog as the volumes say.

    Memory: the catalog, some 200 bytes for each object, and for each thread one shard as stored and its decoded voxels,
    some 60 MB for a CT of 512 x 512.

    Parameters
    ----------
    url
        Path or URL of the store.
    sample
        Share of the volumes whose voxels are read; metadata, and the index of each shard, are read of all.
    seed
        Chooses them.
    source
        Folder of the dataset: volumes whose source has changed, or that are not in the store, are told too.
    threads
        Volumes that are looked at at a time; None for as many as there are cores.
    storage_options
        Options of the object store, where `url` is a URL.
    source_options
        Those of the source, and of settings that are URLs.
    progress
        Called after every volume whose voxels were read, with the bytes that are done, and of how many.
    **options
        Settings of the converter, with `source`; those that the store was made with are found in the source.

    Returns
    -------
    Verification
        Its `issues` name every damage once, with volume, object and remedy.

    Raises
    ------
    NotFoundError
        Nothing is there.
    SettingError
        Something else than a store is there, or a setting that means nothing.
    SourceError
        The source as a whole cannot be read.
    StoreError
        The store cannot be reached.
    """
    location = open_location(url, storage_options)
    # before hours of reading, not after them
    scan = None if source is None else open_source(reach_store(location), source, source_options, options).scan()
    found = verify_store(location, sample=sample, seed=seed, threads=threads, progress=progress)
    if scan is None:
        return found
    known = {issue.item for issue in found.issues}
    told = tuple(issue for issue in _compare(location.reached(), scan) if issue.item not in known)
    counts = {**found.counts, "issues": len(found.issues) + len(told), "issues: source": len(told)}
    return replace(found, issues=(*found.issues, *told), counts=counts)


def repair(
    url: str | os.PathLike[str],
    source: str | Path | None = None,
    *,
    verification: Verification | None = None,
    workers: int = 1,
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Repair:
    """Write the damaged volumes of a store anew from their source, and then the catalog; nothing else is touched.

    Conversions and other repairs may go on beside it: each volume is written by one of them, and checked again before.

    Parameters
    ----------
    url
        Path or URL of the store.
    source
        Folder of the dataset. None does what needs no source: the groups round the volumes, the catalog, and copies of
        volumes under other names, which are deleted.
    verification
        What `verify` found; None verifies first.
    workers
        Processes that convert, as in `convert`.
    storage_options
        Options of the object store, where `url` is a URL.
    source_options
        Those of the source, and of settings that are URLs.
    progress
        Called after every volume that is written.
    **options
        Settings of the converter; those that the store was made with are found in the source.

    Returns
    -------
    Repair

    Raises
    ------
    NotFoundError
        Nothing is there.
    SettingError
        Something else than a store is there, or a file that the store was made with is not in the source.
    SourceError
        The source as a whole cannot be read.
    StoreError
        The store cannot be read or written.
    """
    location = reach_store(open_location(url, storage_options))
    # its lease is written before anything is read: a store that cannot be written is so told at once
    with Run(location) as run:
        converter = None if source is None else open_source(location, source, source_options, options)
        found = verification or verify_store(location)
        recipe = _recipe(location)
        groups = _restore_groups(location, found, recipe)
        written = Repair(groups=groups)
        if converter is not None and (found.damaged or _has_forgotten(location, found)):
            written = replace(_rewrite(location, converter, found, recipe, run, workers, progress), groups=groups)
        return _finish(location, found, written)


def _finish(location: Location, found: Verification, written: Repair) -> Repair:
    """Do what needs no source, once the volumes are written."""
    whole, failed = {*written.rewritten, *written.by_others}, written.remaining
    told = {*whole, *(issue.item for issue in failed)}
    lost = [issue for issue in found.issues if issue.kind in FROM_SOURCE and issue.item not in told]
    deleted, kept = _delete_copies(location, found, {issue.item for issue in (*lost, *failed)})
    stale = [issue for issue in found.issues if issue.kind in OF_THE_CATALOG]
    # deriving would forget a volume that is lost, and so that it has been there
    if any(issue.kind == "damaged-catalog" for issue in stale):
        # the next check sees again what is wrong with one whose group is there
        safe = not any(_is_gone(location, issue.item) for issue in (*lost, *failed))
    else:
        safe = not (lost or failed)
    derived = safe and bool(whole or stale)
    if derived:
        write_catalog(location)
    remaining = (*lost, *failed, *kept, *([] if derived else stale))
    return replace(written, deleted=tuple(deleted), catalog=derived, remaining=remaining)


def _is_gone(location: Location, volume_id: str) -> bool:
    return location.size(f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}") is None


def _compare(location: Location, scan: Scan) -> Iterator[Issue]:
    """Tell what a conversion would do to a store."""
    plan = plan_conversion(scan, location, None)
    there = set(location.list_folders(layout.VOLUMES))
    for volume in plan.convert:
        if volume.volume_id in there:
            yield _changed(location, volume, "source-changed", "its source files have changed")
        else:
            yield _changed(location, volume, "not-in-store", "the source has it, the store has not")
    for volume in plan.update:
        yield _changed(location, volume, "source-changed", "its lesions or its spacing have changed in the source")


def _changed(location: Location, volume: Volume, kind: str, fault: str) -> Issue:
    text = f"{location.name}: volume {volume.volume_id}: {fault}; run `lesionzarr convert` again"
    return Issue(kind, volume.volume_id, "", text)


def _recipe(location: Location) -> _Recipe:
    """Read from the first volume whose attributes are sound, or else can be read, how a store was made."""
    readable = None
    for volume_id in location.list_folders(layout.VOLUMES):
        own = read_attributes(location, volume_id)
        try:
            made = own["provenance"] if own else {}
            recipe = _Recipe(made["converter"], made["profile"], made.get("settings") or {})
            check_seal(own or {}, OWN)
        except (KeyError, TypeError):
            continue
        except Fault:
            readable = readable or recipe
        else:
            return recipe
    root = None if readable else read_root(location)
    if readable is None and root is None:
        raise NotFoundError(f"{location.name}: nothing in it says how it was made; convert again")
    return readable or _Recipe((root or {})["source"], "portable")


def open_source(
    location: Location, source: str | Path, source_options: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Converter:
    """Make the converter that a store was made with; files that it was given are found in the source by their names.

    Parameters
    ----------
    location
        The store.
    source, source_options, options
        As of `repair`.

    Returns
    -------
    Converter

    Raises
    ------
    NotFoundError
        Nothing in the store says how it was made.
    SettingError
        A file that the store was made with is not in the source, or an option that the converter does not have.
    SourceError
        Nothing is at `source`.
    """
    recipe = _recipe(location)
    known = {item.name: item.metadata for item in fields(load_converter(recipe.converter))}
    place = partial(source_path, source_options or {})
    if not _exists(place(source)):
        raise SourceError(f"{source}: nothing is there; name the folder of the dataset with --source")
    settings: dict[str, Any] = {}
    for name, value in recipe.settings.items():
        if name in options or name not in known:
            continue
        if isinstance(value, int):
            settings[name] = value
        else:
            paths = [_find(place(source), name, file) for file in value]
            settings[name] = paths if known[name].get("many") else paths[0]
    return make_converter(recipe.converter, source, {**settings, **options}, place)


def _exists(path: SourcePath) -> bool:
    if isinstance(path, Path):
        return path.exists()
    # a web server lists nothing
    return str(path).lower().startswith("http") or path.is_dir() or path.is_file()


def _find(source: SourcePath, name: str, file: str) -> SourcePath:
    for path in (source / file, source.parent / file):
        if path.is_file() or path.is_dir():
            return path
    option = f"--{name.replace('_', '-')}"
    raise SettingError(f"{source}: {file} is not there, which the store was made with; name it with {option}")


def _restore_groups(location: Location, found: Verification, recipe: _Recipe) -> bool:
    """Write the groups round the volumes anew, if one is damaged."""
    kinds = {issue.kind for issue in found.issues}
    if "damaged-root" in kinds:
        restore_root(location, description(load_converter(recipe.converter)))
    elif "damaged-group" in kinds:
        root = read_root(location) or {}
        create_store(location, {name: root[name] for name in ("source", "title", "licence", "citation")})
    return bool(kinds & {"damaged-root", "damaged-group"})


def _rewrite(
    location: Location,
    converter: Converter,
    found: Verification,
    recipe: _Recipe,
    run: Run,
    workers: int,
    progress: Callable[[Progress], None] | None,
) -> Repair:
    """Write the damaged volumes anew; what went wrong with some is what remains."""
    scan = converter.scan()
    there = {volume.volume_id: volume for volume in scan.volumes}
    failed = [_not_there(location, name) for name in found.damaged if name not in there]
    recorded = _recorded(location, found)
    by_profile: dict[str, list[Volume]] = {}
    for name in sorted({*found.damaged, *(_forgotten(location, scan) if _has_forgotten(location, found) else ())}):
        if name in there:
            profile, _ = recorded.get(name, (recipe.profile, ""))
            by_profile.setdefault(profile, []).append(there[name])
    outcomes = [
        outcome
        for profile, volumes in by_profile.items()
        for outcome in convert_volumes(
            converter, tuple(volumes), location, profile, run, workers=workers, progress=progress
        )
    ]
    failed += [
        Issue("failed-volume", outcome.volume.volume_id, outcome.file, outcome.fault)
        for outcome in outcomes
        if outcome.fault is not None
    ]
    rewritten = sorted(outcome.volume.volume_id for outcome in outcomes if outcome.is_converted)
    by_others = sorted(outcome.volume.volume_id for outcome in outcomes if outcome.by_another)
    changed = _changes(location, rewritten, recorded)
    return Repair(tuple(rewritten), tuple(by_others), changed=tuple(changed), remaining=tuple(failed))


def _not_there(location: Location, volume_id: str) -> Issue:
    text = f"{location.name}: volume {volume_id}: the source does not have it"
    if _is_gone(location, volume_id):
        text = f"{text}; if it is to be gone, derive the catalog anew (`lesionzarr index`)"
    return Issue("failed-volume", volume_id, "", text)


def _has_forgotten(location: Location, found: Verification) -> bool:
    """Tell whether no catalog says for sure which volumes there were."""
    damaged = any(issue.kind == "damaged-catalog" for issue in found.issues)
    return damaged and read_tables(location)[0].volumes is None


def _forgotten(location: Location, scan: Scan) -> set[str]:
    """Give the volumes of a source that the store may have had, and has not, but for those that it has otherwise."""
    there = set(location.list_folders(layout.VOLUMES))
    absent = tuple(volume for volume in scan.volumes if volume.volume_id not in there)
    plan = plan_conversion(replace(scan, volumes=absent), location, None)
    others = {new_id for new_ids in plan.replaced.values() for new_id in new_ids}
    return {volume.volume_id for volume in plan.convert} - others


def _recorded(location: Location, found: Verification) -> dict[str, tuple[str, str]]:
    """Give profile and checksum of the voxels of damaged volumes, from their attributes or else from the catalog."""
    recorded = _catalogued(location)
    distrusted = {issue.item for issue in found.issues if issue.kind == "damaged-attributes"}
    for name in set(found.damaged) - distrusted:
        own = read_attributes(location, name)
        if own is not None:
            recorded[name] = own["provenance"]["profile"], own["provenance"]["voxels"]
    return recorded


def _catalogued(location: Location) -> dict[str, tuple[str, str]]:
    """Give profile and checksum of the voxels of every volume, from the last catalog that can be read."""
    found = find_generations(location)
    with suppress(StoreError):
        found = [read_generation(location), *found]
    for generation in found:
        try:
            table = read_table(location, generation.tables[0], "volume_id")
            rows = zip(table.index, table["profile"], table["voxels"], strict=True)
            return {name: (profile, voxels) for name, profile, voxels in rows if profile in layout.PROFILES}
        except (StoreError, KeyError, ValueError):
            continue
    return {}


def _changes(location: Location, rewritten: list[str], recorded: dict[str, tuple[str, str]]) -> Iterator[Issue]:
    for name in rewritten:
        own = read_attributes(location, name)
        if own is not None and name in recorded and own["provenance"]["voxels"] != recorded[name][1]:
            text = f"{location.name}: volume {name}: its voxels are not those that it had: the source has changed"
            yield Issue("changed-volume", name, "", text)


def _delete_copies(location: Location, found: Verification, lost: set[str]) -> tuple[list[str], list[Issue]]:
    """Delete folders that hold a copy of another volume, unless that one is not there or damaged."""
    deleted: list[str] = []
    kept: list[Issue] = []
    for issue in found.issues:
        if issue.kind == "copied-volume":
            copy = read_attributes(location, issue.item)
            original = copy["volume"]["volume_id"] if copy else issue.item
            if original in lost or read_attributes(location, original) is None:
                kept.append(issue)
            else:
                delete_volume(location, issue.item)
                deleted.append(issue.item)
    return deleted, kept
