"""What the phantom body is made of: one table of organs for each body region.

Lengths are millimetres of one adult body in a field of view of 375 mm; `_phantom` scales them to the image. The origin
is the middle of the image and, along z, a landmark of the region (chest: carina; abdomen: hila of the kidneys; pelvis:
sacroiliac joints). x grows towards the image's right, which is the patient's left; y grows to the back and z to the
feet, as in DeepLesion's slices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

FIELD_OF_VIEW_MM: Final = 375.0

Region = Literal["chest", "abdomen", "pelvis"]


@dataclass(frozen=True, slots=True)
class Organ:
    """One ellipsoid of even density."""

    x: float
    """Centre, in mm from the middle of the image."""
    y: float
    a: float
    """Semi-axis along x before the rotation, in mm."""
    b: float
    """Semi-axis along y before the rotation, in mm."""
    hu: float
    z: float = 0.0
    c: float = float("inf")
    """Semi-axis along z, in mm; an infinite one makes a column through all slices."""
    tilt: float = 0.0
    """Rotation in the slice, in radians from +x towards +y."""
    power: float = 2.0
    """2 is an ellipse, more is boxier."""
    sway: float = 1.5
    """How far the centre may wander from slice to slice, in mm; above 1 the outline is a little uneven as well."""


@dataclass(frozen=True, slots=True)
class Anatomy:
    """The organs of one region, in the order in which they are painted."""

    outside: tuple[Organ, ...]
    """From the table up to the body wall."""
    cavity: Organ
    """What fills the body wall."""
    ribs: bool
    """Whether ribs surround the cavity."""
    inside: tuple[Organ, ...]
    """Organs that end at the cavity's wall."""
    skeleton: tuple[Organ, ...]
    """Bones, and muscles beside them, that may cross it."""
    levels_mm: tuple[float, float]
    """Lowest and highest z that the middle slice may have."""


def _table(y: float) -> tuple[Organ, ...]:
    return (
        Organ(0, y, 208, 44, -150, power=2.4, sway=0),
        Organ(0, y, 205, 41, -940, power=2.4, sway=0),
    )


def _wall(a: float, b: float, fat: float, back: float) -> tuple[Organ, ...]:
    """Skin, fat, and two sheets of muscle with a plane of fat between them, all shifted towards the back."""
    skin = Organ(0, 0, a, b, -10, power=2.25, sway=0)
    subcutis = Organ(0, 0, a - 2.5, b - 2.5, -104, power=2.25, sway=0)
    muscle = Organ(0, back, a - fat, b - fat * 0.7 - back / 2, 54, power=2.15, sway=0)
    plane = Organ(0, back - 7, muscle.a - 11, muscle.b - 3, -60, power=2.1, sway=0)
    inner = Organ(0, back - 3, muscle.a - 14, muscle.b - 7, 46, power=2.15, sway=0)
    return (skin, subcutis, muscle, plane, inner)


def _spine(y: float, a: float, b: float) -> tuple[Organ, ...]:
    return (
        Organ(-26, y + 31, 25, 17, 55, tilt=-0.2, sway=0.5),
        Organ(26, y + 31, 25, 17, 55, tilt=0.2, sway=0.5),
        Organ(0, y + 26, 3.5, 22, 420, sway=0.5),
        Organ(-21, y + 22, 21, 5, 400, tilt=-0.35, sway=0.5),
        Organ(21, y + 22, 21, 5, 400, tilt=0.35, sway=0.5),
        Organ(0, y + 18, 17, 15, 430, sway=0.5),
        Organ(0, y, a, b, 520, power=2.4, sway=0.5),
        Organ(0, y, a - 3, b - 3, 190, power=2.4, sway=0.5),
        Organ(0, y + b + 7, 10, 8.5, 30, sway=0.5),
    )


_CHEST_INSIDE: Final = (
    Organ(0, -62, 15, 44, -95),
    Organ(0, -15, 33, 48, -85, power=2.6),
    Organ(2, 42, 34, 36, -60),
    Organ(16, -24, 68, 56, -90, z=88, c=64, tilt=-0.35),
    Organ(14, -28, 62, 50, 105, z=88, c=60, tilt=-0.35),
    Organ(34, -14, 30, 23, 165, z=92, c=48, tilt=-0.5),
    Organ(-24, -32, 24, 27, 150, z=88, c=44),
    Organ(2, -56, 26, 17, 150, z=84, c=40, tilt=-0.3),
    Organ(0, 2, 19, 15, 150, z=70, c=30),
    Organ(-14, -34, 17, 17, 185, z=8, c=46),
    Organ(9, -14, 17, 42, 180, z=-30, c=15, tilt=-0.35),
    Organ(16, -34, 14, 17, 170, z=14, c=30),
    Organ(-12, -13, 32, 8.5, 165, z=14, c=12, tilt=0.15),
    Organ(33, -12, 21, 8, 165, z=4, c=12, tilt=0.5),
    Organ(-38, 0, 11, 8, 150, z=24, c=18),
    Organ(38, 4, 9, 11, 150, z=22, c=18),
    Organ(-32, -24, 9, 10, 190, z=-20, c=70),
    Organ(-14, -34, 8, 8, 170, z=-75, c=34),
    Organ(3, -30, 6, 6, 175, z=-75, c=34),
    Organ(17, -12, 6.5, 6.5, 175, z=-75, c=34),
    Organ(24, 38, 12.5, 12.5, 180, z=100, c=132),
    Organ(6, 27, 8, 5, 35),
    Organ(0, 6, 11, 12, 20, z=-70, c=74),
    Organ(0, 6, 9, 10, -990, z=-70, c=72),
    Organ(-17, 8, 9, 7.5, -985, z=16, c=20),
    Organ(19, 10, 8.5, 7, -985, z=18, c=22),
    Organ(-14, -2, 6, 5, 45, z=-14, c=9),
    Organ(12, 15, 7, 4, 40, z=6, c=9),
    Organ(-52, 4, 74, 70, 105, z=150, c=50),
)

_CHEST_SKELETON: Final = (
    *_spine(60, 19, 16),
    Organ(0, -94, 23, 6.5, 430, power=2.6, sway=0.5),
    Organ(0, -94, 20, 3.5, 150, power=2.6, sway=0.5),
    Organ(-118, 66, 36, 5, 430, z=-40, c=85, tilt=0.8),
    Organ(118, 66, 36, 5, 430, z=-40, c=85, tilt=-0.8),
)

_ABDOMEN_INSIDE: Final = (
    Organ(46, -32, 48, 34, 60, z=-42, c=46, tilt=-0.35),
    Organ(46, -30, 43, 29, 22, z=-42, c=42, tilt=-0.35),
    Organ(42, -46, 34, 13, -880, z=-44, c=36, tilt=-0.1),
    Organ(-66, -10, 74, 82, 108, z=-52, c=92, power=2.2),
    Organ(-4, -52, 62, 26, 108, z=-62, c=52, tilt=0.12),
    Organ(-30, -8, 26, 5, 165, z=-48, c=12, tilt=0.35),
    Organ(-72, -22, 24, 4, 160, z=-40, c=14, tilt=-0.5),
    Organ(-78, 18, 20, 4, 160, z=-60, c=16, tilt=0.6),
    Organ(-52, -38, 4.5, 4.5, 165, z=-60, c=40),
    Organ(-90, -8, 4, 4, 160, z=-30, c=40),
    Organ(-64, 36, 5, 5, 165, z=-70, c=40),
    Organ(-98, 22, 3.5, 3.5, 160, z=-60, c=50),
    Organ(-42, -42, 13, 18, 8, z=-8, c=26, tilt=0.3),
    Organ(100, 18, 27, 50, 120, z=-52, c=50, tilt=0.3),
    Organ(8, -2, 56, 11, 92, z=-12, c=20, tilt=-0.28),
    Organ(-27, 4, 16, 17, 90, z=6, c=26),
    Organ(-62, 44, 34, 38, -100, z=14, c=62),
    Organ(64, 42, 33, 37, -100, z=8, c=62),
    Organ(-62, 44, 25, 31, 185, z=14, c=55, tilt=0.3),
    Organ(64, 42, 24, 31, 185, z=8, c=56, tilt=-0.3),
    Organ(-57, 42, 15, 20, 130, z=14, c=44, tilt=0.3),
    Organ(59, 40, 14, 20, 130, z=8, c=44, tilt=-0.3),
    Organ(-45, 39, 12, 10, -80, z=14, c=24, tilt=0.3),
    Organ(47, 37, 12, 10, -80, z=8, c=24, tilt=-0.3),
    Organ(-34, 34, 15, 3.2, 150, z=10, c=6, tilt=0.1),
    Organ(34, 30, 15, 3.2, 150, z=6, c=6, tilt=-0.1),
    Organ(-17, 27, 13, 10, 130),
    Organ(9, 28, 11, 11, 185),
    Organ(4, 4, 5.5, 5.5, 180, z=20, c=60),
    Organ(-9, 2, 6, 6, 150, z=20, c=60),
)

_ABDOMEN_SKELETON: Final = (
    Organ(-36, 58, 15, 19, 58, z=70, c=90, sway=0.5),
    Organ(36, 58, 15, 19, 58, z=70, c=90, sway=0.5),
    *_spine(52, 22, 17),
)

_PELVIS_INSIDE: Final = (
    Organ(-60, 12, 22, 25, 58, z=0, c=90),
    Organ(60, 12, 22, 25, 58, z=0, c=90),
    Organ(0, -30, 42, 30, 45, z=62, c=48),
    Organ(0, -30, 38, 27, 6, z=62, c=45),
    Organ(0, 8, 27, 18, 88, z=56, c=40),
    Organ(0, 36, 16, 14, 50),
    Organ(1, 32, 8, 6, -850, z=10, c=30),
    Organ(-43, -8, 6.5, 6.5, 170),
    Organ(-47, 5, 7.5, 6.5, 120),
    Organ(43, -8, 6.5, 6.5, 170),
    Organ(47, 5, 7.5, 6.5, 120),
)

_PELVIS_SKELETON: Final = (
    Organ(-86, 60, 46, 24, 55, tilt=-0.55, power=2.3, sway=0.5),
    Organ(86, 60, 46, 24, 55, tilt=0.55, power=2.3, sway=0.5),
    Organ(-80, 22, 52, 8, 480, z=-15, c=72, tilt=0.95, sway=0.5),
    Organ(80, 22, 52, 8, 480, z=-15, c=72, tilt=-0.95, sway=0.5),
    Organ(-80, 22, 49, 5, 170, z=-15, c=70, tilt=0.95, sway=0.5),
    Organ(80, 22, 49, 5, 170, z=-15, c=70, tilt=-0.95, sway=0.5),
    Organ(0, 62, 46, 17, 430, z=-5, c=70, power=2.2, sway=0.5),
    Organ(0, 62, 43, 14, 210, z=-5, c=68, power=2.2, sway=0.5),
    Organ(-13, 68, 4.5, 4, 30, z=-5, c=50),
    Organ(13, 68, 4.5, 4, 30, z=-5, c=50),
    Organ(-95, 4, 27, 25, 520, z=84, c=36, sway=0.5),
    Organ(95, 4, 27, 25, 520, z=84, c=36, sway=0.5),
    Organ(-97, 4, 22, 21, 300, z=84, c=32, sway=0.5),
    Organ(97, 4, 22, 21, 300, z=84, c=32, sway=0.5),
)

ANATOMY: Final[dict[Region, Anatomy]] = {
    "chest": Anatomy(
        outside=(*_table(128), *_wall(172, 121, 14, 2)),
        cavity=Organ(0, -2, 128, 89, -855, power=2.2, sway=0),
        ribs=True,
        inside=_CHEST_INSIDE,
        skeleton=_CHEST_SKELETON,
        levels_mm=(-45.0, 75.0),
    ),
    "abdomen": Anatomy(
        outside=(*_table(124), *_wall(166, 117, 19, 5)),
        cavity=Organ(0, -8, 129, 86, -100, power=2.3, sway=0),
        ribs=True,
        inside=_ABDOMEN_INSIDE,
        skeleton=_ABDOMEN_SKELETON,
        levels_mm=(-55.0, 35.0),
    ),
    "pelvis": Anatomy(
        outside=(*_table(120), *_wall(172, 113, 24, 7)),
        cavity=Organ(0, -14, 116, 78, -100, power=2.3, sway=0),
        ribs=False,
        inside=_PELVIS_INSIDE,
        skeleton=_PELVIS_SKELETON,
        levels_mm=(-35.0, 55.0),
    ),
}
