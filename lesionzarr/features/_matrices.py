"""Features of texture matrices, of many at once; a matrix is a list of its cells that are not 0.

Formulas are those of the reference manual of the Image Biomarker Standardisation Initiative, arXiv:1612.07003, sections
3.6 to 3.11, and so are the names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.features._bulk import add_up
from lesionzarr.features.discretise import count_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.features._bulk import Floats, Ints

GREY = ("glnu", "glnu_norm")
SIZES = {
    "rlm": (
        *("sre", "lre", "lgre", "hgre", "srlge", "srhge", "lrlge", "lrhge", *GREY),
        *("rlnu", "rlnu_norm", "r_perc", "gl_var", "rl_var", "rl_entr"),
    ),
    "szm": (
        *("sze", "lze", "lgze", "hgze", "szlge", "szhge", "lzlge", "lzhge", *GREY),
        *("zsnu", "zsnu_norm", "z_perc", "gl_var", "zs_var", "zs_entr"),
    ),
    "ngl": (
        *("lde", "hde", "lgce", "hgce", "ldlge", "ldhge", "hdlge", "hdhge", *GREY),
        *("dcnu", "dcnu_norm", "dc_perc", "gl_var", "dc_var", "dc_entr"),
    ),
}
"""What the features of `emphasis` are called, by family."""


def co_occurrence(owner: Ints, low: Ints, high: Ints, count: Ints, levels: Ints) -> dict[str, Floats]:
    """Describe symmetrical co-occurrence matrices.

    Parameters
    ----------
    owner
        (cell,): the matrix, ascending.
    low, high
        (cell,): the lower and the higher of two levels; a cell off the diagonal stands for both of its places.
    count
        (cell,): pairs of these levels.
    levels
        (matrix,): how many there are.

    Returns
    -------
    dict of str to ndarray
        float64 (matrix,) by name.
    """
    matrices = len(levels)

    def add(values: NDArray[Any]) -> Floats:
        return add_up(owner, values, matrices)

    share = count / add(count)[owner]
    cell = np.where(low == high, share, share / 2)
    joint_max = np.zeros(matrices)
    np.maximum.at(joint_max, owner, cell)
    mean = add(share * (low + high)) / 2
    var = add(share * ((low - mean[owner]) ** 2 + (high - mean[owner]) ** 2)) / 2
    joint_entr = -add(share * np.log2(cell))
    apart, both = _spread(owner, high - low, share, matrices), _spread(owner, low + high, share, matrices)
    ends = np.concatenate([owner, owner]), np.concatenate([low, high]), np.concatenate([share, share]) / 2
    one_entr = _spread(*ends, matrices)[2]
    gap, side = high - low, levels[owner]
    around = low + high - 2 * mean[owner]
    product = add(share * low * high)
    found = {
        "joint_max": joint_max,
        "joint_avg": mean,
        "joint_var": var,
        "joint_entr": joint_entr,
        "diff_avg": apart[0],
        "diff_var": apart[1],
        "diff_entr": apart[2],
        "sum_avg": both[0],
        "sum_var": both[1],
        "sum_entr": both[2],
        "energy": add(share * cell),
        "contrast": add(share * gap**2),
        "dissimilarity": apart[0],
        "inv_diff": add(share / (1 + gap)),
        "inv_diff_norm": add(share / (1 + gap / side)),
        "inv_diff_mom": add(share / (1 + gap**2)),
        "inv_diff_mom_norm": add(share / (1 + (gap / side) ** 2)),
        "inv_var": add(np.where(gap > 0, share / np.maximum(gap, 1) ** 2, 0)),
        "corr": (product - mean**2) / var,
        "auto_corr": product,
        "clust_tend": add(share * around**2),
        "clust_shade": add(share * around**3),
        "clust_prom": add(share * around**4),
        # of a symmetrical matrix HXY1 and HXY2 are both the entropies of its rows and columns together
        "info_corr1": (joint_entr - 2 * one_entr) / one_entr,
        "info_corr2": np.sqrt(np.maximum(1 - np.exp(-2 * (2 * one_entr - joint_entr)), 0)),
    }
    return {f"cm_{name}": array for name, array in found.items()}


def _spread(owner: Ints, value: Ints, share: Floats, matrices: int) -> tuple[Floats, Floats, Floats]:
    """Give mean, variance and entropy of what cells have in common, such as the sum of their levels."""
    side = int(value.max(initial=0)) + 1
    table = add_up(owner * side + value, share, matrices * side).reshape(matrices, side)
    numbers = np.arange(side, dtype=np.float64)
    mean: Floats = table @ numbers
    var: Floats = (table * (numbers - mean[:, None]) ** 2).sum(axis=1)
    entropy: Floats = -(table * np.log2(np.where(table > 0, table, 1))).sum(axis=1)
    return mean, var, entropy


def emphasis(owner: Ints, level: Ints, size: Ints, count: Ints, voxels: Ints) -> dict[str, Floats]:
    """Describe matrices of levels and sizes: of runs, zones or dependences.

    Parameters
    ----------
    owner
        (cell,): the matrix.
    level, size
        (cell,): from 1 on.
    count
        (cell,): how many runs, zones or dependences of these.
    voxels
        (matrix,): voxels of the region.

    Returns
    -------
    dict of str to ndarray
        float64 (matrix,), in the order of the names in `SIZES`.
    """
    matrices = len(voxels)
    total = add_up(owner, count, matrices)
    share = count / total[owner]

    def add(values: Floats) -> Floats:
        return add_up(owner, values, matrices)

    def uneven(values: Ints) -> Floats:
        own, cells = _marginal(owner, values, count)
        return add_up(own, cells**2, matrices)

    def var(values: Ints) -> Floats:
        mean = add(share * values)
        return add(share * (values - mean[owner]) ** 2)

    g, s = level.astype(np.float64) ** 2, size.astype(np.float64) ** 2
    by_level, by_size = uneven(level), uneven(size)
    values = (
        *(add(share / s), add(share * s), add(share / g), add(share * g)),
        *(add(share / s / g), add(share / s * g), add(share * s / g), add(share * s * g)),
        *(by_level / total, by_level / total**2, by_size / total, by_size / total**2),
        *(total / voxels, var(level), var(size), 0.0 - add(share * np.log2(share))),
    )
    return dict(zip(SIZES["rlm"], values, strict=True))


def _marginal(owner: Ints, values: Ints, count: Ints) -> tuple[Ints, Floats]:
    """Add up the cells of each matrix that have a value in common; give the matrix and the sum."""
    own, value, _ = count_keys(owner, values)
    side = int(values.max(initial=0)) + 1
    place = np.searchsorted(own * side + value, owner * side + values)
    return own, add_up(place, count, len(own))


def tone_difference(owner: Ints, level: Ints, difference: Floats, lesions: int) -> dict[str, Floats]:
    """Describe neighbourhood grey tone difference matrices.

    Parameters
    ----------
    owner
        (voxel,): the lesion, ascending; voxels that have a neighbour.
    level
        (voxel,): grey level.
    difference
        (voxel,): between its level and the mean of its neighbours', without sign.
    lesions
        How many there are.

    Returns
    -------
    dict of str to ndarray
        float64 (lesion,) by name; NaN for a lesion without such voxels.
    """
    own, levels, count = count_keys(owner, level)
    side = int(level.max(initial=0)) + 1
    place = np.searchsorted(own * side + levels, owner * side + level)
    sums = add_up(place, difference, len(own))
    ends = np.searchsorted(own, np.arange(lesions + 1))
    rows = [
        _tones(levels[a:b].astype(np.float64), count[a:b], sums[a:b])
        for a, b in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
    ]
    names = ("coarseness", "contrast", "busyness", "complexity", "strength")
    return {f"ngt_{name}": np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}


def _tones(level: Floats, count: Ints, sums: Floats) -> tuple[float, ...]:
    if not len(level):
        return (np.nan,) * 5
    voxels = count.sum()
    p = count / voxels
    gap = np.abs(level[:, None] - level)
    weighted = p * sums
    total = weighted.sum()
    levels = len(level)
    return (
        1 / total,
        (p[:, None] * p * gap**2).sum() / (levels * (levels - 1)) * sums.sum() / voxels,
        total / np.abs((level * p)[:, None] - level * p).sum(),
        (gap * (weighted[:, None] + weighted) / (p[:, None] + p)).sum() / voxels,
        ((p[:, None] + p) * gap**2).sum() / sums.sum(),
    )
