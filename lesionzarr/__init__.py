"""CT lesion datasets as cloud-ready Zarr, and windowed lesion crops read back from it."""

from lesionzarr._version import __version__
from lesionzarr.converters._care import repair, verify
from lesionzarr.converters._run import convert
from lesionzarr.export.pack import pack
from lesionzarr.features.mapping import map_lesions
from lesionzarr.features.radiomics import extract_features
from lesionzarr.readers.crop import CropReader
from lesionzarr.readers.pack import PackReader
from lesionzarr.readers.stack import StackReader
from lesionzarr.readers.study import StudyReader
from lesionzarr.store.catalog import Catalog
from lesionzarr.store.catalog import open_catalog as open  # noqa: A004 - read as lesionzarr.open
from lesionzarr.store.packs import Pack, open_pack
from lesionzarr.store.sync import sync
from lesionzarr.window import PRESETS, Window

__all__ = [
    "PRESETS",
    "Catalog",
    "CropReader",
    "Pack",
    "PackReader",
    "StackReader",
    "StudyReader",
    "Window",
    "__version__",
    "convert",
    "extract_features",
    "map_lesions",
    "open",
    "open_pack",
    "pack",
    "repair",
    "sync",
    "verify",
]
