"""Figures: what is drawn are the numbers of the sources, and what notebooks show is safe and true."""

import base64
import json
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters._deeplesion_lesions import Companions, make_lesions
from lesionzarr.converters._deeplesion_table import group_marks, read_table
from lesionzarr.errors import MissingExtraError, NotFoundError, SettingError
from lesionzarr.export import _marks, pictures
from lesionzarr.features.response import evaluate
from lesionzarr.lesion import Lesion
from lesionzarr.samples import lung_pet_ct_dx, recist_dataset
from lesionzarr.window import Window

FORMULA = "$\\bad{x$"
"""No formula, though matplotlib takes for one what stands between two dollars."""
EVIL = '"><script>alert(1)</script><img src=x onerror="alert(2)">'
ARGUMENTS = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def plt():
    """Pyplot on no screen."""
    matplotlib = pytest.importorskip("matplotlib", reason="the extra plot is absent")
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    return plt


@pytest.fixture
def plot(plt):
    """The room; what it drew is closed after the test."""
    from lesionzarr import plot

    yield plot
    plt.close("all")


@pytest.fixture(scope="module")
def catalog(sample_store):
    return lesionzarr.open(sample_store)


@pytest.fixture(scope="module")
def recist(tmp_path_factory):
    """Source and store of follow-ups; pixels of one series are a quarter higher than wide."""
    folder = tmp_path_factory.mktemp("recist")
    source = recist_dataset(folder / "source", patients=3, image_size=64, slices=20, quirks=["anisotropic_pixels"])
    lesionzarr.convert("recist-dataset", source, folder / "recist.zarr")
    return source, lesionzarr.open(folder / "recist.zarr")


@pytest.fixture(scope="module")
def dl_info(real):
    """Table of all validation lesions of DeepLesion, as it was published."""
    return pd.read_csv(real / "DL_info_val.csv")


@pytest.fixture(scope="module")
def val(real):
    """The same as rows of a catalog, and their volumes."""
    sub_volumes, _ = group_marks(read_table(real / "DL_info_val.csv").marks)
    lesions = [
        lesion.to_row() for sub in sub_volumes for lesion in make_lesions(sub, [(sub.first, sub.last)], Companions())
    ]
    spacings = pd.DataFrame([sub.spacing_mm for sub in sub_volumes], columns=[f"spacing_{axis}_mm" for axis in "zyx"])
    return pd.DataFrame(lesions).set_index("lesion_id").sort_values("source_row"), spacings


def numbers(column):
    return column.str.split(",", expand=True).astype(float).to_numpy()


def texts(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


# --- many lesions ---


def test_the_map_of_real_lesions_has_their_published_places_and_types(plot, val, dl_info):
    axes = plot.lesion_map(val[0])
    places = numbers(dl_info["Normalized_lesion_location"])
    (dots, *_) = axes.collections
    np.testing.assert_allclose(dots.get_offsets(), places[:, [0, 2]], rtol=0, atol=1e-12)
    # the order of the types is that of the README of DeepLesion
    order = ["bone", "abdomen", "mediastinum", "liver", "lung", "kidney", "soft tissue", "pelvis"]
    counts = dl_info["Coarse_lesion_type"].value_counts()
    assert texts(axes) == [f"{order[number - 1]}  {count:,}" for number, count in counts.items()]
    colours = pd.Series(map(tuple, dots.get_facecolors())).groupby(dl_info["Coarse_lesion_type"].to_numpy())
    assert sorted(len(set(group)) for _, group in colours) == [1] * 8
    assert len(set(colours.first())) == 8
    assert axes.get_ylim() == (1, 0), "the head is above"


def test_lesions_without_a_relative_place_are_counted_and_those_without_a_type_are_grey(plot, catalog):
    lesions = catalog.lesions.assign(extra=[None, *catalog.lesions["extra"][1:]])
    axes = plot.lesion_map(lesions)
    assert len(axes.collections[0].get_offsets()) == len(lesions) - 1
    assert axes.get_title("left") == "15 lesions, 1 more without a relative position"
    assert texts(axes)[-1] == f"type unknown  {lesions['type'][1:].isna().sum()}"


def test_a_store_without_relative_places_is_told(plot, recist):
    with pytest.raises(SettingError, match="no lesion has a relative position in the body"):
        plot.lesion_map(recist[1])


def test_sizes_of_real_lesions_are_those_of_the_table_in_mm(plot, val, dl_info):
    axes = plot.sizes(val[0])
    mm = numbers(dl_info["Lesion_diameters_Pixel_"]) * numbers(dl_info["Spacing_mm_px_"])[:, :1]
    assert [patch.get_data()[0].sum() for patch in axes.patches[::2]] == [len(dl_info)] * 2
    assert [line.get_xdata()[0] for line in axes.lines] == pytest.approx(np.median(mm, axis=0))
    assert texts(axes) == [
        f"{name} axis: median {np.median(mm[:, n]):.3g} mm" for n, name in enumerate(["long", "short"])
    ]
    assert axes.get_xscale() == "log"


def test_sizes_by_type_are_quartiles(plot, val, dl_info):
    axes = plot.sizes(val[0], by="type")
    mm = numbers(dl_info["Lesion_diameters_Pixel_"])[:, 0] * numbers(dl_info["Spacing_mm_px_"])[:, 0]
    groups = pd.Series(mm).groupby(dl_info["Coarse_lesion_type"])
    medians = [line.get_xdata()[0] for line in axes.lines if line.get_gid()]
    assert medians == pytest.approx(sorted(groups.median()))
    boxes = [patch.get_path().get_extents() for patch in axes.patches]
    assert sorted(box.x1 for box in boxes) == pytest.approx(sorted(groups.quantile(0.75)))


def test_spacings_of_real_volumes_are_counted(plot, val):
    axes = plot.spacings(val[1])
    assert texts(axes) == ["pixels: median 0.816 mm", "slices: median 1 mm"]
    # every volume is in a bar
    assert [patch.get_data()[0].sum() for patch in axes.patches[::2]] == [len(val[1])] * 2


def test_unknown_intervals_and_pixels_that_are_not_square_are_told(plot):
    table = pd.DataFrame({"spacing_z_mm": [np.nan, 5], "spacing_y_mm": [0.5, 1], "spacing_x_mm": [0.5, 0.8]})
    assert texts(plot.spacings(table)) == [
        *("pixels, along y: median 0.75 mm", "pixels, along x: median 0.65 mm"),
        "slices: median 5 mm, 1 unknown",
    ]


def test_a_single_volume_and_a_single_lesion_have_a_figure(plot, catalog):
    assert plot.spacings(catalog.volumes.iloc[:1]).patches[0].get_data()[0].max() == 1
    assert plot.sizes(catalog.lesions.iloc[:1]).patches[0].get_data()[0].sum() == 1


def test_nothing_to_draw_is_an_error(plot, catalog):
    for draw in (plot.sizes, plot.growth, plot.lesion_map):
        with pytest.raises(SettingError):
            draw(catalog.lesions.iloc[:0])
    with pytest.raises(SettingError, match="no column spacing_z_mm"):
        plot.spacings(catalog.volumes[["spacing_y_mm", "spacing_x_mm"]])
    with pytest.raises(SettingError, match="no column kind"):
        plot.sizes(catalog, by="kind")


# --- voxels ---


def at_mm(axes, x, y):
    """Pixel of the picture of some axes at a place in mm."""
    (image,) = axes.images
    left, right, bottom, top = image.get_extent()
    rows, columns = image.get_array().shape[:2]
    return image.get_array()[int((y - top) / (bottom - top) * rows), int((x - left) / (right - left) * columns)]


def test_windows_show_the_voxels_of_the_volume_where_they_are_in_mm(plot, recist):
    catalog = recist[1]
    volumes = catalog.volumes
    (volume_id,) = volumes.index[volumes["spacing_y_mm"] != volumes["spacing_x_mm"]]
    lesion = catalog.lesions[(catalog.lesions["volume_id"] == volume_id)].iloc[0]
    panels = plot.windows(catalog, lesion.name, ["bone", (-160, 240)])
    assert [axes.get_title("left") for axes in panels] == ["bone: −100 to 900 HU", "−160 to 240 HU"]  # noqa: RUF001
    hu = catalog.volume(volume_id)["hu"].to_numpy()[int(lesion["key_z"])]
    _, y_mm, x_mm = catalog.grid(volume_id).spacing_mm
    rows, columns = int(np.ceil(120 / y_mm)), int(np.ceil(120 / x_mm))
    top = round((lesion["y0"] + lesion["y1"]) / 2) - rows // 2
    left = round((lesion["x0"] + lesion["x1"]) / 2) - columns // 2
    for y, x in np.ndindex(rows, columns):
        if 0 <= top + y < hu.shape[0] and 0 <= left + x < hu.shape[1]:
            grey = int(np.clip((hu[top + y, left + x] + 160) / 400, 0, 1) * 255)
            assert at_mm(panels[1], x * x_mm, y * y_mm).tolist() == [grey] * 3
    assert panels[0].get_aspect() == panels[1].get_aspect() == 1


def test_windows_of_a_lesion_are_its_own_and_presets_that_differ(plot, catalog, real_store):
    real = lesionzarr.open(real_store)
    names = [axes.get_title("left").partition(":")[0] for axes in plot.windows(real, real.lesions.index[0])]
    assert names == ["own", "lung", "bone"], "its own is that of soft tissue"
    own = catalog.lesions.index[catalog.lesions["window_low"] == -1400][0]
    names = [axes.get_title("left").partition(":")[0] for axes in plot.windows(catalog, own)]
    assert names == ["own", "soft-tissue", "lung", "bone"]
    # only the first has marks, so that the lesion is seen in the others
    coloured = [
        (np.asarray(axes.images[0].get_array()) == _marks.BOX_COLOUR).all(-1).any()
        for axes in plot.windows(catalog, own)
    ]
    assert coloured == [True, False, False, False]


def test_axes_that_are_given_are_drawn_on(plot, plt, catalog):
    figure, axes = plt.subplots(1, 3)
    crop = lesionzarr.CropReader(catalog, size=(3, 32, 32), window=["lung", "bone"]).read(catalog.lesions.index[0])
    assert crop.plot(ax=axes) == list(axes[:2])
    assert plot.sizes(catalog, ax=axes[2]) is axes[2]
    assert plt.get_fignums() == [figure.number]
    with pytest.raises(SettingError, match="1 axes for 2 panels"):
        crop.plot(ax=axes[0])


def test_a_lesion_is_drawn_as_render_draws_it(plot, real_store):
    catalog = lesionzarr.open(real_store)
    (lesion,) = catalog.find_lesions([catalog.lesions.index[1]])
    axes = lesion.plot(catalog)
    picture = np.asarray(pictures.render_lesion(catalog, lesion))
    np.testing.assert_array_equal(axes.images[0].get_array(), picture)
    x_mm = catalog.grid(lesion.volume_id).spacing_mm[2]
    assert axes.images[0].get_extent()[:2] == pytest.approx((-x_mm / 2, 511.5 * x_mm))


@pytest.mark.parametrize("length", [64, 200])
def test_the_title_of_a_long_id_stays_in_the_figure_with_both_ends(plot, catalog, length):
    (lesion,) = catalog.find_lesions([catalog.lesions.index[0]])
    named = replace(lesion, lesion_id=f"1.2.840.{'113704' * length}"[: length - 6] + ".77_12")
    axes = plot.lesion(catalog, named)
    axes.figure.draw_without_rendering()
    heading = axes.get_title(loc="left")
    first, second = heading.split("\n")
    assert first.startswith("1.2.840.1137")
    assert first.endswith(".77_12")
    assert "\N{HORIZONTAL ELLIPSIS}" in first
    assert second == pictures.caption(lesion)[1]
    assert axes._left_title.get_window_extent().x1 <= axes.figure.bbox.x1


def test_text_of_the_data_is_no_formula(plot, catalog):
    table = catalog.lesions.assign(type=FORMULA, alias=FORMULA, track_id="a", patient_id=FORMULA, visit=1)
    (lesion,) = catalog.find_lesions([catalog.lesions.index[0]])
    drawn = (
        plot.lesion_map(table),
        plot.sizes(table, by="type"),
        plot.growth(table.rename(columns={"long_mm": FORMULA}), measure=FORMULA)[0],
        plot.lesion(catalog, replace(lesion, lesion_id=FORMULA, type=FORMULA)),
    )
    for axes in drawn:
        picture = BytesIO()
        axes.figure.savefig(picture, format="svg")
        # a comment of the drawing says what its letters are
        assert f"<!-- {FORMULA}" in picture.getvalue().decode()


def test_marks_are_on_the_slices_that_have_them(tmp_path, plot):
    source = lung_pet_ct_dx(tmp_path / "Lung", subjects=1, image_size=64)
    lesionzarr.convert("lung-pet-ct-dx", source, tmp_path / "lung.zarr")
    catalog = lesionzarr.open(tmp_path / "lung.zarr")
    crop = lesionzarr.CropReader(catalog, size=(12, 64, 64), window="lung").read(catalog.lesions.index[0])
    boxes = {row: corners for row, *corners in crop.lesion.extras["slice_boxes"]}
    for index in range(12):
        picture = np.asarray(pictures.render_slice(crop, index, width=64))
        drawn = np.argwhere((picture == _marks.BOX_COLOUR).all(-1))
        row = int(crop.to_volume((index, 0, 0))[0])
        assert bool(len(drawn)) == (row in boxes)
        if len(drawn):
            y, x = drawn.min(axis=0) + crop.origin[1:]
            assert (x, y) == pytest.approx(boxes[row][:2], abs=0.5)


def test_axes_are_on_the_key_slice_alone(catalog):
    crop = lesionzarr.CropReader(catalog, size=(5, 64, 64), window="dicom").read(catalog.lesions.index[0])
    drawn = [(np.asarray(pictures.render_slice(crop, index)) == _marks.LONG_COLOUR).all(-1).any() for index in range(5)]
    assert drawn == [index == crop.key_index for index in range(5)]


def test_the_outline_of_a_mask_is_on_every_slice_of_the_lesion(recist):
    catalog = recist[1]
    lesion = catalog.lesions.index[0]
    crop = lesionzarr.CropReader(catalog, size=(15, 40, 40), window="abdomen", masks=True).read(lesion)
    here = [
        (np.asarray(pictures.render_slice(crop, index)) == _marks.OUTLINE_COLOUR).all(-1).any() for index in range(15)
    ]
    assert here == (crop.mask == crop.lesion.mask_label).any(axis=(1, 2)).tolist()
    assert 2 < sum(here) < 15


def test_grey_levels_of_every_type_are_the_same(catalog):
    lesion = catalog.lesions.index[0]
    crops = [
        lesionzarr.CropReader(catalog, size=(1, 16, 16), window="dicom", dtype=dtype).read(lesion)
        for dtype in ("uint8", "float32", "float16")
    ]
    crops.append(lesionzarr.CropReader(catalog, size=(1, 16, 16)).read(lesion))
    eight, *others = [np.asarray(pictures.render_slice(crop, width=16, marks=False)).astype(int) for crop in crops]
    np.testing.assert_array_equal(eight[..., 0], crops[0].image[0, 0])
    low, high = catalog.lesions.loc[lesion, ["window_low", "window_high"]]
    assert f"{low:g} to {high:g} HU".replace("-", "\N{MINUS SIGN}") in Page(crops[-1]._repr_html_()).text
    assert max(np.abs(other - eight).max() for other in others) <= 1


def test_a_sheet_shows_a_batch(plot, catalog):
    batch = lesionzarr.CropReader(catalog, size=(3, 32, 32), window="dicom").read_batch(catalog.lesions)
    assert batch.plot().images[0].get_array().shape == (4 * 294 + 8, 4 * 264 + 8, 3)


# --- over time ---


def course(*sizes):
    days = ["2024-01-01", "2024-02-01", "2024-04-01"]
    return pd.DataFrame(
        {
            "patient_id": 7,
            "study_date": days[: len(sizes)],
            "visit": range(len(sizes)),
            "track_id": "7/A",
            "alias": "A",
            "long_mm": sizes,
            "volume_ml": sizes,
        }
    )


def test_a_curve_has_baseline_nadir_and_the_limits_of_recist(plot):
    (axes,) = plot.growth(course(30.0, 20.0, 26.0), measure="long_mm")
    curve, baseline, nadir, response, progression, *_ = axes.lines
    assert curve.get_xdata().tolist() == [0, 31, 91]
    assert curve.get_ydata().tolist() == [30, 20, 26]
    assert (baseline.get_xdata().tolist(), baseline.get_ydata().tolist()) == ([0], [30])
    assert (nadir.get_xdata().tolist(), nadir.get_ydata().tolist()) == ([31], [20])
    assert response.get_ydata().tolist() == pytest.approx([21, 21])
    # 20 % over 30 mm until the second study; over 20 mm 5 mm are more than 20 %
    assert progression.get_ydata().tolist() == pytest.approx([36, 36, 25])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("days from the first study", "long axis (mm)")


def test_limits_of_volumes_are_cubed(plot):
    (axes,) = plot.growth(course(100.0, 50.0), measure="volume_ml")
    response, progression = axes.lines[3:5]
    assert response.get_ydata()[0] == pytest.approx(100 * 0.7**3)
    assert progression.get_ydata().tolist() == pytest.approx([100 * 1.2**3] * 2)


def test_studies_without_dates_are_counted(plot):
    (axes,) = plot.growth(course(30.0, 20.0, 26.0).drop(columns="study_date"), measure="long_mm")
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 2]
    assert axes.get_xlabel() == "study"


def test_curves_of_a_store_are_the_measurements_of_its_source(plot, recist):
    source, catalog = recist
    table = pd.read_csv(source / "recist_measurements.csv", dtype={"study_date": str})
    table["day"] = pd.to_datetime(table["study_date"])
    table["day"] -= table.groupby("patient_id")["day"].transform("min")
    expected = sorted(
        (patient, rows.sort_values("day")["recist_measurement_mm"].tolist(), sorted(rows["day"].dt.days))
        for (patient, _, _), rows in table.groupby(["patient_id", "region", "lesion_label_alias"])
    )
    drawn = sorted(
        (int(axes.get_title("left").removeprefix("patient ")), line.get_ydata().tolist(), line.get_xdata().tolist())
        for axes in catalog.plot("growth")
        for line in axes.lines
        if line.get_marker() == "o" and len(line.get_xdata()) > 1
    )
    assert drawn == expected


def test_sums_are_drawn_as_they_were_evaluated(plot, data):
    table = pd.read_csv(data / "recist" / "pyrecist_synthetic_measurements.csv").rename(
        columns={"measurement": "diameter_mm", "lesion_label_alias": "alias", "lesion_category": "category"}
    )
    responses, _ = evaluate(table)
    panels = plot.growth(responses)
    for axes, (patient, rows) in zip(panels, responses.groupby("patient_id"), strict=True):
        assert axes.get_title("left") == f"patient {patient}"
        assert axes.lines[0].get_ydata().tolist() == rows["sum_mm"].dropna().tolist()


# --- the store as a whole ---


@pytest.mark.parametrize("figure", ["map", "sizes", "spacing", "windows"])
def test_every_figure_is_a_file(plot, sample_store, figure, tmp_path, capsys):
    path = tmp_path / "figures" / f"{figure}.png"
    assert main(["plot", str(sample_store), "--figure", figure, "-o", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"figure": figure, "written": str(path)}
    with Image.open(path) as picture:
        assert min(picture.size) > 300


def test_a_query_chooses_what_is_drawn(plot, catalog):
    lesion = catalog.lesions.index[5]
    axes = catalog.plot("map", query=f"lesion_id == {lesion!r}")
    assert len(axes.collections[0].get_offsets()) == 1
    assert catalog.plot("spacing", query=f"lesion_id == {lesion!r}").patches[0].get_data()[0].sum() == 1
    (first, *_) = catalog.plot("windows", query=f"lesion_id == {lesion!r}")
    low, high = catalog.lesions.loc[lesion, ["window_low", "window_high"]]
    assert first.get_title("left") == f"own: {low:g} to {high:g} HU".replace("-", "\N{MINUS SIGN}")


def test_a_figure_that_is_none_and_one_without_lesions_are_told(plot, catalog, recist, capsys):
    with pytest.raises(NotFoundError, match="near: map"):
        catalog.plot("maps")
    with pytest.raises(SettingError, match="no lesion to draw"):
        catalog.plot("windows", query="long_mm < 0")
    source, _ = recist
    assert main(["plot", str(source.parent / "recist.zarr"), "-o", str(source / "map.png")]) == 2
    assert "DeepLesion has it" in capsys.readouterr().err


def test_without_matplotlib_its_extra_is_named_and_notebooks_show_the_rest(monkeypatch, catalog):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lesionzarr\[plot\]'"):
        catalog.plot()
    crop = lesionzarr.CropReader(catalog, size=(3, 32, 32), window="lung").read(catalog.lesions.index[0])
    assert "<img" in crop._repr_html_()
    assert "<img" in crop.scroll()._repr_html_()


# --- notebooks ---


class Page(HTMLParser):
    """Tags, attributes and text of a piece of HTML."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.attributes, self.text, self._scripts = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        self._scripts = tag == "script"

    def handle_data(self, data):
        if not self._scripts:
            self.text += data + "\n"

    @property
    def images(self):
        sources = [value for tag, name, value in self.attributes if (tag, name) == ("img", "src")]
        return [Image.open(BytesIO(base64.b64decode(source.partition(",")[2]))) for source in sources]


def test_a_store_says_what_it_holds(catalog):
    page = Page(catalog._repr_html_())
    for text in ("DeepLesion", "16 lesions, 9 volumes, 9 series, 7 studies, 5 patients", "train 8, val 4, test 4"):
        assert text in page.text
    low, high = catalog.volumes["spacing_y_mm"].agg(["min", "max"])
    assert f"{low:.4g} to {high:.4g} mm" in page.text
    assert all(name in page.text for name in catalog.lesions.index[:5])
    assert catalog.lesions.index[5] not in page.text
    assert "and 11 more" in page.text


def test_a_store_is_shown_without_its_voxels_and_without_paths(sample_store, tmp_path):
    shutil.copytree(sample_store, tmp_path / "a.zarr", ignore=shutil.ignore_patterns("volumes"))
    html = lesionzarr.open(tmp_path / "a.zarr")._repr_html_()
    assert "a.zarr" in html
    assert str(tmp_path) not in html


def test_text_of_the_data_is_no_html(catalog):
    lesion = catalog.find_lesions([catalog.lesions.index[0]])[0]
    crop = lesionzarr.CropReader(catalog, size=(3, 32, 32), window="lung").read(lesion)
    evil = replace(lesion, lesion_id=EVIL, volume_id=EVIL, type=EVIL, labels=(EVIL,), split=EVIL, patient_id=EVIL)
    bad = replace(crop, lesion=evil)
    rows = catalog.lesions.assign(type=EVIL, split=EVIL, volume_id=EVIL).rename(index=lambda name: EVIL + name)
    store = replace(catalog, lesions=rows, info={"title": EVIL, "licence": EVIL, "citation": EVIL})
    batch = replace(lesionzarr.CropReader(catalog, size=(3, 32, 32)).read_batch(lesion), crops=(bad,))
    for value in (evil, bad, store, batch, bad.scroll()):
        page = Page(value._repr_html_())
        assert "onerror" not in {name for _, name, _ in page.attributes}
        assert page.tags.count("script") == (value.__class__.__name__ == "Scroller")
        assert {"img"} >= {tag for tag, name, _ in page.attributes if name == "src"}
        assert all(value.startswith("data:image/png") for _, name, value in page.attributes if name == "src")
        assert "<script>alert(1)</script>" in page.text or value is batch


def test_a_crop_is_shown_in_each_window_with_its_marks(catalog):
    lesion = catalog.lesions.index[0]
    crop = lesionzarr.CropReader(catalog, size=(3, 64, 64), window=["dicom", "bone"]).read(lesion)
    page = Page(crop._repr_html_())
    assert [image.size for image in page.images] == [(256, 256)] * 2
    assert "slice 2 of 3" in page.text
    picture = np.asarray(page.images[1].convert("RGB"))
    assert (picture == _marks.BOX_COLOUR).all(-1).any()
    # off the marks the picture is the crop
    assert (picture[2::4, 2::4][:4] == crop.image[1, 1, :4, :, None]).all()
    assert len(crop._repr_html_()) < 200_000


def test_a_picture_that_cannot_be_made_leaves_the_text_with_the_reason(catalog):
    batch = lesionzarr.CropReader(catalog, size=(3, 32, 32), window="lung").read_batch(catalog.lesions[:2])
    broken = replace(batch.crops[0], image=np.zeros((1, 0, 0, 0), np.uint8))
    for value in (broken, replace(batch, crops=(broken, broken))):
        page = Page(value._repr_html_())
        assert "no picture" in page.text
        assert "img" not in page.tags
    assert "0 crops" in replace(batch, crops=())._repr_html_()


def test_a_value_that_makes_no_sense_is_shown_as_text_with_the_reason(catalog):
    lesion = Lesion("a_1", "a", "a", key_z=3, x0=9, y0=2, x1=3, y1=4)
    text = Page(lesion._repr_html_()).text
    assert "a box that ends before it begins" in text
    assert "lesion_id='a_1'" in text
    assert "'split'" in Page(replace(catalog, lesions=catalog.lesions.drop(columns="split"))._repr_html_()).text


def test_a_batch_is_one_small_picture(catalog):
    batch = lesionzarr.CropReader(catalog, size=(3, 64, 64), window="dicom").read_batch(catalog.lesions)
    page = Page(batch._repr_html_())
    assert ("16 crops" in page.text, len(page.images)) == (True, 1)
    assert len(batch._repr_html_()) < 300_000


def test_a_lesion_says_what_is_known_of_it():
    lesion = Lesion("a_1", "a", "a", key_z=3, x0=1, y0=2, x1=3, y1=4, long_mm=12.34, type="lung", age=60.0)
    page = Page(lesion._repr_html_())
    for text in ("a_1", "lung", "long 12.3 mm", "(3, 2, 1) to (3, 4, 3)", "60 years"):
        assert text in page.text
    assert "split" not in page.text


def test_crops_of_whole_slices_are_made_small(real_store):
    catalog = lesionzarr.open(real_store)
    stack = lesionzarr.StackReader(catalog, slices=5, window="lung").read(catalog.lesions.index[0])
    assert [image.size for image in Page(stack._repr_html_()).images] == [(256, 256)]
    assert "slice 3 of 5, key slice" in stack.scroll().captions


def test_a_long_crop_is_scrolled_near_its_key_slice(real_store):
    catalog = lesionzarr.open(real_store)
    crop = lesionzarr.CropReader(catalog, size=(61, 8, 8), window=Window(-100, 100)).read(catalog.lesions.index[1])
    scroller = crop.scroll()
    assert len(scroller) == 40
    assert scroller.captions[scroller.first] == f"slice {crop.key_index + 1} of 61, key slice"
    assert scroller.captions[scroller.first + 1].endswith("1 mm after it")


# --- in a browser ---


@pytest.fixture(scope="module")
def chromium():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scrollers(catalog):
    """Two of them, of nine slices in two windows and of five in one."""
    first, second = catalog.lesions.index[:2]
    return [
        lesionzarr.CropReader(catalog, size=(9, 32, 32), window=["dicom", "bone"]).read(first).scroll(),
        lesionzarr.CropReader(catalog, size=(5, 32, 32), window="lung").read(second).scroll(),
    ]


def seen(page, number=0):
    """Number of the slice that a scroller shows, and its text."""
    root = page.locator("[data-lesionzarr]").nth(number)
    shown = root.locator("[data-slice]").evaluate_all(
        "slices => slices.map((slice, n) => slice.offsetHeight ? n : -1).filter(n => n >= 0)"
    )
    assert len(shown) == 1
    return shown[0], root.locator("output").inner_text()


def test_wheel_bar_and_keys_scroll_the_slices_of_their_own_scroller(chromium, scrollers):
    page, faults = chromium.new_page(), []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.set_content("<body>" + "".join(each._repr_html_() for each in scrollers))
    captions = scrollers[0].captions
    assert seen(page) == (4, captions[4])
    page.locator("[data-lesionzarr] img:visible").first.hover()
    page.mouse.wheel(0, 100)
    page.wait_for_function("text => document.querySelector('output').textContent === text", arg=captions[5])
    assert seen(page) == (5, captions[5])
    for _ in range(9):
        page.mouse.wheel(0, -100)
    page.wait_for_function("text => document.querySelector('output').textContent === text", arg=captions[0])
    assert seen(page) == (0, captions[0])
    bar = page.locator("input").first
    bar.fill("8")
    assert seen(page) == (8, captions[8])
    bar.press("ArrowLeft")
    assert seen(page) == (7, captions[7])
    assert seen(page, 1) == (2, scrollers[1].captions[2])
    assert page.locator("[data-lesionzarr]").first.locator("img:visible").count() == 2
    assert page.evaluate("document.querySelector('img').naturalWidth") == 256
    page.close()
    assert not faults


def test_a_scroller_twice_on_a_page_and_one_without_scripts_show_the_key_slice(chromium, scrollers):
    page = chromium.new_page()
    page.set_content("<body>" + 2 * scrollers[1]._repr_html_())
    page.locator("input").nth(1).fill("0")
    assert (seen(page, 0)[0], seen(page, 1)[0]) == (2, 0)
    # by one slice, though its script ran twice
    page.locator("[data-lesionzarr]").first.dispatch_event("wheel", {"deltaY": 100})
    assert (seen(page, 0)[0], seen(page, 1)[0]) == (3, 0)
    page.close()
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.set_content("<body>" + scrollers[0]._repr_html_())
    assert page.locator("[data-slice]:visible").get_attribute("data-slice") == scrollers[0].captions[4]
    assert page.locator("input").is_disabled()
    context.close()


def test_text_of_the_data_runs_nothing_in_a_browser(chromium, catalog):
    crop = lesionzarr.CropReader(catalog, size=(3, 32, 32), window="lung").read(catalog.lesions.index[0])
    evil = replace(crop, lesion=replace(crop.lesion, lesion_id=EVIL, type=EVIL))
    page, said = chromium.new_page(), []
    page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
    page.set_content(evil._repr_html_() + evil.scroll()._repr_html_() + evil.lesion._repr_html_())
    assert page.locator("b").first.inner_text() == EVIL
    page.close()
    assert not said


# --- the notebooks of the repository ---

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_tells_nothing_of_the_machine_that_ran_it(path):
    text = path.read_text()
    assert len(text) < 200_000
    cells = json.loads(text)["cells"]
    outputs = json.dumps([cell.get("outputs") for cell in cells])
    for word in ("/home/", "/tmp/", "/root/", "/work/", "/Users/", "ipykernel", "Warning"):  # noqa: S108 - looked for
        assert word not in outputs
    opening = "".join(cells[0]["source"])
    assert opening.startswith("# ")
    assert "?" in opening.partition("\n\n")[2].partition("\n\n")[0], "it opens with what it answers"
    assert all(cell["outputs"] or cell["execution_count"] for cell in cells if cell["cell_type"] == "code")
