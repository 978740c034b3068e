"""Lesions, series and targets of a store as the tables of a release of recist-dataset, which statistics count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.report import Issue

if TYPE_CHECKING:
    from lesionzarr.store.catalog import Catalog

ENDING = ".nii.gz"
OF_TARGETS = {"alias", "study_order", "recist_measurement_mm"}
"""What a lesion has in its column ``extra`` where the source's table of targets names it."""


def lesions_of_store(catalog: Catalog, features: pd.DataFrame) -> pd.DataFrame:
    """Say of each measured lesion whose it is.

    Parameters
    ----------
    catalog
        The store.
    features
        As `lesionzarr.features.store.features_of_store` gives it, of lesions of this store.

    Returns
    -------
    pandas.DataFrame
        The rows with ``study_uuid``, ``study_date`` (YYYYMMDD), ``patient_id`` (a whole number where all are), ``sex``,
        ``age``, ``diagnosis`` and ``health_insurance``. ``filename`` is the id of the series with ``.nii.gz``, as in
        upstream's tables; labels are in small letters.
    """
    lesions = catalog.lesions.loc[features.index]
    patients = [_extras(cell).get("patient") or {} for cell in lesions["extra"]]
    return features.assign(
        filename=lesions["series_id"] + ENDING,
        label_description=features["label_description"]
        .str.lower()
        .str.replace(r"\s*,\s*", ",", regex=True)
        .str.strip(),
        lesion_location=features["lesion_location"].str.lower(),
        study_uuid=lesions["study_id"].replace("", pd.NA),
        study_date=lesions["study_date"].astype("string").str.replace("-", ""),
        patient_id=_whole(lesions["patient_id"]),
        sex=lesions["sex"],
        age=_whole(lesions["age"]),
        diagnosis=pd.array([patient.get("diagnosis") for patient in patients], dtype="string"),
        health_insurance=pd.array([patient.get("health_insurance") for patient in patients], dtype="string"),
    )


def series_of_store(catalog: Catalog) -> pd.DataFrame:
    """Give one row per series of CT: what `lesionzarr.features.statistics.summarise` counts.

    Parameters
    ----------
    catalog
        The store.

    Returns
    -------
    pandas.DataFrame
        ``uuid``, ``patient_id``, ``study_uuid``, ``study_date`` (YYYYMMDD), ``region``, ``subset`` (that of its
        lesions; null where it has none), ``row_spacing`` in mm and ``slices``, those of all its volumes.
    """
    volumes = catalog.volumes[catalog.volumes["modality"] == "CT"]
    splits = catalog.lesions.groupby("series_id")["split"].first()
    rows = pd.DataFrame(
        {
            "uuid": volumes["series_id"],
            "patient_id": volumes["patient_id"].replace("", pd.NA),
            "study_uuid": volumes["study_id"].replace("", pd.NA),
            "study_date": volumes["study_date"],
            "region": pd.array([json.loads(tags).get("Region") for tags in volumes["tags"]], dtype="string"),
            "subset": volumes["series_id"].map(splits),
            "row_spacing": volumes["spacing_y_mm"],
            "slices": volumes["slices"],
        }
    )
    firsts = {name: "first" for name in rows.columns if name != "uuid"} | {"slices": "sum"}
    return rows.groupby("uuid", as_index=False).agg(firsts)


def targets_of_store(catalog: Catalog) -> pd.DataFrame:
    """Give one row per target lesion at a study.

    Parameters
    ----------
    catalog
        The store.

    Returns
    -------
    pandas.DataFrame
        Indexed by lesion_id: ``lesion_label_type`` as the source has it, such as ``"n"``; null where it says none.
    """
    extras = {name: _extras(cell) for name, cell in catalog.lesions["extra"].items()}
    targets = {name: extra for name, extra in extras.items() if OF_TARGETS & extra.keys()}
    types = [(extra.get("label") or "").partition(",")[0].strip().lower() or None for extra in targets.values()]
    index = pd.Index(list(targets), name="lesion_id", dtype=object)
    return pd.DataFrame({"lesion_label_type": pd.array(types, dtype="string")}, index=index)


def fill_baselines(catalog: Catalog, lesions: pd.DataFrame) -> tuple[pd.DataFrame, list[Issue]]:
    """Say where the first study of a patient is not in a store, so that its lesions are not taken for new ones.

    RECIST 1.1 counts a lesion at a place that was not scanned at the baseline as new (section 4.3.5). A store cannot
    tell this from a series that was not downloaded or not converted, so that such a lesion counts as not measured.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Its targets, named by `lesionzarr.features.tracks.name_lesions`.

    Returns
    -------
    pandas.DataFrame
        The rows, and one without lengths at the first study for each lesion of a region that has no mask there, unless
        it was measured all the same. Where
        the first study has no series at all, the lengths of the first one that is there are taken away. The id of an
        added row is empty.
    list of Issue
        One for each such patient and region.
    """
    issues: list[Issue] = []
    regions = pd.Series({name: json.loads(tags).get("Region") for name, tags in catalog.volumes["tags"].items()})
    volumes = catalog.volumes.assign(region=regions, day=catalog.volumes["study_date"].str.replace("-", ""))
    masked = volumes[volumes["mask"].notna()]
    added: list[pd.DataFrame] = []
    filled = lesions.copy()
    for patient, own in lesions.groupby("patient_id"):
        day = volumes.loc[volumes["patient_id"] == patient, "day"].min()
        if pd.isna(day):
            continue
        there = masked[(masked["patient_id"] == patient) & (masked["day"] == day)]
        days = own["study_date"].str.replace("-", "")
        if own["timepoint"].fillna(0).min() > 0 and (days == day).any():
            text = f"patient {patient}: no lesions of the baseline; those of the first study count as not measured"
            issues.append(Issue("no-baseline", str(patient), "", text))
            filled.loc[days[days == day].index, ["long_mm", "short_mm"]] = float("nan")
        for region in sorted(set(own["region"].dropna()) - set(there["region"])):
            late = own[own["region"] == region].drop_duplicates("alias")
            late = late[~late["alias"].isin(own.loc[(own["region"] == region) & (days == day), "alias"])]
            if late.empty:
                continue
            added.append(_unmeasured(late, day))
            text = f"patient {patient}: no mask of the {region} at the first study; its lesions count as not measured"
            issues.append(Issue("no-baseline", str(patient), "", f"{text} there"))
    return pd.concat([filled, *added]) if added else filled, issues


def fill_studies(catalog: Catalog, lesions: pd.DataFrame) -> tuple[pd.DataFrame, list[Issue]]:
    """Add the studies at which no target of a patient was measured, so that they are evaluated too.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Its targets, named by `lesionzarr.features.tracks.name_lesions`.

    Returns
    -------
    pandas.DataFrame
        The rows, and one without lengths for each target at each CT after the patient's first that has none of them.
        The id of an added row is empty.
    list of Issue
        One for each such study.
    """
    issues: list[Issue] = []
    added: list[pd.DataFrame] = []
    days = _days_of_ct(catalog)
    for patient, own in lesions.groupby("patient_id"):
        known = set(own["study_date"].str.replace("-", "").dropna())
        for day in sorted(set(days[catalog.volumes["patient_id"] == patient].dropna()) - known):
            if known and day > min(known):
                added.append(_unmeasured(own.drop_duplicates(["region", "alias"]), day))
                text = f"patient {patient}: no target was measured at the study of {day[:4]}-{day[4:6]}-{day[6:]}"
                issues.append(Issue("unmeasured-study", str(patient), "", text))
    return pd.concat([lesions, *added]) if added else lesions, issues


def add_looks(catalog: Catalog, lesions: pd.DataFrame) -> pd.DataFrame:
    """Add a row without alias for each CT with a mask, and for each study, which tracks are then compared with.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Its targets, named by `lesionzarr.features.tracks.name_lesions`.

    Returns
    -------
    pandas.DataFrame
        The rows, and those of patients who have targets with ``patient_id``, ``study_date`` and ``region`` alone; where
        there is no mask without a region too.
    """
    days = _days_of_ct(catalog).dropna()
    volumes = catalog.volumes.loc[days.index]
    regions = [json.loads(tags).get("Region") for tags in volumes["tags"]]
    looks = pd.DataFrame(
        {
            "patient_id": volumes["patient_id"],
            "study_date": days,
            "region": pd.Series(regions, days.index, dtype="string").mask(volumes["mask"].isna()),
        }
    )
    looks = looks[looks["patient_id"].isin(lesions["patient_id"])].drop_duplicates()
    return pd.concat([lesions, looks.set_axis(pd.Index([""] * len(looks), name="lesion_id"))])


def _days_of_ct(catalog: Catalog) -> pd.Series[str]:
    volumes = catalog.volumes
    return volumes["study_date"].astype("string").str.replace("-", "").where(volumes["modality"] == "CT")


def _unmeasured(lesions: pd.DataFrame, day: str) -> pd.DataFrame:
    """Give rows of lesions at another study, without lengths and ids."""
    rows = lesions.assign(study_date=day, long_mm=float("nan"), short_mm=float("nan"))
    return rows.set_axis(pd.Index([""] * len(rows), name="lesion_id"))


def _extras(cell: Any) -> dict[str, Any]:
    return json.loads(cell) if isinstance(cell, str) else {}


def _whole(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Give numbers without a fraction as such, so that 10 comes after 9; anything else as it is."""
    numbers = pd.to_numeric(cells, errors="coerce").astype("Float64")
    lost = numbers.isna() & cells.notna()
    return cells if lost.any() or (numbers % 1 != 0).any() else numbers.astype("Int64")
