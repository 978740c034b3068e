"""Tables of what was measured, equal in content to those of recist-dataset's scripts.

`measure_labels` is ``compute_lesions_features.py`` of robertorojasp06/recist-dataset, `summarise` the published
statistics of its table. Names of columns are upstream's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import GeometryError
from lesionzarr.features.measure import Measurement, measure_mask
from lesionzarr.features.tracks import NODES, check_columns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Measure = Callable[[NDArray[np.bool_], NDArray[Any] | None, tuple[float | None, float, float]], Measurement]

COLUMNS: dict[str, str] = {
    "filename": "str",
    "label_value": "int64",
    "label_description": "str",
    "voxels_count": "int64",
    "volume_ml": "float64",
    "slices_count": "int64",
    "mean_HU": "float64",
    "std_HU": "float64",
    "major_axis_mm": "float64",
    "minor_axis_mm": "float64",
    "major_axis_slice_idx": "int64",
    "method": "str",
    "unconnected_strategy": "str",
    "subset": "str",
    "lesion_location": "str",
}
"""Columns of a table of features, and their types; the last two are those that the published table adds."""

LEAST_VOXELS, LEAST_SLICES = 50, 2
"""Upstream takes smaller objects away (``get_3d_instance_annotated_lesions.py``)."""

QUARTILES = (0.25, 0.5, 0.75)


def feature_row(
    measured: Measurement, *, filename: str, label_value: int, description: str | None, subset: str | None
) -> dict[str, Any]:
    """Give one lesion as a row of the table of features.

    Parameters
    ----------
    measured
        The lesion; its slices are rows of the volume.
    filename
        Of the image, or the id of the volume.
    label_value
        In the mask.
    description
        Such as ``"m,liver"``: type and location.
    subset
        ``train`` or ``test``.

    Returns
    -------
    dict
        Values by column, as `COLUMNS`.
    """
    _, _, location = (description or "").partition(",")
    values = (
        filename,
        label_value,
        description,
        measured.voxels,
        measured.volume_ml,
        measured.slices,
        measured.mean_hu,
        measured.std_hu,
        measured.long_mm,
        measured.short_mm,
        measured.key_z,
        measured.method,
        measured.unconnected,
        subset,
        location.strip() or None,
    )
    return dict(zip(COLUMNS, values, strict=True))


def measure_labels(
    labels: NDArray[Any],
    hu: NDArray[Any],
    spacing_mm: tuple[float | None, float, float],
    descriptions: Mapping[int, str],
    *,
    filename: str,
    subset: str | None = None,
    measure: Measure = measure_mask,
) -> pd.DataFrame:
    """Measure every lesion of one image.

    Parameters
    ----------
    labels
        Whole numbers (z, y, x): 0, or the value of a lesion.
    hu
        Densities in HU, of the same shape.
    spacing_mm
        Distance of neighbouring voxels along (z, y, x).
    descriptions
        What each value is, such as ``{1: "m,liver"}``. A value that is not named there has a null; one that is named
        and not there has no row.
    filename
        Of the image.
    subset
        ``train`` or ``test``.
    measure
        `lesionzarr.features.measure.measure_mask`, also with settings (`functools.partial`), or
        `lesionzarr.features.upstream.measure_as_upstream`.

    Returns
    -------
    pandas.DataFrame
        One row per value, ascending; columns as `COLUMNS`.

    Raises
    ------
    GeometryError
        Arrays of different shapes, a spacing that cannot be, or a lesion that `measure` refuses.
    """
    if labels.shape != hu.shape or labels.ndim != 3:
        raise GeometryError(
            f"labels of shape {labels.shape} and densities of {hu.shape}: they must be equal, (z, y, x)"
        )
    rows = []
    for value, start, stop in _boxes(labels):
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        measured = measure(labels[box] == value, hu[box], spacing_mm)
        row = feature_row(
            measured, filename=filename, label_value=value, description=descriptions.get(value), subset=subset
        )
        rows.append({**row, "major_axis_slice_idx": measured.key_z + start[0]})
    return typed(rows)


def typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Give rows of features as a table with the types of `COLUMNS`."""
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def diameters(features: pd.DataFrame) -> pd.Series[float]:
    """Give what RECIST 1.1 measures of each lesion, in mm: of nodes (``n,...``) the minor axis, else the major one."""
    is_node = _types(features).isin(NODES)
    return features["major_axis_mm"].mask(is_node, features["minor_axis_mm"]).rename("diameter_mm")


def summarise(
    features: pd.DataFrame,
    *,
    series: pd.DataFrame | None = None,
    objects: pd.DataFrame | None = None,
    targets: pd.DataFrame | None = None,
) -> dict[str, Any]:
    """Count and describe the lesions of a release, as its published statistics do.

    Parameters
    ----------
    features
        One row per lesion, columns as `COLUMNS`.
    series
        One row per series: ``patient_id``, ``study_uuid``, ``study_date``, and where they are known ``region``,
        ``subset``, ``row_spacing`` and ``slices`` (``series.json``). Without it these counts are left out.
    objects
        One row per connected object before small ones were taken away: ``size_voxels``, ``slices_count``, ``removed``
        (``objects_results.csv``).
    targets
        One row per measured target: ``lesion_label_type`` (``recist_measurements.csv``, joined with the labels).

    Returns
    -------
    dict
        ``summary``, ``volume_ml``, ``diameter_mm``, ``mean_hu``, and with series ``row_spacing_mm`` and ``slices``:
        plain JSON values. Deviations are those of a sample, divided by the number less one. Of no values there are
        NaN, as of the deviation of one.

    Raises
    ------
    SettingError
        A column is missing.
    """
    check_columns(features, ("label_description", "volume_ml", "mean_HU", "major_axis_mm", "minor_axis_mm"))
    summary = {} if series is None else _count_series(series)
    summary |= _count_lesions(features)
    summary |= {} if objects is None else _count_objects(objects)
    summary |= {} if targets is None else _count_targets(targets)
    if series is not None:
        dates = series["study_date"].astype("string").str.replace("-", "").dropna()
        summary |= {"study_date_min": min(dates, default=None), "study_date_max": max(dates, default=None)}
    described: dict[str, Any] = {
        "summary": summary,
        "volume_ml": describe(features["volume_ml"]),
        "diameter_mm": describe(diameters(features)),
        "mean_hu": describe(features["mean_HU"]),
    }
    if {"method", "unconnected_strategy"} <= {*features}:
        words = [", ".join(sorted(features[name].unique())) for name in ("method", "unconnected_strategy")]
        note = f"minor axis for label n, else major axis; method {words[0]}, unconnected {words[1]}"
        described["diameter_mm"] = {"note": note, **described["diameter_mm"]}
    if series is not None:
        spread = {"row_spacing_mm": "row_spacing", "slices": "slices"}
        named = {name: describe(series[column]) for name, column in spread.items() if column in series}
        described |= {name: {key: all_[key] for key in ("min", "q50", "max")} for name, all_ in named.items()}
    return described


def describe(values: pd.Series[Any]) -> dict[str, float]:
    """Give count, mean, deviation of a sample, least, quartiles and greatest of the values that are there."""
    numbers = values.dropna().astype("float64")
    quartiles = {f"q{round(100 * share)}": float(numbers.quantile(share)) for share in QUARTILES}
    return {
        "count": len(numbers),
        "mean": float(numbers.mean()),
        "std": float(numbers.std()),
        "min": float(numbers.min()),
        **quartiles,
        "max": float(numbers.max()),
    }


def _boxes(labels: NDArray[Any]) -> list[tuple[int, list[int], list[int]]]:
    """Find each value but 0, with the first voxel and the one after the last along each axis."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for z, plane in enumerate(labels):
        y, x = plane.nonzero()
        values = plane[y, x]
        order = values.argsort(kind="stable")
        names, starts = np.unique(values[order], return_index=True)
        for name, part in zip(names.tolist(), np.split(order, starts[1:]), strict=False):
            low, high = found.setdefault(int(name), ([z, *labels.shape[1:]], [0, 0, 0]))
            low[1:] = [min(low[1], int(y[part].min())), min(low[2], int(x[part].min()))]
            high[:] = [z + 1, max(high[1], int(y[part].max()) + 1), max(high[2], int(x[part].max()) + 1)]
    return [(name, *found[name]) for name in sorted(found)]


def _types(features: pd.DataFrame) -> pd.Series[str]:
    return features["label_description"].astype("string").str.partition(",")[0].str.strip().str.lower()


def _count_series(series: pd.DataFrame) -> dict[str, Any]:
    check_columns(series, ("patient_id", "study_uuid", "study_date"))
    return {
        "patients": int(series["patient_id"].nunique()),
        "studies": int(series["study_uuid"].nunique()),
        "series": len(series),
        **_count(series, "region", "series_"),
        **_count(series, "subset", "series_"),
    }


def _count_lesions(features: pd.DataFrame) -> dict[str, Any]:
    types = _types(features).value_counts()
    return {
        "lesions": len(features),
        **_count(features, "subset", "lesions_"),
        "lesion_types": {str(name): int(number) for name, number in types.items()},
    }


def _count_objects(objects: pd.DataFrame) -> dict[str, int]:
    check_columns(objects, ("size_voxels", "slices_count", "removed"))
    return {
        "objects_before_filter": len(objects),
        "objects_removed": int(objects["removed"].astype(bool).sum()),
        f"objects_under_{LEAST_VOXELS}_voxels": int((objects["size_voxels"] < LEAST_VOXELS).sum()),
        "objects_one_slice": int((objects["slices_count"] < LEAST_SLICES).sum()),
    }


def _count_targets(targets: pd.DataFrame) -> dict[str, int]:
    check_columns(targets, ("lesion_label_type",))
    nodes = int(targets["lesion_label_type"].astype("string").str.strip().str.lower().isin(NODES).sum())
    return {
        "recist_targets": len(targets),
        "recist_targets_adenopathy": nodes,
        "recist_targets_tumor": len(targets) - nodes,
    }


def _count(frame: pd.DataFrame, column: str, prefix: str) -> dict[str, int]:
    counts = frame[column].value_counts() if column in frame else pd.Series(dtype="int64")
    return {f"{prefix}{name}": int(number) for name, number in counts.items()}
