"""Metrics as they come from JSON: numbers, intervals, nulls."""

from __future__ import annotations

from typing import Any

import pytest

from wsi_pipeline.report.data import Estimate, ModelSection, ReportData, SlideRow


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (None, None),
        (float("nan"), None),
        ({"value": None, "low": 0.1, "high": 0.2}, None),
        (0.5, Estimate(0.5)),
        (1, Estimate(1.0)),
        ({"value": 0.5, "low": 0.25, "high": 0.75, "n_undefined": 3}, Estimate(0.5, 0.25, 0.75, 3)),
        ({"value": 0.5, "low": None, "high": float("inf"), "n_undefined": None}, Estimate(0.5)),
    ],
)
def test_estimates_are_read_from_what_json_can_hold(raw: Any, expected: Estimate | None) -> None:
    assert Estimate.read(raw) == expected


@pytest.mark.parametrize("metrics", [{}, {"pooled": None}, {"pooled": {}}, {"pooled": {"auroc": None}}])
def test_a_metric_that_is_not_there_is_undefined(metrics: dict[str, Any]) -> None:
    model = ModelSection("colour", "mean", metrics)
    assert model.pooled("auroc") is None
    assert model.classes == ()
    assert model.is_baseline
    assert model.key == "colour/mean"


def test_states_are_counted() -> None:
    slides = tuple(SlideRow(str(i), state) for i, state in enumerate(("done", "done", "failed")))
    data = ReportData("t", "today", slides)
    assert [data.count(state) for state in ("done", "empty", "failed", "pending")] == [2, 0, 1, 0]
