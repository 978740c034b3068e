"""Source datasets to stores: one file a dataset, registered in the entry-point group ``lesionzarr.converters``.

A dataset of your own is a frozen dataclass of the shape of `Converter`, whose settings are declared with `option`.
"""

from lesionzarr.converters._base import Converter, option

__all__ = ["Converter", "option"]
