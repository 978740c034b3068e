"""Lesions followed over studies by region and alias."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionzarr.errors import SettingError
from lesionzarr.features.response import evaluate
from lesionzarr.features.timepoints import to_timepoints
from lesionzarr.features.tracks import link_lesions as link_all
from lesionzarr.features.tracks import name_lesions, summarise_tracks

NAMES = ["patient_id", "study_date", "alias", "location", "long_mm", "short_mm"]


def lesions(*rows):
    return pd.DataFrame(rows, columns=NAMES)


def link_lesions(frame):
    """Link a table; what was odd in it is left aside."""
    return link_all(frame)[0]


@pytest.fixture
def followed():
    """One patient with three studies: A stays, B vanishes, C is new, D is there once more after a gap."""
    return lesions(
        ("1", "20200301", "A", "liver", 24.0, 11.0),
        ("1", "20200101", "A", "liver", 30.0, 12.0),
        ("1", "20200101", "B", "lung", 10.0, 8.0),
        ("1", "20200601", "A", "liver", 20.0, np.nan),
        ("1", "20200301", "C", "liver", 7.0, 6.0),
        ("1", "20200101", "D", "spleen", 9.0, 9.0),
        ("1", "20200601", "D", "spleen", 8.0, 8.0),
    )


def test_a_lesion_is_followed_from_baseline_on(followed):
    linked = link_lesions(followed)
    assert linked["visit"].tolist() == [1, 0, 0, 2, 1, 0, 2]
    assert linked["status"].tolist() == [
        "follow-up",
        "baseline",
        "baseline",
        "follow-up",
        "new",
        "baseline",
        "follow-up",
    ]
    assert linked["track_id"].tolist() == [
        "1/A",
        "1/A",
        "1/B",
        "1/A",
        "1/C",
        *["1/D"] * 2,
    ]
    pd.testing.assert_frame_equal(linked[NAMES], followed)


def test_tracks_tell_what_is_new_what_vanished_and_what_changed(followed):
    tracks = summarise_tracks(link_lesions(followed))
    assert tracks["is_new"].to_dict() == {"1/A": False, "1/B": False, "1/C": True, "1/D": False}
    assert tracks["is_vanished"].tolist() == [False, True, True, False]
    assert tracks["visits"].tolist() == [3, 1, 1, 2]
    assert tracks.loc["1/A", ["first_long_mm", "last_long_mm", "change_long_mm"]].tolist() == [30, 20, -10]
    assert np.isnan(tracks.loc["1/A", "last_short_mm"])
    assert tracks["location"].tolist() == ["liver", "lung", "liver", "spleen"]


def test_one_alias_in_two_regions_is_two_lesions_also_where_the_location_is_the_same():
    rows = [("37", date, "A", "bone", 25.0, 10.0) for date in ("20230221", "20230421") for _ in range(2)]
    frame = lesions(*rows).assign(region=["abdomen", "thorax"] * 2, node=False)
    linked, issues = link_all(frame)
    assert linked["track_id"].tolist() == ["37/abdomen/A", "37/thorax/A"] * 2
    assert linked["visit"].tolist() == [0, 0, 1, 1]
    assert issues == []
    # as in the sums of a response
    assert set(linked["track_id"]) == set("37/" + to_timepoints(frame)["alias"])
    assert evaluate(to_timepoints(frame))[0]["sum_mm"].tolist() == [50, 50]


def test_an_alias_that_moves_stays_one_track_and_is_told():
    rows = ("1", "20200101", "A", "liver", 30.0, 9.0), ("1", "20200301", "A", "hepatic", 20.0, 9.0)
    linked, issues = link_all(lesions(*rows))
    assert linked["status"].tolist() == ["baseline", "follow-up"]
    assert [(issue.kind, issue.item) for issue in issues] == [("moved-lesion", "row 1")]
    assert "'hepatic', and was in 'liver'" in issues[0].message
    assert summarise_tracks(linked)["change_long_mm"].tolist() == [-10]


def test_a_lesion_of_0_mm_has_vanished_and_is_no_visit():
    days = ["20200101", "20200301", "20200601"]
    sizes = {"A": (30.0, 0.0, 0.0), "B": (0.0, 12.0, 12.0), "C": (0.0, 0.0, 0.0)}
    rows = [("1", day, name, None, own[n], np.nan) for name, own in sizes.items() for n, day in enumerate(days)]
    linked = link_lesions(lesions(*rows))
    assert linked["status"].tolist() == [
        *("baseline", "vanished", "vanished"),
        *("vanished", "new", "follow-up"),
        *["vanished"] * 3,
    ]
    tracks = summarise_tracks(linked)
    assert tracks["visits"].to_dict() == {"1/A": 1, "1/B": 2}
    assert tracks["is_vanished"].tolist() == [True, False]
    assert tracks["is_new"].tolist() == [False, True]
    assert tracks["last_long_mm"].tolist() == [0, 12]


def test_a_study_without_targets_is_a_visit_of_the_region_that_it_shows():
    frame = lesions(
        ("1", "20200101", "A", "liver", 30.0, 9.0),
        ("1", "20200101", "A", "lung", 30.0, 9.0),
        ("1", "20200301", None, None, np.nan, np.nan),
    ).assign(region=["abdomen", "thorax", "thorax"])
    linked = link_lesions(frame)
    assert linked["visit"].tolist() == [0, 0, 1]
    assert summarise_tracks(linked)["is_vanished"].to_dict() == {"1/abdomen/A": False, "1/thorax/A": True}


def test_nothing_is_guessed_for_rows_that_cannot_be_told_apart_or_have_no_alias():
    linked, issues = link_all(
        lesions(
            ("1", "20200101", "A", "liver", 5.0, 4.0),
            ("1", "20200101", "A", "liver", 9.0, 4.0),
            ("1", "20200101", None, "liver", 9.0, 4.0),
            ("1", "20200101", None, "liver", 9.0, 4.0),
            ("1", "20200301", "A", "liver", 6.0, 4.0),
            ("1", "20200301", "B", None, 6.0, 4.0),
        )
    )
    assert linked["track_id"].isna().tolist() == [True, True, True, True, False, False]
    assert linked["status"].isna().tolist() == [True, True, True, True, False, False]
    assert linked["track_id"][5] == "1/B"
    assert [(issue.kind, issue.item) for issue in issues] == [("double-lesion", "row 0"), ("double-lesion", "row 1")]
    assert "is 1/A too" in issues[0].message


def test_patients_do_not_share_lesions_or_visits():
    linked = link_lesions(lesions(("1", "20200101", "A", "liver", 5.0, 4.0), ("2", "20210101", "A", "liver", 5.0, 4.0)))
    assert linked["track_id"].nunique() == 2
    assert linked["status"].tolist() == ["baseline", "baseline"]


def test_timepoints_order_studies_where_there_is_no_date():
    frame = lesions(("1", None, "A", "liver", 5.0, 4.0), ("1", None, "A", "liver", 6.0, 4.0))
    frame = frame.drop(columns="study_date").assign(timepoint=[3, 1])
    assert link_lesions(frame)["visit"].tolist() == [1, 0]
    linked, issues = link_all(frame.assign(timepoint=[3, None]))
    assert [(issue.kind, issue.item) for issue in issues] == [("bad-timepoint", "row 1")]
    assert linked["visit"].tolist() == [0, pd.NA]
    with pytest.raises(SettingError, match="no column timepoint"):
        link_lesions(frame.drop(columns="timepoint"))


@pytest.mark.parametrize("date", ["2020-02-30", "yesterday", "", None, "2020-1-1x"])
def test_a_date_that_is_none_is_named_and_the_other_rows_are_linked(date):
    rows = [("1", date, "B", "lung", 5.0, 4.0), ("1", "20200101", "A", "liver", 5.0, 4.0)]
    linked, issues = link_all(lesions(*rows))
    assert [(issue.kind, issue.item) for issue in issues] == [("bad-date", "row 0")]
    assert (f"study date {date!r} is none; " if date else "no study date; ") in issues[0].message
    assert "YYYY-MM-DD" in issues[0].message
    assert linked["visit"].tolist() == [pd.NA, 0]
    assert linked["status"].tolist() == [pd.NA, "baseline"]
    assert list(summarise_tracks(linked).index) == ["1/A"]


@pytest.mark.parametrize("date", ["2020-01-31", "20200131", 20200131, 20200131.0, pd.Timestamp("2020-01-31")])
def test_a_date_may_be_written_in_five_ways(date):
    linked = link_lesions(lesions(("1", date, "A", "liver", 5.0, 4.0), ("1", "2020-02-01", "A", "liver", 5.0, 4.0)))
    assert linked["visit"].tolist() == [0, 1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("123"),
            st.sampled_from(["20200101", "20200301"]),
            st.sampled_from("AB"),
            st.sampled_from(["liver", None]),
        ),
        max_size=12,
        unique=True,
    ),
    st.randoms(),
)
def test_the_order_of_rows_does_not_matter(keys, random):
    frame = lesions(*((*key, 5.0, 4.0) for key in keys))
    order = list(frame.index)
    random.shuffle(order)
    pd.testing.assert_frame_equal(link_lesions(frame.loc[order]).sort_index(), link_lesions(frame))
    assert len(summarise_tracks(link_lesions(frame))) == link_lesions(frame)["track_id"].nunique()


def test_no_lesions_make_no_tracks():
    assert link_lesions(lesions()).empty
    assert summarise_tracks(link_lesions(lesions())).empty


def test_lesions_of_a_store_are_named_by_what_their_source_says():
    store = pd.DataFrame(
        {
            "patient_id": ["1", "1", "1"],
            "study_date": ["2020-01-01", "2020-03-01", "2020-03-01"],
            "type": pd.array(["m", "m", None], dtype="string"),
            "labels": [np.array(["liver"]), np.array(["liver"]), None],
            "extra": [
                json.dumps({"alias": "A", "region": "abdomen"}),
                json.dumps({"alias": "A", "region": "abdomen"}),
                None,
            ],
            "long_mm": [30.0, 20.0, np.nan],
            "short_mm": [np.nan, np.nan, np.nan],
        }
    )
    named = name_lesions(store)
    assert link_lesions(named)["status"].fillna("").tolist() == ["baseline", "follow-up", ""]
    assert evaluate(to_timepoints(named))[0]["response"].tolist()[1:] == ["PR"]
    nodes = name_lesions(store.assign(type="lymph node", long_mm=np.nan, short_mm=[20.0, 9.0, 12.0]))
    assert nodes["node"].all()
    assert evaluate(to_timepoints(nodes))[0]["response"].tolist()[1:] == ["CR"]


def test_a_target_without_a_type_has_that_of_its_other_studies():
    aliases = ["A", "A", "B", "B", "C", "C", None]
    measured = [20.0, 0.0, 30.0, 15.0, 0.0, 7.0, None]
    extras = [{"alias": alias, "recist_measurement_mm": mm} for alias, mm in zip(aliases, measured, strict=True)]
    store = pd.DataFrame(
        {
            "patient_id": "1",
            "study_date": ["2020-01-01", "2020-03-01"] * 3 + ["2020-03-01"],
            "type": pd.array(["lymph node", None, "metastasis", None, None, None, None], dtype="string"),
            "labels": None,
            "extra": [json.dumps(extra) for extra in extras],
            "long_mm": [None, None, 30.0, None, None, None, None],
            "short_mm": [20.0, None, None, None, None, None, None],
        }
    ).astype({"long_mm": "float64", "short_mm": "float64"})
    named = name_lesions(store)
    assert named["node"].tolist() == [True, True, *[False] * 5]
    # of what nobody knows the type only 0 mm is known to be the length that counts
    assert to_timepoints(named)["diameter_mm"].fillna(-1).tolist() == [20, 0, 30, 15, 0, -1]


def test_a_store_without_aliases_has_no_tracks(sample_store):
    import lesionzarr

    found = lesionzarr.open(sample_store).lesions
    linked = link_lesions(name_lesions(found).assign(study_date="2020-01-01"))
    assert linked["track_id"].isna().all()
    assert len(linked) == len(found)
