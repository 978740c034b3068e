"""Groups whose members are known, for hosts that list nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zarr.storage import WrapperStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence


class KnownMembers(WrapperStore[Any]):
    """A store of zarr-python that is not asked what some of its groups hold.

    Parameters
    ----------
    store
        The store.
    members
        Names of the members of groups, by their keys.
    """

    def __init__(self, store: Any, members: Mapping[str, Sequence[str]]) -> None:
        super().__init__(store)
        self._members = members

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """List the members of a group."""
        known = self._members.get(prefix.rstrip("/"))
        if known is not None:
            for name in known:
                yield name
        else:
            async for name in super().list_dir(prefix):
                yield name
