"""Excel workbooks: each cell as a person sees it, or refused by name."""

from __future__ import annotations

import datetime
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from wsi_pipeline.cohort.clinical.clinical_table import read_clinical
from wsi_pipeline.cohort.tables.workbook import split_sheet
from wsi_pipeline.errors import UsageError


def book(path: Path, rows: list[list[object]], change: object = None) -> str:
    file = Workbook()
    sheet = file.active
    assert isinstance(sheet, Worksheet)
    for row in rows:
        sheet.append(row)
    if change is not None:
        change(file, sheet)  # type: ignore[operator]
    file.save(path)
    return str(path)


def with_value(path: Path, formula: str, cell: str) -> None:
    """Give a formula the value that a spreadsheet program would have stored with it."""
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name) for name in file.namelist()}
    sheet = "xl/worksheets/sheet1.xml"
    for empty in (f"<f>{formula}</f><v />", f"<f>{formula}</f><v></v>", f"<f>{formula}</f><v/>"):
        parts[sheet] = parts[sheet].replace(empty.encode(), f"<f>{formula}</f>{cell}".encode())
    with zipfile.ZipFile(path, "w") as file:
        for name, content in parts.items():
            file.writestr(name, content)


def test_numbers_are_the_texts_a_person_sees(tmp_path: Path) -> None:
    def change(file: Workbook, sheet: Worksheet) -> None:
        sheet["A4"].number_format = "0000"

    rows = [["PATIENT", "x"], [1.0, 0.1 + 0.2], [2, True], [7, 1e300], ["007", -3.0], [12345678, 1.5]]
    table = read_clinical(book(tmp_path / "c.xlsx", rows, change))
    assert table.header == ("PATIENT", "x")
    assert table.column(0) == ["1", "2", "0007", "007", "12345678"]
    assert table.column(1) == ["0.3", "TRUE", "1e+300", "-3", "1.5"]
    assert [number for number, _ in table.rows] == [2, 3, 4, 5, 6]
    assert not table.troubles


def test_what_excel_has_changed_is_known_cell_by_cell(tmp_path: Path) -> None:
    def change(file: Workbook, sheet: Worksheet) -> None:
        sheet["A3"] = "=B2&1"
        sheet["B4"] = '=IF(A2="","",A2)'

    day = datetime.datetime(2024, 9, 2)
    path = tmp_path / "c.xlsx"
    book(path, [["id", "KRAS"], [day, 1234567890123456789], ["", "wt"], ["p3", ""]], change)
    table = read_clinical(str(path))
    assert table.column(0)[0] == "2024-09-02"
    assert "is the date or time 2024-09-02" in table.troubles[2, 0]
    assert "19 digits, of which Excel keeps 15" in table.troubles[2, 1]
    assert "a formula whose value the file does not hold" in table.troubles[3, 0]
    assert (4, 1) in table.troubles


def test_a_formula_with_its_value_is_read_also_where_that_is_empty(tmp_path: Path) -> None:
    def change(file: Workbook, sheet: Worksheet) -> None:
        sheet["B2"], sheet["B3"] = "=1+1", '=""'

    path = tmp_path / "c.xlsx"
    book(path, [["id", "grade"], ["p1", None], ["p2", None]], change)
    with_value(path, "1+1", "<v>2</v>")
    with zipfile.ZipFile(path) as file:
        text = file.read("xl/worksheets/sheet1.xml").decode()
    assert '<c r="B3"><f>""</f><v' in text
    parts = text.replace('<c r="B3"><f>""</f><v />', '<c r="B3" t="str"><f>""</f><v></v>')
    with zipfile.ZipFile(path) as file:
        kept = {name: file.read(name) for name in file.namelist()} | {"xl/worksheets/sheet1.xml": parts.encode()}
    with zipfile.ZipFile(path, "w") as file:
        for name, content in kept.items():
            file.writestr(name, content)
    table = read_clinical(str(path))
    assert table.column(1) == ["2", ""]
    assert not table.troubles


def test_merged_cells_have_the_value_shown_and_a_title_is_none_of_the_names(tmp_path: Path) -> None:
    def change(file: Workbook, sheet: Worksheet) -> None:
        sheet.merge_cells("A1:C1")
        sheet.merge_cells("A4:A5")
        sheet.row_dimensions[6].hidden = True

    rows: list[list[object]] = [["Cohort 2024"], [], ["Patient ID", "KRAS", "n"], ["p1", "wt", 1], [None, "wt", 2],
                                ["p2", "mut", 3]]  # fmt: skip
    table = read_clinical(book(tmp_path / "c.xlsx", rows, change))
    assert table.header == ("Patient ID", "KRAS", "n")
    assert table.column(0) == ["p1", "p1", "p2"]
    said = " | ".join(table.notes)
    assert "column names are in row 3; the title 'Cohort 2024' above it is not read" in said
    assert "merged cells count as if each had the value shown: A4:A5" in said
    assert "1 hidden row" in said


def two_sheets(file: Workbook, sheet: Worksheet) -> None:
    sheet.title = "Key"
    other = file.create_sheet("Data 1")
    other.append(["PATIENT", "KRAS"])
    other.append(["p1", "wt"])


def test_of_several_sheets_one_is_named(tmp_path: Path) -> None:
    path = book(tmp_path / "c.xlsx", [["a", "b"], ["x", "y"]], two_sheets)
    with pytest.raises(UsageError, match="has 2 sheets: 'Key', 'Data 1'") as caught:
        read_clinical(path)
    assert f"'{path}#Key'" in str(caught.value.todo)
    assert read_clinical(f"{path}#data 1").column(0) == ["p1"]
    with pytest.raises(UsageError, match="has no sheet 'Data'"):
        read_clinical(f"{path}#Data")


def test_a_hidden_sheet_and_an_empty_one_are_not_in_the_way(tmp_path: Path) -> None:
    def change(file: Workbook, sheet: Worksheet) -> None:
        hidden = file.create_sheet("lists")
        hidden["A1"] = "wt"
        hidden.sheet_state = "hidden"
        file.create_sheet("Sheet 3")

    table = read_clinical(book(tmp_path / "c.xlsx", [["PATIENT", "KRAS"], ["p1", "wt"]], change))
    assert table.column(1) == ["wt"]
    assert table.notes == ("hidden sheet is not read: 'lists'",)


def merged_names(file: Workbook, sheet: Worksheet) -> None:
    sheet.merge_cells("B1:C1")


def far_cell(file: Workbook, sheet: Worksheet) -> None:
    sheet["ZZ1000000"] = 1


@pytest.mark.parametrize(
    ("rows", "change", "told"),
    [
        ([["id", "markers", None], ["p1", "a", "b"]], merged_names, "column names are in merged cells (B1:C1)"),
        ([["id", "a"], ["p1", "b"]], far_cell, "reaches to row 1000000"),
        ([["id", "a"]], None, "has a header but no rows"),
        ([], None, "has no cells that can be read"),
    ],
)
def test_tables_that_cannot_be_read_are_refused(
    tmp_path: Path, rows: list[list[object]], change: object, told: str
) -> None:
    with pytest.raises(UsageError) as caught:
        read_clinical(book(tmp_path / "c.xlsx", rows, change))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.xlsx", b"PATIENT,KRAS\np1,wt\n", "is not an .xlsx file"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "protected by a password, or an old .xls file"),
        ("a.xls", b"", "a kind that is not read (.xls)"),
        ("a.ods", b"", "a kind that is not read (.ods)"),
        ("a.csv", b"PATIENT,KRAS\np1,wt,3\n", "row 2: more cells than the header, 2 columns"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_clinical(str(tmp_path / name))
    assert told in str(caught.value)


def test_a_torn_workbook_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        read_clinical(str(tmp_path / "none.xlsx"))
    with zipfile.ZipFile(tmp_path / "empty.xlsx", "w") as file:
        file.writestr("hello.txt", "x")
    with pytest.raises(UsageError, match="cannot be read as a workbook"):
        read_clinical(str(tmp_path / "empty.xlsx"))


def test_a_file_that_is_really_named_with_a_sheet_is_whole(tmp_path: Path) -> None:
    assert split_sheet("a.xlsx#S 1") == (Path("a.xlsx"), "S 1")
    assert split_sheet("a#b.csv") == (Path("a#b.csv"), None)
    odd = tmp_path / "a.xlsx#1"
    odd.write_bytes(b"")
    assert split_sheet(str(odd)) == (odd, None)
