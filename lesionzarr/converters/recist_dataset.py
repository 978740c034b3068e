"""recist-dataset (robertorojasp06/recist-dataset, 2025): CT of follow-ups, with a mask of every lesion.

One volume per series. Images are NIfTI (``final-formatted`` and ``final``), or DICOM with the masks beside them as
NIfTI (``raw``, and the release on TCIA); where a series is there as both it is read from DICOM. Masks are annotations,
so that scanning reads them; images are not opened but for their headers. A mask has to lie on the grid of its image;
else the image is converted without it. The store's mask holds the values of the source, unless `instances` is asked
for; the objects of a mask that is split have numbers of their own, so that no measured target is told of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from lesionzarr import samples
from lesionzarr.annotations.recist_labels import parse_labels
from lesionzarr.converters._base import flag, number, option
from lesionzarr.converters._recist_checks import contradiction_issue, storage_issue
from lesionzarr.converters._recist_files import NIFTI, find_files
from lesionzarr.converters._recist_lesions import Marked, Place, make_lesions, mask_issues
from lesionzarr.converters._recist_tables import TARGETS, WINDOWS, read_tables
from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import read_file, with_zips
from lesionzarr.formats.dicom import file_headers, find_stacks, read_stack, scan_headers
from lesionzarr.formats.instances import LEAST_SLICES, LEAST_VOXELS, NEIGHBOURS, find_instances, split_instances
from lesionzarr.formats.nifti import is_same_grid, nifti_grid, read_nifti, read_nifti_header, read_nifti_mask
from lesionzarr.formats.nifti.place import find_placing
from lesionzarr.report import Issue
from lesionzarr.series import Scan, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.annotations.recist_labels import Label
    from lesionzarr.converters._recist_files import Files
    from lesionzarr.converters._recist_tables import Tables
    from lesionzarr.formats.dicom import Stack
    from lesionzarr.formats.nifti import NiftiHeader
    from lesionzarr.geometry import Grid
    from lesionzarr.series import SourceFile
    from lesionzarr.source import SourcePath

NO_MASK = "no mask; of its lesions only the measured targets are known, without position"
DICOM_FOLDERS = ("images/dicom", "CT")
"""Where ``raw`` and the release on TCIA have their series."""


@dataclass(frozen=True)
class Image:
    """The image of a series: NIfTI, or a stack of DICOM slices."""

    volume_id: str
    series_id: str
    grid: Grid
    files: tuple[SourceFile, ...]
    slices: tuple[str, ...]
    """The source's own number or UID of each, in the order of z."""
    numbers: tuple[int, int]
    """Lowest and highest of the source's own numbers of its slices."""
    stack: Stack | None = None
    header: NiftiHeader | None = None
    """Where it is no stack."""


@dataclass
class _Found:
    """What a scan has met so far."""

    tables: Tables
    volumes: list[Volume] = field(default_factory=list)
    missing: list[Issue] = field(default_factory=list)
    failed: list[Issue] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)


@dataclass(frozen=True)
class RecistDataset:
    """Converter of recist-dataset, in any of its layouts."""

    source: SourcePath
    dicom: SourcePath | None = option("folder or zip of the DICOM series, if not SOURCE/images/dicom or SOURCE/CT")
    instances: bool = flag("masks hold categories: make an instance of every connected object (26 neighbours)")
    min_voxels: int = number("with --instances: voxels of an object, at least", LEAST_VOXELS)
    min_slices: int = number("with --instances: slices of an object, at least", LEAST_SLICES)
    keep_headers: bool = flag("store the full DICOM headers too, as DICOM JSON; nothing in them is de-identified")

    name: ClassVar[str] = "recist-dataset"
    title: ClassVar[str] = "recist-dataset"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = "recist-dataset, github.com/robertorojasp06/recist-dataset"

    def __post_init__(self) -> None:
        there = [folder for name in DICOM_FOLDERS if (folder := self.source / name).is_dir()]
        if self.dicom is None and there:
            object.__setattr__(self, "dicom", there[0])

    def scan(self) -> Scan:
        """List the series with their lesions, which are found in the masks.

        Returns
        -------
        Scan

        Raises
        ------
        SourceError
            There is no image in it.
        MissingExtraError
            There is DICOM and pydicom is not installed, or masks are to be split and cc3d is not.
        """
        if not self.source.is_dir():
            raise SourceError(f"{self.source.name}: no folder; unpack the release and name its folder")
        files, failed, odd = find_files(with_zips(self.source))
        tables = read_tables(self.source)
        found = _Found(tables, failed=[*failed, *tables.failed], issues=[*odd, *tables.issues])
        stacks = self._stacks(found)
        if not stacks and not any(each.images for each in files):
            text = f"{self.source.name}: no images/.../<train or test>/images/*.nii.gz and no DICOM in it"
            raise SourceError(f"{text}; name the folder of the release")
        for each in files:
            own = stacks.pop(each.series_uid, None)
            images = _from_stacks(own) if own else _from_nifti(each, found)
            self._add_series(each, images, found)
        for uid, own in sorted(stacks.items()):
            found.issues.append(Issue("no-mask", uid, "", f"{uid}: {NO_MASK}"))
            images = _from_stacks(own)
            found.volumes += [self._volume(image, None, None, found, is_first=image is images[0]) for image in images]
        _add_missing(found)
        if self.instances:
            _add_unjoined(found)
        return Scan(tuple(found.volumes), tuple(found.missing), tuple(found.failed), tuple(found.issues))

    def read_volume(self, volume: Volume) -> NDArray[Any]:
        """Read the voxels of a series.

        Parameters
        ----------
        volume
            As listed by `scan`.

        Returns
        -------
        ndarray of int16
            (z, y, x), HU.

        Raises
        ------
        SourceError
            A file that cannot be read, or that holds no HU (see `lesionzarr.formats.nifti.read_nifti`).
        MissingExtraError
            Nothing installed decodes the transfer syntax of a DICOM series.
        """
        return read_stack(volume) if _is_dicom(volume) else read_nifti(volume.files[0])

    def read_mask(self, volume: Volume) -> NDArray[Any] | None:
        """Read the instance mask of a series: uint8 or uint16 (z, y, x), on its voxels; None where it has none.

        Raises
        ------
        SourceError
            A file that cannot be read.
        MissingExtraError
            The mask is to be split and cc3d is not installed.
        """
        if not volume.mask_files:
            return None
        mask = read_nifti_mask(volume.mask_files[0], volume.grid)
        return self._split(mask)[0] if volume.mask_rule else mask

    def read_headers(self, volume: Volume) -> dict[str, Any]:
        """Read the full headers of a DICOM series: those in common, and for each file what differs."""
        return file_headers(volume.files)

    @staticmethod
    def example(folder: Path, seed: int = 0) -> Path:
        """Write a small synthetic recist-dataset, and give its folder."""
        return samples.recist_dataset(folder, seed=seed, patients=2)

    def _stacks(self, found: _Found) -> dict[str, list[Stack]]:
        if self.dicom is None:
            return {}
        headers = scan_headers([self.dicom])
        stacks = find_stacks(headers)
        found.issues += [*headers.issues, *stacks.left_out, *stacks.issues]
        by_series: dict[str, list[Stack]] = {}
        for stack in stacks.stacks:
            if stack.modality == "CT":
                by_series.setdefault(stack.series_uid, []).append(stack)
        return by_series

    def _add_series(self, files: Files, images: list[Image], found: _Found) -> None:
        """Add the volumes of a series: the mask goes to the one on whose grid it lies."""
        if not images:
            kind = "mask" if files.masks else "labels"
            if not files.images and (files.masks or files.labels):
                text = f"{files.stem}: a {kind} without its image; it is left out"
                found.missing.append(Issue("missing-volume", files.stem, "", text))
            return
        if files.masks is None:
            found.issues.append(Issue("no-mask", files.stem, "", f"{files.stem}: {NO_MASK}"))
        header = _mask_header(files, found)
        odd = storage_issue(files, images[0].header, header, images[0].grid)
        found.issues += [odd] if odd else []
        owner = _owner(files, header, images, found) if header else None
        marked = self._read_marked(files, owner, found) if owner else None
        for image in images:
            mine = marked if image is owner else None
            found.volumes.append(self._volume(image, files, mine, found, is_first=image is (owner or images[0])))

    def _read_marked(self, files: Files, image: Image, found: _Found) -> Marked | None:
        if files.masks is None:
            return None
        try:
            mask = read_nifti_mask(files.masks, image.grid)
        except SourceError as error:
            text = f"{error}; {files.stem} is converted without it"
            found.failed.append(Issue("bad-mask", files.stem, files.masks.name, text))
            return None
        labels = _read_labels(files, found)
        if not self.instances:
            return Marked(find_instances(mask), labels)
        try:
            instances, categories, removed = self._split(mask)
        except SourceError as error:
            text = f"{files.masks.name}: {error}; {files.stem} is converted without it"
            found.failed.append(Issue("bad-mask", files.stem, files.masks.name, text))
            return None
        if removed:
            text = (
                f"{files.stem}: {removed} objects are smaller than {self.min_voxels} voxels or {self.min_slices} slices"
            )
            found.issues.append(Issue("small-objects", files.stem, files.masks.name, f"{text}; they are left out"))
        return Marked(find_instances(instances), labels, categories)

    def _volume(
        self, image: Image, files: Files | None, marked: Marked | None, found: _Found, *, is_first: bool
    ) -> Volume:
        """Describe a volume; the first of a series has its measured targets, also without a mask."""
        place = _place(image, files, found.tables)
        mask = files.masks if files and marked else None
        if marked and mask:
            found.issues += mask_issues(place, marked, found.tables, mask.name)
        known = marked
        if known is None and is_first and not self.instances and found.tables.targets.get(place.series_id):
            known = Marked(labels=_read_labels(files, found) if files and files.labels else None)
        # masks of categories, which come with DICOM, and such that are split have other numbers of lesions
        counted = marked is not None and image.stack is None and not self.instances
        lesions = len(marked.instances) if marked and counted else None
        odd = contradiction_issue(place, files, image.grid, found.tables, lesions)
        found.issues += [odd] if odd else []
        if place.row and place.row.shape not in {None, image.grid.shape}:
            text = f"{image.volume_id}: series.json says {place.row.shape} voxels, the files have {image.grid.shape}"
            found.issues.append(Issue("size-differs", image.volume_id, "", f"{text}, which are stored"))
        return Volume(
            volume_id=image.volume_id,
            series_id=image.series_id,
            study_id=(place.row.study_id if place.row else None) or (image.stack.study_uid if image.stack else ""),
            patient_id=place.patient_id or "",
            grid=image.grid,
            first_slice=image.numbers[0],
            last_slice=image.numbers[1],
            files=image.files,
            lesions=tuple(make_lesions(place, known, found.tables)) if known else (),
            tags=_tags(image, place),
            frames=image.stack.frames if image.stack else None,
            keeps_headers=self.keep_headers and image.stack is not None,
            mask_files=(mask,) if mask else (),
            mask_rule=self._rule if mask and self.instances else "",
        )

    @property
    def _rule(self) -> str:
        """How masks are split; part of what tells whether a volume has to be made anew."""
        return f"objects of {NEIGHBOURS} neighbours, at least {self.min_voxels} voxels and {self.min_slices} slices"

    def _split(self, mask: NDArray[Any]) -> tuple[NDArray[Any], dict[int, int], int]:
        return split_instances(mask, self.min_voxels, self.min_slices)


def _is_dicom(volume: Volume) -> bool:
    return not volume.files[0].name.endswith(NIFTI)


def _from_stacks(stacks: list[Stack]) -> list[Image]:
    images = []
    for stack in stacks:
        numbers = [number for number in stack.instance_numbers if number is not None]
        ends = min(numbers, default=1), max(numbers, default=len(stack.files))
        images.append(
            Image(stack.volume_id, stack.series_uid, stack.grid, stack.files, stack.sop_uids, ends, stack=stack)
        )
    return images


def _from_nifti(files: Files, found: _Found) -> list[Image]:
    if files.images is None:
        return []
    try:
        header = read_nifti_header(files.images)
    except SourceError as error:
        found.failed.append(Issue("bad-image", files.stem, files.images.name, str(error)))
        return []
    grid, placing = nifti_grid(header), find_placing(header)
    if grid.affine is None:
        text = f"{files.stem}: neither sform nor qform; it keeps its axes, and nothing is known of its sides"
        found.issues.append(Issue("no-orientation", files.stem, files.images.name, text))
    elif grid.origin_mm is None:
        text = f"{files.stem}: its axes ({header.codes}) are oblique; it is stored as it is, with its affine"
        found.issues.append(Issue("oblique", files.stem, files.images.name, text))
    depth = grid.shape[0]
    rows = range(depth - 1, -1, -1) if placing.flips[0] else range(depth)
    numbers = tuple(map(str, rows))
    ends = 0, depth - 1
    return [Image(files.stem, files.series_uid, grid, (files.images,) * depth, numbers, ends, header=header)]


def _mask_header(files: Files, found: _Found) -> NiftiHeader | None:
    if files.masks is None:
        return None
    try:
        return read_nifti_header(files.masks)
    except SourceError as error:
        text = f"{error}; {files.stem} is converted without it"
        found.failed.append(Issue("bad-mask", files.stem, files.masks.name, text))
        return None


def _owner(files: Files, header: NiftiHeader, images: list[Image], found: _Found) -> Image | None:
    """Find the volume that a mask lies on."""
    name = files.masks.name if files.masks else ""
    for image in images:
        if is_same_grid(image.grid, nifti_grid(header, image.grid)) and (image.grid.affine or not image.stack):
            return image
    other = nifti_grid(header, images[0].grid)
    what = "shape" if other.shape != images[0].grid.shape else "affine"
    sizes = f" ({other.shape}, {images[0].grid.shape})" if what == "shape" else ""
    text = f"{files.stem}: its mask has another {what} than its image{sizes}; it is converted without the mask"
    found.failed.append(Issue(f"mask-{what}", files.stem, name, text))
    return None


def _read_labels(files: Files, found: _Found) -> dict[int, Label] | None:
    if files.labels is None:
        text = f"{files.stem}: no labels JSON; the types of its lesions are unknown"
        found.issues.append(Issue("no-labels", files.stem, "", text))
        return None
    try:
        labels, odd = parse_labels(read_file(files.labels), files.labels.name)
    except SourceError as error:
        text = f"{error}; the types of its lesions are unknown"
        found.failed.append(Issue("bad-labels", files.stem, files.labels.name, text))
        return None
    found.issues += [Issue("odd-label", files.stem, files.labels.name, f"{files.stem}: {text}") for text in odd]
    return labels


def _place(image: Image, files: Files | None, tables: Tables) -> Place:
    row = tables.series.get(image.series_id)
    patient_id = (row.patient_id if row else None) or (files.patient_id if files else None)
    names = [f"{stem}{ending}" for stem in (image.volume_id, image.series_id) for ending in (".nii.gz", ".nii")]
    names += [f"{files.stem}.nii.gz"] if files else []
    return Place(
        image.volume_id,
        image.series_id,
        patient_id or (image.stack.patient_id if image.stack else None),
        files.split if files else None,
        (files.region if files else None) or (row.region if row else None),
        row,
        image.slices,
        next((tables.windows[name] for name in names if name in tables.windows), None),
    )


def _tags(image: Image, place: Place) -> dict[str, Any]:
    """Give what is known of a series by keywords of DICOM, and its region, which has none there."""
    row, stack = place.row, image.stack
    date = row.study_date.replace("-", "") if row and row.study_date else None
    tags: dict[str, Any] = {
        "StudyDate": date,
        "SliceThickness": row.thickness_mm if row else None,
        "Region": place.region,
    }
    if place.window is not None:
        window = WINDOWS[place.window]
        tags["WindowCenter"], tags["WindowWidth"] = (window.low + window.high) / 2, window.high - window.low
        tags["WindowCenterWidthExplanation"] = place.window
    known = {name: value for name, value in tags.items() if value is not None}
    return {**stack.tags, "FrameOfReferenceUID": stack.frame_uid or None, **known} if stack else known


def _add_missing(found: _Found) -> None:
    """Say which series of the tables have no image, and which measured lesions have no series."""
    there = {volume.series_id for volume in found.volumes}
    spoken = {issue.item for issue in (*found.missing, *found.failed)}
    for uid in sorted({uid for uid, row in found.tables.series.items() if row.is_listed} - there):
        if not any(item.endswith(uid) for item in spoken):
            found.missing.append(Issue("missing-volume", uid, "", f"{uid}: in series.json, and its image is not here"))
    lost = sorted(set(found.tables.targets) - there)
    if lost:
        count = sum(len(found.tables.targets[uid]) for uid in lost)
        text = f"recist_measurements.csv: {count} measured lesions are of {len(lost)} series that are not here"
        found.issues.append(Issue("unplaced-targets", lost[0], "recist_measurements.csv", text))


def _add_unjoined(found: _Found) -> None:
    """Say that no measurement is joined to lesions of masks that were split, whose numbers are not the table's."""
    count = sum(len(found.tables.targets.get(uid, ())) for uid in {volume.series_id for volume in found.volumes})
    if count:
        text = f"{TARGETS}: {count} measured lesions are not joined to lesions, since masks are split"
        text = f"{text}; convert without --instances for them"
        found.issues.append(Issue("unjoined-targets", TARGETS, TARGETS, text))
