import json
import pickle

import numpy as np
import pytest

from lesionzarr.annotations import boxes3d, lesanet, pairs
from lesionzarr.annotations._load import load
from lesionzarr.errors import SourceError
from lesionzarr.geometry import Box


@pytest.fixture(scope="module")
def mined(real):
    return lesanet.read_mined_labels(real / "lesanet" / "text_mined_labels_171_and_split.json")


def test_mined_labels_cover_the_published_number_of_lesions(mined):
    assert len(mined) == 24121
    assert sum(label.split == "train" for label in mined.values()) == 20266
    assert sum(not label.relevant for label in mined.values()) == 1429 + 124 + 118
    assert all(len(set(label.relevant)) == len(label.relevant) for label in mined.values())


def test_mined_labels_keep_their_order_and_lose_repetitions(mined, real):
    content = json.loads((real / "lesanet" / "text_mined_labels_171_and_split.json").read_text())
    first = content["val_relevant_labels"][0]
    assert first == [12, 61, 1, 7, 31, 31, 1, 7, 5, 4]
    terms = content["term_list"]
    assert mined[content["val_lesion_idxs"][0]].relevant == tuple(terms[i] for i in (12, 61, 1, 7, 31, 5, 4))


def test_hand_labels_keep_terms_that_are_outside_the_list(real):
    labels = lesanet.read_hand_labels(real / "lesanet" / "hand_labeled_test_set.json")
    terms = json.loads((real / "lesanet" / "text_mined_labels_171_and_split.json").read_text())["term_list"]
    assert len(labels) == 500
    assert labels[24941].text == "Left lower lobe juxtapleural wedge-shaped opacity"
    assert sum(term not in terms for label in labels.values() for term in label.terms) == 130


def test_labels_are_refused_for_a_table_of_another_length(mined):
    with pytest.raises(SourceError, match="4,889 rows"):
        lesanet.check_rows("DL_info_val.csv", 4889, dict.fromkeys(range(4889), "val"), mined)


def test_labels_are_refused_for_a_table_in_another_order(mined):
    splits = {row: mined[row].split if row in mined else "train" for row in range(lesanet.ROWS)}
    lesanet.check_rows("DL_info.csv", lesanet.ROWS, splits, mined)
    turned = dict(enumerate(reversed(splits.values())))
    with pytest.raises(SourceError, match="re-sorted"):
        lesanet.check_rows("DL_info.csv", lesanet.ROWS, turned, mined)


def test_boxes_of_the_released_pickle_and_of_json_are_equal(tmp_path):
    boxes = {"000046_03_02_086-104": [[179, 267, 91, 210, 301, 94]], "000001_01_01_103-115": []}
    as_json, as_pickle = tmp_path / "boxes.json", tmp_path / "boxes.pkl"
    as_json.write_text(json.dumps(boxes))
    arrays = {name: np.array(rows, dtype=float).reshape(-1, 6) for name, rows in boxes.items()}
    as_pickle.write_bytes(pickle.dumps({"val": arrays, "test": {}}, protocol=2))
    expected = {"000046_03_02_086-104": (Box(5, 267, 179, 8, 301, 210),), "000001_01_01_103-115": ()}
    assert boxes3d.read_boxes(as_json) == boxes3d.read_boxes(as_pickle) == expected


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (pickle.loads, (b"",))

    path = tmp_path / "boxes.pkl"
    path.write_bytes(pickle.dumps({"val": Harmful()}))
    with pytest.raises(SourceError, match="not plain data"):
        load(path)


def test_a_mark_gets_the_box_that_covers_it_best_and_each_box_once():
    boxes = [Box(2, 0, 0, 6, 20, 20), Box(2, 2, 2, 6, 12, 12), Box(8, 0, 0, 9, 20, 20)]
    marks = [Box(4, 2, 2, 4, 12, 12), Box(4, 1, 1, 4, 19, 19), Box(4, 50, 50, 4, 60, 60), Box(7, 0, 0, 7, 20, 20)]
    assert boxes3d.match(boxes, marks) == [1, 0, None, None]


@pytest.mark.parametrize(
    ("read", "content"),
    [
        (lesanet.read_mined_labels, {"term_list": []}),
        (lesanet.read_mined_labels, []),
        (lesanet.read_hand_labels, [{"text": "no index"}]),
        (boxes3d.read_boxes, {"not-a-sub-volume": [[1, 2, 3, 4, 5, 6]]}),
        (boxes3d.read_boxes, {"000001_01_01_103-115": [[1, 2, 3]]}),
        (boxes3d.read_boxes, [1]),
        (pairs.read_pairs, {"0001": {"source": "x"}}),
        (pairs.read_pairs, [1]),
    ],
)
def test_a_companion_file_of_another_kind_is_refused_by_name(tmp_path, read, content):
    path = tmp_path / "companion.json"
    path.write_text(json.dumps(content))
    with pytest.raises(SourceError, match=r"companion.json"):
        read(path)


def test_a_companion_file_that_is_no_json_is_refused(tmp_path):
    path = tmp_path / "companion.json"
    path.write_text("{")
    with pytest.raises(SourceError, match=r"companion.json"):
        load(path)
    with pytest.raises(SourceError, match=r"absent.json"):
        load(tmp_path / "absent.json")
