"""Which lesions an epoch shows, in which order, in which batches. No I/O.

The order of all batches follows from lesions, seed and epoch alone. Ranks and workers deal that one list out among
themselves, so it stays the same however many of them there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.readers._checks import check_whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion

    Ints = NDArray[np.int64]

TYPE = "type"
SIZE = "size"
SIZE_CLASSES = 4
"""Quantile bins of the long axis."""


class Ordering(TypedDict, total=False):
    """Keywords that make an `Order`."""

    batch_size: int
    seed: int | None
    epoch: int
    split: str | None
    drop_noisy: bool
    balance: str | None
    rank: int
    ranks: int
    start_batch: int
    drop_last: bool


@dataclass(frozen=True, kw_only=True)
class Order:
    """How an epoch goes through lesions."""

    batch_size: int = 64
    seed: int | None = None
    """Shuffle by it and the epoch; None keeps the order given."""
    epoch: int = 0
    split: str | None = None
    """Only lesions of this split; None for all."""
    drop_noisy: bool = False
    """Leave out lesions that are marked as noisy."""
    balance: str | None = None
    """Draw with replacement so that each type (``"type"``) or each quarter of the long axes (``"size"``) is as likely
    as any other; what is unknown is one class more. An epoch has as many lesions as without."""
    rank: int = 0
    """Take the batches rank, rank + ranks, ..."""
    ranks: int = 1
    start_batch: int = 0
    """Leave out the batches of all ranks before this one."""
    drop_last: bool = False
    """Leave out a last batch that is not full."""

    def __post_init__(self) -> None:
        check_whole(self.batch_size, "batch_size", 1)
        check_whole(self.epoch, "epoch", 0)
        check_whole(self.start_batch, "start_batch", 0)
        check_whole(self.ranks, "ranks", 1)
        check_whole(self.rank, "rank", 0)
        if self.rank >= self.ranks:
            raise SettingError(f"rank {self.rank} of {self.ranks}: ranks count from 0 to {self.ranks - 1}")
        if self.seed is not None:
            check_whole(self.seed, "seed", 0)
        if self.balance not in {None, TYPE, SIZE}:
            raise SettingError(f"balance {self.balance!r}: 'type', 'size' or None is needed")
        if self.balance is not None and self.seed is None:
            raise SettingError(f"balance {self.balance!r} draws lesions at random: a seed is needed")


def order_batches(lesions: Sequence[Lesion], order: Order) -> list[Ints]:
    """Give the batches of one rank.

    Parameters
    ----------
    lesions
        All that there are to choose from.
    order
        What is asked for.

    Returns
    -------
    list of ndarray
        Numbers of lesions, one array per batch.

    Raises
    ------
    SettingError
        No lesion is left, or the epoch ends before `start_batch`.
    """
    shown = order_lesions(lesions, order)
    size = order.batch_size
    count = len(shown) // size if order.drop_last else -(-len(shown) // size)
    if order.start_batch > count:
        raise SettingError(f"start_batch {order.start_batch}: the epoch has {count} batches")
    numbers = (number for number in range(order.rank, count, order.ranks) if number >= order.start_batch)
    return [shown[number * size : (number + 1) * size] for number in numbers]


def order_lesions(lesions: Sequence[Lesion], order: Order) -> Ints:
    """Give the numbers of the lesions of an epoch, of all ranks, in order; SettingError where none is left."""
    chosen = _choose(lesions, order)
    if order.seed is None:
        return chosen
    # the stream of a bit generator never changes between versions of numpy; that of Generator.permutation may
    stream = np.random.PCG64(np.random.SeedSequence(int(order.seed), spawn_key=(int(order.epoch),)))
    if order.balance is None:
        return chosen[np.argsort(stream.random_raw(len(chosen)), kind="stable")]
    kept = [lesions[number] for number in chosen]
    return chosen[_draw(_types(kept) if order.balance == TYPE else _sizes(kept), stream)]


def _choose(lesions: Sequence[Lesion], order: Order) -> Ints:
    splits = {lesion.split for lesion in lesions}
    if order.split is not None and order.split not in splits:
        known = ", ".join(sorted(split for split in splits if split is not None)) or "none"
        raise SettingError(f"split {order.split!r}: no lesion is of it; the splits here are: {known}")
    chosen = [
        number
        for number, lesion in enumerate(lesions)
        if lesion.box is not None
        and (order.split is None or lesion.split == order.split)
        and not (order.drop_noisy and lesion.noisy)
    ]
    if not chosen:
        raise SettingError(f"no lesions to read: of {len(lesions)} none has a position and is asked for")
    return np.array(chosen, dtype=np.int64)


def _types(lesions: Sequence[Lesion]) -> Ints:
    """Give the class of each lesion by its type; no type is a class of its own."""
    return _number([lesion.type or "" for lesion in lesions])


def _sizes(lesions: Sequence[Lesion]) -> Ints:
    """Give the class of each lesion by its long axis; no long axis is a class of its own."""
    sizes = np.array([np.nan if lesion.long_mm is None else lesion.long_mm for lesion in lesions], dtype=np.float64)
    known = ~np.isnan(sizes)
    if not known.any():
        return np.zeros(len(sizes), dtype=np.int64)
    edges = np.quantile(sizes[known], np.arange(1, SIZE_CLASSES) / SIZE_CLASSES)
    return _number(np.where(known, np.searchsorted(edges, sizes), SIZE_CLASSES))


def _number(names: Sequence[str] | Ints) -> Ints:
    """Give classes numbers from 0 on, without gaps: equal sizes may leave a bin empty."""
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def _draw(classes: Ints, stream: np.random.PCG64) -> Ints:
    """Draw as many members as there are: first a class, then one of its members."""
    count = np.bincount(classes)
    first = np.cumsum(count) - count
    by_class = np.argsort(classes, kind="stable")
    which = (stream.random_raw(len(classes)) % np.uint64(len(count))).astype(np.int64)
    member = (stream.random_raw(len(classes)) % count[which].astype(np.uint64)).astype(np.int64)
    drawn: Ints = by_class[first[which] + member]
    return drawn
