"""The clinical table, written as the released one is, and as people spoil it."""

import csv
import datetime as dt
import sys
import zipfile
from dataclasses import asdict

import pytest

from lesionzarr.annotations.clinical import Patient, join_clinical, read_clinical
from lesionzarr.annotations.subjects import subject_code, subject_letter
from lesionzarr.errors import MissingExtraError, SourceError
from lesionzarr.lesion import Lesion

openpyxl = pytest.importorskip("openpyxl", reason="the spreadsheets of these tests are written with openpyxl")

HEADER = (
    *("No.", "NewPatientID", "Sex", "Age", "weight (kg)", "T-Stage", "N-Stage", "\uff2d-Stage"),
    *("Histopathological grading", "Smoking History"),
)
ROWS = [
    (1, "A0001", "M", 53, 75.5, "2a", 3, "1b", "2", 1),
    (2, "B0002", "F", None, None, "1c", 0, "0", None, 0),
]
READ = {
    "A0001": Patient("A0001", "M", 53.0, 75.5, "2a", "3", "1b", "2", "1"),
    "B0002": Patient("B0002", "F", None, None, "1c", "0", "0", None, "0"),
}


def write(path, *rows, header=HEADER, above=()):
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            csv.writer(file).writerows([*above, header, *rows])
    else:
        book = openpyxl.Workbook()
        for row in (*above, header, *rows):
            book.active.append(row)
        book.save(path)
    return path


@pytest.fixture(params=["clinical.xlsx", "clinical.csv"])
def path(request, tmp_path):
    return tmp_path / request.param


def test_a_table_with_a_full_width_header_and_empty_cells_is_read(path):
    clinical = read_clinical(write(path, *ROWS))
    assert (clinical.patients, clinical.issues) == (READ, ())


def test_headers_may_differ_in_width_case_and_blanks(path):
    header = (
        "no.",
        " newpatientid ",
        "SEX",
        "age",
        "Weight\n(kg)",
        "T-stage",
        "N-Stage",
        "M-Stage",
        *HEADER[8:],
        "Note",
    )
    assert read_clinical(write(path, *((*row, "x") for row in ROWS), header=header)).patients == READ


def test_blank_rows_are_passed_over(path):
    blank = (None,) * len(HEADER)
    assert read_clinical(write(path, ROWS[0], blank, ROWS[1], blank, above=[])).patients == READ


def test_a_patient_is_found_by_the_id_of_the_images_and_by_the_tables(path):
    clinical = read_clinical(write(path, *ROWS))
    assert clinical.patient("Lung_Dx-A0001") is clinical.patient("A0001") is clinical.patients["A0001"]
    assert clinical.patient("Lung_Dx-A0009") is None
    assert clinical.patient("A0001").diagnosis == "adenocarcinoma"
    assert clinical.patient("B0002").diagnosis == "small cell carcinoma"


@pytest.mark.parametrize(
    ("text", "code", "letter"),
    [
        *(("Lung_Dx-E0003", "E0003", "E"), ("lung_dx-g0011 ", "G0011", "G"), ("D0001", "D0001", None)),
        *(("Annotation", "Annotation", None), ("", "", None)),
    ],
)
def test_subjects_are_known_by_code_and_letter(text, code, letter):
    assert (subject_code(text), subject_letter(text)) == (code, letter)


def test_weights_ages_and_sexes_that_mean_nothing_are_emptied_and_reported(path):
    rows = [
        (1, "A0001", "male", 0, 0, *ROWS[0][5:]),
        (2, "A0002", "x", -4, "-70", *ROWS[0][5:]),
        (3, "A0003", "f", "sixty", "nan", *ROWS[0][5:]),
        (4, "A0004", "NA", "61.5", "inf", *ROWS[0][5:]),
    ]
    clinical = read_clinical(write(path, *rows))
    found = {key: (patient.sex, patient.age, patient.weight_kg) for key, patient in clinical.patients.items()}
    expected = {"A0001": ("M", 0.0, None), "A0002": (None, None, None), "A0003": ("F", None, None)}
    assert found == expected | {"A0004": (None, 61.5, None)}
    assert [(issue.kind, issue.item) for issue in clinical.issues] == [
        ("odd-cell", subject) for subject in ("A0001", "A0002", "A0002", "A0002", "A0003", "A0004")
    ]


def test_a_repeated_patient_and_a_row_without_one_are_left_out_and_reported(path):
    other = (3, "Lung_Dx-A0001", "F", *ROWS[0][3:])
    nobody = (4, None, *ROWS[0][2:])
    clinical = read_clinical(write(path, *ROWS, ROWS[0], other, nobody))
    assert clinical.patients == READ
    assert [issue.kind for issue in clinical.issues] == ["duplicate-patient", "duplicate-patient", "no-patient"]
    assert "repeats" in clinical.issues[0].message
    assert "contradicts" in clinical.issues[1].message


def test_columns_that_are_absent_are_named(path):
    keep = [place for place, name in enumerate(HEADER) if name not in {"Age", "\uff2d-Stage"}]
    rows = [[row[place] for place in keep] for row in ROWS]
    with pytest.raises(SourceError, match=rf"^{path.name}: column Age, M-Stage is absent"):
        read_clinical(write(path, *rows, header=[HEADER[place] for place in keep]))


def test_a_table_without_rows_is_refused(path):
    with pytest.raises(SourceError, match="without rows"):
        read_clinical(write(path))


def test_formulas_dates_and_sheets_before_the_table_are_no_trouble(tmp_path):
    book = openpyxl.Workbook()
    book.active.title = "empty"
    sheet = book.create_sheet("statistics")
    sheet.append([])
    sheet.append(HEADER)
    # Excel makes a date of a stage such as 1-2; a formula that was never computed has no value
    sheet.append((1, "A0001", "M", "=50+3", 75.0, dt.datetime(2020, 1, 2), True, dt.time(1, 2), "#N/A", " II \n III "))  # noqa: DTZ001
    book.save(tmp_path / "clinical.xlsx")
    clinical = read_clinical(tmp_path / "clinical.xlsx")
    assert clinical.issues == ()
    assert clinical.patients == {
        "A0001": Patient("A0001", "M", None, 75.0, "2020-01-02", "True", "01:02:00", None, "II III")
    }


def test_a_wrong_extent_in_the_file_cuts_nothing(tmp_path):
    source, path = write(tmp_path / "source.xlsx", *ROWS), tmp_path / "clinical.xlsx"
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(b'<dimension ref="A1:J3"', b'<dimension ref="A1:B2"'))
    assert b'ref="A1:B2"' in zipfile.ZipFile(path).read("xl/worksheets/sheet1.xml")
    assert read_clinical(path).patients == READ


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\xd0\xcf\x11\xe0 an old .xls", None])
def test_a_file_that_is_no_xlsx_is_refused_by_name(tmp_path, content):
    path = tmp_path / "clinical.xlsx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=r"^clinical\.xlsx: cannot be read as XLSX") as caught:
        read_clinical(path)
    assert str(tmp_path) not in str(caught.value)


def test_a_zip_that_is_no_workbook_and_a_bomb_are_refused(tmp_path):
    path = tmp_path / "clinical.xlsx"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(SourceError, match="cannot be read as XLSX"):
        read_clinical(path)
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("a.txt", "w", force_zip64=True) as part,
    ):
        for _ in range(257):
            part.write(bytes(2**20))
    with pytest.raises(SourceError, match="269,484,032 bytes unpacked"):
        read_clinical(path)


def test_the_extra_is_named_where_openpyxl_is_absent(tmp_path, monkeypatch):
    path = write(tmp_path / "clinical.xlsx", *ROWS)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lesionzarr\[dicom\]'"):
        read_clinical(path)
    assert read_clinical(write(tmp_path / "clinical.csv", *ROWS)).patients == READ


def test_lesions_get_what_the_table_says_of_their_patient(path):
    lesions = [
        Lesion(f"{n}", "v", "s", patient_id=f"Lung_Dx-{n}", extra='{"a": 1}') for n in ("A0001", "B0002", "G0009")
    ]
    first, second, third = join_clinical(lesions, read_clinical(write(path, *ROWS)))
    assert (first.sex, first.age, first.extras["a"]) == ("M", 53.0, 1)
    cells = {name: value for name, value in asdict(READ["A0001"]).items() if name not in {"sex", "age"}}
    assert first.extras["clinical"] == {**cells, "diagnosis": "adenocarcinoma"}
    assert (second.sex, second.age) == ("F", None)
    assert "weight_kg" not in second.extras["clinical"]
    assert third == lesions[2]
