"""Per-slice boxes linked into findings, and findings as rows of the lesion table."""

import io
import json
import zipfile
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionzarr.annotations.voc_boxes import BoxTable, DrawnBox, collect_boxes
from lesionzarr.annotations.voc_lesions import GAP, OVERLAP, SliceBox, lesions_of_volume, link_boxes
from lesionzarr.lesion import Lesion

pydicom = pytest.importorskip("pydicom", reason="the real series are read with pydicom")


def corners(low=0, high=60):
    ends = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    return st.tuples(ends, ends).map(lambda both: (both[0][0], both[1][0], both[0][1], both[1][1]))


def boxes(low=0, high=60, rows=8):
    one = st.tuples(st.integers(0, rows), corners(low, high), st.sampled_from("AQ"))
    return st.lists(one.map(lambda item: SliceBox(item[0], *map(float, item[1]), item[2])), max_size=14)


def overlap(a, b):
    """Count shared and covered pixels: the slow answer."""
    images = [np.zeros((64, 64), bool) for _ in range(2)]
    for image, box in zip(images, (a, b), strict=True):
        image[int(box.y0) : int(box.y1) + 1, int(box.x0) : int(box.x1) + 1] = True
    return (images[0] & images[1]).sum() / (images[0] | images[1]).sum()


def tumour(rows, x0=10, y0=10, side=20, label="A"):
    return [SliceBox(row, x0, y0, x0 + side - 1, y0 + side - 1, label) for row in rows]


@given(boxes())
def test_every_box_is_in_exactly_one_chain(slices):
    assert sorted(box for chain in link_boxes(slices) for box in chain) == sorted(slices)


@given(boxes())
def test_a_chain_has_one_label_one_box_a_slice_and_neighbours_that_obey_the_rule(slices):
    for chain in link_boxes(slices):
        rows = [box.row for box in chain]
        assert len({box.label for box in chain}) == 1
        assert all(0 < b - a <= GAP for a, b in pairwise(rows))
        assert all(overlap(a, b) >= OVERLAP for a, b in pairwise(chain))


@given(boxes(), st.data())
def test_the_order_of_the_boxes_has_no_influence(slices, draw):
    shuffled = draw.draw(st.permutations(slices))
    assert link_boxes(shuffled) == link_boxes(slices)


@given(boxes(), st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50))
def test_chains_move_with_their_boxes(slices, dz, dy, dx):
    def move(box):
        moved = (box.row + dz, box.x0 + dx, box.y0 + dy, box.x1 + dx, box.y1 + dy)
        return SliceBox(*moved, box.label)

    assert link_boxes([move(box) for box in slices]) == [tuple(map(move, chain)) for chain in link_boxes(slices)]


@given(boxes(0, 25), boxes(30, 60))
def test_tumours_that_lie_apart_never_mix(left, right):
    chains = link_boxes(left + right)
    assert sorted(chains) == sorted(link_boxes(left) + link_boxes(right))


@given(boxes())
def test_nothing_that_could_be_joined_is_left_apart(slices):
    chains = link_boxes(slices)
    for first in chains:
        for second in chains:
            a, b = first[-1], second[0]
            if a.label == b.label and 0 < b.row - a.row <= GAP:
                assert overlap(a, b) < OVERLAP


def test_a_tumour_that_ends_leaves_the_one_that_begins_beside_it_alone():
    first, second = tumour([0, 1, 2]), tumour([2, 3, 4], x0=26)
    assert link_boxes(second + first) == [tuple(first), tuple(second)]


def test_one_slice_without_a_box_is_bridged_and_two_are_not():
    assert len(link_boxes(tumour([0, 1, 3, 4]))) == 1
    assert len(link_boxes(tumour([0, 1, 4, 5]))) == 2


def test_a_neighbour_is_preferred_to_a_better_overlap_across_a_gap():
    slices = [*tumour([0, 2]), *tumour([1], x0=12)]
    assert len(link_boxes(slices)) == 1


def test_of_two_boxes_on_the_next_slice_the_better_overlap_is_joined():
    near, far = tumour([1], x0=11)[0], tumour([1], x0=20)[0]
    assert link_boxes([far, near, *tumour([0])]) == [(*tumour([0]), near), (far,)]


def test_a_stray_label_is_a_finding_of_its_own_and_cuts_no_tumour():
    slices = [*tumour([0, 1, 3]), *tumour([2], label="Q")]
    assert [[box.row for box in chain] for chain in link_boxes(slices)] == [[0, 1, 3], [2]]


@pytest.fixture(scope="module")
def series(data):
    """Slices of the two real series by kernel, sorted by position with pydicom."""
    found = {}
    with zipfile.ZipFile(data / "lung_pet_ct_dx" / "Lung_Dx-A0002_manifest.zip") as archive:
        for name in archive.namelist():
            if name.endswith(".dcm"):
                header = pydicom.dcmread(io.BytesIO(archive.read(name)), stop_before_pixels=True)
                found.setdefault(header.ConvolutionKernel, []).append(header)
    return {key: sorted(part, key=lambda head: head.ImagePositionPatient[2]) for key, part in found.items()}


@pytest.mark.parametrize(("kernel", "count", "positions_mm"), [("B40f", 10, (176, 248)), ("B70f", 8, (176, 232))])
def test_each_real_series_has_one_tumour_over_consecutive_slices(data, series, kernel, count, positions_mm):
    headers = series[kernel]
    folder = data / "lung_pet_ct_dx" / "Annotation"
    (lesion,), issues = lesions_of_volume(
        headers[0].SeriesInstanceUID,
        headers[0].SeriesInstanceUID,
        headers[0].StudyInstanceUID,
        headers[0].PatientID,
        sop_uids=[header.SOPInstanceUID for header in headers],
        size=(headers[0].Rows, headers[0].Columns),
        table=collect_boxes(folder),
    )
    assert issues == []
    slice_boxes = np.array(lesion.extras["slice_boxes"])
    assert len(slice_boxes) == count
    for row, x0, y0, x1, y1 in slice_boxes:
        header = headers[int(row)]
        text = (folder / "A0002" / f"{header.SOPInstanceUID}.xml").read_text()
        for name, value in zip(("xmin", "ymin", "xmax", "ymax"), (x0, y0, x1, y1), strict=True):
            assert f"<{name}>{value:.0f}</{name}>" in text
        assert 0 <= x0 < x1 < header.Columns == 512
        assert 0 <= y0 < y1 < header.Rows == 512
    ends = tuple(headers[int(row)].ImagePositionPatient[2] for row in (lesion.z0, lesion.z1))
    assert ends == positions_mm
    assert [lesion.x0, lesion.y0] == list(slice_boxes[:, 1:3].min(axis=0))
    assert [lesion.x1, lesion.y1] == list(slice_boxes[:, 3:].max(axis=0))
    areas = (slice_boxes[:, 3] - slice_boxes[:, 1] + 1) * (slice_boxes[:, 4] - slice_boxes[:, 2] + 1)
    assert lesion.key_z == slice_boxes[areas.argmax(), 0]
    assert lesion.key_slice == headers[lesion.key_z].SOPInstanceUID
    assert (lesion.type, lesion.labels, lesion.patient_id) == ("adenocarcinoma", ("A",), "Lung_Dx-A0002")
    overlaps = [overlap_512(a, b) for a, b in pairwise(slice_boxes)]
    assert min(overlaps) > 3 * OVERLAP


def overlap_512(a, b):
    images = [np.zeros((512, 512), bool) for _ in range(2)]
    for image, (_, x0, y0, x1, y1) in zip(images, (a.astype(int), b.astype(int)), strict=True):
        image[y0 : y1 + 1, x0 : x1 + 1] = True
    return (images[0] & images[1]).sum() / (images[0] | images[1]).sum()


def place(boxes, patient="Lung_Dx-A0001", sizes=None, size=(100, 80)):
    """Make the lesions of a volume v of nine slices 1.0 to 1.8, given its boxes by row."""
    table = BoxTable({f"1.{row}": tuple(items) for row, items in boxes.items()}, sizes or {}, 0, (), ())
    return lesions_of_volume("v", "s", "t", patient, sop_uids=[f"1.{n}" for n in range(9)], size=size, table=table)


def box(*corners, label="A", folder="A0001", difficult=False):
    return DrawnBox(*map(float, corners), label, (folder,), difficult)


def test_a_finding_is_the_row_that_a_hand_would_write():
    lesions, issues = place({3: [box(10, 20, 19, 29), box(60, 5, 62, 9)], 4: [box(8, 22, 18, 31, difficult=True)]})
    assert issues == []
    assert lesions[0] == Lesion(
        lesion_id="v_lesion1",
        volume_id="v",
        series_id="s",
        study_id="t",
        patient_id="Lung_Dx-A0001",
        source="lung-pet-ct-dx",
        key_z=4,
        key_slice="1.4",
        x0=8.0,
        y0=20.0,
        x1=19.0,
        y1=31.0,
        z0=3.0,
        z1=4.0,
        type="adenocarcinoma",
        labels=("A",),
        derived=("key_z", "key_slice", "x0", "y0", "x1", "y1", "z0", "z1", "type"),
        extra=json.dumps(
            {
                "slice_boxes": [[3, 10.0, 20.0, 19.0, 29.0], [4, 8.0, 22.0, 18.0, 31.0]],
                "class_letter": "A",
                "subject_letter": "A",
                "subject_type": "adenocarcinoma",
                "annotation_folders": ["A0001"],
                "difficult": True,
            }
        ),
    )
    assert (lesions[1].lesion_id, lesions[1].box.centre) == ("v_lesion2", (3.0, 7.0, 61.0))
    assert lesions[1].derived == ("key_z", "z0", "z1", "type")
    assert Lesion.from_row(json.loads(json.dumps(lesions[0].to_row()))) == lesions[0]


def test_of_several_largest_boxes_the_lowest_row_is_the_key_slice():
    lesions, _ = place({row: [box(10, 10, 19, 19)] for row in (5, 6, 7)})
    assert lesions[0].key_z == 5


def test_an_unknown_label_has_no_type_and_a_class_that_is_not_the_subjects_keeps_both():
    (odd, other), issues = place({1: [box(1, 1, 9, 9, label="Q"), box(30, 1, 39, 9, label="G")]})
    assert (odd.type, odd.labels, "class_letter" in odd.extras) == (None, ("Q",), False)
    assert "type" not in odd.derived
    assert other.type == "squamous cell carcinoma"
    assert (other.extras["class_letter"], other.extras["subject_letter"]) == ("G", "A")
    assert other.extras["subject_type"] == "adenocarcinoma"
    assert issues == []


def test_a_box_that_leaves_the_image_is_kept_as_drawn_and_one_outside_is_left_out():
    lesions, issues = place(
        {0: [box(0, 0, 79, 99)], 2: [box(70, 90, 80, 99)], 5: [box(80, 0, 90, 10)], 8: [box(-9, 0, -1, 1)]}
    )
    assert [(lesion.x0, lesion.x1, lesion.key_z) for lesion in lesions] == [(0, 79, 0), (70, 80, 2)]
    assert [(issue.kind, issue.item) for issue in issues] == [("box-outside", f"1.{row}") for row in (2, 5, 8)]
    assert "kept as drawn" in issues[0].message
    assert all("left out" in issue.message for issue in issues[1:])


def test_another_image_size_and_another_subjects_folder_are_reported_once_a_volume():
    boxes = {row: [box(10, 10, 19, 19, folder="A0266")] for row in range(4)}
    lesions, issues = place(boxes, sizes={f"1.{row}": (512, 512) for row in range(9)}, size=(200, 200))
    assert [(issue.kind, issue.item) for issue in issues] == [("annotation-size", "v"), ("other-subject", "v")]
    assert lesions[0].extras["annotation_folders"] == ["A0266"]


def test_a_volume_without_boxes_has_no_lesions():
    assert place({}) == ([], [])
