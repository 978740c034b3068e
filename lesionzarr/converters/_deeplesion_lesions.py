"""Rows of the lesion table for DeepLesion: marks of DL_info.csv, joined with the companion tables that were given."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lesionzarr.annotations import boxes3d, lesanet, pairs
from lesionzarr.converters._deeplesion_table import Mark, SubVolume, Table, volume_name
from lesionzarr.geometry import Box
from lesionzarr.lesion import Lesion
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lesionzarr.source import SourcePath

Run = tuple[int, int]
"""First and last slice number of a volume."""


@dataclass(frozen=True)
class Companions:
    """What the companion tables say, by lesion id or sub-volume of this table."""

    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    extras: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    """What goes to `Lesion.extra`."""
    boxes: dict[str, tuple[Box, ...]] = field(default_factory=dict)
    """3D boxes by sub-volume; row 0 is its first slice."""
    issues: list[Issue] = field(default_factory=list)


def join_labels(companions: Companions, table: Table, mined: SourcePath | None, by_hand: SourcePath | None) -> None:
    """Join LesaNet's labels by row number; SourceError where the table's rows are not those that LesaNet counts."""
    mined_labels = lesanet.read_mined_labels(mined) if mined else {}
    hand_labels = lesanet.read_hand_labels(by_hand) if by_hand else {}
    lesanet.check_rows(table.name, table.rows, {mark.row: mark.split for mark in table.marks}, mined_labels)
    for mark in table.marks:
        extra = companions.extras[mark.lesion_id]
        if label := mined_labels.get(mark.row):
            companions.labels[mark.lesion_id] = label.relevant
            extra["labels_uncertain"] = list(label.uncertain)
            extra["labels_irrelevant"] = list(label.irrelevant)
        if hand := hand_labels.get(mark.row):
            extra["hand_labels"] = {"text": hand.text, "terms": list(hand.terms)}


def join_pairs(companions: Companions, table: Table, path: SourcePath) -> None:
    """Join the pairs of Deep Lesion Tracker: `extra` of the source lesion names the target."""
    on_slice: dict[tuple[str, int], list[Mark]] = defaultdict(list)
    for mark in table.marks:
        on_slice[mark.series_id, mark.key_slice].append(mark)

    def lesion_id(side: pairs.Side) -> str | None:
        here = on_slice.get((side.series_id, side.key_slice), [])
        return next((mark.lesion_id for mark in here if side.is_at(*mark.box[:2])), None)

    lost = 0
    for pair in pairs.read_pairs(path):
        source, target = lesion_id(pair.source), lesion_id(pair.target)
        if source and target:
            found = {"pair_id": pair.pair_id, "lesion_id": target}
            companions.extras[source].setdefault("pairs", []).append(found)
        else:
            lost += 1
    if lost:
        text = f"{path.name}: {lost} pairs have a lesion that the table does not hold; they are left out"
        companions.issues.append(Issue("unmatched-pairs", path.name, path.name, text))


def join_boxes(companions: Companions, sub_volumes: Iterable[SubVolume], path: SourcePath) -> None:
    """Read the manual 3D boxes; those of sub-volumes that the table does not hold are counted as an issue."""
    companions.boxes.update(boxes3d.read_boxes(path))
    unknown = set(companions.boxes) - {sub.name for sub in sub_volumes}
    if unknown:
        text = f"{path.name}: {len(unknown)} of its sub-volumes are not in the table, such as {min(unknown)}"
        companions.issues.append(Issue("unmatched-boxes", path.name, path.name, text))


def make_lesions(sub: SubVolume, runs: Sequence[Run], companions: Companions) -> list[Lesion]:
    """Make the table rows of a sub-volume.

    Parameters
    ----------
    sub
        The sub-volume, with its marks.
    runs
        The volumes that it becomes: one, or several where slices are absent. A mark whose key slice is absent goes to
        the nearest, with `key_z` null.
    companions
        What is joined. A 3D box that belongs to a mark gives it `z0` and `z1`; one that belongs to none becomes a
        lesion of its own, with source ``deeplesion-boxes3d``.

    Returns
    -------
    list of Lesion
    """
    boxes = companions.boxes.get(sub.name, ())
    numbers = boxes3d.match(boxes, [_flat(mark).shift(-sub.first, 0, 0) for mark in sub.marks])
    in_series = [box.shift(sub.first, 0, 0) for box in boxes]
    lesions = [
        _lesion(mark, _nearest(runs, mark.key_slice), companions, None if number is None else in_series[number])
        for mark, number in zip(sub.marks, numbers, strict=True)
    ]
    for number, box in enumerate(in_series):
        if number not in numbers:
            lesions.append(_unmarked(sub, number, box, _nearest(runs, box.centre[0])))
    return lesions


def _flat(mark: Mark) -> Box:
    x0, y0, x1, y1 = mark.box
    return Box(mark.key_slice, y0, x0, mark.key_slice, y1, x1)


def _nearest(runs: Sequence[Run], number: float) -> Run:
    return min(runs, key=lambda run: max(run[0] - number, number - run[1], 0))


def _place(series_id: str, run: Run) -> dict[str, Any]:
    patient, study, _ = series_id.split("_")
    return {
        "volume_id": volume_name(series_id, *run),
        "series_id": series_id,
        "study_id": f"{patient}_{study}",
        "patient_id": patient,
    }


def _lesion(mark: Mark, run: Run, companions: Companions, box: Box | None) -> Lesion:
    """Make the row of a mark; `box` is its 3D box, with slice numbers along z."""
    first, last = run
    here = first <= mark.key_slice <= last
    extra: dict[str, Any] = dict(companions.extras.get(mark.lesion_id, {}))
    extra |= {"normalized_location": mark.location, "diameters_px": mark.diameters_px, **mark.further}
    extra["key_z_reason"] = None if here else f"slice {mark.key_slice} is not here"
    extra["box3d"] = box and [box.x0, box.y0, box.z0 - first, box.x1, box.y1, box.z1 - first]
    extra = {key: value for key, value in extra.items() if value is not None}
    x0, y0, x1, y1 = mark.box
    z0, z1 = _clip(box, run) if box else (None, None)
    long_mm, short_mm = (px * mark.spacing_mm[2] for px in mark.diameters_px) if mark.diameters_px else (None, None)
    return Lesion(
        lesion_id=mark.lesion_id,
        **_place(mark.series_id, run),
        source="deeplesion",
        source_row=mark.row,
        key_z=mark.key_slice - first if here else None,
        key_slice=str(mark.key_slice),
        x0=x0,
        y0=y0,
        x1=x1,
        y1=y1,
        z0=z0,
        z1=z1,
        recist=tuple(value for axis in mark.recist.axes for value in axis),
        long_mm=long_mm,
        short_mm=short_mm,
        type=mark.type,
        labels=companions.labels.get(mark.lesion_id),
        split=mark.split,
        window_low=mark.window.low if mark.window else None,
        window_high=mark.window.high if mark.window else None,
        noisy=mark.noisy,
        sex=mark.sex,
        age=mark.age,
        derived=("long_mm", "short_mm") if mark.diameters_px else (),
        extra=json.dumps(extra) if extra else None,
    )


def _unmarked(sub: SubVolume, number: int, box: Box, run: Run) -> Lesion:
    """Make the row of a 3D box that no mark of the table belongs to; the split is its patient's."""
    z0, z1 = _clip(box, run)
    return Lesion(
        lesion_id=f"{sub.name}_box{number + 1}",
        **_place(sub.series_id, run),
        source="deeplesion-boxes3d",
        x0=box.x0,
        y0=box.y0,
        x1=box.x1,
        y1=box.y1,
        z0=z0,
        z1=z1,
        split=sub.marks[0].split,
        derived=("split",),
    )


def _clip(box: Box, run: Run) -> Run | tuple[float, float]:
    first, last = run
    z0, z1 = (min(max(end, first), last) - first for end in (box.z0, box.z1))
    return z0, z1
