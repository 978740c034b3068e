"""What a converter is, and how one is found.

A converter is a frozen dataclass: its fields are the settings, made with `option` so that the command line can show
them; the first field is ``source``. It is pickled into worker processes, so it holds paths, never handles.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields
from datetime import datetime
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from lesionzarr.errors import SettingError, not_found

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from numpy.typing import NDArray

    from lesionzarr.series import Scan, Volume
    from lesionzarr.source import SourcePath

GROUP = "lesionzarr.converters"
DAY = re.compile("[0-9]{8}")
"""strptime alone would take 202113 for the third of January."""


@dataclass(frozen=True)
class Converter(Protocol):
    """The contract of a dataset."""

    source: SourcePath
    """Folder of the dataset; what is behind a URL has those verbs of a path that reading takes."""

    name: ClassVar[str]
    """Name on the command line and in the store."""
    title: ClassVar[str]
    licence: ClassVar[str]
    citation: ClassVar[str]

    def scan(self) -> Scan:
        """List the volumes with their lesions, and what is odd, without opening any pixel data.

        Conventions of the source (1-based, x before y) are converted here and nowhere later.
        """

    def read_volume(self, volume: Volume) -> NDArray[Any]:
        """Read the voxels of a volume, (z, y, x): int16 HU of CT, float32 Bq/ml of PET.

        SourceError if any slice cannot be read.
        """

    def read_mask(self, volume: Volume) -> NDArray[Any] | None:
        """Read the instance mask of a volume that names files of one: uint8 or uint16 (z, y, x), on its voxels.

        0 is the background, any other value the `mask_label` of a lesion. None from a source without masks.
        """

    def read_headers(self, volume: Volume) -> dict[str, Any]:
        """Read the headers of the files of a volume that keeps them, as JSON values."""

    @staticmethod
    def example(folder: Path, seed: int = 0) -> Path:
        """Write a small synthetic dataset in the source's own layout, and give the path to convert."""


def option(text: str, *, many: bool = False) -> Any:
    """Declare an optional path setting of a converter.

    Parameters
    ----------
    text
        What it is, for the help of the command line.
    many
        Several paths may be given; the setting is then a tuple.

    Returns
    -------
    dataclasses.Field
    """
    return field(default=() if many else None, metadata={"text": text, "many": many})


def flag(text: str) -> Any:
    """Declare a setting of a converter that is off unless it is asked for; `text` as of `option`."""
    return field(default=False, metadata={"text": text, "flag": True})


def number(text: str, default: int) -> Any:
    """Declare a setting of a converter that is a whole number of at least 1; `text` as of `option`."""
    return field(default=default, metadata={"text": text, "number": default})


def converter_names() -> list[str]:
    """List the names of all installed converters, sorted."""
    return sorted(_points())


def load_converter(name: str) -> type[Converter]:
    """Find a converter by name.

    Raises
    ------
    NotFoundError
        No converter of that name is installed.
    """
    point = _points().get(name)
    if point is None:
        raise not_found("converter", name, converter_names())
    converter: type[Converter] = point.load()
    return converter


@cache
def _points() -> dict[str, EntryPoint]:
    # the metadata of every package of the environment are read for it, which takes some 20 ms
    return {point.name: point for point in entry_points(group=GROUP)}


def make_converter(
    name: str, source: Path | str, options: dict[str, Any], place: Callable[[Path | str], SourcePath] = Path
) -> Converter:
    """Make a converter with its settings.

    Parameters
    ----------
    name
        As registered.
    source
        Folder of the dataset.
    options
        Settings by name: a path, or several where the setting takes them; a flag or a number.
    place
        Makes what is read of a path or URL.

    Returns
    -------
    Converter

    Raises
    ------
    NotFoundError
        No converter of that name.
    SettingError
        A setting that it does not have, or a number below 1.
    """
    kind = load_converter(name)
    known = {item.name: item for item in fields(kind) if item.name != "source"}
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise SettingError(f"{name} has no option {', '.join(unknown)}; its options are {', '.join(known)}")
    settings = {key: _setting(key, value, place, **known[key].metadata) for key, value in options.items()}
    return kind(place(source), **settings)


def describe(converter: Converter) -> dict[str, Any]:
    """Say for the provenance of a volume what made it: converter, flags, and names of the files that it was given."""
    settings: dict[str, Any] = {}
    for item in fields(converter):
        value = getattr(converter, item.name)
        if item.name == "source" or not value or value == item.metadata.get("number"):
            continue
        paths = value if isinstance(value, tuple) else [value]
        settings[item.name] = value if isinstance(value, int) else [path.name for path in paths]
    return {"converter": converter.name, "settings": settings}


def _setting(
    name: str,
    value: Any,
    place: Callable[[Path | str], SourcePath],
    *,
    many: bool = False,
    flag: bool = False,
    number: int | None = None,
    **_: Any,
) -> Any:
    if flag:
        return bool(value)
    if number is not None:
        if not isinstance(value, int) or value < 1:
            raise SettingError(f"{name} {value!r}: a whole number of at least 1 is needed")
        return value
    if many:
        return tuple(map(place, [value] if isinstance(value, (str, Path)) else value or ()))
    return None if value is None else place(value)


def parse_day(text: object) -> str | None:
    """Give a day as DICOM writes it (YYYYMMDD; PS3.5, section 6.2, DA) by ISO 8601; None for what is no day."""
    if not DAY.fullmatch(str(text)):
        return None
    try:
        return datetime.strptime(str(text), "%Y%m%d").date().isoformat()  # noqa: DTZ007 - a day has no zone
    except ValueError:
        return None
