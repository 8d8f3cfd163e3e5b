"""Clinical tables joined to slides: which row is whose, which outcome it gives, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.cohort.clinical.clinical_table import read_clinical
from wsi_pipeline.cohort.clinical.join import Joined, join
from wsi_pipeline.cohort.clinical.match_ids import match_ids
from wsi_pipeline.cohort.clinical.outcomes import Outcomes, with_outcome
from wsi_pipeline.cohort.clinical.targets import Target, parse_target
from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import ManifestError, UsageError

TASKS = ("classification", "regression", "survival")


def slides(*patients: str) -> list[SlideRecord]:
    """Two slides of each patient."""
    return [SlideRecord(f"{p}_{k}", Path(f"{p}_{k}.svs"), p, label="old", time=3.0) for p in patients for k in "AB"]


def joined(folder: Path, text: str, records: list[SlideRecord], column: str | None = None) -> Joined:
    (folder / "clini.csv").write_text(text, encoding="utf-8")
    return join(read_clinical(str(folder / "clini.csv")), records, column)


def outcome(
    folder: Path, text: str, records: list[SlideRecord], target: str, task: str = "classification", **options: object
) -> Outcomes:
    found = joined(folder, text, records)
    asked = parse_target(target, task, TASKS, lambda name: name in found.table.header)
    return with_outcome(found, records, asked, TableOptions(**options))  # type: ignore[arg-type]


def test_each_slide_has_the_label_of_its_patient_and_the_rest_is_said(tmp_path: Path) -> None:
    text = "PATIENT,AGE,KRAS,MSI\nP1,60,mut,\nP2,61,wt,high\nP9,70,wt,low\n"
    found = joined(tmp_path, text, slides("P1", "P2", "P3"))
    assert found.summary == (
        "2 of 3 patients found by 'PATIENT'; 1 patient not in the table (P3); "
        "1 patient of the table without slides (P9)"
    )
    assert not found.notes
    kras = outcome(tmp_path, text, slides("P1", "P2", "P3"), "KRAS")
    assert [record.label for record in kras.records] == ["mut", "mut", "wt", "wt", None, None]
    assert {record.time for record in kras.records} == {None}, "the outcome is that of the table alone"
    assert kras.columns == {"label": "KRAS"}
    msi = outcome(tmp_path, text, slides("P1", "P2", "P3"), "msi")
    assert (msi.target.column, [record.label for record in msi.records][:4]) == ("MSI", [None, None, "high", "high"])


@pytest.mark.parametrize(
    ("ours", "theirs", "found", "respelt", "doubtful"),
    [
        (["p1", "p2"], ["p2", "p1"], {"p1": "p1", "p2": "p2"}, (), ()),
        (["P-01", "P-02"], ["p 1", "P2"], {"P-01": "p 1", "P-02": "P2"}, (("P-01", "p 1"), ("P-02", "P2")), ()),
        (["007", "8"], ["7.0", "8.0"], {"007": "7.0", "8": "8.0"}, (("007", "7.0"), ("8", "8.0")), ()),
        (["1", "01"], ["1"], {"1": "1"}, (), (("1", "01"),)),
        (["P1"], ["p1", "p 1"], {}, (), (("P1", "p1", "p 1"),)),
        (["P1"], ["P1", "p1"], {"P1": "P1"}, (), (("P1", "p1"),)),
        (["a"], ["b"], {}, (), ()),
    ],
)
def test_ids_match_as_written_then_by_writing_alone(
    ours: list[str], theirs: list[str], found: dict[str, str], respelt: object, doubtful: object
) -> None:
    match = match_ids(ours, theirs)
    assert (dict(match.found), match.respelt, match.doubtful) == (found, respelt, doubtful)
    assert len(match.notes("patient")) == bool(respelt) + bool(doubtful)


def test_nothing_matched_shows_ids_of_both_sides(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as caught:
        joined(tmp_path, "PATIENT,KRAS\nA1,mut\nA2,wt\nA3,wt\nA4,wt\n", slides("P1", "P2", "P3", "P4"))
    assert "its column 'PATIENT' holds 'A1', 'A2', 'A3' and 1 more" in str(caught.value)
    assert "The run has the patients 'P1', 'P2', 'P3' and 1 more and the slides 'P1_A'" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "PATIENT,Fall,KRAS\nA1,P1,mut\nA2,P2,wt\n",
            "The column 'Fall' holds ids of this run: --patient-column 'Fall'",
        ),
        ("PATIENT,KRAS\nTCGA-AA-1,mut\nTCGA-AA-2,wt\n", "Ids of the run begin like those in 'PATIENT'"),
        ("PATIENT,KRAS\nP1-T-DNA,mut\nP2-T-DNA,wt\n", "Values of 'PATIENT' begin like patients of the run"),
    ],
)
def test_what_would_match_is_named(tmp_path: Path, text: str, told: str) -> None:
    ours = ("TCGA-AA-1-01", "TCGA-AA-2-01") if "TCGA" in text else ("P1", "P2")
    with pytest.raises(ManifestError) as caught:
        joined(tmp_path, text, slides(*ours))
    assert told in str(caught.value.todo)


@pytest.mark.parametrize(
    ("header", "unit", "column"),
    [
        ("PATIENT,KRAS", "patient", "PATIENT"),
        ("ID,KRAS", "patient", "ID"),
        ("case_id,x", "patient", "case_id"),
        ("bcr_patient_barcode,x", "patient", "bcr_patient_barcode"),
        ("Sample ID,x", "patient", "Sample ID"),
    ],
)
def test_columns_of_patients_by_their_names(tmp_path: Path, header: str, unit: str, column: str) -> None:
    found = joined(tmp_path, f"{header}\nP1,a\nP2,b\n", slides("P1", "P2"))
    assert (found.unit, found.table.header[found.column]) == (unit, column)


def test_of_two_columns_of_patients_the_one_that_matches_and_the_one_named(tmp_path: Path) -> None:
    text = "case_id,submitter_id,Fall,KRAS\nu-1,P1,P2,mut\nu-2,P2,P1,wt\n"
    assert joined(tmp_path, text, slides("P1", "P2")).rows == ((0,), (0,), (1,), (1,))
    assert joined(tmp_path, text, slides("P1", "P2"), "Fall").rows == ((1,), (1,), (0,), (0,))
    with pytest.raises(UsageError, match="has no column 'nobody'"):
        joined(tmp_path, text, slides("P1"), "nobody")


def test_a_table_of_slides_is_joined_by_slide(tmp_path: Path) -> None:
    text = "PATIENT,FILENAME,x\nP1,sub/P1_A.svs,a\nP1,P1_B.h5,b\nP2,P2_A.svs,a\n"
    found = joined(tmp_path, text, slides("P1", "P2"))
    assert (found.unit, found.rows) == ("slide", ((0,), (1,), (2,), ()))
    assert found.summary == "3 of 4 slides found by 'FILENAME'; 1 slide not in the table (P2_B)"


def test_rows_of_one_patient_agree_or_are_refused(tmp_path: Path) -> None:
    text = "PATIENT,KRAS,MSI,n\nP1,mut,high,1\nP1,,low,2\nP2,wt,,3\n"
    records = slides("P1", "P2")
    assert [r.label for r in outcome(tmp_path, text, records, "KRAS").records] == ["mut", "mut", "wt", "wt"]
    with pytest.raises(ManifestError, match=r"row 3: patient 'P1' has two values of 'MSI': 'high' \(row 2\), 'low'"):
        outcome(tmp_path, text, records, "MSI")


def test_words_for_no_value_spellings_and_grades_follow_the_rules_of_labels(tmp_path: Path) -> None:
    text = "PATIENT,x\nP1,Mut\nP2,mut\nP3,Not Reported\nP4,\nP5,mut\n"
    records = slides("P1", "P2", "P3", "P4", "P5")
    plain = outcome(tmp_path, text, records, "x")
    assert [r.label for r in plain.records[::2]] == ["Mut", "mut", None, None, "mut"]
    assert any("'Not Reported' of 2 slides is treated as missing" in note for note in plain.notes)
    assert any("differ only in" in note for note in plain.notes)
    folded = outcome(tmp_path, text, records, "x", fold_labels=True, keep_label="not reported,elsewhere")
    assert [r.label for r in folded.records[::2]] == ["mut", "mut", "Not Reported", None, "mut"]


@pytest.mark.parametrize(
    ("text", "target", "times", "events", "columns"),
    [
        ("PATIENT,time,event\nP1,5,1\nP2,7.5,0\n", "survival", (5.0, 7.5), (1, 0), ("time", "event")),
        ("PATIENT,OS.time,OS\nP1,5,1\nP2,7,0\n", "survival", (5.0, 7.0), (1, 0), ("OS.time", "OS")),
        (
            "PATIENT,OS.time,OS,PFS.time,PFS\nP1,5,1,2,1\nP2,7,0,3,1\n",
            "survival:PFS", (2.0, 3.0), (1, 1), ("PFS.time", "PFS"),
        ),
        (
            "PATIENT,OS_MONTHS,OS_STATUS,LRFS_MONTHS,LRFS_STATUS\nP1,5,1:DECEASED,2,0\nP2,7,0:LIVING,3,1\n",
            "survival:lrfs", (2.0, 3.0), (0, 1), ("LRFS_MONTHS", "LRFS_STATUS"),
        ),
        (
            "case_submitter_id,days_to_death,days_to_last_follow_up,vital_status\nP1,100,'--,Dead\nP2,'--,250,Alive\n",
            "survival:OS", (100.0, 250.0), (1, 0), ("days_to_death + days_to_last_follow_up", "vital_status"),
        ),
        ("PATIENT,survival_months,censorship\nP1,5,0\nP2,7,1\n", "survival", (5.0, 7.0), (1, 0),
         ("survival_months", "censorship")),
    ],
)  # fmt: skip
def test_survival_by_the_names_of_portals_and_by_endpoint(
    tmp_path: Path, text: str, target: str, times: object, events: object, columns: tuple[str, str]
) -> None:
    found = outcome(tmp_path, text, slides("P1", "P2"), target)
    assert tuple(r.time for r in found.records[::2]) == times
    assert tuple(r.event for r in found.records[::2]) == events
    assert (found.columns["time"], found.columns["event"]) == columns
    assert {r.label for r in found.records} == {None}


def test_times_that_are_none_are_refused_with_their_row_once(tmp_path: Path) -> None:
    text = "PATIENT,time,event\nP1,soon,1\nP2,-1,0\nP9,never,1\n"
    with pytest.raises(ManifestError) as caught:
        outcome(tmp_path, text, slides("P1", "P2"), "survival")
    assert str(caught.value).count("row 2: time of P1 must be a number, got 'soon'") == 1
    assert "never" not in str(caught.value), "of no slide of this run"
    mended = outcome(tmp_path, text.replace("soon", "4"), slides("P1", "P2"), "survival")
    assert [r.time for r in mended.records] == [4.0, 4.0, None, None]
    assert "1 patient with a time of 0 or less not used (P2)" in mended.notes


@pytest.mark.parametrize(
    ("text", "target", "told"),
    [
        ("PATIENT,KRAS\nP1,mut\n", "EGFR", "has no column 'EGFR' (--target)"),
        ("PATIENT,KRAS\nP1,mut\n", "PATIENT", "cannot be the target as well"),
        ("PATIENT,KRAS,KRAS\nP1,mut,wt\n", "KRAS", "has 2 columns 'KRAS'"),
        ("PATIENT,KRAS,MSI\nP1,mut,wt\n", "", "has no column `label`"),
        ("PATIENT,KRAS,MSI\nP1,mut,wt\n", "survival", "has no time column for survival"),
        ("PATIENT,OS.time,OS\nP1,1,1\n", "survival:PFS", "has no time column for survival PFS"),
        ("PATIENT,x\nP1,=1+1\n", "x", "would be run as a formula"),
    ],
)
def test_targets_that_are_not_there_are_refused(tmp_path: Path, text: str, target: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        outcome(tmp_path, text, slides("P1"), target)
    assert told in str(caught.value)


def test_targets_as_they_are_written() -> None:
    columns = {"KRAS", "survival:OS", "TMB"}

    def read(text: str, task: str = "classification") -> Target:
        return parse_target(text, task, TASKS, columns.__contains__)

    assert read("KRAS") == Target("KRAS", "classification", "KRAS")
    assert read("regression:TMB") == Target("regression:TMB", "regression", "TMB")
    assert read("survival") == Target("survival", "survival", "")
    assert read("Survival: PFS").shown == "survival PFS"
    assert read("survival:OS").column == "survival:OS", "a column that is really so named"
    assert read("OS", "survival") == Target("OS", "survival", "OS")
    assert read("a:b").column == "a:b"
