"""Figures: lesions on a map of the body, sizes, spacings, windows, growth, and what notebooks show of values.

Each takes a store, or a table where that is all it needs, draws on the axes that it is given, or on new ones, and gives
the axes back. They need the extra ``plot``; what notebooks show of values does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SettingError, not_found
from lesionzarr.plot.courses import growth
from lesionzarr.plot.notebook import to_html
from lesionzarr.plot.population import lesion_map, sizes, spacings
from lesionzarr.plot.scroller import Scroller, scroll
from lesionzarr.plot.voxels import batch, crop, lesion, windows

if TYPE_CHECKING:
    from lesionzarr.store.catalog import Catalog

FIGURES = ("map", "sizes", "spacing", "windows", "growth")


def draw(catalog: Catalog, figure: str = "map", *, query: str | None = None, ax: Any = None) -> Any:
    """Draw a figure of a store.

    Parameters
    ----------
    catalog
        The store; `Catalog.plot` calls this.
    figure
        ``"map"`` (`lesion_map`), ``"sizes"``, ``"spacing"`` (`spacings`), ``"windows"``, of the first lesion that has a
        position, or ``"growth"``.
    query
        Which lesions, as of `Catalog.select`; of the spacing those volumes that hold them.
    ax
        Axes of matplotlib; None for new ones.

    Returns
    -------
    matplotlib.axes.Axes or list of them
        As the functions give them.

    Raises
    ------
    NotFoundError
        No such figure.
    SettingError
        A query that means nothing, or nothing to draw.
    MissingExtraError
        matplotlib is absent.
    """
    if figure not in FIGURES:
        raise not_found("figure", figure, FIGURES)
    lesions = catalog.lesions if query is None else catalog.select(query)
    match figure:
        case "map":
            return lesion_map(lesions, ax=ax)
        case "sizes":
            return sizes(lesions, ax=ax)
        case "spacing":
            held = catalog.volumes.index.isin(lesions["volume_id"]) if query is not None else slice(None)
            return spacings(catalog.volumes.loc[held], ax=ax)
        case "growth":
            return growth(lesions, ax=ax)
    placed = lesions.index[lesions["key_z"].notna()]
    if placed.empty:
        raise SettingError("no lesion to draw: none of them has a key slice in the store")
    return windows(catalog, str(placed[0]), ax=ax)


__all__ = [
    "FIGURES",
    "Scroller",
    "batch",
    "crop",
    "draw",
    "growth",
    "lesion",
    "lesion_map",
    "scroll",
    "sizes",
    "spacings",
    "to_html",
    "windows",
]
