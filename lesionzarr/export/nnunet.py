"""nnU-Net's raw format, version 2: images and label maps as NIfTI, and ``dataset.json``.

Labels are 1, 2, ... by class. Volumes with a mask have it. Those without, as all of DeepLesion's, get pseudo-masks from
their RECIST axes on request: the key slices are labelled, and all other slices, on which nobody marked anything, have
nnU-Net's label ``ignore``, so that they neither teach background nor count (nnU-Net, documentation/ignore_label.md).
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import GeometryError, IntegrityError, SettingError
from lesionzarr.export.key_slices import LESION, class_index, class_names, lesion_issue
from lesionzarr.export.outcome import Exported
from lesionzarr.features.pseudo_mask import pseudo_mask
from lesionzarr.formats.nifti import write_nifti
from lesionzarr.geometry import Region
from lesionzarr.readers._zarr import read_region
from lesionzarr.store.layout import KINDS, MASK, MASK_ARRAY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion
    from lesionzarr.report import Issue
    from lesionzarr.store.catalog import Catalog

DATASET_ID = 500
"""Below are those of the Medical Segmentation Decathlon and of others."""
MOST = 999
IGNORE = "ignore"


def export_nnunet(
    catalog: Catalog,
    lesions: Iterable[Lesion],
    folder: Path,
    *,
    classes: str = LESION,
    pseudo_masks: bool = False,
    dataset_id: int = DATASET_ID,
) -> Exported:
    """Write the volumes of lesions as a dataset of nnU-Net, one volume in memory at a time.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Of the store. Lesions that are not among them are background, or ``ignore`` with pseudo-masks.
    folder
        ``nnUNet_raw``, where ``Dataset<id>_<title>`` is made: ``imagesTr`` and ``labelsTr``, ``imagesTs`` and
        ``labelsTs`` for the split ``test``, and ``splits_final.json`` where there is a split ``val`` (nnU-Net takes it
        from ``nnUNet_preprocessed``).
    classes
        ``"lesion"``: one label; ``"type"``: one for each type.
    pseudo_masks
        Make masks for volumes that have none. A lesion whose axes make none is ``ignore`` inside its box.
    dataset_id
        1 to 999.

    Returns
    -------
    Exported

    Raises
    ------
    SettingError
        A number or word for classes that there is not.
    """
    if not 1 <= dataset_id <= MOST:
        raise SettingError(f"dataset {dataset_id}: nnU-Net numbers them from 1 to {MOST}")
    chosen = list(lesions)
    names = class_names(chosen, classes)
    by_volume: dict[str, list[Lesion]] = {}
    for lesion in chosen:
        by_volume.setdefault(lesion.volume_id, []).append(lesion)
    root = folder / f"Dataset{dataset_id:03d}_{re.sub('[^A-Za-z0-9]', '', str(catalog.info.get('title'))) or 'lesions'}"
    files: list[Path] = []
    failed: list[Issue] = []
    cases: dict[str, list[str]] = {}
    for volume_id, marked in by_volume.items():
        try:
            labels, left = _labels(catalog, volume_id, marked, names, pseudo_masks=pseudo_masks)
            if len(left) == len(marked):
                failed += left
                continue
            part = "Ts" if marked[0].split == "test" else "Tr"
            files += _write(catalog, volume_id, labels, root, part)
        except (GeometryError, SettingError, IntegrityError) as error:
            failed += [lesion_issue(lesion, error) for lesion in marked]
            continue
        failed += left
        cases.setdefault(marked[0].split or "train", []).append(volume_id)
    if files:
        files += _write_lists(catalog, root, names, cases, ignore=pseudo_masks)
    counts = {"volumes": sum(map(len, cases.values())), "lesions": len(chosen) - len(failed)}
    return Exported(tuple(files), counts, tuple(failed))


def _labels(
    catalog: Catalog, volume_id: str, lesions: Sequence[Lesion], names: Sequence[str], *, pseudo_masks: bool
) -> tuple[NDArray[np.uint8], list[Issue]]:
    modality, grid = catalog.array(volume_id).modality, catalog.grid(volume_id)
    if modality != "CT":
        raise SettingError("it is on PET; the channel of this dataset is CT")
    if grid.spacing_mm[0] is None:
        raise GeometryError("the slice interval of its volume is unknown, which nnU-Net cannot express")
    values = [class_index(lesion, names) + 1 for lesion in lesions]
    failed = []
    if catalog.mask_array(volume_id) is not None:
        whole = Region((0, 0, 0), grid.shape)
        mask = read_region(catalog.location, f"{volume_id}/{MASK}", whole, MASK_ARRAY)
        # one table look-up: label of every value of the mask
        table = np.zeros(int(np.iinfo(mask.dtype).max) + 1, np.uint8)
        for lesion, value in zip(lesions, values, strict=True):
            if lesion.mask_label is None:
                failed.append(lesion_issue(lesion, "it has no value in the mask of its volume"))
            else:
                table[lesion.mask_label] = value
        return table[mask], failed
    if not pseudo_masks:
        raise SettingError("its volume has no mask; --pseudo-masks makes one from RECIST axes")
    return _pseudo_labels(catalog, volume_id, lesions, values, ignore=len(names) + 1)


def _pseudo_labels(
    catalog: Catalog, volume_id: str, lesions: Sequence[Lesion], values: Sequence[int], *, ignore: int
) -> tuple[NDArray[np.uint8], list[Issue]]:
    """Draw lesions on their key slices; everything else that may be lesion is `ignore`."""
    labels = np.full(catalog.grid(volume_id).shape, ignore, np.uint8)
    labels[[lesion.key_z for lesion in lesions if lesion.key_z is not None]] = 0
    chosen = {lesion.lesion_id for lesion in lesions}
    own = catalog.lesions.index[catalog.lesions["volume_id"] == volume_id]
    others = catalog.find_lesions([name for name in own if name not in chosen])
    ellipses: list[tuple[int, NDArray[np.bool_], int]] = []
    failed = []
    for lesion, value in [*((other, ignore) for other in others), *zip(lesions, values, strict=True)]:
        try:
            ellipses.append((*_ellipse(labels, lesion), value))
        except GeometryError as error:
            _fill_box(labels, lesion, ignore)
            if lesion.lesion_id in chosen:
                failed.append(lesion_issue(lesion, error))
    # after the boxes, which must not cover them
    for z, inside, value in ellipses:
        labels[z][inside] = value
    return labels, failed


def _ellipse(labels: NDArray[np.uint8], lesion: Lesion) -> tuple[int, NDArray[np.bool_]]:
    """Give the key slice of a lesion, and its pixels there."""
    if lesion.key_z is None:
        raise GeometryError("its key slice is not in the store, so it has no pseudo-mask")
    if lesion.mark is None:
        raise GeometryError("it has no RECIST axes, so it has no pseudo-mask")
    return lesion.key_z, pseudo_mask(lesion.mark, (labels.shape[1], labels.shape[2]))


def _fill_box(labels: NDArray[np.uint8], lesion: Lesion, value: int) -> None:
    if lesion.key_z is not None and (box := lesion.box):
        rows = slice(max(math.floor(box.y0), 0), max(math.ceil(box.y1) + 1, 0))
        labels[lesion.key_z, rows, max(math.floor(box.x0), 0) : max(math.ceil(box.x1) + 1, 0)] = value


def _write(catalog: Catalog, volume_id: str, labels: NDArray[np.uint8], root: Path, part: str) -> list[Path]:
    grid = catalog.grid(volume_id)
    hu = read_region(catalog.location, volume_id, Region((0, 0, 0), grid.shape), KINDS["CT"].array)
    paths = [root / f"images{part}" / f"{volume_id}_0000.nii.gz", root / f"labels{part}" / f"{volume_id}.nii.gz"]
    for path, voxels in zip(paths, (hu, labels), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(path, voxels, grid)
    return paths


def _write_lists(
    catalog: Catalog, root: Path, names: Sequence[str], cases: dict[str, list[str]], *, ignore: bool
) -> list[Path]:
    labels = ["background", *names, *([IGNORE] if ignore else [])]
    training = [volume_id for split, ids in cases.items() if split != "test" for volume_id in ids]
    content: dict[str, Any] = {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(labels)},
        "numTraining": len(training),
        "file_ending": ".nii.gz",
        "name": catalog.info.get("title"),
        "reference": catalog.info.get("citation"),
        "licence": catalog.info.get("licence"),
    }
    paths = [root / "dataset.json"]
    paths[0].write_text(json.dumps(content, indent=1), encoding="utf-8")
    if "val" in cases:
        rest = [volume_id for volume_id in training if volume_id not in set(cases["val"])]
        paths.append(root / "splits_final.json")
        paths[1].write_text(json.dumps([{"train": rest, "val": cases["val"]}], indent=1), encoding="utf-8")
    return paths
