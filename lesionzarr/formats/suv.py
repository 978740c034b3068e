"""Standardised uptake values: what turns PET voxels into SUV, from the attributes of a series.

The rules follow the vendor-neutral pseudo-code of the QIBA FDG-PET/CT profile (SUV technical page) as cornerstonejs'
calculate-suv implements them, except that here Decay Correction has to be there and is obeyed. Lean body mass is
Janmahasatian's (Clin. Pharmacokinet. 44, 1051, 2005; LBMJANMA of DICOM's SUV Type), which IBSI recommends and which,
unlike James', does not fall again in the obese; body surface is Du Bois' (Arch. Intern. Med. 17, 863, 1916).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_HALF_LIVES = 20
"""Longer from injection to scan means wrong times: less than a millionth of the dose would be left."""
ACTIVITY = "PhilipsActivityConcentrationScaleFactor"
TIME = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(\.\d{1,6})?")
ZONE = re.compile(r"[+-]\d{4}$")


@dataclass(frozen=True)
class Suv:
    """Factors by which the voxels of a series, in its own Units, become SUV; None where one cannot be had."""

    body_weight: float | None
    """g/ml, with voxels in Bq/ml."""
    lean_body_mass: float | None
    """g/ml, Janmahasatian."""
    body_surface: float | None
    """cm2/ml, Du Bois."""
    reason: str = ""
    """Why there is no factor for body weight; empty where there is."""
    other_reason: str = ""
    """Why there are none for lean body mass or body surface; empty where there are."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """What the factors were made of: attributes with their values, rule, decay time and decayed dose."""


class _RefusedError(Exception):
    """No SUV, and why."""


def suv_factors(tags: Mapping[str, Any]) -> Suv:
    """Find the SUV factors of a PET series.

    Parameters
    ----------
    tags
        Attributes of the series by DICOM keyword, as in ``Stack.tags``: Units, CorrectedImage, DecayCorrection,
        SeriesDate, SeriesTime, AcquisitionDate and AcquisitionTime (of the first slice acquired),
        RadionuclideTotalDose (Bq), RadionuclideHalfLife (s), RadiopharmaceuticalStartDateTime or
        RadiopharmaceuticalStartTime, PatientWeight (kg), PatientSize (m), PatientSex, SUVType; of private elements
        GEPrivatePostInjectionDateTime (0009,xx0D), PhilipsSUVScaleFactor (7053,xx00) and
        PhilipsActivityConcentrationScaleFactor (7053,xx09). Several values are a list, or text parted by backslashes.

    Returns
    -------
    Suv
        Without factors, and with the reason, where one of these is needed and is missing, zero or impossible.

    Notes
    -----
    - Units BQML: ``1000 * weight / decayed dose``. DecayCorrection START: the dose decayed from injection to the start
      of the scan; ADMIN: the dose as injected; others are refused.
    - Start of the scan: the series' time if it is not after the first acquisition; else (a series made later) GE's
      private time, else the first acquisition.
    - Injection: its date and time; where there is a time alone, the last such time before the scan.
    - Units CNTS: Philips' SUV factor; else Philips' activity factor times the factor of Bq/ml.
    - Units GML: 1, for SUVType BW or none.
    """
    used: dict[str, Any] = {}
    try:
        body_weight = _body_weight_factor(tags, used)
    except _RefusedError as refused:
        return Suv(None, None, None, str(refused), provenance=used)
    try:
        weight = _positive(tags, "PatientWeight", "kg", used)
        height = _positive(tags, "PatientSize", "m", used)
        surface = body_weight * _body_surface_cm2(weight, height) / (1000 * weight)
    except _RefusedError as refused:
        return Suv(body_weight, None, None, other_reason=str(refused), provenance=used)
    sex = str(tags.get("PatientSex") or "").strip().upper()
    if sex not in {"M", "F"}:
        text = f"PatientSex is {sex or 'missing'}: lean body mass is known for M and F"
        return Suv(body_weight, None, surface, other_reason=text, provenance=used)
    used |= {"PatientSex": sex, "lean_body_mass": "Janmahasatian 2005", "body_surface": "Du Bois 1916"}
    lean = body_weight * _lean_body_mass_kg(weight, height, sex) / weight
    return Suv(body_weight, lean, surface, provenance=used)


def _body_weight_factor(tags: Mapping[str, Any], used: dict[str, Any]) -> float:
    corrected = _values(tags, "CorrectedImage")
    for word, meaning in (("ATTN", "attenuation"), ("DECY", "decay")):
        if word not in corrected:
            raise _RefusedError(f"CorrectedImage does not hold {word}: not corrected for {meaning}")
    units = str(tags.get("Units") or "").strip().upper()
    used["Units"] = units
    if units == "BQML":
        return _bqml_factor(tags, used)
    if units == "CNTS":
        return _philips_factor(tags, used)
    if units == "GML":
        kind = str(tags.get("SUVType") or "BW").strip().upper()
        if kind != "BW":
            raise _RefusedError(f"Units are GML with SUVType {kind}: voxels are no SUV by body weight")
        used["rule"] = "voxels are SUV by body weight"
        return 1.0
    raise _RefusedError(f"Units are {units or 'missing'}: BQML, CNTS of Philips or GML are needed")


def _philips_factor(tags: Mapping[str, Any], used: dict[str, Any]) -> float:
    factors = {name: _number(tags.get(name)) for name in ("PhilipsSUVScaleFactor", ACTIVITY)}
    for name, factor in factors.items():
        if factor is not None and factor > 0:
            used |= {name: factor, "rule": "private factor of Philips"}
            return factor if name != ACTIVITY else factor * _bqml_factor(tags, used)
    raise _RefusedError("Units are CNTS without Philips' private factors (7053,xx00) and (7053,xx09)")


def _bqml_factor(tags: Mapping[str, Any], used: dict[str, Any]) -> float:
    weight = _positive(tags, "PatientWeight", "kg", used)
    dose = _positive(tags, "RadionuclideTotalDose", "Bq", used)
    correction = str(tags.get("DecayCorrection") or "").strip().upper()
    used["DecayCorrection"] = correction
    if correction == "ADMIN":
        used |= {"rule": used.get("rule", "dose as administered"), "decayed_dose_bq": dose}
        return 1000 * weight / dose
    if correction != "START":
        raise _RefusedError(f"DecayCorrection is {correction or 'missing'}: START or ADMIN is needed")
    half_life = _positive(tags, "RadionuclideHalfLife", "s", used)
    scan = _scan_time(tags, used)
    decay_s = (scan - _injection_time(tags, scan, used)).total_seconds()
    if not 0 <= decay_s <= MOST_HALF_LIVES * half_life:
        raise _RefusedError(f"injection {decay_s:g} s before the scan, half-life {half_life:g} s: the times are wrong")
    decayed: float = dose * 2.0 ** (-decay_s / half_life)
    used |= {"rule": used.get("rule", "dose decayed to the scan"), "decay_s": decay_s, "decayed_dose_bq": decayed}
    return 1000 * weight / decayed


def _scan_time(tags: Mapping[str, Any], used: dict[str, Any]) -> datetime:
    series = _join(tags, "SeriesDate", "SeriesTime")
    acquired = _join(tags, "AcquisitionDate", "AcquisitionTime")
    private = _datetime(tags.get("GEPrivatePostInjectionDateTime"))
    if acquired is None:
        raise _RefusedError("AcquisitionDate or AcquisitionTime is missing: the start of the scan is not known")
    if series is None:
        raise _RefusedError("SeriesDate or SeriesTime is missing: the start of the scan is not known")
    if series <= acquired:
        found, source = series, "SeriesDate, SeriesTime"
    elif private is not None:
        found, source = private, "GEPrivatePostInjectionDateTime"
    else:
        found, source = acquired, "AcquisitionDate, AcquisitionTime"
    used |= {"scan_time": found.isoformat(), "scan_time_from": source}
    return found


def _injection_time(tags: Mapping[str, Any], scan: datetime, used: dict[str, Any]) -> datetime:
    found, source = _datetime(tags.get("RadiopharmaceuticalStartDateTime")), "RadiopharmaceuticalStartDateTime"
    if found is None:
        source = "RadiopharmaceuticalStartTime"
        clock = _clock(tags.get(source))
        if clock is None:
            raise _RefusedError("RadiopharmaceuticalStartTime is missing: the time of injection is not known")
        found = scan.replace(hour=0, minute=0, second=0, microsecond=0) + clock
        if found > scan:
            # injected before midnight, scanned after it
            found -= timedelta(days=1)
    used |= {"injection_time": found.isoformat(), "injection_time_from": source}
    return found


def _lean_body_mass_kg(weight_kg: float, height_m: float, sex: str) -> float:
    base, slope = (6680, 216) if sex == "M" else (8780, 244)
    return 9270 * weight_kg / (base + slope * weight_kg / height_m**2)


def _body_surface_cm2(weight_kg: float, height_m: float) -> float:
    return float(71.84 * weight_kg**0.425 * (100 * height_m) ** 0.725)


def _positive(tags: Mapping[str, Any], keyword: str, unit: str, used: dict[str, Any]) -> float:
    number = _number(tags.get(keyword))
    if number is None or number <= 0:
        raise _RefusedError(f"{keyword} is {'missing' if number is None else f'{number:g} {unit}'}")
    used[keyword] = number
    return number


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if abs(number) < float("inf") else None


def _values(tags: Mapping[str, Any], keyword: str) -> list[str]:
    value = tags.get(keyword) or []
    parts = value.split("\\") if isinstance(value, str) else value
    return [str(part).strip().upper() for part in parts]


def _join(tags: Mapping[str, Any], date: str, time: str) -> datetime | None:
    clock = _clock(tags.get(time))
    day = _day(tags.get(date))
    return None if clock is None or day is None else day + clock


def _day(value: Any) -> datetime | None:
    try:
        # the old form with dots is in files too (PS3.5, table 6.2-1)
        return datetime.strptime(str(value or "").strip().replace(".", "")[:8], "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return None


def _clock(value: Any) -> timedelta | None:
    parts = TIME.fullmatch(str(value or "").strip())
    if parts is None:
        return None
    hours, minutes, seconds, fraction = (float(part or 0) for part in parts.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds + fraction)


def _datetime(value: Any) -> datetime | None:
    # times of one series are those of one clock: an offset from UTC is of no account to their difference
    text = ZONE.sub("", str(value or "").strip())
    clock, day = _clock(text[8:] or None), _day(text)
    return None if clock is None or day is None else day + clock
