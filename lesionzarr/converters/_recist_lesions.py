"""Rows of the lesion table for recist-dataset: values of a mask, with what labels and tables say of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lesionzarr.annotations.recist_labels import TYPES
from lesionzarr.converters._recist_tables import WINDOWS
from lesionzarr.lesion import Lesion
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lesionzarr.annotations.recist_labels import Label
    from lesionzarr.converters._recist_tables import SeriesRow, Tables, Target
    from lesionzarr.formats.instances import Instance

NODE = TYPES["n"]
FROM_MASK = ("key_z", "key_slice", "x0", "y0", "x1", "y1", "z0", "z1")
"""Columns that are computed from the mask."""


@dataclass(frozen=True)
class Place:
    """The volume that lesions lie in, and what is known of it."""

    volume_id: str
    series_id: str
    patient_id: str | None
    split: str | None
    region: str | None
    row: SeriesRow | None
    """Of series.json."""
    slices: Sequence[str]
    """The source's own number or UID of each slice, in the order of z."""
    window: str | None = None
    """From `WINDOWS`."""


@dataclass(frozen=True)
class Marked:
    """What a mask holds, and what its labels say."""

    instances: dict[int, Instance] = field(default_factory=dict)
    labels: dict[int, Label] | None = field(default_factory=dict)
    """By value of the source's mask; None where they cannot be read."""
    categories: dict[int, int] | None = None
    """Value of the source's mask of each instance; None where that was not split."""

    def value(self, instance: int) -> int:
        """Give the value that the source's mask has there."""
        return (self.categories or {}).get(instance, instance)


def make_lesions(place: Place, marked: Marked, tables: Tables) -> list[Lesion]:
    """Make the rows of a volume.

    Parameters
    ----------
    place
        The volume.
    marked
        Its mask.
    tables
        Measurements are taken from there alone: of a node the one length is its short axis, of a tumour the long one.

    Returns
    -------
    list of Lesion
        By value of the mask. ``key_z`` is the slice with the most pixels, the box that of the voxels. After them come
        the targets that were measured and have no voxel, such as those that are gone (0 mm), without position.
    """
    lesions = [_masked(place, one, marked, tables) for one in marked.instances.values()]
    for key in _unmasked(place, marked, tables):
        target = tables.targets[place.series_id][key]
        label = (marked.labels or {}).get(key) if isinstance(key, int) else None
        lesions.append(_lesion(place, _unmasked_id(place, key), label, target, tables))
    return lesions


def _unmasked(place: Place, marked: Marked, tables: Tables) -> list[int | str]:
    """Give the targets without a voxel, by value or alias; of a mask that was split nobody can tell."""
    targets = tables.targets.get(place.series_id, {})
    return [] if marked.categories is not None else sorted(set(targets) - set(marked.instances), key=str)


def _unmasked_id(place: Place, key: int | str) -> str:
    # so that no alias is taken for a value
    return f"{place.volume_id}_{key}" if isinstance(key, int) else f"{place.volume_id}_target-{key}"


def _masked(place: Place, one: Instance, marked: Marked, tables: Tables) -> Lesion:
    label = (marked.labels or {}).get(marked.value(one.label))
    target = tables.targets.get(place.series_id, {}).get(one.label) if marked.categories is None else None
    category = (marked.categories or {}).get(one.label)
    lesion = _lesion(place, f"{place.volume_id}_{one.label}", label, target, tables, category)
    return replace(
        lesion,
        key_z=one.key_z,
        key_slice=place.slices[one.key_z],
        x0=one.box.x0,
        y0=one.box.y0,
        x1=one.box.x1,
        y1=one.box.y1,
        z0=one.box.z0,
        z1=one.box.z1,
        mask_label=one.label,
        derived=(*FROM_MASK, *lesion.derived),
    )


def _lesion(
    place: Place,
    lesion_id: str,
    label: Label | None,
    target: Target | None,
    tables: Tables,
    category: int | None = None,
) -> Lesion:
    """Make a row without position."""
    patient = tables.patients.get(place.patient_id or "")
    study_id = place.row.study_id if place.row else None
    timepoint, counted = tables.timepoints.get(study_id or "", (None, False))
    measured = target.measured_mm if target else None
    is_node = label is not None and label.type == NODE
    known = label is not None and label.type is not None
    window = WINDOWS.get(place.window or "")
    extra: dict[str, Any] = {
        "label": label.text if label else None,
        "category": category,
        "alias": target.alias if target else None,
        "study_order": target.study_order if target else None,
        "recist_measurement_mm": measured,
        "region": place.region,
        "patient": (patient.further if patient else None) or None,
    }
    extra = {name: value for name, value in extra.items() if value is not None}
    return Lesion(
        lesion_id=lesion_id,
        volume_id=place.volume_id,
        series_id=place.series_id,
        study_id=study_id,
        patient_id=place.patient_id,
        source="recist-dataset",
        source_row=target.row if target else None,
        long_mm=measured if known and not is_node else None,
        short_mm=measured if is_node else None,
        type=label.type if label else None,
        labels=(label.location,) if label and label.location else None,
        split=place.split,
        window_low=window.low if window else None,
        window_high=window.high if window else None,
        sex=patient.sex if patient else None,
        age=patient.age if patient else None,
        timepoint=timepoint,
        study_date=place.row.study_date if place.row else None,
        derived=("timepoint",) if counted else (),
        extra=json.dumps(extra) if extra else None,
    )


def in_words(values: Iterable[int | str]) -> str:
    """Write ascending numbers as ``"1, 4-9"``, and names as they are."""
    runs: list[list[int | str]] = []
    for value in values:
        last = runs[-1][-1] if runs else None
        if isinstance(value, int) and isinstance(last, int) and value == last + 1:
            runs[-1][1:] = [value]
        else:
            runs.append([value])
    return ", ".join("-".join(map(str, run)) for run in runs)


def mask_issues(place: Place, marked: Marked, tables: Tables, file: str) -> Iterator[Issue]:
    """Say where a mask, its labels and the table of targets do not agree, and which lesions are not of one piece.

    Parameters
    ----------
    place
        The volume.
    marked
        Its mask.
    tables
        Whose targets are looked for in the mask.
    file
        Name of the mask.
    """

    def issue(kind: str, values: Sequence[int | str], text: str, lesions: Sequence[str] = ()) -> Issue:
        names = in_words(values)
        ids = tuple(f"{place.volume_id}_{one}" for one in marked.instances if marked.value(one) in values)
        return Issue(kind, place.volume_id, file, f"{place.volume_id}: {text.format(names)}", (*ids, *lesions))

    found = set(map(marked.value, marked.instances))
    if marked.labels is not None:
        if unseen := sorted(set(marked.labels) - found - set(_unmasked(place, marked, tables))):
            yield issue("label-without-mask", unseen, "labels {} have no voxel in the mask; they are left out")
        if unnamed := sorted(found - set(marked.labels)):
            yield issue("mask-without-label", unnamed, "values {} of the mask have no label; their type is unknown")
    if split := [one.label for one in marked.instances.values() if one.gaps]:
        yield issue("split-instance", split, "lesions {} have slices without a voxel of theirs in between; kept as one")
    if marked.categories is None and (gaps := sorted(set(range(1, max(found, default=0))) - found)):
        yield issue("label-gaps", gaps, "values {} are not in the mask; the others keep theirs")
    if lost := _unmasked(place, marked, tables):
        text = "measured lesions {} have no voxel in the mask; they are kept without position"
        yield issue("target-without-mask", lost, text, [_unmasked_id(place, key) for key in lost])
