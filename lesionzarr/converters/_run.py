"""Converting, resumable at any moment. Peak memory of the process that steers: the scan; of a worker, see `_work`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lesionzarr.converters._base import Converter, make_converter
from lesionzarr.converters._plan import Plan, plan_conversion, voxel_bytes
from lesionzarr.converters._work import Outcome, Task, iter_outcomes, open_workers, order_by_cost, update_volumes
from lesionzarr.errors import SettingError, StoreError
from lesionzarr.report import Issue, Report
from lesionzarr.source import Remote
from lesionzarr.store import layout
from lesionzarr.store._signed import SignedObject
from lesionzarr.store.claims import Run
from lesionzarr.store.index import write_catalog
from lesionzarr.store.layout import REPORT, check_profile, volume_codecs
from lesionzarr.store.location import Location, is_url, open_location, split_url
from lesionzarr.store.shards import encoder
from lesionzarr.store.tables import read_catalog
from lesionzarr.store.writer import TOOL, create_store, delete_volume

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from lesionzarr.series import Scan, Volume
    from lesionzarr.source import SourcePath


LISTINGS = 2
"""Times that volumes are listed: another conversion may be just writing one anew, and be done a moment later."""


@dataclass(frozen=True)
class Progress:
    """How far a conversion is."""

    slices: int
    """Slices done, failed ones included."""
    total_slices: int
    volumes: int
    total_volumes: int
    bytes: int = 0
    """Size of the voxels written, before compression."""
    workers: int = 1
    """Processes that convert at the moment."""


def convert(  # noqa: PLR0913 - keywords, of which most calls need none
    name: str,
    source: str | Path,
    destination: str | os.PathLike[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    profile: str = "portable",
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Report:
    """Convert a dataset into a store, or go on with a conversion that was stopped.

    A volume that is there already, from the same files (name, size, time or CRC) with the same settings, is skipped;
    one that was half written is redone; one whose lesions alone have changed gets its table written anew. A volume that
    the store holds under another range of the same slices is deleted once its replacement is there, and kept where this
    source has but a part of it.

    Several conversions may write into one store at a time: each volume is written by one of them, and each ends when
    all are there. Where their files or settings differ, each keeps what another has just made of a volume, and says so
    in its report. What a conversion that was killed was at is free after a minute, or at once where it ran on this
    machine. On a server without conditional requests (the report says so) only one may write: a second waits for some
    seconds, until it knows whether the first lives, and then ends with a StoreError.

    Parameters
    ----------
    name
        Converter, such as ``"deeplesion"``.
    source
        Folder of the dataset: a path or URL. So are the paths among the settings.
    destination
        Path or URL of the store; made if it is not there.
    workers
        Processes that convert, each holding one volume in memory. 1 converts in this process; more start as many dask
        workers on this machine (the calling script then needs its ``if __name__ == "__main__":``).
    scheduler
        Address of a ``dask.distributed`` scheduler to use instead, such as ``"tcp://10.0.0.1:8786"``. Its workers need
        lesionzarr, and have to reach source and destination by the same paths; each thread of theirs holds a volume.
        What a worker was at that was lost is done again by others.
    profile
        Codecs: ``"portable"``, ``"fast"`` or ``"dense"``.
    storage_options
        Options of the object store, where `destination` is a URL (see `lesionzarr.store.location.open_location`). They
        travel to the workers as they are, credentials too, over connections that dask does not encrypt unless it is
        told to: the workers' own environment can hold credentials instead, in ``LESIONZARR_STORAGE_OPTIONS`` or
        ``AWS_ACCESS_KEY_ID`` and the like.
    source_options
        Those of the source, and of settings that are URLs.
    progress
        Called after every volume.
    **options
        Settings of the converter, such as ``csv=`` or ``images=`` (see the converter).

    Returns
    -------
    Report
        Also written to ``catalog/report.json`` in the store.

    Raises
    ------
    NotFoundError
        No such converter or profile.
    MissingExtraError
        The profile needs a package that is not installed.
    SettingError
        An option that the converter does not have, or fewer than one worker.
    SourceError
        The source as a whole cannot be read. What is wrong with parts of it is in the report.
    StoreError
        The destination cannot be written, or its server lists less than was written.
    UnreachableError
        A source behind a URL cannot be reached.
    """
    if workers < 1:
        raise SettingError(f"{workers} workers: at least 1 is needed")
    check_profile(profile)
    encoder(volume_codecs(profile))
    converter = make_converter(name, source, options, partial(source_path, source_options or {}))
    location = open_location(destination, storage_options)
    scan = converter.scan()
    create_store(location, description(converter))
    # it has answered: what fails from now on is an outage, which is waited for
    location = location.reached()
    plan = plan_conversion(scan, location, profile)
    task = Task(converter, location, profile)
    with Run(location) as run:
        # the workers end before the run does: what they were at is free only then
        with open_workers(task, min(workers, len(plan.convert)), scheduler if plan.convert else None) as work:
            outcomes = _follow(iter_outcomes(task, work, order_by_cost(plan.convert), run, plan.before), plan, progress)
        task = replace(task, update=True)
        updates = [*iter_outcomes(task, partial(update_volumes, task), plan.update, run, plan.before)]
        replaced = _delete_replaced(location, plan, [*outcomes, *updates])
        written = (outcome.volume for outcome in (*outcomes, *updates) if outcome.is_converted)
        lesions, damaged = _write_whole_catalog(location, {volume.volume_id for volume in (*written, *plan.skip)})
    report = _report(converter, scan, plan, outcomes, updates, [*_exclusive_issues(run, location), *replaced, *damaged])
    report = replace(report, counts={**report.counts, "lesions in the store": lesions})
    location.write(REPORT, json.dumps(report.to_json(), indent=1).encode())
    return report


def plan(
    name: str,
    source: str | Path,
    destination: str | os.PathLike[str],
    *,
    profile: str = "portable",
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Scan, Plan]:
    """Tell what `convert` would do, without writing anything; the parameters are those of `convert`.

    Returns
    -------
    Scan
        What the source holds, and what is odd about it.
    Plan
        Volumes to convert, to update and to skip.
    """
    check_profile(profile)
    scan = make_converter(name, source, options, partial(source_path, source_options or {})).scan()
    return scan, plan_conversion(scan, open_location(destination, storage_options), profile)


def _exclusive_issues(run: Run, location: Location) -> Iterator[Issue]:
    if not run.exclusive:
        fault = "the server knows no conditional requests"
        yield Issue("not-exclusive", "", "", f"{location.name}: {fault}; one conversion at a time may write there")


def source_path(options: Mapping[str, Any], path: str | SourcePath) -> SourcePath:
    """Make what is read of a path or URL of a source; what is made already stays."""
    if isinstance(path, Remote):
        return path
    if not is_url(path):
        return Path(path)
    if str(path).lower().startswith("file://") and not options:
        return Path(unquote(str(path).partition("://")[2]))
    folder, name = split_url(str(path)).parent
    bucket = folder.bucket(options)
    return Remote(SignedObject(bucket, folder.query) if folder.query else bucket, name)


def description(converter: Converter | type[Converter]) -> dict[str, str]:
    """Say for the root group of a store which dataset it holds."""
    return {
        "source": converter.name,
        "title": converter.title,
        "licence": converter.licence,
        "citation": converter.citation,
    }


def convert_volumes(
    converter: Converter,
    volumes: tuple[Volume, ...],
    location: Location,
    profile: str,
    run: Run,
    *,
    workers: int,
    progress: Callable[[Progress], None] | None,
) -> list[Outcome]:
    """Convert some volumes, but for those that another run has made whole meanwhile."""
    task = Task(converter, location, profile, repair=True)
    with open_workers(task, min(workers, len(volumes)), None) as work:
        outcomes = iter_outcomes(task, work, order_by_cost(volumes), run, {})
        return _follow(outcomes, Plan(volumes, (), (), {}, ()), progress)


def _delete_replaced(location: Location, plan: Plan, outcomes: list[Outcome]) -> list[Issue]:
    """Delete the volumes that others replace, once one of those is there."""
    written = (outcome.volume for outcome in outcomes if outcome.fault is None)
    there = {volume.volume_id for volume in (*written, *plan.skip)}
    issues = []
    for old_id, new_ids in plan.replaced.items():
        if not there.isdisjoint(new_ids):
            delete_volume(location, old_id)
            text = f"{old_id}: replaced by {', '.join(new_ids)}"
            issues.append(Issue("replaced-volume", old_id, "", text))
    return issues


def _write_whole_catalog(location: Location, volume_ids: set[str]) -> tuple[int, list[Issue]]:
    """Write the catalog; StoreError where some volumes are there and not in it, which is made from what is listed."""
    for _ in range(LISTINGS):
        lesions, issues = write_catalog(location)
        if any(issue.kind == "old-catalog" for issue in issues):
            return lesions, issues
        listed = {*read_catalog(location)[1].index, *(issue.item for issue in issues)}
        # those that are gone were deleted by another conversion, which has put others in their place
        absent = (f"{layout.volume_key(name)}/{layout.GROUP_FILE}" for name in sorted(volume_ids - listed))
        missing = [key for key in absent if location.size(key)]
        if not missing:
            return lesions, issues
    text = f"the server lists less than was written; {len(missing)} of {len(volume_ids)} volumes are not in the catalog"
    raise StoreError(f"{location.name}: {text}, such as {missing[0]}; run `lesionzarr index` once it lists them")


def _follow(outcomes: Iterator[Outcome], plan: Plan, progress: Callable[[Progress], None] | None) -> list[Outcome]:
    """Gather outcomes, and tell how far it is after each."""
    done: list[Outcome] = []
    slices = bytes_ = 0
    for outcome in outcomes:
        done.append(outcome)
        slices += len(outcome.volume.files)
        bytes_ += voxel_bytes(outcome.volume) if outcome.is_converted else 0
        if progress:
            progress(Progress(slices, plan.slices, len(done), len(plan.convert), bytes_, outcome.workers))
    return done


def _report(
    converter: Converter, scan: Scan, plan: Plan, outcomes: list[Outcome], updates: list[Outcome], odd: list[Issue]
) -> Report:
    both = [*outcomes, *updates]
    converted = [outcome for outcome in outcomes if outcome.is_converted]
    updated = [outcome.volume for outcome in updates if outcome.is_converted]
    others = [outcome.volume for outcome in both if outcome.by_another]
    failed = [_failure(o.volume, o.fault, o.file) for o in both if o.fault is not None]
    tried = {outcome.volume.volume_id for outcome in outcomes}
    failed += [
        _failure(volume, "not tried, since the destination takes no more")
        for volume in plan.convert
        if volume.volume_id not in tried
    ]
    lost = {lesion_id for issue in failed for lesion_id in issue.lesions}
    issues = [
        replace(issue, lesions=tuple(one for one in issue.lesions if one not in lost))
        for issue in (*scan.issues, *plan.issues, *(issue for outcome in both for issue in outcome.issues), *odd)
    ]
    counts = {
        "volumes converted": len(converted),
        "volumes updated": len(updated),
        "volumes skipped": len(plan.skip),
        "volumes left to another conversion": len(others),
        "volumes missing": len(scan.missing),
        "failures": len(scan.failed) + len(failed),
        "slices converted": sum(len(outcome.volume.files) for outcome in converted),
        **Counter(f"issues: {issue.kind}" for issue in issues),
    }
    return Report(
        source=converter.name,
        tool=TOOL,
        converted=tuple(sorted(outcome.volume.volume_id for outcome in converted)),
        updated=tuple(volume.volume_id for volume in updated),
        skipped=tuple(volume.volume_id for volume in (*plan.skip, *others)),
        failed=(*scan.failed, *failed),
        missing=scan.missing,
        issues=tuple(issues),
        counts=counts,
    )


def _failure(volume: Volume, fault: str, file: str = "") -> Issue:
    return Issue("failed-volume", volume.volume_id, file, fault, tuple(lesion.lesion_id for lesion in volume.lesions))
