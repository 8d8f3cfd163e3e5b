"""train-mil --task ordinal from the command line to the report, and predict on the same run."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score

from tests.stages.test_patients_asked import run_of, train
from wsi_pipeline.cli import main


def test_grades_are_trained_reported_and_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "case_id", patients=12)
    table = pd.read_csv(run.cohort_csv)
    grades = ["low", "medium", "high"]
    table["label"] = [grades[n // 2 % 3] for n in range(len(table))]
    table.to_csv(run.cohort_csv, index=False)
    code, said = train(run, capsys, "--task", "ordinal")
    assert code != 0
    assert "does not follow from their names (high, low, medium)" in said
    assert "epochs" not in said, "no progress of a training that was refused"
    code, said = train(run, capsys, "--task", "ordinal", "--grades", "low,medium,high")
    assert code == 0, said
    folder = run.mil("colour", "mean.ordinal")
    found = json.loads((folder / "metrics.json").read_text())
    assert found["classes"] == grades
    rows = pd.read_csv(folder / "predictions.csv")
    truth, called = (rows[column].map(grades.index) for column in ("label", "predicted"))
    kappa = cohen_kappa_score(truth, called, weights="quadratic")
    assert found["pooled"]["quadratic_kappa"]["value"] == pytest.approx(kappa)
    assert "quadratic weighted kappa" in said
    assert said.count("note    no heatmap of") == 6, "five of 24 slides by name, and how many more"
    assert "no heatmap of 19 more slides: the reasons are in" in said
    page = (run.root / "report" / "report.html").read_text()
    assert "quadratic weighted kappa" in page
    assert "mean error in grades" in page
    assert main(["predict", "--run", str(run.root), "--trained", str(folder)]) == 0
    told = pd.read_csv(run.predict("colour", "mean.ordinal") / "predictions.csv")
    assert set(told["predicted"]) <= set(grades)
    assert told[["p_low", "p_medium", "p_high"]].sum(axis=1).to_numpy() == pytest.approx(1, abs=1e-5)
