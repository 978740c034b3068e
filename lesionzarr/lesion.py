"""The lesion table: one row per annotated finding on one volume, the same columns for every source.

This is the only place that states the schema; attributes and catalog both hold these rows. A value that the source does
not have is None; nothing is invented.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from lesionzarr._shown import ShownLesion
from lesionzarr.geometry import Box
from lesionzarr.recist import Recist
from lesionzarr.window import Window

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Lesion(ShownLesion):
    """One annotated finding. Indices are 0-based, pixel centres lie on whole numbers, box ends are inclusive."""

    lesion_id: str
    """Unique in the store, and the same whenever the same source is converted."""
    volume_id: str
    """Volume that the finding lies in."""
    series_id: str
    """Reconstruction that the volume is a part of."""
    study_id: str | None = None
    patient_id: str | None = None
    source: str = ""
    """Converter, or companion table, that the row comes from."""
    source_row: int | None = None
    """0-based row in the source's table."""
    key_z: int | None = None
    """Row (along z) of the slice that the mark was drawn on; None when that slice is not in the volume."""
    key_slice: str | None = None
    """The source's own number or UID of that slice."""
    x0: float | None = None
    y0: float | None = None
    x1: float | None = None
    y1: float | None = None
    z0: float | None = None
    z1: float | None = None
    recist: tuple[float, ...] | None = None
    """x, y of both ends of the long axis, then of the short one; pixels."""
    long_mm: float | None = None
    short_mm: float | None = None
    mask_label: int | None = None
    """Value of the finding in ``labels/lesions``."""
    type: str | None = None
    labels: tuple[str, ...] | None = None
    split: str | None = None
    """``train``, ``val`` or ``test``."""
    window_low: float | None = None
    window_high: float | None = None
    """Grey-level window that the source gives for the finding, in HU."""
    noisy: bool | None = None
    sex: str | None = None
    """``F`` or ``M``."""
    age: float | None = None
    """Years at the study."""
    timepoint: int | None = None
    study_date: str | None = None
    """ISO 8601."""
    derived: tuple[str, ...] = ()
    """Names of the columns that were computed, not given."""
    extra: str | None = None
    """JSON object with all else that the source has."""

    @property
    def box(self) -> Box | None:
        """Measured extent; on the key slice alone where the source gives no extent along z."""
        if self.x0 is None or self.y0 is None or self.x1 is None or self.y1 is None:
            return None
        if self.z0 is not None and self.z1 is not None:
            return Box(self.z0, self.y0, self.x0, self.z1, self.y1, self.x1)
        if self.key_z is None:
            return None
        return Box(self.key_z, self.y0, self.x0, self.key_z, self.y1, self.x1)

    @property
    def mark(self) -> Recist | None:
        """RECIST axes on the key slice."""
        return None if self.recist is None else Recist(*self.recist)

    @property
    def window(self) -> Window | None:
        """Grey-level window that the source gives for the finding."""
        if self.window_low is None or self.window_high is None:
            return None
        return Window(self.window_low, self.window_high)

    @property
    def extras(self) -> dict[str, Any]:
        """What the source has beyond the columns."""
        return {} if self.extra is None else dict(json.loads(self.extra))

    def to_row(self) -> dict[str, Any]:
        """Give the row as plain JSON values, columns in the order of the schema."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Lesion:
        """Make a lesion from a row of the attributes or of the catalog.

        Parameters
        ----------
        row
            Values by column; NaN and NA count as None, columns that are not in the schema are left out.

        Returns
        -------
        Lesion
        """
        values = {name: _plain(row[name], CASTS[name]) for name in COLUMNS if name in row}
        return cls(**{name: value for name, value in values.items() if value is not None})


COLUMNS: dict[str, str] = {
    field.name: str(field.type).removesuffix(" | None").replace(", ...", "") for field in fields(Lesion)
}
"""Type word (``str``, ``int``, ``float``, ``bool``, ``tuple[float]``, ``tuple[str]``) of every column, in order."""

CASTS: dict[str, Any] = {
    name: {"str": str, "int": int, "float": float, "bool": bool, "tuple[float]": tuple, "tuple[str]": tuple}[word]
    for name, word in COLUMNS.items()
}
"""How a value of a table becomes a plain Python value, by column."""


def _plain(value: Any, cast: Any) -> Any:
    if cast is tuple:
        # Parquet gives lists back as numpy arrays
        return None if value is None else tuple(value.tolist() if hasattr(value, "tolist") else value)
    return None if value is None or _is_missing(value) else cast(value)


def _is_missing(value: Any) -> bool:
    try:
        return bool(value != value)  # noqa: PLR0124 - so are NaN and NaT, and nothing else
    except TypeError:
        # pandas.NA is neither equal nor unequal
        return True
