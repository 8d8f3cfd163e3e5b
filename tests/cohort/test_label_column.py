"""Labels from a column that the user names: read, kept in the run, and refused where it is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from wsi_pipeline.cohort.manifest import Cohort, read_cohort, read_run, to_csv
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import ManifestError, UsageError

ROWS = ["a,p1,mutant,high,x", "b,p1,mutant,,x", "c,p2,wild,low,y", "d,p2,wild,low,y"]


def read(folder: Path, header: str, column: str | None) -> Cohort:
    (folder / "slides.csv").write_text("\n".join([header, *ROWS]) + "\n", encoding="utf-8")
    return read_cohort([folder / "slides.csv"], label_column=column)


def again(cohort: Cohort, folder: Path, options: TableOptions | None = None) -> Cohort:
    (folder / "cohort.csv").write_text(to_csv(cohort), encoding="utf-8")
    return read_run(folder / "cohort.csv", options or TableOptions())


@pytest.mark.parametrize(
    ("header", "column", "target", "labels"),
    [
        (
            "slide_id,patient_id,KRAS status,msi,label",
            "KRAS status",
            "KRAS status",
            ["mutant", "mutant", "wild", "wild"],
        ),
        (
            "slide_id,patient_id,KRAS status,msi,label",
            "kras_status",
            "KRAS status",
            ["mutant", "mutant", "wild", "wild"],
        ),
        ("slide_id,patient_id,KRAS,msi,label", "msi", "msi", ["high", None, "low", "low"]),
        ("slide_id,patient_id,KRAS,msi,label", "Label", "", ["x", "x", "y", "y"]),
        ("slide_id,patient_id,KRAS,msi,label", None, "", ["x", "x", "y", "y"]),
        ("slide_id,patient_id,diagnosis,msi,category", "category", "category", ["x", "x", "y", "y"]),
        ("slide_id,patient_id,KRAS,msi,diagnosis", None, "", ["x", "x", "y", "y"]),
    ],
)
def test_the_column_named_is_read_and_kept_in_the_run(
    tmp_path: Path, header: str, column: str | None, target: str, labels: list[str | None]
) -> None:
    cohort = read(tmp_path, header, column)
    kept = again(cohort, tmp_path)
    twice = again(kept, tmp_path, TableOptions(each_slide_a_patient=True))
    for found in (cohort, kept, again(twice, tmp_path)):
        assert (found.target, [record.label for record in found.records]) == (target, labels)


def test_a_run_without_patients_does_not_keep_the_other_labels_as_its_own(tmp_path: Path) -> None:
    cohort = again(read(tmp_path, "slide_id,x,kras,msi,label", "kras"), tmp_path)
    assert [record.label for record in cohort.records] == ["mutant", "mutant", "wild", "wild"]
    assert "label" not in cohort.kept


def test_columns_that_are_not_there_and_columns_left_open_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no column 'egfr'"):
        read(tmp_path, "slide_id,patient_id,kras,msi,label", "egfr")
    with pytest.raises(ManifestError, match="all mean label; keep one, or name it with --label-column"):
        read(tmp_path, "slide_id,patient_id,diagnosis,msi,category", None)
    with pytest.raises(UsageError, match="the slides do not come from a CSV"):
        read_cohort([tmp_path], label_column="kras")
