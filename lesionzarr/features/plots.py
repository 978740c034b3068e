"""Pictures of responses: the sum of diameters of each patient over time, and the best change of each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import MissingExtraError, not_found

if TYPE_CHECKING:
    import pandas as pd

SPIDER, WATERFALL = "spider", "waterfall"
KINDS = (SPIDER, WATERFALL)

COLOURS = {
    "CR": "#1a7f37",
    "PR": "#2da44e",
    "SD": "#bf8700",
    "Non-CR/Non-PD": "#bf8700",
    "PD": "#cf222e",
    "NE": "#8c959f",
}
NO_RESPONSE = "#57606a"
RANK = ("CR", "PR", "SD", "Non-CR/Non-PD", "PD", "NE")
"""From the best response to the worst."""


def plot_response(table: pd.DataFrame, where: str | os.PathLike[str] | Any, *, kind: str = SPIDER) -> None:
    """Draw a table of responses.

    Parameters
    ----------
    table
        As `lesionzarr.features.response.evaluate` gives it.
    where
        Path of a picture, by whose ending its format goes (``.png``, ``.svg``, ``.pdf``), or axes of matplotlib.
    kind
        ``"spider"``: the change of each patient's sum from the baseline over days, a dot in the colour of the response
        at each study, and a ring round the nadir. ``"waterfall"``: one bar per patient for the smallest sum after the
        baseline, in the colour of the best response. Dashed lines are at +20 % and -30 %.

    Raises
    ------
    NotFoundError
        No such kind.
    MissingExtraError
        matplotlib is absent.
    """
    if kind not in KINDS:
        raise not_found("kind of plot", kind, KINDS)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plot_response needs matplotlib: pip install 'lesionzarr[plot]'") from error
    draw = _draw_spider if kind == SPIDER else _draw_waterfall
    if not isinstance(where, (str, os.PathLike)):
        draw(table, where)
        return
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(table, figure.add_subplot())
    figure.savefig(Path(where), dpi=150)


def _draw_spider(table: pd.DataFrame, axes: Any) -> None:
    for patient, rows in table.reset_index(drop=True).groupby("patient_id", sort=True):
        days = (rows["study_date"] - rows["baseline_date"]).dt.days
        change = rows["change_from_baseline_percent"]
        axes.plot(days, change, color=NO_RESPONSE, linewidth=1, zorder=1)
        colours = [COLOURS.get(str(response), NO_RESPONSE) for response in rows["response"]]
        axes.scatter(days, change, c=colours, s=30, zorder=2)
        if rows["sum_mm"].notna().any():
            lowest = int(rows["sum_mm"].argmin())
            axes.scatter(
                days.iloc[lowest], change.iloc[lowest], s=110, facecolors="none", edgecolors=NO_RESPONSE, zorder=3
            )
        axes.annotate(str(patient), (days.iloc[-1], change.iloc[-1]), xytext=(5, 0), textcoords="offset points")
    axes.set_xlabel("days from baseline; ring: nadir")
    _finish(axes, table["response"])


def _draw_waterfall(table: pd.DataFrame, axes: Any) -> None:
    later = table[table["visit"] > 0]
    best = later.groupby("patient_id")["change_from_baseline_percent"].min().dropna().sort_values(ascending=False)
    responses = later.groupby("patient_id")["response"].agg(_best)
    names = [str(patient) for patient in best.index]
    axes.bar(names, best.to_numpy(), color=[COLOURS.get(responses[patient], NO_RESPONSE) for patient in best.index])
    axes.set_xlabel("patient")
    _finish(axes, responses[best.index])


def _best(responses: pd.Series[str]) -> str:
    given = set(responses.dropna())
    return next((response for response in RANK if response in given), "")


def _finish(axes: Any, responses: pd.Series[str]) -> None:
    for limit in (20, -30):
        axes.axhline(limit, color=NO_RESPONSE, linewidth=0.8, linestyle="--")
    axes.axhline(0, color=NO_RESPONSE, linewidth=0.8)
    axes.set_ylabel("change of the sum of diameters from baseline (%)")
    shown = [response for response in RANK if response in set(responses.dropna())]
    handles = [axes.scatter([], [], color=COLOURS[response], label=response) for response in shown]
    if handles:
        axes.legend(handles=handles, frameon=False)
