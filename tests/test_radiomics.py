"""First-order, shape and texture features: values, regions, and extraction that is stopped and gone on with."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial

import distributed
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
import SimpleITK
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.features import firstorder
from lesionzarr.features import shape as shape_module
from lesionzarr.features import texture as texture_module
from lesionzarr.features._bulk import Part, make_bulk
from lesionzarr.features.discretise import Bins, discretise
from lesionzarr.features.firstorder import first_order
from lesionzarr.features.pseudo_mask import extent, pseudo_mask
from lesionzarr.features.radiomics import SETS, columns
from lesionzarr.features.shape import IN_PLANE, SHAPE, shape
from lesionzarr.features.store import features_of_store
from lesionzarr.features.texture import texture
from lesionzarr.recist import Recist
from lesionzarr.samples import deeplesion, recist_dataset

IBSI_SETS = ("shape", "firstorder", "texture")
LESIONS = 200


def measure(parts, bins=None):
    bulk = make_bulk(parts)
    levels = discretise(bulk, bins or Bins())
    return {**shape(bulk), **first_order(bulk, levels), **texture(bulk, levels)}


# --- the digital phantom of IBSI ---

# reference manual, arXiv:1612.07003, section 5.1; 0 is outside of the region
PHANTOM = np.array(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ]
)
# consensus values of the manual's sections 3.1 to 3.11, with the tolerance where one is given
SHAPE_VALUES = {
    "morph_volume": (556, 4),
    "morph_vol_approx": (592, 4),
    "morph_area_mesh": (388, 3),
    "morph_av": (0.698, 0.004),
    "morph_comp_1": (0.0411, 0.0003),
    "morph_comp_2": (0.599, 0.004),
    "morph_sph_dispr": (1.19, 0.01),
    "morph_sphericity": (0.843, 0.005),
    "morph_asphericity": (0.186, 0.001),
    "morph_com": (0.672, 0.004),
    "morph_diam": (13.1, 0.1),
    "morph_pca_maj_axis": (11.4, 0.1),
    "morph_pca_min_axis": (9.31, 0.06),
    "morph_pca_least_axis": (8.54, 0.05),
    "morph_pca_elongation": (0.816, 0.005),
    "morph_pca_flatness": (0.749, 0.005),
    "morph_vol_dens_aabb": (0.869, 0.005),
    "morph_area_dens_aabb": (0.866, 0.005),
    "morph_vol_dens_aee": (1.17, 0.01),
    "morph_integ_int": (1200, 10),
}
FIRST_ORDER_VALUES = (
    *(2.15, 3.05, 1.08, -0.355, 1, 1, 1, 4, 6, 3, 5, 1.55, 1.11, 1.15, 0.812, 0.6, 567, 2.77, 1.27, 0.512),
)
# 3D, averaged over the directions
CM_3D = (
    *(0.503, 2.14, 3.1, 2.4, 1.43, 3.06, 1.56, 4.29, 7.07, 1.92, 0.303, 5.32, 1.43, 0.677, 0.851, 0.618, 0.898),
    *(0.0604, 0.157, 5.06, 7.07, 16.6, 145, -0.157, 0.52),
)
RLM_3D = (0.705, 3.06, 0.603, 9.7, 0.352, 8.54, 2.39, 17.6, 21.8, 0.43, 26.9, 0.513, 0.68, 3.46, 0.574, 2.43)
SZM_3D = (0.255, 550, 0.253, 15.6, 0.0256, 2.76, 503, 1490, 1.4, 0.28, 1, 0.2, 0.0676, 2.64, 331, 2.32)
NGT_3D = (0.0296, 0.584, 6.54, 13.5, 0.763)
NGL_3D = (*(0.045, 109, 0.693, 7.66, 0.00963, 0.736, 102, 235, 37.9, 0.512, 4.86, 0.0657, 1, 3.05, 22.1, 4.4, 0.0533),)
# slice by slice, averaged over the directions and the slices
CM_2D = (
    *(0.519, 2.14, 2.69, 2.05, 1.42, 2.9, 1.4, 4.28, 5.47, 1.6, 0.368, 5.28, 1.42, 0.678, 0.851, 0.619, 0.899),
    *(0.0567, -0.0121, 5.09, 5.47, 7, 79.1, -0.155, 0.487),
)
RLM_2D = (0.641, 3.78, 0.604, 9.82, 0.294, 8.57, 3.14, 17.4, 5.2, 0.46, 6.12, 0.492, 0.627, 3.35, 0.761, 2.17)
SZM_2D = (0.363, 43.9, 0.371, 16.4, 0.0259, 10.3, 40.4, 113, 1.41, 0.323, 1.49, 0.333, 0.24, 3.97, 21, 1.93)
NGT_2D = (0.121, 0.925, 2.99, 10.4, 2.88)
NGL_2D = (*(0.158, 19.2, 0.702, 7.49, 0.0473, 3.06, 17.6, 49.5, 10.2, 0.562, 3.96, 0.212, 1, 2.7, 2.73, 2.71, 0.17),)


def phantom_parts(volume):
    blocks = [PHANTOM] if volume else [PHANTOM[z : z + 1] for z in range(4)]
    return [Part(block, block > 0, (2.0, 2.0, 2.0)) for block in blocks]


@pytest.mark.parametrize("bins", [Bins(1.0), Bins(size=None, number=6)])
def test_the_digital_phantom_of_ibsi_has_the_reference_values(bins):
    found = measure(phantom_parts(volume=True), bins)
    for name, (value, tolerance) in SHAPE_VALUES.items():
        assert found[name][0] == pytest.approx(value, abs=tolerance), name
    names = columns(["firstorder", "texture"])
    values = (*FIRST_ORDER_VALUES, *CM_3D, *RLM_3D, *SZM_3D, *NGT_3D, *NGL_3D)
    for name, value in zip(names, values, strict=True):
        assert float(f"{found[name][0]:.3g}") == value, name


def test_the_slices_of_the_phantom_have_the_reference_values_of_two_dimensions():
    found = measure(phantom_parts(volume=False), Bins(1.0))
    values = (*CM_2D, *RLM_2D, *SZM_2D, *NGT_2D, *NGL_2D)
    for name, value in zip(columns(["texture"]), values, strict=True):
        assert float(f"{found[name].mean():.3g}") == value, name


# --- pyradiomics ---

CLASSES = ("firstorder", "shape", "glcm", "glrlm", "glszm", "gldm", "ngtdm")
# the tables of the docstrings, and so what they say is what is compared
THERE = {
    name: ours.strip()
    for module in (firstorder, shape_module, texture_module)
    for name, ours in re.findall(rf"^((?:{'|'.join(CLASSES)})_\w+) +(.+)$", module.__doc__, re.MULTILINE)
}
OF_A_SAMPLE = ", of a sample"


@pytest.fixture(scope="module")
def radiomics():
    name = "pyradiomics absent: pip install pyradiomics --no-build-isolation, with numpy, cython and versioneer there"
    package = pytest.importorskip("radiomics", reason=name)
    package.setVerbosity(60)
    return package


def theirs(part, classes):
    """Features of pyradiomics, by class and name."""
    from radiomics import featureextractor

    images = [SimpleITK.GetImageFromArray(array) for array in (part.hu, part.mask.astype(np.uint8))]
    for image in images:
        image.SetSpacing(part.spacing_mm[::-1])
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=25, force2Ddimension=0)
    extractor.disableAllFeatures()
    for name in classes:
        # pyradiomics leaves out what other features say too unless it is named
        own = [there.partition("_")[2] for there, ours in THERE.items() if there.startswith(f"{name}_") and ours != "-"]
        extractor.enableFeaturesByName(**{name: own})
    found = extractor.execute(*images)
    values = {key.removeprefix("original_"): float(v) for key, v in found.items() if key.startswith("original_")}
    assert values.keys() == {
        there for there, ours in THERE.items() if there.partition("_")[0] in classes and ours != "-"
    }
    return values


@pytest.fixture(scope="module")
def real_parts(real_store):
    """Boxes and ellipses of real lesions, and round boxes of several slices about them."""
    catalog = lesionzarr.open(real_store)
    parts = []
    for lesion in catalog.find_lesions(list(catalog.lesions.index)):
        hu = catalog.volume(lesion.volume_id)["hu"].to_numpy()
        spacing_mm = catalog.grid(lesion.volume_id).spacing_mm
        z, y, x = (round(place) for place in lesion.box.centre)
        plane = hu[z : z + 1, y - 30 : y + 30, x - 30 : x + 30]
        yy, xx = np.ogrid[-30:30, -30:30]
        parts.append(Part(plane, ((yy / 12) ** 2 + (xx / 17) ** 2 < 1)[None], spacing_mm))
        block = hu[max(0, z - 5) : z + 6, y - 20 : y + 20, x - 20 : x + 20]
        zz, yy, xx = np.ogrid[: len(block), -20:20, -20:20]
        middle = (len(block) - 1) / 2
        parts.append(
            Part(block, ((zz - middle) / (middle + 0.1)) ** 2 + (yy / 9) ** 2 + (xx / 14) ** 2 < 1, spacing_mm)
        )
    return parts


def test_the_tables_of_names_have_every_feature_of_pyradiomics(radiomics):
    classes = radiomics.getFeatureClasses()
    for name in CLASSES:
        theirs = {f"{name}_{one}" for one, deprecated in classes[name].getFeatureNames().items() if not deprecated}
        assert theirs <= THERE.keys()
    assert {ours.removesuffix(" + 3").removesuffix(OF_A_SAMPLE) for ours in THERE.values()} - {"-"} <= {
        *columns(IBSI_SETS)
    }
    assert len(THERE) == 18 + 17 + 75


def test_first_order_and_texture_equal_pyradiomics_on_real_slices(radiomics, real_parts):
    found = measure(real_parts)
    for number, part in enumerate(real_parts):
        for there, value in theirs(part, [name for name in CLASSES if name != "shape"]).items():
            name, _, more = THERE[there].partition(" + ")
            ours = found[name][number] + float(more or 0)
            assert ours == pytest.approx(value, rel=1e-9, abs=1e-12), (number, name)


def test_the_shape_of_solids_equals_pyradiomics(radiomics, real_parts):
    for part in real_parts[1::2]:
        found = measure([part])
        voxels = np.count_nonzero(part.mask)
        for there, value in theirs(part, ["shape"]).items():
            name = THERE[there].removesuffix(OF_A_SAMPLE)
            # IBSI's values need the variance of a sample, that of pyradiomics is of all
            factor = np.sqrt(voxels / (voxels - 1)) if THERE[there].endswith(OF_A_SAMPLE) else 1
            assert found[name][0] == pytest.approx(value * factor, rel=1e-9), name


@pytest.mark.parametrize("seed", range(3))
def test_the_shape_of_a_ragged_region_equals_pyradiomics_to_one_percent(radiomics, seed):
    # where voxels touch along an edge alone, the surface of pyradiomics has holes
    rng = np.random.default_rng(seed)
    field = rng.normal(size=(9, 20, 22))
    for axis in (0, 1, 2) * 3:
        field = (field + np.roll(field, 1, axis) + np.roll(field, -1, axis)) / 3
    part = Part(rng.normal(0, 50, field.shape), field > np.quantile(field, 0.7), (2.5, 0.8, 0.7))
    found, other = measure([part]), theirs(part, ["shape"])
    assert found["morph_diam"][0] == pytest.approx(other["shape_Maximum3DDiameter"], rel=1e-9)
    for name, there in {"volume": "MeshVolume", "area_mesh": "SurfaceArea", "sphericity": "Sphericity"}.items():
        assert found[f"morph_{name}"][0] == pytest.approx(other[f"shape_{there}"], rel=0.01), name


def test_the_shape_on_a_slice_equals_shape2d_of_pyradiomics(radiomics, real_parts):
    there = {
        "plane_area": "MeshSurface",
        "plane_perimeter": "Perimeter",
        "plane_sphericity": "Sphericity",
        "morph_diam": "MaximumDiameter",
        "morph_pca_elongation": "Elongation",
    }
    from radiomics.shape2D import RadiomicsShape2D

    for part in real_parts[::2]:
        images = [SimpleITK.GetImageFromArray(array) for array in (part.hu, part.mask.astype(np.uint8))]
        for image in images:
            image.SetSpacing(part.spacing_mm[::-1])
        other = RadiomicsShape2D(*images, force2D=True, force2DDimension=0).execute()
        found = measure([part])
        for name, that in there.items():
            assert found[name][0] == pytest.approx(float(other[that]), rel=1e-9), name


# --- shapes known by hand ---


def test_a_bar_of_voxels_measures_as_by_hand():
    found = measure([Part(np.full((2, 1, 5), 10), np.ones((2, 1, 5), dtype=bool), (3.0, 2.0, 1.0))])
    assert found["morph_vol_approx"] == 60
    # the surface cuts each step outwards in its middle: corners of the hull 1.5 beyond in z at the ends of x, and so on
    assert found["morph_diam"] == pytest.approx(max(np.hypot(6, 4), np.hypot(3, 5)))
    assert found["morph_pca_least_axis"] == 0
    assert found["stat_mean"] == 10
    assert np.isnan(found["stat_skew"])[0]
    assert np.isnan(found["cm_corr"])[0]
    assert found["szm_lze"] == 100


def test_a_single_voxel_has_no_texture_and_breaks_nothing():
    found = measure([Part(np.array([[[7]]]), np.ones((1, 1, 1), dtype=bool), (None, 1.0, 1.0))])
    assert np.isnan(found["cm_contrast"])[0]
    assert np.isnan(found["ngt_coarseness"])[0]
    assert found["stat_median"] == 7
    assert found["plane_area"] == 0.5
    assert found["morph_diam"] == 1


def test_the_longest_diameter_is_that_of_all_pairs_of_points():
    rng = np.random.default_rng(5)
    parts = [Part(np.zeros(shape), rng.random(shape) < share, (2.0, 0.7, 0.9)) for shape, share in DIAMETERS]
    found = measure(parts)["morph_diam"]
    for part, diameter in zip(parts, found, strict=True):
        padded = np.pad(part.mask, 1)
        points = []
        for axis in range(3) if len(part.mask) > 1 else (1, 2):
            for step in (1, -1):
                outside = ~np.roll(padded, -step, axis)
                points.append(np.argwhere(padded & outside) + np.eye(3)[axis] * step / 2)
        points = np.concatenate(points) * part.spacing_mm
        longest = max(np.linalg.norm(points - point, axis=1).max() for point in points)
        assert diameter == pytest.approx(longest, rel=1e-12)


DIAMETERS = [((1, 12, 15), 0.3), ((6, 7, 8), 0.4), ((1, 3, 30), 0.1), ((5, 9, 9), 0.05), ((12, 4, 4), 0.6)]


def test_a_lesion_has_the_same_values_alone_and_among_others():
    rng = np.random.default_rng(3)
    shapes = [(1, 9, 9), (5, 6, 7), (3, 12, 4), (1, 2, 30), (4, 4, 4)]
    parts = [Part(rng.normal(0, 80, s).round(), rng.random(s) < 0.7, (2.5, 0.8, 0.7)) for s in shapes]
    together = measure(parts)
    for number, part in enumerate(parts):
        alone = measure([part])
        for name, values in together.items():
            np.testing.assert_allclose(values[number], alone[name][0], rtol=1e-12, err_msg=name)


def test_what_needs_a_volume_is_null_on_a_slice_and_where_the_interval_is_unknown():
    mask = np.ones((4, 5, 6), dtype=bool)
    found = measure([Part(mask * 1, mask, (None, 1.0, 1.0)), Part(mask[:1] * 1, mask[:1], (5.0, 1.0, 1.0))])
    known = {name for name in SHAPE if not np.isnan(found[name][1])}
    assert known - {"morph_com"} == {*IN_PLANE, "plane_area", "plane_perimeter", "plane_sphericity"} - {"morph_com"}
    assert all(np.isnan(found[name][0]) for name in SHAPE)
    assert not np.isnan(found["stat_mean"]).any()
    assert not np.isnan(found["szm_lze"]).any()


# --- stores ---


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Store of a few hundred lesions on small slices."""
    folder = tmp_path_factory.mktemp("many")
    deeplesion(folder / "source", lesions=LESIONS, image_size=48, slices=2)
    assert not lesionzarr.convert("deeplesion", folder / "source", folder / "many.zarr").failed
    return folder / "many.zarr"


@pytest.fixture(scope="module")
def table(store):
    return lesionzarr.extract_features(lesionzarr.open(store), sets=IBSI_SETS, region="ellipse")


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    source = recist_dataset(folder / "source", patients=2, image_size=128, slices=24)
    assert not lesionzarr.convert("recist-dataset", source, folder / "masks.zarr").failed
    return folder / "masks.zarr"


@pytest.fixture(scope="module")
def two_workers():
    """Address of a scheduler with two processes."""
    with distributed.LocalCluster(2, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster.scheduler_address


def files(folder):
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def test_every_lesion_is_measured_on_the_voxels_of_its_ellipse(store, table):
    catalog = lesionzarr.open(store)
    assert list(table.index) == list(catalog.lesions.index)
    assert table["fault"].isna().all()
    assert set(table.columns) == {"volume_id", "split", "voxels", "slices", *columns(IBSI_SETS), "fault"}
    for lesion in catalog.find_lesions(list(table.index[::60])):
        hu = catalog.volume(lesion.volume_id)["hu"][lesion.key_z].to_numpy()
        mask = pseudo_mask(lesion.mark, hu.shape)
        row = table.loc[lesion.lesion_id]
        assert row["voxels"] == mask.sum()
        assert row["stat_mean"] == pytest.approx(hu[mask].mean())
        assert row["stat_p90"] == pytest.approx(np.percentile(hu[mask], 90))
        assert row["split"] == lesion.split


COORDINATES = st.floats(20, 40)


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[COORDINATES] * 4), st.floats(0.1, 0.9), st.floats(0.1, 0.9), st.floats(2, 20), st.floats(0, 6.3))
def test_an_ellipse_of_skew_axes_lies_in_what_is_read_for_it(ends, along, across, length, angle):
    # the second axis crosses the first after a share `along` of it
    x, y = (a + along * (b - a) for a, b in zip(ends[:2], ends[2:], strict=True))
    way = np.array([np.cos(angle), np.sin(angle)]) * length
    mark = Recist(*ends, *(np.array([x, y]) - across * way), *(np.array([x, y]) + (1 - across) * way))
    try:
        mask = pseudo_mask(mark, (64, 64))
    except GeometryError:
        assume(condition=False)
    y0, x0, y1, x1 = extent(mark)
    rows, cols = np.nonzero(mask)
    assert ((rows >= y0 - 1e-6) & (rows <= y1 + 1e-6) & (cols >= x0 - 1e-6) & (cols <= x1 + 1e-6)).all()
    # and what is read is no larger than it has to be; between the centres of pixels there is room for slivers
    long = np.array(ends[2:]) - ends[:2]
    width = abs(long[0] * way[1] - long[1] * way[0]) / max(np.hypot(*long), length)
    fine = pseudo_mask(mark.scale(16, 16), (1024, 1024)).nonzero()
    if width >= 2:
        reach = np.array([fine[0].min(), fine[1].min(), fine[0].max(), fine[1].max()]) / 16
        assert np.abs(reach - (y0, x0, y1, x1)).max() < 1.5


def test_a_box_holds_the_pixels_whose_centres_lie_in_it(store):
    catalog = lesionzarr.open(store)
    found = lesionzarr.extract_features(catalog, catalog.lesions.index[:5], sets=["firstorder"], region="box")
    for lesion in catalog.find_lesions(list(found.index)):
        hu = catalog.volume(lesion.volume_id)["hu"][lesion.key_z].to_numpy()
        rows, cols = np.arange(hu.shape[0]), np.arange(hu.shape[1])
        inside = hu[(rows >= lesion.y0) & (rows <= lesion.y1)][:, (cols >= lesion.x0) & (cols <= lesion.x1)]
        assert found.loc[lesion.lesion_id, "voxels"] == inside.size
        assert found.loc[lesion.lesion_id, "stat_max"] == inside.max()


def test_masks_give_volumes_and_recist_sizes_in_one_table(masks):
    catalog = lesionzarr.open(masks)
    found = lesionzarr.extract_features(catalog, sets=SETS)
    sizes = features_of_store(catalog)
    assert (found["voxels"] == sizes["voxels_count"]).all()
    np.testing.assert_allclose(found["morph_vol_approx"] / 1000, sizes["volume_ml"])
    np.testing.assert_allclose(found["stat_mean"], sizes["mean_HU"])
    np.testing.assert_allclose(np.sqrt(found["stat_var"]), sizes["std_HU"])
    pd.testing.assert_series_equal(found["major_axis_mm"], sizes["major_axis_mm"], check_index_type=False)


def test_each_chunk_is_decoded_once(store):
    catalog = lesionzarr.open(store, cache_bytes=2**30)
    lesionzarr.extract_features(catalog, region="box")
    info = lesionzarr.CropReader(catalog).cache_info()
    assert info.misses > 0
    assert info.hits == 0


def test_one_and_two_workers_give_the_same_table(store, table, two_workers, tmp_path):
    chosen = {"sets": IBSI_SETS, "region": "ellipse", "output": tmp_path / "features.parquet"}
    found = lesionzarr.extract_features(lesionzarr.open(store), scheduler=two_workers, **chosen)
    pd.testing.assert_frame_equal(found, table, check_exact=True)


KILLED = """
import os, signal, sys
import lesionzarr

def progress(done, total):
    if 0 < done < total:
        os.kill(os.getpid(), signal.SIGKILL)

lesionzarr.extract_features(
    lesionzarr.open(sys.argv[1]), sets=["shape", "firstorder", "texture"], region="ellipse", output=sys.argv[2],
    progress=progress,
)
"""


def test_a_run_that_was_killed_is_gone_on_with_and_ends_in_the_same_table(store, table, tmp_path):
    folder = tmp_path / "features.parquet"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(store), str(folder)], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = files(folder)
    assert len(before) == 1
    # what a run that is killed while it writes leaves behind
    half = folder / "split=train" / f".part-00001.parquet.{os.getpid()}"
    half.parent.mkdir(exist_ok=True)
    half.write_bytes(b"PAR1")
    found = lesionzarr.extract_features(lesionzarr.open(store), sets=IBSI_SETS, region="ellipse", output=folder)
    pd.testing.assert_frame_equal(found, table, check_exact=True)
    after = files(folder)
    assert before.items() <= after.items()
    assert len(after) > 2
    assert not half.exists()


@pytest.mark.parametrize("rest", [0, 8, 0.5])
def test_a_file_that_was_cut_off_is_made_again(store, table, tmp_path, rest):
    folder = tmp_path / "features.parquet"
    chosen = {"sets": IBSI_SETS, "region": "ellipse", "output": folder}
    lesionzarr.extract_features(lesionzarr.open(store), **chosen)
    before = files(folder)
    cut = folder / "split=train" / "part-00000.parquet"
    content = cut.read_bytes()
    cut.write_bytes(content[: int(rest * len(content)) if isinstance(rest, float) else rest])
    found = lesionzarr.extract_features(lesionzarr.open(store), **chosen)
    pd.testing.assert_frame_equal(found, table, check_exact=True)
    assert {name for name, when in files(folder).items() if when != before[name]} == {"split=train/part-00000.parquet"}
    # of a plan that has no such file it is not ours to replace
    (folder / "split=train" / "part-00099.parquet").write_bytes(b"PAR1")
    with pytest.raises(SettingError, match=r"part-00099.parquet: no Parquet file .*; delete it"):
        lesionzarr.extract_features(lesionzarr.open(store), **chosen)


def test_the_dataset_is_read_by_split(store, table, tmp_path):
    folder = tmp_path / "features.parquet"
    assert main(["features", str(store), "--set", "firstorder", "--region", "ellipse", "-o", str(folder)]) == 0
    read = pd.read_parquet(folder)
    assert len(read) == LESIONS
    np.testing.assert_array_equal(read["stat_mean"], table.loc[read.index, "stat_mean"])
    val = ds.dataset(folder, partitioning="hive").to_table(filter=ds.field("split") == "val").to_pandas()
    assert sorted(val.index if val.index.name else val["lesion_id"]) == sorted(table.index[table["split"] == "val"])


def test_lesions_without_split_are_in_a_folder_of_their_own(masks, tmp_path):
    catalog = lesionzarr.open(masks)
    catalog.lesions["split"] = pd.Series(None, index=catalog.lesions.index, dtype=object)
    found = lesionzarr.extract_features(catalog, output=tmp_path / "features.parquet")
    assert found["split"].isna().all()
    assert pd.read_parquet(tmp_path / "features.parquet")["split"].eq("unknown").all()


@pytest.mark.parametrize("change", [{"region": "box"}, {"bin_size": 10}, {"sets": ["shape"]}, {"lesions": 3}])
def test_an_output_of_something_else_is_refused(store, tmp_path, change):
    catalog = lesionzarr.open(store)
    folder = tmp_path / "features.parquet"
    chosen = {"sets": ["firstorder"], "region": "ellipse", "output": folder}
    lesionzarr.extract_features(catalog, catalog.lesions.index[:5], **chosen)
    lesions = catalog.lesions.index[: change.pop("lesions", 5)]
    with pytest.raises(SettingError, match="is of other lesions or settings; delete the folder or name another"):
        lesionzarr.extract_features(catalog, lesions, **(chosen | change))


def test_sets_and_bins_are_given_as_on_the_command_line(store, tmp_path):
    catalog = lesionzarr.open(store)
    chosen = {"lesions": catalog.lesions.index[:6], "region": "ellipse"}
    one = lesionzarr.extract_features(catalog, sets="shape", **chosen)
    assert set(one.columns) == {"volume_id", "split", "voxels", "slices", *columns(["shape"]), "fault"}
    arguments = ["features", str(store), "--set", "shape,firstorder", "--region", "ellipse"]
    for name, value in {"bin_size": np.float32(10), "bin_number": np.int64(32)}.items():
        found = lesionzarr.extract_features(
            catalog, sets="shape,firstorder", **chosen, **{name: value}, output=tmp_path / f"{name}.parquet"
        )
        path = tmp_path / f"{name}.csv"
        assert main([*arguments, f"--{name.replace('_', '-')}", str(value), "-o", str(path)]) == 0
        told = pd.read_csv(path, index_col="lesion_id").loc[found.index]
        np.testing.assert_allclose(found["ih_entropy"], told["ih_entropy"])
        assert not np.allclose(found["ih_entropy"], lesionzarr.extract_features(catalog, **chosen)["ih_entropy"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"bin_size": 25, "bin_number": 32}, "bins have either a size in HU or a number"),
        ({"bin_size": "25"}, "bin_size '25': a number of HU is needed"),
        ({"bin_size": 0.5}, "bins of 0.5 HU: at least 1 is needed"),
        ({"bin_number": 32.5}, "bin_number 32.5: a whole number of at least 1 is needed"),
        ({"bin_number": 5000}, "5000 bins: 2 to 4096 are needed"),
    ],
)
def test_bins_that_mean_nothing_are_told(store, settings, text):
    with pytest.raises(SettingError, match=text):
        lesionzarr.extract_features(lesionzarr.open(store), region="ellipse", **settings)


def test_damage_costs_the_lesions_in_it_alone_and_is_tried_again(masks, tmp_path):
    path = shutil.copytree(masks, tmp_path / "masks.zarr")
    catalog = lesionzarr.open(path)
    volume_id = str(catalog.lesions["volume_id"].iloc[0])
    whole = lesionzarr.extract_features(catalog)
    shard = next(file for file in (path / "volumes" / volume_id / "hu" / "c").rglob("*") if file.is_file())
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2])
    broken = lesionzarr.extract_features(lesionzarr.open(path), output=tmp_path / "features.parquet")
    own = broken["volume_id"] == volume_id
    assert broken.loc[own, "fault"].str.contains(volume_id).all()
    assert broken.loc[own, "stat_mean"].isna().all()
    pd.testing.assert_frame_equal(broken[~own], whole[~own])
    shard.write_bytes(content)
    mended = lesionzarr.extract_features(lesionzarr.open(path), output=tmp_path / "features.parquet")
    pd.testing.assert_frame_equal(mended, whole)


def test_axes_that_do_not_cross_are_a_fault_of_that_lesion(store):
    catalog = lesionzarr.open(store)
    first, second = catalog.lesions.index[:2]
    apart = replace(catalog.find_lesions([first])[0], recist=(1, 1, 9, 1, 1, 5, 9, 5))
    found = lesionzarr.extract_features(catalog, [apart, *catalog.find_lesions([second])], region="ellipse")
    assert "use the lesion's box" in found.loc[first, "fault"]
    assert found.loc[first, ["voxels", "stat_mean", "morph_diam"]].isna().all()
    assert pd.isna(found.loc[second, "fault"])


# --- the command line ---


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--set", "recist", "--region", "box"], "the set recist measures masks, not a box"),
        (["--set", "shape"], "no lesion has a mask, on which features are measured; region box or ellipse needs none"),
        (["--set", "shape", "--region", "box", "--method", "feret"], "are of the set recist"),
        (["--set", "shape", "--region", "box", "--bin-size", "0"], "bins of 0.0 HU: at least 1 is needed"),
        (["--set", "shape", "--region", "box", "--bin-number", "1"], "1 bins: 2 to 4096 are needed"),
        (["--set", "shape", "--region", "box", "-o", "FILE.parquet"], "a file; the features go to a folder"),
    ],
)
def test_misuse_is_one_clear_line(store, tmp_path, capsys, arguments, text):
    (tmp_path / "FILE.parquet").write_bytes(b"PAR1")
    places = [str(tmp_path / word) if word == "FILE.parquet" else word for word in arguments]
    assert main(["features", str(store), *places]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert text in err
    assert err.count("\n") == 1


def test_an_unknown_set_is_told_with_those_that_there_are(store, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["features", str(store), "--set", "shape,colour"])
    assert stopped.value.code == 2
    assert "the sets are shape, firstorder, texture, recist" in capsys.readouterr().err


# --- map_lesions ---


def test_a_function_is_run_over_crops_with_any_number_of_workers(store, two_workers, tmp_path):
    # here, since workers cannot import the modules of tests
    def mean_and_most(batch):
        return {"mean": batch.image.mean(axis=(1, 2, 3, 4)), "most": batch.image.max(axis=(1, 2, 3, 4))}

    catalog = lesionzarr.open(store)
    crops = lesionzarr.CropReader(catalog, size=(1, 16, 16))
    found = lesionzarr.map_lesions(crops, catalog.lesions, mean_and_most)
    images = crops.read_batch(catalog.lesions.index[:3]).image
    assert list(found.columns) == ["split", "mean", "most"]
    np.testing.assert_array_equal(found["mean"][:3], images.mean(axis=(1, 2, 3, 4)))
    assert list(found.index) == list(catalog.lesions.index)
    others = lesionzarr.map_lesions(
        crops, None, mean_and_most, scheduler=two_workers, output=tmp_path / "mapped.parquet"
    )
    pd.testing.assert_frame_equal(others, found)
    before = files(tmp_path / "mapped.parquet")
    assert len(before) >= LESIONS // 64
    lesionzarr.map_lesions(crops, None, mean_and_most, output=tmp_path / "mapped.parquet")
    assert files(tmp_path / "mapped.parquet") == before
    others = [lambda batch: batch.image.mean(axis=(1, 2, 3, 4)), lambda batch: batch.image.min(axis=(1, 2, 3, 4))]
    lesionzarr.map_lesions(crops, None, others[0], output=tmp_path / "lambda.parquet")
    with pytest.raises(SettingError, match="of other lesions or settings"):
        lesionzarr.map_lesions(crops, None, others[1], output=tmp_path / "lambda.parquet")


def test_a_function_that_gives_another_number_of_rows_is_told(store):
    crops = lesionzarr.CropReader(lesionzarr.open(store), size=(1, 8, 8))
    with pytest.raises(SettingError, match=r"the function gave 2 rows for \d+ lesions: one each is needed"):
        lesionzarr.map_lesions(crops, None, lambda batch: batch.image.ravel()[:2])


def test_an_error_of_the_function_is_the_callers(store, two_workers, tmp_path):
    crops = lesionzarr.CropReader(lesionzarr.open(store), size=(1, 8, 8))

    def fail(batch):
        raise ZeroDivisionError(len(batch.crops))

    with pytest.raises(ZeroDivisionError):
        lesionzarr.map_lesions(crops, None, fail, output=tmp_path / "mapped.parquet")
    with pytest.raises(ZeroDivisionError):
        lesionzarr.map_lesions(crops, None, fail, scheduler=two_workers)


def halves(changed):
    """A function with a constant tuple, and one that differs in it alone."""
    if changed:
        return lambda batch: batch.image.transpose((0, 1, 2, 4, 3)).reshape(len(batch.image), -1)[:, :3]
    return lambda batch: batch.image.transpose((0, 1, 2, 3, 4)).reshape(len(batch.image), -1)[:, :3]


def comprehensions(changed):
    if changed:
        return lambda batch: np.array([image.max() for image in batch.image])
    return lambda batch: np.array([image.min() for image in batch.image])


def sets_of_constants(changed):
    if changed:
        return lambda batch: np.array([int(image.size in {1, 256}) for image in batch.image])
    return lambda batch: np.array([int(image.size in {1, 257}) for image in batch.image])


def closures(changed):
    factor = (2, [1.0]) if changed else (2, [3.0])

    def scale(image):
        return image.mean() * factor[1][0]

    return lambda batch: np.array([scale(image) for image in batch.image])


def defaults(changed):
    def scale(batch, factor=1, *, shift=5 if changed else 6):
        return batch.image.mean(axis=(1, 2, 3, 4)) * factor + shift

    return scale


@pytest.mark.parametrize("make", [halves, comprehensions, sets_of_constants, closures, defaults])
def test_an_output_of_a_function_that_was_changed_is_refused(store, tmp_path, make):
    crops = lesionzarr.CropReader(lesionzarr.open(store), size=(1, 16, 16))
    chosen = {"lesions": crops.catalog.lesions.index[:5], "output": tmp_path / "mapped.parquet"}
    first = lesionzarr.map_lesions(crops, function=make(changed=False), **chosen)
    before = files(tmp_path / "mapped.parquet")
    pd.testing.assert_frame_equal(lesionzarr.map_lesions(crops, function=make(changed=False), **chosen), first)
    assert files(tmp_path / "mapped.parquet") == before
    with pytest.raises(SettingError, match="of other lesions or settings"):
        lesionzarr.map_lesions(crops, function=make(changed=True), **chosen)


def test_a_function_that_calls_itself_can_have_an_output(store, tmp_path):
    def halve(image):
        return image.max() if image.size < 9 else halve(image.ravel()[::2])

    crops = lesionzarr.CropReader(lesionzarr.open(store), size=(1, 16, 16))
    for _ in range(2):
        lesionzarr.map_lesions(
            crops,
            crops.catalog.lesions.index[:2],
            lambda batch: np.array([halve(image) for image in batch.image]),
            output=tmp_path / "mapped.parquet",
        )


CODE = """
from lesionzarr.features._code import describe_function
print(describe_function(lambda name: name in {"liver", "lung", "bone", "kidney", "node"}))
"""


def test_the_code_of_a_function_is_described_alike_in_every_process():
    told = {
        subprocess.run(
            [sys.executable, "-c", CODE], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in "123"
    }
    assert len(told) == 1


def test_what_has_no_code_of_its_own_needs_a_version_for_an_output(store, tmp_path):
    class Model:
        weight = 1.0

        def __call__(self, batch):
            return batch.image.mean(axis=(1, 2, 3, 4)) * self.weight

    crops = lesionzarr.CropReader(lesionzarr.open(store), size=(1, 16, 16))
    chosen = {"lesions": crops.catalog.lesions.index[:5], "output": tmp_path / "mapped.parquet"}
    model = Model()
    for function in (model, model.__call__, partial(np.mean, axis=(1, 2, 3, 4))):
        with pytest.raises(SettingError, match=r"no plain function, .*: give version= with output=$"):
            lesionzarr.map_lesions(crops, function=function, **chosen)
    lesionzarr.map_lesions(crops, function=model, version="first", **chosen)
    lesionzarr.map_lesions(crops, function=model, version="first", **chosen)
    model.weight = 2.0
    with pytest.raises(SettingError, match="of other lesions or settings"):
        lesionzarr.map_lesions(crops, function=model, version="second", **chosen)
    # without an output nothing can be old
    assert len(lesionzarr.map_lesions(crops, chosen["lesions"], model)) == 5


@pytest.mark.parametrize("name", ["split", "fault", "again", "lesion_id"])
def test_a_column_that_the_table_has_already_is_told(store, name):
    crops = lesionzarr.CropReader(lesionzarr.open(store), size=(1, 8, 8))
    with pytest.raises(SettingError, match=f"gave a column '{name}', which the table has already: rename it"):
        lesionzarr.map_lesions(crops, None, lambda batch: {name: np.zeros(len(batch.image))})
