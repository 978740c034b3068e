"""Properties that are worked out once for each object, without a lock."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 12):
    from functools import cached_property
else:
    from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

    if TYPE_CHECKING:
        from collections.abc import Callable
        from typing import Self

    T = TypeVar("T")

    class cached_property(Generic[T]):  # noqa: N801
        """As `functools.cached_property` since Python 3.12.

        The one before holds a lock of all objects of a class while it works; a process that is forked while another
        thread does so would wait for it for ever.
        """

        def __init__(self, function: Callable[[Any], T]) -> None:
            self._function = function
            self.__doc__ = function.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self._name = name

        @overload
        def __get__(self, instance: None, owner: type) -> Self: ...
        @overload
        def __get__(self, instance: object, owner: type) -> T: ...
        def __get__(self, instance: object | None, owner: type) -> Self | T:
            if instance is None:
                return self
            # without a setter of its own, what is in the object's dictionary is found first from now on
            value = instance.__dict__[self._name] = self._function(instance)
            return value


__all__ = ["cached_property"]
