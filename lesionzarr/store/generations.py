"""Which two tables are the catalog: one small object names them, and is replaced at once.

Tables are written under names of their own, ``catalog/<revision>-<checksum>/``, then ``catalog/tables.json`` is made
to name them, by one request that fails where another writer was quicker: a store that is opened at any moment has one
catalog, whole. The tables that it named before stay for those who are just opening them; older ones are deleted. Stores
of the first versions have no such object, and their tables under fixed names.
"""

from __future__ import annotations

import errno
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.store import layout
from lesionzarr.store._bucket import ABSENT, Bucket
from lesionzarr.store._replace import replace_object

if TYPE_CHECKING:
    from lesionzarr.store.location import Location

FIXED = (layout.VOLUMES_TABLE, layout.LESIONS_TABLE)
NAMES = tuple(key.rpartition("/")[2] for key in FIXED)
FOLDER = re.compile(r"(\d{1,9})-[0-9a-f]{12}")
TABLE = re.compile(rf"{layout.CATALOG}/{FOLDER.pattern}/({'|'.join(map(re.escape, NAMES))})")


@dataclass(frozen=True)
class Generation:
    """The tables of a catalog."""

    revision: int = 0
    """How many were written before, and one; 0 for tables under fixed names."""
    checksum: str | None = None
    """Over both tables; None under fixed names."""

    @property
    def tables(self) -> tuple[str, str]:
        """Keys of the tables of volumes and of lesions."""
        if not self.checksum:
            return FIXED
        volumes, lesions = (f"{layout.CATALOG}/{self.folder}/{name}" for name in NAMES)
        return volumes, lesions

    @property
    def folder(self) -> str:
        """Name of the folder of the tables in that of the catalog."""
        return f"{self.revision}-{(self.checksum or '')[:12]}"

    def knows(self, key: str) -> bool:
        """Tell whether an object is one of its tables, or of the ones before, which are kept."""
        if key in FIXED:
            return self.revision <= 1
        table = TABLE.fullmatch(key)
        # of the same number are those of a writer that came second
        return key in self.tables or (table is not None and int(table[1]) in {self.revision - 1, self.revision})


def is_of_catalog(key: str) -> bool:
    """Tell whether an object is a table of any catalog of a store, or what names them."""
    return key in {layout.CATALOG_FILE, *FIXED} or TABLE.fullmatch(key) is not None


@dataclass(frozen=True)
class Pointer:
    """The object that names the tables, as it was read."""

    data: bytes | None
    """None where there is none."""

    def generation(self, name: str) -> Generation:
        """Read which tables it names; `name` is that of the store.

        Raises
        ------
        IntegrityError
            It is damaged.
        """
        if self.data is None:
            return Generation()
        try:
            told = json.loads(self.data)
            found = Generation(told["revision"], told["generation"])
            if _told(found) == told and FOLDER.fullmatch(found.folder):
                return found
        except (ValueError, KeyError, TypeError):
            pass
        raise IntegrityError(f"{name}/{layout.CATALOG_FILE}: damaged; run `lesionzarr index`")


def read_generation(location: Location) -> Generation:
    """Read which tables are the catalog of a store.

    Raises
    ------
    IntegrityError
        The object that names them is damaged.
    """
    return read_pointer(location).generation(location.name)


def find_generations(location: Location) -> list[Generation]:
    """List the catalogs of which there are tables, the last first, whether they are named or not.

    Their checksums are as long as the names of folders have them.
    """
    names = filter(FOLDER.fullmatch, location.list_folders(layout.CATALOG))
    found = (Generation(int(number), checksum) for number, _, checksum in (name.partition("-") for name in names))
    return sorted(found, key=lambda one: (-one.revision, one.folder))


def read_pointer(location: Location) -> Pointer:
    """Read the object that names the tables."""
    if not isinstance(location, Bucket):
        return Pointer(location.read(layout.CATALOG_FILE))

    def get(store: Any) -> Pointer:
        from obstore.exceptions import PermissionDeniedError

        try:
            found = store.get(layout.CATALOG_FILE)
        except PermissionDeniedError:
            # where objects may not be listed, it is not told that one is absent
            return Pointer(None)
        return Pointer(bytes(found.bytes()))

    with suppress(*ABSENT):
        return location.ask(layout.CATALOG_FILE, get)
    return Pointer(None)


def publish(location: Location, before: Pointer, checksum: str, tables: list[bytes], revision: int = 1) -> bool:
    """Write a catalog, unless another has been written since.

    Parameters
    ----------
    location
        The store.
    before
        Read before the tables were derived.
    checksum
        Over both tables.
    tables
        Of volumes and lesions, as Parquet.
    revision
        Number of the catalog, if it is higher than that of the one before.

    Returns
    -------
    bool
        False where another was written since `before`; that one is left as it is.
    """
    try:
        old = before.generation(location.name)
    except IntegrityError:
        old = Generation()
    if old.checksum is None:
        # what named them may be lost: theirs stay, and these are the last
        others = (one for one in find_generations(location) if one.checksum != checksum[:12])
        old = Generation(max((one.revision for one in others), default=0))
    same = old.checksum == checksum
    new = old if same else Generation(max(old.revision + 1, revision), checksum)
    for key, table in zip(new.tables, tables, strict=True):
        # a name tells its content, so that writing it again mends it
        if not same or location.read(key) != table:
            location.write(key, table)
    if same:
        return read_pointer(location).data == before.data
    if not _replace(location, before, json.dumps(_told(new), indent=1).encode()):
        return False
    _delete_older(location, new.revision)
    return True


def _told(generation: Generation) -> dict[str, Any]:
    volumes, lesions = generation.tables
    return {"revision": generation.revision, "generation": generation.checksum, "volumes": volumes, "lesions": lesions}


def _replace(location: Location, before: Pointer, data: bytes) -> bool:
    """Write the object that names the tables, unless it is no longer what it was; tell whether it is there."""
    if before.data is not None:
        return replace_object(location, layout.CATALOG_FILE, before.data, data)
    try:
        return location.create(layout.CATALOG_FILE, data)
    except StoreError as error:
        if error.errno != errno.ENOTSUP:
            raise
    # a server that knows no conditions: one conversion at a time writes there, as its report says
    location.write(layout.CATALOG_FILE, data)
    return True


def _delete_older(location: Location, revision: int) -> None:
    """Delete the tables that were replaced before the last ones."""
    # the catalog is written: what cannot be deleted takes room, which `verify` tells
    with suppress(StoreError):
        for one in find_generations(location):
            if one.revision < revision - 1:
                location.delete_tree(f"{layout.CATALOG}/{one.folder}")
        for key in FIXED if revision > 1 else ():
            location.delete(key)
