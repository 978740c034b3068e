"""Other UIDs in place of those of a source, made with a secret key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SettingError
from lesionzarr.formats.dicom import remap_uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesionzarr.lesion import Lesion
    from lesionzarr.report import Issue
    from lesionzarr.series import Scan, Volume
    from lesionzarr.source import SourcePath

UID = re.compile(r"[0-9]+(?:\.[0-9]+){3,}|2\.25\.[0-9]+")
"""A UID in a text, with the numbers that a file's name may have before it: four parts or more, which decimals and most
version numbers have not, or ``2.25.`` and a number."""
PUBLIC = "1.2.840.10008."
"""Root of the UIDs that the standard defines: they name kinds, not things."""
LEAST_BYTES = 16


@dataclass(frozen=True)
class Pseudonyms:
    """What replaces UIDs: the same for the same key."""

    key: bytes

    @classmethod
    def read(cls, path: SourcePath) -> Pseudonyms:
        """Read the key; SettingError for a file that is absent or too short to be a secret."""
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise SettingError(f"{path.name}: no key ({error.strerror}); name a file with a secret") from error
        if len(key) < LEAST_BYTES:
            raise SettingError(f"{path.name}: a key of {len(key)} bytes; at least {LEAST_BYTES} are needed")
        return cls(key)

    def apply(self, scan: Scan) -> Scan:
        """Replace every UID in a scan, in ids, tags and messages, but in the places that files are read from."""
        names = {file.name for volume in scan.volumes for file in volume.files}
        names |= {issue.file for issue in (*scan.missing, *scan.failed, *scan.issues)}
        # longest first, so that none hides a part of another; their names hold parts of UIDs
        folders = sorted({name.rpartition("/")[0] + "/" for name in names} - {"/"}, key=lambda name: (-len(name), name))

        def shorten(issues: tuple[Issue, ...]) -> tuple[Issue, ...]:
            return tuple(self._issue(issue, folders) for issue in issues)

        return replace(
            scan,
            volumes=tuple(map(self._volume, scan.volumes)),
            missing=shorten(scan.missing),
            failed=shorten(scan.failed),
            issues=shorten(scan.issues),
        )

    def text(self, text: str) -> str:
        """Replace every UID in a text."""
        return UID.sub(lambda found: self._other(found[0]), text)

    def fault(self, message: str, file: str, folders: Sequence[str] = ()) -> tuple[str, str]:
        """Replace every UID in a message and the file that it is about, and leave out the file's and other folders."""
        own, _, name = file.rpartition("/")
        for folder in (f"{own}/", *folders):
            message = message.replace(folder, "") if len(folder) > 1 else message
        return self.text(message), self.text(name)

    def _other(self, uid: str) -> str:
        return uid if uid.startswith(PUBLIC) else remap_uid(uid, self.key)

    def _volume(self, volume: Volume) -> Volume:
        ids: dict[str, Any] = {
            name: self.text(getattr(volume, name)) for name in ("volume_id", "series_id", "study_id", "patient_id")
        }
        lesions = tuple(map(self._lesion, volume.lesions))
        tags: dict[str, Any] = json.loads(self.text(json.dumps(volume.tags)))
        # paths hold UIDs, or parts of them
        return replace(volume, **ids, lesions=lesions, tags=tags, names_files=False)

    def _lesion(self, lesion: Lesion) -> Lesion:
        names = ("lesion_id", "volume_id", "series_id", "study_id", "patient_id", "key_slice", "extra")
        texts: dict[str, Any] = {
            name: self.text(value) for name in names if (value := getattr(lesion, name)) is not None
        }
        return replace(lesion, **texts)

    def _issue(self, issue: Issue, folders: Sequence[str]) -> Issue:
        message, file = self.fault(issue.message, issue.file, folders)
        return replace(
            issue,
            item=self.text(issue.item),
            file=file,
            message=message,
            lesions=tuple(map(self.text, issue.lesions)),
        )
