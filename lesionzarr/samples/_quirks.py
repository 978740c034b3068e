"""The register of quirks: what can be asked for, which volume each one hits, and in what order they act."""

from __future__ import annotations

import difflib
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from lesionzarr.samples._file_quirks import FILE_QUIRKS, empty_series, missing_series
from lesionzarr.samples._table_quirks import TABLE_QUIRKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from lesionzarr.samples._draft import Draft, Quirk, Stage

_BY_NAME: Final[dict[str, Quirk]] = {quirk.name: quirk for quirk in (*TABLE_QUIRKS, *FILE_QUIRKS)}

QUIRKS: Final[Mapping[str, str]] = MappingProxyType({name: quirk.description for name, quirk in _BY_NAME.items()})
"""What `deeplesion` can be asked to do wrong: name and one line each, in the order in which they act."""

# These take a whole series away, and with it what any other quirk did there.
_REMOVERS: Final = (missing_series, empty_series)


def choose(names: Iterable[str]) -> list[Quirk]:
    """Look quirks up.

    Parameters
    ----------
    names
        Keys of `QUIRKS`.

    Returns
    -------
    list of Quirk
        These and the ones they need, once each, in the order of `QUIRKS`.

    Raises
    ------
    ValueError
        If a name is unknown; names like it are given.
    """
    wanted = {names} if isinstance(names, str) else set(names)
    for name in sorted(wanted):
        if name not in _BY_NAME:
            near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.5)
            hint = f"did you mean {', '.join(near)}?" if near else f"choose from {', '.join(_BY_NAME)}"
            raise ValueError(f"unknown quirk {name!r}: {hint}")
    wanted |= {needed for name in wanted for needed in _BY_NAME[name].needs}
    return [quirk for name, quirk in _BY_NAME.items() if name in wanted]


def aim(quirks: Sequence[Quirk], volumes: int) -> dict[str, int]:
    """Give each quirk that acts on one volume the number of its volume.

    Parameters
    ----------
    quirks
        As `choose` gives them.
    volumes
        Number of planned volumes. Volume 0 is never hit.

    Returns
    -------
    dict of str to int
        Number of the volume for each quirk with an aim.

    Raises
    ------
    ValueError
        If there is no volume besides the one that stays as it is.
    """
    aiming = [quirk for quirk in quirks if quirk.aims]
    if not aiming:
        return {}
    if volumes < 2:
        raise ValueError(
            f"quirk {aiming[0].name!r} never hits the first volume, and there is no other: ask for more lesions"
        )
    numbers = list(range(1, volumes))
    removers = [quirk for quirk in aiming if quirk in _REMOVERS]
    targets = {quirk.name: numbers[turn % len(numbers)] for turn, quirk in enumerate(removers)}
    others = numbers[len(removers) :] or numbers
    rest = [quirk for quirk in aiming if quirk not in _REMOVERS]
    return targets | {quirk.name: others[turn % len(others)] for turn, quirk in enumerate(rest)}


def apply(quirks: Sequence[Quirk], stage: Stage, draft: Draft) -> None:
    """Let the quirks of one stage act, in order.

    Parameters
    ----------
    quirks
        As `choose` gives them.
    stage
        Those of other stages are left out.
    draft
        Changed.
    """
    for quirk in quirks:
        if quirk.stage is stage:
            quirk.act(draft, draft.targets.get(quirk.name, 0))
