"""Texture features: which grey levels lie beside which.

Definitions and names are those of the Image Biomarker Standardisation Initiative (reference manual, arXiv:1612.07003,
sections 3.6 grey level co-occurrence ``cm_``, 3.7 run length ``rlm_``, 3.8 size zone ``szm_``, 3.10 neighbourhood grey
tone difference ``ngt_``, and 3.11 neighbouring grey level dependence ``ngl_``, which pyradiomics calls GLDM), for a
distance of 1 and a coarseness of 0. Matrices are of the volume (26 neighbours); features of ``cm_`` and ``rlm_`` are
averaged over the directions (``3D_avg`` in IBSI's tables, the way of pyradiomics). A direction in which no two voxels
of the region are neighbours does not count, so a region of one slice has four directions and 8 neighbours (``2D_avg``).

Voxels are taken as they are. Where slices lie farther apart than pixels, neighbours along z are farther away too.

What pyradiomics calls them (``MCC`` IBSI does not have):

=========================================  ====================
pyradiomics                                here
=========================================  ====================
glcm_Autocorrelation                       cm_auto_corr
glcm_ClusterProminence                     cm_clust_prom
glcm_ClusterShade                          cm_clust_shade
glcm_ClusterTendency                       cm_clust_tend
glcm_Contrast                              cm_contrast
glcm_Correlation                           cm_corr
glcm_DifferenceAverage                     cm_diff_avg
glcm_DifferenceEntropy                     cm_diff_entr
glcm_DifferenceVariance                    cm_diff_var
glcm_Id                                    cm_inv_diff
glcm_Idm                                   cm_inv_diff_mom
glcm_Idmn                                  cm_inv_diff_mom_norm
glcm_Idn                                   cm_inv_diff_norm
glcm_Imc1                                  cm_info_corr1
glcm_Imc2                                  cm_info_corr2
glcm_InverseVariance                       cm_inv_var
glcm_JointAverage                          cm_joint_avg
glcm_JointEnergy                           cm_energy
glcm_JointEntropy                          cm_joint_entr
glcm_MCC                                   -
glcm_MaximumProbability                    cm_joint_max
glcm_SumAverage                            cm_sum_avg
glcm_SumEntropy                            cm_sum_entr
glcm_SumSquares                            cm_joint_var
glrlm_GrayLevelNonUniformity               rlm_glnu
glrlm_GrayLevelNonUniformityNormalized     rlm_glnu_norm
glrlm_GrayLevelVariance                    rlm_gl_var
glrlm_HighGrayLevelRunEmphasis             rlm_hgre
glrlm_LongRunEmphasis                      rlm_lre
glrlm_LongRunHighGrayLevelEmphasis         rlm_lrhge
glrlm_LongRunLowGrayLevelEmphasis          rlm_lrlge
glrlm_LowGrayLevelRunEmphasis              rlm_lgre
glrlm_RunEntropy                           rlm_rl_entr
glrlm_RunLengthNonUniformity               rlm_rlnu
glrlm_RunLengthNonUniformityNormalized     rlm_rlnu_norm
glrlm_RunPercentage                        rlm_r_perc
glrlm_RunVariance                          rlm_rl_var
glrlm_ShortRunEmphasis                     rlm_sre
glrlm_ShortRunHighGrayLevelEmphasis        rlm_srhge
glrlm_ShortRunLowGrayLevelEmphasis         rlm_srlge
glszm_GrayLevelNonUniformity               szm_glnu
glszm_GrayLevelNonUniformityNormalized     szm_glnu_norm
glszm_GrayLevelVariance                    szm_gl_var
glszm_HighGrayLevelZoneEmphasis            szm_hgze
glszm_LargeAreaEmphasis                    szm_lze
glszm_LargeAreaHighGrayLevelEmphasis       szm_lzhge
glszm_LargeAreaLowGrayLevelEmphasis        szm_lzlge
glszm_LowGrayLevelZoneEmphasis             szm_lgze
glszm_SizeZoneNonUniformity                szm_zsnu
glszm_SizeZoneNonUniformityNormalized      szm_zsnu_norm
glszm_SmallAreaEmphasis                    szm_sze
glszm_SmallAreaHighGrayLevelEmphasis       szm_szhge
glszm_SmallAreaLowGrayLevelEmphasis        szm_szlge
glszm_ZoneEntropy                          szm_zs_entr
glszm_ZonePercentage                       szm_z_perc
glszm_ZoneVariance                         szm_zs_var
gldm_DependenceEntropy                     ngl_dc_entr
gldm_DependenceNonUniformity               ngl_dcnu
gldm_DependenceNonUniformityNormalized     ngl_dcnu_norm
gldm_DependenceVariance                    ngl_dc_var
gldm_GrayLevelNonUniformity                ngl_glnu
gldm_GrayLevelVariance                     ngl_gl_var
gldm_HighGrayLevelEmphasis                 ngl_hgce
gldm_LargeDependenceEmphasis               ngl_hde
gldm_LargeDependenceHighGrayLevelEmphasis  ngl_hdhge
gldm_LargeDependenceLowGrayLevelEmphasis   ngl_hdlge
gldm_LowGrayLevelEmphasis                  ngl_lgce
gldm_SmallDependenceEmphasis               ngl_lde
gldm_SmallDependenceHighGrayLevelEmphasis  ngl_ldhge
gldm_SmallDependenceLowGrayLevelEmphasis   ngl_ldlge
ngtdm_Busyness                             ngt_busyness
ngtdm_Coarseness                           ngt_coarseness
ngtdm_Complexity                           ngt_complexity
ngtdm_Contrast                             ngt_contrast
ngtdm_Strength                             ngt_strength
=========================================  ====================
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.features._bulk import add_up
from lesionzarr.features._matrices import SIZES, co_occurrence, emphasis, tone_difference
from lesionzarr.features.discretise import count_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.features._bulk import Bulk, Floats, Ints

DIRECTIONS = tuple(step for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0))
"""One of each two opposite ways to a neighbour, (z, y, x)."""
PLANE = tuple(step for step in DIRECTIONS if not step[0])

TEXTURE = (
    *("cm_joint_max", "cm_joint_avg", "cm_joint_var", "cm_joint_entr", "cm_diff_avg", "cm_diff_var", "cm_diff_entr"),
    *("cm_sum_avg", "cm_sum_var", "cm_sum_entr", "cm_energy", "cm_contrast", "cm_dissimilarity", "cm_inv_diff"),
    *("cm_inv_diff_norm", "cm_inv_diff_mom", "cm_inv_diff_mom_norm", "cm_inv_var", "cm_corr", "cm_auto_corr"),
    *("cm_clust_tend", "cm_clust_shade", "cm_clust_prom", "cm_info_corr1", "cm_info_corr2"),
    *(f"{family}_{name}" for family in ("rlm", "szm") for name in SIZES[family]),
    *("ngt_coarseness", "ngt_contrast", "ngt_busyness", "ngt_complexity", "ngt_strength"),
    *(f"ngl_{name}" for name in SIZES["ngl"]),
    "ngl_dc_energy",
)
"""Names of the features of texture."""


@dataclass(frozen=True)
class Neighbours:
    """Pairs of voxels of the regions that lie beside each other, each once."""

    first: Ints
    """(pair,): number of a voxel."""
    second: Ints
    """(pair,): its neighbour."""
    direction: Ints
    """(pair,): number of the direction that leads from the first to the second."""
    directions: int


def texture(bulk: Bulk, levels: Ints) -> dict[str, Floats]:
    """Describe the texture of regions.

    Parameters
    ----------
    bulk
        The regions.
    levels
        (voxel,): grey levels from 1 on, as `lesionzarr.features.discretise.discretise` gives them.

    Returns
    -------
    dict of str to ndarray
        float64 (lesion,) by name: 25 of ``cm_``, 16 of ``rlm_`` and ``szm_``, 5 of ``ngt_``, 17 of ``ngl_``. NaN where
        there is none: no two neighbours, or a quotient by 0, as the correlation of one level.
    """
    pairs = _neighbours(bulk)
    alike = levels[pairs.first] == levels[pairs.second]
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            **_co_occurrence(bulk, levels, pairs),
            **_runs(bulk, levels, pairs, alike),
            **_zones(bulk, levels, pairs, alike),
            **_tone_differences(bulk, levels, pairs),
            **_dependences(bulk, levels, pairs, alike),
        }
    return {name: np.where(np.isfinite(array), array, np.nan) for name, array in found.items()}


def _neighbours(bulk: Bulk) -> Neighbours:
    directions = PLANE if bulk.is_plane.all() else DIRECTIONS
    number = np.full(bulk.size, -1, dtype=np.int64)
    number[bulk.index] = np.arange(len(bulk.index))
    firsts, seconds = [], []
    for direction in directions:
        second = number[bulk.index + bulk.steps(direction)]
        first = np.flatnonzero(second >= 0)
        firsts.append(first)
        seconds.append(second[first])
    which = np.arange(len(directions)).repeat([len(first) for first in firsts])
    return Neighbours(np.concatenate(firsts), np.concatenate(seconds), which, len(directions))


def _co_occurrence(bulk: Bulk, levels: Ints, pairs: Neighbours) -> dict[str, Floats]:
    matrix = bulk.owner[pairs.first] * pairs.directions + pairs.direction
    a, b = levels[pairs.first], levels[pairs.second]
    owner, low, high, count = count_keys(matrix, np.minimum(a, b), np.maximum(a, b))
    most = np.maximum.reduceat(levels, bulk.starts).repeat(pairs.directions)
    found = co_occurrence(owner, low, high, count, most)
    return _averaged(found, _has_pairs(bulk, pairs))


def _runs(bulk: Bulk, levels: Ints, pairs: Neighbours, alike: NDArray[np.bool_]) -> dict[str, Floats]:
    """Follow the runs of one level along each direction."""
    voxels = len(levels)
    # one row of voxels per direction: where each goes on to, and whether it begins a run
    following = np.full(pairs.directions * voxels, -1, dtype=np.int64)
    row = pairs.direction[alike] * voxels
    following[row + pairs.first[alike]] = row + pairs.second[alike]
    begins = np.ones(pairs.directions * voxels, dtype=np.bool_)
    begins[row + pairs.second[alike]] = False
    start = np.flatnonzero(begins)
    length = np.ones(len(start), dtype=np.int64)
    going, at = np.arange(len(start)), following[start]
    while True:
        on = at >= 0
        going, at = going[on], at[on]
        if not len(going):
            break
        length[going] += 1
        at = following[at]
    direction, voxel = np.divmod(start, voxels)
    matrix = bulk.owner[voxel] * pairs.directions + direction
    owner, level, size, count = count_keys(matrix, levels[voxel], length)
    found = emphasis(owner, level, size, count, bulk.counts.repeat(pairs.directions))
    return _averaged(_named("rlm", found), _has_pairs(bulk, pairs))


def _zones(bulk: Bulk, levels: Ints, pairs: Neighbours, alike: NDArray[np.bool_]) -> dict[str, Floats]:
    """Count zones of one level."""
    root = _join(len(levels), pairs.first[alike], pairs.second[alike])
    members = np.bincount(root, minlength=len(levels))
    zone = np.flatnonzero(members)
    owner, level, size, count = count_keys(bulk.owner[zone], levels[zone], members[zone])
    return _named("szm", emphasis(owner, level, size, count, bulk.counts))


def _tone_differences(bulk: Bulk, levels: Ints, pairs: Neighbours) -> dict[str, Floats]:
    voxels = len(levels)
    around = np.bincount(pairs.first, minlength=voxels) + np.bincount(pairs.second, minlength=voxels)
    total = add_up(pairs.first, levels[pairs.second], voxels)
    total += add_up(pairs.second, levels[pairs.first], voxels)
    beside = around > 0
    difference = np.abs(levels[beside] - total[beside] / around[beside])
    return tone_difference(bulk.owner[beside], levels[beside], difference, bulk.lesions)


def _dependences(bulk: Bulk, levels: Ints, pairs: Neighbours, alike: NDArray[np.bool_]) -> dict[str, Floats]:
    """Count for each voxel itself and the neighbours of its level."""
    voxels = len(levels)
    first, second = pairs.first[alike], pairs.second[alike]
    dependence = 1 + np.bincount(first, minlength=voxels) + np.bincount(second, minlength=voxels)
    owner, level, size, count = count_keys(bulk.owner, levels, dependence)
    found = emphasis(owner, level, size, count, bulk.counts)
    share = count / bulk.counts[owner]
    return {
        **_named("ngl", found),
        "ngl_dc_energy": add_up(owner, share * share, bulk.lesions),
    }


def _named(family: str, found: dict[str, Floats]) -> dict[str, Floats]:
    return {f"{family}_{name}": array for name, array in zip(SIZES[family], found.values(), strict=True)}


def _has_pairs(bulk: Bulk, pairs: Neighbours) -> NDArray[np.bool_]:
    """(lesion, direction): two voxels of the region are neighbours."""
    matrix = bulk.owner[pairs.first] * pairs.directions + pairs.direction
    counts = np.bincount(matrix, minlength=bulk.lesions * pairs.directions)
    there: NDArray[np.bool_] = counts.reshape(bulk.lesions, pairs.directions) > 0
    return there


def _averaged(found: dict[str, Floats], there: NDArray[np.bool_]) -> dict[str, Floats]:
    """Average features of (lesion, direction) over the directions that there are."""
    directions = there.sum(axis=1)
    return {
        name: np.where(there, array.reshape(there.shape), 0).sum(axis=1) / directions for name, array in found.items()
    }


def _join(voxels: int, first: Ints, second: Ints) -> Ints:
    """Give each voxel the number of one voxel of its zone, the same for all of it."""
    root = np.arange(voxels)
    while len(first):
        a, b = root[first], root[second]
        apart = a != b
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        # of several that want to move one root the last does; the others come round again
        root[np.maximum(a, b)] = np.minimum(a, b)
        while True:
            further = root[root]
            if np.array_equal(further, root):
                break
            root = further
    return root
