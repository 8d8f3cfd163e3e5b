"""A clinical table beside the run: targets trained from it, side by side, without tiling or embedding again."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from openpyxl import Workbook

from tests.stages.feature_runs import slide
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.commands.run import _steps
from wsi_pipeline.config.execution import ClinicalOptions
from wsi_pipeline.config.fields import from_mapping
from wsi_pipeline.errors import UsageError

PATIENTS = 16
QUICK = ["--model", "mean", "--epochs", "3", "--folds", "2", "--permutations", "20", "--bootstrap", "100"]


def clinical_rows() -> list[list[object]]:
    """KRAS follows the signal; MSI is rare and not known of all; ONE has a single class; OS is survival."""
    rows: list[list[object]] = [["PATIENT", "KRAS", "MSI", "ONE", "TMB", "OS.time", "OS"]]
    for i in range(PATIENTS):
        msi = "Not Reported" if i % 8 == 7 else ("high" if i % 4 == 1 else "low")
        rows.append([f"P{i:02d}", "mut" if i % 2 else "wt", msi, "same", 0.5 * i, 10 + i, i % 3 > 0])
    return rows


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """Features of 16 patients, every fourth with two slides, whose table has no label at all."""
    found = RunDir(tmp_path_factory.mktemp("clinical") / "wsi-run")
    lines = ["slide_id,path,patient_id"]
    for i in range(PATIENTS):
        for k in range(1 + (i % 4 == 0)):
            slide(found, f"s{i:02d}{k}", 1.5 * (i % 2), 10 * i + k)
            lines.append(f"s{i:02d}{k},s{i:02d}{k}.svs,P{i:02d}")
    found.cohort_csv.write_text("\n".join(lines) + "\n")
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in clinical_rows():
        sheet.append(row)
    book.save(found.root.parent / "clini.xlsx")
    pd.DataFrame(clinical_rows()[1:], columns=clinical_rows()[0]).to_csv(found.root.parent / "clini.csv", index=False)
    return found


def command(run: RunDir, *words: str, table: str = "clini.xlsx") -> list[str]:
    return ["train-mil", "--run", str(run.root), *QUICK, "--clinical", str(run.root.parent / table), *words]


def metrics(run: RunDir, training: str) -> dict[str, object]:
    return dict(json.loads((run.mil("colour", training) / "metrics.json").read_text()))


def test_targets_side_by_side_and_the_one_that_cannot_be_trained_is_said(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    words = command(run, "--target", "KRAS", "--target", "MSI", "--target", "ONE", "--target", "survival:OS")
    assert main(words) == 3
    said = capsys.readouterr().out
    assert "clini.xlsx: all 16 patients found by 'PATIENT'" in said
    assert "MSI: label 'Not Reported' of 2 slides is treated as missing" in said
    assert "colour: KRAS, MSI, survival OS share the same patient folds" in said
    assert "1 target not trained:\n  colour, ONE: every slide has the label same" in said
    kras, msi, survival = (metrics(run, f"mean.{name}") for name in ("KRAS", "MSI", "survival.os"))
    assert kras["label_column"] == "KRAS"
    assert (kras["n_patients"], msi["n_patients"]) == (16, 14)
    assert kras["clinical"] == {
        "file": "clini.xlsx", "joined": "all 16 patients found by 'PATIENT'", "columns": {"label": "KRAS"}
    }  # fmt: skip
    assert (survival["task"], survival["endpoint"]) == ("survival", "os")
    folds = {}
    for name in ("KRAS", "MSI", "survival.os"):
        table = pd.read_csv(run.mil("colour", f"mean.{name}") / "folds.csv")
        tested = table[table["part"] == "test"]
        folds[name] = dict(zip(tested["patient_id"], tested["fold"], strict=True))
    assert folds["KRAS"] == folds["survival.os"]
    assert folds["MSI"] == {patient: fold for patient, fold in folds["KRAS"].items() if patient in folds["MSI"]}
    p_values = {row["target"]: row for _, row in pd.read_csv(run.root / "report" / "targets.csv").iterrows()}
    assert set(p_values) == {"KRAS", "MSI", "survival OS"}
    raw = sorted(row["p_value"] for row in p_values.values())
    stepped = [3 * raw[0], 2 * raw[1], raw[2]]
    expected = [min(1.0, max(stepped[: k + 1])) for k in range(3)]
    assert sorted(row["p_holm"] for row in p_values.values()) == pytest.approx(expected)
    for name, one in (("KRAS", kras), ("MSI", msi)):
        assert p_values[name]["value"] == pytest.approx(one["pooled"]["auroc"]["value"])  # type: ignore[index]
        assert p_values[name]["p_value"] == one["permutation"]["p_value"]  # type: ignore[index]
    report = (run.root / "report" / "report.html").read_text()
    assert "Targets side by side" in report
    assert "corrected for the 3 tests" in report
    assert "corrected for the 3 tests" in said


def test_the_labels_are_those_of_the_table_row_by_row(run: RunDir) -> None:
    truth = {row[0]: row[1] for row in clinical_rows()[1:]}
    assert main(command(run, "--target", "KRAS", "--name", "again", table="clini.csv")) == 0
    found = pd.read_csv(run.mil("colour", "again") / "predictions.csv")
    assert len(found) == 20
    assert all(truth[patient] == label for patient, label in zip(found["patient_id"], found["label"], strict=True))
    assert metrics(run, "again")["pooled"]["auroc"]["value"] > 0.8, "the signal is there"  # type: ignore[index]
    assert not run.cohort_csv.read_text().count("mut"), "the run's own table stays as it is"


def test_alone_and_again_a_target_is_up_to_date(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run, "--target", "KRAS", "--target", "MSI", "--name", "two")) == 0
    before = (run.mil("colour", "two.KRAS") / "metrics.json").read_bytes()
    capsys.readouterr()
    assert main(command(run, "--target", "KRAS", "--name", "two.KRAS")) == 0
    assert "up to date" in capsys.readouterr().out
    assert (run.mil("colour", "two.KRAS") / "metrics.json").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["--target", "EGFR"], 2, "has no column 'EGFR'"),
        (["--target", "KRAS", "--target", "KRAS"], 2, "--target names KRAS twice"),
        ([], 2, "has no column `label`"),
        (["--target", "ONE"], 2, "every slide has the label same"),
        (["--target", "ONE", "--target", "ONE", "--target", "MSI"], 2, "names ONE twice"),
        (["--target", "KRAS", "--keep-label", "perhaps"], 2, "'perhaps', which no slide has as its label"),
        (["--target", "KRAS", "--patient-column", "nobody"], 2, "nobody"),
        (["--target", "KRAS", "--positive", "x", "--target", "MSI"], 2, "none of the targets has this class"),
    ],
)
def test_refusals(run: RunDir, words: list[str], code: int, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run, *words)) == code
    said = capsys.readouterr()
    assert told in said.out + said.err


def test_without_a_clinical_table_a_target_must_be_what_the_run_has(
    run: RunDir, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train-mil", "--run", str(run.root), *QUICK, "--target", "KRAS"]) == 2
    said = capsys.readouterr().err
    assert "--target KRAS: this run keeps the column label" in said
    assert "--clinical FILE" in said


def test_a_regression_and_a_positive_class_of_one_target(run: RunDir) -> None:
    words = ["--target", "regression:TMB", "--target", "KRAS", "--positive", "wt", "--name", "q"]
    assert main(command(run, *words)) == 0
    assert metrics(run, "q.TMB")["task"] == "regression"
    assert metrics(run, "q.KRAS")["classes"] == ["mut", "wt"]


def test_predict_and_status_know_the_target_of_the_model(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(run, "--target", "KRAS", "--name", "again", table="clini.csv")) == 0
    folder = run.mil("colour", "again")
    words = ["predict", "--run", str(run.root), "--trained", str(folder)]
    assert main([*words, "--clinical", str(run.root.parent / "clini.csv")]) == 0
    assert "all 16 patients found by 'PATIENT'" in capsys.readouterr().out
    found = pd.read_csv(run.predict("colour", "again") / "predictions.csv")
    truth = {row[0]: row[1] for row in clinical_rows()[1:]}
    assert all(truth[patient] == label for patient, label in zip(found["patient_id"], found["label"], strict=True))
    assert main([*words, "--clinical", str(run.root.parent / "clini.csv"), "--target", "EGFR"]) == 2
    assert "has no column 'EGFR'" in capsys.readouterr().err
    main(["status", "--run", str(run.root)])
    assert "again/  predicts KRAS" in capsys.readouterr().out


def test_a_plan_takes_the_table_and_the_targets(tmp_path: Path) -> None:
    (tmp_path / "clini.csv").write_text("PATIENT,KRAS\n")
    plan = {"train-mil": {"clinical": "clini.csv", "target": ["KRAS", "MSI"]}}
    step = next(s for s in _steps({"slides": "x", **plan}, tmp_path / "plan.yaml") if s[0].name == "train-mil")
    given = next(item for item in step[1][0] if isinstance(item, ClinicalOptions))
    assert given == ClinicalOptions(str(tmp_path / "clini.csv"), ("KRAS", "MSI"))
    assert from_mapping(ClinicalOptions, {"target": "KRAS"}, "x").target == ("KRAS",)
    with pytest.raises(UsageError, match="names KRAS twice"):
        ClinicalOptions(target=("KRAS", "KRAS"))
