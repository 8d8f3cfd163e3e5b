"""Whose slides are these: known names, what may be patients unsaid, what is not taken for patients, and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from wsi_pipeline.cohort.manifest import Cohort, read_cohort, read_run, to_csv
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import UsageError

PATIENTS, SLIDES = 20, 3


def read(folder: Path, header: str, rows: Sequence[str], options: TableOptions | None = None) -> Cohort:
    path = folder / "slides.csv"
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return read_cohort([path], mixed_labels=True, options=options)


def kept(cohort: Cohort, folder: Path, options: TableOptions | None = None) -> Cohort:
    """The cohort as the run has it, with what is said afterwards."""
    run = folder / "cohort.csv"
    run.write_text(to_csv(cohort), encoding="utf-8")
    return read_run(run, options or TableOptions())


def several_slides(column: str, name: str = "Q{p}", slide: str = "x{n}", label: str = "ab") -> tuple[str, list[str]]:
    """A table of 20 patients with three slides each; slides are numbered through."""
    rows = [
        f"{name.format(p=p)},{slide.format(p=p, k=k, n=p * SLIDES + k)},{label[p * len(label) // PATIENTS]}"
        for p in range(PATIENTS)
        for k in range(SLIDES)
    ]
    return f"{column},slide_id,label", rows


@pytest.mark.parametrize(
    "column",
    [
        "case_submitter_id", "cases.submitter_id", "bcr_patient_barcode", "participant_id", "pid", "PID", "mrn", "MRN",
        "PatientID", "Patient ID", "patient-id", "_PATIENT", "Patient No.", "patient_number", "Subject ID",
        "subject_code", "anon_patient_id", "case", "Case Number", "donor", "animal_id", "pat_nr", "#Patient Identifier",
        "TCGA_patient_barcode", "cases.0.submitter_id", "cases[0].case_id", "associated_entities.0.case_id",
    ],
)  # fmt: skip
def test_names_of_columns_of_patients(tmp_path: Path, column: str) -> None:
    cohort = read(tmp_path, *several_slides(column))
    assert (cohort.patients, cohort.patients_stated) == (PATIENTS, "stated")
    assert doubt_words(cohort) == []


def test_two_columns_of_the_same_patients_are_one(tmp_path: Path) -> None:
    header, rows = several_slides("case_submitter_id")
    cohort = read(tmp_path, "case_id," + header, [f"uuid-{row.split(',')[0]},{row}" for row in rows])
    assert cohort.patients == PATIENTS
    assert cohort.records[0].patient_id == "uuid-Q0"


def test_two_columns_of_different_patients_are_for_the_user_to_choose(tmp_path: Path) -> None:
    header, rows = several_slides("case_submitter_id")
    other = [f"c{n},{row}" for n, row in enumerate(rows)]
    with pytest.raises(UsageError.__base__, match="keep one, or name it with --patient-column"):
        read(tmp_path, "case_id," + header, other)
    cohort = read(tmp_path, "case_id," + header, other, TableOptions(patient_column="case_submitter_id"))
    assert cohort.patients == PATIENTS


@pytest.mark.parametrize("name", ["Q{p}", "{p}", "4711-{p:03d}", "Jane {p}"])
@pytest.mark.parametrize("column", ["Zuordnung", "sample", "block", "unit"])
def test_a_column_whose_values_repeat_with_one_label_each_may_be_patients(
    tmp_path: Path, column: str, name: str
) -> None:
    cohort = read(tmp_path, *several_slides(column, name))
    ((what, todo), *_) = doubt_words(cohort)
    assert f"column '{column}' looks like patients (20 values over 60 slides" in what
    assert f"--patient-column {column}" in todo
    assert any(column in str(note) and "--each-slide-a-patient" in str(note) for note in cohort.notes)


@pytest.mark.parametrize("options", [TableOptions(patient_column="zuordnung"), TableOptions(each_slide_a_patient=True)])
def test_the_answer_is_kept_in_the_run_and_can_be_changed(tmp_path: Path, options: TableOptions) -> None:
    expected = PATIENTS if options.patient_column else PATIENTS * SLIDES
    asked = read(tmp_path, *several_slides("Zuordnung"))
    for cohort in (read(tmp_path, *several_slides("Zuordnung"), options), kept(asked, tmp_path, options)):
        again = kept(cohort, tmp_path)
        for each in (cohort, again, kept(cohort, tmp_path, options)):
            assert (each.patients, doubt_words(each)) == (expected, [])
        changed = kept(
            again if options.each_slide_a_patient else cohort, tmp_path, TableOptions(patient_column="Zuordnung")
        )
        assert changed.patients == PATIENTS
    assert kept(asked, tmp_path).patients_stated == "not known"
    assert [record.patient_id for record in kept(asked, tmp_path).records] == [f"x{n}" for n in range(60)]


def test_a_column_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no column 'person'"):
        read(tmp_path, *several_slides("Zuordnung"), TableOptions(patient_column="person"))
    cohort = read(tmp_path, *several_slides("pid"))
    assert kept(cohort, tmp_path, TableOptions(patient_column="pid")).patients == PATIENTS
    with pytest.raises(UsageError, match="has no column 'site_code'"):
        kept(cohort, tmp_path, TableOptions(patient_column="site_code"))
    with pytest.raises(UsageError, match="exclude each other"):
        TableOptions(patient_column="pid", each_slide_a_patient=True)


@pytest.mark.parametrize(
    "slide",
    [
        "TCGA-XX-{p:04d}-01Z-00-DX{k}", "tcga-a1-{p:04d}-01A-0{k}-BS1", "C3L-{p:05d}-2{k}", "P{p:02d}_{k}", "P{p}-{k}",
        "case{p}_A{k}", "patient_{p:03d}_node_{k}", "sub-{p:02d}_slide-{k}", "Pt {p}.{k}", "{p:04d}_{k}",
        "S19-{p:04d}-A{k}", "H{p:04d} HE_{k}", "19B{p:03d}.{k}",
        "S20-{p:04d}#{k}", "{p:04d} ({k})",
    ],
)  # fmt: skip
def test_names_that_begin_alike_may_be_of_one_patient(tmp_path: Path, slide: str) -> None:
    cohort = read(tmp_path, *several_slides("scanner", "GT450", slide))
    ((what, todo), *_) = doubt_words(cohort)
    assert "slide names share prefixes, as slides of one patient do (20 prefixes over 60 slides" in what
    assert "--each-slide-a-patient" in todo
    assert doubt_words(read(tmp_path, *several_slides("pid", "{p}", slide))) == []


@pytest.mark.parametrize(
    "slide", ["HE_{k}_P{p:02d}", "{k}-patient{p}", "HE{k} (case {p})", "he_{k}_TCGA-XX-{p:04d}", "block{k}_{p:04d}"]
)
def test_names_that_end_alike_may_be_of_one_patient(tmp_path: Path, slide: str) -> None:
    ((what, todo), *_) = doubt_words(read(tmp_path, *several_slides("scanner", "GT450", slide)))
    assert "slide names share suffixes, as slides of one patient do (20 suffixes over 60 slides" in what
    assert "--each-slide-a-patient" in todo
    assert doubt_words(read(tmp_path, *several_slides("pid", "{p}", slide))) == []


def test_letters_behind_numbers_and_runs_without_a_column(tmp_path: Path) -> None:
    """`12a`, `12b`; and cohorts of before, whose patients are called as their slides are."""
    rows = [f"{p}{k},{p}{k},{'ab'[p % 2]}" for p in range(PATIENTS) for k in "xyz"]
    assert "20 prefixes" in doubt_words(read(tmp_path, "slide_id,patient_id,label", rows))[0][0]


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("scanner", ["GT450"] * 30 + ["P1000"] * 30),  # each of one label alone: a site's warning, not a patient's
        ("apparatus", ["GT450"] * 30 + ["P1000"] * 30),
        ("apparatus", [f"A{n % 7}" for n in range(60)]),  # both labels
        ("constant", ["HE"] * 60),
        ("unique", [f"{n}" for n in range(60)]),
        ("age", [f"{n // 3 + 40}" for n in range(60)]),
        ("finding", ["benign"] * 30 + ["malignant"] * 30),  # the label in other words
        ("kind", [f"{'benign' if n < 30 else 'malignant'} {n % 4}" for n in range(60)]),
        ("ki67", [f"{n // 3 * 7 + n % 2}" for n in range(60)]),  # what the label is cut from
        ("weight_kg", [f"{n // 3 + 0.5}" for n in range(60)]),
        ("seen", [f"2019-03-{n // 3 + 1:02d}" for n in range(60)]),
        ("mostly empty", ["A", "A", *[""] * 58]),
        ("nearly unique", [f"{max(n, 1)}" for n in range(60)]),
    ],
)
def test_what_is_not_taken_for_patients(tmp_path: Path, column: str, values: list[str]) -> None:
    rows = [f"{value},x{n},{'ab'[n >= 30]}" for n, value in enumerate(values)]
    assert doubt_words(read(tmp_path, f"{column},slide_id,label", rows)) == []


@pytest.mark.parametrize(
    "slide",
    [
        "slide_{n:03d}",
        "s{n}",
        "{t}umor_{n:03d}",
        "20210304_{n:04d}",
        "batch{b}_{n:03d}",
        "{u}",
        "TMA{b}-{n}",
        "B19-{n:05d}",
    ],
)
def test_names_that_are_not_taken_for_patients(tmp_path: Path, slide: str) -> None:
    names = [slide.format(n=n, t="tn"[n >= 30], b=n % 2, u=f"{n * 2654435761 % 2**32:08x}") for n in range(60)]
    assert (
        doubt_words(read(tmp_path, "slide_id,label", [f"{name},{'ab'[n >= 30]}" for n, name in enumerate(names)])) == []
    )


def test_a_patient_that_only_some_rows_name(tmp_path: Path) -> None:
    """A slide without a patient whose name begins as those of a known patient is in doubt; another is not."""
    rows = [f"TCGA-AA-{p:04d},TCGA-AA-{p:04d}-01Z-00-DX{k},{'ab'[p % 2]}" for p in range(6) for k in (1, 2)]
    rows[3] = rows[3].replace("TCGA-AA-0001,", ",")
    cohort = read(tmp_path, "pid,slide_id,label", rows)
    assert cohort.patients_stated == "some"
    assert doubt_words(cohort)[0][0].startswith("the patients of 1 of the slides are not known")
    rows[3] = ",other,b"
    assert doubt_words(read(tmp_path, "pid,slide_id,label", rows)) == []


def test_survival_without_labels(tmp_path: Path) -> None:
    rows = [f"Q{p},x{p}_{k}z,{100 + p},{p % 2}" for p in range(PATIENTS) for k in range(SLIDES)]
    assert "column 'Zuordnung'" in doubt_words(read(tmp_path, "Zuordnung,slide_id,time,event", rows))[0][0]


def test_ids_that_differ_in_writing_only(tmp_path: Path) -> None:
    ids = ["1", "1.0", "001", "P1", "p1", "P-1", '"Q7 "', "P11", "1-1"]
    cohort = read(tmp_path, "slide_id,patient_id", [f"s{n},{name}" for n, name in enumerate(ids)])
    told = [str(note) for note in cohort.notes if "file not found" not in str(note)]
    assert told == [
        "patient_id 'Q7 ': surrounding spaces are ignored",
        "patients '1', '1.0', '001' differ only in spelling and count as 3 patients: use one spelling in all rows",
        "patients 'P1', 'p1', 'P-1' differ only in spelling and count as 3 patients: use one spelling in all rows",
    ]
    assert cohort.patients == len(ids)
