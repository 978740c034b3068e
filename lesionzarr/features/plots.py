"""Pictures of responses, over time and at their best, and of the densities of images."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.errors import MissingExtraError, not_found

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPIDER, WATERFALL = "spider", "waterfall"
KINDS = (SPIDER, WATERFALL)

COLOURS = {
    "CR": "#332288",
    "PR": "#88ccee",
    "SD": "#ddcc77",
    "Non-CR/Non-PD": "#ddcc77",
    "PD": "#882255",
    "NE": "#8c959f",
}
"""From the scheme "muted" of Paul Tol, Colour Schemes, SRON/EPS/TN/09-002, made for colour-blind people too."""
NO_RESPONSE = "#57606a"
RANK = ("CR", "PR", "SD", "Non-CR/Non-PD", "PD", "NE")
"""From the best response to the worst."""
CLOSE = 0.03
"""Share of the height of a plot that a text needs."""


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
    _draw(where, lambda axes: (_draw_spider if kind == SPIDER else _draw_waterfall)(table, axes))


def plot_intensities(
    densities: pd.DataFrame,
    where: str | os.PathLike[str] | Any,
    *,
    groups: Mapping[str, str] | None = None,
) -> None:
    """Draw the distributions of the densities of images.

    Parameters
    ----------
    densities
        One column per image, one row per bin, indexed by the bin's middle in HU; values per HU, as
        `lesionzarr.features.intensities.intensity_density` gives them.
    where
        As of `plot_response`.
    groups
        What an image shows, such as ``"thorax"``, by its column: a colour each. Thin lines are images, thick ones the
        means of a group.

    Raises
    ------
    MissingExtraError
        matplotlib is absent.
    """
    _draw(where, lambda axes: _draw_densities(densities, axes, groups or {}))


def _draw(where: str | os.PathLike[str] | Any, draw: Callable[[Any], None]) -> None:
    """Draw on axes, or on those of a picture to write."""
    if not isinstance(where, (str, os.PathLike)):
        draw(where)
        return
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'lesionzarr[plot]'") from error
    path = Path(where)
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(figure.add_subplot())
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _draw_densities(densities: pd.DataFrame, axes: Any, groups: Mapping[str, str]) -> None:
    names = pd.Series({name: groups.get(str(name), "") for name in densities.columns})
    seen = densities.where(densities > 0)
    for number, group in enumerate(sorted(names.unique())):
        own, colour = seen.loc[:, (names == group).to_numpy()], f"C{number}"
        axes.plot(own.index, own.to_numpy(), color=colour, linewidth=0.5, alpha=0.4)
        label = f"{group or 'mean'} ({own.shape[1]})"
        axes.plot(own.index, own.mean(axis=1), color=colour, linewidth=2, label=label)
    # air is so frequent that tissue would lie on the axis
    axes.set_yscale("log")
    axes.set_xlabel("HU")
    axes.set_ylabel("share of voxels per HU")
    axes.legend(frameon=False, loc="upper right")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_spider(table: pd.DataFrame, axes: Any) -> None:
    ends: list[tuple[float, float, str]] = []
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
        later = change[(rows["visit"] > 0) & change.notna()].index
        if len(later):
            ends.append((float(days[later[-1]]), float(change[later[-1]]), str(patient)))
    _name_ends(axes, ends)
    axes.set_xlabel("days from baseline; ring: nadir")
    _finish(axes, table["response"])


def _name_ends(axes: Any, ends: list[tuple[float, float, str]]) -> None:
    """Write patients at the ends of their lines, those that would cover one another in one text."""
    low, high = axes.get_ylim()
    texts: list[tuple[float, float, list[str]]] = []
    for day, change, name in sorted(ends):
        if texts and texts[-1][0] == day and change - texts[-1][1] < CLOSE * (high - low):
            texts[-1][2].append(name)
        else:
            texts.append((day, change, [name]))
    for day, change, names in texts:
        text = ", ".join(names)
        axes.annotate(text, (day, change), xytext=(7, 0), textcoords="offset points", va="center", fontsize="small")


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
        axes.legend(handles=handles, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
