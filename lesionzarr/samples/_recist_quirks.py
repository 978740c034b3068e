"""What can be odd or broken in a made-up recist-dataset: quirks of images, masks, labels and tables."""

from __future__ import annotations

import csv
import difflib
import shutil
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lesionzarr.samples._recist_draft import PATIENT_COLUMNS, TARGET_COLUMNS, quirk, write_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from lesionzarr.samples._recist_draft import Draft, Quirk, Series

LEAN: Final = 0.2
"""Radians by which `oblique` turns the axes about the patient's long axis."""


def _order(draft: Draft, order: str) -> None:
    series = draft.take()
    series.order = series.mask_order = order


@quirk("a series is stored right, front, head first")
def order_ras(draft: Draft) -> None:
    _order(draft, "RAS")


@quirk("a series is stored left, back, head first")
def order_lps(draft: Draft) -> None:
    _order(draft, "LPS")


@quirk("a series is stored back, left, feet first, as DL_save_nifti does")
def order_pli(draft: Draft) -> None:
    _order(draft, "PLI")


@quirk("a mask is stored in another order than its image")
def mask_other_order(draft: Draft) -> None:
    draft.take().mask_order = "RPI"


@quirk("a series is turned by 0.2 radians about the long axis of the patient")
def oblique(draft: Draft) -> None:
    series = draft.take()
    cos, sin = np.cos(LEAN), np.sin(LEAN)
    series.affine[:, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ series.affine[:, :3]


@quirk("the pixels of a series are a quarter higher than wide; series.json says so")
def anisotropic_pixels(draft: Draft) -> None:
    series = draft.take()
    series.affine[:, 1] *= 1.25
    draft.series_rows[series.scan.number]["row_spacing"] *= 1.25


@quirk("an image is stored as int32")
def int32_image(draft: Draft) -> None:
    draft.take().dtype = "int32"


@quirk("an image and its mask are stored as float32, in whole numbers")
def float_image(draft: Draft) -> None:
    series = draft.take()
    series.dtype = series.mask_dtype = "float32"


@quirk("an image is stored as four times its HU, with scl_slope 0.25")
def scaled_image(draft: Draft) -> None:
    draft.take().scale = (0.25, 0.0)


@quirk("an image is stored as uint16, with scl_inter -1024")
def shifted_image(draft: Draft) -> None:
    series = draft.take()
    series.dtype, series.scale = "uint16", (1.0, -1024.0)


@quirk("an image and its mask are not packed")
def plain_nii(draft: Draft) -> None:
    series = draft.take()
    series.ending = ".nii"
    draft.windows[f"{series.scan.stem}.nii"] = draft.windows.pop(f"{series.scan.stem}.nii.gz")


@quirk("an image has four dimensions")
def image_4d(draft: Draft) -> None:
    draft.take().copies = 2


@quirk("values of a mask are not consecutive: that of a lesion that is no target is 2 higher")
def label_gaps(draft: Draft) -> None:
    series = draft.take()
    value = next(one.label for one in series.scan.lesions if not one.target)
    series.labels[value + 2] = series.labels.pop(value)

    def renumber(_series: Series, mask: NDArray[Any]) -> NDArray[Any]:
        return np.where(mask == value, value + 2, mask)

    series.edits.append(renumber)


@quirk("the labels name a lesion that the mask does not have")
def label_only_in_json(draft: Draft) -> None:
    draft.take().labels[9] = "m,liver"


@quirk("the mask has a lesion that the labels do not name")
def label_only_in_mask(draft: Draft) -> None:
    series = draft.take()
    del series.labels[max(series.labels)]


@quirk("a label has a type that means nothing")
def label_unknown_type(draft: Draft) -> None:
    series = draft.take()
    series.labels[max(series.labels)] = "q,liver"


@quirk("a lesion has no voxel in its middle slice")
def split_in_z(draft: Draft) -> None:
    series = draft.take()
    one = series.scan.lesions[0]

    def cut(_series: Series, mask: NDArray[Any]) -> NDArray[Any]:
        cut = mask.copy()
        middle = cut[round(one.centre[0])]
        middle[middle == one.label] = 0
        return cut

    series.edits.append(cut)


@quirk("a mask lacks the topmost slice of its image")
def mask_other_shape(draft: Draft) -> None:
    draft.take().edits.append(lambda _series, mask: mask[:-1])


@quirk("a mask lies 8 mm beside its image")
def mask_other_affine(draft: Draft) -> None:
    draft.take().mask_shift = (8.0, 0.0, 0.0)


@quirk("a study date of series.json is no date")
def odd_date(draft: Draft) -> None:
    draft.series_rows[draft.take().scan.number]["study_date"] = "20231345"


@quirk("series.json states another number of slices than the image has")
def odd_size(draft: Draft) -> None:
    draft.series_rows[draft.take().scan.number]["slices"] += 1


@quirk("the window of an image has an unknown name")
def unknown_window(draft: Draft) -> None:
    draft.windows[f"{draft.take().scan.stem}.nii.gz"] = "kidney"


@quirk("a measured lesion is not in the mask of its series")
def target_without_mask(draft: Draft) -> None:
    scan = draft.take().scan
    row = next(row for row in draft.target_rows if row["uuid"] == scan.uid)
    draft.target_rows.append({**row, "lesion_label_value": 77, "lesion_label_alias": "Z"})


@quirk("a measurement is no number")
def odd_measurement(draft: Draft) -> None:
    scan = draft.take().scan
    next(row for row in draft.target_rows if row["uuid"] == scan.uid)["recist_measurement_mm"] = "n.m."


@quirk("the folders of the training set are called training")
def training_folders(draft: Draft) -> None:
    draft.subsets["train"] = "training"


@quirk("the files of a series end in _Eq, as dcm2niix names a volume whose slices it made evenly spaced")
def name_suffix(draft: Draft) -> None:
    series = draft.take()
    old, new = series.scan.stem, f"{series.scan.stem}_Eq"
    series.scan = replace(series.scan, stem=new)
    draft.windows[f"{new}.nii.gz"] = draft.windows.pop(f"{old}.nii.gz")
    for row in draft.target_rows:
        if row["uuid"] == series.scan.uid:
            row["filename"] = f"{new}.nii.gz"


@quirk("a location has blanks in it")
def location_with_blanks(draft: Draft) -> None:
    series = draft.take()
    series.labels[max(series.labels)] = "m,hepatic  hilum"


@quirk("two lesions of one series at one place have the same alias")
def alias_twice(draft: Draft) -> None:
    scan = draft.take().scan
    row = next(row for row in draft.target_rows if row["uuid"] == scan.uid)
    other = next(one for one in scan.lesions if not one.target)
    draft.target_rows.append({**row, "lesion_label_value": other.label, "recist_measurement_mm": other.measured_mm})


@quirk("two lesions of one series at two places have the same alias")
def alias_at_two_places(draft: Draft) -> None:
    first, second = _targets(draft, draft.take())
    second["lesion_label_alias"] = first["lesion_label_alias"]


@quirk("a target row has another subset, region, date and study than its series")
def targets_contradict(draft: Draft) -> None:
    row = _targets(draft, draft.take())[0]
    row["subset"] = "train" if row["subset"] == "test" else "test"
    row["region"] = "thorax" if row["region"] == "abdomen" else "abdomen"
    row["study_date"] = "20190101"
    row["study_uuid"] += ".1"


@quirk("the table of targets counts more lesions in a series than its mask has")
def objects_contradict(draft: Draft) -> None:
    for row in _targets(draft, draft.take()):
        row["final_3d_objects"] += 5


@quirk("series.json names another patient than the name of the files")
def patient_contradicts(draft: Draft) -> None:
    draft.series_rows[draft.take().scan.number]["patient_id"] = 999


@quirk("series.json states other spacings of rows and slices than the image")
def spacing_contradicts(draft: Draft) -> None:
    row = draft.series_rows[draft.take().scan.number]
    row["row_spacing"] *= 2
    row["slice_spacing"] = 7


@quirk("patients.csv has a first study after the baseline of a patient, and another subset", late=True)
def patient_row_contradicts(draft: Draft) -> None:
    scan = draft.take().scan
    path = draft.folder / "metadata" / "patients.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    row = next(row for row in rows if row["patient_id"] == str(scan.patient))
    row["subset"] = "train" if scan.subset == "test" else "test"
    row["first_study_date"] = "20300101"
    write_csv(path, PATIENT_COLUMNS, rows)


@quirk("a series is there a second time, with an a at the end of its name", late=True)
def series_twice(draft: Draft) -> None:
    series = draft.take()
    for path in series.paths.values():
        shutil.copyfile(path, path.with_name(path.name.replace(series.scan.stem, f"{series.scan.stem}a")))


@quirk("a label is there twice, with two meanings", late=True)
def label_twice(draft: Draft) -> None:
    path = draft.take().paths["labels"]
    path.write_text(path.read_text(encoding="utf-8").replace("{", '{"1": "t,lung",', 1), encoding="utf-8")


@quirk("an image ends in the middle", late=True)
def truncated_image(draft: Draft) -> None:
    _halve(draft.take(), "images")


@quirk("a mask ends in the middle", late=True)
def truncated_mask(draft: Draft) -> None:
    _halve(draft.take(), "masks")


@quirk("an image is a text", late=True)
def image_no_nifti(draft: Draft) -> None:
    draft.take().paths["images"].write_text("<html>404 Not Found</html>" * 40, encoding="utf-8")


@quirk("an image is absent", late=True)
def image_missing(draft: Draft) -> None:
    draft.take().paths["images"].unlink()


@quirk("a mask is absent", late=True)
def mask_missing(draft: Draft) -> None:
    draft.take().paths["masks"].unlink()


@quirk("labels are no JSON", late=True)
def labels_no_json(draft: Draft) -> None:
    draft.take().paths["labels"].write_text('{"1": "m,liver"', encoding="utf-8")


@quirk("labels are absent", late=True)
def labels_missing(draft: Draft) -> None:
    draft.take().paths["labels"].unlink()


@quirk("recist_measurements.csv has no column for the value of the mask", late=True)
def targets_missing_column(draft: Draft) -> None:
    kept = tuple(name for name in TARGET_COLUMNS if name != "lesion_label_value")
    write_csv(draft.folder / "recist_measurements.csv", kept, draft.target_rows)


@quirk("series.json is no JSON", late=True)
def series_no_json(draft: Draft) -> None:
    path = draft.folder / "metadata" / "series.json"
    path.write_bytes(path.read_bytes()[:-20])


def _targets(draft: Draft, series: Series) -> list[dict[str, Any]]:
    return [row for row in draft.target_rows if row["uuid"] == series.scan.uid]


def _halve(series: Series, kind: str) -> None:
    path = series.paths[kind]
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


_BY_NAME: Final[dict[str, Quirk]] = {
    each.name: each
    for each in (
        *(order_ras, order_lps, order_pli, mask_other_order, oblique, anisotropic_pixels),
        *(int32_image, float_image, scaled_image, shifted_image, plain_nii, image_4d),
        *(label_gaps, label_only_in_json, label_only_in_mask, label_unknown_type, split_in_z),
        *(mask_other_shape, mask_other_affine, odd_date, odd_size, unknown_window),
        *(target_without_mask, odd_measurement, training_folders, name_suffix, location_with_blanks),
        *(alias_twice, alias_at_two_places, targets_contradict, objects_contradict, patient_contradicts),
        *(spacing_contradicts, patient_row_contradicts, series_twice, label_twice),
        *(truncated_image, truncated_mask, image_no_nifti, image_missing, mask_missing),
        *(labels_no_json, labels_missing, targets_missing_column, series_no_json),
    )
}

RECIST_QUIRKS: Final[Mapping[str, str]] = MappingProxyType({name: each.description for name, each in _BY_NAME.items()})
"""What `recist_dataset` can be asked to do wrong: name and one line each, in the order in which they act."""


def choose(names: Iterable[str]) -> list[Quirk]:
    """Look quirks up, once each, in the order of `RECIST_QUIRKS`; ValueError for a name that is unknown."""
    wanted = {names} if isinstance(names, str) else set(names)
    for name in sorted(wanted - set(_BY_NAME)):
        near = difflib.get_close_matches(name, _BY_NAME, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else f"choose from {', '.join(_BY_NAME)}"
        raise ValueError(f"unknown quirk {name!r}: {hint}")
    return [each for name, each in _BY_NAME.items() if name in wanted]
