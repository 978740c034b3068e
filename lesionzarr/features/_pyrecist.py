"""Response by the rules of pyrecist 0.1.0 (robertorojasp06/pyrecist, MIT, ``pyrecist/assessment.py``).

All rows of a study are added up: targets, other lesions and new ones alike, and what was not measured adds nothing.
Patients with one study are left out. PD: at least 20 % and 5 mm above the smallest sum of the studies before; PR: at
least 30 % under the first; PR lasts until PD; else SD; nothing after PD. CR is never given: a sum of 0 is PR, and later
sums are divided by it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

NAMES = {
    "patient_id": "patient_id",
    "study_date": "current_date",
    "baseline_date": "baseline_date",
    "nadir_date": "nadir_date",
    "sum_mm": "current_burden",
    "baseline_mm": "baseline_burden",
    "nadir_mm": "min_burden",
    "change_from_baseline_mm": "burden_difference_from_baseline",
    "change_from_baseline_percent": "burden_percentual_variation_from_baseline",
    "change_from_nadir_mm": "burden_difference_from_nadir",
    "change_from_nadir_percent": "burden_percentual_variation_from_nadir",
    "response": "classification",
}
"""Columns of pyrecist's ``recist_evaluation.csv``, by what they are called here."""


def evaluate_as_pyrecist(lesions: pd.DataFrame) -> list[dict[str, Any]]:
    """Evaluate one patient; rows and results as `lesionzarr.features.response.evaluate`."""
    sums = lesions.groupby("study_date", sort=True)["diameter_mm"].sum()
    if len(sums) < 2:
        return []
    totals, dates = sums.to_numpy(np.float64), list(sums.index)
    rows: list[dict[str, Any]] = []
    nadir, response = 0, ""
    for number, total in enumerate(totals):
        from_baseline, from_nadir = _percent(total, totals[0]), _percent(total, totals[nadir])
        if response == "PD":
            named: str | None = None
        elif number == 0:
            named = None
        else:
            grows = from_nadir >= 20 and total - totals[nadir] >= 5
            named = "PD" if grows else "PR" if response == "PR" or from_baseline <= -30 else "SD"
            response = named
        rows.append(
            {
                "patient_id": lesions["patient_id"].iloc[0],
                "study_date": dates[number],
                "visit": number,
                "sum_mm": total,
                "baseline_mm": totals[0],
                "baseline_date": dates[0],
                "nadir_mm": totals[nadir],
                "nadir_date": dates[nadir],
                "change_from_baseline_mm": total - totals[0],
                "change_from_baseline_percent": from_baseline,
                "change_from_nadir_mm": total - totals[nadir],
                "change_from_nadir_percent": from_nadir,
                "new_lesions": 0,
                "target_response": named,
                "non_target_response": None,
                "response": named,
            }
        )
        if total < totals[nadir]:
            nadir = number
    return rows


def to_pyrecist(table: pd.DataFrame) -> pd.DataFrame:
    """Give a table of responses as pyrecist writes it: its columns, dates as YYYYMMDD, no row for the baseline."""
    written = table.loc[table["visit"] > 0, list(NAMES)].rename(columns=NAMES).reset_index(drop=True)
    dates = [name for name in NAMES.values() if name.endswith("_date")]
    return written.assign(**{name: written[name].dt.strftime("%Y%m%d") for name in dates})


def _percent(total: float, reference: float) -> float:
    if reference:
        return float(100 * (total - reference) / reference)
    return math.inf if total else math.nan
