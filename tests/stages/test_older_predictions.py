"""Folders of predict/ that earlier versions wrote: `compare` opens them, and says what they do not tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.stages.feature_runs import cohort, trained
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import StoreError
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.stages.outputs.predicted_side import read_side, task_of_prediction
from wsi_pipeline.stages.predict import predict_slides


def test_predictions_of_an_earlier_version_are_compared(tmp_path: Path) -> None:
    """Of them model.json has the fingerprint alone, and the table no column of patients that trained."""
    home, run, labels = RunDir(tmp_path / "home"), RunDir(tmp_path / "ext"), ["ab"[i % 2] for i in range(24)]
    training = trained(home, cohort(home, "t", 24, label=labels))
    records = cohort(run, "e", 24, seed=1, label=labels)
    ensemble = load_ensemble(training.folder)
    found = predict_slides(run, records, ensemble, "cpu", trained=training.folder, cohort=records)
    now = read_side(found.folder)
    (found.folder / "model.json").write_text(json.dumps({"fingerprint": "f"}) + "\n")
    table = pd.read_csv(found.path).drop(columns=["patient_in_training", "predicted_at_cut"])
    table.to_csv(found.path, index=False)
    before = read_side(found.folder)
    assert task_of_prediction(found.folder).to_json() == {"name": "classification", "classes": ["a", "b"]}
    assert before.predictions["p_b"].tolist() == now.predictions["p_b"].tolist()
    assert "earlier version" in before.metrics["notes"][0]
    assert now.metrics["notes"] == []


@pytest.mark.parametrize(
    ("columns", "task"),
    [
        ("risk,p_survived_12,p_survived_40.5,spread", {"name": "survival", "loss": "discrete", "edges": [12.0, 40.5]}),
        ("risk,spread", {"name": "survival", "loss": "cox"}),
        ("predicted,spread", {"name": "regression", "mean": 0.0, "sd": 1.0}),
        ("predicted,p_I,p_II,p_III,spread", {"name": "classification", "classes": ["I", "II", "III"]}),
        ("spread", None),
    ],
)
def test_what_columns_of_predictions_say_of_the_task(tmp_path: Path, columns: str, task: Any) -> None:
    (tmp_path / "model.json").write_text("{}")
    (tmp_path / "predictions.csv").write_text(f"slide_id,patient_id,{columns}\ns,p,{columns.count(',') * '1,'}1\n")
    if task is None:
        with pytest.raises(StoreError, match="does not say what was predicted"):
            task_of_prediction(tmp_path)
    else:
        assert task_of_prediction(tmp_path).to_json() == task
