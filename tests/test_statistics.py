"""Tables of features and statistics, held to those that recist-dataset publishes."""

import functools
import json
import math

import numpy as np
import pandas as pd
import pytest
import SimpleITK
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import lesionzarr
from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.features.intensities import count_intensities, describe_intensities, intensity_density
from lesionzarr.features.measure import measure_mask
from lesionzarr.features.response import evaluate
from lesionzarr.features.statistics import COLUMNS, describe, diameters, measure_labels, summarise
from lesionzarr.features.store import features_of_store
from lesionzarr.features.timepoints import to_timepoints
from lesionzarr.features.tracks import link_lesions, name_lesions, summarise_tracks
from lesionzarr.features.upstream import measure_as_upstream
from lesionzarr.samples import recist_dataset, recist_truth
from lesionzarr.store.index import write_catalog
from lesionzarr.store.layout import MASK, MASK_ARRAY
from lesionzarr.store.location import open_location


@pytest.fixture(scope="module")
def published(data):
    """Ten rows of the published table of features."""
    rows = pd.read_csv(data / "recist" / "published_lesions_features_first_last_rows.csv")
    return rows[rows["index"] != "..."]


@pytest.fixture(scope="module")
def statistics(data):
    return json.loads((data / "recist" / "published_statistics.json").read_text())


@pytest.fixture
def labelled():
    """Two lesions of known size, values 2 and 7, in an image of noise."""
    labels = np.zeros((6, 30, 40), dtype=np.uint8)
    labels[1:4, 5:15, 6:26] = 2
    labels[4, 20:24, 30:33] = 7
    hu = np.random.default_rng(0).integers(-100, 100, labels.shape).astype(np.int16)
    return labels, hu


# --- features ---


def test_the_table_has_the_columns_and_types_of_the_published_one(labelled, published):
    table = measure_labels(
        *labelled, (3.0, 0.5, 0.5), {2: "m,liver", 7: "n,abdominal wall"}, filename="a.nii.gz", subset="train"
    )
    assert list(table.columns) == [name for name in published.columns if name != "index"] == list(COLUMNS)
    typed = published.astype(COLUMNS)
    assert typed[list(COLUMNS)].dtypes.to_dict() == table.dtypes.to_dict()
    assert table["lesion_location"].tolist() == ["liver", "abdominal wall"]
    # the published rows follow the same rule
    assert (published["label_description"].str.partition(",")[2] == published["lesion_location"]).all()


def test_upstreams_measure_gives_upstreams_words(labelled, published):
    table = measure_labels(*labelled, (3.0, 0.5, 0.5), {}, filename="a", measure=measure_as_upstream)
    assert set(table["method"]) == set(published["method"]) == {"obb"}
    assert set(table["unconnected_strategy"]) == set(published["unconnected_strategy"]) == {"largest-area"}
    assert table["major_axis_mm"].tolist() == pytest.approx([19 * 0.5, 3 * 0.5])


def test_published_volumes_are_voxels_times_one_spacing_per_series(published):
    # so that a volume of ours, voxels times spacing, is theirs
    share = published["volume_ml"].astype(float) / published["voxels_count"].astype(float)
    for _, one in share.groupby(published["filename"]):
        assert one.max() == pytest.approx(one.min(), rel=2e-5)


def test_each_lesion_is_measured_where_it_lies(labelled):
    labels, hu = labelled
    table = measure_labels(labels, hu, (3.0, 0.5, 0.5), {2: "m,liver"}, filename="a")
    assert table["label_value"].tolist() == [2, 7]
    assert table["voxels_count"].tolist() == [600, 12]
    assert table["volume_ml"].tolist() == pytest.approx([600 * 0.75 / 1000, 12 * 0.75 / 1000])
    assert table["slices_count"].tolist() == [3, 1]
    assert table["major_axis_slice_idx"].tolist() == [1, 4]
    assert table["mean_HU"].tolist() == pytest.approx([hu[labels == 2].mean(), hu[labels == 7].mean()])
    assert table["std_HU"].tolist() == pytest.approx([hu[labels == 2].std(), hu[labels == 7].std()])
    assert table["label_description"].isna().tolist() == [False, True]


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5), elements=st.integers(0, 3)))
def test_box_by_box_is_as_lesion_by_lesion(labels):
    hu = np.arange(labels.size, dtype=np.int16).reshape(labels.shape)
    table = measure_labels(labels, hu, (2.0, 1.0, 0.5), {}, filename="a")
    values = [value for value in np.unique(labels).tolist() if value]
    assert table["label_value"].tolist() == values
    for value, row in zip(values, table.to_dict("records"), strict=True):
        whole = measure_mask(labels == value, hu, (2.0, 1.0, 0.5))
        assert (row["voxels_count"], row["major_axis_slice_idx"]) == (whole.voxels, whole.key_z)
        assert row["major_axis_mm"] == pytest.approx(whole.long_mm)
        assert row["mean_HU"] == pytest.approx(whole.mean_hu)


def test_labels_and_densities_must_lie_on_one_grid(labelled):
    labels, hu = labelled
    with pytest.raises(GeometryError, match="must be equal"):
        measure_labels(labels, hu[1:], (1.0, 1.0, 1.0), {}, filename="a")


def test_of_nodes_the_minor_axis_is_the_diameter(published):
    typed = published.astype(COLUMNS)
    measured = diameters(typed)
    assert measured.iloc[0] == 14.78125
    assert measured.iloc[1:].tolist() == typed["major_axis_mm"].iloc[1:].tolist()


# --- statistics ---


@pytest.fixture(scope="module")
def release(data):
    """Rows of lesions and series that the published counts tell of; what these do not tell is made up."""
    counts = pd.read_csv(data / "recist" / "published_series_label_counts.csv")
    features = counts.loc[counts.index.repeat(counts["lesions_count"])].reset_index(drop=True)
    features = features.assign(volume_ml=1.0, mean_HU=0.0, major_axis_mm=2.0, minor_axis_mm=1.0)
    series = counts.drop_duplicates("filename").rename(columns={"filename": "uuid"})
    return features, series.assign(study_uuid=series["patient_id"].astype(str) + series["study_date"].astype(str))


def test_published_totals_come_out_of_the_published_counts(release, statistics):
    features, series = release
    summary = summarise(features, series=series)["summary"]
    for name, value in summary.items():
        assert value == statistics["summary"][name], name
    assert set(statistics["summary"]) - set(summary) == {
        *("series_abdomen", "series_thorax"),
        *("objects_before_filter", "objects_removed", "objects_under_50_voxels", "objects_one_slice"),
        *("recist_targets", "recist_targets_adenopathy", "recist_targets_tumor"),
    }


def test_all_keys_of_the_published_statistics_are_computed(release, statistics):
    features, series = release
    series = series.assign(region=["abdomen", "thorax"] * (len(series) // 2), row_spacing=0.7, slices=200)
    objects = pd.DataFrame({"size_voxels": [49, 50, 700], "slices_count": [1, 1, 2], "removed": [True, True, False]})
    targets = pd.DataFrame({"lesion_label_type": ["m", "n", "t"]})
    computed = summarise(features, series=series, objects=objects, targets=targets)
    assert set(computed) == set(statistics)
    for name, part in statistics.items():
        assert set(computed[name]) == set(part) - {"note"}, name
    summary = computed["summary"]
    assert [summary[name] for name in ("objects_before_filter", "objects_removed")] == [3, 2]
    assert [summary[name] for name in ("objects_under_50_voxels", "objects_one_slice")] == [1, 2]
    assert [summary[f"recist_targets{name}"] for name in ("", "_adenopathy", "_tumor")] == [3, 1, 2]
    json.dumps(computed, allow_nan=False)


def test_spread_is_described_as_published(data):
    table = pd.read_csv(data / "recist" / "published_liver_lung_series_volume_stats.csv")
    # of two lesions the least and the greatest are all, so that the rest of the row must follow
    pairs = table[table["lesions_count"] == 2]
    assert len(pairs) > 2
    for row in pairs.to_dict("records"):
        described = describe(pd.Series([row["volume_ml_min"], row["volume_ml_max"]]))
        for name in ("mean", "std"):
            assert described[name] == pytest.approx(row[f"volume_ml_{name}"], abs=2e-6)
        for name in ("25", "50", "75"):
            assert described[f"q{name}"] == pytest.approx(row[f"volume_ml_Q{name}"], abs=2e-6)


def test_a_missing_column_is_named(release):
    features, series = release
    with pytest.raises(SettingError, match="no column volume_ml"):
        summarise(features.drop(columns="volume_ml"))
    with pytest.raises(SettingError, match="no column study_uuid"):
        summarise(features, series=series.drop(columns="study_uuid"))


# --- densities ---


def test_densities_of_a_real_image_are_those_of_numpy_on_the_whole_array(data):
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(data / "nifti" / "ct_3mm_RAS_int16.nii.gz")))
    counted = count_intensities(image[z : z + 5].astype(np.int16) for z in range(0, len(image), 5))
    row = describe_intensities(counted, "ct.nii.gz")
    assert [row["slices"], row["rows"], row["columns"]] == list(image.shape)
    assert (row["min"], row["max"]) == (image.min(), image.max())
    assert [row[name] for name in ("Q1", "Q2", "Q3")] == np.percentile(image, [25, 50, 75]).tolist()
    assert (row["mean"], row["std"]) == pytest.approx((image.mean(), image.std()))
    density, edges = intensity_density(counted)
    # as upstream bins them
    expected, _ = np.histogram(image, bins=np.linspace(-1024, 3071, 100), density=True)
    np.testing.assert_allclose(density, expected)
    assert len(edges) == 100
    assert (density * np.diff(edges)).sum() == pytest.approx(1)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=3, max_dims=3, max_side=5)))
def test_quartiles_of_any_image_are_numpys(image):
    row = describe_intensities(count_intensities(image[z : z + 1] for z in range(len(image))), "a")
    # as float64, since numpy interpolates between int16 in int16, where a difference need not fit
    expected = np.percentile(image.astype(np.float64), [25, 50, 75]).tolist()
    assert [row[name] for name in ("Q1", "Q2", "Q3")] == pytest.approx(expected)
    assert (row["mean"], row["std"]) == pytest.approx((image.mean(), image.std()), abs=1e-6)


def test_what_has_no_distribution_is_refused():
    with pytest.raises(GeometryError, match="without a voxel"):
        count_intensities([])
    with pytest.raises(GeometryError, match="int16"):
        count_intensities([np.zeros((1, 2, 2))])
    with pytest.raises(GeometryError, match="one width"):
        count_intensities([np.zeros((1, 2, 2), dtype=np.int16), np.zeros((1, 2, 3), dtype=np.int16)])
    far = count_intensities([np.full((1, 2, 2), 5000, dtype=np.int16)])
    with pytest.raises(SettingError, match="other limits"):
        intensity_density(far)


# --- lesions of a store ---


@pytest.fixture
def masked_store(sample, tmp_path):
    """Store whose first volume has a mask: its first lesion inside its box, the others past it or nowhere."""
    path = tmp_path / "masked.zarr"
    assert not lesionzarr.convert("deeplesion", sample, path).failed
    catalog = lesionzarr.open(path)
    volume_id = catalog.lesions["volume_id"].value_counts().index[0]
    group = path / "volumes" / volume_id
    attributes = json.loads((group / "zarr.json").read_text())
    lesions = attributes["attributes"]["lesionzarr"]["lesions"]
    shape = catalog.grid(volume_id).shape
    labels = np.zeros(shape, dtype=np.uint8)
    for value, lesion in enumerate(lesions, start=1):
        lesion["mask_label"] = value
        lesion["extra"] = json.dumps({"label": "m,liver"})
    first = lesions[0]
    z, y, x = first["key_z"], int(first["y0"]) + 6, int(first["x0"]) + 6
    labels[z, y : y + 4, x : x + 3] = 1
    if first["z0"] is None:
        first["z0"] = first["z1"] = z
    (group / "zarr.json").write_text(json.dumps(attributes))
    for name in ("labels", "labels/lesions"):
        zarr.create_group(group / name)
    # a store of lesionzarr has all of its chunks, also those without a lesion
    zarr.create_array(group / MASK / MASK_ARRAY, data=labels, chunks=(8, 64, 64), config={"write_empty_chunks": True})
    write_catalog(open_location(path))
    return path, volume_id, labels, (z, y, x)


def test_lesions_of_a_store_are_measured_on_their_masks(masked_store):
    path, volume_id, labels, (z, y, x) = masked_store
    catalog = lesionzarr.open(path)
    table = features_of_store(catalog)
    hu = catalog.volume(volume_id)["hu"].to_numpy()
    row = table.iloc[0]
    assert row["fault"] is pd.NA
    assert list(table.columns[: len(COLUMNS)]) == list(COLUMNS)
    assert (row["filename"], row["label_value"], row["voxels_count"]) == (volume_id, 1, 12)
    assert row["mean_HU"] == pytest.approx(hu[labels == 1].mean())
    assert row["major_axis_slice_idx"] == z
    assert row[["z0", "y0", "x0", "z1", "y1", "x1"]].tolist() == [z, y, x, z, y + 3, x + 2]
    spacing = catalog.grid(volume_id).spacing_mm
    assert row["major_axis_mm"] == pytest.approx(math.hypot(4 * spacing[1], 3 * spacing[2]))
    mark = lesionzarr.recist.Recist(*row["recist"])
    assert mark.lengths_mm(*spacing[1:])[0] == pytest.approx(row["major_axis_mm"])
    assert (row["label_description"], row["lesion_location"]) == ("m,liver", "liver")


def test_a_lesion_without_its_value_in_the_mask_is_told_and_the_others_are_measured(masked_store):
    path, *_ = masked_store
    table = features_of_store(lesionzarr.open(path))
    assert table["fault"].isna().sum() == 1
    assert table["fault"].iloc[1:].str.contains("the mask has no value").all()
    assert table["voxels_count"].iloc[1:].isna().all()


def test_only_the_box_is_read_unless_the_lesion_reaches_out_of_it(masked_store):
    path, _, labels, (z, y, x) = masked_store
    catalog = lesionzarr.open(path)
    asked = []

    def read(_, region, labels):
        asked.append(region)
        return labels[region.slices], np.zeros(region.shape, dtype=np.int16)

    table = features_of_store(catalog, read=functools.partial(read, labels=labels))
    first = catalog.find_lesions([table.index[0]])[0]
    assert asked[0].start == (max(0, z - 1), math.floor(first.y0) - 1, math.floor(first.x0) - 1)
    assert asked[0].shape[1] < labels.shape[1]
    assert asked[1] != asked[0]
    asked.clear()
    wider = labels.copy()
    wider[z, y, : x + 3] = 1
    row = features_of_store(catalog, read=functools.partial(read, labels=wider)).iloc[0]
    assert asked[1].shape == labels.shape
    assert row["voxels_count"] == (wider == 1).sum()
    assert row["x0"] == 0


@pytest.fixture(scope="module")
def recist_store(tmp_path_factory):
    """Store of a made-up recist-dataset with fine pixels, whose lesions are ellipsoids."""
    folder = tmp_path_factory.mktemp("recist")
    source = recist_dataset(folder / "source", image_size=192, slices=30)
    assert not lesionzarr.convert("recist-dataset", source, folder / "recist.zarr").failed
    return lesionzarr.open(folder / "recist.zarr")


def test_made_up_lesions_measure_as_they_were_drawn(recist_store):
    table = features_of_store(recist_store)
    truth = {(one.stem, one.label): one for one in recist_truth(image_size=192, slices=30)}
    assert len(table) == len(truth) > 20
    assert table["fault"].isna().all()
    for row in table.to_dict("records"):
        one = truth[row["filename"], row["label_value"]]
        spacing = recist_store.grid(row["filename"]).spacing_mm
        # slices are 3 mm apart, and the smallest lesions lie on four of them
        assert row["volume_ml"] == pytest.approx(one.volume_ml, rel=0.05)
        assert row["major_axis_mm"] == pytest.approx(one.long_mm, abs=math.hypot(*spacing[1:]))
        assert row["minor_axis_mm"] == pytest.approx(one.short_mm, abs=math.hypot(*spacing[1:]))
        assert row["label_description"] == f"{one.type},{one.location}"
        assert row["lesion_location"] == one.location


def test_targets_of_a_store_are_followed_and_evaluated(recist_store):
    lesions = name_lesions(recist_store.lesions)
    targets = {(one.stem, one.label): one for one in recist_truth(image_size=192, slices=30) if one.target}
    linked, _ = link_lesions(lesions)
    tracks = summarise_tracks(linked)
    assert len(tracks) == len({(one.patient, one.alias, one.location) for one in targets.values()})
    assert not tracks["is_new"].any()
    table, issues = evaluate(to_timepoints(lesions))
    assert issues == []
    sums = lesions[lesions["alias"].notna()].groupby(["patient_id", "study_date"])
    drawn = sums.apply(
        lambda rows: sum(targets[v, m].measured_mm for v, m in zip(rows["volume_id"], rows["mask_label"], strict=True))
    )
    assert table["sum_mm"].tolist() == drawn.tolist()
    assert table["response"].notna().sum() == (table["visit"] > 0).sum()


def test_a_store_without_masks_gives_an_empty_table(sample_store):
    table = features_of_store(lesionzarr.open(sample_store))
    assert table.empty
    assert "fault" in table


def test_a_mask_that_is_not_there_is_a_fault_of_its_lesions(masked_store):
    import shutil

    path, volume_id, *_ = masked_store
    shutil.rmtree(path / "volumes" / volume_id / "labels")
    table = features_of_store(lesionzarr.open(path))
    assert table["fault"].notna().all()
