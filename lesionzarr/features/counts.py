"""Tables of lesions counted by patient, series, label and place, as the notebooks of recist-dataset publish them.

``notebooks/data_properties.ipynb`` and ``data_for_nnunet_finetuning.ipynb`` of robertorojasp06/recist-dataset. Names of
columns are upstream's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.features.statistics import describe
from lesionzarr.features.tracks import check_columns

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENT = ["subset", "patient_id", "diagnosis"]
SERIES = [*PATIENT, "filename", "study_date"]
PERSON = ["patient_id", "sex", "age", "diagnosis", "subset", "health_insurance"]
LESION = ["study_uuid", "label_description", "lesion_location", "volume_ml"]
PLACES = ("liver", "lung")
"""Of which upstream describes the volumes, series by series."""
PLACE = ["subset", "filename", "patient_id", "sex", "age", "diagnosis", "lesion_location"]
SPREAD = {"mean": "mean", "std": "std", "min": "min", "q25": "Q25", "q50": "Q50", "q75": "Q75", "max": "max"}


def count_tables(lesions: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Count lesions, series, studies and patients.

    Parameters
    ----------
    lesions
        One row per lesion: ``filename`` of its series, ``study_uuid``, ``study_date``, ``subset``,
        ``label_description``, ``lesion_location``, ``volume_ml``, and of its patient ``patient_id``, ``sex``,
        ``age``, ``diagnosis`` and ``health_insurance``; `lesionzarr.features.release.lesions_of_store` makes it.

    Returns
    -------
    dict of str to pandas.DataFrame
        By the name of the published table: ``patients``, ``patient_counts``, ``patient_annotated_volume``,
        ``series_lesion_counts``, ``series_label_counts``, ``label_patient_counts``, ``location_series_counts`` and
        ``liver_lung_series_volume_stats``. Deviations are those of a sample. Counts by label and place are from the
        greatest to the least, of equal ones by name.

    Raises
    ------
    SettingError
        A column is missing.
    """
    check_columns(lesions, dict.fromkeys([*SERIES, *PERSON, *LESION]))
    by_patient = lesions.groupby(PATIENT, dropna=False)
    return {
        "patients": lesions.drop_duplicates("patient_id")[PERSON].reset_index(drop=True),
        "patient_counts": by_patient.agg(
            studies_count=("study_uuid", "nunique"),
            series_count=("filename", "nunique"),
            lesions_count=("filename", "size"),
        ).reset_index(),
        "patient_annotated_volume": by_patient.agg(
            lesions_count=("filename", "size"), annotated_volume_ml=("volume_ml", "sum")
        ).reset_index(),
        "series_lesion_counts": _count(lesions, SERIES),
        "series_label_counts": _count(lesions, [*SERIES, "label_description"]),
        "label_patient_counts": _count_different(lesions, "label_description", "patient_id", "patients_count"),
        "location_series_counts": _count_different(lesions, "lesion_location", "filename", "series_count"),
        "liver_lung_series_volume_stats": _describe_places(lesions),
    }


def _count(lesions: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    return lesions.groupby(list(names), dropna=False).size().reset_index(name="lesions_count")


def _count_different(lesions: pd.DataFrame, name: str, what: str, column: str) -> pd.DataFrame:
    counts = lesions.groupby(name)[what].nunique().reset_index(name=column)
    return counts.sort_values(column, ascending=False, kind="stable", ignore_index=True)


def _describe_places(lesions: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    for place in PLACES:
        there = lesions[lesions["lesion_location"] == place]
        for keys, volumes in there.groupby(PLACE, dropna=False)["volume_ml"]:
            described = describe(volumes)
            row = dict(zip(PLACE, keys, strict=True))
            row |= {"lesions_count": len(volumes), "annotated_volume_ml": float(volumes.sum())}
            rows.append(row | {f"volume_ml_{new}": described[name] for name, new in SPREAD.items()})
    columns = [
        "filename",
        "subset",
        *PLACE[2:],
        "lesions_count",
        "annotated_volume_ml",
        *(f"volume_ml_{name}" for name in SPREAD.values()),
    ]
    return pd.DataFrame(rows, columns=columns)
