"""Figures of many lesions: where they lie in the body, how large they are, how far apart the voxels are."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.features.tracks import check_columns
from lesionzarr.plot._style import (
    HEIGHT_IN,
    INK,
    PALETTE,
    UNKNOWN,
    WIDTH_IN,
    colours_of,
    legend,
    literal,
    new_axes,
    plain_ticks,
    quiet,
    title,
)
from lesionzarr.store.catalog import Catalog

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

NO_TYPE = "type unknown"
LENGTHS = {"long_mm": "long axis", "short_mm": "short axis"}
SPACINGS = {"spacing_y_mm": "pixels, along y", "spacing_x_mm": "pixels, along x", "spacing_z_mm": "slices"}
MAP_IN = 6.0, 5.4
"""Width and height: a body is longer than it is wide, and the legend stands beside it. Both axes are shares, so that no
shape would be the true one."""
BINS = 8, 40
"""Least and most bars of a histogram."""


def relative_places(lesions: pd.DataFrame) -> NDArray[np.float64]:
    """Give the relative position of lesions in the body.

    Parameters
    ----------
    lesions
        Rows of ``catalog.lesions``.

    Returns
    -------
    ndarray
        float64 (lesion, 3): x, y, z as ``Normalized_lesion_location`` of DeepLesion has them. x from the patient's
        right to left and y from front to back are shares of the body's extent in the slice; z from head to feet is that
        of the body-part regressor (Yan et al., Journal of Medical Imaging 5(3), 2018). NaN where the source gives none.
    """
    check_columns(lesions, ("extra",))
    extras = [json.loads(cell) if isinstance(cell, str) else {} for cell in lesions["extra"]]
    places = [extra.get("normalized_location") or [np.nan] * 3 for extra in extras]
    return np.array(places, dtype=np.float64).reshape(-1, 3)


def lesion_map(lesions: Catalog | pd.DataFrame, *, ax: Any = None) -> Any:
    """Draw where lesions lie in the body, seen from the front: the figure in the README of DeepLesion.

    Parameters
    ----------
    lesions
        A store, or rows of ``catalog.lesions``.
    ax
        Axes of matplotlib; None for new ones.

    Returns
    -------
    matplotlib.axes.Axes
        One dot per lesion that has a relative position (`relative_places`), x against z, in the colour of its type.

    Raises
    ------
    SettingError
        No lesion has a relative position; of the datasets read here DeepLesion alone gives one.
    MissingExtraError
        matplotlib is absent.
    """
    table = _lesions(lesions)
    places = relative_places(table)
    there = ~np.isnan(places).any(axis=1)
    if not there.any():
        raise SettingError("no lesion has a relative position in the body: of the datasets read here DeepLesion has it")
    types = _named(table["type"], NO_TYPE)[np.flatnonzero(there)]
    counts = Counter(types)
    named = [name for name, _ in counts.most_common() if name != NO_TYPE]
    colours = {**colours_of(sorted(named)), NO_TYPE: UNKNOWN}
    ax = new_axes(ax, width=MAP_IN[0], height=MAP_IN[1])
    size = float(np.clip(6000 / there.sum(), 5, 45))
    ax.scatter(places[there, 0], places[there, 2], s=size, c=[colours[name] for name in types], linewidths=0, alpha=0.8)
    ax.set(
        xlim=(0, 1), ylim=(1, 0), xlabel="from the patient's right (0) to left (1)", ylabel="from head (0) to feet (1)"
    )
    shown = named + [NO_TYPE] * (NO_TYPE in counts)
    handles = [
        ax.scatter([], [], s=36, color=colours[name], label=literal(f"{name}  {counts[name]:,}")) for name in shown
    ]
    legend(ax, handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2)
    quiet(ax)
    left_out = int((~there).sum())
    title(ax, f"{there.sum():,} lesions" + (f", {left_out:,} more without a relative position" if left_out else ""))
    return ax


def sizes(lesions: Catalog | pd.DataFrame, *, by: str | None = None, ax: Any = None) -> Any:
    """Draw how long lesions are.

    Parameters
    ----------
    lesions
        A store, or rows of ``catalog.lesions``.
    by
        A column, such as ``"type"`` or ``"split"``: one box for each of its values, from the lower to the upper
        quartile of the long axis, with whiskers at 5 and 95 %. None for the histograms of both axes.
    ax
        Axes of matplotlib; None for new ones.

    Returns
    -------
    matplotlib.axes.Axes
        Lengths in mm, on a logarithmic scale; lesions of 0 mm, that are gone, are left out.

    Raises
    ------
    SettingError
        No lesion has a length, or no such column.
    MissingExtraError
        matplotlib is absent.
    """
    table = _lesions(lesions)
    if by is None:
        return _histograms({text: table[name] for name, text in LENGTHS.items() if name in table}, "lesions", ax)
    check_columns(table, (by, "long_mm"))
    measured = table[table["long_mm"] > 0]
    if measured.empty:
        raise SettingError("no lesion has a long axis")
    groups = measured["long_mm"].groupby(_named(measured[by], "unknown"))
    order = groups.median().sort_values().index
    ax = new_axes(ax, height=max(1.6, 0.8 + 0.34 * len(order)))
    colours = {**colours_of(sorted(order)), "unknown": UNKNOWN}
    for row, name in enumerate(order):
        drawn = ax.boxplot(
            groups.get_group(name).to_numpy(),
            positions=[row],
            orientation="horizontal",
            widths=0.55,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            capprops={"linewidth": 0},
            whiskerprops={"color": INK, "linewidth": 0.8},
            boxprops={"facecolor": colours[name], "edgecolor": "none", "alpha": 0.85},
            medianprops={"color": INK, "linewidth": 1.6},
        )
        drawn["medians"][0].set_gid(name)
    ax.set_xscale("log")
    plain_ticks(ax.xaxis, *ax.get_xlim())
    ax.set_yticks(range(len(order)), [literal(f"{name}  {len(groups.get_group(name)):,}") for name in order])
    ax.set_xlabel("long axis (mm)")
    quiet(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)
    return ax


def spacings(volumes: Catalog | pd.DataFrame, *, ax: Any = None) -> Any:
    """Draw how far apart neighbouring pixels and slices of the volumes are.

    Parameters
    ----------
    volumes
        A store, or rows of ``catalog.volumes``.
    ax
        Axes of matplotlib; None for new ones.

    Returns
    -------
    matplotlib.axes.Axes
        Numbers of volumes by distance in mm, on a logarithmic scale. Columns of pixels are drawn apart from rows only
        where a volume has another distance along x than along y; slice intervals that are unknown are counted in the
        legend.

    Raises
    ------
    SettingError
        No volume, or a column is missing.
    MissingExtraError
        matplotlib is absent.
    """
    table = volumes.volumes if isinstance(volumes, Catalog) else volumes
    check_columns(table, SPACINGS)
    square = np.array_equal(table["spacing_y_mm"], table["spacing_x_mm"])
    texts = {**SPACINGS, "spacing_y_mm": "pixels"} if square else SPACINGS
    shown = {text: table[name] for name, text in texts.items() if not (square and name == "spacing_x_mm")}
    return _histograms(shown, "volumes", ax, label="distance of neighbours (mm)")


def _named(values: pd.Series[Any], unknown: str) -> NDArray[np.object_]:
    """Give values as text, and a word for those that are missing."""
    return np.array([unknown if missing else str(value) for value, missing in zip(values, values.isna(), strict=True)])


def _lesions(lesions: Catalog | pd.DataFrame) -> pd.DataFrame:
    return lesions.lesions if isinstance(lesions, Catalog) else lesions


def _histograms(series: dict[str, pd.Series[float]], what: str, ax: Any, label: str = "length (mm)") -> Any:
    """Draw histograms of lengths in mm over one another, with their medians."""
    known = {text: np.asarray(values[values > 0], dtype=np.float64) for text, values in series.items()}
    everything = np.concatenate([*known.values(), np.empty(0)])
    if not everything.size:
        raise SettingError(f"none of the {what} has a length")
    edges = _edges(everything)
    ax = new_axes(ax, width=WIDTH_IN, height=HEIGHT_IN)
    for (text, values), colour in zip(known.items(), PALETTE, strict=False):
        counts, _ = np.histogram(values, edges)
        unknown = int(series[text].isna().sum())
        told = f"median {np.median(values):.3g} mm" if values.size else "none known"
        more = f", {unknown:,} unknown" if unknown and values.size else ""
        ax.stairs(counts, edges, fill=True, color=colour, alpha=0.25)
        ax.stairs(counts, edges, color=colour, linewidth=1.4, label=f"{text}: {told}{more}")
        if values.size:
            ax.axvline(float(np.median(values)), color=colour, linewidth=0.9, linestyle=(0, (4, 3)))
    ax.set_xscale("log")
    ax.set_xlim(edges[0], edges[-1])
    plain_ticks(ax.xaxis, edges[0], edges[-1])
    ax.yaxis.get_major_locator().set_params(integer=True)
    ax.set_ylim(0, 1.05 * ax.dataLim.y1)
    ax.set(xlabel=label, ylabel=what)
    legend(ax, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2)
    quiet(ax, grid="y")
    return ax


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the edges of bars of one width on a logarithmic scale."""
    low, high = float(values.min()), float(values.max())
    if high < 1.5 * low:
        low, high = low / 1.25, high * 1.25
    count = int(np.clip(round(2 * len(values) ** 0.5), *BINS))
    # the outermost values lie inside of the outermost bars
    return np.geomspace(low * 0.95, high * 1.05, count + 1)
