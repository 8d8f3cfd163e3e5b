"""Comparing two validations: paired, in words, and refused where they are not of the same patients."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from tests.mil.synthetic import QUICK
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks import make_task
from wsi_pipeline.mil.validation.paired import Validated, compare, sentence


def side(noise: float, *, seed: int = 0, n: int = 84, slides: int = 1, repeats: int = 1) -> Validated:
    """Predictions that are the truth and some noise, the same truth for every seed."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n), slides)
    label = (np.arange(n) % 3 == 0)[patient]
    frames = []
    for repeat in range(repeats):
        p = 1 / (1 + np.exp(-(label - 0.5 + noise * rng.normal(size=len(patient)))))
        names = np.array(["normal", "tumour"])
        frames.append(
            pd.DataFrame(
                {
                    "slide_id": [f"s{i}" for i in range(len(patient))], "patient_id": [f"p{k}" for k in patient],
                    "repeat": repeat, "fold": patient % 4, "label": names[label.astype(int)],
                    "predicted": names[(p > 0.5).astype(int)], "p_normal": 1 - p, "p_tumour": p,
                }
            )
        )  # fmt: skip
    table = pd.concat(frames, ignore_index=True)
    return Validated(make_task(table, QUICK), table)


def test_a_better_model_is_better_by_every_word() -> None:
    found = compare(side(2.0), side(0.3, seed=1), resamples=500)
    entry, test = found["metrics"]["auroc"], found["delong"]
    assert entry["better"] == "b"
    assert entry["low"] > 0
    assert entry["p_value"] < 0.01
    assert test["difference"] == pytest.approx(entry["difference"])
    assert (test["low"], test["high"]) == pytest.approx((entry["low"], entry["high"]), abs=0.05)
    assert test["p_value"] < 0.001
    text = sentence(found)
    assert text.startswith(f"B's AUROC is higher by {entry['difference']:.2f} [")
    assert text.endswith("DeLong p < 0.001, 84 patients")
    json.dumps(found, allow_nan=False)


def test_the_other_way_round_is_the_mirror() -> None:
    a, b = side(1.0), side(0.6, seed=1)
    one, other = compare(a, b, resamples=300), compare(b, a, resamples=300)
    for name, entry in one["metrics"].items():
        mirror = other["metrics"][name]
        assert entry["difference"] == pytest.approx(-mirror["difference"])
        assert (entry["low"], entry["high"]) == pytest.approx((-mirror["high"], -mirror["low"]))
        assert entry["p_value"] == mirror["p_value"]
    assert one["delong"]["p_value"] == pytest.approx(other["delong"]["p_value"])
    assert "is lower by" in sentence(other)
    bounds = [text.split("[")[1].split("]")[0] for text in (sentence(one), sentence(other))]
    assert bounds[0] == bounds[1]


def test_values_are_those_of_scikit_learn() -> None:
    a, b = side(1.0), side(0.6, seed=1)
    entry = compare(a, b, resamples=100)["metrics"]["auroc"]
    for name, one in (("a", a), ("b", b)):
        expected = roc_auc_score(one.predictions["label"] == "tumour", one.predictions["p_tumour"])
        assert entry[name] == pytest.approx(expected)
    assert entry["difference"] == pytest.approx(entry["b"] - entry["a"])


def test_pairing_makes_intervals_narrow() -> None:
    """Two models with the same errors but a few: a paired comparison sees a difference that unpaired ones do not."""
    a = side(1.5)
    nudged = a.predictions.assign(p_tumour=a.predictions["p_tumour"] + 0.05 * (a.predictions["label"] == "tumour"))
    found = compare(a, Validated(a.task, nudged.assign(p_normal=1 - nudged["p_tumour"])), resamples=500)
    entry = found["metrics"]["auroc"]
    assert 0 < entry["low"] < entry["high"] < 0.1
    assert found["delong"]["p_value"] < 0.05


def test_the_same_predictions_are_equal_and_shuffled_rows_change_nothing() -> None:
    a = side(1.0)
    found = compare(a, Validated(a.task, a.predictions.sample(frac=1, random_state=1)), resamples=100)
    assert found["same_folds"]
    assert all(entry["difference"] == 0 and entry["better"] is None for entry in found["metrics"].values())
    assert all(entry["p_value"] is None for entry in found["metrics"].values())
    assert sentence(found) == "B's AUROC equals A's, 84 patients"


def test_different_numbers_of_repeats_and_several_slides() -> None:
    a, b = side(1.0, slides=2, repeats=2), side(0.8, slides=2, repeats=3, seed=5)
    found = compare(a, b, resamples=200)
    assert found["repeats"] == [2, 3]
    assert not found["same_folds"]
    assert (found["n_patients"], found["n_slides"]) == (84, 168)
    each = [roc_auc_score(f["label"] == "tumour", f["p_tumour"]) for _, f in b.predictions.groupby("repeat")]
    assert found["delong"]["b"] == pytest.approx(np.mean(each))
    assert found["metrics"]["auroc"]["b"] == pytest.approx(np.mean(each))


def test_errors_are_better_small() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=50)
    ids = [f"s{i}" for i in range(50)]
    table = pd.DataFrame({"slide_id": ids, "patient_id": ids, "repeat": 0, "fold": 0, "label": truth})
    task = make_task(table, replace(QUICK, task="regression"))
    good, bad = (table.assign(predicted=truth + noise * rng.normal(size=50)) for noise in (0.3, 1.5))
    found = compare(Validated(task, bad), Validated(task, good), resamples=200)
    assert found["metrics"]["mae"]["difference"] < 0
    assert {entry["better"] for entry in found["metrics"].values()} == {"b"}
    assert "delong" not in found
    assert sentence(found).startswith("B's MAE is lower by")
    assert "bootstrap p" in sentence(found)


def test_intervals_hold_no_difference_about_as_often_as_they_say() -> None:
    held = 0
    for seed in range(40):
        found = compare(side(1.0, seed=2 * seed, n=60), side(1.0, seed=2 * seed + 1, n=60), resamples=150)
        entry = found["metrics"]["auroc"]
        held += entry["low"] <= 0 <= entry["high"]
    assert held >= 34


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t[t["slide_id"] != "s3"], "only A has s3"),
        (lambda t: t.assign(slide_id=t["slide_id"].replace("s3", "new")), "only A has s3; only B has new"),
        (lambda t: t.assign(label=t["label"].where(t["slide_id"] != "s5", "tumour")), "s5 has normal in A and tumour"),
        (lambda t: t.assign(patient_id=t["patient_id"].replace("p7", "p8")), "patient_id differs for 1 slide: s7"),
    ],
)  # fmt: skip
def test_other_patients_or_labels_are_refused(change, message: str) -> None:
    a = side(1.0)
    with pytest.raises(MilError, match=message):
        compare(a, Validated(a.task, change(a.predictions)), resamples=100)


def test_survival_by_two_losses_is_compared_by_what_both_have() -> None:
    rng = np.random.default_rng(0)
    ids = [f"s{i}" for i in range(40)]
    table = pd.DataFrame({"slide_id": ids, "patient_id": ids, "repeat": 0, "fold": np.arange(40) % 2, "event": 1})
    table, outputs = table.assign(time=rng.exponential(size=40)), rng.normal(size=(40, 4))
    discrete, cox = (
        make_task(table, replace(QUICK, task="survival", survival_loss=loss)) for loss in ("discrete", "cox")
    )
    sides = [Validated(task, table.join(task.outcomes(outputs[:, : task.n_outputs]))) for task in (discrete, cox)]
    for a, b in (sides, sides[::-1]):
        assert list(compare(a, b, resamples=100)["metrics"]) == ["c_index"]


def test_other_tasks_are_refused() -> None:
    a = side(1.0)
    numbers = a.predictions.assign(label=np.arange(84.0), predicted=np.arange(84.0))
    other = Validated(make_task(numbers, replace(QUICK, task="regression")), numbers)
    with pytest.raises(MilError, match="classification of normal, tumour, and regression"):
        compare(a, other, resamples=100)
