"""Lesions, series and targets of a store as the tables of a release of recist-dataset, which statistics count."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

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
        study_uuid=lesions["study_id"],
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
            "patient_id": volumes["patient_id"],
            "study_uuid": volumes["study_id"],
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


def _extras(cell: Any) -> dict[str, Any]:
    return json.loads(cell) if isinstance(cell, str) else {}


def _whole(cells: pd.Series[Any]) -> pd.Series[Any]:
    """Give numbers without a fraction as such, so that 10 comes after 9; anything else as it is."""
    numbers = pd.to_numeric(cells, errors="coerce").astype("Float64")
    lost = numbers.isna() & cells.notna()
    return cells if lost.any() or (numbers % 1 != 0).any() else numbers.astype("Int64")
