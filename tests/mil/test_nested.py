"""The inner validation chooses, the test part never does; every task is validated alike."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from tests.mil.synthetic import QUICK, planted
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.validation.crossval import CrossValidation, TrainingProgress, cross_validate_bags
from wsi_pipeline.statistics.bootstrap import Scored, bootstrap, interval

TINY = replace(QUICK, model="mean", epochs=4, bootstrap=100, folds=3, permutations=50)
GRID = replace(TINY, choose="mean,max learning_rate=1e-2,1e-6", epochs=6)


def with_split(n: int = 36) -> tuple[Bags, pd.DataFrame]:
    bags, table = planted(n)
    return bags, table.assign(split=["train"] * (n // 3) + ["val"] * (n // 3) + ["test"] * (n // 3))


def same_models(a: CrossValidation, b: CrossValidation) -> bool:
    pairs = zip(a.fitted, b.fitted, strict=True)
    return all(
        torch.equal(x, y)
        for one, other in pairs
        for x, y in zip(one.model.state_dict().values(), other.model.state_dict().values(), strict=True)
    )


@pytest.fixture(scope="module")
def chosen() -> CrossValidation:
    return cross_validate_bags(*planted(45), replace(GRID, folds=2))


def test_the_better_candidate_is_chosen_and_all_are_on_record(chosen: CrossValidation) -> None:
    """A learning rate of 1e-6 learns nothing in six epochs: no fold keeps it."""
    for fold in chosen.metrics["folds"]:
        assert fold["chosen"]["learning_rate"] == 1e-2
        assert len(fold["candidates"]) == 4
        best = max(candidate["selection"] for candidate in fold["candidates"])
        kept = [c for c in fold["candidates"] if all(c[k] == v for k, v in fold["chosen"].items())]
        assert kept[0]["selection"] == best
    assert chosen.metrics["pooled"]["auroc"]["value"] > 0.85


def test_equal_selections_are_decided_by_the_validation_loss(chosen: CrossValidation) -> None:
    for fold in chosen.metrics["folds"]:
        best = max(candidate["selection"] for candidate in fold["candidates"])
        tied = [c for c in fold["candidates"] if c["selection"] == best]
        lowest = min(tied, key=lambda c: c["val_loss"])
        assert {name: lowest[name] for name in fold["chosen"]} == fold["chosen"]


def test_poisoned_test_features_change_no_choice() -> None:
    """NaN in every feature of the test slides: choice, models and thresholds keep every bit."""
    bags, table = with_split()
    clean = cross_validate_bags(bags, table, GRID)
    features = bags.features.copy()
    for row in range(24, 36):
        features[bags.rows(row)] = np.nan
    poisoned = Bags(features, bags.offsets, bags.slide_ids)
    with pytest.raises(MilError, match="finite"):
        cross_validate_bags(poisoned, table, GRID)
    features[np.isnan(features)] = 60_000
    after = cross_validate_bags(Bags(features, bags.offsets, bags.slide_ids), table, GRID)
    assert same_models(clean, after)
    for key in ("chosen", "candidates", "threshold", "best_epoch"):
        assert clean.metrics["folds"][0][key] == after.metrics["folds"][0][key]
    assert not clean.predictions["p_tumour"].equals(after.predictions["p_tumour"])


@pytest.mark.parametrize("spec", [GRID, replace(GRID, task="regression"), replace(GRID, task="survival")])
def test_swapped_test_outcomes_change_no_choice(spec: MilSpec) -> None:
    """The outcomes of the test slides replaced by others: choice, models, thresholds and scaling stay."""
    bags, table = with_split()
    rng = np.random.default_rng(0)
    if spec.task == "regression":
        table["label"] = rng.normal(size=36)
    if spec.task == "survival":
        spec = replace(spec, survival_loss="cox")
        table = table.assign(time=rng.exponential(size=36) + 0.1, event=rng.integers(0, 2, 36))
        table.loc[:5, "event"] = 1
    before = cross_validate_bags(bags, table, spec)
    for column in before.task.columns:
        table[column] = [*table[column][:24], *table[column][24:][::-1]]
    if spec.task == "regression":
        table["label"] = [*table["label"][:24], *(100 * table["label"][24:] + 7)]
    after = cross_validate_bags(bags, table, spec)
    assert same_models(before, after)
    assert before.metrics["folds"][0]["candidates"] == after.metrics["folds"][0]["candidates"]
    assert [c.task for c in before.choices] == [c.task for c in after.choices]
    assert before.metrics["pooled"] != after.metrics["pooled"]


def test_the_choice_depends_on_the_validation_labels() -> None:
    """The test above would fail if this did: swapped labels of validation slides do change what is recorded."""
    bags, table = with_split()
    swapped = table.copy()
    swapped.loc[12:23, "label"] = table["label"].iloc[12:24].to_numpy()[::-1]
    before, after = (cross_validate_bags(bags, t, GRID).metrics["folds"][0]["candidates"] for t in (table, swapped))
    assert before != after


def test_a_fixed_split_chooses_on_its_val_part() -> None:
    result = cross_validate_bags(*with_split(), GRID)
    (fold,) = result.metrics["folds"]
    assert (fold["n_train"], fold["n_val"], fold["n_test"]) == (12, 12, 12)
    assert fold["chosen"]["learning_rate"] == 1e-2
    assert result.metrics["interval"]["method"] == "percentile bootstrap of test predictions"


def test_a_model_that_is_none_is_refused_before_anything_is_trained() -> None:
    seen: list[TrainingProgress] = []
    with pytest.raises(UsageError, match="unknown MIL model 'nonesuch'"):
        cross_validate_bags(*planted(30), replace(TINY, choose="mean,nonesuch"), progress=seen.append)
    assert seen == []


def test_progress_counts_every_training() -> None:
    seen: list[TrainingProgress] = []
    cross_validate_bags(*planted(30), replace(GRID, repeats=2, epochs=1), progress=seen.append)
    assert {step.n_folds for step in seen} == {4 * 6}
    assert {step.fold for step in seen} == set(range(24))


def test_repeats_are_averaged_and_patients_stay_the_unit() -> None:
    bags, table = planted(40, slides_per_patient=2)
    once = cross_validate_bags(bags, table, TINY)
    thrice = cross_validate_bags(bags, table, replace(TINY, repeats=3))
    rows = thrice.predictions
    assert rows.groupby("repeat")["slide_id"].apply(list).map(lambda ids: ids == table["slide_id"].tolist()).all()
    pd.testing.assert_frame_equal(rows[rows["repeat"] == 0].reset_index(drop=True), once.predictions)
    pooled, repeats = thrice.metrics["pooled"]["auroc"], thrice.metrics["repeats"]["auroc"]
    each = [thrice.task.evaluate(frame.reset_index(drop=True)).values()["auroc"] for _, frame in rows.groupby("repeat")]
    assert pooled["value"] == pytest.approx(np.mean(each))
    assert (repeats["mean"], repeats["sd"]) == pytest.approx((np.mean(each), np.std(each, ddof=1)))
    assert (pooled["unit"], pooled["n"], repeats["n"]) == ("patient", 20, 3)
    assert len(thrice.metrics["folds"]) == 9
    assert thrice.metrics["interval"]["method"].endswith("mean of 3 repeats")


def numbers(value: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every estimate in a metrics.json, with where it is."""
    if isinstance(value, dict):
        own = [(path, value)] if "value" in value and "low" in value else []
        return own + [found for key, part in value.items() for found in numbers(part, f"{path}/{key}")]
    return []


def check_json(metrics: dict[str, Any]) -> None:
    json.dumps(metrics, allow_nan=False)
    found = numbers(metrics)
    assert found
    for path, estimate in found:
        assert estimate["unit"] == "patient", path
        assert estimate["n"] >= 1, path
        if estimate["low"] is not None:
            assert estimate["low"] <= estimate["high"], path


def test_every_number_names_its_unit_and_n() -> None:
    metrics = cross_validate_bags(*planted(60), replace(TINY, epochs=15)).metrics
    check_json(metrics)
    assert {path for path, _ in numbers(metrics)} >= {
        "/pooled/auroc", "/calibration/brier", "/calibration/ece", "/threshold/sensitivity", "/threshold/specificity"
    }  # fmt: skip
    assert metrics["threshold"]["class"] == "tumour"
    assert metrics["threshold"]["sensitivity"]["n"] == 30
    assert sum(point["n"] for point in metrics["calibration"]["bins"]) == 60
    assert metrics["calibration"]["brier"]["value"] < metrics["calibration"]["brier_of_chance"]
    assert metrics["permutation"]["p_value"] == pytest.approx(1 / 51)


def test_the_threshold_is_each_folds_own() -> None:
    result = cross_validate_bags(*planted(60), TINY)
    limits = {fold["fold"]: fold["threshold"] for fold in result.metrics["folds"]}
    rows = result.predictions
    called = rows["p_tumour"].to_numpy() >= rows["fold"].map(limits).to_numpy(float)
    positive = (rows["label"] == "tumour").to_numpy()
    cut = result.metrics["threshold"]
    assert cut["sensitivity"]["value"] == pytest.approx(called[positive].mean())
    assert cut["specificity"]["value"] == pytest.approx((~called[~positive]).mean())
    assert cut["value"] == pytest.approx(np.median(list(limits.values())))


def test_more_classes_have_calibration_but_no_threshold() -> None:
    metrics = cross_validate_bags(*planted(45, n_classes=3), TINY).metrics
    check_json(metrics)
    assert "threshold" not in metrics
    assert metrics["calibration"]["of"] == "the predicted class"


def numbers_cohort(n: int = 60) -> tuple[Bags, pd.DataFrame]:
    """A number, and a survival time, told by the mean of the instances."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=n)
    arrays = [(rng.normal(size=(20, 8)) + value).astype(np.float32) for value in truth]
    ids = [f"s{i}" for i in range(n)]
    table = pd.DataFrame({"slide_id": ids, "patient_id": [f"p{i // 2}" for i in range(n)], "label": 5 * truth + 100})
    patients = truth.reshape(-1, 2).mean(1).repeat(2)
    table["time"] = np.exp(-patients) * 10 + 1
    table["event"] = (np.arange(n) // 2) % 3 != 0
    return Bags.from_arrays(arrays, ids), table.astype({"event": int})


def test_regression_is_validated_like_classes() -> None:
    result = cross_validate_bags(*numbers_cohort(), replace(TINY, task="regression", epochs=25))
    metrics = result.metrics
    check_json(metrics)
    assert metrics["task"] == "regression"
    assert metrics["pooled"]["spearman"]["value"] > 0.8
    assert metrics["pooled"]["mae"]["value"] < 0.6 * metrics["chance"]["mae"]
    assert metrics["pooled"]["mae"]["n"] == 30
    assert metrics["permutation"]["metric"] == "mae"
    assert metrics["permutation"]["p_value"] == pytest.approx(1 / 51)
    assert "calibration" not in metrics
    assert list(result.predictions.columns) == ["slide_id", "patient_id", "repeat", "fold", "label", "predicted"]


def test_measured_numbers_are_written_as_numbers() -> None:
    """However the CSV of slides writes them: others read predictions.csv, too."""
    bags, table = numbers_cohort()
    spec = replace(TINY, task="regression", epochs=1)
    words = table.assign(label=[repr(float(value)).replace(".", ",") for value in table["label"]])
    plain, comma = cross_validate_bags(bags, table, spec), cross_validate_bags(bags, words, spec)
    pd.testing.assert_frame_equal(comma.predictions, plain.predictions)


@pytest.mark.parametrize("loss", ["discrete", "cox"])
def test_survival_is_validated_like_classes(loss: str) -> None:
    spec = replace(TINY, task="survival", survival_loss=loss, epochs=25)
    result = cross_validate_bags(*numbers_cohort(), spec)
    check_json(result.metrics)
    assert result.metrics["pooled"]["c_index"]["value"] > 0.75
    assert result.metrics["permutation"]["p_value"] < 0.02
    assert result.metrics["chance"] == {"c_index": 0.5}
    assert list(result.predictions.columns)[:7] == [
        "slide_id", "patient_id", "repeat", "fold", "time", "event", "risk"
    ]  # fmt: skip


def test_few_events_and_few_patients_are_refused() -> None:
    bags, table = numbers_cohort(12)
    few = table.assign(event=[1, 1, 1, 1, *[0] * 8])
    with pytest.raises(MilError, match="at least 3 patients with an event, got 2"):
        cross_validate_bags(bags, few, replace(TINY, task="survival"))
    with pytest.raises(MilError, match="10-fold validation needs at least 10 patients, got 6"):
        cross_validate_bags(bags, table, replace(TINY, task="regression", folds=10))
    with pytest.raises(MilError, match="event"):
        cross_validate_bags(bags, table.drop(columns="event"), replace(TINY, task="survival"))


def test_a_few_patients_are_said_to_be_few() -> None:
    told = cross_validate_bags(*planted(16), TINY).metrics["warnings"]
    assert any("Only 8 patients of class tumour tested" in text and "by 0.12" in text for text in told)


def test_the_bootstrap_covers() -> None:
    """Simulated cohorts of 40 patients with 2 alike slides: 95 % intervals of accuracy hold the truth about as often.

    Over slides they would be too narrow, which the second count shows.
    """
    rng = np.random.default_rng(0)
    held = {"patient": 0, "slide": 0}
    for seed in range(150):
        right = np.repeat(rng.random(40) < 0.7, 2)
        truth = np.tile([0, 1], 40)
        predicted = np.where(right, truth, 1 - truth)
        probabilities = np.eye(2)[predicted]
        for unit, patient in (("patient", np.repeat(np.arange(40), 2)), ("slide", np.arange(80))):
            samples = bootstrap(Scored(truth, predicted, probabilities, patient), 300, seed)["accuracy"]
            found = interval(samples, 0.95)
            held[unit] += found.low <= 0.7 <= found.high
    assert 0.88 <= held["patient"] / 150 <= 0.99
    assert held["slide"] / 150 < 0.88
