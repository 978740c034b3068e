"""Studies: which volumes belong together. Tables in, tables out."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd

DESCRIBED = ("modality", "kernel", "description", "spacing_z_mm", "spacing_y_mm", "slices", "lesions")


def describe_study(volumes: pd.DataFrame) -> pd.DataFrame:
    """Give what tells the series of a study apart.

    Parameters
    ----------
    volumes
        Rows of ``catalog.volumes``.

    Returns
    -------
    pandas.DataFrame
        Indexed by volume_id; ``contrast`` is the agent given, ``suv_factor`` what turns Bq/ml into SUV by body weight,
        each null where the source does not say.
    """
    tags = [json.loads(cell) for cell in volumes["tags"]]
    table = volumes[list(DESCRIBED)].copy()
    table["contrast"] = [each.get("ContrastBolusAgent") for each in tags]
    table["suv_factor"] = [(each.get("SUV") or {}).get("body_weight") for each in tags]
    return table


def pair_volumes(volumes: pd.DataFrame) -> pd.DataFrame:
    """Find CT and PET volumes that share a frame of reference and lie over each other.

    Parameters
    ----------
    volumes
        As ``catalog.volumes``.

    Returns
    -------
    pandas.DataFrame
        ``ct`` and ``pet``, ids of volumes, and ``overlap_mm``, the length along the patient's axis that both cover;
        for each CT the PET with the longest overlap first.
    """
    placed = volumes[volumes["frame_uid"].notna() & volumes["affine"].notna()]
    pairs: list[dict[str, Any]] = []
    for _, group in placed.groupby(["study_id", "frame_uid"]):
        reach = {str(volume_id): _reach_mm(row) for volume_id, row in group.iterrows()}
        for ct in group.index[group["modality"] == "CT"]:
            for pet in group.index[group["modality"] == "PT"]:
                overlap = min(reach[ct][1], reach[pet][1]) - max(reach[ct][0], reach[pet][0])
                if overlap > 0:
                    pairs.append({"ct": ct, "pet": pet, "overlap_mm": overlap})
    table = pd.DataFrame(pairs, columns=["ct", "pet", "overlap_mm"])
    return table.sort_values(["ct", "overlap_mm", "pet"], ascending=[True, False, True], ignore_index=True)


def _reach_mm(row: pd.Series[Any]) -> tuple[float, float]:
    """Give how far a volume reaches along the patient's axis, LPS z, between the centres of its outermost voxels."""
    matrix = np.asarray(row["affine"], dtype=np.float64).reshape(3, 4)
    last = np.array([row["slices"], row["rows"], row["columns"]]) - 1
    corners = np.array(np.meshgrid(*[(0, end) for end in last])).reshape(3, -1)
    along = matrix[2, :3] @ corners + matrix[2, 3]
    return float(along.min()), float(along.max())
