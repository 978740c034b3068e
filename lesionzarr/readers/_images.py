"""Requests to images: plan, fetch, assemble."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.readers._assemble import assemble
from lesionzarr.readers._fetch import iter_regions
from lesionzarr.readers._plan import plan_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.readers._request import Request
    from lesionzarr.store.location import Location


def read_images(location: Location, requests: Sequence[Request], dtype: str) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Plan, fetch and assemble.

    Parameters
    ----------
    location
        The store.
    requests
        For images of one shape.
    dtype
        Of the images.

    Returns
    -------
    image : ndarray
        (request, window, z, y, x).
    valid : ndarray of bool
        (request, z, y, x).
    """
    plans = [plan_request(request) for request in requests]
    shape = (len(requests[0].z), *requests[0].size)
    image = np.empty((len(requests), max(1, len(requests[0].windows)), *shape), dtype=dtype)
    valid = np.stack([plan.valid for plan in plans])
    wanted = [(request.volume_id, plan.region) for request, plan in zip(requests, plans, strict=True)]
    for i, (voxels, fill_value) in enumerate(iter_regions(location, wanted)):
        image[i] = assemble(voxels, fill_value, plans[i], requests[i], dtype)
    return image, valid
