"""Shape features: how large a lesion is, and what form it has.

Definitions and names (``morph_volume``, ``morph_sphericity``) are those of the Image Biomarker Standardisation
Initiative (reference manual, arXiv:1612.07003, section 3.1, morphological features), in mm. The surface is that of
marching cubes, see `lesionzarr.features._surface`.

A region of one slice has no volume: its thickness is the distance of slices, not the lesion's. Of it all is null that
needs a volume, and so is of a volume whose slice interval is unknown; what is left are the diameter, the two axes and
the shift of the centre, all in the plane, and three features that IBSI does not know and that such regions alone have:
``plane_area``, ``plane_perimeter`` and ``plane_sphericity``, by marching squares (as ``shape2D`` of pyradiomics).

``morph_com`` is the shift between the centre of the voxels and that weighted by density, whose weights are divided by
their sum, as IBSI defines it. HU have both signs, so where the sum is near zero (water, fluid, or fat beside tissue)
the weighted centre may lie metres outside of the lesion; nor is it a centre of mass where any HU is negative.

What pyradiomics calls them (the last three only where asked for by name). Its axes have the variance of all voxels,
ours that of a sample (n - 1), as the reference values of IBSI have it:

=============================  =================================
pyradiomics                    here
=============================  =================================
shape_Elongation               morph_pca_elongation
shape_Flatness                 morph_pca_flatness
shape_LeastAxisLength          morph_pca_least_axis, of a sample
shape_MajorAxisLength          morph_pca_maj_axis, of a sample
shape_Maximum2DDiameterColumn  -
shape_Maximum2DDiameterRow     -
shape_Maximum2DDiameterSlice   -
shape_Maximum3DDiameter        morph_diam
shape_MeshVolume               morph_volume
shape_MinorAxisLength          morph_pca_min_axis, of a sample
shape_Sphericity               morph_sphericity
shape_SurfaceArea              morph_area_mesh
shape_SurfaceVolumeRatio       morph_av
shape_VoxelVolume              morph_vol_approx
shape_Compactness1             morph_comp_1
shape_Compactness2             morph_comp_2
shape_SphericalDisproportion   morph_sph_dispr
=============================  =================================

The diameters on slices, columns and rows IBSI does not have.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.features._diameter import diameters
from lesionzarr.features._surface import CORNERS, SQUARE, cubes, squares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.features._bulk import Bulk, Floats, Ints

SHAPE = (
    *("morph_volume", "morph_vol_approx", "morph_area_mesh", "morph_av", "morph_comp_1", "morph_comp_2"),
    *("morph_sph_dispr", "morph_sphericity", "morph_asphericity", "morph_com", "morph_diam", "morph_pca_maj_axis"),
    *("morph_pca_min_axis", "morph_pca_least_axis", "morph_pca_elongation", "morph_pca_flatness"),
    *("morph_vol_dens_aabb", "morph_area_dens_aabb", "morph_vol_dens_aee", "morph_integ_int"),
    *("plane_area", "plane_perimeter", "plane_sphericity"),
)
"""Names of the features; lengths in mm, areas in mm2, volumes in mm3, ``morph_integ_int`` in HU mm3."""

IN_PLANE = ("morph_com", "morph_diam", "morph_pca_maj_axis", "morph_pca_min_axis", "morph_pca_elongation")
"""What a region of one slice has too."""


def shape(bulk: Bulk) -> dict[str, Floats]:
    """Describe the form of regions.

    Parameters
    ----------
    bulk
        The regions.

    Returns
    -------
    dict of str to ndarray
        float64 (lesion,) by name, as `SHAPE`; NaN where a region has none, see the module.
    """
    plane = bulk.is_plane
    # along z a single slice has no extent, whatever the distance of slices is
    spacing = np.where(plane[:, None] & np.array([True, False, False]), 0.0, bulk.spacing_mm)
    with np.errstate(divide="ignore", invalid="ignore"):
        solid = _solid(bulk, bulk.spacing_mm)
        found = {
            **{name: np.where(plane, np.nan, array) for name, array in solid.items()},
            **_axes(bulk, spacing, solid["morph_volume"]),
            **_plane(bulk),
        }
    return {name: np.where(np.isfinite(found[name]), found[name], np.nan) for name in SHAPE}


def _solid(bulk: Bulk, spacing: Floats) -> dict[str, Floats]:
    """Give volume and surface, and what is made of them."""
    voxel = spacing.prod(axis=1)
    volume, area = _mesh(bulk, spacing)
    volume = volume * voxel
    sides = _extent(bulk, spacing)
    around = 2 * (sides[:, 0] * sides[:, 1] + sides[:, 0] * sides[:, 2] + sides[:, 1] * sides[:, 2])
    sphere = 36 * math.pi * volume**2
    return {
        "morph_volume": volume,
        "morph_vol_approx": bulk.counts * voxel,
        "morph_area_mesh": area,
        "morph_av": area / volume,
        "morph_comp_1": volume / (math.sqrt(math.pi) * area**1.5),
        "morph_comp_2": sphere / area**3,
        "morph_sph_dispr": area / np.cbrt(sphere),
        "morph_sphericity": np.cbrt(sphere) / area,
        "morph_asphericity": np.cbrt(area**3 / sphere) - 1,
        "morph_vol_dens_aabb": volume / sides.prod(axis=1),
        "morph_area_dens_aabb": area / around,
        "morph_integ_int": bulk.mean(bulk.values) * volume,
    }


def _mesh(bulk: Bulk, spacing: Floats) -> tuple[Floats, Floats]:
    """Give the volume in voxels and the area in mm2 of the surfaces."""
    table = cubes()
    place, way, owner = _filled(bulk, np.array(CORNERS))
    ways = np.bincount(owner * 256 + way, minlength=bulk.lesions * 256).reshape(bulk.lesions, 256)
    z = (place - bulk.offsets[owner]) // bulk.strides[owner, 0]
    volume = ways @ table.moment + np.bincount(owner, table.flux[way] * z, bulk.lesions)
    area = np.zeros(bulk.lesions)
    spacings, which = np.unique(spacing, axis=0, return_inverse=True)
    for number, (dz, dy, dx) in enumerate(spacings):
        areas = np.linalg.norm(table.normals * (dy * dx, dz * dx, dz * dy), axis=2).sum(axis=1)
        own = which.ravel() == number
        area[own] = ways[own] @ areas
    return volume, area


def _filled(bulk: Bulk, corners: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Give place, way to fill it and lesion of each cube or square that has an inside corner."""
    filled = np.zeros(bulk.size, dtype=np.uint8)
    strides = bulk.strides[:, 3 - corners.shape[1] :]
    for number, corner in enumerate(corners):
        # no two voxels are the same corner of one cube
        filled[bulk.index - (strides @ corner)[bulk.owner]] += np.uint8(1 << number)
    place = np.flatnonzero(filled)
    owner = np.searchsorted(bulk.offsets, place, side="right") - 1
    return place, filled[place].astype(np.int64), owner


def _extent(bulk: Bulk, spacing: Floats) -> Floats:
    """Give the sides of the box round the surface, which reaches half a voxel past the outermost centres."""
    first = np.minimum.reduceat(bulk.place, bulk.starts)
    last = np.maximum.reduceat(bulk.place, bulk.starts)
    sides: Floats = (last - first + 1) * spacing
    return sides


def _axes(bulk: Bulk, spacing: Floats, volume: Floats) -> dict[str, Floats]:
    """Give the axes by the moments of the voxel centres, the diameter, and how far the densities shift the centre."""
    # in voxels, along one axis at a time, and in mm once they are added up
    places = np.ascontiguousarray(bulk.place.T, dtype=np.float64)
    offsets = [place - bulk.mean(place)[bulk.owner] for place in places]
    moments = np.empty((bulk.lesions, 3, 3))
    for a in range(3):
        for b in range(a, 3):
            # of a sample, as the reference values of IBSI have it; pyradiomics divides by the number of voxels
            moments[:, a, b] = moments[:, b, a] = bulk.sum(offsets[a] * offsets[b]) / (bulk.counts - 1)
    moments *= spacing[:, :, None] * spacing[:, None]
    known = np.isfinite(moments).all(axis=(1, 2))
    values = np.full((bulk.lesions, 3), np.nan)
    values[known] = np.linalg.eigvalsh(moments[known])
    # what is 0 but for rounding
    values[values < values.max(axis=1, keepdims=True) * 1e-12] = 0
    least, minor, major = 4 * np.sqrt(values.T)
    heavy = np.stack([bulk.sum(offset * bulk.values) for offset in offsets], axis=1) * spacing
    total = bulk.sum(bulk.values)
    least = np.where(bulk.is_plane, np.nan, least)
    return {
        "morph_com": np.linalg.norm(heavy, axis=1) / np.abs(total),
        "morph_diam": diameters(bulk, spacing),
        "morph_pca_maj_axis": major,
        "morph_pca_min_axis": minor,
        "morph_pca_least_axis": least,
        "morph_pca_elongation": minor / major,
        "morph_pca_flatness": least / major,
        "morph_vol_dens_aee": volume / (math.pi / 6 * least * minor * major),
    }


def _plane(bulk: Bulk) -> dict[str, Floats]:
    """Give area, outline and roundness of regions of one slice."""
    areas, lines = squares()
    _, way, owner = _filled(bulk, np.array(SQUARE))
    ways = np.bincount(owner * 16 + way, minlength=bulk.lesions * 16).reshape(bulk.lesions, 16)
    area = ways @ areas * bulk.spacing_mm[:, 1:].prod(axis=1)
    lengths = np.linalg.norm(lines[None] * bulk.spacing_mm[:, None, None, 1:], axis=3).sum(axis=2)
    perimeter = (ways * lengths).sum(axis=1)
    found = {
        "plane_area": area,
        "plane_perimeter": perimeter,
        "plane_sphericity": 2 * np.sqrt(math.pi * area) / perimeter,
    }
    return {name: np.where(bulk.is_plane, array, np.nan) for name, array in found.items()}
