"""What values show of themselves in notebooks: drawn by the room `plot`.

That room reads what it draws, so it lies behind all others. Here it is found by its name when it is asked for, and
matplotlib with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesionzarr.window import WindowLike

ROOM = "lesionzarr.plot"


class Shown:
    """A value that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        html: str = import_module(ROOM).to_html(self)
        return html


class ShownCatalog(Shown):
    """The figures of a store."""

    def plot(self, figure: str = "map", *, query: str | None = None, ax: Any = None) -> Any:
        """Draw a figure of the store; see `lesionzarr.plot.draw`."""
        return import_module(ROOM).draw(self, figure, query=query, ax=ax)


class ShownLesion(Shown):
    """The figure of a lesion."""

    def plot(self, catalog: Any, *, window: WindowLike | None = None, ax: Any = None) -> Any:
        """Draw the key slice of the lesion, with what the store says of it; see `lesionzarr.plot.lesion`."""
        return import_module(ROOM).lesion(catalog, self, window=window, ax=ax)


class ShownCrop(Shown):
    """The figures of a crop."""

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the key slice in each window; see `lesionzarr.plot.crop`."""
        return import_module(ROOM).crop(self, ax=ax)

    def scroll(self) -> Any:
        """Show the slices in a notebook, to be scrolled through; see `lesionzarr.plot.scroll`."""
        return import_module(ROOM).scroll(self)


class ShownBatch(Shown):
    """The figure of several crops."""

    def plot(self, *, ax: Any = None) -> Any:
        """Draw the key slices on one sheet; see `lesionzarr.plot.batch`."""
        return import_module(ROOM).batch(self, ax=ax)
