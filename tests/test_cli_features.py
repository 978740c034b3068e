"""Commands that measure, count and follow the lesions of a store."""

import contextlib
import io
import json
import shutil

import numpy as np
import pandas as pd
import pytest
import SimpleITK
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.features.counts import count_tables
from lesionzarr.samples import recist_dataset, recist_truth

SIZES = {"patients": 3, "image_size": 128, "slices": 24}
PUBLISHED = (
    *("patients", "patient_counts", "patient_annotated_volume", "series_lesion_counts", "series_label_counts"),
    *("label_patient_counts", "location_series_counts", "liver_lung_series_volume_stats"),
)


@pytest.fixture
def run(capsys):
    """Run a command; give its exit code, stdout and stderr."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return recist_dataset(tmp_path_factory.mktemp("source") / "recist", **SIZES)


@pytest.fixture(scope="module")
def store(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "recist.zarr"
    assert not lesionzarr.convert("recist-dataset", source, path).failed
    return path


@pytest.fixture(scope="module")
def truth():
    return recist_truth(**SIZES)


@pytest.fixture
def broken(store, tmp_path):
    """Copy of the store in which the mask of one volume is gone; gives it and the volume's id."""
    path = shutil.copytree(store, tmp_path / "broken.zarr")
    volume_id = min(folder.name for folder in (path / "volumes").iterdir() if folder.is_dir())
    shutil.rmtree(path / "volumes" / volume_id / "labels")
    return path, volume_id


@pytest.fixture
def without_masks(sample_store):
    return sample_store


# --- features ---


def test_features_are_those_of_the_ellipsoids_that_were_drawn(run, store, truth, tmp_path):
    code, out, _ = run("features", store, "-o", tmp_path / "features.csv")
    assert code == 0
    assert out == f"{len(truth)} lesions written to {tmp_path / 'features.csv'}\n"
    table = pd.read_csv(tmp_path / "features.csv", index_col="lesion_id")
    for one in truth:
        row = table.loc[f"{one.stem}_{one.label}"]
        assert row["volume_ml"] == pytest.approx(one.volume_ml, rel=0.1)
        # a pixel has 2.8 mm
        assert row["major_axis_mm"] == pytest.approx(one.long_mm, abs=4)
        assert row["minor_axis_mm"] == pytest.approx(one.short_mm, abs=4)
        assert row["label_description"] == f"{one.type},{one.location}"
        assert row["method"] == "feret"
        assert pd.isna(row["fault"])


@pytest.mark.parametrize(
    ("arguments", "method", "unconnected"),
    [
        (["--method", "ellipse"], "ellipse", "join"),
        (["--method", "rectangle", "--unconnected", "sum"], "rectangle", "sum"),
        (["--method", "upstream-obb"], "obb", "largest-area"),
        (["--method", "upstream-ellipse", "--unconnected", "largest-measurement"], "ellipse", "largest-measurement"),
    ],
)
def test_the_way_to_measure_is_chosen_by_name(run, store, arguments, method, unconnected):
    code, out, _ = run("features", store, "--query", "type == 'metastasis'", *arguments, "--json")
    rows = json.loads(out)
    assert code == 0
    assert {(row["method"], row["unconnected_strategy"]) for row in rows} == {(method, unconnected)}
    assert {row["label_description"][0] for row in rows} == {"m"}


def test_features_are_printed_in_short(run, store, truth):
    code, out, _ = run("features", store)
    lines = out.splitlines()
    assert code == 0
    assert lines[0].split()[:3] == ["lesion_id", "label_description", "voxels_count"]
    assert len(lines) == 22
    assert lines[-1].startswith(f"... and {len(truth) - 20} more lesions")


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_features_are_the_same_in_every_format(run, store, tmp_path, ending):
    path = tmp_path / f"features.{ending}"
    run("features", store, "-o", path, "--query", "patient_id == '2'")
    read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[ending]
    table = read(path).reset_index()
    assert len(table) == 6
    assert table["voxels_count"].sum() == sum((array > 0).sum() for array in masks(store, "2"))


def masks(store, patient_id):
    catalog = lesionzarr.open(store)
    volumes = catalog.volumes.index[catalog.volumes["patient_id"] == patient_id]
    return [catalog.mask(volume_id).to_numpy() for volume_id in volumes]


def test_a_lesion_that_cannot_be_measured_is_told_and_costs_the_others_nothing(run, broken, truth):
    path, volume_id = broken
    code, out, err = run("features", path, "--json")
    rows = json.loads(out)
    assert code == 1
    assert [row["lesion_id"] for row in rows if row["fault"]] == [f"{volume_id}_{n}" for n in (1, 2, 3)]
    assert sum(row["volume_ml"] is not None for row in rows) == len(truth) - 3
    assert err.count("failed: ") == 3
    assert f"{volume_id}_1" in err


# --- statistics ---


@pytest.fixture(scope="module")
def written(store, source, tmp_path_factory):
    """Folder of statistics, and what was printed."""
    folder = tmp_path_factory.mktemp("statistics") / "out"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert main(["statistics", str(store), "-o", str(folder), "--objects", str(source)]) == 0
    return folder, printed.getvalue()


def test_statistics_have_the_keys_and_columns_that_upstream_publishes(written, data):
    folder, _ = written
    published = json.loads((data / "recist" / "published_statistics.json").read_text())
    computed = json.loads((folder / "statistics.json").read_text())
    # these lesions are no primary tumours
    published["summary"]["lesion_types"].pop("t")
    assert set(computed) == set(published)
    for name, part in published.items():
        assert set(computed[name]) == set(part), name
    assert set(computed["summary"]["lesion_types"]) == {"m", "n"}
    assert computed["diameter_mm"]["note"] == published["diameter_mm"]["note"]
    for name in PUBLISHED:
        theirs = pd.read_csv(data / "recist" / f"published_{name}.csv")
        assert list(pd.read_csv(folder / f"{name}.csv").columns) == list(theirs.columns), name


def test_statistics_count_what_was_drawn(written, truth, source):
    folder, out = written
    summary = json.loads((folder / "statistics.json").read_text())["summary"]
    targets = [one for one in truth if one.target]
    series = json.loads((source / "metadata" / "series.json").read_text())
    dates = [row["study_date"] for row in series]
    drawn = [
        SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))) for path in source.glob("images/**/masks/*.gz")
    ]
    small = sum(0 < (array == value).sum() < 50 for array in drawn for value in (1, 2, 3))
    expected = {
        "patients": 3,
        "studies": 7,
        "series": 12,
        "series_abdomen": 7,
        "series_thorax": 5,
        "series_train": 6,
        "series_test": 6,
        "lesions": len(truth),
        "lesions_train": sum(one.patient != 3 for one in truth),
        "lesions_test": sum(one.patient == 3 for one in truth),
        "lesion_types": {name: sum(one.type == name for one in truth) for name in "mn"},
        "recist_targets": len(targets),
        "recist_targets_adenopathy": sum(one.type == "n" for one in targets),
        "recist_targets_tumor": sum(one.type == "m" for one in targets),
        "study_date_min": min(dates),
        "study_date_max": max(dates),
        # all are instances already
        "objects_before_filter": len(truth),
        "objects_removed": small,
        "objects_under_50_voxels": small,
        "objects_one_slice": 0,
    }
    assert summary == expected
    assert small > 0
    assert f"lesions:                     {len(truth)}\n" in out
    assert "9 files written" in out


def test_tables_count_patients_series_labels_and_places(written, truth):
    folder, _ = written
    tables = {name: pd.read_csv(folder / f"{name}.csv") for name in PUBLISHED}
    counts = tables["patient_counts"].set_index("patient_id")
    assert counts.index.tolist() == [3, 1, 2]
    assert counts.loc[[1, 2, 3], "studies_count"].tolist() == [2, 2, 3]
    assert counts.loc[[1, 2, 3], "series_count"].tolist() == [4, 2, 6]
    assert counts["lesions_count"].to_dict() == {n: sum(one.patient == n for one in truth) for n in (1, 2, 3)}
    volume = tables["patient_annotated_volume"].set_index("patient_id")["annotated_volume_ml"]
    for patient in (1, 2, 3):
        assert volume[patient] == pytest.approx(sum(o.volume_ml for o in truth if o.patient == patient), rel=0.05)
    for row in tables["series_label_counts"].to_dict("records"):
        there = [f"{one.type},{one.location}" for one in truth if f"{one.series_uid}.nii.gz" == row["filename"]]
        assert there.count(row["label_description"]) == row["lesions_count"]
    assert tables["series_lesion_counts"]["lesions_count"].tolist() == [3] * 12
    labels = [["m,liver", 3], ["n,retroperitoneal", 3], ["m,lung", 2], ["n,mediastinum", 2]]
    assert tables["label_patient_counts"].to_numpy().tolist() == labels
    locations = [["liver", 7], ["retroperitoneal", 7], ["lung", 5], ["mediastinum", 5]]
    assert tables["location_series_counts"].to_numpy().tolist() == locations
    places = tables["liver_lung_series_volume_stats"]
    assert places["lesion_location"].tolist() == ["liver"] * 7 + ["lung"] * 5
    for row in places.to_dict("records"):
        own = [
            o.volume_ml
            for o in truth
            if (f"{o.series_uid}.nii.gz", o.location) == (row["filename"], row["lesion_location"])
        ]
        assert row["lesions_count"] == len(own)
        assert row["volume_ml_max"] == pytest.approx(max(own), rel=0.1)
        assert row["volume_ml_std"] == pytest.approx(np.std(own, ddof=1), rel=0.3, abs=0.5)


def test_the_persons_are_those_of_the_table_of_patients(written, source):
    folder, _ = written
    theirs = pd.read_csv(source / "metadata" / "patients.csv").set_index("patient_id")
    ours = pd.read_csv(folder / "patients.csv").set_index("patient_id")
    for name in ("sex", "age", "diagnosis", "subset", "health_insurance"):
        assert ours[name].to_dict() == theirs[name].to_dict(), name


def test_statistics_are_json_without_nan(run, store):
    code, out, _ = run("statistics", store, "--json")
    told = json.loads(out, parse_constant=pytest.fail)
    assert code == 0
    assert set(told["tables"]) == set(PUBLISHED)
    assert "objects_removed" not in told["summary"]
    assert told["written"] == []


def test_published_counts_come_out_of_the_published_lesions(data):
    folder = data / "recist"
    counts = pd.read_csv(folder / "published_series_label_counts.csv")
    lesions = counts.loc[counts.index.repeat(counts["lesions_count"])].drop(columns="lesions_count")
    people = pd.read_csv(folder / "published_patients.csv").drop(columns=["subset", "diagnosis"])
    lesions = lesions.merge(people, on="patient_id").assign(
        study_uuid=lambda rows: rows["patient_id"].astype(str) + rows["study_date"].astype(str),
        lesion_location=lambda rows: rows["label_description"].str.partition(",")[2],
        volume_ml=1.0,
    )
    tables = count_tables(lesions)
    for name in ("patient_counts", "series_lesion_counts", "series_label_counts"):
        pd.testing.assert_frame_equal(tables[name], pd.read_csv(folder / f"published_{name}.csv"))
    for name in ("label_patient_counts", "location_series_counts"):
        theirs = pd.read_csv(folder / f"published_{name}.csv")
        by = list(theirs.columns[::-1])
        pd.testing.assert_frame_equal(
            tables[name].sort_values(by, ignore_index=True), theirs.sort_values(by, ignore_index=True)
        )
    persons = pd.read_csv(folder / "published_patients.csv").sort_values("patient_id", ignore_index=True)
    pd.testing.assert_frame_equal(tables["patients"].sort_values("patient_id", ignore_index=True), persons)
    theirs = pd.read_csv(folder / "published_liver_lung_series_volume_stats.csv")
    ours = tables["liver_lung_series_volume_stats"]
    same = list(ours.columns[: ours.columns.get_loc("annotated_volume_ml")])
    pd.testing.assert_frame_equal(ours[same], theirs[same])


def test_lesions_that_cannot_be_measured_are_told_and_left_out(run, broken, truth):
    path, volume_id = broken
    code, out, err = run("statistics", path, "--json")
    assert code == 1
    assert json.loads(out)["summary"]["lesions"] == len(truth) - 3
    assert f"failed: lesion {volume_id}_1" in err or f"failed: {volume_id}_1" in err


def test_objects_before_small_ones_were_removed_are_read_or_counted(run, store, tmp_path):
    table = tmp_path / "objects_results.csv"
    table.write_text("size_voxels,slices_count,removed\n49,3,True\n700,1,True\n700,2,False\nmany,2,False\n")
    labels = np.zeros((4, 20, 20), dtype=np.uint8)
    labels[0:2, 0:5, 0:5] = 1
    # a corner joins objects of one category, and no two of different ones
    labels[2:4, 5:10, 5:10] = 1
    labels[2:4, 10:15, 10:15] = 2
    labels[0, 10:18, 0:8] = 3
    labels[3, 19, 19] = 1
    masks_folder = tmp_path / "raw" / "train" / "masks"
    masks_folder.mkdir(parents=True)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(labels), str(masks_folder / "1.2.nii.gz"))
    (masks_folder / "1.3.nii.gz").write_bytes(b"no nifti")
    code, out, err = run("statistics", store, "--json", "--objects", table, tmp_path / "raw")
    summary = json.loads(out)["summary"]
    assert code == 1
    assert "row 3" in err
    assert "1.3.nii.gz" in err
    names = ("objects_before_filter", "objects_removed", "objects_under_50_voxels", "objects_one_slice")
    assert [summary[name] for name in names] == [3 + 4, 2 + 2, 1 + 1, 1 + 2]


# --- intensities ---


def test_intensities_are_those_of_numpy_and_drawn(run, store, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is absent")
    code, out, _ = run("intensities", store, "-o", tmp_path / "out", "--plot", tmp_path / "densities.png")
    assert code == 0
    assert "12 volumes" in out
    stats = pd.read_csv(tmp_path / "out" / "stats.csv", index_col="filename")
    bins = pd.read_csv(tmp_path / "out" / "densities.csv")
    catalog = lesionzarr.open(store)
    for volume_id in catalog.volumes.index[:3]:
        image = catalog.volume(volume_id)["hu"].to_numpy()
        row = stats.loc[volume_id]
        assert row[["mean", "std", "min", "max"]].tolist() == pytest.approx(
            [image.mean(), image.std(), image.min(), image.max()]
        )
        assert row[["Q1", "Q2", "Q3"]].tolist() == np.percentile(image, [25, 50, 75]).tolist()
        expected, edges = np.histogram(image, bins=np.linspace(-1024, 3071, 100), density=True)
        np.testing.assert_allclose(bins[volume_id], expected)
        np.testing.assert_allclose(bins["low_hu"], edges[:-1])
    with Image.open(tmp_path / "densities.png") as picture:
        assert picture.size == (1200, 750)


def test_a_damaged_volume_costs_the_others_nothing(run, store, tmp_path):
    path = shutil.copytree(store, tmp_path / "damaged.zarr")
    volume_id = lesionzarr.open(path).volumes.index[0]
    shutil.rmtree(path / "volumes" / volume_id / "hu")
    code, out, err = run("intensities", path, "-o", tmp_path / "out", "--json")
    told = json.loads(out)
    assert code == 1
    assert len(told["volumes"]) == 11
    assert volume_id in told["failed"][0]
    assert f"failed: {volume_id}" in err


# --- tracks and response ---


def test_tracks_go_from_the_first_study_to_the_last(run, store, truth):
    code, out, _ = run("tracks", store, "--json")
    rows = {row["track_id"]: row for row in json.loads(out)["tracks"]}
    targets = [one for one in truth if one.target]
    assert code == 0
    regions = {name: json.loads(tags)["Region"] for name, tags in lesionzarr.open(store).volumes["tags"].items()}
    assert set(rows) == {f"{one.patient}/{regions[one.stem]}/{one.alias}" for one in targets}
    assert {row["visits"] for row in rows.values() if row["patient_id"] == "3"} == {3}
    first, last = (one for one in targets if (one.patient, one.alias, one.location) == (1, "A", "liver"))
    assert rows["1/abdomen/A"]["change_long_mm"] == last.measured_mm - first.measured_mm
    code, out, _ = run("tracks", store)
    assert out.splitlines()[0].split() == [
        *("track_id", "visits", "is_new", "is_vanished"),
        *("first_long_mm", "last_long_mm", "first_short_mm", "last_short_mm"),
    ]


def test_response_is_that_of_the_sums_that_were_drawn(run, store, truth, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra plot is absent")
    plot = tmp_path / "response.png"
    code, out, _ = run("response", store, "-o", tmp_path / "response.csv", "--plot", plot, "--kind", "waterfall")
    assert (code, plot.read_bytes()[:4]) == (0, b"\x89PNG")
    assert "7 studies written to" in out
    table = pd.read_csv(tmp_path / "response.csv")
    uids = list(dict.fromkeys(one.series_uid for one in truth))
    studies = {1: [uids[0:2], uids[2:4]], 2: [uids[4:5], uids[5:6]], 3: [uids[6:8], uids[8:10], uids[10:12]]}
    expected = [
        sum(one.measured_mm for one in truth if one.target and one.series_uid in study)
        for patient in studies.values()
        for study in patient
    ]
    assert table["sum_mm"].tolist() == expected
    assert table["response"].notna().tolist() == [False, True, False, True, False, True, True]


def test_lesions_of_a_series_that_the_baseline_lacks_are_not_taken_for_new(run, source, tmp_path):
    # patient 1 has a thorax and an abdomen at each study: one of the baseline was not downloaded
    part = shutil.copytree(source, tmp_path / "part")
    rows = pd.read_csv(source / "recist_measurements.csv")
    first = rows[(rows["patient_id"] == 1) & (rows["study_order"] == "baseline") & (rows["region"] == "thorax")]
    for path in part.glob(f"images/**/*{first['uuid'].iloc[0]}*"):
        path.unlink()
    # and of patient 2 the whole baseline
    first = rows[(rows["patient_id"] == 2) & (rows["study_order"] == "baseline")]
    for path in part.glob(f"images/**/*{first['uuid'].iloc[0]}*"):
        path.unlink()
    lesionzarr.convert("recist-dataset", part, tmp_path / "part.zarr")
    _, out, err = run("response", tmp_path / "part.zarr", "--json")
    told = json.loads(out)
    assert [row["response"] for row in told["studies"] if row["patient_id"] == "1"] == [None, "NE"]
    assert [row["new_lesions"] for row in told["studies"] if row["patient_id"] == "1"] == [0, 0]
    assert [row["sum_mm"] for row in told["studies"] if row["patient_id"] == "2"] == [None]
    assert any("patient 1: no mask of the thorax at the first study" in text for text in told["issues"])
    assert any("patient 2: no lesions of the baseline" in text for text in told["issues"])
    assert err == ""
    # the other patient is evaluated
    assert [row["response"] is None for row in told["studies"] if row["patient_id"] == "3"] == [True, False, False]


def erase(source, targets):
    """Take the voxels and the label of targets away, rows of recist_measurements.csv."""
    for uid, own in targets.groupby("uuid"):
        values = own["lesion_label_value"].tolist()
        path = next(source.rglob(f"masks/*{uid}.nii.gz"))
        image = SimpleITK.ReadImage(path)
        mask = SimpleITK.GetArrayFromImage(image)
        mask[np.isin(mask, values)] = 0
        erased = SimpleITK.GetImageFromArray(mask)
        erased.CopyInformation(image)
        SimpleITK.WriteImage(erased, path)
        labels = next(source.rglob(f"labels/*{uid}.json"))
        kept = {key: text for key, text in json.loads(labels.read_text()).items() if int(key) not in values}
        labels.write_text(json.dumps(kept))


@pytest.fixture(scope="module")
def vanished(tmp_path_factory):
    """Release and store in which both targets of patient 2 are gone at the follow-up, and one of patient 1.

    Of two the table names no value of the mask, or that of the background; patient 3 has no mask of the abdomen at the
    second of three studies, and at the third no row of the table. Tumours only, so that the table of measurements tells
    what the store tells.
    """
    source = recist_dataset(tmp_path_factory.mktemp("vanished") / "recist", patients=3, image_size=64, slices=20)
    for path in source.rglob("labels/*.json"):
        path.write_text(path.read_text().replace('"n,', '"m,'))
    table = pd.read_csv(source / "recist_measurements.csv", dtype=str)
    later = table["study_order"] == "follow-up-1"
    gone = later & ((table["patient_id"] == "2") | ((table["patient_id"] == "1") & (table.index % 4 == 0)))
    assert gone.sum() == 3
    erase(source, table[gone].astype({"lesion_label_value": int}))
    table.loc[gone, "recist_measurement_mm"] = "0"
    table.loc[table.index[gone][:2], "lesion_label_value"] = ["", "0"]
    unmasked = table[later & (table["patient_id"] == "3") & (table["region"] == "abdomen")]["uuid"].iloc[0]
    next(source.rglob(f"masks/*{unmasked}.nii.gz")).unlink()
    table = table[table["study_order"] != "follow-up-2"]
    table.to_csv(source / "recist_measurements.csv", index=False)
    store = source.parent / "vanished.zarr"
    report = lesionzarr.convert("recist-dataset", source, store)
    assert not report.failed
    # the counts of the table are those of before
    assert sorted(issue.kind for issue in report.issues if issue.kind != "contradiction") == [
        *("label-gaps", "label-gaps", "no-mask", "target-without-mask", "target-without-mask"),
    ]
    return source, store


def test_targets_that_vanished_count_in_a_store_as_in_the_table_of_measurements(run, vanished):
    source, store = vanished
    code, out, _ = run("response", store, "--json")
    _, other, _ = run("response", "--measurements", source / "recist_measurements.csv", "--json")
    ours, theirs = (json.loads(text)["studies"] for text in (out, other))
    assert code == 0
    last, ours = ours[-1], ours[:-1]
    for name in ("patient_id", "study_date", "sum_mm", "response"):
        assert [str(row[name]) for row in ours] == [str(row[name]) for row in theirs]
    assert [(row["sum_mm"], row["response"]) for row in ours if row["patient_id"] == "2"][1] == (0, "CR")
    # the study that the table does not have is in the store
    assert (last["patient_id"], last["sum_mm"], last["response"]) == ("3", None, "NE")
    assert f"patient 3: no target was measured at the study of {last['study_date']}" in json.loads(out)["issues"]
    # pyrecist would take it for one of 0 mm
    _, out, _ = run("response", store, "--json", "--mode", "pyrecist")
    assert [row["patient_id"] for row in json.loads(out)["studies"]] == ["1", "2", "3"]
    _, out, _ = run("tracks", store, "--json")
    tracks = {row["track_id"]: row for row in json.loads(out)["tracks"]}
    assert [tracks[f"2/abdomen/{name}"]["is_vanished"] for name in "AB"] == [True, True]
    assert [tracks[f"2/abdomen/{name}"]["last_long_mm"] for name in "AB"] == [0, 0]
    assert tracks["3/thorax/D"]["is_vanished"]


def test_lesions_without_position_are_told_by_commands_that_need_one_and_cost_the_others_nothing(
    run, vanished, tmp_path
):
    _, store = vanished
    catalog = lesionzarr.open(store)
    lost = catalog.lesions[catalog.lesions["mask_label"].isna()]
    assert len(lost) == catalog.counts()["lesions without position"] == 5
    assert lost[["key_z", "x0", "z0"]].isna().all(axis=None)
    assert sum("_target-" in name for name in lost.index) == 2
    assert lost["long_mm"].max() > 0
    for command in ("crop", "render"):
        code, out, err = run(command, store, "--query", "patient_id == '2'", "-o", tmp_path / command)
        assert code == 1
        assert "4 written" in out
        assert err.count("so it has no ") == 2
    code, out, err = run("features", store, "-o", tmp_path / "features.csv")
    assert code == 0
    assert err.startswith("100% 30/30")
    assert f"{len(catalog.lesions) - 5} lesions written" in out
    code, out, _ = run("verify", store)
    assert code == 0
    assert run("export", "nifti", store, "-o", tmp_path / "nifti")[0] == 0
    assert run("pack", store, tmp_path / "pack.zarr", "--size", "3,8,8")[0] == 0


def test_a_table_of_measurements_gives_what_a_store_of_them_gives(run, store, source):
    _, out, _ = run("response", store, "--json")
    code, other, err = run("response", "--measurements", source / "recist_measurements.csv", "--json")
    sums = [[row["sum_mm"] for row in json.loads(text)["studies"]] for text in (out, other)]
    assert code == 0
    assert sums[0] == sums[1]
    # the table does not say what a lymph node is
    assert "no column node or lesion_label_type" in json.loads(other)["issues"][0]
    assert err == ""


def test_pyrecists_case_gives_its_own_file(run, data, tmp_path):
    folder = data / "recist"
    measured = folder / "pyrecist_synthetic_measurements.csv"
    code, _, err = run("response", "--measurements", measured, "--mode", "pyrecist", "-o", tmp_path / "out.csv")
    assert (code, err) == (0, "")
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "out.csv"), pd.read_csv(folder / "pyrecist_synthetic_evaluation.csv"), check_dtype=False
    )


def test_bad_rows_are_listed_and_the_others_evaluated(run, tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text(
        "patient_id,study_date,measurement,lesion_label_alias,lesion_label_type\n"
        "9,20220601,30,A,m\n9,20220901,18,A,m\n"
        "10,20220601,30,A,m\n10,2022-13-01,30,A,m\n10,20220901,30,A,m\n"
        "11,20220601,30,A,m\n11,20220901,-4,A,m\n"
        "12,20220601,12,A,n\n12,20220901,9,A,n\n"
        "13,20220601,12\n"
    )
    code, out, err = run("response", "--measurements", path)
    assert code == 1
    assert "measured.csv: row 3: study date '2022-13-01' is none" in err
    assert "measured.csv: row 6: diameter '-4' is no length" in err
    assert "measured.csv: row 9: no alias" in err
    words = [line.split() for line in out.splitlines()]
    assert [(row[0], row[-1]) for row in words if row[1] == "2022-09-01"] == [
        *(("9", "PR"), ("10", "NE"), ("11", "NE"), ("12", "CR")),
    ]


def test_a_target_that_was_not_measured_is_no_failure(run, tmp_path):
    path = tmp_path / "measured.csv"
    path.write_text("patient_id,study_date,diameter_mm,alias,node\n1,20220601,30,A,0\n1,20220901,,A,0\n")
    code, out, err = run("response", "--measurements", path, "--json")
    told = json.loads(out)
    assert (code, err) == (0, "")
    assert told["studies"][1]["response"] == "NE"
    assert told["issues"] == ["measured.csv: row 1: no diameter; the target counts as not measured"]


# --- misuse ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["features", "DEEPLESION"], "no lesion has a mask"),
        (["statistics", "DEEPLESION"], "no lesion has a mask"),
        (["tracks", "DEEPLESION"], "no lesion has an alias"),
        (["response", "DEEPLESION"], "no lesion has an alias"),
        (["features", "RECIST", "--query", "long_mm > 1000"], "no such lesion"),
        (["features", "RECIST", "--query", "colour == 1"], "colour"),
        (["features", "RECIST", "--method", "upstream-ellipse", "--unconnected", "join"], "upstream has no ellipse"),
        (["features", "nowhere"], "no store at nowhere"),
        (["response"], "either a store or --measurements"),
        (["response", "RECIST", "--measurements", "a.csv"], "either a store or --measurements"),
        (["response", "--measurements", "CSV"], "lesions.csv: no column alias or lesion_label_alias; add it"),
    ],
)
def test_misuse_is_one_clear_line(run, store, without_masks, tmp_path, arguments, text):
    (tmp_path / "lesions.csv").write_text("patient_id,study_date,measurement\n1,20220601,3\n")
    places = {"RECIST": store, "DEEPLESION": without_masks, "CSV": tmp_path / "lesions.csv"}
    code, out, err = run(*(places.get(word, word) for word in arguments))
    assert (code, out) == (2, "")
    assert text in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"\xff\xfe\x00", "cannot be read as a table"),
        (b"", "column patient_id, study_date is absent"),
        (b"patient_id,measurement\n1,3\n", "column study_date is absent"),
        (b"patient_id,study_date,measurement\n\n", "no rows"),
    ],
)
def test_a_table_that_is_none_is_told_in_one_line(run, tmp_path, content, text):
    (tmp_path / "lesions.csv").write_bytes(content)
    code, out, err = run("response", "--measurements", tmp_path / "lesions.csv")
    assert (code, out) == (1, "")
    assert f"lesions.csv: {text}" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["features", "a", "-o", "b.xlsx"], ["response", "a", "--plot", "b"], ["intensities", "a"]]
)
def test_a_wrong_ending_is_said_before_any_work(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_objects_that_are_nowhere_are_told(run, store, tmp_path):
    code, _, err = run("statistics", store, "--objects", tmp_path / "none")
    assert code == 1
    assert "name a .csv, a mask as .nii.gz, or a folder" in err
    (tmp_path / "a.csv").write_text("size\n1\n")
    code, _, err = run("statistics", store, "--objects", tmp_path / "a.csv")
    assert code == 1
    assert "a.csv: column size_voxels, slices_count, removed is absent" in err
