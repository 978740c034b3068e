import csv
import hashlib
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter

import numpy as np
import pytest

from lesionzarr.samples import LUNG_QUIRKS, lung_pet_ct_dx
from lesionzarr.samples._nbia_image_quirks import SECRETS

pydicom = pytest.importorskip("pydicom", reason="the extra dicom is absent")
openpyxl = pytest.importorskip("openpyxl", reason="the extra dicom is absent")

SLICES, SIZE = 6, 32
PET_SLICES = 14  # 30 mm of CT are 10 slices of 3 mm, and two more at either end
SMALL = {"subjects": 4, "image_size": SIZE, "slices": SLICES}

CT, PET, SECONDARY, ENHANCED = (f"1.2.840.10008.5.1.4.1.1.{end}" for end in ("2", "128", "7", "2.1"))


def digests(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def parse(path):
    return ET.fromstring(path.read_bytes())  # noqa: S314 - entities are only in the one file that has to have them


def boxes(path):
    root = parse(path)
    return [
        (each.findtext("name"), *(int(each.findtext(f"bndbox/{name}")) for name in ("xmin", "ymin", "xmax", "ymax")))
        for each in root.iter("object")
    ]


def values(made):
    return made.pixel_array * float(made.RescaleSlope) + float(made.RescaleIntercept)


def series_of(folder):
    """Slices of each series, from the highest to the lowest, by description."""
    found = {}
    for path in sorted(folder.rglob("*.dcm")):
        made = pydicom.dcmread(path)
        found.setdefault((made.PatientID, int(made.SeriesNumber)), []).append(made)
    return {key: sorted(each, key=lambda made: -made.ImagePositionPatient[2]) for key, each in found.items()}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    return lung_pet_ct_dx(tmp_path_factory.mktemp("clean") / "lung", **SMALL)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return lung_pet_ct_dx(tmp_path_factory.mktemp("large") / "lung", subjects=2, image_size=96, slices=12)


def test_the_same_seed_gives_the_same_bytes(clean, tmp_path):
    first = digests(clean)
    assert digests(lung_pet_ct_dx(tmp_path / "a", **SMALL)) == first
    other = digests(lung_pet_ct_dx(tmp_path / "b", seed=1, **SMALL))
    assert not set(first.values()) & {digest for path, digest in other.items() if path.suffix == ".dcm"}
    assert not {path.name for path in first if path.suffix == ".xml"} & {path.name for path in other}


def test_a_subject_is_the_same_however_many_come_after_it(clean, tmp_path):
    few = digests(lung_pet_ct_dx(tmp_path, **SMALL | {"subjects": 2}))
    shared = {path: digest for path, digest in digests(clean).items() if path in few}
    odd = {path.name for path in shared if shared[path] != few[path]}
    assert odd == {"metadata.csv", "statistics-clinical-20201221.xlsx"}
    assert len(shared) == len(few)


def test_the_layout_is_that_of_the_download(clean, data):
    [manifest] = clean.glob("manifest-*")
    assert int(manifest.name.removeprefix("manifest-")) == 1608669183333
    with (data / "lung_pet_ct_dx" / "metadata.csv").open(newline="") as file:
        columns = next(csv.reader(file))
    with (manifest / "metadata.csv").open(newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    assert table.fieldnames == columns
    assert {path.name for path in (manifest / "Lung-PET-CT-Dx").iterdir() if path.is_file()} == {"LICENSE", ".DS_Store"}
    for row in rows:
        assert row["File Location"].startswith("./Lung-PET-CT-Dx/")
        folder = manifest / row["File Location"]
        files = sorted(folder.iterdir())
        assert len(files) == int(row["Number of Images"])
        assert files[0].name == "1-01.dcm"
        made = pydicom.dcmread(files[-1])
        assert (made.SeriesInstanceUID, made.StudyInstanceUID) == (row["Series UID"], row["Study UID"])
        assert (made.PatientID, made.Modality, made.SOPClassUID) == (
            *(row["Subject ID"], row["Modality"], row["SOP Class UID"]),
        )
        number, ending = folder.name.split("-")[0], folder.name[-5:]
        assert (number, ending) == (f"{made.SeriesNumber}.000000", made.SeriesInstanceUID[-5:])
        day, study_id, ending = folder.parent.name[:10], folder.parent.name[11:13], folder.parent.name[-5:]
        assert (day, study_id, ending) == (row["Study Date"], "NA", made.StudyInstanceUID[-5:])
        assert made.StudyDate == day[6:] + day[:2] + day[3:5]
    dicom_files = list(manifest.rglob("*.dcm"))
    assert sum(int(row["Number of Images"]) for row in rows) == len(dicom_files)


def test_annotations_have_the_form_of_the_real_ones(clean, data):
    real = parse(next((data / "lung_pet_ct_dx" / "Annotation" / "A0002").glob("*.xml")))
    for path in clean.glob("Annotation/*/*.xml"):
        made = parse(path)
        assert [each.tag for each in made.iter()] == [each.tag for each in real.iter()]
        assert (made.attrib, made.find("source").text) == (real.attrib, real.find("source").text)
        [(label, x0, y0, x1, y1)] = boxes(path)
        assert label == path.parent.name[0]
        assert 0 <= x0 < x1 < SIZE
        assert 0 <= y0 < y1 < SIZE


def test_each_reconstruction_is_marked_on_its_own(clean):
    marked = {path.stem: boxes(path) for path in clean.glob("Annotation/*/*.xml")}
    total = 0
    for (patient, number), slices in series_of(clean).items():
        rows = [row for row, made in enumerate(slices) if made.SOPInstanceUID in marked]
        total += len(rows)
        if number == 2:
            lung = rows
            assert rows == list(range(rows[0], rows[-1] + 1))
        elif number == 3:
            assert rows == lung[:-1], patient
            assert len(rows) >= 2
        else:
            assert not rows
    assert total == len(marked)


def test_every_second_subject_has_a_pet_in_the_frame_of_its_ct(clean):
    found = series_of(clean)
    patients = sorted({patient for patient, _ in found})
    assert [patient[8] for patient in patients] == list("ABEG")
    for index, patient in enumerate(patients):
        numbers = [number for each, number in found if each == patient]
        assert numbers == ([2, 3, 5] if index % 2 else [2, 3])
        slices = [made for number in numbers for made in found[patient, number]]
        assert len({made.FrameOfReferenceUID for made in slices}) == 1
        assert len({made.StudyInstanceUID for made in slices}) == 1
        assert len({made.SOPInstanceUID for made in slices}) == len(slices)
        assert {str(made.PatientName) for made in slices} == {patient}


def test_instance_1_is_the_topmost_slice(clean):
    for slices in series_of(clean).values():
        assert [made.InstanceNumber for made in slices] == list(range(1, len(slices) + 1))
        steps = np.diff([float(made.ImagePositionPatient[2]) for made in slices])
        assert np.allclose(steps, -float(slices[0].SliceThickness))
        assert [float(made.SliceLocation) for made in slices] == [made.ImagePositionPatient[2] for made in slices]


def test_ct_voxels_are_12_bits_over_minus_1024(clean):
    slices = [made for (_, number), each in series_of(clean).items() if number < 5 for made in each]
    assert {made.SOPClassUID for made in slices} == {CT}
    assert {(made.BitsStored, made.PixelRepresentation) for made in slices} == {(12, 0)}
    hu = np.stack([values(made) for made in slices])
    assert hu.min() == -1024
    assert 200 < hu.max() <= 3071


def test_simpleitk_reads_the_same_voxels_and_geometry(large):
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is absent")
    for path in large.glob("manifest-*/*/*/*/*"):
        names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path))
        image = sitk.ReadImage(names, sitk.sitkFloat32)
        slices = sorted((pydicom.dcmread(each) for each in path.iterdir()), key=lambda made: -made.InstanceNumber)
        lowest, step = slices[0], float(slices[0].SliceThickness)
        assert np.allclose(image.GetOrigin(), lowest.ImagePositionPatient)
        assert np.allclose(image.GetSpacing(), [*lowest.PixelSpacing, step])
        assert np.allclose(image.GetDirection(), np.eye(3).ravel())
        assert np.allclose(sitk.GetArrayFromImage(image), [values(made) for made in slices], rtol=1e-5)


def test_the_tumour_is_denser_and_hotter_than_what_surrounds_it(large):
    marked = {path.stem: boxes(path)[0][1:] for path in large.glob("Annotation/*/*.xml")}
    found = series_of(large)
    for (patient, number), slices in found.items():
        if number == 5:
            continue
        rows = [row for row, made in enumerate(slices) if made.SOPInstanceUID in marked]
        key = slices[rows[len(rows) // 2]]
        x0, y0, x1, y1 = marked[key.SOPInstanceUID]
        x, y = (x0 + x1) // 2, (y0 + y1) // 2
        hu = values(key)
        # eight pixels are about 29 mm: outside of the tumour, and mostly inside of the lung
        around = [hu[y + 8 * down, x + 8 * right] for down in (-1, 0, 1) for right in (-1, 0, 1) if down or right]
        inside = hu[y - 1 : y + 2, x - 1 : x + 2].mean()
        assert inside > -200
        assert np.median(around) < inside - 300
        if (patient, 5) not in found:
            continue
        pet = found[patient, 5]
        origin, spacing = np.array(key.ImagePositionPatient, float), float(key.PixelSpacing[0])
        point = origin + np.array([x * spacing, y * spacing, 0])
        nearest = min(pet, key=lambda made: abs(made.ImagePositionPatient[2] - point[2]))
        start, step = np.array(nearest.ImagePositionPatient, float), float(nearest.PixelSpacing[0])
        column, row, _ = np.rint((point - start) / step).astype(int)
        activity = values(nearest)
        assert activity[row, column] > 4 * np.median(activity[row - 8 : row + 9, column - 8 : column + 9])
        hottest = np.unravel_index(activity.argmax(), activity.shape)
        assert np.abs(np.subtract(hottest, (row, column))).max() <= 1


def test_a_pet_says_what_an_uptake_value_needs(large):
    [slices] = [each for (_, number), each in series_of(large).items() if number == 5]
    assert len({str(made.RescaleSlope) for made in slices}) > len(slices) // 2
    for made in slices:
        assert (made.SOPClassUID, made.Modality, made.PixelRepresentation) == (PET, "PT", 0)
        assert (made.Units, made.DecayCorrection) == ("BQML", "START")
        assert {"ATTN", "DECY"} <= set(made.CorrectedImage)
        assert 40 < made.PatientWeight < 120
        assert 1.4 < made.PatientSize < 2.1
        [injection] = made.RadiopharmaceuticalInformationSequence
        assert injection.RadionuclideHalfLife == 6586.2
        assert int(made.SeriesTime[:2]) * 60 - int(injection.RadiopharmaceuticalStartTime[:2]) * 60 <= 120
    # two beds, one start
    assert len({made.AcquisitionTime for made in slices}) == 2
    assert len({made.SeriesTime for made in slices}) == 1
    made = slices[0]
    clock = [
        int(text[:2]) * 3600 + int(text[2:4]) * 60 + int(text[4:6])
        for text in (made.SeriesTime, injection.RadiopharmaceuticalStartTime)
    ]
    left = injection.RadionuclideTotalDose * 2 ** (-(clock[0] - clock[1]) / 6586.2)
    suv = max(values(made).max() for made in slices) * 1000 * float(made.PatientWeight) / float(left)
    assert 5 < suv < 15


def test_the_clinical_sheet_has_the_published_header_and_empty_cells(clean):
    book = openpyxl.load_workbook(clean / "statistics-clinical-20201221.xlsx", read_only=True)
    header, *rows = book.active.iter_rows(values_only=True)
    book.close()
    assert header == (
        *("No.", "NewPatientID", "Sex", "Age", "weight (kg)", "T-Stage", "N-Stage", "\uff2d-Stage"),
        *("Histopathological grading", "Smoking History"),
    )
    assert [row[1] for row in rows] == sorted(path.name for path in (clean / "Annotation").iterdir())
    assert None in [row[3] for row in rows]
    assert None in [row[4] for row in rows]


def test_a_folder_that_holds_a_dataset_is_left_alone(clean):
    before = digests(clean)
    with pytest.raises(FileExistsError, match="empty folder"):
        lung_pet_ct_dx(clean)
    assert digests(clean) == before


def test_what_cannot_be_made_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"did you mean.*gantry_tilt"):
        lung_pet_ct_dx(tmp_path, quirks=["gantry_tlit"])
    with pytest.raises(ValueError, match="at least 1, 32 and 5"):
        lung_pet_ct_dx(tmp_path, slices=2)
    with pytest.raises(ValueError, match=r"no PET series is left.*more subjects"):
        lung_pet_ct_dx(tmp_path / "a", **SMALL | {"subjects": 3}, quirks=["no_weight", "zero_weight"])
    with pytest.raises(ValueError, match="more subjects"):
        lung_pet_ct_dx(tmp_path / "b", **SMALL | {"subjects": 1}, quirks=["dose_page"])


def test_without_pydicom_the_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['pydicom'] = None; from lesionzarr.samples import lung_pet_ct_dx; "
        f"lung_pet_ct_dx({str(tmp_path / 'lung')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert "ImportError" in done.stderr
    assert "pip install 'lesionzarr[dicom]'" in done.stderr


ALL, ONE, HALF = SLICES, 1, SLICES // 2
MARKS = "as many as the series has annotations"
CHANGES = {
    # files changed, added and taken away, besides metadata.csv
    "two_series_in_one_folder": (0, ALL, ALL),
    "localizer": (0, ONE, 0),
    "rgb_secondary_capture": (0, MARKS, MARKS),
    "dose_page": (0, ONE, 0),
    "enhanced_multiframe": (0, ONE, 0),
    "bomb": (0, ONE, 0),
    "dicomdir_file": (0, ONE, 0),
    "not_dicom": (0, ONE, 0),
    "duplicate_slice": (0, ONE, 0),
    "duplicate_position": (0, ONE, 0),
    "missing_slice": (0, 0, ONE),
    "uneven_spacing": (HALF, 0, 0),
    "gantry_tilt": (ALL, 0, 0),
    "mixed_size": (ONE, 0, 0),
    "missing_pixel_spacing": (ALL, 0, 0),
    "missing_position": (ALL, 0, 0),
    "zero_pixel_data": (ONE, 0, 0),
    "wrong_length": (ONE, 0, 0),
    "truncated_dicom": (ONE, 0, 0),
    "signed_pixels": (ALL, 0, 0),
    "rle_compressed": (ALL, 0, 0),
    "deflated": (ALL, 0, 0),
    "implicit_vr": (ALL, 0, 0),
    "instance_order": (ALL, 0, 0),
    "private_tags": (ALL, 0, 0),
    "no_weight": (PET_SLICES, 0, 0),
    "zero_weight": (PET_SLICES, 0, 0),
    "image_without_annotation": (0, 0, MARKS),
    "removed_subject": (0, 3, 0),
    "xml_without_image": (0, ONE, 0),
    "folder_letter_mismatch": (MARKS, 0, 0),
    "xml_empty": (ONE, 0, 0),
    "xml_cut_off": (ONE, 0, 0),
    "xml_with_entities": (ONE, 0, 0),
    "xml_label_q": (ONE, 0, 0),
    "xml_no_object": (ONE, 0, 0),
    "xml_several_objects": (ONE, 0, 0),
    "xml_box_outside": (ONE, 0, 0),
    "xml_in_two_folders": (0, ONE, 0),
    "clinical_missing_column": (ONE, 0, 0),
}
ADDS_A_SERIES = {"localizer", "rgb_secondary_capture", "dose_page", "enhanced_multiframe", "bomb"}


class Hit:
    """The dataset with one quirk beside the clean one: paths of what differs."""

    def __init__(self, clean, folder):
        before, after = digests(clean), digests(folder)
        differing = [path for path, digest in after.items() if before.get(path, digest) != digest]
        self.lists_differ = any(path.name == "metadata.csv" for path in differing)
        self.folder = folder
        self.changed = [folder / path for path in differing if path.name != "metadata.csv"]
        self.old = [clean / path.relative_to(folder) for path in self.changed]
        self.added = [folder / path for path in after if path not in before]
        self.removed = [clean / path for path in before if path not in after]

    def pairs(self):
        """Changed slices before and after."""
        return [(pydicom.dcmread(a), pydicom.dcmread(b)) for a, b in zip(self.old, self.changed, strict=True)]


@pytest.fixture(scope="module")
def hit(clean, tmp_path_factory):
    made = {}

    def find(quirk):
        if quirk not in made:
            made[quirk] = Hit(clean, lung_pet_ct_dx(tmp_path_factory.mktemp(quirk) / "lung", quirks=[quirk], **SMALL))
        return made[quirk]

    return find


@pytest.mark.parametrize("quirk", LUNG_QUIRKS)
def test_a_quirk_touches_its_own_files_and_no_other(quirk, hit):
    found = hit(quirk)
    assert found.lists_differ == (quirk in ADDS_A_SERIES)
    for paths, expected in zip((found.changed, found.added, found.removed), CHANGES[quirk], strict=True):
        if expected is MARKS:
            assert len(paths) >= 3
        elif quirk == "instance_order":
            # a shuffle may leave some names where they are
            assert len(paths) in ({0} if expected == 0 else set(range(2, ALL + 1)))
        else:
            assert len(paths) == expected
    touched = [path for path in (*found.changed, *found.added, *found.removed) if path.suffix == ".dcm"]
    assert not any("Lung_Dx-A" in str(path) for path in touched)
    assert len({path.parts[-4] for path in touched}) <= 1


def test_every_quirk_can_be_had_at_once_and_spares_the_first_subject(clean, tmp_path):
    folder = lung_pet_ct_dx(tmp_path / "lung", **SMALL | {"subjects": 12}, quirks=LUNG_QUIRKS)
    first = min(path.name for path in (clean / "Annotation").iterdir())
    of_it = {path: digest for path, digest in digests(clean).items() if first in str(path)}
    assert len(of_it) > 2 * SLICES
    assert {path: digest for path, digest in digests(folder).items() if first in str(path)} == of_it


def test_an_added_series_is_of_its_class(hit):
    expected = {
        "localizer": (CT, "LOCALIZER", 1),
        "rgb_secondary_capture": (SECONDARY, "SECONDARY", 3),
        "dose_page": (SECONDARY, "DOSE_INFO", 3),
        "enhanced_multiframe": (ENHANCED, "VOLUME", 1),
    }
    for quirk, (sop_class, image_type, samples) in expected.items():
        for path in (path for path in hit(quirk).added if path.suffix == ".dcm"):
            made = pydicom.dcmread(path)
            assert (made.SOPClassUID, made.SamplesPerPixel) == (sop_class, samples)
            assert image_type in made.ImageType
            assert made.pixel_array.size
            assert samples == 1 or not {"PixelSpacing", "ImagePositionPatient", "FrameOfReferenceUID"} & set(made.dir())


def test_the_only_annotations_of_a_fused_series_subject_are_its_own(hit):
    found = hit("rgb_secondary_capture")
    fused = {pydicom.dcmread(path).SOPInstanceUID for path in found.added if path.suffix == ".dcm"}
    [subject] = {path.parent for path in found.added if path.suffix == ".xml"}
    assert {path.stem for path in subject.iterdir()} == fused


def test_an_enhanced_file_holds_the_frames_of_the_soft_series(hit, clean):
    made = pydicom.dcmread(hit("enhanced_multiframe").added[0])
    soft = series_of(clean)[made.PatientID, 3]
    frames = made.PerFrameFunctionalGroupsSequence
    assert made.NumberOfFrames == SLICES == len(frames)
    for frame, pixels, single in zip(frames, made.pixel_array, soft[::-1], strict=True):
        assert frame.PlanePositionSequence[0].ImagePositionPatient == single.ImagePositionPatient
        assert np.array_equal(pixels, single.pixel_array)
    shared = made.SharedFunctionalGroupsSequence[0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == soft[0].PixelSpacing
    assert shared.PixelValueTransformationSequence[0].RescaleIntercept == -1024


def test_a_bomb_is_small_and_claims_gigabytes(hit):
    [path] = hit("bomb").added
    made = pydicom.dcmread(path)
    assert made.Rows * made.Columns * 2 > 8e9
    assert path.stat().st_size < 5000


def test_files_that_are_no_slices_lie_among_slices(hit):
    [directory] = hit("dicomdir_file").added
    made = pydicom.dcmread(directory)
    assert made.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10"
    assert "PixelData" not in made
    [page] = hit("not_dicom").added
    with pytest.raises(pydicom.errors.InvalidDicomError):
        pydicom.dcmread(page)
    assert len(list(directory.parent.iterdir())) == len(list(page.parent.iterdir())) == SLICES + 1


def test_two_series_share_a_folder(hit):
    [folder] = {path.parent for path in hit("two_series_in_one_folder").added}
    found = Counter(pydicom.dcmread(path).SeriesInstanceUID for path in folder.iterdir())
    assert list(found.values()) == [SLICES, SLICES]


def test_duplicates_are_of_a_slice_or_of_its_position(hit):
    [path] = hit("duplicate_slice").added
    assert [path.read_bytes() == each.read_bytes() for each in path.parent.iterdir()].count(True) == 2
    [path] = hit("duplicate_position").added
    made = pydicom.dcmread(path)
    others = [pydicom.dcmread(each) for each in path.parent.iterdir() if each != path]
    [twin] = [each for each in others if each.ImagePositionPatient == made.ImagePositionPatient]
    assert made.SeriesInstanceUID == twin.SeriesInstanceUID
    assert made.SOPInstanceUID not in {each.SOPInstanceUID for each in others}
    assert not np.array_equal(made.pixel_array, twin.pixel_array)


def test_geometry_quirks_leave_the_pixels_alone(hit):
    for quirk in ("uneven_spacing", "gantry_tilt", "missing_pixel_spacing", "missing_position"):
        for before, after in hit(quirk).pairs():
            assert after.PixelData == before.PixelData
            assert after.SOPInstanceUID == before.SOPInstanceUID
            assert ("PixelSpacing" in after) == (quirk != "missing_pixel_spacing")
            assert ("ImagePositionPatient" in after) == (quirk != "missing_position")


def test_a_gap_lies_inside_of_a_series(hit):
    [path] = hit("missing_slice").removed
    assert path.name not in {"1-01.dcm", f"1-{SLICES:02d}.dcm"}
    folder = hit("uneven_spacing").changed[0].parent
    heights = sorted(float(pydicom.dcmread(path).ImagePositionPatient[2]) for path in folder.iterdir())
    assert np.allclose(np.diff(heights), [7.5, 7.5, 7.5, 5, 5])


def test_tilted_slices_are_no_right_angle_to_their_line(hit):
    slices = sorted((after for _, after in hit("gantry_tilt").pairs()), key=lambda made: made.InstanceNumber)
    across, down = np.reshape(np.array(slices[0].ImageOrientationPatient, float), (2, 3))
    assert np.linalg.norm(down) == pytest.approx(1)
    step = np.subtract(slices[1].ImagePositionPatient, slices[0].ImagePositionPatient)
    assert np.allclose(step, (0, 0, -5))
    angle = np.degrees(np.arccos(abs(np.cross(across, down) @ step) / 5))
    assert angle == pytest.approx(12)
    assert slices[0].GantryDetectorTilt == 12


def test_a_damaged_slice_cannot_be_decoded(hit):
    [(_, after)] = hit("zero_pixel_data").pairs()
    assert not after.PixelData
    for quirk in ("wrong_length", "truncated_dicom"):
        made = pydicom.dcmread(hit(quirk).changed[0])
        assert made.Rows * made.Columns == SIZE**2
        with pytest.raises((ValueError, AttributeError)):
            _ = made.pixel_array
    [(before, after)] = hit("mixed_size").pairs()
    assert (after.Rows, after.Columns) == (before.Rows // 2, before.Columns // 2)
    assert np.array_equal(after.pixel_array, before.pixel_array[::2, ::2])


def test_other_encodings_hold_the_same_voxels(hit):
    syntaxes = {
        "signed_pixels": "1.2.840.10008.1.2.1",
        "rle_compressed": "1.2.840.10008.1.2.5",
        "deflated": "1.2.840.10008.1.2.1.99",
        "implicit_vr": "1.2.840.10008.1.2",
    }
    for quirk, syntax in syntaxes.items():
        for before, after in hit(quirk).pairs():
            assert after.file_meta.TransferSyntaxUID == syntax
            assert after.SOPInstanceUID == before.SOPInstanceUID == after.file_meta.MediaStorageSOPInstanceUID
            inside = slice(SIZE // 4, -SIZE // 4)
            assert np.array_equal(values(after)[inside, inside], values(before)[inside, inside])
            if quirk == "signed_pixels":
                assert (after.PixelRepresentation, after.PixelPaddingValue) == (1, -2000)
                assert values(after)[0, 0] == -3024
            else:
                assert np.array_equal(values(after), values(before))


def test_file_names_may_be_in_no_order(hit, clean):
    found = hit("instance_order")
    folder = found.changed[0].parent
    instances = [pydicom.dcmread(path).InstanceNumber for path in sorted(folder.iterdir())]
    assert sorted(instances) == list(range(1, SLICES + 1)) != instances
    before = digests(clean / folder.relative_to(found.folder))
    assert sorted(before.values()) == sorted(digests(folder).values())


def test_a_patient_is_named_in_standard_and_private_tags(hit):
    for path in hit("private_tags").changed:
        assert all(secret.encode() in path.read_bytes() for secret in SECRETS)
    for before, after in hit("private_tags").pairs():
        assert (str(after.PatientName), after.PatientBirthDate) == ("Musterfrau^Erika", "19500817")
        assert after.PatientID == before.PatientID
        private = [each for each in after.iterall() if each.tag.is_private]
        assert any("Musterfrau" in str(each.value) for each in private)
        assert after.PixelData == before.PixelData


def test_a_weight_may_be_absent_or_zero(hit):
    assert not any("PatientWeight" in after for _, after in hit("no_weight").pairs())
    assert {after.PatientWeight for _, after in hit("zero_weight").pairs()} == {0}
    assert {after.Modality for _, after in hit("zero_weight").pairs()} == {"PT"}


def test_broken_annotations_do_not_parse(hit):
    for quirk in ("xml_empty", "xml_cut_off"):
        with pytest.raises(ET.ParseError):
            parse(hit(quirk).changed[0])
    text = hit("xml_with_entities").changed[0].read_text()
    assert "<!ENTITY" in text
    assert "&label;" in text
    assert "file:///" in text


def test_odd_annotations_say_what_they_should(hit):
    def pair(quirk):
        found = hit(quirk)
        return boxes(found.old[0]), boxes(found.changed[0])

    [(_, *box)], after = pair("xml_label_q")
    assert after == [("Q", *box)]
    assert pair("xml_no_object")[1] == []
    before, after = pair("xml_several_objects")
    assert len(after) == 3
    assert after[0] == before[0]
    [(_, x0, _, x1, _)], [crossing, beyond] = pair("xml_box_outside")
    assert x1 - x0 == crossing[3] - crossing[1] == beyond[3] - beyond[1]
    assert crossing[1] < SIZE < crossing[3]
    assert beyond[1] > SIZE
    found = hit("folder_letter_mismatch")
    assert all(boxes(path)[0][0] != path.parent.name[0] for path in found.changed)


def test_annotations_and_images_need_not_match(hit, clean):
    images = {made.SOPInstanceUID for each in series_of(clean).values() for made in each}
    for quirk in ("xml_without_image", "removed_subject"):
        assert not images & {path.stem for path in hit(quirk).added}
    [path] = hit("xml_in_two_folders").added
    assert path.stem in images
    assert len(list(path.parents[1].rglob(path.name))) == 2
    assert len(list((hit("image_without_annotation").folder / "Annotation").iterdir())) == 3


def test_the_clinical_sheet_may_lack_columns(hit):
    book = openpyxl.load_workbook(hit("clinical_missing_column").changed[0])
    header = [cell.value for cell in book.worksheets[0][1]]
    assert len(header) == 8
    assert not {"weight (kg)", "\uff2d-Stage"} & set(header)
