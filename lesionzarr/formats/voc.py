"""PASCAL VOC annotation files (XML): the labelled boxes of one image.

A file comes from anywhere, so the parser refuses what an annotation does not need: document types, and with them
entities and anything fetched from elsewhere; files past `MAX_BYTES`; elements nested past `MAX_DEPTH`; more than
`MAX_OBJECTS` objects. Python's own expat does this with one handler, so no further package is needed.

Coordinates are taken as 0-based pixel numbers with inclusive ends. The VOC challenge itself counts from 1 (its
development kit is MATLAB), but these files are written by labelling tools of labelImg's kind, which round the pointer's
position, measured from the left and upper edge of the image, down to the pixel it is on: pixel 0 is 0. Lung-PET-CT-Dx's
own viewer agrees: it hands the numbers to OpenCV's ``rectangle`` as array indices. Its boxes alone cannot tell, since
they are drawn with more slack than one pixel (the same slice in two reconstructions differs by 3 pixels in the median).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.parsers import expat

from lesionzarr.errors import SourceError

MAX_BYTES = 2**20
"""Length of the longest file that is read; real ones have less than 1,000 bytes."""
MAX_DEPTH = 8
"""Levels of nested elements; a box needs four."""
MAX_OBJECTS = 1_000
"""Objects in one file; real ones have one or two."""

WHOLE = re.compile(r"[+-]?\d{1,9}(\.0*)?", re.ASCII)
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True, slots=True)
class VocObject:
    """One labelled box, in 0-based pixels of the image as stored, origin top left, ends inclusive."""

    name: str
    """The label as written, without surrounding blanks; empty where the file gives none."""
    x0: float
    y0: float
    x1: float
    y1: float
    difficult: bool = False


@dataclass(frozen=True, slots=True)
class VocImage:
    """What a file says of its image. Boxes may lie outside of it: only who has the image can judge that."""

    width: int | None
    """Columns; None where the file does not say."""
    height: int | None
    """Rows; None where the file does not say."""
    objects: tuple[VocObject, ...]
    """In the order of the file; may be empty."""


def read_voc(data: bytes, name: str) -> VocImage:
    """Read an annotation file.

    Parameters
    ----------
    data
        The whole file, in any encoding that it declares and expat knows.
    name
        How messages call it.

    Returns
    -------
    VocImage

    Raises
    ------
    SourceError
        The file is empty, too long, cut off or no XML, has a document type, is no VOC annotation, or has a box that is
        incomplete, not of whole numbers, or ends before it begins.
    """
    check_size(len(data), name)
    if not data.strip():
        raise SourceError(f"{name}: empty file ({len(data)} bytes); fetch it again")
    content = _Content(name)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = content.refuse_doctype
    parser.StartElementHandler = content.start
    parser.EndElementHandler = content.end
    parser.CharacterDataHandler = content.text.append
    try:
        parser.Parse(data, True)  # noqa: FBT003 - expat takes it by position
    except (expat.ExpatError, LookupError) as error:
        raise SourceError(f"{name}: cut off or damaged XML ({error}); fetch it again") from error
    except SourceError:
        raise
    except ValueError as error:
        # an encoding of several bytes a character
        raise SourceError(f"{name}: XML in an encoding that is not read ({error}); save it as UTF-8") from error
    sides = (content.size.get(side, "") for side in ("width", "height"))
    width, height = (int(float(text)) if WHOLE.fullmatch(text) and float(text) >= 1 else None for text in sides)
    return VocImage(width, height, tuple(_object(cells, name) for cells in content.objects))


def check_size(size: int, name: str) -> None:
    """Refuse a file that is longer than any annotation, if possible before it is read.

    Parameters
    ----------
    size
        Length in bytes.
    name
        How the message calls it.

    Raises
    ------
    SourceError
        It is longer than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise SourceError(f"{name}: {size:,} bytes, an annotation has at most {MAX_BYTES:,}; is this another file?")


class _Content:
    """What the handlers of the parser gather: text of the leaves below ``size`` and each ``object``, by path."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path: list[str] = []
        self.text: list[str] = []
        self.size: dict[str, str] = {}
        self.objects: list[dict[str, str]] = []

    def refuse_doctype(self, *_: object) -> None:
        raise SourceError(f"{self.name}: XML with a document type or entities is not read; remove its DOCTYPE")

    def start(self, tag: str, _: dict[str, str]) -> None:
        if not self.path and tag != "annotation":
            raise SourceError(
                f"{self.name}: its root is <{tag[:40]}>, a VOC annotation has <annotation>; remove the file"
            )
        if len(self.path) == MAX_DEPTH:
            raise SourceError(f"{self.name}: elements nested past {MAX_DEPTH} levels; this is no VOC annotation")
        self.path.append(tag)
        self.text.clear()
        if self.path == ["annotation", "object"]:
            if len(self.objects) == MAX_OBJECTS:
                raise SourceError(f"{self.name}: more than {MAX_OBJECTS:,} objects; this is no annotation of one image")
            self.objects.append({})

    def end(self, _: str) -> None:
        text = "".join(self.text).strip()
        self.text.clear()
        match self.path:
            case ["annotation", "size", side]:
                self.size[side] = text
            case ["annotation", "object", *inner]:
                # Difficult has a capital D in older files
                if self.objects[-1].setdefault("/".join(inner).lower(), text) != text:
                    raise SourceError(f"{self.name}: an object with two of <{inner[-1]}>; give each its own <object>")
        self.path.pop()


def _object(cells: dict[str, str], name: str) -> VocObject:
    texts = [cells.get(f"bndbox/{corner}", "") for corner in CORNERS]
    if not all(WHOLE.fullmatch(text) for text in texts):
        found = ", ".join(f"{corner} {text[:20]!r}" for corner, text in zip(CORNERS, texts, strict=True))
        raise SourceError(f"{name}: a box with {found}, where whole numbers are needed; correct or remove it")
    x0, y0, x1, y1 = map(float, texts)
    if x0 > x1 or y0 > y1:
        drawn = f"{x0:g}, {y0:g} to {x1:g}, {y1:g}"
        raise SourceError(f"{name}: a box that ends before it begins ({drawn}); correct or remove it")
    return VocObject(cells.get("name", ""), x0, y0, x1, y1, cells.get("difficult") in {"1", "true"})
