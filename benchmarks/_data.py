"""What the benchmarks read: a DeepLesion of any size, its volumes in every peer's format, and crops of it."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.store.catalog import Catalog

    Voxels = NDArray[np.int16]
    Triple = tuple[int, int, int]

WINDOW = (-175, 275)
"""Of all crops, in HU."""
POOL = {"9x128x128": 256, "3x64x64": 256, "9x512x512": 128}
"""Crops that are read, by their size; the largest number is that of the lesions of the dataset."""
VOLUMES = ("one", "many")
PROFILES = ("portable", "fast")


class Crop(NamedTuple):
    """What every peer is asked for."""

    volume: str
    centre: Triple
    start: Triple
    """First voxel, which may lie outside of the volume."""
    size: Triple
    lesion: str
    """Id of the lesion in the middle; empty where the crop lies elsewhere."""


@dataclass(frozen=True)
class Data:
    """The folder that `make` filled."""

    folder: Path
    shapes: dict[str, Triple]
    """Of the volumes, (z, y, x)."""
    slices: dict[str, list[str]]
    """Files of the slices of the volumes."""

    @classmethod
    def load(cls, folder: Path) -> Data:
        """Read what `make` wrote."""
        facts = json.loads((folder / "data.json").read_text())
        return cls(folder, {name: tuple(shape) for name, shape in facts["shapes"].items()}, facts["slices"])

    def crops(self, size: str, volumes: str) -> tuple[list[Crop], list[int]]:
        """Give the crops of a workload, and the CRC-32 of each when it is windowed."""
        chosen = json.loads((self.folder / f"crops-{size}-{volumes}.json").read_text())
        crops = [
            Crop(volume, tuple(centre), tuple(start), tuple(sides), lesion)
            for volume, centre, start, sides, lesion in chosen["crops"]
        ]
        return crops, chosen["checksums"]

    def store(self, profile: str) -> Path:
        """Give the lesionzarr store of a profile."""
        return self.folder / f"{profile}.zarr"

    def pack(self, profile: str, size: Triple) -> Path:
        """Give the pack of a profile with crops of a size."""
        return self.folder / f"{profile}-{'x'.join(map(str, size))}.pack"

    def path(self, kind: str, volume: str) -> Path:
        """Give the file of a volume in another format."""
        return self.folder / kind / f"{volume}.{_SUFFIX[kind]}"


def dataset(folder: Path, data: Path | None, table: str, copies: int) -> Path:
    """Write a DeepLesion: a synthetic one, or a real one repeated under other patient numbers.

    Parameters
    ----------
    folder
        Where to write.
    data
        The real one; None for synthetic.
    table
        Its table.
    copies
        How often its series are repeated; of a synthetic one, a quarter of its volumes.

    Returns
    -------
    pathlib.Path
        The folder.
    """
    if data is None:
        from lesionzarr.samples import deeplesion

        deeplesion(folder, image_size=512, slices=37, lesions=4 * copies)
    else:
        _repeat(folder, data, table, copies)
    return folder


def _repeat(folder: Path, data: Path, table: str, copies: int) -> None:
    """Write a real dataset again and again under other patient numbers."""
    folder.mkdir()
    with (data / table).open(newline="") as file:
        header, *rows = list(csv.reader(file))
    rows = [row for row in rows if (data / "Images_png" / row[0][:12]).is_dir()]
    with (folder / "DL_info.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for copy in range(copies):
            for row in rows:
                patient = int(row[1]) + 1000 * copy
                writer.writerow([f"{patient:06d}{row[0][6:]}", patient, *row[2:]])
                _copy(data / "Images_png" / row[0][:12], folder / "Images_png" / f"{patient:06d}{row[0][6:12]}")


def spread_lesions(source: Path, positions: Path | None) -> None:
    """Give the volumes of a dataset as many lesions as crops are read, each at a place drawn for it.

    Parameters
    ----------
    source
        The dataset, whose table is written anew.
    positions
        Table of DeepLesion; its lesions say where in the volumes lesions lie. None for those of the dataset.
    """
    table = source / "DL_info.csv"
    places = _places(positions or table)
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    volumes = list({(row["File_name"][:12], row["Slice_range"]): row for row in rows}.values())
    rng = np.random.default_rng(0)
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for _ in range(max(POOL.values())):
            row, place = volumes[rng.integers(len(volumes))], places[rng.integers(len(places))]
            writer.writerow(_moved(row, place.tolist()))


def _moved(row: dict[str, str], place: list[float]) -> dict[str, str]:
    """Give a row whose lesion lies at a relative (z, y, x), but inside of the slice."""
    first, last = _numbers(row["Slice_range"])
    sides = _numbers(row["Image_size"])
    box = _numbers(row["Bounding_boxes"])
    key = round(first + place[0] * (last - first))
    shift = [
        min(max(place[2 - axis] * side + 1 - (low + high) / 2, 1 - low), side - high)
        for axis, (side, low, high) in enumerate(zip(sides, box[:2], box[2:], strict=True))
    ]
    cells = {
        name: ", ".join(f"{number + shift[place % 2]:g}" for place, number in enumerate(_numbers(row[name])))
        for name in ("Bounding_boxes", "Measurement_coordinates")
    }
    return {**row, **cells, "File_name": f"{row['File_name'][:12]}_{key:03d}.png", "Key_slice_index": f"{key}"}


def make(
    folder: Path,
    source: Path,
    kinds: Iterable[str],
    sizes: Sequence[str],
    profiles: Sequence[str] = PROFILES,
    *,
    packs: bool = True,
) -> None:
    """Convert a DeepLesion to stores and to the formats of the peers, and choose crops.

    Parameters
    ----------
    folder
        Where to write.
    source
        The DeepLesion.
    kinds
        Formats, from `KINDS`.
    sizes
        Of crops, from `POOL`.
    profiles
        Of the stores.
    packs
        Whether to write packs of the lesions, too.
    """
    import lesionzarr

    for profile in profiles:
        report = lesionzarr.convert("deeplesion", source, folder / f"{profile}.zarr", workers=1, profile=profile)
        if report.failed:
            raise SystemExit(f"{profile}: {report.failed[0].message}")
    catalog = lesionzarr.open(folder / f"{profiles[0]}.zarr")
    table: list[dict[Any, Any]] = catalog.volumes.reset_index().to_dict("records")
    shapes = {row["volume_id"]: (row["slices"], row["rows"], row["columns"]) for row in table}
    slices = {row["volume_id"]: _slices(source, row) for row in table}
    (folder / "data.json").write_text(json.dumps({"shapes": shapes, "slices": slices}))
    data = Data.load(folder)
    _write_formats(data, {row["volume_id"]: row["voxels"] for row in table}, {"npy", *kinds})
    centres = _centres(catalog)
    for size in sizes:
        depth, rows, columns = map(int, size.split("x"))
        for profile in profiles if packs else ():
            opened = lesionzarr.open(folder / f"{profile}.zarr")
            lesionzarr.pack(
                opened, data.pack(profile, (depth, rows, columns)), size=(depth, rows, columns), profile=profile
            )
        for volumes in VOLUMES:
            _choose(data, centres, size, volumes)


def repeat_volumes(folder: Path, size: str, copies: int, profile: str = PROFILES[0]) -> None:
    """Repeat the volumes of a store of a DeepLesion under other patient numbers, and the crops at its lesions.

    Shards are linked, so it costs neither time nor space.

    Parameters
    ----------
    folder
        What `make` filled.
    size
        Of the crops.
    copies
        How often each volume is there in the end.
    profile
        Of the store.
    """
    from lesionzarr.store.index import write_catalog
    from lesionzarr.store.location import open_location

    facts = json.loads((folder / "data.json").read_text())
    path = folder / f"crops-{size}-many.json"
    chosen = json.loads(path.read_text())
    shapes, crops = facts["shapes"], chosen["crops"]
    volumes = folder / f"{profile}.zarr" / "volumes"
    for copy in range(1, copies):
        for volume in list(facts["slices"]):
            _link_volume(volumes / volume, volumes / _renamed(volume, copy), volume[:6], copy)
            shapes[_renamed(volume, copy)] = shapes[volume]
    crops += [
        [_renamed(volume, copy), *rest, _renamed(lesion, copy)]
        for copy in range(1, copies)
        for volume, *rest, lesion in list(crops)
    ]
    write_catalog(open_location(folder / f"{profile}.zarr"))
    (folder / "data.json").write_text(json.dumps(facts))
    path.write_text(json.dumps({"crops": crops, "checksums": chosen["checksums"] * copies}))


def overlap(crop: Crop, shape: Triple) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
    """Give the part of a volume that a crop shows, and where in the crop it goes; None where there is none."""
    inside, target = [], []
    for start, size, extent in zip(crop.start, crop.size, shape, strict=True):
        first, last = max(start, 0), min(start + size, extent)
        if first >= last:
            return None
        inside.append(slice(first, last))
        target.append(slice(first - start, last - start))
    return tuple(inside), tuple(target)


def _slices(source: Path, row: dict[Any, Any]) -> list[str]:
    numbers = range(row["first_slice"], row["last_slice"] + 1)
    return [str(source / "Images_png" / row["series_id"] / f"{number:03d}.png") for number in numbers]


def _copy(series: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for path in series.glob("*.png"):
        if not (to / path.name).exists():
            (to / path.name).write_bytes(path.read_bytes())


def _renamed(name: str, copy: int) -> str:
    """Give the id of a copy of a volume or lesion, which begins with the patient's number."""
    return f"{int(name[:6]) + 10_000 * copy:06d}{name[6:]}"


def _link_volume(volume: Path, to: Path, patient: str, copy: int) -> None:
    for path in volume.rglob("*"):
        target = to / path.relative_to(volume)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.hardlink_to(path)
    group = (volume / "zarr.json").read_text()
    (to / "zarr.json").unlink()
    (to / "zarr.json").write_text(group.replace(f'"{patient}', f'"{_renamed(patient, copy)}'))


def _write_formats(data: Data, checksums: dict[str, str], kinds: set[str]) -> None:
    """Write every volume in every format; one with the voxels of another is a copy of its files."""
    first: dict[str, str] = {}
    for kind in kinds:
        (data.folder / kind).mkdir()
    for volume, checksum in checksums.items():
        original = first.setdefault(checksum, volume)
        voxels = _read_png(data.slices[volume]) if original == volume else None
        for kind in kinds:
            path = data.path(kind, volume)
            if voxels is not None:
                KINDS[kind](path, voxels)
            elif path.suffix == ".dicom":
                shutil.copytree(data.path(kind, original), path)
            else:
                shutil.copyfile(data.path(kind, original), path)


def _read_png(paths: list[str]) -> Voxels:
    """Read slices without lesionzarr: what all peers are compared with comes from here."""
    from PIL import Image

    return np.stack([(np.asarray(Image.open(path)).astype(np.int32) - 32768).astype(np.int16) for path in paths])


def _places(path: Path) -> NDArray[np.float64]:
    """Give the relative (z, y, x) of the lesions of a DeepLesion table: key slice in its range, centre of the box."""
    places = []
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            first, last = _numbers(row["Slice_range"])
            x0, y0, x1, y1 = _numbers(row["Bounding_boxes"])
            columns, rows = _numbers(row["Image_size"])
            z = (float(row["Key_slice_index"]) - first) / max(last - first, 1)
            places.append((z, ((y0 + y1) / 2 - 1) / rows, ((x0 + x1) / 2 - 1) / columns))
    return np.asarray(places).clip(0, 1)


def _numbers(cell: str) -> list[float]:
    return [float(number) for number in cell.split(",")]


def _centres(catalog: Catalog) -> list[tuple[str, Triple, str]]:
    """Give volume, centre and id of the lesions of a store, shuffled."""
    centres = []
    for lesion in catalog.find_lesions(list(catalog.lesions.index)):
        if lesion.box:
            z, y, x = map(round, lesion.box.centre)
            centres.append((lesion.volume_id, (z, y, x), lesion.lesion_id))
    return [centres[number] for number in np.random.default_rng(1).permutation(len(centres))]


def _choose(data: Data, centres: list[tuple[str, Triple, str]], size: str, volumes: str) -> None:
    """Write which crops are read: at the lesions, or, of one volume, where those of all lie in their own."""
    from lesionzarr.geometry import crop_start

    depth, rows, columns = map(int, size.split("x"))
    sides = depth, rows, columns
    largest = max(data.shapes, key=lambda name: data.shapes[name])
    chosen, checksums = [], []
    for name, (at, y, x), lesion in centres[: POOL[size]]:
        volume, z = name, at
        if volumes == "one":
            volume, z = largest, round(at * (data.shapes[largest][0] - 1) / max(data.shapes[name][0] - 1, 1))
        start = crop_start(z, depth), crop_start(y, rows), crop_start(x, columns)
        chosen.append(Crop(volume, (z, y, x), start, sides, lesion if volume == name and z == at else ""))
        checksums.append(_checksum(data, chosen[-1]))
    path = data.folder / f"crops-{size}-{volumes}.json"
    path.write_text(json.dumps({"crops": chosen, "checksums": checksums}))


def _checksum(data: Data, crop: Crop) -> int:
    """Give the CRC-32 of a crop by the definition of the window, in float64."""
    grey = np.zeros(crop.size, dtype=np.uint8)
    parts = overlap(crop, data.shapes[crop.volume])
    if parts:
        hu = np.load(data.path("npy", crop.volume), mmap_mode="r")[parts[0]]
        low, high = WINDOW
        grey[parts[1]] = np.clip((hu.astype(np.float64) - low) / (high - low), 0, 1) * 255
    return crc32(grey.data)


def _write_npy(path: Path, voxels: Voxels) -> None:
    np.save(path, voxels)


def _write_nifti(path: Path, voxels: Voxels) -> None:
    import nibabel as nib

    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), np.eye(4)), path)


def _write_dicom(path: Path, voxels: Voxels) -> None:
    """One file a slice, not compressed."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    path.mkdir()
    for number, image in enumerate(voxels):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        file.Rows, file.Columns = image.shape
        file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
        file.BitsAllocated = file.BitsStored = 16
        file.HighBit, file.PixelRepresentation = 15, 1
        file.RescaleSlope, file.RescaleIntercept = 1, 0
        file.PixelData = image.tobytes()
        file.save_as(path / f"{number:04d}.dcm", enforce_file_format=True)


def _write_nnunet(path: Path, voxels: Voxels) -> None:
    """As nnU-Net 2 stores a case: (channel, z, y, x), zstd level 8, blocks that fit the L1 cache, chunks the L3."""
    import blosc2

    blocks, chunks = nnunet_blocks((1, *voxels.shape), (9, 128, 128), voxels.itemsize)
    settings = {"codec": blosc2.Codec.ZSTD, "clevel": 8, "nthreads": 1}
    blosc2.asarray(voxels[None], urlpath=str(path), chunks=chunks, blocks=blocks, cparams=settings, mode="w")


def nnunet_blocks(
    shape: tuple[int, ...], patch: Triple, itemsize: int, l1: int = 32768, l3: int = 1441792
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose blocks and chunks by nnU-Net's rules, with its cache sizes.

    Blocks begin as the patch, rounded up to powers of two, and the axis that is largest relative to the patch is halved
    until four fifths of the L1 cache hold one. Chunks grow by blocks along the axis of fewest blocks until they fill
    the L3 cache, the image, or one and a half patches.
    """
    block = [1 << (side - 1).bit_length() for side in patch]
    while np.prod(block) * itemsize > 0.8 * l1:
        axis = max((axis for axis in range(3) if block[axis] > 1), key=lambda axis: (block[axis] / patch[axis], axis))
        block[axis] = min(block[axis] // 2, shape[1 + axis])
    block = [min(side, extent) for side, extent in zip(block, shape[1:], strict=True)]
    chunk = list(block)
    while np.prod(chunk) * itemsize < 0.8 * l3 and tuple(chunk) != shape[1:]:
        open_axes = [axis for axis in range(3) if chunk[axis] < shape[1 + axis] and patch[axis] > 1]
        if not open_axes:
            break
        axis = min(open_axes, key=lambda axis: chunk[axis] / block[axis])
        before = chunk[axis]
        chunk[axis] = min(before + block[axis], shape[1 + axis])
        if np.mean([side / patch[number] for number, side in enumerate(chunk)]) > 1.5:
            chunk[axis] = before
            break
    return (1, *block), (1, *chunk)


def _write_blosc2(profile: str) -> Callable[[Path, Voxels], None]:
    """Make the function that writes .b2nd with chunks, blocks and codec of a profile of the store."""

    def write(path: Path, voxels: Voxels) -> None:
        import blosc2

        from lesionzarr.store.layout import BLOCK_SLICES, CHUNK, volume_codecs

        codec = next(step["configuration"] for step in volume_codecs(profile) if step["name"] == "blosc")
        names = {"noshuffle": blosc2.Filter.NOFILTER, "shuffle": blosc2.Filter.SHUFFLE}
        names["bitshuffle"] = blosc2.Filter.BITSHUFFLE
        settings = {
            "codec": blosc2.Codec[codec["cname"].upper()],
            "clevel": codec["clevel"],
            "filters": [names[codec["shuffle"]]],
            "filters_meta": [0],
            "splitmode": blosc2.SplitMode.FORWARD_COMPAT_SPLIT,
            "nthreads": 1,
        }
        blocks = (BLOCK_SLICES, *CHUNK[1:])
        blosc2.asarray(voxels, urlpath=str(path), chunks=CHUNK, blocks=blocks, cparams=settings, mode="w")

    return write


KINDS: dict[str, Callable[[Path, Voxels], None]] = {
    "npy": _write_npy,
    "nii": _write_nifti,
    "nii.gz": _write_nifti,
    "dicom": _write_dicom,
    "nnunet": _write_nnunet,
    **{f"blosc2-{profile}": _write_blosc2(profile) for profile in PROFILES},
}
"""How a volume is written, by format."""

_SUFFIX = {kind: kind if kind in {"npy", "nii", "nii.gz", "dicom"} else "b2nd" for kind in KINDS}
