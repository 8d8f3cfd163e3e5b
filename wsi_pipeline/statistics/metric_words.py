"""Metrics by name: how the name is written, whether lower is better, the chance level; and what a model predicts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HEADLINES = {"classification": "auroc", "ordinal": "quadratic_kappa", "survival": "c_index", "regression": "mae"}
"""Task -> its headline metric."""

CLASS_TASKS = frozenset({"classification", "ordinal"})
"""Tasks that predict a class, with a probability for each."""

LOWER_IS_BETTER = frozenset({"mae", "rmse", "brier", "integrated_brier", "ece", "grade_error"})
"""Error metrics; for all others higher is better."""

CHANCE_LEVEL = {"auroc": 0.5, "c_index": 0.5, "quadratic_kappa": 0.0}
"""Metrics with a chance level that does not depend on the data."""

_WORDS = {
    "auroc": "AUROC", "c_index": "C-index", "mae": "MAE", "rmse": "RMSE", "r2": "R²", "ece": "ECE",
    "brier": "Brier score", "integrated_brier": "integrated Brier score", "f1": "F1", "macro_f1": "macro F1",
    "quadratic_kappa": "quadratic weighted kappa", "grade_error": "mean error in grades",
}  # fmt: skip


def metric_words(name: str) -> str:
    """A metric's name as written in text: `AUROC`, `macro F1`, `balanced accuracy`."""
    return _WORDS.get(name) or name.replace("_", " ").replace("f1", "F1").replace("brier", "Brier score")


def p_words(value: float) -> str:
    """`p = 0.21`, `p < 0.001`."""
    if value < 0.001:
        return "p < 0.001"
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.3f}"


def estimate_words(
    value: float | None,
    low: float | None = None,
    high: float | None = None,
    *,
    digits: str = ".3f",
    interval: str = "[{low}, {high}]",
) -> str:
    """`0.912 [0.842, 0.968]`; without an interval `0.912`; without a value `undefined`.

    digits     format of each number
    interval   format of the limits
    """
    if value is None:
        return "undefined"
    if low is None or high is None:
        return f"{value:{digits}}"
    return f"{value:{digits}} {interval.format(low=f'{low:{digits}}', high=f'{high:{digits}}')}"


def target_name(metrics: Mapping[str, Any]) -> str:
    """Name of a model's target: its label column, `survival PFS`, or `label`."""
    task = metrics.get("task") or "classification"
    if (task.get("name") if isinstance(task, Mapping) else task) == "survival":
        return f"survival {str(metrics.get('endpoint') or '').upper()}".strip()
    return str(metrics.get("label_column") or "label")
