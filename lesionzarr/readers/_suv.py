"""What turns the activity of a PET volume into what its window is stated in."""

from __future__ import annotations

from typing import Any

from lesionzarr.errors import SettingError

BQML = "bqml"
SUV_KINDS = {"suv_bw": "body_weight", "suv_lbm": "lean_body_mass", "suv_bsa": "body_surface"}
UNITS = (*SUV_KINDS, BQML)


def suv_factor(volume_id: str, tags: dict[str, Any], unit: str = "suv_bw") -> float:
    """Give what Bq/ml are multiplied with.

    Parameters
    ----------
    volume_id
        Of the PET volume.
    tags
        Of its series, with ``SUV``.
    unit
        One of `UNITS`.

    Returns
    -------
    float
        1 for ``"bqml"``.

    Raises
    ------
    SettingError
        The source does not say what that SUV needs.
    """
    if unit == BQML:
        return 1.0
    suv = tags.get("SUV") or {}
    factor = suv.get(SUV_KINDS[unit])
    if factor is None:
        reason = suv.get("reason") or "the source does not say what it needs"
        raise SettingError(f"volume {volume_id}: no {unit}, since {reason}; its unit is 'bqml'")
    return float(factor)
