"""Labels of recist-dataset: JSON objects of mask value to ``"<type>,<location>"``, such as ``{"1": "m,liver"}``.

The type is m (metastasis), n (lymph node) or t (primary tumour). Masks that were not prepared yet have their labels in
Spanish (``get_3d_instance_annotated_lesions.py`` of robertorojasp06/recist-dataset); locations are given in English.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from lesionzarr.errors import SourceError

TYPES = {"m": "metastasis", "n": "lymph node", "t": "primary tumour"}
SPANISH = {
    "aortocava": "aortocaval",
    "axila": "axillary",
    "bazo": "spleen",
    "costilla": "rib",
    "higado": "liver",
    "hilio hepatico": "hepatic hilum",
    "iliaca": "iliac",
    "mediastino": "mediastinum",
    "mesenterica": "mesenteric",
    "ovario": "ovary",
    "pared abdominal": "abdominal wall",
    "periaortica": "periaortic",
    "pulmon": "lung",
    "retroperitoneal": "retroperitoneal",
    "rinon": "kidney",
    "suprarrenal": "suprarenal",
}
"""Locations that differ in English."""


@dataclass(frozen=True)
class Label:
    """What one value of a mask is."""

    text: str
    """As written."""
    type: str | None
    """From `TYPES`; None for a letter that means nothing."""
    location: str | None
    """In English, such as ``"hepatic hilum"``; one that is not known stays as it is."""


def parse_labels(data: bytes, name: str) -> tuple[dict[int, Label], list[str]]:
    """Read the labels of a mask.

    Parameters
    ----------
    data
        The whole file.
    name
        How messages call it.

    Returns
    -------
    labels : dict of int to Label
        By value of the mask.
    odd : list of str
        What is odd about entries; such that are left out are told too.

    Raises
    ------
    SourceError
        No JSON object.
    """
    try:
        # a tuple of pairs for each object: a dict would hide that a key is repeated
        found = json.loads(data, object_pairs_hook=tuple)
    except ValueError as error:
        raise SourceError(f"{name}: no JSON ({error}); fetch the file again", name) from error
    if not isinstance(found, tuple):
        raise SourceError(f'{name}: no JSON object such as {{"1": "m,liver"}}; fetch the file again', name)
    labels: dict[int, Label] = {}
    odd: list[str] = []
    for key, text in found:
        if not key.isascii() or not key.isdigit() or not int(key) or not isinstance(text, str):
            odd.append(f"entry {key!r}: {text!r} is no value of a mask and its label; it is left out")
            continue
        if before := labels.get(int(key)):
            odd.append(f"label {int(key)} is there twice, as {before.text!r} and {text!r}; the last counts")
        labels[int(key)] = label = parse_label(text)
        if label.type is None:
            odd.append(f"label {key} is {text!r}, whose type is none of {', '.join(TYPES)}; its type is unknown")
    return labels, odd


def parse_label(text: str) -> Label:
    """Read one label, such as ``"n,hilio hepatico"``."""
    letter, _, location = (part.strip() for part in text.partition(","))
    known = " ".join(location.split()).lower()
    return Label(text, TYPES.get(letter.lower()), SPANISH.get(known, known) or None)
