"""The linear model, against scikit-learn and against the penalised likelihoods written out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.preprocessing import StandardScaler

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.tasks.make_task import make_task
from wsi_pipeline.mil.trained.inference import contributions, outputs
from wsi_pipeline.mil.training.fit import fit, fit_folds
from wsi_pipeline.mil.training.linear_path import PENALTIES, bag_means
from wsi_pipeline.mil.training.training_run import FoldRows
from wsi_pipeline.mil.validation.crossval import cross_validate_bags

SPEC = MilSpec(model="linear", class_weights=False, folds=3, bootstrap=100, permutations=0)
NONE = np.zeros(0, np.int64)


def embeddings(n: int = 60, dim: int = 5, classes: int = 3, seed: int = 0) -> tuple[Bags, pd.DataFrame]:
    """One row per slide, of unequal scale; labels, a number and survival follow from it with noise."""
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(n, dim)) * np.geomspace(0.1, 100, dim) + 7).astype(np.float32)
    z = StandardScaler().fit_transform(x.astype(np.float64))
    score = z[:, 0] - z[:, 1] + rng.normal(size=n)
    table = pd.DataFrame(
        {
            "slide_id": [f"s{k}" for k in range(n)],
            "patient_id": [f"p{k}" for k in range(n)],
            "label": ["abcd"[code] for code in np.digitize(score, np.quantile(score, np.arange(1, classes) / classes))],
            "number": 3 + 10 * score,
            "time": rng.exponential(np.exp(-score)) * 100 + 1,
            "event": rng.integers(0, 2, n) | (np.arange(n) < 5),
        }
    )
    return Bags(x, np.arange(n + 1, dtype=np.int64), tuple(table["slide_id"])), table


def fitted(bags: Bags, table: pd.DataFrame, spec: MilSpec) -> Any:
    """Fitted to all rows, without validation: the penalty is 1 / n."""
    task = make_task(table, spec)
    return task, fit(bags, task.objective(table, spec), np.arange(len(table)), NONE, spec, seed=0).model


@pytest.mark.parametrize(("classes", "c"), [(3, 1.0), (2, 2.0)])  # two softmax weights of one logistic: half each
@pytest.mark.parametrize("balanced", [False, True])
def test_classes_as_logistic_regression(classes: int, c: float, balanced: bool) -> None:
    bags, table = embeddings(classes=classes)
    if balanced:
        table.loc[table.index[table["label"] == "a"][6:], "label"] = "b"
    _, model = fitted(bags, table, replace(SPEC, class_weights=balanced))
    x = StandardScaler().fit_transform(np.asarray(bags.features, np.float64))
    weights = "balanced" if balanced else None
    peer = LogisticRegression(C=c, tol=1e-10, max_iter=10_000, class_weight=weights).fit(x, table["label"])
    found = torch.softmax(torch.from_numpy(outputs(model, bags)), 1).numpy()
    np.testing.assert_allclose(found, peer.predict_proba(x), atol=2e-4)


def test_numbers_as_ridge_regression() -> None:
    bags, table = embeddings()
    table = table.assign(label=table["number"])
    task, model = fitted(bags, table, replace(SPEC, task="regression"))
    x = StandardScaler().fit_transform(np.asarray(bags.features, np.float64))
    y = (table["number"] - table["number"].mean()) / table["number"].std(ddof=0)
    peer = Ridge(alpha=1.0, tol=1e-12).fit(x, y).predict(x) * table["number"].std(ddof=0) + table["number"].mean()
    np.testing.assert_allclose(task.outcomes(outputs(model, bags))["predicted"], peer, rtol=1e-4, atol=1e-3)


def test_survival_as_penalised_cox() -> None:
    bags, table = embeddings()
    _, model = fitted(bags, table, replace(SPEC, task="survival", survival_loss="cox"))
    x = StandardScaler().fit_transform(np.asarray(bags.features, np.float64))
    time, event = table["time"].to_numpy(), table["event"].to_numpy(bool)

    def penalised(w: Any) -> float:
        risk = x @ w
        lost = [np.log(np.exp(risk[time >= time[i]]).sum()) - risk[i] for i in np.flatnonzero(event)]
        return float(np.sum(lost) + w @ w / 2)

    w = minimize(penalised, np.zeros(x.shape[1]), tol=1e-12).x
    found = outputs(model, bags)[:, 0]
    np.testing.assert_allclose(found - found.mean(), x @ w - (x @ w).mean(), atol=2e-3)


def test_patches_go_in_by_their_mean() -> None:
    rng = np.random.default_rng(1)
    bags, table = embeddings()
    noise = rng.normal(size=(60, 4, 5)) * np.geomspace(0.1, 100, 5)
    many = np.asarray(bags.features)[:, None] + noise - noise.mean(1, keepdims=True)
    patches = Bags(many.reshape(-1, 5).astype(np.float32), np.arange(61, dtype=np.int64) * 4, bags.slide_ids)
    np.testing.assert_allclose(bag_means(patches, np.arange(60)).numpy(), np.asarray(bags.features), rtol=1e-4)
    one, other = fitted(bags, table, SPEC)[1], fitted(patches, table, SPEC)[1]
    np.testing.assert_allclose(outputs(one, bags), outputs(other, patches), atol=1e-3)
    parts = contributions(other, patches).reshape(60, 4, -1).sum(1)
    np.testing.assert_allclose(
        parts + other.network.head.bias.detach().numpy(), outputs(other, patches), rtol=1e-3, atol=1e-4
    )


def test_validation_chooses_the_penalty() -> None:
    bags, table = embeddings(n=80, dim=30)
    task = make_task(table, SPEC)
    train, val = np.arange(60), np.arange(60, 80)
    found = fit(bags, task.objective(table, SPEC), train, val, replace(SPEC, patience=100), seed=0)
    losses = [epoch.val_loss for epoch in found.history]
    assert len(losses) == len(PENALTIES)
    assert found.best_epoch == int(np.argmin(losses)) + 1
    scaler = StandardScaler().fit(np.asarray(bags.features, np.float64)[train])
    x = scaler.transform(np.asarray(bags.features, np.float64))
    peer = LogisticRegression(C=1 / (60 * PENALTIES[found.best_epoch - 1]), tol=1e-10, max_iter=10_000)
    peer.fit(x[train], table["label"][train])
    assert -np.log(peer.predict_proba(x[val])[range(20), table["label"][val].map("abc".index)]).mean() == pytest.approx(
        min(losses), rel=1e-3
    )
    early = fit(bags, task.objective(table, SPEC), train, val, replace(SPEC, patience=2), seed=0)
    assert len(early.history) < len(PENALTIES)


def test_the_same_again_and_in_any_company() -> None:
    bags, table = embeddings()
    task = make_task(table, SPEC)
    rows = [FoldRows(np.arange(k, 50 + k), np.arange(50, 60) if k == 0 else NONE, k) for k in (0, 5)]
    one, two = (fit_folds(bags, task.objective(table, SPEC), rows, SPEC) for _ in range(2))
    for a, b in zip(one, two, strict=True):
        for name, value in a.model.state_dict().items():
            assert torch.equal(value, b.model.state_dict()[name])


@pytest.mark.parametrize("task", ["classification", "ordinal", "regression", "survival"])
def test_cross_validated_for_every_task(task: str) -> None:
    bags, table = embeddings(n=90)
    spec = replace(SPEC, task=task, committee=2 if task == "survival" else 1)
    if task == "regression":
        table["label"] = table["number"]
    if task == "ordinal":
        table["label"] = table["label"].map({"a": "grade 1", "b": "grade 2", "c": "grade 3"})
    metrics = cross_validate_bags(bags, table, spec).metrics["pooled"]
    name, least = {"classification": ("auroc", 0.7), "ordinal": ("quadratic_kappa", 0.3), "regression": ("r2", 0.3),
                   "survival": ("c_index", 0.6)}[task]  # fmt: skip
    assert metrics[name]["value"] > least
