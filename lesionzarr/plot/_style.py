"""One quiet look of all figures: colours that people who see few of them can tell apart, thin axes, no ornament."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import MissingExtraError, SettingError
from lesionzarr.export.pictures import shorten

if TYPE_CHECKING:
    from collections.abc import Iterable

PALETTE = ("#332288", "#cc6677", "#117733", "#ddcc77", "#88ccee", "#882255", "#44aa99", "#999933", "#aa4499")
"""The scheme "muted" of Paul Tol, Colour Schemes, SRON/EPS/TN/09-002, which is made for colour-blind people too."""
LINES = tuple(colour for colour in PALETTE if colour not in {"#ddcc77", "#88ccee"})
"""Those that are dark enough for lines and letters."""
MINUS = "\N{MINUS SIGN}"
UNKNOWN = "#b8bcc2"
INK, FAINT = "#30343a", "#dcdfe3"

TYPE_COLOURS = {
    "lung": "#88ccee",
    "abdomen": "#117733",
    "mediastinum": "#882255",
    "liver": "#ddcc77",
    "pelvis": "#cc6677",
    "soft tissue": "#aa4499",
    "kidney": "#332288",
    "bone": "#999933",
}
"""The coarse types of DeepLesion, the same in every figure."""

SHORT = 10.0
"""Last number of a short logarithmic axis, by its first."""
WIDTH_IN, HEIGHT_IN = 5.6, 3.6
"""Of a figure with one pair of axes, in inches."""
TITLE_SHARE = 0.85
"""Of the width that axes have with their labels, which stand to the left of where a title begins."""


def new_axes(ax: Any = None, *, width: float = WIDTH_IN, height: float = HEIGHT_IN) -> Any:
    """Give the axes that were passed, or new ones that a notebook shows."""
    return ax if ax is not None else new_row(1, None, width=width, height=height)[0]


def new_row(
    count: int, ax: Any = None, *, columns: int = 4, width: float = WIDTH_IN, height: float = HEIGHT_IN
) -> list[Any]:
    """Give as many axes side by side: those that were passed, or new ones.

    Parameters
    ----------
    count
        How many.
    ax
        Axes, or as many as are needed.
    columns
        How many in a row, at most.
    width, height
        Of each new one, in inches.
    """
    if ax is not None:
        given = list(ax.flat) if hasattr(ax, "flat") else list(ax) if isinstance(ax, (list, tuple)) else [ax]
        if len(given) < count:
            raise SettingError(f"{len(given)} axes for {count} panels: pass as many, or none")
        return given[:count]
    try:
        from matplotlib import pyplot as plt
    except ImportError as error:
        raise MissingExtraError("plots need matplotlib: pip install 'lesionzarr[plot]'") from error
    columns = min(count, columns)
    rows = -(-count // columns)
    _, axes = plt.subplots(rows, columns, figsize=(width * columns, height * rows), layout="constrained", squeeze=False)
    for empty in axes.flat[count:]:
        empty.set_axis_off()
    return list(axes.flat[:count])


def quiet(ax: Any, *, grid: str = "") -> None:
    """Take away what tells nothing, and draw the rest thinly.

    Parameters
    ----------
    ax
        Axes, whose labels are set.
    grid
        ``"x"``, ``"y"`` or ``"both"``: which lines to draw behind the data.
    """
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(UNKNOWN)
    ax.tick_params(which="both", color=UNKNOWN, labelcolor=INK, labelsize="small")
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=INK, fontsize="medium")
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=0.6)


def title(ax: Any, *lines: str) -> None:
    """Write lines over axes; of one that is too long the middle is left out."""
    spec = ax.get_subplotspec()
    share = ax.get_position().width if spec is None else len(spec.colspan) / spec.get_gridspec().ncols
    room = TITLE_SHARE * share * ax.figure.bbox.width
    heading = ax.set_title("", loc="left", fontsize="medium", color=INK)

    def fits(text: str) -> bool:
        heading.set_text(literal(text))
        return bool(heading.get_window_extent().width <= room)

    heading.set_text(literal("\n".join([shorten(line, fits) for line in lines])))


def literal(text: str) -> str:
    """Give a text that matplotlib writes as it is: a formula between two dollars may be anything in data."""
    return text.replace("$", r"\$")


def legend(ax: Any, **settings: Any) -> None:
    ax.legend(**{"frameon": False, "labelcolor": INK, "fontsize": "small", "handlelength": 1.2, **settings})


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Give each name a colour, in the order of the names; types of DeepLesion have their own."""
    known = list(dict.fromkeys(names))
    free = cycle([colour for colour in PALETTE if colour not in {TYPE_COLOURS.get(name) for name in known}] or PALETTE)
    return {name: TYPE_COLOURS.get(name) or next(free) for name in known}


def plain_ticks(axis: Any, low: float, high: float) -> None:
    """Label a logarithmic axis with plain numbers such as 0.5, 1 and 20; with more of them where it is short."""
    steps = (1, 2, 5) if high > SHORT * low else (1, 1.5, 2, 3, 4, 5, 6, 8)
    places = [step * 10.0**power for power in range(-3, 6) for step in steps]
    inside = [place for place in places if low <= place <= high]
    axis.set_ticks(inside, [f"{place:g}" for place in inside])
    axis.set_ticks([], minor=True)
