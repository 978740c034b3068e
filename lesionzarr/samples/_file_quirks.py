"""Quirks of the files: damaged, missing, or packed in another way."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from lesionzarr.samples._draft import Stage, on_dataset, on_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from lesionzarr.samples._draft import Draft, Quirk
    from lesionzarr.samples._plan import Volume

# The day on which the real slices were written, so that the time of day cannot change a zip's bytes.
ZIP_TIME: Final = (2017, 9, 8, 9, 15, 20)


def _in_turn(draft: Draft, number: int) -> Iterator[Volume]:
    """Give the aimed volume, then those after it and round again; never volume 0."""
    planned = [volume for volume in draft.volumes if volume.number > 0 and volume.part == 0]
    yield from sorted(planned, key=lambda volume: (volume.number < number, volume.number))


def _slices(draft: Draft, volume: Volume) -> dict[int, Path]:
    folder = draft.images / volume.folder
    paths = {number: folder / f"{number:03d}.png" for number in range(volume.first, volume.last + 1)}
    return {number: path for number, path in paths.items() if path.exists() and path not in draft.spent}


def _take(draft: Draft, number: int, suits: Callable[[Volume, int], bool]) -> Path:
    """Choose the slice in the middle of those that suit, and mark it as spent."""
    for volume in _in_turn(draft, number):
        paths = [path for slice_number, path in _slices(draft, volume).items() if suits(volume, slice_number)]
        if paths:
            path = paths[len(paths) // 2]
            draft.spent.add(path)
            return path
    raise ValueError("no slice is left for a quirk to act on: ask for more slices, more lesions or fewer quirks")


def _is_spare(volume: Volume, number: int) -> bool:
    return volume.first < number < volume.last and number not in volume.key_slices


def _is_key(volume: Volume, number: int) -> bool:
    return number in volume.key_slices


def _take_any(draft: Draft, number: int) -> Path:
    volume = draft.volume(number)
    if any(_is_spare(volume, slice_number) for slice_number in _slices(draft, volume)):
        return _take(draft, number, _is_spare)
    return _take(draft, number, lambda _volume, _number: True)


def _rewrite(path: Path, change: Callable[[Image.Image], Image.Image]) -> None:
    with Image.open(path) as image:
        changed = change(image)
    changed.save(path, format="PNG", compress_level=4)


def _to_grey(image: Image.Image) -> Image.Image:
    hu = np.asarray(image).astype(np.int32) - 32768
    return Image.fromarray((np.clip((hu + 175) / 450, 0, 1) * 255).astype(np.uint8))


@on_volume("a slice file ends in the middle", Stage.FILES)
def truncated_png(draft: Draft, number: int) -> None:
    path = _take_any(draft, number)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@on_volume("one byte of a slice's compressed pixels is wrong", Stage.FILES)
def corrupt_png(draft: Draft, number: int) -> None:
    path = _take_any(draft, number)
    data = bytearray(path.read_bytes())
    chunk = data.index(b"IDAT")
    length = int.from_bytes(data[chunk - 4 : chunk], "big")
    data[chunk + 4 + length // 2] ^= 0xFF
    path.write_bytes(data)


@on_volume("a slice is saved with 8 bits, as OpenCV does by default", Stage.FILES)
def png_8bit(draft: Draft, number: int) -> None:
    _rewrite(_take_any(draft, number), _to_grey)


@on_volume("a slice is saved in colour", Stage.FILES)
def png_rgb(draft: Draft, number: int) -> None:
    _rewrite(_take_any(draft, number), lambda image: _to_grey(image).convert("RGB"))


@on_volume("a slice has half as many rows and columns as the rest of its volume", Stage.FILES)
def wrong_size(draft: Draft, number: int) -> None:
    _rewrite(_take_any(draft, number), lambda image: Image.fromarray(np.asarray(image)[::2, ::2].copy()))


@on_volume("a slice file has no bytes", Stage.FILES)
def empty_png(draft: Draft, number: int) -> None:
    _take_any(draft, number).write_bytes(b"")


@on_volume("a slice inside a range is absent, but no key slice", Stage.FILES)
def missing_slice(draft: Draft, number: int) -> None:
    _take(draft, number, _is_spare).unlink()


@on_volume("a key slice is absent", Stage.FILES)
def missing_key_slice(draft: Draft, number: int) -> None:
    _take(draft, number, _is_key).unlink()


@on_volume("the folder of a series is absent", Stage.FILES)
def missing_series(draft: Draft, number: int) -> None:
    shutil.rmtree(draft.images / draft.volume(number).folder, ignore_errors=True)


@on_volume("the folder of a series is there but has no slices", Stage.FILES)
def empty_series(draft: Draft, number: int) -> None:
    folder = draft.images / draft.volume(number).folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()


@on_dataset("a series folder with slices is in no row of the table", Stage.FILES)
def unlisted_series(draft: Draft) -> None:
    patient = max(volume.patient for volume in draft.volumes) + 5
    shutil.copytree(draft.images / draft.volumes[0].folder, draft.images / f"{patient:06d}_01_01")


def _halves(draft: Draft) -> tuple[list[Path], list[Path]]:
    """Share the series folders between two parts, each whole inside one, as in the official zips."""
    folders = sorted(draft.images.iterdir())
    middle = (len(folders) + 1) // 2
    return folders[:middle], folders[middle:]


def _zips(draft: Draft) -> list[Path]:
    return [draft.folder / f"Images_png_{part:02d}.zip" for part in (1, 2)]


def _write_member(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    member = zipfile.ZipInfo(name, ZIP_TIME)
    member.compress_type = zipfile.ZIP_DEFLATED if data else zipfile.ZIP_STORED
    # Otherwise the operating system would show in the bytes.
    member.create_system = 3
    member.external_attr = 0o644 << 16
    archive.writestr(member, data)


def _write_checksums(draft: Draft) -> None:
    lines = [f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}\n" for path in _zips(draft)]  # noqa: S324
    (draft.folder / "MD5_checksums.txt").write_text("".join(lines), encoding="utf-8", newline="\n")


@on_dataset("the official zips as downloaded, with MD5_checksums.txt and no folders", Stage.FILES)
def zips(draft: Draft) -> None:
    for path, folders in zip(_zips(draft), _halves(draft), strict=True):
        with zipfile.ZipFile(path, "w") as archive:
            for folder in folders:
                files = sorted(folder.iterdir())
                for file in files:
                    _write_member(archive, f"Images_png/{folder.name}/{file.name}", file.read_bytes())
                if not files:
                    _write_member(archive, f"Images_png/{folder.name}/", b"")
    shutil.rmtree(draft.images)
    _write_checksums(draft)


@on_dataset("a zip has a member ../../evil/001.png", Stage.FILES, needs=("zips",))
def zip_escape(draft: Draft) -> None:
    first, _ = _zips(draft)
    with zipfile.ZipFile(first, "a") as archive:
        inside = next(name for name in archive.namelist() if name.endswith(".png"))
        _write_member(archive, "../../evil/001.png", archive.read(inside))
    _write_checksums(draft)


@on_dataset("the second zip is cut off, so that its list of members is lost", Stage.FILES, needs=("zips",))
def corrupt_zip(draft: Draft) -> None:
    _, second = _zips(draft)
    data = second.read_bytes()
    second.write_bytes(data[: len(data) * 2 // 3])


@on_dataset("series are spread over Images_png_01/Images_png and Images_png_02/Images_png, as unzipped", Stage.FILES)
def two_roots(draft: Draft) -> None:
    if not draft.images.exists():
        # Zips hold the series already.
        return
    for part, folders in enumerate(_halves(draft), 1):
        root = draft.folder / f"Images_png_{part:02d}" / "Images_png"
        root.mkdir(parents=True)
        for folder in folders:
            folder.rename(root / folder.name)
    draft.images.rmdir()


FILE_QUIRKS: Final[tuple[Quirk, ...]] = (
    truncated_png,
    corrupt_png,
    png_8bit,
    png_rgb,
    wrong_size,
    empty_png,
    missing_slice,
    missing_key_slice,
    missing_series,
    empty_series,
    unlisted_series,
    zips,
    zip_escape,
    corrupt_zip,
    two_roots,
)
