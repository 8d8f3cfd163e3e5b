"""A clinical table with one row per slide: it also says whose slides they are, so that patients stay whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.cohort.clinical.clinical_table import read_clinical
from wsi_pipeline.cohort.clinical.join import Joined, join
from wsi_pipeline.cohort.clinical.slide_patients import with_patients
from wsi_pipeline.cohort.records import Cohort, SlideRecord
from wsi_pipeline.errors import ManifestError, UsageError

ROWS = "s0.svs,P1,mut\ns1.svs,P1,mut\ns2.svs,P2,wt\ns3.svs,,wt\n"


def unknown(count: int = 4, **stated: str) -> Cohort:
    """Slides s0, s1, ...; those in `stated` have that patient, the others have none."""
    names = [f"s{k}" for k in range(count)]
    records = tuple(SlideRecord(name, Path(f"{name}.svs"), stated.get(name, name)) for name in names)
    return Cohort(records, "run", without_patient=frozenset(names) - set(stated))


def joined(folder: Path, text: str, cohort: Cohort, column: str | None = None) -> Joined:
    (folder / "clini.csv").write_text(text, encoding="utf-8")
    return join(read_clinical(str(folder / "clini.csv")), cohort.records, column)


@pytest.mark.parametrize("column", [None, "Fall"])
def test_slides_have_the_patient_of_their_row(tmp_path: Path, column: str | None) -> None:
    text = f"FILENAME,{column or 'PATIENT'},KRAS\n{ROWS}"
    cohort = unknown()
    found, what = with_patients(cohort, joined(tmp_path, text, cohort, column), column)
    assert [record.patient_id for record in found.records] == ["P1", "P1", "P2", "s3"]
    assert (found.without_patient, found.patients_stated) == (frozenset({"s3"}), "some")
    assert what == f"2 patients of 3 slides, by {column or 'PATIENT'!r}"


def test_once_known_each_slide_still_has_its_own_row(tmp_path: Path) -> None:
    """Rows are slides: two labels of one patient are those of two slides, also if the column of patients is named."""
    text = "FILENAME,Fall,KRAS\ns0.svs,P1,mut\ns1.svs,P1,wt\ns2.svs,P2,wt\n"
    known = unknown(3, s0="P1", s1="P1", s2="P2")
    assert joined(tmp_path, text, known, "Fall").rows == ((0,), (1,), (2,))
    more = unknown(4, s0="P1", s1="P1", s2="P2", s3="P2")
    assert joined(tmp_path, text, more, "Fall").unit == "patient", "s3 has no row, its patient has"


def test_patients_that_the_run_knows_are_kept(tmp_path: Path) -> None:
    text = f"FILENAME,PATIENT,KRAS\n{ROWS}"
    cohort = unknown(4, s0="P1", s1="P1", s2="p-2", s3="P3")
    assert with_patients(cohort, joined(tmp_path, text, cohort)) == (cohort, "")
    some = unknown(4, s0="p 1")
    found, _ = with_patients(some, joined(tmp_path, text, some))
    assert [record.patient_id for record in found.records] == ["p 1", "P1", "P2", "s3"]


def test_a_table_that_contradicts_the_run_or_itself_is_refused(tmp_path: Path) -> None:
    cohort = unknown(4, s0="X9")
    with pytest.raises(ManifestError, match="slide s0 is of patient 'X9' in the run, of 'P1' in"):
        with_patients(cohort, joined(tmp_path, f"FILENAME,PATIENT,KRAS\n{ROWS}", cohort))
    cohort = unknown()
    with pytest.raises(ManifestError, match="row 6: slide s0 has two patients: 'P1', 'P2'"):
        with_patients(cohort, joined(tmp_path, f"FILENAME,PATIENT,KRAS\n{ROWS}s0.svs,P2,mut\n", cohort))
    text = "FILENAME,case_id,PATIENT,KRAS\ns0.svs,a,P1,x\ns1.svs,b,P1,x\ns2.svs,b,P2,x\n"
    cohort = unknown(3)
    with pytest.raises(UsageError, match="has several columns of patients: 'case_id', 'PATIENT'"):
        with_patients(cohort, joined(tmp_path, text, cohort))


def test_other_columns_are_candidates(tmp_path: Path) -> None:
    cohort = unknown(3)
    text = "FILENAME,Fallnummer,KRAS\ns2.svs,7,wt\ns0.svs,4,mut\n"
    found, what = with_patients(cohort, joined(tmp_path, text, cohort))
    assert (what, found.records) == ("", cohort.records)
    assert found.kept == {"Fallnummer": ("4", "", "7"), "KRAS": ("mut", "", "wt")}
