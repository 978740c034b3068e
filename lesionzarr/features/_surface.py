"""Surfaces and outlines of masks: what every way to fill the corners of a cube, or of a square, adds to them.

Marching cubes (Lorensen and Cline, SIGGRAPH 1987) on a mask: corners are voxel centres, and the surface cuts an edge in
its middle where one end is inside. The table is made here, not copied: on each face of a cube lines join the cut edges,
around each inside corner where there is a choice, so that neighbouring cubes agree and the surface is closed.
"""

from __future__ import annotations

import itertools
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CORNERS = tuple(itertools.product((0, 1), repeat=3))
"""(z, y, x) of corner 0 to 7 of a cube, which is bit 0 to 7 of a way to fill them."""
SQUARE = ((0, 0), (0, 1), (1, 0), (1, 1))
"""(y, x) of the corners of a square, bit 0 to 3."""
Edge = tuple[int, int]


class Cubes(NamedTuple):
    """What each of 256 ways to fill a cube adds, for cubes with sides of 1."""

    normals: Floats
    """(way, triangle, 3): area vectors outwards, along (z, y, x); 0 where there is no such triangle."""
    flux: Floats
    """(way,): z component of the area, which carries the place of the cube into the volume."""
    moment: Floats
    """(way,): volume that belongs to a cube at z = 0."""


@cache
def cubes() -> Cubes:
    """Make the table."""
    normals = np.zeros((256, 5, 3))
    moment = np.zeros(256)
    for way in range(256):
        triangles = [triangle for loop in _loops(way) for triangle in _fan(loop)]
        for number, (a, b, c) in enumerate(triangles):
            normal = np.cross(b - a, c - a) / 2
            normals[way, number] = normal
            moment[way] += normal[0] * (a + b + c)[0] / 3
    return Cubes(normals, normals[:, :, 0].sum(axis=1), moment)


@cache
def squares() -> tuple[Floats, Floats]:
    """Give what each of 16 ways to fill a square adds: its area, and the steps (line, y and x) of its outline."""
    areas, lines = np.zeros(16), np.zeros((16, 2, 2))
    for way in range(16):
        inside = [corner for corner in range(4) if way >> corner & 1]
        areas[way] = (0, 1 / 8, 1 / 2, 7 / 8, 1)[len(inside)]
        if way in {0b0110, 0b1001}:
            areas[way] = 1 / 4
        for number, line in enumerate(_lines(way, (0, 1, 3, 2))):
            (a, b), (c, d) = ([np.array(SQUARE[corner]) for corner in edge] for edge in line)
            lines[way, number] = (c + d - a - b) / 2
    return areas, lines


def _lines(way: int, ring: tuple[int, ...]) -> list[tuple[Edge, Edge]]:
    """Join the cut edges of a square, of which `ring` has the corners one after the other."""
    filled = [bool(way >> corner & 1) for corner in ring]
    edges = [(min(a, b), max(a, b)) for a, b in zip(ring, ring[1:] + ring[:1], strict=True)]
    cut = [edge for edge, a, b in zip(edges, filled, filled[1:] + filled[:1], strict=True) if a != b]
    if len(cut) < 4:
        return [(cut[0], cut[1])] if cut else []
    # both edges of each inside corner
    return [(edges[i - 1], edges[i]) for i in range(4) if filled[i]]


def _faces() -> list[tuple[int, ...]]:
    faces: list[tuple[int, ...]] = []
    for axis, side in itertools.product(range(3), (0, 1)):
        own = [number for number, corner in enumerate(CORNERS) if corner[axis] == side]
        faces.append((own[0], own[1], own[3], own[2]))
    return faces


def _loops(way: int) -> list[Floats]:
    """Give the closed lines round the surface in a cube, (vertex, 3) each, that turn so that its normal is outwards."""
    joined: dict[Edge, list[Edge]] = {}
    for face in _faces():
        for a, b in _lines(way, face):
            joined.setdefault(a, []).append(b)
            joined.setdefault(b, []).append(a)
    loops = []
    left = dict.fromkeys(joined)
    while left:
        edge: Edge | None = next(iter(left))
        loop: list[Edge] = []
        while edge is not None:
            loop.append(edge)
            del left[edge]
            edge = next((other for other in joined[edge] if other in left), None)
        loops.append(_outwards(loop, way))
    return loops


def _outwards(loop: list[Edge], way: int) -> Floats:
    ends = np.array([[CORNERS[a], CORNERS[b]] for a, b in loop], dtype=np.float64)
    points: Floats = ends.mean(axis=1)
    towards = sum((b - a) * (1 if way >> edge[0] & 1 else -1) for edge, (a, b) in zip(loop, ends, strict=True))
    area = np.cross(points, np.roll(points, -1, axis=0)).sum(axis=0)
    return points if area @ towards > 0 else points[::-1]


def _fan(loop: Floats) -> list[tuple[Floats, Floats, Floats]]:
    """Cut a polygon into triangles from the vertex that makes the most surface, as the published tables do."""
    fans = []
    for first in range(len(loop)):
        turned = np.roll(loop, -first, axis=0)
        fans.append([(turned[0], turned[i], turned[i + 1]) for i in range(1, len(loop) - 1)])
    return max(fans, key=lambda fan: round(sum(float(np.linalg.norm(np.cross(b - a, c - a))) for a, b, c in fan), 9))
