"""Subject ids of Lung-PET-CT-Dx, whose letter names the diagnosis.

"Patients with Names/IDs containing the letter 'A' were diagnosed with Adenocarcinoma, 'B' with Small Cell Carcinoma,
'E' with Large Cell Carcinoma, and 'G' with Squamous Cell Carcinoma" (the collection's page at TCIA,
doi:10.7937/TCIA.2020.NNC2-0461). Boxes are labelled with the same letters. The class list that comes with the
collection's tools says D where all else says E; it is not used.
"""

from __future__ import annotations

import re

DIAGNOSES = {
    "A": "adenocarcinoma",
    "B": "small cell carcinoma",
    "E": "large cell carcinoma",
    "G": "squamous cell carcinoma",
}
"""By letter."""

SUBJECT = re.compile(r"(?:lung_dx-)?(?P<code>(?P<letter>[A-Z])\d+)", re.ASCII | re.IGNORECASE)


def subject_code(text: str) -> str:
    """Give the short form of a subject id, by which images, annotations and clinical table are joined.

    Parameters
    ----------
    text
        Such as ``Lung_Dx-A0001`` (images) or ``A0001`` (annotation folders, clinical table).

    Returns
    -------
    str
        Such as ``A0001``; text of another form is only stripped.
    """
    parts = SUBJECT.fullmatch(text.strip())
    return parts["code"].upper() if parts else text.strip()


def subject_letter(text: str) -> str | None:
    """Give the letter of a subject id.

    Parameters
    ----------
    text
        As for `subject_code`.

    Returns
    -------
    str or None
        A key of `DIAGNOSES`; None where the id has another form or letter.
    """
    parts = SUBJECT.fullmatch(text.strip())
    letter = parts["letter"].upper() if parts else ""
    return letter if letter in DIAGNOSES else None
