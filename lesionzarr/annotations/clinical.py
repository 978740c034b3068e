"""Clinical table of Lung-PET-CT-Dx (``statistics-clinical-20201221.xlsx``), or the same columns as CSV.

The header of the M-Stage column begins with a full-width letter (U+FF2D); headers are compared after Unicode NFKC,
without blanks and without regard to case. Age and weight have empty cells.
"""

from __future__ import annotations

import json
import math
import unicodedata
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

from lesionzarr.annotations.subjects import DIAGNOSES, subject_code, subject_letter
from lesionzarr.errors import SourceError
from lesionzarr.formats.table import read_csv
from lesionzarr.formats.xlsx import read_xlsx
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lesionzarr.lesion import Lesion
    from lesionzarr.source import SourcePath

PATIENT = "NewPatientID"
COLUMNS = (
    *(PATIENT, "Sex", "Age", "weight (kg)", "T-Stage", "N-Stage", "M-Stage"),
    *("Histopathological grading", "Smoking History"),
)
"""Columns that have to be there; ``No.`` and others may be."""
EMPTY = {"", "nan", "none", "null", "na", "n/a", "#n/a", "-"}
SEXES = {"f": "F", "female": "F", "m": "M", "male": "M"}


@dataclass(frozen=True)
class Patient:
    """One row of the table; None where its cell is empty or means nothing."""

    subject: str
    """Short id, such as ``A0001``."""
    sex: str | None
    """``F`` or ``M``."""
    age: float | None
    """In years."""
    weight_kg: float | None
    t_stage: str | None
    """Of the TNM system, as written, such as ``2a``; N and M likewise."""
    n_stage: str | None
    m_stage: str | None
    grading: str | None
    smoking: str | None

    @property
    def diagnosis(self) -> str | None:
        """What the subject's letter stands for."""
        letter = subject_letter(self.subject)
        return DIAGNOSES[letter] if letter else None


@dataclass(frozen=True)
class Clinical:
    """The whole table."""

    patients: dict[str, Patient]
    """By short subject id, in the order of the table."""
    issues: tuple[Issue, ...]
    """Rows that were left out and cells that were emptied, with the reason."""

    def patient(self, patient_id: str) -> Patient | None:
        """Find a patient by either form of the id, ``Lung_Dx-A0001`` or ``A0001``."""
        return self.patients.get(subject_code(patient_id))


def read_clinical(path: SourcePath) -> Clinical:
    """Read the clinical table.

    Parameters
    ----------
    path
        ``.csv`` is read as CSV, anything else as XLSX (its first worksheet that holds anything).

    Returns
    -------
    Clinical
        Blank rows are passed over. Of two rows of one patient the first is kept.

    Raises
    ------
    MissingExtraError
        openpyxl is not installed, and the file is no CSV.
    SourceError
        The file cannot be read as a table, or lacks a column.
    """
    rows = read_csv(path) if path.suffix.lower() == ".csv" else read_xlsx(path)
    if not rows:
        raise SourceError(f"{path.name}: a table without rows; give the clinical table as released")
    known = {_fold(column): column for column in COLUMNS}
    patients: dict[str, Patient] = {}
    issues: list[Issue] = []
    _check_columns(path.name, {known.get(_fold(header)) for row in rows for header in row})
    for number, row in enumerate(rows):
        cells = {known[_fold(header)]: text for header, text in row.items() if _fold(header) in known}
        subject = subject_code(cells.get(PATIENT, ""))
        odd: list[str] = []
        if not subject:
            issues.append(
                Issue("no-patient", f"row {number}", path.name, f"row {number}: no {PATIENT}; it is left out")
            )
            continue
        patient = _patient(subject, cells, odd)
        if subject in patients:
            same = "repeats" if patients[subject] == patient else "contradicts"
            text = f"row {number} ({subject}) {same} an earlier one; it is left out"
            issues.append(Issue("duplicate-patient", subject, path.name, text))
            continue
        patients[subject] = patient
        issues += [Issue("odd-cell", subject, path.name, f"row {number} ({subject}): {text}") for text in odd]
    return Clinical(patients, tuple(issues))


def join_clinical(lesions: Iterable[Lesion], clinical: Clinical) -> list[Lesion]:
    """Give each lesion what the table says of its patient.

    Parameters
    ----------
    lesions
        Of any patients.
    clinical
        The table.

    Returns
    -------
    list of Lesion
        With ``sex`` and ``age``, and the other cells that are not empty as ``clinical`` in ``extra``. A lesion whose
        patient is not in the table is returned as it is.
    """
    return [_joined(lesion, clinical.patient(lesion.patient_id or "")) for lesion in lesions]


def _joined(lesion: Lesion, patient: Patient | None) -> Lesion:
    if patient is None:
        return lesion
    further = asdict(patient) | {"diagnosis": patient.diagnosis}
    cells = {name: value for name, value in further.items() if value is not None and name not in {"sex", "age"}}
    return replace(lesion, sex=patient.sex, age=patient.age, extra=json.dumps(lesion.extras | {"clinical": cells}))


def _check_columns(name: str, found: set[str | None]) -> None:
    absent = [column for column in COLUMNS if column not in found]
    if absent:
        raise SourceError(f"{name}: column {', '.join(absent)} is absent; give the clinical table as released")


def _fold(header: str) -> str:
    return "".join(unicodedata.normalize("NFKC", header).casefold().split())


def _patient(subject: str, cells: dict[str, str], odd: list[str]) -> Patient:
    texts = {column: _given(cells.get(column, "")) for column in COLUMNS}
    sex = SEXES.get((texts["Sex"] or "").casefold())
    if texts["Sex"] is not None and sex is None:
        odd.append(f"Sex {texts['Sex']!r} is neither F nor M and left empty")
    return Patient(
        subject=subject,
        sex=sex,
        age=_number("Age", texts["Age"], odd, zero=True),
        weight_kg=_number("weight (kg)", texts["weight (kg)"], odd, zero=False),
        t_stage=texts["T-Stage"],
        n_stage=texts["N-Stage"],
        m_stage=texts["M-Stage"],
        grading=texts["Histopathological grading"],
        smoking=texts["Smoking History"],
    )


def _given(text: str) -> str | None:
    # blanks inside a cell are line breaks and full-width blanks as often as not
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    return None if text.casefold() in EMPTY else text


def _number(column: str, text: str | None, odd: list[str], *, zero: bool) -> float | None:
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and (value > 0 or (zero and value == 0)):
        return value
    odd.append(f"{column} {text!r} is no positive number and left empty")
    return None
