"""Companion files as published: JSON, or pickles of plain containers and numpy arrays.

A pickle can run any code when it is loaded, so only the names that numpy arrays need are let through.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SourceError

if TYPE_CHECKING:
    from lesionzarr.source import SourcePath

ALLOWED = {
    (module, name)
    for package in ("numpy.core", "numpy._core")
    for module, name in [
        (f"{package}.multiarray", "_reconstruct"),
        (f"{package}.multiarray", "scalar"),
        (f"{package}.numeric", "_frombuffer"),
    ]
} | {
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")),
    *(("builtins", "bytes"), ("__builtin__", "bytes")),
}


DAMAGED = (
    *(OSError, ValueError, EOFError, pickle.UnpicklingError),
    *(TypeError, AttributeError, LookupError, ImportError, ArithmeticError, MemoryError),
)
"""What reading a damaged file raises; a pickle is a program, and damage makes it do the oddest things."""


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not plain data")
        return super().find_class(module, name)


def load(path: SourcePath) -> Any:
    """Read a companion file.

    Parameters
    ----------
    path
        ``.pkl`` or ``.pickle`` is read as a pickle (Python 2 ones too), anything else as JSON.

    Returns
    -------
    object
        Containers, numbers, text and numpy arrays.

    Raises
    ------
    SourceError
        The file is absent, damaged, or a pickle of more than plain data.
    """
    try:
        if path.suffix in {".pkl", ".pickle"}:
            with path.open("rb") as file:
                return _PlainUnpickler(file, encoding="latin1").load()
        return json.loads(path.read_bytes())
    except DAMAGED as error:
        raise SourceError(f"{path.name}: cannot be read ({error})") from error
