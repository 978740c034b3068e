"""Annotation files of the VOC kind: what is read from sound ones, and the line that each bad one gets."""

import shutil
import zipfile

import pytest

from lesionzarr.annotations.voc_boxes import DrawnBox, collect_boxes, unplaced_boxes
from lesionzarr.errors import SourceError
from lesionzarr.formats.voc import MAX_BYTES, VocImage, VocObject, read_voc

UID = "1.3.6.1.4.1.14519.5.2.1.1.{}"


def drawn(label="A", *corners, head="", **cells):
    box = "".join(
        f"<{name}>{value}</{name}>" for name, value in zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
    )
    inner = "".join(f"<{name}>{value}</{name}>" for name, value in cells.items())
    return f"<object><name>{label}</name>{inner}<bndbox>{box}</bndbox>{head}</object>"


def annotation(*objects, size="<size><width>512</width><height>400</height><depth>1</depth></size>", head=""):
    return f"{head}<annotation verified='no'><folder>Unknow</folder>{size}{''.join(objects)}</annotation>".encode()


def write(folder, subject, number, data):
    path = folder / subject / f"{UID.format(number)}.xml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def kinds(issues):
    return sorted((issue.kind, issue.item) for issue in issues)


def test_a_real_file_gives_the_numbers_that_stand_in_it(data):
    uid = "1.3.6.1.4.1.14519.5.2.1.6655.2359.122259036515695905512549026864"
    path = data / "lung_pet_ct_dx" / "Annotation" / "A0002" / f"{uid}.xml"
    text = path.read_text()
    corners = [float(text.split(f"<{name}>")[1].split("<")[0]) for name in ("xmin", "ymin", "xmax", "ymax")]
    assert read_voc(path.read_bytes(), path.name) == VocImage(512, 512, (VocObject("A", *corners),))


def test_every_object_is_read_with_what_older_and_newer_files_call_difficult():
    data = annotation(drawn(" A ", 1, 2, 3, 4, Difficult=1), drawn("A0192", 0, 0, 511, 399, difficult=0, pose="x"))
    objects = (VocObject("A", 1, 2, 3, 4, difficult=True), VocObject("A0192", 0, 0, 511, 399))
    assert read_voc(data, "a.xml") == VocImage(512, 400, objects)


def test_parts_of_an_object_with_boxes_of_their_own_are_not_taken_for_it():
    part = "<part><name>Q</name><bndbox><xmin>7</xmin></bndbox></part>"
    assert read_voc(annotation(drawn("A", 1, 2, 3, 4, head=part)), "a.xml").objects == (VocObject("A", 1, 2, 3, 4),)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_label_is_read_in_the_encoding_of_its_file(encoding):
    head = '<?xml version="1.0" encoding="latin-1"?>' if encoding == "latin-1" else ""
    data = annotation(drawn("é&lt;", 1, 2, 3, 4), head=head).decode().encode(encoding)
    assert read_voc(data, "a.xml").objects[0].name == "é<"


def test_a_file_without_size_or_object_says_so():
    assert read_voc(annotation(size=""), "a.xml") == VocImage(None, None, ())
    odd = annotation(size="<size><width>0</width><height>many</height></size>")
    assert read_voc(odd, "a.xml") == VocImage(None, None, ())


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>'
BAD = {
    "empty": (b"", r"empty file \(0 bytes\)"),
    "blank": (b" \n", r"empty file \(2 bytes\)"),
    "cut_off": (annotation(drawn("A", 1, 2, 3, 4))[:-30], "cut off or damaged XML"),
    "no_xml": (b"\x89PNG\r\n\x1a\n" + bytes(99), "cut off or damaged XML"),
    "two_roots": (annotation() * 2, "cut off or damaged XML"),
    "entities": (annotation(drawn("&c;", 1, 2, 3, 4), head=BOMB), "DOCTYPE"),
    "external": (annotation(head='<!DOCTYPE a SYSTEM "http://127.0.0.1:9/a.dtd">'), "DOCTYPE"),
    "undefined_entity": (annotation(drawn("&c;", 1, 2, 3, 4)), "undefined entity"),
    "unknown_encoding": (b"<?xml version='1.0' encoding='klingon'?><annotation/>", "unknown encoding"),
    "wide_encoding": (b"<?xml version='1.0' encoding='gbk'?><annotation/>", "UTF-8"),
    "wrong_root": (b"<html><body/></html>", "root is <html>"),
    "fraction": (annotation(drawn("A", 1.5, 2, 3, 4)), "xmin '1.5'.* whole numbers"),
    "no_number": (annotation(drawn("A", "nan", 2, 3, 4)), "xmin 'nan'.* whole numbers"),
    "no_box": (annotation("<object><name>A</name></object>"), "xmin ''.* whole numbers"),
    "reversed": (annotation(drawn("A", 30, 2, 3, 4)), "ends before it begins"),
    "two_boxes": (annotation(drawn("A", 1, 2, 3, 4, head="<bndbox><xmin>9</xmin></bndbox>")), "two of <xmin>"),
    "deep": (annotation("<a>" * 9 + "</a>" * 9), "nested past 8"),
    "crowded": (annotation(drawn("A", 1, 2, 3, 4) * 1001), "more than 1,000 objects"),
    "long": (annotation() + b" " * MAX_BYTES, "at most 1,048,576"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_refused_in_one_line_with_its_name_and_fault(fault):
    data, message = BAD[fault]
    with pytest.raises(SourceError, match=rf"^bad\.xml: .*{message}") as caught:
        read_voc(data, "bad.xml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("root", ["Annotation", "Annotation/A0002", ""])
def test_the_real_annotations_are_found_from_any_folder_about_them(data, root):
    table = collect_boxes(data / "lung_pet_ct_dx" / root)
    assert (len(table.boxes), table.files, table.failed, table.issues) == (18, 18, (), ())
    assert {box.folders for boxes in table.boxes.values() for box in boxes} == {("A0002",)}
    assert set(table.sizes.values()) == {(512, 512)}


def test_a_zip_of_the_annotations_gives_what_the_folder_does(data, tmp_path):
    folder = data / "lung_pet_ct_dx" / "Annotation"
    with zipfile.ZipFile(tmp_path / "annotations.zip", "w") as archive:
        for path in folder.rglob("*.xml"):
            archive.write(path, f"Annotation/{path.relative_to(folder)}")
            archive.writestr(f"__MACOSX/Annotation/A0002/._{path.name}", b"\0")
    assert collect_boxes(tmp_path / "annotations.zip").boxes == collect_boxes(folder).boxes


def test_bad_files_are_listed_and_the_rest_is_read(tmp_path):
    good = write(tmp_path, "A0001", 1, annotation(drawn("A", 1, 2, 3, 4)))
    for number, fault in enumerate(BAD, 2):
        write(tmp_path, "A0001", number, BAD[fault][0])
    shutil.copy(good, good.with_name(f"._{good.name}"))
    (tmp_path / "A0001" / ".DS_Store").write_bytes(b"\0")
    (tmp_path / "LICENSE").write_text("CC BY 4.0")
    table = collect_boxes(tmp_path)
    assert table.boxes == {UID.format(1): (DrawnBox(1, 2, 3, 4, "A", ("A0001",)),)}
    assert table.files == 1 + len(BAD)
    assert {issue.kind for issue in table.failed} == {"bad-annotation"}
    assert {issue.file for issue in table.failed} == {f"A0001/{UID.format(n)}.xml" for n in range(2, 2 + len(BAD))}
    assert table.issues == ()


def test_a_slice_boxed_in_two_folders_keeps_all_boxes_and_equal_ones_once(tmp_path):
    write(tmp_path, "A0251", 1, annotation(drawn("A", 1, 2, 3, 4), drawn("A", 1, 2, 3, 4), drawn("A", 9, 9, 9, 9)))
    write(tmp_path, "A0266", 1, annotation(drawn("A", 1, 2, 3, 4), drawn("A", 5, 5, 6, 6)))
    table = collect_boxes(tmp_path)
    assert table.boxes[UID.format(1)] == (
        DrawnBox(1, 2, 3, 4, "A", ("A0251", "A0266")),
        DrawnBox(5, 5, 6, 6, "A", ("A0266",)),
        DrawnBox(9, 9, 9, 9, "A", ("A0251",)),
    )
    assert kinds(table.issues) == [("annotated-twice", UID.format(1))]
    assert "A0251, A0266" in table.issues[0].message


def test_labels_that_are_no_class_or_not_the_subjects_are_kept_and_reported_once_a_folder(tmp_path):
    for number in range(3):
        write(tmp_path, "A0192", number, annotation(drawn("A0192", 1, 2, 3, 4)))
        write(tmp_path, "B0001", 10 + number, annotation(drawn("G", 1, 2, 3, 4), drawn("Q", 1, 2, 3, 4)))
    write(tmp_path, "E0001", 20, annotation())
    write(tmp_path, "others", 30, annotation(drawn("E", 1, 2, 3, 4)))
    table = collect_boxes(tmp_path)
    assert {box.label for boxes in table.boxes.values() for box in boxes} == {"A0192", "G", "Q", "E"}
    assert kinds(table.issues) == [
        *(("label-differs", "B0001"), ("no-object", UID.format(20))),
        *(("unknown-label", "A0192"), ("unknown-label", "B0001")),
    ]
    assert any("3 boxes are labelled 'G', the subject's letter is 'B'" in issue.message for issue in table.issues)


def test_annotated_slices_without_image_or_volume_are_listed(tmp_path):
    for number in range(4):
        write(tmp_path, "A0001", number, annotation(drawn("A", 1, 2, 3, 4)))
    for number in range(4, 9):
        write(tmp_path, "A0002", number, annotation(drawn("A", 1, 2, 3, 4)))
    in_volumes, images = {UID.format(0)}, {UID.format(0), UID.format(1)}
    issues = unplaced_boxes(collect_boxes(tmp_path), in_volumes, images)
    assert kinds(issues) == [
        ("annotation-outside-volume", UID.format(1)),
        *(("annotation-without-image", UID.format(number)) for number in (2, 3)),
        ("subject-without-images", "A0002"),
    ]
    assert "5 boxed slices" in issues[-1].message


@pytest.mark.parametrize("name", ["absent", "empty"])
def test_a_folder_without_annotations_is_refused_by_name(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match=name):
        collect_boxes(tmp_path / name)
