"""A small made-up dataset in DeepLesion's own layout."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from lesionzarr.samples._anatomy import FIELD_OF_VIEW_MM
from lesionzarr.samples._draft import Draft, Stage
from lesionzarr.samples._lesion import add_lesion
from lesionzarr.samples._phantom import phantom
from lesionzarr.samples._plan import KINDS, TRAIN, Kind, plan
from lesionzarr.samples._quirks import aim, apply, choose
from lesionzarr.samples._table import BOX_MARGIN_PX, cell, describe, measure, write_table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from numpy.typing import NDArray

    from lesionzarr.samples._plan import Spot, Volume
    from lesionzarr.samples._table import Row

OFFSET_HU: Final = 32768


def deeplesion(
    folder: str | PathLike[str],
    *,
    seed: int = 0,
    lesions: int = 16,
    image_size: int = 256,
    slices: int = 13,
    quirks: Iterable[str] = (),
) -> Path:
    """Write a made-up dataset in the official layout of DeepLesion.

    ``folder/DL_info.csv`` has the 18 official columns (coordinates in pixels counted from 1, x before y);
    ``folder/Images_png/<patient_study_series>/<slice>.png`` are 16-bit greyscale files that hold HU + 32768. The same
    arguments give the same bytes.

    Quirks that aim at one volume take turns: volume 0 stays as it is, `missing_series` and `empty_series` have a volume
    each from volume 1 on, and the others go through the volumes left in the order of `QUIRKS`, round and round. One
    that finds nothing to damage in its volume moves on to the next. Volumes that are not hit keep their bytes.

    Parameters
    ----------
    folder
        Where to write; made if needed.
    seed
        Seed of everything random, at least 0.
    lesions
        Rows of the table before quirks, one to three in each volume. From three on all three splits occur.
    image_size
        Rows and columns of a slice, at least 16. The spacing follows, so that the body always fits.
    slices
        Smallest number of slices of a volume; the largest is a third more.
    quirks
        Names from `QUIRKS`.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If a quirk is unknown or finds nothing to act on, or a number is too small.
    FileExistsError
        If there is a dataset in the folder already.
    """
    chosen = choose(quirks)
    if lesions < 1 or image_size < 16 or slices < 1:
        raise ValueError(
            f"lesions={lesions}, image_size={image_size}, slices={slices}: a dataset needs at least 1, 16 and 1"
        )
    folder = _make_folder(Path(folder))
    volumes = plan(np.random.default_rng((seed, 0)), lesions, image_size, slices)
    draft = Draft(folder, seed, volumes, aim(chosen, len(volumes)))
    apply(chosen, Stage.PLAN, draft)
    draft.tables = [_write_volume(volume, draft.images / volume.folder, seed) for volume in draft.volumes]
    apply(chosen, Stage.TABLE, draft)
    write_table(folder / "DL_info.csv", list(chain.from_iterable(draft.tables)))
    apply(chosen, Stage.FILES, draft)
    return folder


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("DL_info.csv", "Images_png*"):
        for path in folder.glob(name):
            raise FileExistsError(f"{path} exists: choose an empty folder for the made-up dataset")
    return folder


def _write_volume(volume: Volume, folder: Path, seed: int) -> list[Row]:
    rng = np.random.default_rng((seed, 1 + volume.number, volume.part))
    spacing_mm = (volume.interval_mm, volume.pixel_mm, volume.pixel_mm)
    voxels = phantom((volume.count, volume.size, volume.size), spacing_mm, rng, volume.region)
    taken = np.zeros((volume.size, volume.size), dtype=bool)
    rows = []
    for spot in volume.spots:
        y, x = _place(voxels[spot.offset], taken, spot, volume.pixel_mm, rng)
        lesion = add_lesion(voxels, spacing_mm, (spot.offset, y, x), spot.semi_axes_mm, spot.angle, spot.hu)
        row = describe(volume, volume.first + spot.offset)
        # DeepLesion counts pixels from 1.
        measure(row, [1 + value for point in (*lesion.long_axis, *lesion.short_axis) for value in point])
        _locate(row, volume, spot, (y, x))
        rows.append(row)
    _write_slices(voxels, folder, volume.first)
    return rows


def _write_slices(voxels: NDArray[np.int16], folder: Path, first: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    stored = (voxels.astype(np.int32) + OFFSET_HU).astype(np.uint16)
    for number, image in enumerate(stored, first):
        Image.fromarray(image).save(folder / f"{number:03d}.png", compress_level=4)


def _locate(row: Row, volume: Volume, spot: Spot, centre: tuple[float, float]) -> None:
    y, x = ((value + 0.5) / volume.size for value in centre)
    z = volume.height + spot.offset * volume.interval_mm / 900
    # The body takes up nine tenths of the width and two thirds of the height of the image.
    place = (0.5 + (x - 0.5) / 0.9, 0.5 + (y - 0.5) / 0.66, z)
    row["Normalized_lesion_location"] = cell(min(max(value, 0.02), 1.0) for value in place)
    row["Coarse_lesion_type"] = "-1" if volume.split == TRAIN else str(KINDS[spot.kind].code)


def _place(
    image: NDArray[np.int16], taken: NDArray[np.bool_], spot: Spot, pixel_mm: float, rng: np.random.Generator
) -> tuple[float, float]:
    """Choose a centre (y, x) where the tissue suits the lesion, in pixels counted from 0; marks it as taken."""
    size = len(image)
    half_px = spot.semi_axes_mm[1] / pixel_mm
    jitter = rng.uniform(-0.45, 0.45, size=2)
    if spot.at_border:
        return size / 2 + jitter[0], size - 1.5 - half_px
    kind = KINDS[spot.kind]
    # Its box must fit into the image, as all but three of the real ones do.
    margin = min(int(half_px + BOX_MARGIN_PX + 1.5), (size - 1) // 2)
    inner = (slice(margin, size - margin),) * 2
    low, high = kind.background_hu
    suits = _share_round((image > low) & (image < high), max(1, round(half_px)))
    suits = np.where(_area(size, kind) & ~taken, suits, -1)[inner]
    # Far from all suitable tissue, as in a tiny image, any place has to do.
    best = np.argwhere(suits >= 0.9 * suits.max() if suits.max() > 0 else suits >= suits.max())
    row, column = best[rng.integers(len(best))]
    y, x = int(row) + margin + jitter[0], int(column) + margin + jitter[1]
    reach = round(3 * half_px + 3)
    taken[max(0, round(y) - reach) : round(y) + reach + 1, max(0, round(x) - reach) : round(x) + reach + 1] = True
    return y, x


def _area(size: int, kind: Kind) -> NDArray[np.bool_]:
    area = np.zeros((size, size), dtype=bool)
    for x0, x1, y0, y1 in kind.areas_mm:
        left, right, top, bottom = (round((0.5 + edge / FIELD_OF_VIEW_MM) * size) for edge in (x0, x1, y0, y1))
        area[top : bottom + 1, left : right + 1] = True
    return area


def _share_round(mask: NDArray[np.bool_], reach: int) -> NDArray[np.float64]:
    """Share of pixels that are set in the square of 2 reach + 1 pixels round each pixel."""
    padded = np.pad(mask, reach).astype(np.int64)
    total = np.pad(padded.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    side = 2 * reach + 1
    columns = total[:, side:] - total[:, :-side]
    share: NDArray[np.float64] = (columns[side:] - columns[:-side]) / side**2
    return share
