"""The register of quirks of a made-up Lung-PET-CT-Dx: what can be asked for, and in what order they act."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from lesionzarr.samples._nbia_added_quirks import ADDED_QUIRKS
from lesionzarr.samples._nbia_image_quirks import FOLDER_QUIRKS, IMAGE_QUIRKS
from lesionzarr.samples._nbia_mark_quirks import MARK_QUIRKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from lesionzarr.samples._nbia_draft import Quirk

# First those that need a whole subject, then those that copy from undamaged images, then damage.
_BY_NAME: Final[dict[str, Quirk]] = {
    quirk.name: quirk for quirk in (*FOLDER_QUIRKS, *ADDED_QUIRKS, *IMAGE_QUIRKS, *MARK_QUIRKS)
}

LUNG_QUIRKS: Final[Mapping[str, str]] = MappingProxyType({name: quirk.description for name, quirk in _BY_NAME.items()})
"""What `lung_pet_ct_dx` can be asked to do wrong: name and one line each, in the order in which they act."""


def choose(names: Iterable[str]) -> list[Quirk]:
    """Look quirks up.

    Parameters
    ----------
    names
        Keys of `LUNG_QUIRKS`.

    Returns
    -------
    list of Quirk
        Once each, in the order of `LUNG_QUIRKS`.

    Raises
    ------
    ValueError
        If a name is unknown; names like it are given.
    """
    wanted = {names} if isinstance(names, str) else set(names)
    for name in sorted(wanted - set(_BY_NAME)):
        near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"choose from {', '.join(_BY_NAME)}"
        raise ValueError(f"unknown quirk {name!r}: {hint}")
    return [quirk for name, quirk in _BY_NAME.items() if name in wanted]
