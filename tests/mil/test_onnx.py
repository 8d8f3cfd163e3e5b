"""ONNX Runtime gives what `predict` gives: every model, every task, bags of one and of many patches."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.deployed import onnx_export
from wsi_pipeline.mil.deployed.onnx_export import ABOUT, ONNX, expected, export_onnx, onnx_model
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.tasks import Task, task_from_json
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.committee import build

DIM = 6
TASKS = {
    "two classes": {"name": "classification", "classes": ["no", "yes"]},
    "four classes": {"name": "classification", "classes": ["a", "b", "c", "d"]},
    "grades": {"name": "ordinal", "classes": ["1", "2", "3", "4"]},
    "regression": {"name": "regression", "mean": 40.0, "sd": 12.5},
    "survival by intervals": {"name": "survival", "loss": "discrete", "edges": [6.0, 12.0, 36.0]},
    "Cox": {"name": "survival", "loss": "cox"},
}
SIZES = (1, 2, 5, 9, 10, 40)
"""TransMIL has 8 landmarks here: fewer and more tokens, whole and broken squares."""


def ensemble_of(model: str, task: Task, folds: int = 2, committee: int = 1, seed: int = 0) -> Ensemble:
    """Models with random weights, attention and standardisation."""
    torch.manual_seed(seed)
    spec = MilSpec(model=model, hidden_dim=16, attention_dim=8, committee=committee)
    models = [build(spec, DIM, task.n_outputs) for _ in range(folds)]
    for fold in models:
        for one in getattr(fold, "members", [fold]):
            for parameter in one.parameters():
                parameter.data += 0.3 * torch.randn_like(parameter)
            one.set_standardisation(torch.randn(DIM), torch.rand(DIM) + 0.5)
        fold.eval()
    tasks = [task] * folds
    if task.name == "regression":
        tasks = [dataclasses.replace(task, mean=40.0 + number) for number in range(folds)]  # type: ignore[type-var]
    provenance = {"specs": {"tile": {"mpp": 0.5}, "segment": {}}}
    return Ensemble(
        tuple(models), spec, task, DIM, {"name": "colour", "dim": DIM}, provenance, "f" * 64, (spec,) * folds,
        tuple(tasks),
    )  # fmt: skip


def compare(ensemble: Ensemble, sizes: tuple[int, ...] = SIZES) -> None:
    data, shapes = onnx_model(ensemble)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == list(shapes)
    rng = np.random.default_rng(1)
    for n in sizes:
        features = rng.normal(size=(n, DIM)).astype(np.float32)
        given = dict(zip(names, session.run(None, {"features": features}), strict=True))
        wanted = expected(ensemble, features)
        assert set(given) == set(wanted)
        for name, value in wanted.items():
            assert given[name].shape == value.shape
            np.testing.assert_allclose(given[name], value, rtol=2e-4, atol=2e-5, err_msg=f"{name}, {n} patches")
        assert given["attention"].sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("model", [name for name in MIL_MODELS.names() if name != "norm"])
@pytest.mark.parametrize("task", ["two classes", "Cox"])
def test_every_model(model: str, task: str) -> None:
    compare(ensemble_of(model, task_from_json(TASKS[task])))


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task: str) -> None:
    compare(ensemble_of("gated-abmil", task_from_json(TASKS[task]), folds=3))


def test_a_committee() -> None:
    compare(ensemble_of("abmil", task_from_json(TASKS["four classes"]), committee=3))


def test_sides_of_large_squares_are_exact() -> None:
    ensemble = ensemble_of("transmil", task_from_json(TASKS["two classes"]), folds=1)
    compare(ensemble, (1023, 1024, 1025))


def test_files(tmp_path: Path) -> None:
    ensemble = ensemble_of("dsmil", task_from_json(TASKS["two classes"]))
    found = export_onnx(ensemble, tmp_path)
    assert found.difference is not None
    assert found.difference < 1e-4
    about = json.loads((tmp_path / ABOUT).read_text())
    assert about["sha256"] == hashlib.sha256((tmp_path / ONNX).read_bytes()).hexdigest()
    assert about["classes"] == ["no", "yes"]
    assert about["encoder"] == {"name": "colour", "dim": DIM}
    assert about["patches"] == {"mpp": 0.5}
    assert about["inputs"]["features"]["shape"] == ["patches", DIM]
    session = onnxruntime.InferenceSession(tmp_path / ONNX, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["task"]) == about["task"]
    again = (tmp_path / ONNX).read_bytes()
    export_onnx(ensemble, tmp_path)
    assert (tmp_path / ONNX).read_bytes() == again


def test_other_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_from_json(TASKS["two classes"])
    data, _ = onnx_model(ensemble_of("mean", task, seed=1))
    with pytest.raises(MilError, match="differ from the trained model's by"):
        onnx_export.largest_difference(ensemble_of("mean", task), data)


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs the package onnx") as caught:
        export_onnx(ensemble_of("mean", task_from_json(TASKS["Cox"])), tmp_path)
    assert "wsi-pipeline[onnx]" in str(caught.value.todo)
