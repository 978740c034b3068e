"""Response to treatment by RECIST 1.1, from the diameters of lesions over the studies of a patient.

Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1), European
Journal of Cancer 45, 2009, sections 4.3 and 4.4 and table 1, as the RECIST working group has clarified it
(https://recist.eortc.org/recist-1-1-2/):

- the sum is that of the target lesions, which are those of the first study: of lymph nodes the short axis, of all else
  the long one;
- PD, progressive disease: the sum is at least 20 % and at least 5 mm above the nadir, the smallest sum of the studies
  before, the first included; or a new lesion; or unequivocal progression of lesions that are no targets. New is what is
  there at no study before, a lymph node from 10 mm on; being listed, as 0 mm or without a length, is not being there;
- CR, complete response: all targets have vanished, and lymph nodes are under 10 mm;
- PR, partial response: the sum is at least 30 % under that of the first study; it lasts until PD or CR;
- SD, stable disease: none of these;
- NE: a target was not measured, unless the others alone make it PD; a lesion that has vanished is measured, as 0 mm;
- after CR, a lesion that comes back is PD, a target that is a lymph node from 10 mm on; a node that is no target takes
  CR back when it has 10 mm, and is PD only where that is unequivocal;
- no response is given after PD.

What the standard leaves to people is left to them: responses are not confirmed by a later study, and nobody checks that
targets are measurable or how many there are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from lesionzarr.errors import not_found
from lesionzarr.features._pyrecist import evaluate_as_pyrecist
from lesionzarr.features.timepoints import (
    ABSENT,
    CATEGORIES,
    NEW,
    NON_TARGET,
    PRESENT,
    PROGRESSION,
    TARGET,
    clean_timepoints,
)
from lesionzarr.features.tracks import note_rows

if TYPE_CHECKING:
    from lesionzarr.report import Issue

RECIST, PYRECIST = "recist-1.1", "pyrecist"
MODES = (RECIST, PYRECIST)

CR, PR, SD, PD, NE = "CR", "PR", "SD", "PD", "NE"
STABLE_NON_TARGET = "Non-CR/Non-PD"

NODE_MM: Final = 10.0
"""Short axis from which a lymph node is pathological."""
SHRINKAGE: Final = 0.3
GROWTH: Final = 0.2
GROWTH_MM: Final = 5.0
ROUNDING_MM: Final = 1e-9
"""By so much a sum may miss a limit that decimals such as 25.2 - 21 cannot hold exactly."""

COLUMNS: dict[str, str] = {
    "patient_id": "object",
    "study_date": "datetime64[ns]",
    "visit": "int64",
    "sum_mm": "float64",
    "baseline_mm": "float64",
    "baseline_date": "datetime64[ns]",
    "nadir_mm": "float64",
    "nadir_date": "datetime64[ns]",
    "change_from_baseline_mm": "float64",
    "change_from_baseline_percent": "float64",
    "change_from_nadir_mm": "float64",
    "change_from_nadir_percent": "float64",
    "new_lesions": "int64",
    "target_response": "string",
    "non_target_response": "string",
    "response": "string",
}
"""Columns of a table of responses, and their types."""


@dataclass(frozen=True)
class Visit:
    """The lesions of one patient at one study."""

    date: pd.Timestamp
    targets: dict[str, float]
    """Diameter of each target in mm by alias, NaN where it was not measured."""
    nodes: frozenset[str]
    """Aliases that are lymph nodes."""
    non_targets: dict[str, str | None]
    """State of each lesion that is no target, None where it was not looked at."""
    there: frozenset[str]
    """Aliases of all lesions, of any kind, that were seen; lymph nodes from 10 mm on."""


@dataclass(frozen=True)
class Course:
    """What is known of a patient before a study."""

    baseline: Visit
    baseline_mm: float
    nadir_mm: float
    nadir_date: pd.Timestamp
    known: frozenset[str]
    """Aliases of lesions that are no longer new."""
    responded: bool = False
    complete: bool = False
    progressed: bool = False


def evaluate(timepoints: pd.DataFrame, *, mode: str = RECIST) -> tuple[pd.DataFrame, list[Issue]]:
    """Evaluate the response of each patient at each study.

    Parameters
    ----------
    timepoints
        One row per lesion and study; the first study of a patient is the baseline.

        - ``patient_id``; ``study_date`` as YYYY-MM-DD, YYYYMMDD or a date; ``alias``, the lesion's name in the patient;
        - ``diameter_mm``: the short axis of a node, the long one of all else; 0 where it has vanished, NaN where it was
          not measured, which a missing row means too;
        - ``node``, optional: True for lymph nodes;
        - ``category``, optional: ``"target"`` (where there is no such column), ``"non-target"`` or ``"new"``. A target
          or lesion that is no target and that no study before has is a new lesion;
        - ``status``, optional, of lesions that are no targets: ``"absent"``, ``"present"``, ``"progression"`` or null.
          Without it the diameter tells the first two.

        `lesionzarr.features.timepoints.to_timepoints` makes such a table of those of pyrecist, recist-dataset and a
        store.
    mode
        ``"recist-1.1"``, or ``"pyrecist"`` for the rules of pyrecist 0.1.0, see `lesionzarr.features._pyrecist`.

    Returns
    -------
    pandas.DataFrame
        One row per patient and study, in order, the baseline included; columns as `COLUMNS`. ``nadir_mm`` is the
        smallest sum before that study. ``target_response`` is CR, PR, SD, PD or NE, ``non_target_response`` CR,
        Non-CR/Non-PD, PD or NE, null where there are no such lesions. ``response`` is that of the study; null at
        the baseline and after PD.
    list of Issue
        Cells that mean nothing and count as empty, targets without a diameter (``no-diameter``), targets of 0 mm at the
        baseline, which are none (``no-target``), and rows that were left out, see
        `lesionzarr.features.timepoints.clean_timepoints`. A patient with such a row keeps the sums of the
        others, but all responses are NE, or null by the rules of pyrecist: the row may have been the baseline.

    Raises
    ------
    SettingError
        A column is missing.
    NotFoundError
        No such mode.
    """
    if mode not in MODES:
        raise not_found("mode", mode, MODES)
    checked = clean_timepoints(timepoints)
    rows: list[dict[str, Any]] = []
    for _, lesions in checked.rows.groupby("patient_id", sort=True):
        rows += evaluate_as_pyrecist(lesions) if mode == PYRECIST else _evaluate_patient(lesions)
    table = pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)
    is_open = table["patient_id"].isin(checked.incomplete) & (table["visit"] > 0)
    for name in ("target_response", "non_target_response", "response"):
        table.loc[is_open & ((name == "response") | table[name].notna()), name] = NE if mode == RECIST else pd.NA
    issues = checked.issues
    if mode == RECIST:
        rows_of_none = checked.rows[_is_no_target(checked.rows)]
        note_rows(issues, "no-target", rows_of_none, lambda _: "a target of 0 mm at the baseline; it counts as none")
    return table, issues


def _is_no_target(lesions: pd.DataFrame) -> pd.Series[bool]:
    """Tell rows of targets that the first study does not have."""
    first = lesions.groupby("patient_id")["study_date"].transform("min")
    return (lesions["study_date"] == first) & (lesions["category"] == TARGET) & (lesions["diameter_mm"] == 0)


def _evaluate_patient(lesions: pd.DataFrame) -> list[dict[str, Any]]:
    patient = lesions["patient_id"].iloc[0]
    visits = [_visit(date, rows) for date, rows in lesions.groupby("study_date", sort=True)]
    baseline = _baseline(visits[0])
    total = sum(baseline.targets.values())
    seen = frozenset([*baseline.targets, *baseline.non_targets])
    course = Course(baseline, total, total, baseline.date, seen)
    rows = [_row(patient, 0, baseline, course, total)]
    for number, visit in enumerate(visits[1:], start=1):
        total = _sum(visit, course)
        new = visit.there - course.known
        target = _target_response(visit, course)
        non_target = _non_target_response(visit, course)
        overall = None if course.progressed else _overall(target, non_target, new=bool(new))
        named = {"new_lesions": len(new), "target_response": target, "non_target_response": non_target}
        rows.append({**_row(patient, number, visit, course, total), **named, "response": overall})
        course = _follow(course, visit, total, target, overall)
    return rows


def _visit(date: Any, rows: pd.DataFrame) -> Visit:
    diameters = dict(zip(rows["alias"], rows["diameter_mm"], strict=True))
    nodes = frozenset(rows["alias"][rows["node"].astype(bool)])
    by_category = {name: list(rows["alias"][rows["category"] == name]) for name in CATEGORIES}
    given = dict(zip(rows["alias"], rows["status"], strict=True))
    targets = {alias: float(diameters[alias]) for alias in by_category[TARGET]}
    states = {
        alias: _state(given[alias], diameters[alias], is_node=alias in nodes) for alias in by_category[NON_TARGET]
    }
    told = [
        *(alias for alias, diameter in targets.items() if not math.isnan(diameter)),
        *(alias for alias, state in states.items() if state in (PRESENT, PROGRESSION)),
        *by_category[NEW],
    ]
    there = frozenset(alias for alias in told if not _is_gone(diameters[alias], is_node=alias in nodes))
    return Visit(pd.Timestamp(date), targets, nodes, states, there)


def _baseline(visit: Visit) -> Visit:
    """Leave out what is not there, and would be new later; what was not measured may be there."""
    targets = {alias: diameter for alias, diameter in visit.targets.items() if diameter != 0}
    states = {alias: state for alias, state in visit.non_targets.items() if state != ABSENT}
    return replace(visit, targets=targets, non_targets=states)


def _state(given: Any, diameter_mm: float, *, is_node: bool) -> str | None:
    if isinstance(given, str):
        return given
    if math.isnan(diameter_mm):
        return None
    return ABSENT if _is_gone(diameter_mm, is_node=is_node) else PRESENT


def _is_gone(diameter_mm: float, *, is_node: bool) -> bool:
    return diameter_mm < NODE_MM if is_node else diameter_mm == 0


def _sum(visit: Visit, course: Course) -> float:
    """Add the targets of the baseline up; NaN where one was not measured."""
    return sum(visit.targets.get(alias, math.nan) for alias in course.baseline.targets)


def _target_response(visit: Visit, course: Course) -> str | None:
    targets = course.baseline.targets
    if not targets:
        return None
    diameters = {alias: visit.targets.get(alias, math.nan) for alias in targets}
    # what was not measured can only add to it
    least = sum(diameter for diameter in diameters.values() if not math.isnan(diameter))
    growth = least - course.nadir_mm
    nodes = course.baseline.nodes | visit.nodes
    gone = all(_is_gone(diameter, is_node=alias in nodes) for alias, diameter in diameters.items())
    measured = not any(map(math.isnan, diameters.values()))
    came_back = course.complete and any(
        not (math.isnan(diameter) or _is_gone(diameter, is_node=alias in nodes))
        for alias, diameter in diameters.items()
    )
    if came_back or growth >= max(GROWTH * course.nadir_mm, GROWTH_MM) - ROUNDING_MM:
        return PD
    if not measured or math.isnan(course.baseline_mm):
        return NE
    if gone:
        return CR
    if course.responded or least <= (1 - SHRINKAGE) * course.baseline_mm + ROUNDING_MM:
        return PR
    return SD


def _non_target_response(visit: Visit, course: Course) -> str | None:
    if not course.baseline.non_targets:
        return None
    states = {alias: visit.non_targets.get(alias) for alias in course.baseline.non_targets}
    nodes = course.baseline.nodes | visit.nodes
    came_back = course.complete and any(state == PRESENT and alias not in nodes for alias, state in states.items())
    if came_back or PROGRESSION in states.values():
        return PD
    if None in states.values():
        return NE
    return CR if set(states.values()) == {ABSENT} else STABLE_NON_TARGET


def _overall(target: str | None, non_target: str | None, *, new: bool) -> str:
    """Put target and other lesions together: tables 1 and 2 of the guideline."""
    if new or PD in (target, non_target):
        return PD
    if target is None:
        return non_target or NE
    if target == CR:
        return CR if non_target in (None, CR) else PR
    return target


def _follow(course: Course, visit: Visit, total: float, target: str | None, overall: str | None) -> Course:
    # the nadir of the studies so far, those without a sum left out; also where the baseline has none
    lower = total < course.nadir_mm or (math.isnan(course.nadir_mm) and not math.isnan(total))
    return Course(
        course.baseline,
        course.baseline_mm,
        total if lower else course.nadir_mm,
        visit.date if lower else course.nadir_date,
        course.known | visit.there,
        course.responded or target in (PR, CR),
        course.complete or overall == CR,
        course.progressed or overall == PD,
    )


def _row(patient: Any, number: int, visit: Visit, course: Course, total: float) -> dict[str, Any]:
    return {
        "patient_id": patient,
        "study_date": visit.date,
        "visit": number,
        "sum_mm": total,
        "baseline_mm": course.baseline_mm,
        "baseline_date": course.baseline.date,
        "nadir_mm": course.nadir_mm,
        "nadir_date": course.nadir_date,
        **_change("baseline", total, course.baseline_mm),
        **_change("nadir", total, course.nadir_mm),
        "new_lesions": 0,
        "target_response": None,
        "non_target_response": None,
        "response": None,
    }


def _change(name: str, total: float, reference: float) -> dict[str, float]:
    share = (total - reference) / reference if reference else math.nan
    return {f"change_from_{name}_mm": total - reference, f"change_from_{name}_percent": 100 * share}
