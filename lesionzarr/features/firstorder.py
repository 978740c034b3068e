"""First-order features: how the densities of a lesion are distributed, wherever they lie.

Definitions and names (``stat_mean``, ``ih_entropy``) are those of the Image Biomarker Standardisation Initiative
(Zwanenburg et al., Image biomarker standardisation initiative, reference manual, arXiv:1612.07003: section 3.3,
intensity-based statistics, and for ``ih_`` section 3.4, intensity histogram). Variances are divided by the number of
voxels, kurtosis is 0 for a normal distribution, percentiles are interpolated linearly.

``stat_cov`` divides by the mean and ``stat_qcod`` by the sum of two quartiles, as IBSI defines them. HU have both
signs, so of a lesion near 0 HU (water, fluid) these may be near zero, and the values huge, of either sign, and of no
use: take ``stat_var`` and ``stat_iqr`` there.

What pyradiomics calls them; it does not take 3 away from its kurtosis, which is 3 for a normal distribution:

======================================  =============
pyradiomics                             here
======================================  =============
firstorder_10Percentile                 stat_p10
firstorder_90Percentile                 stat_p90
firstorder_Energy                       stat_energy
firstorder_Entropy                      ih_entropy
firstorder_InterquartileRange           stat_iqr
firstorder_Kurtosis                     stat_kurt + 3
firstorder_Maximum                      stat_max
firstorder_MeanAbsoluteDeviation        stat_mad
firstorder_Mean                         stat_mean
firstorder_Median                       stat_median
firstorder_Minimum                      stat_min
firstorder_Range                        stat_range
firstorder_RobustMeanAbsoluteDeviation  stat_rmad
firstorder_RootMeanSquared              stat_rms
firstorder_Skewness                     stat_skew
firstorder_TotalEnergy                  -
firstorder_Uniformity                   ih_uniformity
firstorder_Variance                     stat_var
======================================  =============

``TotalEnergy`` is the energy times the volume of a voxel. IBSI does not have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.features._bulk import add_up
from lesionzarr.features.discretise import count_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.features._bulk import Bulk, Floats, Ints

FIRST_ORDER = (
    *("stat_mean", "stat_var", "stat_skew", "stat_kurt", "stat_median", "stat_min", "stat_p10", "stat_p90", "stat_max"),
    *("stat_iqr", "stat_range", "stat_mad", "stat_rmad", "stat_medad", "stat_cov", "stat_qcod", "stat_energy"),
    *("stat_rms", "ih_entropy", "ih_uniformity"),
)
"""Names of the features."""


def first_order(bulk: Bulk, levels: Ints) -> dict[str, Floats]:
    """Describe the densities of regions.

    Parameters
    ----------
    bulk
        The regions.
    levels
        (voxel,): grey levels, for entropy and uniformity.

    Returns
    -------
    dict of str to ndarray
        float64 (lesion,) by name, as `FIRST_ORDER`. NaN where there is none: skewness and kurtosis of voxels that are
        all alike, quotients by 0.
    """
    values = bulk.values
    mean = bulk.mean(values)
    centred = values - mean[bulk.owner]
    squares = centred * centred
    var = bulk.mean(squares)
    ranked = np.concatenate([np.sort(own) for own in np.split(values, bulk.starts[1:])])
    low, p10, p25, median, p75, p90, high = (_percentile(ranked, bulk, q) for q in (0, 10, 25, 50, 75, 90, 100))
    energy = bulk.sum(values * values)
    with np.errstate(divide="ignore", invalid="ignore"):
        found = {
            "stat_mean": mean,
            "stat_var": var,
            "stat_skew": bulk.mean(squares * centred) / var**1.5,
            "stat_kurt": bulk.mean(squares * squares) / var**2 - 3,
            "stat_median": median,
            "stat_min": low,
            "stat_p10": p10,
            "stat_p90": p90,
            "stat_max": high,
            "stat_iqr": p75 - p25,
            "stat_range": high - low,
            "stat_mad": bulk.mean(np.abs(centred)),
            "stat_rmad": _robust_deviation(bulk, p10, p90),
            "stat_medad": bulk.mean(np.abs(values - median[bulk.owner])),
            "stat_cov": np.sqrt(var) / mean,
            "stat_qcod": (p75 - p25) / (p75 + p25),
            "stat_energy": energy,
            "stat_rms": np.sqrt(energy / bulk.counts),
            **_histogram(bulk, levels),
        }
    return {name: np.where(np.isfinite(array), array, np.nan) for name, array in found.items()}


def _percentile(ranked: Floats, bulk: Bulk, percent: float) -> Floats:
    """Interpolate between the two nearest ranks."""
    rank = (bulk.counts - 1) * (percent / 100)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, bulk.counts - 1)
    share = rank - below
    low, high = ranked[bulk.starts + below], ranked[bulk.starts + above]
    between: Floats = low + (high - low) * share
    return between


def _robust_deviation(bulk: Bulk, p10: Floats, p90: Floats) -> Floats:
    """Give the mean absolute deviation of the voxels from the 10th to the 90th percentile."""
    inside: NDArray[Any] = (bulk.values >= p10[bulk.owner]) & (bulk.values <= p90[bulk.owner])
    count = bulk.sum(inside)
    mean = bulk.sum(bulk.values * inside) / count
    deviation: Floats = bulk.sum(np.abs(bulk.values - mean[bulk.owner]) * inside) / count
    return deviation


def _histogram(bulk: Bulk, levels: Ints) -> dict[str, Floats]:
    owner, _, count = count_keys(bulk.owner, levels)
    share = count / bulk.counts[owner]
    return {
        "ih_entropy": 0.0 - add_up(owner, share * np.log2(share), bulk.lesions),
        "ih_uniformity": add_up(owner, share * share, bulk.lesions),
    }
