"""RECIST marks: a long and a short axis drawn on one slice.

Eisenhauer et al., New response evaluation criteria in solid tumours: revised RECIST guideline (version 1.1), 2009.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recist:
    """End points of both axes on the key slice; pixels, 0-based, pixel centre on whole numbers.

    The axes need not be perpendicular, nor cross: DeepLesion has marks up to 67 degrees off.
    """

    long_x0: float
    long_y0: float
    long_x1: float
    long_y1: float
    short_x0: float
    short_y0: float
    short_x1: float
    short_y1: float

    @property
    def axes(self) -> tuple[tuple[float, float, float, float], tuple[float, float, float, float]]:
        """The long and the short axis, each (x0, y0, x1, y1)."""
        long = (self.long_x0, self.long_y0, self.long_x1, self.long_y1)
        return long, (self.short_x0, self.short_y0, self.short_x1, self.short_y1)

    def lengths_mm(self, spacing_y_mm: float, spacing_x_mm: float) -> tuple[float, float]:
        """Measure both axes.

        Parameters
        ----------
        spacing_y_mm, spacing_x_mm
            Distance of neighbouring rows and of neighbouring columns in mm.

        Returns
        -------
        tuple of float
            Length of the long and of the short axis in mm.
        """
        long, short = (math.hypot((x1 - x0) * spacing_x_mm, (y1 - y0) * spacing_y_mm) for x0, y0, x1, y1 in self.axes)
        return long, short

    def shift(self, dy: float, dx: float) -> Recist:
        """Move the mark by whole or fractional pixels."""
        (ax, ay, bx, by), (cx, cy, ex, ey) = self.axes
        return Recist(ax + dx, ay + dy, bx + dx, by + dy, cx + dx, cy + dy, ex + dx, ey + dy)

    def scale(self, y: float, x: float) -> Recist:
        """Multiply the coordinates, as for an image with so many times the pixels per mm."""
        (ax, ay, bx, by), (cx, cy, ex, ey) = self.axes
        return Recist(ax * x, ay * y, bx * x, by * y, cx * x, cy * y, ex * x, ey * y)
