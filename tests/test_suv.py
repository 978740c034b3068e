"""SUV factors against hand calculations, real series and the rules of QIBA's pseudo-code."""

from __future__ import annotations

import io
import zipfile

import pydicom
import pytest

from lesionzarr.formats.dicom import find_stacks, scan_headers
from lesionzarr.formats.suv import suv_factors

FDG = {
    "Units": "BQML",
    "CorrectedImage": ["NORM", "ATTN", "DECY"],
    "DecayCorrection": "START",
    "SeriesDate": "20200102",
    "SeriesTime": "110000",
    "AcquisitionDate": "20200102",
    "AcquisitionTime": "110000.00",
    "RadiopharmaceuticalStartTime": "100000",
    "RadionuclideTotalDose": 4e8,
    "RadionuclideHalfLife": 6000.0,
    "PatientWeight": 80.0,
    "PatientSize": 1.8,
    "PatientSex": "M",
}
HALVED = 80_000 / (4e8 * 2 ** (-3600 / 6000))
"""Factor of FDG: an hour of decay with a half-life of 100 minutes."""


def factor(**changes):
    return suv_factors({**FDG, **changes})


def test_dose_decays_from_injection_to_the_start_of_the_series():
    found = factor()
    assert found.body_weight == pytest.approx(HALVED, rel=1e-12)
    assert (found.reason, found.other_reason) == ("", "")
    assert found.provenance["decay_s"] == 3600
    assert found.provenance["decayed_dose_bq"] == pytest.approx(4e8 * 2**-0.6)
    assert found.provenance["scan_time_from"] == "SeriesDate, SeriesTime"


def test_lean_body_mass_and_surface_are_those_of_the_formulas():
    man, woman = factor(), factor(PatientSex="F")
    # 80 kg and 1.80 m by hand: BMI 24.69136; 741600 / 12013.333 = 61.7314 kg; 741600 / 14804.691 = 50.0922 kg
    assert man.lean_body_mass == pytest.approx(HALVED * 61.7314 / 80, rel=1e-5)
    assert woman.lean_body_mass == pytest.approx(HALVED * 50.0922 / 80, rel=1e-5)
    # Du Bois: 0.007184 * 80 ** 0.425 * 180 ** 0.725 = 1.996 m2
    assert man.body_surface == pytest.approx(HALVED * 19960 / 80_000, rel=1e-3)
    assert woman.body_surface == man.body_surface


def test_values_corrected_to_the_administration_use_the_dose_as_it_was():
    found = factor(DecayCorrection="ADMIN", RadiopharmaceuticalStartTime=None, RadionuclideHalfLife=None)
    assert found.body_weight == 80_000 / 4e8


def test_a_series_made_later_counts_from_the_first_acquisition():
    found = factor(SeriesTime="180000", AcquisitionTime="110000")
    assert found.body_weight == pytest.approx(HALVED)
    assert found.provenance["scan_time_from"] == "AcquisitionDate, AcquisitionTime"


def test_the_private_time_of_ge_goes_before_the_acquisition():
    found = factor(SeriesTime="180000", AcquisitionTime="113000", GEPrivatePostInjectionDateTime="20200102110000.00")
    assert found.body_weight == pytest.approx(HALVED)
    assert found.provenance["scan_time_from"] == "GEPrivatePostInjectionDateTime"


def test_an_acquisition_after_the_series_time_does_not_count():
    assert factor(AcquisitionTime="113000", GEPrivatePostInjectionDateTime="20200102120000").body_weight == HALVED


def test_an_injection_before_midnight_belongs_to_the_day_before():
    found = factor(SeriesTime="002000", AcquisitionTime="002000", RadiopharmaceuticalStartTime="232000")
    assert found.body_weight == pytest.approx(HALVED)
    assert found.provenance["injection_time"].startswith("2020-01-01T23:20")


def test_the_injection_s_own_date_goes_before_its_time_alone():
    found = factor(RadiopharmaceuticalStartDateTime="20200102100000.00+0100", RadiopharmaceuticalStartTime="080000")
    assert found.body_weight == pytest.approx(HALVED)
    assert found.provenance["injection_time_from"] == "RadiopharmaceuticalStartDateTime"


@pytest.mark.parametrize("time", ["10", "1000", "100000", "100000.000000", "10:00:00"])
def test_every_form_of_a_time_is_read(time):
    assert factor(RadiopharmaceuticalStartTime=time).body_weight == pytest.approx(HALVED)


def test_several_values_may_be_text_parted_by_backslashes():
    assert factor(CorrectedImage="DECY\\ATTN\\SCAT").body_weight == pytest.approx(HALVED)


def test_counts_of_philips_have_their_own_factor():
    found = factor(Units="CNTS", PhilipsSUVScaleFactor=0.000551, RadionuclideTotalDose=None)
    assert found.body_weight == 0.000551
    assert found.provenance["PhilipsSUVScaleFactor"] == 0.000551


def test_counts_of_philips_with_an_activity_factor_become_bq_per_ml_first():
    found = factor(Units="CNTS", PhilipsSUVScaleFactor=0.0, PhilipsActivityConcentrationScaleFactor=2.5)
    assert found.body_weight == pytest.approx(2.5 * HALVED)


def test_grams_per_ml_are_suv_already():
    assert factor(Units="GML", RadionuclideTotalDose=None).body_weight == 1.0
    assert (
        factor(Units="GML", SUVType="LBM").reason == "Units are GML with SUVType LBM: voxels are no SUV by body weight"
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PatientWeight": None}, "PatientWeight is missing"),
        ({"PatientWeight": 0}, "PatientWeight is 0 kg"),
        ({"PatientWeight": "n/a"}, "PatientWeight is missing"),
        ({"PatientWeight": float("nan")}, "PatientWeight is missing"),
        ({"RadionuclideTotalDose": None}, "RadionuclideTotalDose is missing"),
        ({"RadionuclideTotalDose": 0.0}, "RadionuclideTotalDose is 0 Bq"),
        ({"RadionuclideHalfLife": None}, "RadionuclideHalfLife is missing"),
        ({"RadionuclideHalfLife": 0}, "RadionuclideHalfLife is 0 s"),
        ({"RadiopharmaceuticalStartTime": ""}, "RadiopharmaceuticalStartTime is missing"),
        ({"RadiopharmaceuticalStartTime": "noon"}, "RadiopharmaceuticalStartTime is missing"),
        ({"SeriesTime": None}, "SeriesDate or SeriesTime is missing"),
        ({"SeriesDate": "2020AB01"}, "SeriesDate or SeriesTime is missing"),
        ({"AcquisitionTime": None}, "AcquisitionDate or AcquisitionTime is missing"),
        ({"DecayCorrection": "NONE"}, "DecayCorrection is NONE"),
        ({"DecayCorrection": None}, "DecayCorrection is missing"),
        ({"CorrectedImage": ["ATTN"]}, "does not hold DECY"),
        ({"CorrectedImage": None}, "does not hold ATTN"),
        ({"Units": None}, "Units are missing"),
        ({"Units": "PROPCPS"}, "Units are PROPCPS"),
        ({"Units": "CNTS"}, "without Philips' private factors"),
        ({"RadiopharmaceuticalStartDateTime": "20200102120000"}, "the times are wrong"),
        ({"RadiopharmaceuticalStartDateTime": "19990102100000"}, "the times are wrong"),
    ],
    ids=str,
)
def test_without_what_it_needs_there_is_no_suv_but_a_reason(changes, reason):
    found = factor(**changes)
    assert (found.body_weight, found.lean_body_mass, found.body_surface) == (None, None, None)
    assert reason in found.reason


def test_without_height_or_sex_there_is_still_suv_by_weight():
    no_height = factor(PatientSize=0)
    assert no_height.body_weight == pytest.approx(HALVED)
    assert (no_height.lean_body_mass, no_height.other_reason) == (None, "PatientSize is 0 m")
    no_sex = factor(PatientSex="O")
    assert no_sex.lean_body_mass is None
    assert no_sex.body_surface == factor().body_surface
    assert "PatientSex is O" in no_sex.other_reason


def test_the_real_whole_body_series_has_the_factor_of_its_tags(data):
    archive = data / "pet" / "QIN-HEADNECK-01-0024_WB_60slices.zip"
    (stack,) = find_stacks(scan_headers([archive])).stacks
    with zipfile.ZipFile(archive) as file:
        headers = [pydicom.dcmread(io.BytesIO(file.read(name)), stop_before_pixels=True) for name in file.namelist()]
    tracer = headers[0].RadiopharmaceuticalInformationSequence[0]
    assert {header.SeriesTime for header in headers} == {"130244.678000"}
    assert tracer.RadiopharmaceuticalStartTime == "113900.000000"
    seconds = (13 * 3600 + 2 * 60 + 44.678) - (11 * 3600 + 39 * 60)
    by_hand = 66.2 * 1000 / (381_470_000 * 2 ** (-seconds / 6586.2))
    found = suv_factors(stack.tags)
    assert found.body_weight == pytest.approx(by_hand, rel=1e-12)
    assert found.body_weight == pytest.approx(2.944804e-4, rel=1e-6)
    # the first bed was scanned when the series began, and its time, not that of another bed, is that of the series
    assert stack.tags["AcquisitionTime"] == min(header.AcquisitionTime for header in headers)
    assert len({header.AcquisitionTime for header in headers}) > 1


def test_the_real_series_with_weight_0_is_refused(data):
    found = find_stacks(scan_headers([data / "pet" / "Comunix_PETCT_J2K_2+2slices.zip"]))
    (pet,) = [stack for stack in found.stacks if stack.modality == "PT"]
    assert suv_factors(pet.tags).reason == "PatientWeight is 0 kg"
