"""Quirks of annotation files and of the clinical sheet."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Final

from lesionzarr.samples._nbia_draft import quirk
from lesionzarr.samples._nbia_plan import LETTERS
from lesionzarr.samples._nbia_tables import CLINICAL_COLUMNS, voc, write_clinical

if TYPE_CHECKING:
    from pathlib import Path

    from lesionzarr.samples._nbia_draft import Draft, Mark, Quirk
    from lesionzarr.samples._nbia_plan import Subject
    from lesionzarr.samples._nbia_tables import Box

# "label" is opened inside of the file, "host" would be fetched from outside of it.
_ENTITIES: Final = """<!DOCTYPE annotation [
  <!ENTITY letter "A">
  <!ENTITY label "&letter;&letter;&letter;&letter;&letter;&letter;&letter;&letter;">
  <!ENTITY host SYSTEM "file:///etc/hostname">
]>
"""


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _replace(mark: Mark, *objects: tuple[str, Box]) -> None:
    _write(mark.path, voc(objects, mark.series.subject.ct.size))


def _shift(mark: Mark, x: int) -> Box:
    x0, y0, x1, y1 = mark.box
    return x0 + x, y0, x1 + x, y1


def _last_annotated(draft: Draft, besides: Subject | None = None) -> Subject:
    """Give the last subject that has a folder of annotations: the first one only if there is no other."""
    return next(
        subject
        for subject in reversed(draft.subjects)
        if subject is not besides and (draft.annotations / subject.short_id).is_dir()
    )


@quirk("the last subject has images and no annotations")
def image_without_annotation(draft: Draft) -> None:
    subject = draft.later_subjects()[-1]
    shutil.rmtree(draft.annotations / subject.short_id)
    draft.marks = [mark for mark in draft.marks if mark.series.subject is not subject]


@quirk("annotations of a subject whose images have been withdrawn")
def removed_subject(draft: Draft) -> None:
    folder = draft.annotations / "A0999"
    folder.mkdir(parents=True)
    first = draft.subjects[0]
    for row in range(3):
        box = (10 + row, 12, 20 + row, 24)
        _write(folder / f"{draft.new_uid('removed', row)}.xml", voc([("A", box)], first.ct.size))


@quirk("an annotation that belongs to no image of its subject")
def xml_without_image(draft: Draft) -> None:
    subject = _last_annotated(draft)
    text = voc([(subject.letter, (10, 12, 20, 24))], subject.ct.size)
    _write(draft.annotations / subject.short_id / f"{draft.new_uid('orphan')}.xml", text)


@quirk("an annotation file has no bytes")
def xml_empty(draft: Draft) -> None:
    draft.take_mark().path.write_bytes(b"")


@quirk("an annotation file ends in the middle")
def xml_cut_off(draft: Draft) -> None:
    path = draft.take_mark().path
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@quirk("an annotation's label is an entity of entities, and another entity is a file outside")
def xml_with_entities(draft: Draft) -> None:
    mark = draft.take_mark()
    text = voc([("LABEL", mark.box)], mark.series.subject.ct.size)
    _write(mark.path, _ENTITIES + text.replace("LABEL", "&label;").replace("Unspecified", "&host;"))


@quirk("an annotation's label is Q, which stands for no diagnosis")
def xml_label_q(draft: Draft) -> None:
    mark = draft.take_mark()
    _replace(mark, ("Q", mark.box))


@quirk("an annotation has no object")
def xml_no_object(draft: Draft) -> None:
    _replace(draft.take_mark())


@quirk("an annotation has three objects: the tumour and two boxes beside it")
def xml_several_objects(draft: Draft) -> None:
    mark = draft.take_mark()
    letter, size = mark.series.subject.letter, mark.series.subject.ct.size
    small = (size // 2 - 4, size // 8, size // 2 + 3, size // 8 + 5)
    large = (size // 2 - 6, size // 2 + 2, size // 2 + 6, size // 2 + 12)
    _replace(mark, (letter, mark.box), (letter, small), (letter, large))


@quirk("a box of an annotation reaches past the right border of its image, and another lies wholly beyond it")
def xml_box_outside(draft: Draft) -> None:
    mark = draft.take_mark()
    letter, size = mark.series.subject.letter, mark.series.subject.ct.size
    _replace(mark, (letter, _shift(mark, size - mark.box[2] + 2)), (letter, _shift(mark, size + 10)))


@quirk("a slice has an annotation in the folder of another subject too, one pixel beside its own")
def xml_in_two_folders(draft: Draft) -> None:
    mark = draft.take_mark()
    own = mark.series.subject
    folder = draft.annotations / _last_annotated(draft, besides=own).short_id
    _write(folder / mark.path.name, voc([(own.letter, _shift(mark, 1))], own.ct.size))


@quirk("all boxes of one series bear a letter other than that of their folder")
def folder_letter_mismatch(draft: Draft) -> None:
    first = draft.take_mark()
    letter = LETTERS[(first.series.subject.number + 1) % len(LETTERS)]
    for mark in draft.marks:
        if mark.series is first.series and (mark is first or mark.path.name not in draft.spent):
            draft.spent.add(mark.path.name)
            _replace(mark, (letter, mark.box))


@quirk("the clinical sheet has no columns for weight and metastases")
def clinical_missing_column(draft: Draft) -> None:
    write_clinical(draft.clinical, draft.subjects, without=(CLINICAL_COLUMNS[4], CLINICAL_COLUMNS[7]))


MARK_QUIRKS: Final[tuple[Quirk, ...]] = (
    image_without_annotation,
    removed_subject,
    xml_without_image,
    folder_letter_mismatch,
    xml_empty,
    xml_cut_off,
    xml_with_entities,
    xml_label_q,
    xml_no_object,
    xml_several_objects,
    xml_box_outside,
    xml_in_two_folders,
    clinical_missing_column,
)
