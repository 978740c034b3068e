import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionzarr.errors import NotFoundError, SettingError
from lesionzarr.window import PRESETS, Window, apply_window, resolve_window


def test_soft_tissue_window_truncates_as_the_deeplesion_tools_do():
    # 450 HU on 255 steps: HU -174 is 0.567 of a step and stays black, 274 is 254.43 and stays below white
    hu = np.array([-3024, -176, -175, -174, -173, 50, 274, 275, 3071], dtype=np.int16)
    assert apply_window(hu, Window(-175, 275)).tolist() == [0, 0, 0, 0, 1, 127, 254, 255, 255]


@given(st.integers(-32768, 32767), st.integers(-2000, 2000), st.integers(1, 5000))
def test_uint8_is_the_floor_of_the_exact_ramp(hu, low, width):
    exact = min(max((hu - low) * 255, 0), 255 * width) // width
    found = int(apply_window(np.array([hu], np.int16), Window(low, low + width))[0])
    # a product that is a whole number may come out one lower for the rounding of the quotient, as upstream's does
    assert found == exact or (found == exact - 1 and (hu - low) * 255 % width == 0)


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [
        ("CT_Lesion_000002_03_01_035-047.npz", -175, 275),
        ("CT_Lesion_000010_01_01_078-090.npz", -160, 240),  # DICOM_windows of its row in DL_info.csv
    ],
)
def test_medsam2_arrays_have_the_grey_levels_of_truncation(real, name, low, high):
    """In a window of 450 HU each of 256 grey levels stands for one or two HU, and which is told by the rounding.

    The published arrays were made from the same PNGs. Divided by the number of HU per level their histogram is smooth
    only under the convention by which they were made.
    """
    image = np.load(real / "medsam2_npz" / name)["imgs"]
    counts = np.bincount(image.ravel(), minlength=256)[60:200].astype(float)
    every_hu = np.arange(low, high + 1)
    floor = np.bincount(apply_window(every_hu, Window(low, high)), minlength=256)[60:200]
    rounded = np.bincount(np.rint((every_hu - low) / (high - low) * 255).astype(int), minlength=256)[60:200]

    def roughness(levels):
        density = np.log((counts + 1) / levels)
        return float(np.abs(np.diff(density, 2)).mean())

    assert set(floor) == set(rounded) == {1, 2}
    assert roughness(floor) < roughness(rounded) / 3


def test_float32_is_the_ramp_in_0_to_1():
    found = apply_window(np.array([-1400, -700, 0], np.int16), PRESETS["lung"], "float32")
    assert found.dtype == np.float32
    assert found.tolist() == [0.0, 0.5, 1.0]


def test_presets_are_as_their_sources_state():
    assert PRESETS["lung"] == Window(-1400, 0)
    assert PRESETS["mediastinum"] == Window(-135, 215)
    assert PRESETS["bone"] == Window(-100, 900)
    assert PRESETS["full"] == Window(-1024, 3071)


def test_windows_are_named_given_or_the_lesions_own():
    assert resolve_window("lung") == PRESETS["lung"]
    assert resolve_window((-10, 20)) == Window(-10, 20)
    assert resolve_window("dicom", Window(1, 2)) == Window(1, 2)


@pytest.mark.parametrize("low_high", [(1, 1), (2, 1), (float("nan"), 1), (0, float("inf"))])
def test_a_window_that_is_no_range_is_refused(low_high):
    with pytest.raises(SettingError, match="low end must be below"):
        Window(*low_high)


def test_an_unknown_name_names_the_nearest():
    with pytest.raises(NotFoundError, match=r"near: .*lung"):
        resolve_window("lungs")


def test_a_lesion_without_a_window_of_its_own_says_so():
    with pytest.raises(SettingError, match="gives no window"):
        resolve_window("dicom")
