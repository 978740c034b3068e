"""Other UIDs in place of those of a source, made with a secret key."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SettingError
from lesionzarr.formats.dicom import remap_uid

if TYPE_CHECKING:
    from pathlib import Path

    from lesionzarr.lesion import Lesion
    from lesionzarr.report import Issue
    from lesionzarr.series import Scan, Volume

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
    def read(cls, path: Path) -> Pseudonyms:
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
        return replace(
            scan,
            volumes=tuple(map(self._volume, scan.volumes)),
            missing=tuple(map(self._issue, scan.missing)),
            failed=tuple(map(self._issue, scan.failed)),
            issues=tuple(map(self._issue, scan.issues)),
        )

    def text(self, text: str) -> str:
        """Replace every UID in a text."""
        return UID.sub(lambda found: self._other(found[0]), text)

    def fault(self, message: str, file: str) -> tuple[str, str]:
        """Give a message and the file that it is about, without the file's folders: their names hold parts of UIDs."""
        name = PurePosixPath(file).name
        return self.text(message.replace(file, name) if file else message), self.text(name)

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

    def _issue(self, issue: Issue) -> Issue:
        message, file = self.fault(issue.message, issue.file)
        return replace(
            issue,
            item=self.text(issue.item),
            file=file,
            message=message,
            lesions=tuple(map(self.text, issue.lesions)),
        )
