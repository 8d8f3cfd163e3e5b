"""A trained ensemble as one ONNX file: features of a bag in, predictions of all folds together and attention out.

    model.onnx   input  features       float32 (n, D), as the encoder gives them: standardisation is in the graph
                 output attention      float32 (n,), sums to 1
                        spread         float32 (1,), standard deviation between the folds, as in predictions.csv
                        probabilities  float32 (C,)                classification, grades
                        predicted      float32 (1,)                regression, in the unit of the label
                        risk           float32 (1,)                survival
                        survival       float32 (K,)                discrete survival: probability to survive each edge
    model.json   classes or edges, identity of encoder and patches, names and shapes, digests

n is at least 1. The file holds all fold models; its outputs are the values that `predict` writes.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.tasks import Task
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.tasks.ordinal import OrdinalTask
from wsi_pipeline.mil.tasks.regression import RegressionTask
from wsi_pipeline.mil.tasks.survival import DiscreteTask
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.inference import mean_attention, predict, reference_output
from wsi_pipeline.system.atomic import write_bytes, write_text
from wsi_pipeline.version import __version__

if TYPE_CHECKING:
    from wsi_pipeline.mil.deployed.onnx_graph import OnnxGraph

ONNX, ABOUT = "model.onnx", "model.json"
FORMAT = "wsi-pipeline-onnx 1"
TOLERANCE = 1e-3
"""Largest accepted difference from `predict`, relative to the larger of 1 and the value."""
_CHECKED = (1, 7, 300)
"""Sizes of the random bags that are compared."""


@dataclass(frozen=True)
class OnnxFiles:
    """The files written; `difference`: the largest between ONNX Runtime and `predict`, None if not compared."""

    folder: Path
    difference: float | None
    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def export_onnx(ensemble: Ensemble, folder: Path) -> OnnxFiles:
    """Write model.onnx and model.json into `folder`; compare with ONNX Runtime if it is installed.

    Raises UsageError without the package `onnx`, MilError for a model that has no ONNX form or whose ONNX outputs
    differ.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UsageError(
            "exporting to ONNX needs the package onnx", todo="Install it with: pip install 'wsi-pipeline[onnx]'"
        )
    data, outputs = onnx_model(ensemble)
    difference = largest_difference(ensemble, data) if importlib.util.find_spec("onnxruntime") else None
    about = describe(ensemble, data, outputs)
    write_bytes(folder / ONNX, data)
    write_text(folder / ABOUT, json.dumps(about, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return OnnxFiles(folder, difference, about["inputs"], about["outputs"])


def onnx_model(ensemble: Ensemble) -> tuple[bytes, dict[str, list[int | str]]]:
    """The file, and the outputs with their shapes."""
    from wsi_pipeline.mil.deployed.onnx_graph import OnnxGraph
    from wsi_pipeline.mil.deployed.onnx_networks import add_model, mean_of

    graph = OnnxGraph()
    both = [add_model(graph, "features", model) for model in ensemble.models]
    attention = mean_of(graph, [weights for _, weights in both])
    folds = [
        _outcomes(graph, _flat_logits(graph, ensemble, number, logits), ensemble.tasks[number])
        for number, (logits, _) in enumerate(both)
    ]
    shapes = _shapes(ensemble.task)
    outputs: dict[str, tuple[str, list[int | str]]] = {
        name: (mean_of(graph, [fold[name] for fold in folds]), shape) for name, shape in shapes.items()
    }
    main = next(iter(shapes))
    outputs["spread"] = (_spread(graph, [fold[main] for fold in folds], outputs[main][0], ensemble.task), [1])
    outputs["attention"] = (attention, ["patches"])
    notes = {"format": FORMAT, "task": json.dumps(ensemble.task.to_json()), "fingerprint": ensemble.fingerprint}
    model = graph.model(ensemble.feature_dim, outputs, notes)
    return model.SerializeToString(deterministic=True), {name: shape for name, (_, shape) in outputs.items()}


def _flat_logits(graph: OnnxGraph, ensemble: Ensemble, number: int, logits: str) -> str:
    """Outputs (C,) of one fold; for a relative risk, minus the output for a bag of one average patch."""
    flat = graph.op("Reshape", logits, graph.constant([-1]))
    if not ensemble.tasks[number].relative:
        return flat
    reference = reference_output(ensemble.models[number], "cpu")[0]
    return graph.op("Sub", flat, graph.constant(reference.astype(np.float32)))


def _shapes(task: Task) -> dict[str, list[int | str]]:
    """The outputs of a task with their shapes; `spread` refers to the first."""
    if isinstance(task, ClassificationTask | OrdinalTask):
        return {"probabilities": [len(task.classes)]}
    if isinstance(task, RegressionTask):
        return {"predicted": [1]}
    if isinstance(task, DiscreteTask):
        return {"risk": [1], "survival": [task.n_outputs]}
    if task.name == "survival":
        return {"risk": [1]}
    raise MilError(f"models of the task {task.name} have no ONNX form")


def _outcomes(graph: OnnxGraph, logits: str, task: Task) -> dict[str, str]:
    """`task.outcomes` for one bag: logits (C,) -> outputs by name."""
    if isinstance(task, ClassificationTask):
        return {"probabilities": graph.op("Softmax", logits, axis=0)}
    if isinstance(task, OrdinalTask):
        return {"probabilities": _grades(graph, logits)}
    if isinstance(task, RegressionTask):
        scaled = graph.op("Mul", logits, graph.constant(task.sd))
        return {"predicted": graph.op("Add", scaled, graph.constant(task.mean))}
    if isinstance(task, DiscreteTask):
        # log survival is the cumulative sum of log(1 - hazard) = -softplus(logit)
        hazards = graph.op("CumSum", graph.op("Softplus", logits), graph.constant(0))
        survival = graph.op("Exp", graph.op("Neg", hazards))
        before = graph.op("Concat", graph.constant([1.0]), graph.rows(survival, 0, -1), axis=0)
        widths = np.diff(task.edges, prepend=0.0) / 2
        lived = graph.op("Mul", graph.op("Add", before, survival), graph.constant(widths))
        total = graph.op("ReduceSum", lived, graph.constant([0]), keepdims=1)
        return {"risk": graph.op("Sub", graph.constant(task.edges[-1]), total), "survival": survival}
    return {"risk": logits}


def _grades(graph: OnnxGraph, logits: str) -> str:
    """`ordinal.grade_probabilities` of one bag: outputs (K - 1,) -> probabilities (K,)."""
    first, rest = graph.rows(logits, 0, 1), graph.rows(logits, 1, 2**62)
    falling = graph.op("Sub", first, graph.op("CumSum", graph.op("Softplus", rest), graph.constant(0)))
    above = graph.op("Sigmoid", graph.op("Concat", first, falling, axis=0))
    upper = graph.op("Concat", graph.constant([1.0]), above, axis=0)
    return graph.op("Sub", upper, graph.op("Concat", above, graph.constant([0.0]), axis=0))


def _chosen(graph: OnnxGraph, mean: str, task: Task) -> str:
    """Position (1,) of the value that `spread` refers to: the predicted class; for grades, the median."""
    if not isinstance(task, OrdinalTask):
        return graph.op("ArgMax", mean, axis=0, keepdims=1)
    half = graph.op("CumSum", mean, graph.constant(0))
    reached = graph.op("GreaterOrEqual", half, graph.constant(0.5 - 1e-6))
    return graph.op("ArgMax", graph.number(reached), axis=0, keepdims=1)


def _spread(graph: OnnxGraph, folds: list[str], mean: str, task: Task) -> str:
    """Standard deviation of the predicted value across folds."""
    axes = graph.constant([0])
    each = graph.op("Concat", *(graph.op("Unsqueeze", fold, axes) for fold in folds), axis=0)
    apart = graph.op("Sub", each, mean)
    deviation = graph.op("Sqrt", graph.op("ReduceMean", graph.op("Mul", apart, apart), axes=[0], keepdims=0))
    return graph.op("Gather", deviation, _chosen(graph, mean, task), axis=0)


def describe(ensemble: Ensemble, data: bytes, outputs: Mapping[str, list[int | str]]) -> dict[str, Any]:
    """model.json: everything needed to use the ONNX file on its own."""
    specs = dict(ensemble.provenance.get("specs", {}))
    return {
        "format": FORMAT,
        "writer": f"wsi-pipeline {__version__}",
        "task": ensemble.task.to_json(),
        "classes": list(ensemble.classes) or None,
        "bag": ensemble.spec.bag,
        "model": ensemble.spec.model,
        "folds": len(ensemble.models),
        "inputs": {"features": {"dtype": "float32", "shape": ["patches", ensemble.feature_dim]}},
        "outputs": {name: {"dtype": "float32", "shape": shape} for name, shape in outputs.items()},
        "standardisation": "in the graph: give features as the encoder computes them",
        "encoder": dict(ensemble.encoder),
        "patches": specs.get("tile"),
        "tissue": specs.get("segment"),
        "trained_model": ensemble.fingerprint,
        "sha256": hashlib.sha256(data).hexdigest(),
        "use": "research only, not a medical device",
    }


def largest_difference(ensemble: Ensemble, data: bytes) -> float:
    """Largest relative difference between ONNX Runtime and `predict`, on random bags.

    Raises MilError if it exceeds `TOLERANCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    rng, mean = np.random.default_rng(0), ensemble.models[0].feature_mean.numpy()
    std, worst = ensemble.models[0].feature_std.numpy(), 0.0
    for n in _CHECKED:
        features = (mean + std * rng.normal(size=(n, ensemble.feature_dim))).astype(np.float32)
        theirs = dict(
            zip([o.name for o in session.get_outputs()], session.run(None, {"features": features}), strict=True)
        )
        for name, value in expected(ensemble, features).items():
            apart = np.abs(theirs[name] - value) / np.maximum(1, np.abs(value))
            worst = max(worst, float(apart.max()))
    if not worst <= TOLERANCE:
        raise MilError(f"outputs of the ONNX model differ from the trained model's by up to {worst:.2g}")
    return worst


def expected(ensemble: Ensemble, features: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """Expected outputs of the ONNX model for a bag (n, D), by name, from `predict` and `mean_attention`."""
    bags = Bags.from_arrays([features], ["bag"])
    row, task = predict(ensemble, bags).iloc[0], ensemble.task
    found: dict[str, NDArray[np.float64]] = {
        "attention": mean_attention(ensemble, bags).astype(np.float64),
        "spread": np.array([row["spread"]], np.float64),
    }
    if isinstance(task, ClassificationTask | OrdinalTask):
        found["probabilities"] = np.array([row[f"p_{name}"] for name in task.classes], np.float64)
    elif isinstance(task, RegressionTask):
        found["predicted"] = np.array([row["predicted"]], np.float64)
    else:
        found["risk"] = np.array([row["risk"]], np.float64)
    if isinstance(task, DiscreteTask):
        found["survival"] = np.array([row[name] for name in task.survived], np.float64)
    return found
