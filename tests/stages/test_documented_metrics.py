"""Every key of metrics.json and model.json, and every column of predictions, is in docs/format.md: of all tasks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import ROOT
from tests.stages.feature_runs import QUICK, cohort, trained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import MilSpec

TEXT = re.search(r"^## Slide-level models\n(.*?)^## ", (ROOT / "docs/format.md").read_text(), re.M | re.S)
BY_NAME = {"pooled", "repeats", "chance", "per_class", "metrics", "left_out", "unknown_labels", "untrained", "columns"}
"""Objects whose keys are names of metrics, classes, slides or columns."""
FREE = {"chosen", "candidates", "specs"}
"""Objects that hold settings, which docs of the options describe."""
N = 12
CLASSES = {"label": ["a", "b"] * (N // 2)}
GRADES = {"label": ["1", "2", "3"] * (N // 3)}
VALUES = {"label": [f"{k % 2 + k / 100:.2f}" for k in range(N)]}
TIMES = {"time": [10.0 + k for k in range(N)], "event": [int(k % 3 > 0) for k in range(N)]}


def keys(value: Any, place: str = "") -> Iterator[str]:
    """The keys of a document at any depth, but those that are data."""
    if isinstance(value, dict):
        for name, item in value.items():
            if place not in BY_NAME:
                yield name
            if name not in FREE:
                yield from keys(item, "" if place in BY_NAME else name)
    elif isinstance(value, list):
        for item in value:
            yield from keys(item, place)


def undocumented(folder: Path) -> list[str]:
    """Keys and columns of the files of a training or a prediction that the page does not name."""
    assert TEXT is not None
    found = {key for name in ("metrics.json", "model.json") if (folder / name).is_file()
             for key in keys(json.loads((folder / name).read_text()))}  # fmt: skip
    for path in folder.glob("*.csv"):
        found |= {name for name in pd.read_csv(path) if not name.startswith("p_")}
    return sorted(name for name in found if f"`{name}`" not in TEXT[1])


@pytest.mark.parametrize(
    ("columns", "spec"),
    [
        (CLASSES, replace(QUICK, choose="mean hidden_dim=4,8", epochs=3)),
        (CLASSES, replace(QUICK, committee=2, repeats=2, epochs=3)),
        (GRADES, replace(QUICK, task="ordinal", epochs=3)),
        (VALUES, replace(QUICK, task="regression", epochs=3)),
        (TIMES, replace(QUICK, task="survival", epochs=3)),
        (CLASSES, replace(QUICK, bag="patient", epochs=3)),
    ],
    ids=["choose", "committee", "ordinal", "regression", "survival", "patients"],
)
def test_a_training(tmp_path: Path, columns: dict[str, Any], spec: MilSpec) -> None:
    run = RunDir(tmp_path / "run")
    made = trained(run, cohort(run, "p", N, slides=(1, 2), **columns), spec)
    assert undocumented(made.folder) == []


def test_targets_of_a_clinical_table_and_a_prediction_of_another_cohort(tmp_path: Path) -> None:
    run, other = RunDir(tmp_path / "run"), RunDir(tmp_path / "other")
    cohort(run, "p", N)
    cohort(other, "q", N, slides=(1, 2), label=[*"ab" * (N // 2 - 1), "a", "new"])
    table = pd.DataFrame(
        {"PATIENT": [f"p{k}" for k in range(N)], "KRAS": list("ab" * (N // 2)), "MSI": list("xxyy" * 3)}
    )
    table.to_csv(tmp_path / "clini.csv", index=False)
    words = ["train-mil", "--run", str(run.root), "--clinical", str(tmp_path / "clini.csv"), "--target", "KRAS"]
    quick = ["--model", "mean", "--epochs", "3", "--folds", "2", "--permutations", "20", "--bootstrap", "100"]
    assert main([*words, "--target", "MSI", *quick]) == 0
    folder = run.mil("colour", "mean.KRAS")
    assert {"clinical", "division", "digest_any_folds"} <= set(json.loads((folder / "metrics.json").read_text()))
    assert undocumented(folder) == []
    made = tmp_path / "run2"
    first = trained(RunDir(made), cohort(RunDir(made), "p", N, **CLASSES), replace(QUICK, epochs=3))
    assert main(["predict", "--run", str(other.root), "--trained", str(first.folder)]) == 0
    (predicted,) = (other.root / "predict/colour").iterdir()
    metrics = json.loads((predicted / "metrics.json").read_text())
    assert {"external", "by_patient", "unknown_labels", "trained_model"} <= set(metrics)
    assert undocumented(predicted) == []
