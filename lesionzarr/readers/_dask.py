"""Images as dask arrays: one task per batch of lesions, never one per chunk of the store.

A task carries the location of the store and its requests; handles are opened where it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
from dask.delayed import delayed

from lesionzarr.readers._fetch import Fetcher
from lesionzarr.readers._images import read_images

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.readers._request import Request
    from lesionzarr.store.location import Location


def read_part(location: Location, requests: list[Request], dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Read what one task is to read."""
    image, plans = read_images(Fetcher(location), requests, dtype)
    return image, np.stack([plan.valid for plan in plans])


def lazy_images(
    location: Location, requests: Sequence[Request], dtype: str, batch_size: int
) -> tuple[da.Array, da.Array]:
    """Give images and their valid masks, unread.

    Parameters
    ----------
    location
        The store.
    requests
        For images of one shape, with as many windows each.
    dtype
        Of the images.
    batch_size
        Requests per task.

    Returns
    -------
    image : dask.array.Array
        (request, window, z, y, x).
    valid : dask.array.Array
        (request, z, y, x).
    """
    shape = (len(requests[0].z), *requests[0].size)
    channels = requests[0].all_channels
    images, masks = [], []
    for start in range(0, len(requests), batch_size):
        part = list(requests[start : start + batch_size])
        # traverse=False: dask need not look into the requests for tasks of its own
        image, valid = delayed(read_part, nout=2, traverse=False)(location, part, dtype)
        images.append(da.from_delayed(image, (len(part), channels, *shape), dtype=np.dtype(dtype)))
        masks.append(da.from_delayed(valid, (len(part), *shape), dtype=np.dtype(bool)))
    return da.concatenate(images), da.concatenate(masks)
