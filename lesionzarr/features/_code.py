"""What the code of a function is made of, as plain values that tell a changed function from the one before."""

from __future__ import annotations

from types import CodeType, FunctionType
from typing import Any

PLAIN = (int, float, complex, str, bytes, bool, type(None), type(...))
"""Values whose repr is all there is to them, and the same in every process."""


def describe_function(function: FunctionType) -> list[Any]:
    """Give the code of a function, its defaults, and what it took from the functions round it.

    Parameters
    ----------
    function
        Of Python: what has no code of its own, such as an object that can be called, cannot be described.

    Returns
    -------
    list
        Plain JSON values. What a function reads from its module, and objects other than functions, plain values and
        containers of these (an array, a model), are not in them: only their type is.
    """
    return _describe_function(function, ())


def _describe_function(function: FunctionType, outer: tuple[FunctionType, ...]) -> list[Any]:
    inside = (*outer, function)
    defaults = [*(function.__defaults__ or ()), *sorted((function.__kwdefaults__ or {}).items())]
    taken = []
    for cell in function.__closure__ or ():
        try:
            taken.append(_describe(cell.cell_contents, inside))
        except ValueError:
            # not filled yet
            taken.append(None)
    return [_describe(function.__code__, inside), [_describe(value, inside) for value in defaults], taken]


def _describe(value: object, outer: tuple[FunctionType, ...]) -> Any:
    if isinstance(value, CodeType):
        constants = [_describe(constant, outer) for constant in value.co_consts]
        return [value.co_code.hex(), list(value.co_names), constants]
    if isinstance(value, (tuple, list)):
        return [type(value).__qualname__, *(_describe(item, outer) for item in value)]
    if isinstance(value, dict):
        return ["dict", *([_describe(key, outer), _describe(item, outer)] for key, item in value.items())]
    if isinstance(value, frozenset):
        # its order is another one in every process
        return ["frozenset", *sorted(str(_describe(item, outer)) for item in value)]
    if isinstance(value, FunctionType):
        return "recursion" if value in outer else _describe_function(value, outer)
    return repr(value) if isinstance(value, PLAIN) else type(value).__qualname__
