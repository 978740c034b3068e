"""Pictures of lesions: what is drawn lies where it was measured, in the right shape."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import GeometryError
from lesionzarr.export import _marks, pictures
from lesionzarr.features.store import features_of_store, measure_lesion
from lesionzarr.samples import recist_dataset, recist_truth

SMALL = {"patients": 2, "image_size": 128, "slices": 20}


@pytest.fixture
def run(capsys):
    """Run a command; give its exit code, stdout and stderr."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Store of ellipsoids, one series of which has pixels that are a quarter higher than wide."""
    folder = tmp_path_factory.mktemp("recist")
    source = recist_dataset(folder / "source", quirks=["anisotropic_pixels"], **SMALL)
    assert not lesionzarr.convert("recist-dataset", source, folder / "recist.zarr").failed
    return folder / "recist.zarr"


@pytest.fixture(scope="module")
def catalog(store):
    return lesionzarr.open(store)


def flat(catalog):
    """The volume with pixels that are higher than wide."""
    y, x = catalog.volumes["spacing_y_mm"], catalog.volumes["spacing_x_mm"]
    (volume_id,) = catalog.volumes.index[y != x]
    return volume_id


def places(picture, colour):
    """Middles of the pixels of a colour, (x, y), in pixels of the picture."""
    return np.argwhere((np.asarray(picture) == colour).all(-1))[:, ::-1] + 0.5


def measured(catalog):
    return [measure_lesion(catalog, lesion) for lesion in catalog.find_lesions(list(catalog.lesions.index))]


def test_a_measured_lesion_is_what_the_table_of_features_has(catalog):
    table = features_of_store(catalog)
    for lesion in measured(catalog):
        row = table.loc[lesion.lesion_id]
        assert lesion.key_z == row["major_axis_slice_idx"]
        assert (lesion.long_mm, lesion.short_mm) == (row["major_axis_mm"], row["minor_axis_mm"])
        assert list(lesion.recist) == row["recist"]
        assert (lesion.box.z0, lesion.box.x1) == (row["z0"], row["x1"])
        assert {"long_mm", "short_mm", "recist", "key_z", "x0"} <= set(lesion.derived)
        (given,) = catalog.find_lesions([lesion.lesion_id])
        assert lesion.key_slice == (given.key_slice if lesion.key_z == given.key_z else None)


def test_the_slice_of_made_up_lesions_is_one_of_the_two_nearest_to_their_middle(catalog):
    truth = {f"{one.stem}_{one.label}": one for one in recist_truth(**SMALL)}
    for lesion in measured(catalog):
        assert abs(lesion.key_z - truth[lesion.lesion_id].centre[0]) < 1.6


def test_axes_end_where_they_were_measured(catalog):
    for lesion in measured(catalog):
        y_mm, x_mm = catalog.grid(lesion.volume_id).spacing_mm[1:]
        picture = pictures.render_lesion(catalog, lesion, scale=4, lengths=False)
        for axis, colour in zip(lesion.mark.axes, (_marks.LONG_COLOUR, _marks.SHORT_COLOUR), strict=True):
            drawn = places(picture, colour)
            for x, y in (axis[:2], axis[2:]):
                end = (x + 0.5) * 4, (y + 0.5) * 4 * y_mm / x_mm
                assert np.hypot(*(drawn - end).T).min() < 4
            # nothing of that colour lies off the line
            assert drawn[:, 0].min() > (min(axis[0], axis[2]) + 0.5) * 4 - 3
            assert drawn[:, 0].max() < (max(axis[0], axis[2]) + 0.5) * 4 + 3


def test_the_outline_is_the_outermost_pixels_of_the_mask(catalog):
    for lesion in measured(catalog):
        if lesion.volume_id == flat(catalog):
            continue
        mask = catalog.mask(lesion.volume_id)[lesion.key_z].to_numpy() == lesion.mask_label
        around = np.pad(mask, 1)
        inner = mask & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
        picture = np.asarray(pictures.render_lesion(catalog, lesion, lengths=False))
        coloured = {
            name: (picture == getattr(_marks, f"{name}_COLOUR")).all(-1) for name in ("OUTLINE", "LONG", "SHORT")
        }
        assert not (coloured["OUTLINE"] & ~(mask & ~inner)).any()
        # axes are drawn over it
        assert (coloured["OUTLINE"] | coloured["LONG"] | coloured["SHORT"])[mask & ~inner].all()


@pytest.mark.parametrize("scale", [1, 3, 4])
def test_a_box_holds_the_pixels_that_it_was_made_from(catalog, scale):
    for lesion in measured(catalog):
        if lesion.volume_id == flat(catalog):
            continue
        mask = catalog.mask(lesion.volume_id).to_numpy() == lesion.mask_label
        inside = np.argwhere(mask.any(axis=0))[:, ::-1]
        crop = lesionzarr.StackReader(catalog, slices=1, window="soft-tissue").read(replace(lesion, recist=None))
        picture = pictures.enlarge(crop.image[0, 0], scale)
        _marks.draw_marks(picture, crop)
        drawn = places(picture, _marks.BOX_COLOUR)
        # from edge to edge of the outermost pixels, half a pixel off their centres
        assert (drawn.min(axis=0) - 0.5 == inside.min(axis=0) * scale).all()
        assert (drawn.max(axis=0) + 0.5 == (inside.max(axis=0) + 1) * scale).all()


def test_a_crop_that_leaves_the_slice_has_the_outline_too(catalog):
    lesion = measured(catalog)[0]
    whole = pictures.render_lesion(catalog, lesion, lengths=False)
    wide = pictures.render_lesion(catalog, lesion, size=250, lengths=False)
    assert wide.size == (250, 250)
    assert len(places(wide, _marks.OUTLINE_COLOUR)) == len(places(whole, _marks.OUTLINE_COLOUR)) > 10


def test_shapes_are_those_in_mm(catalog):
    volume_id = flat(catalog)
    ids = list(catalog.lesions.index[catalog.lesions["volume_id"] == volume_id])
    lesion = measure_lesion(catalog, catalog.find_lesions(ids)[0])
    picture = pictures.render_lesion(catalog, lesion, scale=3)
    assert picture.size == (384, 480)
    x_mm = catalog.grid(volume_id).spacing_mm[2]
    lengths = [
        np.ptp(places(pictures.render_lesion(catalog, lesion, scale=3, lengths=False), colour), axis=0) / 3 * x_mm
        for colour in (_marks.LONG_COLOUR, _marks.SHORT_COLOUR)
    ]
    expected = lesion.mark.lengths_mm(*catalog.grid(volume_id).spacing_mm[1:])
    assert [np.hypot(*each) for each in lengths] == pytest.approx(expected, abs=x_mm)
    assert pictures.enlarge(np.zeros((4, 6), np.uint8), 2, 0.5).size == (24, 8)


def test_lengths_are_written_beside_the_lesion_and_never_on_it(catalog):
    for lesion in measured(catalog):
        for scale in (1, 4):
            plain, written = (
                np.asarray(pictures.render_lesion(catalog, lesion, scale=scale, lengths=lengths)).astype(int)
                for lengths in (False, True)
            )
            rows, columns = np.nonzero((plain != written).any(-1))
            assert len(rows) > 100
            stretch = plain.shape[0] / plain.shape[1]
            low = np.array([lesion.x0 * scale, lesion.y0 * scale * stretch])
            high = np.array([(lesion.x1 + 1) * scale, (lesion.y1 + 1) * scale * stretch])
            within = (columns >= low[0]) & (columns < high[0]) & (rows >= low[1]) & (rows < high[1])
            assert not within.any()


def test_lengths_stay_in_the_picture_wherever_the_lesion_lies(catalog):
    (lesion, *_) = measured(catalog)
    for size in (30, 64, 128):
        picture = pictures.render_lesion(catalog, lesion, size=size, scale=2)
        assert picture.size == (2 * size, 2 * size)


def test_a_contact_sheet_keeps_the_shape_of_its_pictures():
    white, tall = Image.new("RGB", (40, 40), "white"), Image.new("RGB", (20, 40), "white")
    sheet = np.asarray(pictures.contact_sheet([(white, ["a"]), (tall, ["b"])], columns=2, tile=80))
    left, right = (part[8:88] == 255 for part in (sheet[:, 8:88, 0], sheet[:, 96:176, 0]))
    assert left.all()
    assert right.sum(axis=1).tolist() == [40] * 80
    assert right[0, 20:60].all()


def test_close_ups_hold_all_of_the_lesion(catalog):
    for lesion in measured(catalog):
        picture = pictures.render_close(catalog, lesion)
        assert max(picture.size) >= 256
        outline = places(picture, _marks.OUTLINE_COLOUR)
        assert outline.min() > 1
        assert (outline.max(axis=0) < np.array(picture.size) - 1).all()


def test_the_command_measures_where_there_is_a_mask(run, catalog, store, tmp_path):
    chosen = ["--query", "timepoint == 0 and patient_id == '1'"]
    code, out, _ = run("render", store, *chosen, "-o", tmp_path / "measured", "--scale", 2, "--json")
    assert code == 0
    names = {path.rsplit("/", 1)[-1] for path in json.loads(out)["written"]}
    assert names == {f"{name}.png" for name in catalog.select(chosen[1]).index}
    run("render", store, *chosen, "-o", tmp_path / "given", "--scale", 2, "--axes", "given")
    run("render", store, *chosen, "-o", tmp_path / "ellipse", "--scale", 2, "--method", "ellipse")
    for name in names:
        found = {}
        for folder in ("measured", "given", "ellipse"):
            with Image.open(tmp_path / folder / name) as picture:
                assert picture.size == (256, 256)
                assert len(places(picture, _marks.OUTLINE_COLOUR)) > 5
                found[folder] = places(picture, _marks.LONG_COLOUR)
        # the source gives lengths of targets, and no axes
        assert len(found["given"]) < len(found["measured"])
        assert found["ellipse"].tolist() != found["measured"].tolist()
    with Image.open(tmp_path / "measured" / "contact-sheet.png") as sheet:
        assert sheet.size == (4 * 264 + 8, -(-len(names) // 4) * (256 + 30 + 8) + 8)


def test_axes_of_deeplesion_are_those_of_its_table(run, sample_store, tmp_path):
    catalog = lesionzarr.open(sample_store)
    first = catalog.lesions.index[0]
    assert run("render", sample_store, first, "-o", tmp_path, "--scale", 4)[0] == 0
    (lesion,) = catalog.find_lesions([first])
    with Image.open(tmp_path / f"{first}.png") as picture:
        drawn = places(picture, _marks.LONG_COLOUR)
    (x0, y0, x1, y1), _ = lesion.mark.axes
    for x, y in ((x0, y0), (x1, y1)):
        assert np.hypot(*(drawn - ((x + 0.5) * 4, (y + 0.5) * 4)).T).min() < 4
    plain = pictures.render_lesion(catalog, lesion, lengths=False, scale=4)
    assert len(places(plain, _marks.LONG_COLOUR)) < len(drawn)
    code, out, err = run("render", sample_store, first, "-o", tmp_path / "no", "--axes", "measured")
    assert (code, out) == (1, "nothing written\n")
    assert "no mask" in err
    with pytest.raises(GeometryError, match="no mask"):
        measure_lesion(catalog, lesion)
