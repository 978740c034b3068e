"""Writing over an object that another writer may change or delete at the same moment."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from lesionzarr.store._bucket import ABSENT, Bucket
from lesionzarr.store._folder import Folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lesionzarr.store.location import Location


def replace_object(location: Location, key: str, old: bytes, data: bytes) -> bool:
    """Write an object over another, unless that is no longer what it was.

    In a bucket that is one conditional request. A folder knows none: those who write by this function wait for each
    other, and between the last look and the rename others have some microseconds.

    Parameters
    ----------
    location
        The store.
    key
        Which object.
    old
        What was read of it.
    data
        What it is to be.

    Returns
    -------
    bool
        Whether what is there now is `data`.
    """
    if isinstance(location, Bucket):
        # it is there too where an answer was lost and the request was sent again
        return location.ask(key, partial(_replace, key, old, data)) or location.read(key) == data
    with _locked(location, key):
        if location.read(key) != old:
            return False
        location.write(key, data)
    return True


@contextmanager
def _locked(location: Location, key: str) -> Iterator[None]:
    """Lock the folder of an object, where the system can; the lock ends with its process, however that ends."""
    if not isinstance(location, Folder) or sys.platform == "win32":
        yield
        return
    import fcntl

    with ExitStack() as stack:
        # some network file systems lock no folders
        with suppress(OSError):
            descriptor = os.open((location.root / key).parent, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield


def _replace(key: str, old: bytes, data: bytes, store: Any) -> bool:
    from obstore.exceptions import AlreadyExistsError, GenericError, PreconditionError

    try:
        found = store.get(key)
        if bytes(found.bytes()) != old:
            return False
        store.put(key, data, mode={"e_tag": found.meta["e_tag"]})
    except (*ABSENT, AlreadyExistsError, PreconditionError):
        return False
    except (GenericError, NotImplementedError) as error:
        if isinstance(error, GenericError) and "501 Not Implemented" not in str(error):
            raise
        # a server that knows no conditions: one conversion at a time writes there, as its report says
        store.put(key, data)
    return True
