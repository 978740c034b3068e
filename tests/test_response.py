"""Response by RECIST 1.1 and by pyrecist, and where the two differ."""

import math

import numpy as np
import pandas as pd
import pytest

from lesionzarr.errors import NotFoundError, SettingError
from lesionzarr.features.plots import plot_response
from lesionzarr.features.response import COLUMNS
from lesionzarr.features.response import evaluate as evaluate_all
from lesionzarr.features.timepoints import to_timepoints

DATES = [f"2022-{month:02d}-01" for month in range(1, 13)]


def course(*visits, nodes=(), categories=None, statuses=None, patient=1):
    """One row for each lesion and visit; a visit is the diameters by alias."""
    rows = [
        {
            "patient_id": patient,
            "study_date": date,
            "alias": alias,
            "diameter_mm": diameter,
            "node": alias in nodes,
            "category": (categories or {}).get(alias, "target"),
            "status": (statuses or {}).get((alias, n)),
        }
        for n, (date, visit) in enumerate(zip(DATES, visits, strict=False))
        for alias, diameter in visit.items()
    ]
    return pd.DataFrame(rows)


def evaluate(frame, **settings):
    """Evaluate a table; what was odd in it is left aside."""
    return evaluate_all(frame, **settings)[0]


def responses(frame, mode="recist-1.1"):
    return [None if pd.isna(given) else given for given in evaluate(frame, mode=mode)["response"]][1:]


def both(frame):
    return responses(frame), responses(frame, "pyrecist")


# --- the standard ---


@pytest.mark.parametrize(
    ("sums", "expected"),
    [
        ([100, 71], ["SD"]),
        ([100, 70], ["PR"]),
        ([100, 119], ["SD"]),
        ([100, 120], ["PD"]),
        # 20 % of the nadir, and not of the baseline
        ([100, 80, 95.9], ["SD", "SD"]),
        ([100, 80, 96], ["SD", "PD"]),
        # the nadir is the smallest sum so far, also where it is not the last
        ([100, 80, 90, 96], ["SD", "SD", "PD"]),
        # 20 % that are less than 5 mm
        ([20, 24.9], ["SD"]),
        ([20, 25], ["PD"]),
        # 5 mm that are less than 20 %
        ([100, 110], ["SD"]),
        ([100, 0], ["CR"]),
        ([100, 60, 0], ["PR", "CR"]),
        # decimals that binary numbers miss
        ([30.3, 21.21], ["PR"]),
        ([30.3, 36.36], ["PD"]),
    ],
)
def test_limits_are_those_of_the_guideline(sums, expected):
    assert responses(course(*({"A": total} for total in sums))) == expected


def test_partial_response_lasts_until_progression():
    # the example of the RECIST working group: 100, 70, 70, 80, 80, 80 is PR throughout
    assert responses(course(*({"A": total} for total in (100, 70, 70, 80, 80, 80)))) == ["PR"] * 5
    # and theirs of a sum just above its nadir: 165, 63, 65
    assert responses(course(*({"A": total} for total in (165, 63, 65)))) == ["PR", "PR"]


def test_nothing_is_said_after_progression():
    table = evaluate(course({"A": 20}, {"A": 40}, {"A": 10}))
    assert table["response"].tolist()[1:] == ["PD", pd.NA]
    assert table["target_response"].tolist()[1:] == ["PD", "PR"]


def test_a_table_has_a_row_for_each_visit_and_its_sums():
    table = evaluate(course({"A": 30, "B": 20}, {"A": 20, "B": 20}, {"A": 25, "B": 20}))
    assert list(table.columns) == list(COLUMNS)
    assert table["sum_mm"].tolist() == [50, 40, 45]
    assert table["nadir_mm"].tolist() == [50, 50, 40]
    assert table["nadir_date"].dt.strftime("%Y-%m-%d").tolist() == [DATES[0], DATES[0], DATES[1]]
    assert table["change_from_baseline_percent"].tolist() == pytest.approx([0, -20, -10])
    assert table["change_from_nadir_mm"].tolist() == [0, -10, 5]
    assert table["visit"].tolist() == [0, 1, 2]


def test_rows_and_patients_may_come_in_any_order():
    frame = pd.concat([course({"A": 30}, {"A": 20}, patient=2), course({"A": 30}, {"A": 40}, patient=1)])
    shuffled = frame.sample(frac=1, random_state=3)
    pd.testing.assert_frame_equal(evaluate(shuffled), evaluate(frame))
    assert evaluate(frame)["patient_id"].tolist() == [1, 1, 2, 2]


def test_an_unmeasured_target_adds_nothing_to_the_nadir():
    table = evaluate(course({"A": 30, "B": 30}, {"A": 30, "B": math.nan}, {"A": 30, "B": 30}))
    assert np.isnan(table["sum_mm"][1])
    assert table["nadir_mm"].tolist() == [60, 60, 60]
    assert table["response"].tolist()[1:] == ["NE", "SD"]


def test_a_baseline_that_was_not_measured_leaves_all_unknown_but_new_lesions():
    frame = course({"A": 30, "B": math.nan}, {"A": 30, "B": 30}, {"A": 30, "B": 30, "C": 12}, categories={"C": "new"})
    assert responses(frame) == ["NE", "PD"]


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        (["present", "present"], "PR"),
        (["present", "absent"], "CR"),
        (["present", "progression"], "PD"),
        (["present", None], "PR"),
    ],
)
def test_vanished_targets_meet_the_other_lesions_as_in_table_1(states, expected):
    statuses = {("N", n): state for n, state in enumerate(states)}
    frame = course({"A": 30, "N": math.nan}, {"A": 0, "N": math.nan}, categories={"N": "non-target"}, statuses=statuses)
    assert responses(frame) == [expected]


@pytest.mark.parametrize(
    ("state", "expected"),
    [("present", "Non-CR/Non-PD"), ("absent", "CR"), ("progression", "PD"), (None, "NE")],
)
def test_patients_without_targets_go_by_table_2(state, expected):
    statuses = {("N", 0): "present", ("N", 1): state}
    frame = course({"N": math.nan}, {"N": math.nan}, categories={"N": "non-target"}, statuses=statuses)
    assert responses(frame) == [expected]


def test_a_lesion_that_the_baseline_does_not_have_is_new_but_for_a_small_node():
    assert responses(course({"A": 30}, {"A": 30, "B": 6})) == ["PD"]
    assert responses(course({"A": 30}, {"A": 30, "B": 9}, {"A": 30, "B": 10}, nodes={"B"})) == ["SD", "PD"]
    assert responses(course({"A": 30}, {"A": 30, "B": 10}, nodes={"B"})) == ["PD"]
    assert evaluate(course({"A": 30}, {"A": 30, "B": 6}, {"A": 30, "B": 6}))["new_lesions"].tolist() == [0, 1, 0]


@pytest.mark.parametrize("listed", [0, math.nan])
def test_a_lesion_that_was_listed_and_not_there_is_new_when_it_is_there(listed):
    frame = course({"A": 30}, {"A": 30, "Z": listed}, {"A": 30, "Z": 20}, {"A": 30, "Z": 20})
    assert evaluate(frame)["new_lesions"].tolist() == [0, 0, 1, 0]
    assert responses(frame) == ["SD", "PD", None]


def test_a_target_of_0_mm_at_the_baseline_is_none_and_told():
    table, issues = evaluate_all(course({"A": 100, "B": 0}, {"A": 100, "B": 15}))
    assert [(issue.kind, issue.item) for issue in issues] == [("no-target", "row 1")]
    assert table["sum_mm"].tolist() == [100, 100]
    assert table["response"].tolist()[1:] == ["PD"]
    # what was not measured may have been there
    assert responses(course({"A": 100, "B": math.nan}, {"A": 100, "B": 15})) == ["NE"]


@pytest.mark.parametrize(
    ("diameter", "status", "node", "expected"),
    [
        (15, "present", False, "PD"),
        (15, None, False, "PD"),
        (math.nan, "progression", False, "PD"),
        (15, "absent", False, "SD"),
        (math.nan, None, False, "SD"),
        (10, "present", True, "PD"),
        (9, "present", True, "SD"),
    ],
)
def test_a_lesion_that_is_no_target_is_new_where_the_baseline_lacks_it(diameter, status, node, expected):
    kinds, statuses = {"N": "non-target"}, {("N", 1): status, ("N", 2): status}
    nodes = {"N"} if node else ()
    frame = course({"A": 30}, {"A": 30, "N": diameter}, categories=kinds, statuses=statuses, nodes=nodes)
    assert responses(frame) == [expected]
    assert evaluate(frame)["new_lesions"].tolist() == [0, int(expected == "PD")]
    # listed at the baseline as absent, it was not there either
    frame = course(
        {"A": 30, "N": 0},
        {"A": 30, "N": diameter},
        categories=kinds,
        statuses=statuses | {("N", 0): "absent"},
        nodes=nodes,
    )
    assert responses(frame) == [expected]


def test_a_node_that_is_no_target_and_comes_back_after_complete_response_is_no_progression():
    visits = [{"A": a, "N": n} for a, n in ((30, 15), (0, 8), (0, 14))]
    assert responses(course(*visits, categories={"N": "non-target"}, nodes={"N"})) == ["CR", "PR"]
    assert responses(course(*visits, nodes={"N"})) == ["CR", "PD"]


def test_what_vanishes_and_comes_back_without_complete_response_is_no_progression():
    assert responses(course({"A": 40, "B": 10}, {"A": 40, "B": 0}, {"A": 40, "B": 5})) == ["SD", "SD"]


# --- pyrecist ---


def test_pyrecists_own_case_gives_its_expected_evaluation(data):
    measured = pd.read_csv(data / "recist" / "pyrecist_synthetic_measurements.csv")
    expected = pd.read_csv(data / "recist" / "pyrecist_synthetic_evaluation.csv")
    table = evaluate(to_timepoints(measured), mode="pyrecist").iloc[1:].reset_index(drop=True)
    names = {
        "sum_mm": "current_burden",
        "baseline_mm": "baseline_burden",
        "nadir_mm": "min_burden",
        "change_from_baseline_mm": "burden_difference_from_baseline",
        "change_from_baseline_percent": "burden_percentual_variation_from_baseline",
        "change_from_nadir_mm": "burden_difference_from_nadir",
        "change_from_nadir_percent": "burden_percentual_variation_from_nadir",
    }
    assert len(table) == len(expected) == 5
    for ours, theirs in names.items():
        assert table[ours].tolist() == pytest.approx(expected[theirs].tolist())
    for ours, theirs in {
        "study_date": "current_date",
        "baseline_date": "baseline_date",
        "nadir_date": "nadir_date",
    }.items():
        assert table[ours].dt.strftime("%Y%m%d").tolist() == expected[theirs].astype(str).tolist()
    assert table["response"].fillna("").tolist() == expected["classification"].fillna("").tolist()
    # the case has nothing in which the standard differs
    pd.testing.assert_series_equal(
        evaluate(to_timepoints(measured))["response"].iloc[1:].reset_index(drop=True), table["response"]
    )


def test_difference_pyrecist_never_gives_complete_response():
    assert both(course({"A": 30}, {"A": 0})) == (["CR"], ["PR"])
    assert both(course({"A": 30}, {"A": 15}, {"A": 0})) == (["PR", "CR"], ["PR", "PR"])


def test_difference_nodes_under_10_mm_are_complete_response():
    assert both(course({"A": 30, "N": 20}, {"A": 0, "N": 9.9}, nodes={"N"})) == (["CR"], ["PR"])
    assert both(course({"A": 30, "N": 20}, {"A": 0, "N": 10}, nodes={"N"})) == (["PR"], ["PR"])
    # nodes shrink to normal without a third of the sum being gone
    assert both(course({"N": 15}, {"N": 9.9}, nodes={"N"})) == (["CR"], ["PR"])
    assert both(course({"N": 12}, {"N": 9.5}, nodes={"N"})) == (["CR"], ["SD"])


def test_difference_what_comes_back_after_complete_response_is_progression():
    assert both(course({"A": 30}, {"A": 0}, {"A": 3})) == (["CR", "PD"], ["PR", "PR"])
    # a node has come back when it has 10 mm, whatever the growth
    frame = course({"N": 20}, {"N": 9}, {"N": 9.5}, {"N": 10}, nodes={"N"})
    assert both(frame) == (["CR", "CR", "PD"], ["PR", "PR", "PR"])
    frame = course(
        *({"A": size, "N": math.nan} for size in (30, 0, 0)),
        categories={"N": "non-target"},
        statuses={("N", 0): "present", ("N", 1): "absent", ("N", 2): "present"},
    )
    assert both(frame) == (["CR", "PD"], ["PR", "PR"])


def test_difference_new_lesions_are_progression_and_no_part_of_the_sum():
    frame = course({"A": 30}, {"A": 15}, {"A": 15, "B": 6}, categories={"B": "new"})
    assert both(frame) == (["PR", "PD"], ["PR", "PD"])
    assert evaluate(frame)["sum_mm"].tolist() == [30, 15, 15]
    assert evaluate(frame, mode="pyrecist")["sum_mm"].tolist() == [30, 15, 21]
    # one of 4 mm does not move pyrecist's sum far enough
    frame = course({"A": 30}, {"A": 30, "B": 4}, categories={"B": "new"})
    assert both(frame) == (["PD"], ["SD"])


def test_difference_other_lesions_are_no_part_of_the_sum():
    categories = {"N": "non-target"}
    frame = course({"A": 30, "N": 20}, {"A": 30, "N": 31}, categories=categories)
    assert both(frame) == (["SD"], ["PD"])
    frame = course({"A": 30, "N": 40}, {"A": 21, "N": 40}, categories=categories)
    assert both(frame) == (["PR"], ["SD"])


def test_difference_unequivocal_progression_of_other_lesions_is_progression():
    statuses = {("N", 0): "present", ("N", 1): "progression"}
    frame = course({"A": 30, "N": 20}, {"A": 30, "N": 21}, categories={"N": "non-target"}, statuses=statuses)
    assert both(frame) == (["PD"], ["SD"])


def test_difference_a_target_that_was_not_measured_is_not_evaluable():
    assert both(course({"A": 30, "B": 30}, {"A": 30})) == (["NE"], ["PR"])
    assert both(course({"A": 30, "B": 30}, {"A": 30, "B": math.nan})) == (["NE"], ["PR"])
    # the guideline's own example: 50 mm of three lesions, then 80 mm of two of them
    frame = course({"A": 20, "B": 20, "C": 10}, {"A": 40, "B": 40})
    assert both(frame) == (["PD"], ["PD"])


def test_difference_a_nadir_of_nothing_is_not_divided_by():
    frame = course({"A": 0, "N": 12}, {"A": 0, "N": 0}, {"A": 0, "N": 4}, nodes={"N"})
    table, other = evaluate(frame), evaluate(frame, mode="pyrecist")
    assert table["response"].tolist()[1:] == ["CR", "CR"]
    assert np.isnan(table["change_from_nadir_percent"][2])
    assert np.isinf(other["change_from_nadir_percent"][2])


def test_difference_a_patient_with_one_study_stays_in_the_table():
    frame = course({"A": 30})
    assert len(evaluate(frame)) == 1
    assert evaluate(frame)["response"].isna().all()
    assert evaluate(frame, mode="pyrecist").empty


# --- tables ---


def test_real_measurements_become_timepoints(data):
    rows = pd.read_csv(data / "recist" / "published_recist_measurements_first_last_rows.csv", comment=None)
    rows = rows[rows["patient_id"] != "..."]
    for column in ("recist_measurement_mm", "study_date"):
        rows[column] = rows[column].astype(int)
    frame = to_timepoints(rows)
    # patient 37 has an A in the abdomen and another in the thorax on one day
    assert frame[frame["patient_id"].astype(str) == "37"]["alias"].tolist() == ["abdomen/A", "thorax/A"]
    assert frame["node"].sum() == (rows["lesion_label_type"] == "n").sum() > 0
    table = evaluate(frame)
    assert set(table["patient_id"].astype(str)) == {"1", "2", "3", "35", "37", "44"}
    assert table["sum_mm"].notna().all()


@pytest.mark.parametrize("word", ["n", "N", " n ", "lymph node", "Lymph Node"])
def test_a_lymph_node_is_one_however_it_is_written(word):
    rows = [("2020-01-01", 20), ("2020-03-01", 9)]
    frame = pd.DataFrame(rows, columns=["study_date", "measurement"])
    frame = frame.assign(patient_id=1, alias="A", lesion_label_type=word)
    assert responses(to_timepoints(frame)) == ["CR"]


def test_a_store_s_lesions_give_the_diameter_that_counts():
    lesions = pd.DataFrame(
        {
            "patient_id": ["1", "1", "1"],
            "study_date": ["2020-01-01"] * 3,
            "alias": ["A", "B", None],
            "node": [False, True, False],
            "long_mm": [30.0, None, 5.0],
            "short_mm": [20.0, 12.0, 4.0],
        }
    )
    assert to_timepoints(lesions)["diameter_mm"].tolist() == [30, 12]


@pytest.fixture
def two_patients():
    """Two patients whose targets A shrink from 30 to 20 mm and whose B stay as they are."""
    visits = {"A": 30, "B": 10}, {"A": 15, "B": 10}
    return pd.concat([course(*visits, patient=1), course(*visits, patient=2)], ignore_index=True)


def test_a_table_without_faults_has_no_issues(two_patients):
    table, issues = evaluate_all(two_patients)
    assert issues == []
    assert table["response"].tolist() == [pd.NA, "PR"] * 2


@pytest.mark.parametrize(
    ("column", "cell", "kind", "message"),
    [
        ("diameter_mm", -1.0, "bad-diameter", "-1.0 is no length"),
        ("diameter_mm", "9,2", "bad-diameter", "'9,2' is no length"),
        ("diameter_mm", math.inf, "bad-diameter", "inf is no length"),
        ("diameter_mm", None, "no-diameter", "no diameter"),
        ("diameter_mm", " ", "no-diameter", "no diameter"),
    ],
)
def test_a_diameter_that_is_none_counts_as_not_measured(two_patients, column, cell, kind, message):
    frame = two_patients.astype({column: object})
    frame.loc[2, column] = cell
    table, issues = evaluate_all(frame)
    assert [(issue.kind, issue.item) for issue in issues] == [(kind, "row 2")]
    assert message in issues[0].message
    assert table["response"].tolist() == [pd.NA, "NE", pd.NA, "PR"]
    assert table["sum_mm"].tolist() == pytest.approx([40, math.nan, 40, 25], nan_ok=True)
    # what is not there adds nothing in pyrecist
    assert evaluate(frame, mode="pyrecist")["sum_mm"].tolist() == [40, 10, 40, 25]


@pytest.mark.parametrize("cell", ["01.02.2020", "2020-02-30", "20-200130", "2020013", "", None, math.nan])
@pytest.mark.parametrize("mode", ["recist-1.1", "pyrecist"])
def test_a_row_without_a_date_leaves_its_patient_open_and_no_other(two_patients, cell, mode):
    frame = two_patients.astype({"study_date": object})
    frame.loc[1, "study_date"] = cell
    table, issues = evaluate_all(frame, mode=mode)
    assert [(issue.kind, issue.item) for issue in issues] == [("bad-date", "row 1")]
    assert "YYYY-MM-DD" in issues[0].message
    assert "patient 1 is not evaluated" in issues[0].message
    # the sums of its other rows are there; the row may have been another study
    assert table["sum_mm"].tolist()[0] == 30
    unknown = "NE" if mode == "recist-1.1" else pd.NA
    assert table["response"].tolist() == [pd.NA, unknown, pd.NA, "PR"]


@pytest.mark.parametrize(
    ("column", "cell", "kind", "message"),
    [
        ("alias", None, "no-alias", "no alias"),
        ("alias", "", "no-alias", "no alias"),
        ("category", "measurable", "bad-category", "'measurable' is none of target, non-target, new"),
        ("category", None, "bad-category", "no category; the row"),
    ],
)
def test_a_row_that_cannot_be_placed_leaves_its_patient_open_and_no_other(two_patients, column, cell, kind, message):
    two_patients.loc[3, column] = cell
    table, issues = evaluate_all(two_patients)
    assert [(issue.kind, issue.item) for issue in issues] == [(kind, "row 3")]
    assert message in issues[0].message
    assert table["response"].tolist() == [pd.NA, "NE", pd.NA, "PR"]


def test_a_row_without_a_patient_is_left_out(two_patients):
    frame = two_patients.astype({"patient_id": object})
    frame.loc[len(frame)] = {**frame.loc[0], "patient_id": None}
    table, issues = evaluate_all(frame)
    assert [issue.kind for issue in issues] == ["no-patient"]
    assert table["response"].tolist() == [pd.NA, "PR"] * 2


def test_an_unknown_state_or_kind_of_lesion_is_told_and_taken_for_none(two_patients):
    frame = two_patients.assign(category=["target", "non-target"] * 4).astype({"status": object, "node": object})
    frame.loc[1, "status"] = frame.loc[5, "status"] = "present"
    frame.loc[3, "status"] = "gone"
    frame.loc[0, "node"] = "perhaps"
    table, issues = evaluate_all(frame)
    assert [(issue.kind, issue.item) for issue in issues] == [("bad-status", "row 3"), ("bad-node", "row 0")]
    assert table["response"].tolist() == [pd.NA, "PR"] * 2


def test_words_of_a_csv_are_read_as_people_write_them(two_patients):
    frame = two_patients.assign(category=["Target", "NON-TARGET "] * 4, node=["false", "TRUE", "0", "1"] * 2)
    table, issues = evaluate_all(frame.astype("string"))
    assert issues == []
    assert table["sum_mm"].tolist() == [30, 15, 30, 15]
    # lymph nodes of 10 mm are still there
    assert table["non_target_response"].tolist() == [pd.NA, "Non-CR/Non-PD"] * 2


def test_of_two_rows_for_one_lesion_the_first_counts_unless_they_differ(two_patients):
    same = pd.concat([two_patients, two_patients.loc[[2]]], ignore_index=True)
    table, issues = evaluate_all(same)
    assert [(issue.kind, issue.item) for issue in issues] == [("double-row", "row 8")]
    assert table["response"].tolist() == [pd.NA, "PR"] * 2
    other = pd.concat([two_patients, two_patients.loc[[2]].assign(diameter_mm=29.0)], ignore_index=True)
    table, issues = evaluate_all(other)
    assert [issue.item for issue in issues] == ["row 8"]
    assert table["response"].tolist() == [pd.NA, "NE", pd.NA, "PR"]


def test_issues_of_a_store_name_the_lesion(two_patients):
    frame = two_patients.set_index(pd.Index([f"L{n}" for n in range(8)], name="lesion_id"))
    frame.loc["L4", "diameter_mm"] = -3
    _, issues = evaluate_all(frame)
    assert (issues[0].item, issues[0].lesions) == ("L4", ("L4",))


def test_missing_columns_and_unknown_modes_are_named():
    for name, others in {
        "diameter_mm": " or measurement or recist_measurement_mm",
        "alias": " or lesion_label_alias",
        "study_date": "",
        "patient_id": "",
    }.items():
        for function in (evaluate, to_timepoints):
            with pytest.raises(SettingError, match=f"no column {name}{others}; add it, or rename one of "):
                function(course({"A": 1}).drop(columns=name))
    with pytest.raises(NotFoundError, match=r"recist-1\.1"):
        evaluate(course({"A": 1}), mode="recist")


def test_no_rows_give_an_empty_table():
    table = evaluate(course({"A": 1.0}).iloc[:0])
    assert table.empty
    assert list(table.columns) == list(COLUMNS)


# --- pictures ---


@pytest.fixture
def table():
    return evaluate(
        pd.concat(
            [
                course({"A": 30}, {"A": 20}, {"A": 26}, patient=1),
                course({"A": 30}, {"A": 0}, patient=2),
                course({"A": 30}, {"A": math.nan}, patient=3),
            ]
        )
    )


@pytest.mark.parametrize("kind", ["spider", "waterfall"])
def test_a_plot_is_written_in_the_format_of_its_name(table, kind, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is absent")
    plot_response(table, tmp_path / "response.png", kind=kind)
    assert (tmp_path / "response.png").read_bytes().startswith(b"\x89PNG")
    plot_response(table, str(tmp_path / "response.svg"), kind=kind)
    assert "<svg" in (tmp_path / "response.svg").read_text()


def test_a_plot_shows_the_changes_and_the_nadir(table):
    figure = pytest.importorskip("matplotlib.figure", reason="the extra plot is absent").Figure()
    spider, waterfall = figure.subplots(2)
    plot_response(table, spider)
    lines = [line.get_ydata() for line in spider.lines[:2]]
    assert lines[0] == pytest.approx([0, -100 / 3, -40 / 3])
    assert lines[1] == pytest.approx([0, -100])
    assert {text.get_text() for text in spider.get_legend().get_texts()} == {"CR", "PR", "PD", "NE"}
    plot_response(table, waterfall, kind="waterfall")
    assert [bar.get_height() for bar in waterfall.patches] == pytest.approx([-100 / 3, -100])
    with pytest.raises(NotFoundError, match="waterfall"):
        plot_response(table, waterfall, kind="fall")
