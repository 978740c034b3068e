"""Errors, grouped by what a caller can do about them.

::

    LesionzarrError
    ├── SourceError       ValueError   a source file or table is unreadable: mend or fetch it again
    ├── UnreachableError           a source behind a URL that cannot be reached: try again, or check credentials
    ├── GeometryError     ValueError   a size, box or spacing that cannot be: ask for something else
    ├── SettingError      ValueError   an option or argument that means nothing: correct the call
    ├── NotFoundError     KeyError     an id or name that is not there: near matches are named
    ├── StoreError        OSError      a store that cannot be reached, read or written
    │   └── IntegrityError             its bytes are not what was written: convert the volume again
    └── MissingExtraError ImportError  an optional package is absent: the extra is named

Every message names the thing, the fault and the remedy, in one or two lines.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class LesionzarrError(Exception):
    """Root of every error that lesionzarr raises on purpose."""


class SourceError(LesionzarrError, ValueError):
    """A source file, archive or table that cannot be read as what it should be.

    Parameters
    ----------
    message
        The sentence.
    file
        Path of the file inside its root, where one file is at fault.
    """

    def __init__(self, message: str, file: str = "") -> None:
        super().__init__(message)
        self.file = file


class UnreachableError(LesionzarrError):
    """A source behind a URL that cannot be reached, which says nothing of its files: no OSError, as of a bad file."""


class GeometryError(LesionzarrError, ValueError):
    """A shape, box, spacing or position that cannot be."""


class SettingError(LesionzarrError, ValueError):
    """An argument, option or query that means nothing here."""


class NotFoundError(LesionzarrError, KeyError):
    """An id or name that is not in the store or list asked for."""

    def __str__(self) -> str:
        # KeyError shows the repr of its argument, which would quote the whole sentence
        return str(self.args[0]) if self.args else ""


class StoreError(LesionzarrError, OSError):
    """A store that cannot be reached, read or written."""


class IntegrityError(StoreError):
    """Bytes in a store that are not the bytes that were written."""


class MissingExtraError(LesionzarrError, ImportError):
    """A package of an optional extra is not installed."""


def not_found(kind: str, name: str, known: Iterable[str]) -> NotFoundError:
    """Make the error for a name that is not known, naming the nearest that are.

    Parameters
    ----------
    kind
        What was looked for, such as ``"lesion"``.
    name
        The name that was asked for.
    known
        The names that exist.

    Returns
    -------
    NotFoundError
        To be raised by the caller.
    """
    near = get_close_matches(name, list(known), n=3)
    hint = f"; near: {', '.join(near)}" if near else ""
    return NotFoundError(f"no {kind} {name!r}{hint}")
