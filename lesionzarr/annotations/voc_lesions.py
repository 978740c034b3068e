"""Per-slice boxes of one series linked into findings in three dimensions, and these as rows of the lesion table.

The rule. Two boxes belong together when they have the same label, lie on slices at most `GAP` rows apart, and overlap
in the plane by an intersection over union of at least `OVERLAP`. Pairs are taken nearest rows first, then best overlap
first; a box is joined to at most one below and one above it. A finding is what is joined: a chain with one box a slice.

The thresholds. In the series of subject A0002 (10 and 8 slices, 8 mm apart) the tumour is boxed on consecutive slices,
and neighbours overlap by 0.39 to 0.85: each series gives one finding. `OVERLAP` leaves a factor of four for tumours
that taper faster, and lets a box nest in one of ten times its area. `GAP` bridges one slice without a box, since a
damaged file or a stray label on one slice would otherwise cut a tumour in two. The same tumour in another
reconstruction is drawn anew by the annotators, and is a finding of that series.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any, NamedTuple

from lesionzarr.annotations.subjects import DIAGNOSES, subject_code, subject_letter
from lesionzarr.geometry import Box
from lesionzarr.lesion import COLUMNS, Lesion
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lesionzarr.annotations.voc_boxes import BoxTable, DrawnBox

SOURCE = "lung-pet-ct-dx"
GAP = 2
"""Rows that two boxes of a finding may be apart: 2 bridges one slice that has no box."""
OVERLAP = 0.1
"""Least intersection over union, in the plane, of two boxes that are joined."""


class SliceBox(NamedTuple):
    """One box on one slice of a volume, in 0-based pixels of the slice, ends inclusive."""

    row: int
    """Of the slice, along z."""
    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    folders: tuple[str, ...] = ()
    """Subject folders whose files have this box."""
    difficult: bool = False

    @property
    def box(self) -> Box:
        """The rectangle, on its slice."""
        return Box(self.row, self.y0, self.x0, self.row, self.y1, self.x1)


Chain = tuple[SliceBox, ...]
"""The boxes of one finding: one label, at most one box a slice, rows ascending."""


def link_boxes(slices: Sequence[SliceBox]) -> list[Chain]:
    """Link the boxes of one volume into findings, by the rule above.

    Parameters
    ----------
    slices
        In any order, which has no influence.

    Returns
    -------
    list of Chain
        Every box is in exactly one; sorted by first row, then position.
    """
    boxes = sorted(slices)
    above: dict[int, int] = {}
    joined: set[int] = set()
    for _, _, low, high in sorted(_pairs(boxes)):
        if low not in above and high not in joined:
            above[low] = high
            joined.add(high)
    chains: list[Chain] = []
    for start in range(len(boxes)):
        if start not in joined:
            chain, last = [boxes[start]], start
            while last in above:
                last = above[last]
                chain.append(boxes[last])
            chains.append(tuple(chain))
    return chains


def lesions_of_volume(
    volume_id: str,
    series_id: str,
    study_id: str,
    patient_id: str,
    *,
    sop_uids: Sequence[str],
    size: tuple[int, int],
    table: BoxTable,
) -> tuple[list[Lesion], list[Issue]]:
    """Make the table rows of a volume's findings.

    Parameters
    ----------
    volume_id, series_id, study_id, patient_id
        As in the lesion table; the patient as the images name it, such as ``Lung_Dx-A0001``.
    sop_uids
        SOPInstanceUID of every slice, in the order of rows.
    size
        Rows and columns of the slices.
    table
        All boxes.

    Returns
    -------
    list of Lesion
        One for each chain. ``x0`` to ``y1`` is the union over its slices, ``z0`` and ``z1`` its first and last row;
        the key slice is the one with the box of the largest area, the lowest row where several are largest.
        ``extra`` holds ``slice_boxes`` ([row, x0, y0, x1, y1] of each), ``class_letter``, ``subject_letter`` and
        ``subject_type`` (of the patient's id), ``annotation_folders``, and ``difficult`` where a box is marked so.
    list of Issue
        Boxes that leave the image (kept as drawn) or are wholly outside of it (left out), an image of another size than
        the annotation states, and annotations from another subject's folder.
    """
    rows = [(row, uid, table.boxes[uid]) for row, uid in enumerate(sop_uids) if uid in table.boxes]
    issues: list[Issue] = []
    inside: list[SliceBox] = []
    for row, uid, boxes in rows:
        for box in boxes:
            fault, kept = _outside(box, size)
            if fault:
                issues.append(Issue("box-outside", uid, f"{box.folders[0]}/{uid}.xml", f"{uid}: {fault}"))
            if kept:
                inside.append(SliceBox(row, *box))
    issues += _other_sizes(volume_id, size, {uid: table.sizes[uid] for _, uid, _ in rows if uid in table.sizes})
    chains = link_boxes(inside)
    issues += _other_subjects(volume_id, patient_id, chains)
    place = {"volume_id": volume_id, "series_id": series_id, "study_id": study_id, "patient_id": patient_id}
    return [_lesion(number, chain, place, sop_uids) for number, chain in enumerate(chains, 1)], issues


def _pairs(boxes: Sequence[SliceBox]) -> Iterator[tuple[int, float, int, int]]:
    """List the pairs that may be joined: rows apart, overlap (negative), number of the lower box, of the upper."""
    by_row: dict[tuple[str, int], list[int]] = defaultdict(list)
    for number, box in enumerate(boxes):
        by_row[box.label, box.row].append(number)
    flat = [box.box for box in boxes]
    for (label, row), lower in by_row.items():
        for apart in range(1, GAP + 1):
            for high in by_row.get((label, row + apart), ()):
                for low in lower:
                    overlap = flat[low].overlap_in_plane(flat[high])
                    if overlap >= OVERLAP:
                        yield apart, -overlap, low, high


def _outside(box: DrawnBox, size: tuple[int, int]) -> tuple[str, bool]:
    """Say how a box leaves an image (nothing where it does not), and whether it is kept."""
    rows, columns = size
    if box.x0 >= 0 and box.y0 >= 0 and box.x1 <= columns - 1 and box.y1 <= rows - 1:
        return "", True
    drawn = f"box {box.x0:g}, {box.y0:g} to {box.x1:g}, {box.y1:g}"
    if box.x1 < 0 or box.y1 < 0 or box.x0 > columns - 1 or box.y0 > rows - 1:
        return f"{drawn} is outside the image of {rows} rows and {columns} columns; it is left out", False
    return f"{drawn} leaves the image of {rows} rows and {columns} columns; it is kept as drawn", True


def _other_sizes(volume_id: str, size: tuple[int, int], stated: dict[str, tuple[int, int]]) -> list[Issue]:
    other = {uid: found for uid, found in stated.items() if found != size}
    if not other:
        return []
    uid, found = min(other.items())
    text = f"{volume_id}: {len(other)} annotations, such as {uid}, state {found} rows and columns, the image has {size}"
    return [Issue("annotation-size", volume_id, f"{uid}.xml", f"{text}; their boxes are kept as drawn")]


def _other_subjects(volume_id: str, patient_id: str, chains: Sequence[Chain]) -> list[Issue]:
    folders = {folder for chain in chains for box in chain for folder in box.folders}
    return [
        Issue(
            "other-subject", volume_id, folder, f"{volume_id}: of {patient_id}, boxed in folder {folder}; both are kept"
        )
        for folder in sorted(folders)
        if subject_code(folder) != subject_code(patient_id)
    ]


def _lesion(number: int, chain: Chain, place: dict[str, Any], sop_uids: Sequence[str]) -> Lesion:
    key = max(chain, key=lambda box: ((box.x1 - box.x0 + 1) * (box.y1 - box.y0 + 1), -box.row))
    label = chain[0].label
    letter = subject_letter(place["patient_id"])
    extra: dict[str, Any] = {
        "slice_boxes": [[box.row, box.x0, box.y0, box.x1, box.y1] for box in chain],
        "class_letter": label if label in DIAGNOSES else None,
        "subject_letter": letter,
        "subject_type": DIAGNOSES[letter] if letter else None,
        "annotation_folders": sorted({folder for box in chain for folder in box.folders}),
        "difficult": any(box.difficult for box in chain) or None,
    }
    computed = {"key_z", "z0", "z1"} | ({"type"} if label in DIAGNOSES else set())
    if len(chain) > 1:
        computed |= {"key_slice", "x0", "y0", "x1", "y1"}
    return Lesion(
        lesion_id=f"{place['volume_id']}_lesion{number}",
        **place,
        source=SOURCE,
        key_z=key.row,
        key_slice=sop_uids[key.row],
        x0=min(box.x0 for box in chain),
        y0=min(box.y0 for box in chain),
        x1=max(box.x1 for box in chain),
        y1=max(box.y1 for box in chain),
        z0=float(chain[0].row),
        z1=float(chain[-1].row),
        type=DIAGNOSES.get(label),
        labels=(label,),
        derived=tuple(column for column in COLUMNS if column in computed),
        extra=json.dumps({name: value for name, value in extra.items() if value is not None}),
    )
