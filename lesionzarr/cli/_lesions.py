"""Which lesions a command is about, and files for each of them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, TypeVar

from lesionzarr.errors import GeometryError, IntegrityError, SettingError
from lesionzarr.export import pictures
from lesionzarr.window import OWN

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pandas as pd

    from lesionzarr.lesion import Lesion
    from lesionzarr.store.catalog import Catalog

Item = TypeVar("Item")


def own_or_default(lesion: Lesion) -> str:
    return OWN if lesion.window else pictures.FALLBACK


def choose(catalog: Catalog, query: str | None) -> pd.DataFrame:
    return catalog.lesions if query is None else catalog.select(query)


def chosen(catalog: Catalog, arguments: argparse.Namespace) -> dict[str, Lesion]:
    if arguments.lesions and arguments.query:
        raise SettingError("lesion ids and --query: give one of the two")
    ids = arguments.lesions or list(choose(catalog, arguments.query).index)
    if not ids:
        raise SettingError(f"--query {arguments.query}: no lesion is like that" if arguments.query else "no lesions")
    return {lesion.lesion_id: lesion for lesion in catalog.find_lesions(ids)}


def for_each(items: Mapping[str, Item], write: Callable[[Item], list[Path]], *, as_json: bool) -> int:
    """Write something per item, by its name; one that cannot be read is listed, and costs the others nothing."""
    written, failed = [], []
    for name, item in items.items():
        try:
            written += [str(path) for path in write(item)]
        except (GeometryError, SettingError, IntegrityError) as error:
            failed.append(f"{name}: {error}")
    if as_json:
        print(json.dumps({"written": written, "failed": failed}, indent=1))
    else:
        print(f"{len(written):,} written, such as {written[0]}" if written else "nothing written")
        for text in failed:
            print(f"failed: {text}", file=sys.stderr)
    return 1 if failed else 0
