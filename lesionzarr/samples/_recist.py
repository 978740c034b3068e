"""A small made-up dataset in the layouts of recist-dataset."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from lesionzarr.samples._recist_draft import Draft, Series
from lesionzarr.samples._recist_plan import plan
from lesionzarr.samples._recist_quirks import choose

if TYPE_CHECKING:
    from collections.abc import Iterable
    from os import PathLike

    from lesionzarr.samples._recist_draft import Layout
    from lesionzarr.samples._recist_plan import Ellipsoid

LAYOUTS = ("final-formatted", "final", "raw")


def recist_dataset(
    folder: str | PathLike[str],
    *,
    seed: int = 0,
    patients: int = 3,
    image_size: int = 96,
    slices: int = 24,
    layout: Layout = "final-formatted",
    quirks: Iterable[str] = (),
) -> Path:
    """Write a made-up dataset in a layout of recist-dataset.

    Every lesion is an ellipsoid whose axes and volume `recist_truth` tells. Images are int16 HU, 3 mm between slices;
    NIfTI is stored as dcm2niix does (LAS). ``final-formatted`` has ``images/<region>/<train or test>/{images, masks,
    labels}/<patient>_<uid>``, ``final`` the same without region and patient. ``raw`` has DICOM series in
    ``images/dicom``, and in ``images/nifti/<train or test>`` masks of categories with Spanish labels. All have
    ``metadata`` and ``recist_measurements.csv``. The same arguments give the same bytes.

    Each quirk acts on a series that no other one hits, never on one of the first patient.

    Parameters
    ----------
    folder
        Where to write; made if needed.
    seed
        Seed of everything random, at least 0.
    patients
        Number of patients. Each has two studies, every third three; odd ones have two series in each study, even ones
        one.
    image_size
        Rows and columns, at least 64; the field of view is 360 mm.
    slices
        Slices of a series, at least 20.
    layout
        ``"final-formatted"``, ``"final"`` or ``"raw"``.
    quirks
        Names from `RECIST_QUIRKS`; those of images need a layout with NIfTI images.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    ValueError
        If a quirk or layout is unknown, a quirk finds nothing to act on, or a number is too small.
    FileExistsError
        If there is a dataset in the folder already.
    ImportError
        If the layout is ``raw`` and pydicom is absent.
    """
    chosen = choose(quirks)
    if patients < 1 or image_size < 64 or slices < 20:
        raise ValueError(
            f"patients={patients}, image_size={image_size}, slices={slices}: at least 1, 64, 20 are needed"
        )
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}: choose from {', '.join(LAYOUTS)}")
    if layout == "raw" and find_spec("pydicom") is None:
        raise ImportError("a made-up raw recist-dataset needs pydicom: pip install 'lesionzarr[dicom]'")
    planned = plan(seed, patients, image_size, slices, prefixed=layout == "final-formatted")
    draft = Draft(_make_folder(Path(folder)), seed, layout, planned)
    draft.series = [Series(scan) for patient in planned for scan in patient.scans]
    draft.plan_tables()
    for quirk in chosen:
        if not quirk.late:
            quirk.act(draft)
    draft.write()
    draft.write_tables()
    for quirk in chosen:
        if quirk.late:
            quirk.act(draft)
    return draft.folder


def recist_truth(
    *, seed: int = 0, patients: int = 3, image_size: int = 96, slices: int = 24, layout: Layout = "final-formatted"
) -> list[Ellipsoid]:
    """Tell the lesions of `recist_dataset` for the same arguments, without quirks.

    Returns
    -------
    list of Ellipsoid
        Series by series, by value of the mask; positions in the array (z, y, x) that a converter makes.
    """
    planned = plan(seed, patients, image_size, slices, prefixed=layout == "final-formatted")
    return [one for patient in planned for scan in patient.scans for one in scan.lesions]


def _make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("images", "metadata", "recist_measurements.csv"):
        if (folder / name).exists():
            raise FileExistsError(f"{folder / name} exists: choose an empty folder for the made-up dataset")
    return folder
