"""DL_info.csv against companion annotations that other groups published from the same table."""

from __future__ import annotations

import csv
import json
import re

import pytest

from lesionzarr.annotations import boxes3d, pairs
from lesionzarr.converters._deeplesion_table import group_marks, read_table
from lesionzarr.errors import SourceError

HEADER = (
    "File_name,Patient_index,Study_index,Series_ID,Key_slice_index,Measurement_coordinates,Bounding_boxes,"
    "Lesion_diameters_Pixel_,Normalized_lesion_location,Coarse_lesion_type,Possibly_noisy,Slice_range,Spacing_mm_px_,"
    "Image_size,DICOM_windows,Patient_gender,Patient_age,Train_Val_Test"
)
ROW = {
    "File_name": "000001_01_01_109.png",
    "Patient_index": "1",
    "Study_index": "1",
    "Series_ID": "1",
    "Key_slice_index": "109",
    "Measurement_coordinates": "233.537, 95.0204, 234.057, 106.977, 231.169, 101.605, 236.252, 101.143",
    "Bounding_boxes": "226.169, 90.0204, 241.252, 111.977",
    "Lesion_diameters_Pixel_": "11.9677, 5.10387",
    "Normalized_lesion_location": "0.44666, 0.283794, 0.434454",
    "Coarse_lesion_type": "3",
    "Possibly_noisy": "0",
    "Slice_range": "103, 115",
    "Spacing_mm_px_": "0.488281, 0.488281, 5",
    "Image_size": "512, 512",
    "DICOM_windows": "-175, 275",
    "Patient_gender": "F",
    "Patient_age": "62",
    "Train_Val_Test": "3",
}


def table(folder, *rows, header=HEADER):
    path = folder / "DL_info.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, header.split(","), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return read_table(path)


@pytest.fixture(scope="module")
def val(real):
    return read_table(real / "DL_info_val.csv")


def test_official_row_is_read_as_its_columns_say(tmp_path):
    (mark,) = table(tmp_path, {}).marks
    assert mark.lesion_id == "000001_01_01_109_1"
    assert mark.box == (225.169, 89.0204, 240.252, 110.977)
    assert mark.recist.axes[0] == (232.537, 94.0204, 233.057, 105.977)
    assert mark.recist.axes[1] == (230.169, 100.605, 235.252, 100.143)
    assert (mark.first, mark.last, mark.key_slice) == (103, 115, 109)
    assert mark.spacing_mm == (5.0, 0.488281, 0.488281)
    assert (mark.type, mark.split, mark.sex, mark.age, mark.noisy) == ("mediastinum", "test", "F", 62.0, False)
    assert (mark.window.low, mark.window.high) == (-175, 275)


def test_the_whole_validation_table_is_read(val):
    assert val.rows == len(val.marks) == 4889
    assert val.failed == ()
    assert [mark.row for mark in val.marks] == list(range(4889))
    assert {mark.split for mark in val.marks} == {"val"}
    assert sum(mark.noisy for mark in val.marks) == 2
    assert [mark.age for mark in val.marks].count(None) == 1
    assert len({mark.lesion_id for mark in val.marks}) == 4889


def test_sub_volumes_and_key_rows_are_those_of_lesion_harvester(val, real):
    published = json.loads((real / "harvester_recist_boxes_val.json").read_text())
    volumes = {volume.name: volume for volume in group_marks(val.marks)[0]}
    assert set(published) <= set(volumes)
    assert len(published) == 3001
    assert len(volumes) == 3003  # two of them are absent from the published file
    found = 0
    for name, slices in published.items():
        ours = [(mark.key_slice - volumes[name].first, mark.box) for mark in volumes[name].marks]
        for row, boxes in slices.items():
            for box in boxes:
                zero_based = pytest.approx([end - 1 for end in box[:4]], abs=0.001)
                assert sum(key == int(row) and zero_based == list(mark) for key, mark in ours) == 1
                found += 1
    assert found == 4885  # four of the table's marks are absent from the published file


def test_boxes_are_those_of_the_published_coco_export(val, real):
    coco = json.loads((real / "coco_val_mvpnet.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    theirs = {}
    for item in coco["annotations"]:
        x, y, width, height = item["bbox"]
        name = images[item["image_id"]]["file_name"].replace("/", "_")[: -len(".png")]
        # its convention: corner 0-based, width and height the plain differences x2 - x1 and y2 - y1
        theirs.setdefault(name, []).append((x, y, x + width, y + height))
    ours = {}
    for mark in val.marks:
        ours.setdefault(f"{mark.series_id}_{mark.key_slice:03d}", []).append(mark.box)
    assert set(ours) == set(theirs)
    for name, boxes in ours.items():
        for ours_box, their_box in zip(sorted(boxes), sorted(theirs[name]), strict=True):
            assert ours_box == pytest.approx(their_box, abs=1e-6)


def test_diameters_are_the_distances_of_the_end_points(val):
    for mark in val.marks:
        assert mark.recist.lengths_mm(1, 1) == pytest.approx(mark.diameters_px, abs=0.002)


def test_manual_boxes_land_inside_the_sub_volumes_that_they_name(real):
    boxes = boxes3d.read_boxes(real / "manual_3d_boxes_val200.json")
    assert len(boxes) == 200
    assert sum(map(len, boxes.values())) == 1292
    for name, here in boxes.items():
        first, last = map(int, re.fullmatch(r".*_(\d+)-(\d+)", name).groups())
        for box in here:
            assert 0 <= box.z0 <= box.z1 <= last - first
            assert 0 <= box.x0 <= box.x1 <= 511
            assert 0 <= box.y0 <= box.y1 <= 511


def test_every_side_of_every_published_pair_is_one_lesion(val, real):
    marks = {}
    for mark in val.marks:
        marks.setdefault((mark.series_id, mark.key_slice), []).append(mark)
    published = pairs.read_pairs(real / "dlt_lesion_pairs_valid.json")
    assert len(published) == 906
    for pair in published:
        for side in (pair.source, pair.target):
            assert sum(side.is_at(*mark.box[:2]) for mark in marks[side.series_id, side.key_slice]) == 1


def test_a_table_resaved_by_kaggle_gives_the_same_marks(val, real):
    kaggle = read_table(real / "Kaggle_DL_info_train_val.csv")
    assert len(kaggle.marks) == 1123
    assert kaggle.failed == ()
    official = {mark.lesion_id: mark for mark in val.marks}
    shared = [mark for mark in kaggle.marks if mark.split == "val" and mark.number == 1 and mark.lesion_id in official]
    assert len(shared) > 100
    for mark in shared:
        theirs = official[mark.lesion_id]
        assert (mark.recist, mark.box, mark.age, mark.spacing_mm) == (
            theirs.recist,
            theirs.box,
            theirs.age,
            theirs.spacing_mm,
        )
        assert set(mark.further) == {"kaggle_path", "Radius", "bbox"}
    assert {mark.type for mark in kaggle.marks if mark.split == "train"} == {None}


def test_real_training_rows_group_into_disjoint_sub_volumes(real):
    marks = read_table(real / "DL_info_train_patients_089-100.csv").marks
    assert len(marks) == 158
    volumes, issues = group_marks(marks)
    assert issues == []
    assert {(v.first, v.last) for v in volumes for m in v.marks} == {(m.first, m.last) for m in marks}


@pytest.mark.parametrize("resave", ["\ufeff{}", "crlf", "{}"])
def test_byte_order_mark_and_line_ends_do_not_matter(tmp_path, resave):
    expected = table(tmp_path, {}, {"File_name": "000001_01_01_110.png", "Key_slice_index": "110"}).marks
    path = tmp_path / "DL_info.csv"
    text = path.read_text()
    text = text.replace("\n", "\r\n") if resave == "crlf" else resave.format(text)
    path.write_bytes(text.encode())
    assert read_table(path).marks == expected


@pytest.mark.parametrize(
    "name",
    [
        "000001_01_01/109.png",
        r"000001_01_01\109.png",
        "Images_png/000001_01_01/109.png",
        r"D:\png\000001_01_01_109.png",
    ],
)
def test_either_separator_and_a_folder_before_are_understood(tmp_path, name):
    (mark,) = table(tmp_path, {"File_name": name}).marks
    assert (mark.series_id, mark.key_slice) == ("000001_01_01", 109)


def test_numbers_on_a_slice_do_not_depend_on_the_order_of_rows(tmp_path):
    rows = [{}, {"Measurement_coordinates": "33.5, 95, 34, 106, 31, 101, 36, 101"}, {"Patient_age": "62.0"}]
    rows[2]["Measurement_coordinates"] = "133.5, 95, 134, 106, 131, 101, 136, 101"
    there = {mark.recist: mark.lesion_id for mark in table(tmp_path, *rows).marks}
    back = {mark.recist: mark.lesion_id for mark in table(tmp_path, *rows[::-1]).marks}
    assert there == back
    assert sorted(there.values()) == [f"000001_01_01_109_{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("cells", "fault"),
    [
        ({"Measurement_coordinates": "233.5, 95.0"}, "8 numbers"),
        ({"Measurement_coordinates": "a, b, c, d, e, f, g, h"}, "8 numbers are needed"),
        ({"Bounding_boxes": "241, 90, 226, 111"}, "ends before it begins"),
        ({"Bounding_boxes": "nan, 90, 226, 111"}, "4 numbers"),
        ({"Bounding_boxes": ""}, "Bounding_boxes is empty"),
        ({"Slice_range": "115, 103"}, "runs backwards"),
        ({"Slice_range": "0, 103"}, "below 1"),
        ({"File_name": "../000001_01_01_109.png"}, "is not <series>_<slice>.png"),
        ({"File_name": "scan.dcm"}, "is not <series>_<slice>.png"),
        ({"Spacing_mm_px_": "0, 0, 5"}, "not positive"),
    ],
)
def test_an_unreadable_row_costs_itself_alone(tmp_path, cells, fault):
    found = table(tmp_path, {}, cells, {"File_name": "000001_01_01_110.png", "Key_slice_index": "110"})
    assert [mark.row for mark in found.marks] == [0, 2]
    (failure,) = found.failed
    assert failure.item == "row 1"
    assert fault in failure.message


@pytest.mark.parametrize(
    ("cells", "column", "value"),
    [
        ({"Patient_age": "NaN"}, "age", None),
        ({"Patient_age": "62.0"}, "age", 62.0),
        ({"Coarse_lesion_type": "-1"}, "type", None),
        ({"Spacing_mm_px_": "0.5, 0.5, NaN"}, "spacing_mm", (None, 0.5, 0.5)),
        ({"Spacing_mm_px_": "0.5, 0.5, -1"}, "spacing_mm", (None, 0.5, 0.5)),
        ({"DICOM_windows": "-177.5, 307.5"}, "window", (-177.5, 307.5)),
        ({"Patient_gender": ""}, "sex", None),
    ],
)
def test_a_value_that_is_missing_or_odd_is_kept_as_such(tmp_path, cells, column, value):
    (mark,) = table(tmp_path, cells).marks
    found = getattr(mark, column)
    assert ((found.low, found.high) if column == "window" else found) == value


@pytest.mark.parametrize(
    "cells",
    [{"Patient_age": "old"}, {"Coarse_lesion_type": "99"}, {"DICOM_windows": "275, -175"}, {"Key_slice_index": "7"}],
)
def test_an_odd_cell_is_noted_and_the_lesion_kept(tmp_path, cells):
    found = table(tmp_path, cells)
    assert len(found.marks) == 1
    assert [issue.kind for issue in found.issues] == ["odd-cell"]


def test_a_repeated_row_is_left_out_and_noted(tmp_path):
    found = table(tmp_path, {}, {})
    assert [mark.row for mark in found.marks] == [0]
    assert [(issue.kind, issue.item) for issue in found.issues] == [("duplicate-row", "row 1")]


def test_two_spacings_in_one_series_stay_two_sub_volumes(tmp_path):
    # series 003247_02_01 of the official table: slices 44-111 at 1 mm, 120-132 at 5 mm
    rows = [
        {"File_name": "003247_02_01_100.png", "Slice_range": "44, 111", "Spacing_mm_px_": "0.7, 0.7, 1"},
        {"File_name": "003247_02_01_126.png", "Slice_range": "120, 132", "Spacing_mm_px_": "0.7, 0.7, 5"},
    ]
    volumes, issues = group_marks(table(tmp_path, *rows).marks)
    assert [(v.name, v.spacing_mm[0]) for v in volumes] == [
        ("003247_02_01_044-111", 1.0),
        ("003247_02_01_120-132", 5.0),
    ]
    assert issues == []


def test_overlapping_ranges_become_one(tmp_path):
    rows = [
        {"File_name": "000001_01_01_105.png", "Slice_range": "103, 115"},
        {"File_name": "000001_01_01_112.png", "Slice_range": "110, 120"},
        {"File_name": "000001_01_01_122.png", "Slice_range": "121, 125"},
    ]
    (volume,) = group_marks(table(tmp_path, *rows).marks)[0]
    assert volume.name == "000001_01_01_103-125"


def test_rows_of_one_range_that_disagree_on_spacing_are_noted(tmp_path):
    rows = [{}, {"File_name": "000001_01_01_110.png", "Spacing_mm_px_": "0.488281, 0.488281, 2.5"}]
    (volume,), issues = group_marks(table(tmp_path, *rows).marks)
    assert volume.spacing_mm[0] == 5.0
    assert [issue.kind for issue in issues] == ["spacing-differs"]


def test_a_table_without_a_needed_column_is_refused(tmp_path):
    with pytest.raises(SourceError, match="column Slice_range is absent"):
        table(tmp_path, {}, header=HEADER.replace("Slice_range,", ""))


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00garbage\x80"])
def test_a_file_that_is_no_table_is_refused(tmp_path, content):
    path = tmp_path / "DL_info.csv"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"DL_info.csv"):
        read_table(path)
