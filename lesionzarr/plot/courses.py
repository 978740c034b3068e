"""Figures over time: how lesions grow and shrink over the studies of a patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import SettingError
from lesionzarr.features.response import GROWTH, GROWTH_MM, SHRINKAGE
from lesionzarr.features.tracks import check_columns, link_lesions, name_lesions, parse_dates
from lesionzarr.plot._style import HEIGHT_IN, INK, LINES, UNKNOWN, WIDTH_IN, legend, literal, new_row, quiet, title
from lesionzarr.store.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

DIAMETER, SUM = "diameter_mm", "sum_mm"
AXES = {
    DIAMETER: "RECIST diameter (mm)",
    SUM: "sum of diameters (mm)",
    "long_mm": "long axis (mm)",
    "short_mm": "short axis (mm)",
    "volume_ml": "volume (ml)",
}
CUBED = ("ml", "mm3")
"""Units of volumes: what a length is multiplied with they are multiplied with three times."""
MOST = 12
"""Patients in one figure."""
FEW = 4
"""Lesions of a patient whose limits are drawn: those of more hide what they belong to."""
COLUMNS = 3
APART = 0.055
"""Share of the height of the axes that a name needs."""


@dataclass(frozen=True)
class Curve:
    """One quantity over the studies of a patient."""

    name: str
    days: NDArray[np.float64]
    """From the patient's first study, rising; numbers of the studies where there are no dates."""
    sizes: NDArray[np.float64]

    @property
    def nadir(self) -> int:
        """Number of the smallest size, the first of them."""
        return int(self.sizes.argmin())

    def limits(self, measure: str) -> tuple[float, NDArray[np.float64]]:
        """Give the size of partial response, and for each study that from which the next one is progression."""
        power = 3 if measure.rpartition("_")[2] in CUBED else 1
        lowest = np.minimum.accumulate(self.sizes)
        progression = lowest * (1 + GROWTH) ** power
        if power == 1:
            progression = np.maximum(progression, lowest + GROWTH_MM)
        return float(self.sizes[0] * (1 - SHRINKAGE) ** power), progression


def growth(lesions: Catalog | pd.DataFrame, *, measure: str | None = None, ax: Any = None) -> list[Any]:
    """Draw the size of lesions over the studies of each patient.

    A square is the baseline, a ring the nadir, the smallest size. The dotted line is the limit of partial response,
    30 % under the baseline; the dashed one that of progression at the next study, 20 % and 5 mm above the nadir so far
    (RECIST 1.1, see `lesionzarr.features.response`). RECIST applies them to the sum of the targets; of a single lesion
    they only tell the scale. Of volumes the same limits are cubed, -66 % and +73 %, as of a sphere, without the 5 mm.

    Parameters
    ----------
    lesions
        A store or rows of ``catalog.lesions``, whose sources name lesions over the studies (recist-dataset); what
        `lesionzarr.features.tracks.link_lesions` gives; or the sums that `lesionzarr.features.response.evaluate` gives.
    measure
        A column, such as ``"long_mm"``, or ``"volume_ml"`` that was joined to the lesions; None for the sum where the
        table has it, else for the diameter that RECIST takes: the short axis of nodes, the long one of all else.
    ax
        Axes of matplotlib, as many as patients; None for new ones.

    Returns
    -------
    list of matplotlib.axes.Axes
        One for each patient, of the first 12 that have a lesion at two studies or more; if none has, of the first 12.

    Raises
    ------
    SettingError
        No lesion has a track and a size, or a column is missing.
    MissingExtraError
        matplotlib is absent.
    """
    table, measure = _tracks(lesions, measure)
    patients = {str(patient): list(_curves(rows)) for patient, rows in table.groupby("patient_id", sort=True)}
    several = {patient: curves for patient, curves in patients.items() if any(len(each.days) > 1 for each in curves)}
    shown = dict(list((several or patients).items())[:MOST])
    if not shown:
        text = "its source names none over the studies, or they were not measured"
        raise SettingError(f"no lesion has a track and a {measure}: {text}")
    width = WIDTH_IN if len(shown) == 1 else 4.2
    panels = new_row(len(shown), ax, columns=COLUMNS, width=width, height=HEIGHT_IN)
    dated = table["_dated"].all()
    for number, (axes, (patient, curves)) in enumerate(zip(panels, shown.items(), strict=True)):
        _draw(axes, curves, measure)
        title(axes, f"patient {patient}")
        axes.set_xlabel("days from the first study" if dated else "study")
        if number % COLUMNS == 0:
            axes.set_ylabel(literal(AXES.get(measure, measure)))
    _explain(panels[0], measure)
    return panels


def _tracks(lesions: Catalog | pd.DataFrame, measure: str | None) -> tuple[pd.DataFrame, str]:
    """Give one row per point of a curve: patient, name, time and size."""
    table = lesions.lesions if isinstance(lesions, Catalog) else lesions
    if SUM in table and "track_id" not in table:
        table, measure = table.assign(track_id="sum", label="sum of targets"), measure or SUM
    elif "track_id" not in table:
        check_columns(table, ("extra", "labels", "patient_id"))
        table, _ = link_lesions(name_lesions(table))
    measure = measure or DIAMETER
    if measure == DIAMETER and DIAMETER not in table:
        check_columns(table, ("node", "long_mm", "short_mm"))
        table = table.assign(diameter_mm=table["long_mm"].mask(table["node"], table["short_mm"]))
    check_columns(table, ("patient_id", "visit", measure))
    dates = parse_dates(table["study_date"]) if "study_date" in table else pd.Series(pd.NaT, index=table.index)
    first = dates.groupby(table["patient_id"]).transform("min")
    days = (dates - first).dt.days.astype("float64")
    dated = bool(days.notna().all())
    labels = table["label"] if "label" in table else _labels(table)
    rows = pd.DataFrame(
        {
            "patient_id": table["patient_id"],
            "track_id": table["track_id"],
            "label": labels,
            "day": days if dated else table["visit"].astype("float64"),
            "size": table[measure].astype("float64"),
            "_dated": dated,
        }
    )
    return rows.dropna(subset=["track_id", "day", "size"]), measure


def _labels(table: pd.DataFrame) -> pd.Series[str]:
    """Give what a curve is called: the alias, and where the lesion is."""
    alias = table["alias"].astype("string") if "alias" in table else table["track_id"].astype("string")
    place = table["location"] if "location" in table else pd.Series(pd.NA, index=table.index)
    return alias + (", " + place.astype("string")).fillna("")


def _curves(rows: pd.DataFrame) -> Iterator[Curve]:
    for _, track in rows.groupby("track_id", sort=True):
        points = track.sort_values("day", kind="stable")
        yield Curve(str(points["label"].iloc[0]), points["day"].to_numpy(), points["size"].to_numpy())


def _draw(axes: Any, curves: list[Curve], measure: str) -> None:
    ends: list[tuple[float, str, str]] = []
    for number, curve in enumerate(curves):
        colour = INK if measure == SUM else LINES[number % len(LINES)]
        axes.plot(curve.days, curve.sizes, color=colour, linewidth=1.8, marker="o", markersize=3.5, zorder=3)
        axes.plot(curve.days[:1], curve.sizes[:1], color=colour, marker="s", markersize=6.5, zorder=4)
        low = curve.nadir
        axes.plot(
            *(curve.days[low : low + 1], curve.sizes[low : low + 1]),
            color=colour,
            marker="o",
            markersize=10,
            markerfacecolor="none",
            zorder=4,
        )
        if len(curve.days) > 1 and len(curves) <= FEW:
            response, progression = curve.limits(measure)
            thin = {"color": colour, "linewidth": 0.8, "alpha": 0.6, "zorder": 2}
            axes.plot(curve.days[[0, -1]], [response, response], linestyle=(0, (1, 2)), **thin)
            # at a study the limit is that of the nadir before it
            axes.step(curve.days, np.append(progression[:1], progression[:-1]), linestyle=(0, (5, 3)), **thin)
        ends.append((float(curve.sizes[-1]), curve.name, colour))
    axes.set_ylim(0, None)
    axes.margins(x=0.06)
    quiet(axes, grid="y")
    _name_ends(axes, ends)


def _name_ends(axes: Any, ends: list[tuple[float, str, str]]) -> None:
    """Write the names at the right, none over another."""
    low, high = axes.get_ylim()
    place = -np.inf
    for value, name, colour in sorted(ends):
        place = max(value, place + APART * (high - low))
        axes.annotate(
            literal(name),
            (1.0, place),
            xycoords=("axes fraction", "data"),
            xytext=(3, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=colour,
            annotation_clip=False,
        )


def _explain(axes: Any, measure: str) -> None:
    power = 3 if measure.rpartition("_")[2] in CUBED else 1
    shrunk, grown = 1 - (1 - SHRINKAGE) ** power, (1 + GROWTH) ** power - 1
    over = f"{grown:.0%}" if power == 3 else f"{grown:.0%} and {GROWTH_MM:g} mm"
    mark = {"color": UNKNOWN, "linestyle": "none"}
    line = {"color": INK, "linewidth": 0.8}
    handles = [
        axes.plot([], [], marker="s", label="baseline", **mark)[0],
        axes.plot([], [], marker="o", markersize=9, markerfacecolor="none", label="nadir", **mark)[0],
        axes.plot([], [], linestyle=(0, (1, 2)), label=f"{shrunk:.0%} under baseline", **line)[0],
        axes.plot([], [], linestyle=(0, (5, 3)), label=f"{over} over nadir", **line)[0],
    ]
    legend(axes.figure, handles=handles, loc="outside lower center", ncols=4, columnspacing=1.4, handlelength=1.8)
