"""The sentences of the report claim what the numbers hold, and no more."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from wsi_pipeline.report.data import ModelSection, PredictionSection, ReportData, SlideRow
from wsi_pipeline.report.page.findings import baseline_of, cautions, estimate_words, findings, interval_words, ranked


def model(
    encoder: str,
    auroc: float | None,
    low: float | None = None,
    high: float | None = None,
    mil: str = "abmil",
    **more: Any,
) -> ModelSection:
    value = {"value": auroc, "low": low, "high": high, "n_undefined": 0}
    interval = {"level": 0.95, "unit": "patient", "resamples": 1000, "method": "percentile bootstrap"}
    metrics = {"pooled": {"auroc": value}, "interval": interval, "n_slides": 40, "n_patients": 30, **more}
    return ModelSection(encoder, mil, metrics)


def report(*models: ModelSection, slides: tuple[SlideRow, ...] = (), warnings: tuple[str, ...] = ()) -> ReportData:
    return ReportData("t", "today", slides, models, warnings)


def test_best_first_and_undefined_last() -> None:
    models = [model("a", None), model("b", 0.6), model("c", 0.9), model("d", float("nan"))]
    assert [m.encoder for m in ranked(models)] == ["c", "b", "a", "d"]


def test_finding_names_the_best_with_interval_and_sample() -> None:
    (sentence,) = findings(report(model("b", 0.6, 0.5, 0.7), model("c", 0.9, 0.8, 0.95)))
    value = "0.900 (95\u00a0% interval 0.800–0.950)"
    assert sentence == f"c with abmil reaches an AUROC of {value} on 40 slides from 30 patients."


@pytest.mark.parametrize(("low", "words"), [(0.75, "do not overlap"), (0.65, "intervals overlap")])
def test_best_model_is_compared_with_the_baseline(low: float, words: str) -> None:
    sentences = findings(report(model("colour", 0.6, 0.5, 0.7), model("vit", 0.9, low, 0.95)))
    assert "0.300 lower" in sentences[1]
    assert words in sentences[1]


def test_a_winning_baseline_is_reported() -> None:
    sentences = findings(report(model("colour", 0.8, 0.7, 0.9), model("vit", 0.7, 0.6, 0.8)))
    assert "no deep encoder here outperforms" in sentences[1]


def test_baseline_of_the_same_mil_model_comes_first() -> None:
    deep = model("vit", 0.9, mil="mean")
    models = [model("colour", 0.7, mil="abmil"), model("colour", 0.6, mil="mean"), deep]
    reference = baseline_of(deep, models)
    assert reference is not None
    assert reference.mil_model == "mean"
    assert baseline_of(models[0], models) is None
    assert baseline_of(deep, [deep]) is None


def test_no_finding_without_a_model_and_undefined_metrics_are_reported() -> None:
    assert findings(report()) == []
    assert "AUROC is undefined" in findings(report(model("a", None)))[0]


def test_bags_that_are_patients_are_counted_as_such() -> None:
    (sentence,) = findings(report(model("c", 0.9, n_slides=None, bag="patient")))
    assert sentence.endswith("on 30 patients.")


def test_patients_that_are_far_are_named() -> None:
    table = pd.DataFrame({"patient_id": ["P1", "P2"], "far_from_training": ["no", "yes"]})
    data = ReportData("t", "today", (), predictions=(PredictionSection("colour/mean", table),))
    assert cautions(data)[0].startswith("1 patient is out of distribution for colour/mean")
    assert cautions(data)[0].endswith(": P2.")


def test_words_for_estimates_and_intervals() -> None:
    assert estimate_words(None) == "undefined"
    assert estimate_words(model("a", 0.5).pooled("auroc")) == "0.500"
    assert interval_words(model("a", 0.5)) == "95\u00a0% interval, percentile bootstrap, 1000 resamples of patients"
    assert interval_words(ModelSection("a", "b")) == "no interval recorded"


def test_chance_level_and_given_warnings_are_cautions() -> None:
    text = "\n".join(cautions(report(model("a", 0.6, 0.45, 0.8, warnings=["small"]), warnings=("mine",))))
    assert text.startswith("mine")
    assert "not shown to be better than chance" in text
    assert "a with abmil: small" in text
    assert "models were compared" not in text


def test_selection_among_models_is_a_caution() -> None:
    assert "2 models were compared" in cautions(report(model("a", 0.9, 0.8, 1), model("b", 0.8, 0.7, 0.9)))[0]


def test_slides_left_out_are_named_and_counted() -> None:
    slides = (*(SlideRow(f"f{i}", "failed") for i in range(6)), SlideRow("e", "empty"))
    sentences = cautions(report(slides=slides))
    assert sentences[0] == "6 slides failed and are excluded from all results: f0, f1, f2, f3 and 2 more."
    assert sentences[1] == "No tissue was found on 1 slide: e."


@pytest.mark.parametrize(
    ("pairs", "warned"),
    [
        ([("A", "t"), ("B", "n")], True),
        ([("A", "t"), ("A", "n"), ("B", "n")], False),
        ([("A", "t"), ("A", "n")], False),
        ([("A", "t"), ("B", "t")], False),
        ([], False),
    ],
)
def test_sites_that_give_the_label_away(pairs: list[tuple[str, str]], warned: bool) -> None:
    slides = tuple(SlideRow(f"s{i}", "done", site=s, label=c) for i, (s, c) in enumerate(pairs))
    sentences = cautions(report(model("a", 0.9, 0.8, 1.0), slides=slides))
    assert any("Each site has slides of a single class" in sentence for sentence in sentences) == warned
