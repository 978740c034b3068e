"""A dataset in the making, and the form of the quirks that act on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lesionzarr.samples._plan import Volume
    from lesionzarr.samples._table import Row


class Stage(Enum):
    """When a quirk acts."""

    PLAN = auto()
    """On the volumes, before any pixel is made."""
    TABLE = auto()
    """On the rows, before they are written."""
    FILES = auto()
    """On the files."""


@dataclass
class Draft:
    """A dataset in the making."""

    folder: Path
    seed: int
    volumes: list[Volume]
    targets: dict[str, int]
    """Number of the volume that each quirk with an aim begins with."""
    tables: list[list[Row]] = field(default_factory=list)
    """Rows of each volume, in the order of `volumes`."""
    spent: set[Path] = field(default_factory=set)
    """Files that a quirk has damaged already."""

    @property
    def images(self) -> Path:
        """Folder of the series folders."""
        return self.folder / "Images_png"

    @property
    def table(self) -> Path:
        """DL_info.csv."""
        return self.folder / "DL_info.csv"

    def rng(self, number: int) -> np.random.Generator:
        """Give a generator for a quirk of one volume, or of the whole dataset where the number is 0."""
        return np.random.default_rng((self.seed, 0, 1 + number))

    def index(self, number: int) -> int:
        """Give the position of a planned volume, which further sub-volumes may have moved."""
        return next(index for index, volume in enumerate(self.volumes) if volume.number == number)

    def volume(self, number: int) -> Volume:
        """Give a planned volume by its number."""
        return self.volumes[self.index(number)]

    def rows(self, number: int) -> list[Row]:
        """Give the rows of a planned volume."""
        return self.tables[self.index(number)]


@dataclass(frozen=True, slots=True)
class Quirk:
    """One oddity that a dataset can have."""

    name: str
    description: str
    stage: Stage
    aims: bool
    """Whether it hits one volume and not the dataset as a whole."""
    act: Callable[[Draft, int], None]
    """What it does, given the number of the volume that it aims at."""
    needs: tuple[str, ...] = ()
    """Quirks that it brings with it."""


def on_volume(description: str, stage: Stage) -> Callable[[Callable[[Draft, int], None]], Quirk]:
    """Make a quirk of a function that acts on one volume; the function's name becomes its name."""
    return lambda function: Quirk(function.__name__, description, stage, aims=True, act=function)


def on_dataset(
    description: str, stage: Stage, needs: tuple[str, ...] = ()
) -> Callable[[Callable[[Draft], None]], Quirk]:
    """Make a quirk of a function that acts on the dataset as a whole; the function's name becomes its name."""

    def make(function: Callable[[Draft], None]) -> Quirk:
        def act(draft: Draft, _number: int) -> None:
            function(draft)

        return Quirk(function.__name__, description, stage, aims=False, act=act, needs=needs)

    return make
