"""Labels as people write them: no value, other spellings, the order of numbers, words for splits, portals' survival."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsi_pipeline.cohort.manifest import Cohort, read_cohort, read_run, to_csv
from wsi_pipeline.cohort.table_words import in_order, is_missing, label_key, patient_key, split_word
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import ManifestError, UsageError


def read(folder: Path, text: str, options: TableOptions | None = None) -> Cohort:
    (folder / "slides.csv").write_text(text, encoding="utf-8")
    return read_cohort([folder / "slides.csv"], options=options)


def labels(folder: Path, values: list[str], options: TableOptions | None = None) -> Cohort:
    return read(folder, "slide_id,label\n" + "".join(f"x{n}q,{value}\n" for n, value in enumerate(values)), options)


def told(cohort: Cohort) -> list[str]:
    return [str(note) for note in cohort.notes if "file not found" not in str(note)]


def again(cohort: Cohort, folder: Path, options: TableOptions | None = None) -> Cohort:
    """The cohort as a run keeps it."""
    (folder / "cohort.csv").write_text(to_csv(cohort), encoding="utf-8")
    return read_run(folder / "cohort.csv", options or TableOptions())


@pytest.mark.parametrize(
    "word",
    [
        "Not Reported", "not reported", "'--", "--", "[Not Available]", "[Unknown]", "[Not Applicable]",
        "[Discrepancy]", "Unknown", "UNKNOWN", "not available", "Not_Available", "N/A", "#N/A", "?", "(unknown)",
        "not evaluated", "<NA>", "#DIV/0!", "#REF!", "#VALUE!", "#NAME?", "(blank)", "Not Stated",
    ],
)  # fmt: skip
def test_words_for_no_value(tmp_path: Path, word: str) -> None:
    cohort = labels(tmp_path, ["Stage I", "Stage II", word, word])
    assert cohort.label_counts() == {"Stage I": 1, "Stage II": 1}
    assert any(word in line or "empty label" in line for line in told(cohort))
    assert again(cohort, tmp_path).records == cohort.records
    assert labels(tmp_path, ["Stage I", word], TableOptions(keep_label=word)).label_counts() == {"Stage I": 1, word: 1}


@pytest.mark.parametrize("word", ["-", "+", "negative", "unknown primary", "0", "no", "indeterminate", "none of these"])
def test_words_that_are_labels(word: str) -> None:
    assert not is_missing(word)


def test_what_is_kept_as_a_label_stays_one(tmp_path: Path) -> None:
    values = ["Stage I", "Unknown", "unknown", "'--"]
    cohort = labels(tmp_path, values)
    assert told(cohort)[0] == (
        "label 'Unknown' of 1 slide is treated as missing and not used for training; keep it as a class with "
        "--keep-label 'Unknown'"
    )
    said = TableOptions(keep_label="Unknown")
    for each in (labels(tmp_path, values, said), again(cohort, tmp_path, said)):
        assert [record.label for record in each.records] == ["Stage I", "Unknown", "unknown", None]
        assert again(each, tmp_path).records == each.records
    both = again(again(cohort, tmp_path, said), tmp_path, TableOptions(fold_labels=True))
    assert [record.label for record in both.records] == ["Stage I", "Unknown", "Unknown", None]
    with pytest.raises(UsageError, match="keep_label names 'grade 9', which no slide has"):
        labels(tmp_path, values, TableOptions(keep_label="grade 9"))


@pytest.mark.parametrize(
    ("values", "joined"),
    [
        (["Tumor", "tumor", "Tumor", "TUMOR", "Normal"], {"Tumor": 4, "Normal": 1}),
        (["1", "1.0", "0", "0.0", "1"], {"1": 3, "0": 2}),
        (["Stage  I", "Stage I", "stage_i", "Stage II"], {"Stage  I": 3, "Stage II": 1}),
        (["ER+", "ER-", "er+"], {"ER+": 2, "ER-": 1}),
    ],
)
def test_labels_that_differ_in_writing_only(tmp_path: Path, values: list[str], joined: dict[str, int]) -> None:
    cohort = labels(tmp_path, values)
    assert len(cohort.label_counts()) == len(set(values))
    note = next(line for line in told(cohort) if "differ only in spelling" in line)
    spellings = {value for value in values if sum(label_key(value) == label_key(other) for other in set(values)) > 1}
    assert any(repr(value) in note for value in spellings)
    assert "--fold-labels" in note
    said = TableOptions(fold_labels=True)
    for each in (labels(tmp_path, values, said), again(cohort, tmp_path, said)):
        assert each.label_counts() == joined
        assert again(each, tmp_path).label_counts() == joined


def test_measurements_are_not_told_to_differ_in_writing(tmp_path: Path) -> None:
    assert told(labels(tmp_path, [f"{n / 2:g}" for n in range(60)] + ["1.0", "2.0"])) == []
    assert label_key("12345678901234567890") != label_key("12345678901234567891")
    assert patient_key("9" * 5000) == "9" * 5000


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    assert in_order(["10", "2", "1.5", "-1", "1"]) == ("-1", "1", "1.5", "2", "10")
    assert in_order(["grade 10", "grade 2", "b", "B"]) == ("B", "b", "grade 2", "grade 10")
    assert list(labels(tmp_path, ["10", "9", "2"]).label_counts()) == ["2", "9", "10"]


@given(st.lists(st.text(), max_size=8))
def test_order_is_one_order(names: list[str]) -> None:
    assert in_order(names) == in_order(names[::-1])
    assert sorted(in_order(names)) == sorted(set(names))


@pytest.mark.parametrize(
    ("word", "side"),
    [("Training", "train"), ("train", "train"), ("validation", "val"), ("valid", "val"), ("DEV", "val"),
     ("Testing", "test"), ("test set", "test"), ("Training_Set", "train"), ("holdout", None), ("1", None)],
)  # fmt: skip
def test_words_for_splits(tmp_path: Path, word: str, side: str | None) -> None:
    assert split_word(word) == side
    if side is None:
        with pytest.raises(ManifestError, match="split must be one of train, val, test"):
            read(tmp_path, f"slide_id,split\nx,{word}\n")
    else:
        assert read(tmp_path, f"slide_id,split\nx,{word}\n").records[0].split == side


@pytest.mark.parametrize(
    ("header", "rows", "outcomes"),
    [
        (
            "vital_status,days_to_death,days_to_last_follow_up",
            ["Alive,'--,120", "Dead,30,20", "Not Reported,'--,9", "Dead,'--,7", "Alive,,0", "dead,0,5"],
            [(120, 0), (30, 1), (None, None), (None, 1), (None, 0), (None, 1)],
        ),
        (
            "demographic.vital_status,demographic.days_to_death,diagnoses.days_to_last_follow_up",
            ["Dead,12.0,", "Alive,'--,99"],
            [(12, 1), (99, 0)],
        ),
        ("days_to_death,days_to_last_followup", ["12,3", "[Not Available],44"], [(12, 1), (44, 0)]),
        ("vital_status,death_days_to,last_contact_days_to", ["Dead,8,[Not Applicable]"], [(8, 1)]),
        ("OS,OS.time", ["1,100", "0,20"], [(100, 1), (20, 0)]),
        ("OS.time,OS,PFI,PFI.time,vital_status", ["5,0,1,2,Alive"], [(5, 0)]),
        ("PFI,PFI.time", ["1,100"], [(100, 1)]),
        ("OS_STATUS,OS_MONTHS,DFS_STATUS,DFS_MONTHS", ["1:DECEASED,12.5,0:DiseaseFree,3"], [(12.5, 1)]),
        ("Overall Survival (Months),Overall Survival Status", ["12.5,0:LIVING"], [(12.5, 0)]),
        ("duration,status", ["9,1", "8,0"], [(9, 1), (8, 0)]),
        ("time,status", ["9,dead"], [(9, 1)]),
        ("OS,OS_event", ["40,1"], [(40, 1)]),
        ("OS_days,vital_status", ["40,Alive"], [(40, 0)]),
        ("time,event,OS,OS.time", ["1,1,0,9"], [(1, 1)]),
        ("time,event", ["0,1", "-2,0", "7,1"], [(None, 1), (None, 0), (7, 1)]),
        ("time,event", ["[Not Available],1", "7,[Unknown]"], [(None, 1), (7, None)]),
        (
            "cases.0.demographic.vital_status,cases.0.demographic.days_to_death,"
            "cases.0.diagnoses.0.days_to_last_follow_up",
            ["Dead,12,", "Alive,'--,99"],
            [(12, 1), (99, 0)],
        ),
        ("survival_months,censorship", ["12.5,1", "8,0.0", "7,"], [(12.5, 0), (8, 1), (7, None)]),
        (
            "time,censored",
            ["5,yes", "6,FALSE", "7,censored", "8,uncensored", "9,dead"],
            [(5, 0), (6, 1), (7, 0), (8, 1), (9, 1)],
        ),
        ("duration,Censored", ["5,1"], [(5, 0)]),
        ("time,event,censored", ["5,1,1"], [(5, 1)]),
    ],
)
def test_survival_of_portals(
    tmp_path: Path, header: str, rows: list[str], outcomes: list[tuple[float | None, int | None]]
) -> None:
    text = f"slide_id,{header}\n" + "".join(f"x{n}q,{row}\n" for n, row in enumerate(rows))
    cohort = read(tmp_path, text)
    assert [(record.time, record.event) for record in cohort.records] == outcomes
    assert again(cohort, tmp_path).records == cohort.records


@pytest.mark.parametrize(
    ("header", "row", "note"),
    [
        ("status", "MSI-H", "columns not used: 'status'"),
        ("OS", "1", "columns not used: 'OS'"),
        ("time,status", "9,MSI-H", "column time without a column event"),
        ("time,censored", "9,1", "event is the opposite of 'censored', where 1 is a patient without the event"),
        ("days_to_death,vital_status", "9,Dead", "column event without a column time"),
        ("time,event", "0,1", "row 2: time of x0q is 0: not used for survival, which needs times above 0"),
        ("OS,OS.time,PFI,PFI.time", "1,2,0,1", "survival is OS ('OS.time', 'OS'); PFI not used"),
        (
            "vital_status,days_to_death,days_to_last_follow_up",
            "Dead,1,",
            "time is 'days_to_death' where dead by 'vital_status'",
        ),
    ],
)
def test_what_is_told_of_survival(tmp_path: Path, header: str, row: str, note: str) -> None:
    cohort = read(tmp_path, f"slide_id,{header}\nx0q,{row}\n")
    assert any(note in line for line in told(cohort)), told(cohort)


def test_one_and_two_are_not_taken_for_events(tmp_path: Path) -> None:
    cohort = read(tmp_path, "slide_id,time,status\nx,9,1\ny,8,2\n")
    assert [record.event for record in cohort.records] == [None, None]
    assert any("'status' holds 1 and 2" in line for line in told(cohort))
    with pytest.raises(ManifestError, match="event of y must be 1 or 0"):
        read(tmp_path, "slide_id,time,event\nx,9,1\ny,8,2\n")
