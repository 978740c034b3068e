"""Requests to images: plan, fetch, assemble."""

from __future__ import annotations

import math
from collections import deque
from itertools import accumulate
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.readers._assemble import assemble, pad
from lesionzarr.readers._fetch import Regions
from lesionzarr.readers._plan import Plan, plan_request
from lesionzarr.readers._threads import cores, run_all
from lesionzarr.readers._zarr import read_region
from lesionzarr.store.layout import KINDS, MASK_ARRAY, MASK_DTYPES, SEGMENTATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.readers._fetch import Fetcher
    from lesionzarr.readers._request import Request


def read_images(
    fetcher: Fetcher,
    requests: Sequence[Request],
    dtype: str,
    *,
    out: NDArray[Any] | None = None,
    threads: int | None = None,
) -> tuple[NDArray[Any], list[Plan]]:
    """Plan, fetch and assemble.

    Parameters
    ----------
    fetcher
        Of the store.
    requests
        For images of one shape.
    dtype
        Of the images.
    out
        (request, channel, z, y, x), of that dtype: where to write; new if None.
    threads
        Most threads; None for one a core.

    Returns
    -------
    image : ndarray
        (request, channel, z, y, x): the windows of each request, then those of its overlays.
    plans : list of Plan
        One per request; their `valid` says what is padding.
    """
    parts = [part for request in requests for part in (request, *request.overlays)]
    plans = [plan_request(part) for part in parts]
    shape = (len(requests), requests[0].all_channels, len(requests[0].z), *requests[0].size)
    image = np.empty(shape, dtype=dtype) if out is None else _check(out, shape, dtype)
    work = _Work(parts, plans, _views(requests, image))
    threads = threads or cores()
    known = [number for number, part in enumerate(parts) if part.array is not None]
    if known:
        regions = regions_of([parts[number] for number in known], [plans[number] for number in known])
        fetcher.read(regions, lambda i: work.target(known[i]), lambda i: work.finish(known[i]), threads)

    def read_other(number: int) -> None:
        region, part = plans[number].region, parts[number]
        if 0 not in region.shape:
            name = MASK_ARRAY if part.modality == SEGMENTATION else KINDS[part.modality].array
            work.target(number)[...] = read_region(fetcher.location, part.volume_id, region, name)
        work.finish(number)

    run_all(read_other, [number for number, part in enumerate(parts) if part.array is None], threads)
    own = accumulate((1 + len(request.overlays) for request in requests[:-1]), initial=0)
    return image, [plans[number] for number in own]


def _views(requests: Sequence[Request], image: NDArray[Any]) -> list[NDArray[Any]]:
    """Give the channels of each request and of each overlay."""
    views = []
    for request, channels in zip(requests, image, strict=True):
        first = 0
        for part in (request, *request.overlays):
            views.append(channels[first : first + part.channels])
            first += part.channels
    return views


def regions_of(requests: Sequence[Request], plans: Sequence[Plan]) -> Regions:
    """Give the regions of requests, all of arrays that shards are read of."""
    arrays = {request.volume_id: request.array for request in requests if request.array is not None}
    numbers = {volume_id: number for number, volume_id in enumerate(arrays)}
    offset = np.array([request.offset for request in requests])
    return Regions(
        volumes=list(arrays),
        layouts=list(arrays.values()),
        volume=np.array([numbers[request.volume_id] for request in requests]),
        start=np.array([plan.region.start for plan in plans]) + offset,
        stop=np.array([plan.region.stop for plan in plans]) + offset,
    )


def _dtype(modality: str) -> str:
    # of a mask the wider one, which holds what is stored as the narrower
    return MASK_DTYPES[-1] if modality == SEGMENTATION else KINDS[modality].dtype


def _check(out: NDArray[Any], shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    if out.shape != shape or out.dtype != dtype:
        raise SettingError(f"out is {out.dtype} {out.shape}; {dtype} {shape} is needed")
    return out


class _Work:
    """Where the voxels of each request go until its image is made."""

    def __init__(self, requests: Sequence[Request], plans: list[Plan], images: list[NDArray[Any]]) -> None:
        self._requests, self._plans, self._images = requests, plans, images
        self._targets: list[NDArray[Any] | None] = [None] * len(requests)
        # buffers go round, so that few are made and those in use stay in the cache of a core
        self._spare: deque[NDArray[np.uint8]] = deque()
        self._dtypes = [np.dtype(_dtype(request.modality)) for request in requests]
        sizes = (math.prod(plan.region.shape) * dtype.itemsize for plan, dtype in zip(plans, self._dtypes, strict=True))
        self._most_bytes = max(sizes)
        self._buffers: dict[int, NDArray[np.uint8]] = {}
        self._lock = Lock()

    def target(self, number: int) -> NDArray[Any]:
        """Give the array that the voxels of a request's region go to."""
        array = self._targets[number]
        if array is None:
            with self._lock:
                array = self._targets[number]
                if array is None:
                    array = self._targets[number] = self._make(number)
        return array

    def finish(self, number: int) -> None:
        """Make the image of a request whose voxels are there."""
        request, plan, image = self._requests[number], self._plans[number], self._images[number]
        voxels = self._targets[number]
        if voxels is None:
            pad(plan, request, image, everything=True)
        elif number not in self._buffers:
            pad(plan, request, image)
        else:
            assemble(voxels, plan, request, image)
            self._spare.append(self._buffers.pop(number))

    def _make(self, number: int) -> NDArray[Any]:
        request, plan = self._requests[number], self._plans[number]
        if plan.plain and not request.windows:
            block: NDArray[Any] = self._images[number][0][plan.filled]
            return block
        shape, dtype = plan.region.shape, self._dtypes[number]
        buffer = self._spare.pop() if self._spare else np.empty(self._most_bytes, dtype=np.uint8)
        self._buffers[number] = buffer
        return buffer[: math.prod(shape) * dtype.itemsize].view(dtype).reshape(shape)
