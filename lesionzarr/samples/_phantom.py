"""Seeded CT phantoms: a made-up body that looks like CT."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._anatomy import ANATOMY, FIELD_OF_VIEW_MM, Organ

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.samples._anatomy import Anatomy, Region

    Floats = NDArray[np.float32]

AIR_HU: Final = -1000
NOISE_HU: Final = 12.0
# Radius of the widest vessels of the lungs.
VESSEL_MM: Final = 3.6
# DeepLesion holds series with each of these outside the reconstruction circle; -1024 is the commonest.
FILLS_HU: Final = (-3024, -1024, -1024, -2048)


@dataclass(frozen=True, slots=True)
class _Frame:
    """Pixel positions in the millimetres of the anatomy."""

    z: Floats
    y: Floats
    x: Floats
    pixel: float

    def reach(self, organ: Organ) -> tuple[slice, slice]:
        radius = max(organ.a, organ.b) if organ.tilt else 0.0
        margin = 2 * self.pixel + 2 * organ.sway
        return (
            between(self.y, organ.y, max(radius, organ.b) + margin),
            between(self.x, organ.x, max(radius, organ.a) + margin),
        )


def phantom(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
    region: Region = "chest",
) -> NDArray[np.int16]:
    """Make a CT volume of a made-up body.

    The body fills the field of view, whatever the spacing; along z it has its natural size. Details smaller than half a
    pixel are left out, so a tiny volume costs little.

    Parameters
    ----------
    shape
        Number of slices, rows and columns.
    spacing_mm
        Slice interval, row and column spacing in mm.
    rng
        Source of everything random; the same state gives the same volume.
    region
        ``"chest"``, ``"abdomen"`` or ``"pelvis"``.

    Returns
    -------
    ndarray of int16, (z, y, x)
        HU. Outside the circle that fits into the image the value is -3024, -2048 or -1024; elsewhere it is -1024 or
        more.

    Raises
    ------
    ValueError
        If the region is unknown, or a size or spacing is not positive.
    """
    if region not in ANATOMY:
        raise ValueError(f"unknown region {region!r}: choose from {', '.join(ANATOMY)}")
    if min(shape) < 1 or not all(0 < step < math.inf for step in spacing_mm):
        raise ValueError(f"a phantom needs a positive shape and spacing, not {shape} and {spacing_mm} mm")
    anatomy = ANATOMY[region]
    frame = _frame(shape, spacing_mm, rng, anatomy)
    body = _body(frame, rng, anatomy)
    # Air attenuates nothing, so that it is less noisy.
    body += _noise(shape, rng) * np.clip((body - AIR_HU) / 500 + np.float32(0.4), 0, 1)
    fill = int(rng.choice(FILLS_HU))
    voxels = np.rint(np.clip(body, -1024, 3071)).astype(np.int16)
    voxels[:, _outside_circle(shape)] = fill
    return voxels


def _frame(
    shape: tuple[int, int, int], spacing_mm: tuple[float, float, float], rng: np.random.Generator, anatomy: Anatomy
) -> _Frame:
    depth, height, width = shape
    dz, dy, dx = spacing_mm
    scale = min(height * dy, width * dx) / FIELD_OF_VIEW_MM
    level = rng.uniform(*anatomy.levels_mm)
    stretch_y, stretch_x = scale * rng.uniform(0.93, 1.04, size=2)
    return _Frame(
        z=((np.arange(depth) - (depth - 1) / 2) * dz + level).astype(np.float32),
        y=((np.arange(height) - (height - 1) / 2) * dy / stretch_y).astype(np.float32),
        x=((np.arange(width) - (width - 1) / 2) * dx / stretch_x).astype(np.float32),
        pixel=max(dy / stretch_y, dx / stretch_x),
    )


def _body(frame: _Frame, rng: np.random.Generator, anatomy: Anatomy) -> Floats:
    body = np.full((frame.z.size, frame.y.size, frame.x.size), AIR_HU, np.float32)
    for organ in anatomy.outside:
        _paint(body, frame, organ, rng)
    if anatomy.ribs:
        _paint_ribs(body, frame, anatomy.cavity, rng)
    inside = np.full_like(body, anatomy.cavity.hu)
    _paint_contents(inside, frame, rng, anatomy)
    wall = np.zeros_like(body)
    _paint(wall, frame, _with_density(anatomy.cavity, 1), rng)
    body += wall * (inside - body)
    for organ in anatomy.skeleton:
        _paint(body, frame, organ, rng)
    return body


def _paint_contents(inside: Floats, frame: _Frame, rng: np.random.Generator, anatomy: Anatomy) -> None:
    if anatomy.cavity.hu < AIR_HU / 2:
        # Lungs are denser towards the back, where a lying patient's blood collects.
        inside += (0.35 * frame.y)[None, :, None]
        for organ in anatomy.inside:
            _paint(inside, frame, organ, rng)
        _paint_vessels(inside, frame, rng)
        return
    for organ in (*_bowel(rng), *anatomy.inside):
        _paint(inside, frame, organ, rng)


def _bowel(rng: np.random.Generator) -> list[Organ]:
    loops = []
    for x, y, z, a, b, tilt, gas in rng.uniform(-1, 1, size=(34, 7)).tolist():
        size = 12 + 4 * a
        place = {"x": 96 * x, "y": -30 + 36 * y, "z": 60 + 85 * z, "tilt": 1.5 * tilt}
        loops.append(Organ(a=size + 4 + 6 * abs(b), b=size, hu=72, c=34, **place))
        loops.append(Organ(a=size + 1 + 6 * abs(b), b=size - 3, hu=28, c=31, **place))
        if gas > 0.1:
            # Gas rises to the front of a lying patient's bowel.
            loops.append(Organ(96 * x, place["y"] - 0.35 * size, size, size * 0.45, -900, z=60 + 85 * z, c=28))
    return loops


def _with_density(organ: Organ, hu: float) -> Organ:
    return Organ(organ.x, organ.y, organ.a, organ.b, hu, organ.z, organ.c, organ.tilt, organ.power, organ.sway)


def _paint(body: Floats, frame: _Frame, organ: Organ, rng: np.random.Generator) -> None:
    # Drawn before any early return, so that the image size does not change what comes later.
    chance = rng.standard_normal(5, dtype=np.float32)
    rows, columns = frame.reach(organ)
    size = _size_per_slice(frame, organ)
    empty = rows.start >= rows.stop or columns.start >= columns.stop or not size.any()
    if empty or min(organ.a, organ.b) < 0.5 * frame.pixel:
        return
    wave = np.float32(organ.sway) * np.sin(frame.z / 24 + 6 * chance[0])[:, None, None]
    dx = frame.x[None, None, columns] - np.float32(organ.x + organ.sway * chance[1]) - wave
    dy = frame.y[None, rows, None] - np.float32(organ.y + organ.sway * chance[2]) - wave / 2
    radius = _radius(dx, dy, organ, chance[3:])
    steepness = np.float32(min(organ.a, organ.b) / (1.3 * frame.pixel + 0.8))
    alpha = np.clip(0.5 + (size - radius) * steepness, 0, 1) * (size > 0)
    part = body[:, rows, columns]
    part += alpha * (np.float32(organ.hu) - part)


def _radius(dx: Floats, dy: Floats, organ: Organ, lumps: Floats | None = None) -> Floats:
    """Give the distance from the centre; 1 is the organ's edge in its fullest slice."""
    if organ.tilt:
        cos, sin = np.float32(math.cos(organ.tilt)), np.float32(math.sin(organ.tilt))
        dx, dy = dx * cos + dy * sin, dy * cos - dx * sin
    u, v = dx / np.float32(organ.a), dy / np.float32(organ.b)
    radius: Floats
    if organ.power == 2:
        radius = np.sqrt(u**2 + v**2)
    else:
        power = np.float32(organ.power)
        radius = (np.abs(u) ** power + np.abs(v) ** power) ** (1 / power)
    if lumps is not None and organ.sway > 1:
        # The third harmonic, as polynomials: no real organ is an ellipse. Far outside they would grow without end.
        u, v = np.clip(u, -1.2, 1.2), np.clip(v, -1.2, 1.2)
        even, odd = np.clip(lumps, -1.5, 1.5) * np.float32(0.035)
        radius += even * u * (u * u - 3 * v * v) + odd * v * (3 * u * u - v * v)
    return radius


def _size_per_slice(frame: _Frame, organ: Organ) -> Floats:
    # The cube keeps an organ near its full size for most of its height.
    height = np.abs((frame.z - np.float32(organ.z)) / np.float32(organ.c))
    size: Floats = np.cbrt(np.clip(1 - height**3, 0, 1)).astype(np.float32)[:, None, None]
    return size


def _paint_ribs(body: Floats, frame: _Frame, cavity: Organ, rng: np.random.Generator) -> None:
    phase = rng.uniform(0, 2 * math.pi)
    if frame.pixel > 12:
        return
    x, y = frame.x[None, :] - np.float32(cavity.x), frame.y[:, None] - np.float32(cavity.y)
    radius = np.maximum(_radius(x, y, cavity), np.float32(0.1))
    beyond = np.hypot(x, y) * (1 - 1 / radius) - 4
    around = np.arctan2(np.abs(x) / np.float32(cavity.a), -y / np.float32(cavity.b))
    # Ribs slope down towards the front, so from slice to slice each cut moves along the wall.
    turn = (np.float32(phase) - frame.z / 5)[:, None, None]
    bony = np.clip(0.5 + 2.5 * (np.cos(9 * around + turn) - 0.1), 0, 1) * np.clip((around - 0.3) * 6, 0, 1)
    for thickness, hu in ((8.0, 430), (3.5, 170)):
        shell = np.clip(0.5 + (np.float32(thickness / 2) - np.abs(beyond)) / np.float32(1.2 * frame.pixel), 0, 1)
        body += bony * shell * (np.float32(hu) - body)


def _paint_vessels(inside: Floats, frame: _Frame, rng: np.random.Generator) -> None:
    # One draw, whether the vessels can be seen or not, so that the image size does not change what comes later.
    tree_rng = np.random.default_rng(int(rng.integers(2**32)))
    if 0.5 * frame.pixel > VESSEL_MM:
        return
    points, radii = _vessel_tree(tree_rng)
    lung = np.clip((-600 - inside) / 100, 0, 1) * (inside > AIR_HU + 60)
    filled = np.zeros_like(inside)
    thickness = float(frame.z[1] - frame.z[0]) if frame.z.size > 1 else 1.0
    for index, level in enumerate(frame.z.tolist()):
        height = np.abs(points[:, 2] - level) / np.maximum(radii, 0.6 * thickness)
        cut = height < 1
        _splat(filled[index], frame, points[cut], radii[cut] * np.sqrt(1 - height[cut] ** 2))
    inside += filled * lung * (35 - inside)


def _vessel_tree(rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Grow trunks from the hila and twigs from the trunks: points (n, 3) as x, y, z and radii (n,), in mm."""
    hila = np.array([[-42.0, 4, 15], [42, 4, 15]]).repeat(34, axis=0)
    outward = rng.normal(size=hila.shape) + np.sign(hila[:, :1]) * [0.6, 0, 0]
    trunks = _branches(hila, outward, 70, rng)
    heads = trunks[np.arange(len(hila))[:, None], rng.integers(8, 70, size=(len(hila), 6))].reshape(-1, 3)
    twigs = _branches(heads, outward.repeat(6, axis=0) + rng.normal(size=heads.shape), 36, rng)
    thick, thin = np.tile(np.linspace(VESSEL_MM, 0.9, 70), len(hila)), np.tile(np.linspace(1.6, 0.6, 36), len(heads))
    return np.concatenate([trunks.reshape(-1, 3), twigs.reshape(-1, 3)]), np.concatenate([thick, thin])


def _branches(
    starts: NDArray[np.float64], directions: NDArray[np.float64], steps: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    unit = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    bends = np.cumsum(rng.normal(scale=0.07, size=(len(starts), steps, 3)), axis=1)
    path: NDArray[np.float64] = starts[:, None, :] + 1.3 * np.cumsum(unit[:, None, :] + bends, axis=1)
    return path


def _splat(filled: Floats, frame: _Frame, points: NDArray[np.float64], radii: NDArray[np.float64]) -> None:
    reach = math.ceil(float(radii.max(initial=0)) / frame.pixel + 1)
    steps = np.arange(-reach, reach + 1)
    columns = np.searchsorted(frame.x, points[:, 0])[:, None, None] + steps
    rows = np.searchsorted(frame.y, points[:, 1])[:, None, None] + steps[:, None]
    columns, rows = np.clip(columns, 0, frame.x.size - 1), np.clip(rows, 0, frame.y.size - 1)
    away = np.hypot(frame.x[columns] - points[:, 0, None, None], frame.y[rows] - points[:, 1, None, None])
    alpha = np.clip(0.5 + (radii[:, None, None] - away) / frame.pixel, 0, 1)
    np.maximum.at(filled, (rows, columns), alpha.astype(np.float32))


def _noise(shape: tuple[int, int, int], rng: np.random.Generator) -> Floats:
    noise = smooth(rng.standard_normal(shape, dtype=np.float32), middle=2)
    # Weights 1 2 1 along each of two axes leave 0.375 of the spread of independent pixels.
    return noise * np.float32(NOISE_HU / 0.375)


def smooth(voxels: Floats, middle: int = 1) -> Floats:
    """Average each pixel with its eight neighbours in the slice, its own row and column weighing `middle` times."""
    weight, total = np.float32(middle), np.float32(middle + 2)
    padded = np.pad(voxels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    rows = (padded[:, :-2] + weight * padded[:, 1:-1] + padded[:, 2:]) / total
    smooth: Floats = (rows[:, :, :-2] + weight * rows[:, :, 1:-1] + rows[:, :, 2:]) / total
    return smooth


def _outside_circle(shape: tuple[int, int, int]) -> NDArray[np.bool_]:
    _, height, width = shape
    radius = min(height, width) / 2
    y, x = np.ogrid[:height, :width]
    outside: NDArray[np.bool_] = (x - (width - 1) / 2) ** 2 + (y - (height - 1) / 2) ** 2 > radius**2
    return outside


def between(positions: NDArray[np.generic], middle: float, half: float) -> slice:
    """Give the part of rising positions that is no farther than `half` from the middle."""
    start, stop = np.searchsorted(positions, [middle - half, middle + half])
    return slice(int(start), int(stop))
