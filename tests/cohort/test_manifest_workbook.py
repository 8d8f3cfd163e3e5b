"""A table of slides in a workbook is the table that it is as CSV, but for what Excel has done to its cells."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from openpyxl import Workbook

from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.errors import ManifestError, UsageError

ROWS: list[list[Any]] = [
    ["slide_id", "path", "Patient ID", "diagnosis", "mpp"],
    ["s1", "s1.svs", "007", "A", 0.5],
    ["s2", "s2.svs", "007", "A", 0.25],
    ["s3", "s3.svs", "12", "B", None],
]


def book(path: Path, rows: list[list[Any]], sheet: str = "Slides", **others: list[list[Any]]) -> Path:
    made = Workbook()
    made.remove(made.worksheets[0])
    for name, content in {sheet: rows, **others}.items():
        place = made.create_sheet(name)
        for row in content:
            place.append(row)
    made.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("s1", "s2", "s3"):
        (tmp_path / f"{name}.svs").touch()
    pd.DataFrame(ROWS[1:], columns=ROWS[0]).to_csv(tmp_path / "slides.csv", index=False)
    return tmp_path


def test_the_records_are_those_of_the_csv(folder: Path) -> None:
    path = book(folder / "slides.xlsx", [["My slides"], [], *ROWS])
    found = read_cohort(path)
    assert found.records == read_cohort(folder / "slides.csv").records
    assert found.records[0].patient_id == "007"
    assert [record.label for record in found.records] == ["A", "A", "B"]
    assert any("the title 'My slides' above it is not read" in note.message for note in found.notes)


def test_one_of_several_sheets(folder: Path) -> None:
    path = book(folder / "slides.xlsx", ROWS, Notes=[["a"], ["b"]])
    with pytest.raises(UsageError, match="2 sheets: 'Slides', 'Notes'"):
        read_cohort(path)
    assert len(read_cohort(f"{path}#Slides")) == 3


def test_faults_name_the_rows_that_excel_shows(folder: Path) -> None:
    """An id that became a date in a column that is used; the same in another column is not looked at."""
    date = datetime.datetime(2026, 3, 1)
    bad = [[*ROWS[0], "scanned"], *([*row, date] for row in ROWS[1:])]
    assert len(read_cohort(book(folder / "fine.xlsx", bad))) == 3
    bad[2][0] = date
    with pytest.raises(ManifestError, match=r"row 3: 'slide_id' is the date or time 2026-03-01"):
        read_cohort(book(folder / "bad.xlsx", bad))


def test_a_command_takes_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = book(folder / "slides.xlsx", ROWS)
    main(["tile", str(path), "--run", str(folder / "run"), "--workers", "0"])
    said = capsys.readouterr()
    assert "3 slides, 2 patients" in said.out + said.err
