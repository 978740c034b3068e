"""A small made-up dataset in the layout of Lung-PET-CT-Dx as the NBIA Data Retriever leaves it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._nbia_dicom import ct_slice, pet_slice
from lesionzarr.samples._nbia_draft import Draft
from lesionzarr.samples._nbia_pixels import draw_body, draw_boxes, emit, reconstruct
from lesionzarr.samples._nbia_plan import plan
from lesionzarr.samples._nbia_quirks import choose
from lesionzarr.samples._nbia_tables import write_clinical, write_metadata

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from lesionzarr.samples._nbia_plan import Subject

_LUNG_SERIES: Final = 2
_PET_SERIES: Final = 5

_LICENCE: Final = "These images and tables are made up: they show no patient and may be used for anything.\n"
# The first bytes of any such file; it is here because the real collection has one among its folders.
_DS_STORE: Final = b"\x00\x00\x00\x01Bud1" + bytes(56)


def lung_pet_ct_dx(
    folder: str | PathLike[str],
    *,
    seed: int = 0,
    subjects: int = 4,
    image_size: int = 128,
    slices: int = 12,
    quirks: Iterable[str] = (),
) -> Path:
    """Write a made-up dataset in the layout of Lung-PET-CT-Dx.

    ``folder/manifest-<ms>/metadata.csv`` lists the series of ``folder/manifest-<ms>/Lung-PET-CT-Dx/<subject>/<study>/
    <series>/<acquisition>-<instance>.dcm``; ``folder/Annotation/<subject>/<SOPInstanceUID>.xml`` are PASCAL VOC files
    of one slice each, with boxes in whole pixels counted from 0; ``folder/statistics-clinical-20201221.xlsx`` is the
    clinical sheet. The same arguments give the same bytes with the same version of openpyxl.

    Each subject has one tumour and one study. Series 2 and 3 are a lung and a soft kernel of one CT, both with boxes of
    their own; every second subject, from the second on, has a PET as series 5, on a grid of its own in the frame of
    reference of the CT, in which the tumour shines. CT voxels are HU + 1024 in 12 bits; PET voxels are Bq/ml divided by
    a slope of the slice. Instance 1 is the topmost slice.

    Each quirk acts on a series or annotation that no other one hits, never on one of the first subject. Files that it
    does not need to touch keep their bytes.

    Parameters
    ----------
    folder
        Where to write; made if needed.
    seed
        Seed of everything random, at least 0.
    subjects
        Number of subjects: classes A, B, E and G take turns.
    image_size
        Rows and columns of a CT slice, at least 32; a PET has half as many. The spacing follows, so that the body
        always fits.
    slices
        Slices of a CT series, at least 5, 5 mm apart.
    quirks
        Names from `LUNG_QUIRKS`.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If a quirk is unknown or finds nothing to act on, or a number is too small.
    FileExistsError
        If there is a dataset in the folder already.
    ImportError
        If pydicom or openpyxl is absent.
    """
    chosen = choose(quirks)
    if subjects < 1 or image_size < 32 or slices < 5:
        raise ValueError(
            f"subjects={subjects}, image_size={image_size}, slices={slices}: a dataset needs at least 1, 32 and 5"
        )
    _require("pydicom", "openpyxl")
    draft = Draft(_make_folder(Path(folder)), seed, plan(seed, subjects, image_size, slices))
    for subject in draft.subjects:
        _write_study(draft, subject)
    (draft.images / "LICENSE").write_text(_LICENCE, encoding="utf-8")
    (draft.images / ".DS_Store").write_bytes(_DS_STORE)
    write_clinical(draft.clinical, draft.subjects)
    for quirk in chosen:
        quirk.act(draft)
    write_metadata(draft.manifest / "metadata.csv", draft.rows)
    return draft.folder


def _require(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise ImportError(f"a made-up Lung-PET-CT-Dx needs {package}: pip install 'lesionzarr[dicom]'")


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("manifest-*", "Annotation", "statistics-clinical-*.xlsx"):
        for path in folder.glob(name):
            raise FileExistsError(f"{path} exists: choose an empty folder for the made-up dataset")
    return folder


def _write_study(draft: Draft, subject: Subject) -> None:
    seed = draft.seed
    rng = np.random.default_rng((seed, 1 + subject.number))
    body = draw_body(subject, rng)
    for kernel, voxels in enumerate(reconstruct(subject, body)):
        number = _LUNG_SERIES + kernel
        objects = [ct_slice(seed, subject, number, kernel, row, pixels) for row, pixels in enumerate(voxels)]
        series = draft.add_series(subject, objects)
        for row, box in draw_boxes(subject, kernel, rng).items():
            draft.add_mark(series, row, box)
    if subject.pet is not None:
        activity = emit(subject, subject.pet, body, rng)
        draft.add_series(
            subject,
            [pet_slice(seed, subject, subject.pet, _PET_SERIES, row, pixels) for row, pixels in enumerate(activity)],
        )
