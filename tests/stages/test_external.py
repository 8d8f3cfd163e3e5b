"""Predictions of labelled slides are measured as cross-validation is; parts of a cohort fill one table together."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn import metrics as sk

from tests.stages.feature_runs import QUICK, cohort, trained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.mil.trained.inference import predict
from wsi_pipeline.mil.validation.external import RiskCut
from wsi_pipeline.stages.inputs.slide_bags import gather
from wsi_pipeline.stages.predict import Predicted, cut_of, predict_slides, whole_patients
from wsi_pipeline.stages.report import write_report
from wsi_pipeline.stages.results.trainings import Training

N = 24
LABELS = ["ab"[i % 2] for i in range(N)]


def apply(training: Training, run: RunDir, records: Sequence[SlideRecord], every: Any = None) -> Predicted:
    model = load_ensemble(training.folder)
    return predict_slides(run, records, model, "cpu", trained=training.folder, cohort=every or records)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    run = RunDir(tmp_path_factory.mktemp("train"))
    return trained(run, cohort(run, "t", N, label=LABELS))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir(tmp_path / "ext")


def test_an_external_cohort_is_measured_by_slide_and_by_patient(training: Training, run: RunDir) -> None:
    labels = [*LABELS[:20], "c", "A ", None, "a"]
    found = apply(training, run, cohort(run, "e", N, slides=(1, 2, 1), seed=1, label=labels))
    assert found.metrics is not None
    metrics = json.loads((found.folder / "metrics.json").read_text())
    assert metrics == json.loads(json.dumps(found.metrics))
    table = pd.read_csv(found.path)
    known = table[table["label"].isin(["a", "b"])]
    assert (metrics["external"], metrics["n_slides"], metrics["n_patients"]) == (True, len(known), 21)
    positive = (known["label"] == "b").to_numpy()
    pooled = {name: one["value"] for name, one in metrics["pooled"].items()}
    assert pooled == pytest.approx(
        {
            "auroc": sk.roc_auc_score(positive, known["p_b"]),
            "balanced_accuracy": sk.balanced_accuracy_score(known["label"], known["predicted"]),
            "macro_f1": sk.f1_score(known["label"], known["predicted"], average="macro"),
            "accuracy": sk.accuracy_score(known["label"], known["predicted"]),
        },
        abs=1e-5,
    )
    assert all(one["low"] <= one["value"] <= one["high"] and one["n"] == 21 for one in metrics["pooled"].values())
    assert metrics["calibration"]["brier"]["value"] == pytest.approx(
        sk.brier_score_loss(positive, known["p_b"]), abs=1e-5
    )
    assert 1 / 21 <= metrics["permutation"]["p_value"] <= 1
    cut = training.metrics["threshold"]
    called = known["p_b"] >= cut["value"]
    assert (known["predicted_at_cut"] == np.where(called, "b", "a")).all()
    assert metrics["threshold"]["value"] == cut["value"]
    assert metrics["threshold"]["sensitivity"]["value"] == pytest.approx(called[positive].mean())
    assert metrics["threshold"]["specificity"]["value"] == pytest.approx((~called[~positive]).mean())
    assert metrics["unknown_labels"] == {"c": ["e20-0"], "A ": ["e21-0"]}
    said = " ".join(metrics["warnings"])
    assert "'A ' (use the spelling 'a')" in said
    assert metrics["left_out"]["e22-0"] == "no label"
    people = pd.read_csv(found.folder / "patients.csv")
    assert len(people) == N
    np.testing.assert_allclose(people["p_b"], table.groupby("patient_id", sort=False)["p_b"].mean(), atol=2e-6)
    known = people[people["label"].isin(["a", "b"])]
    own = metrics["by_patient"]
    assert own["n_patients"] == 21
    assert own["pooled"]["auroc"]["value"] == pytest.approx(
        sk.roc_auc_score(known["label"] == "b", known["p_b"]), abs=1e-5
    )


def test_patients_the_model_was_trained_on_are_no_test(training: Training, run: RunDir) -> None:
    records = cohort(run, "t", N + 6, seed=2, label=[*LABELS, *LABELS[:6]])
    found = apply(training, run, records)
    assert found.metrics is not None
    assert (found.metrics["external"], found.metrics["n_slides"]) == (True, 6)
    assert found.metrics["warnings"][0].startswith("24 of 30 slides with an outcome belong to patients the model was")
    assert found.metrics["left_out"]["t0-0"] == "the model was trained on this patient"
    assert found.whole["patient_in_training"].tolist() == ["yes"] * N + ["no"] * 6
    alone = apply(training, RunDir(run.root / "same"), cohort(RunDir(run.root / "same"), "t", N, label=LABELS))
    assert alone.metrics is not None
    assert (alone.metrics["external"], alone.metrics["n_slides"]) == (False, N)
    assert alone.metrics["warnings"][0].startswith("Not an external test: all 24 slides")


def test_labels_that_are_all_unknown_give_no_numbers_but_the_reason(training: Training, run: RunDir) -> None:
    found = apply(training, run, cohort(run, "e", 4, label=["x", "y", "x", "y"]))
    assert found.metrics is not None
    assert "pooled" not in found.metrics
    (said,) = found.metrics["warnings"]
    assert said.startswith("4 slides with a label that is not a class of the model (a, b) were excluded: ")
    assert said.endswith("'x' (e0-0, e2-0), 'y' (e1-0, e3-0).")
    assert apply(training, run, cohort(run, "e", 4, label=[None] * 4)).metrics is None
    assert not (run.predict("colour", "mean") / "metrics.json").exists()


def test_one_class_alone_has_no_area_and_says_so(training: Training, run: RunDir) -> None:
    found = apply(training, run, cohort(run, "e", 6, label=["b"] * 6))
    assert found.metrics is not None
    assert found.metrics["pooled"]["auroc"]["value"] is None
    assert any("no slide of class a" in text for text in found.metrics["warnings"])
    assert found.metrics["threshold"]["specificity"]["value"] is None


def test_slides_of_a_patient_that_contradict_each_other_leave_it_without_an_outcome(
    training: Training, run: RunDir
) -> None:
    records = cohort(run, "e", 8, slides=(2,), label=LABELS[:8])
    records = (replace(records[0], label="b"), *records[1:])
    found = apply(training, run, records)
    assert found.metrics is not None
    assert (found.metrics["n_slides"], found.metrics["by_patient"]["n_patients"]) == (16, 7)
    assert "Patients whose slides differ in label were excluded: e0." in found.metrics["by_patient"]["warnings"]


def test_regression_is_measured_and_what_is_no_number_named(run: RunDir) -> None:
    spec = replace(QUICK, task="regression")
    home = RunDir(run.root.parent / "home")
    values = [f"{1.5 * (i % 2) + 0.01 * i:.3f}" for i in range(N)]
    training = trained(home, cohort(home, "t", N, label=values), spec)
    found = apply(training, run, cohort(run, "e", N, seed=1, slides=(2,), label=[*values[:-1], "high"]))
    table = pd.read_csv(found.path, dtype={"label": str})
    known = table[table["label"] != "high"]
    truth = known["label"].astype(float)
    assert found.metrics is not None
    assert found.folder.name == "mean.regression"
    got = {name: one["value"] for name, one in found.metrics["pooled"].items()}
    assert got["mae"] == pytest.approx(sk.mean_absolute_error(truth, known["predicted"]), rel=1e-5)
    assert got["r2"] == pytest.approx(sk.r2_score(truth, known["predicted"]), rel=1e-4)
    assert got["spearman"] == pytest.approx(stats.spearmanr(truth, known["predicted"]).statistic, rel=1e-5)
    assert found.metrics["unknown_labels"] == {"high": ["e23-0", "e23-1"]}
    assert found.patients is not None
    np.testing.assert_allclose(
        found.patients["predicted"], table.groupby("patient_id", sort=False)["predicted"].mean(), rtol=1e-6
    )


@pytest.mark.parametrize("loss", ["discrete", "cox"])
def test_survival_is_measured(run: RunDir, loss: str) -> None:
    spec = replace(QUICK, task="survival", survival_loss=loss, time_bins=3)
    home = RunDir(run.root.parent / "home")
    time = [float(3 + 10 * ((i + 1) % 2) + i % 5) for i in range(N)]
    event = [int(i % 4 != 3) for i in range(N)]
    training = trained(home, cohort(home, "t", N, time=time, event=event), spec)
    found = apply(training, run, cohort(run, "e", N, seed=1, time=[*time[:-1], None], event=[*event[:-1], None]))
    assert found.metrics is not None
    table = found.table.iloc[:-1]
    ordered = [
        (a, b)
        for a in range(len(table)) for b in range(len(table))
        if event[a] and (time[a] < time[b] or (time[a] == time[b] and not event[b]))
    ]  # fmt: skip
    risk = table["risk"].to_numpy()
    wins = [float(risk[a] > risk[b]) + 0.5 * float(risk[a] == risk[b]) for a, b in ordered]
    assert found.metrics["pooled"]["c_index"]["value"] == pytest.approx(np.mean(wins))
    cut = median_risk(training, home)
    assert training.metrics["risk_cut"]["value"] == pytest.approx(cut)
    assert (found.table["risk_group"] == np.where(found.table["risk"] > cut, "high", "low")).all()
    low, high = (table["risk_group"].to_numpy() == name for name in ("low", "high"))
    curves = found.metrics["survival"]
    assert (curves["value"], curves["cut"]) == (
        training.metrics["risk_cut"]["value"],
        f"median risk in training, {cut:.4g}",
    )
    assert [(group["name"], group["n"]) for group in curves["groups"]] == [
        (f"{name} risk", rows.sum()) for name, rows in (("low", low), ("high", high)) if rows.any()
    ]
    if low.any() and high.any():
        times = [
            stats.CensoredData.right_censored(np.array(time[:-1])[own], np.array(event[:-1])[own] == 0)
            for own in (low, high)
        ]
        assert curves["logrank"]["p_value"] == pytest.approx(stats.logrank(*times).pvalue)
    again = pd.read_csv(found.path)
    assert again["risk_group"].tolist() == found.table["risk_group"].tolist()
    metrics = json.loads((training.folder / "metrics.json").read_text())
    del metrics["risk_cut"]
    (training.folder / "metrics.json").write_text(json.dumps(metrics))
    older = cut_of(training.folder, load_ensemble(training.folder))
    assert older is None if loss == "cox" else older == RiskCut(pytest.approx(cut, rel=1e-6))
    assert ("integrated_brier" in found.metrics["pooled"]) == (loss == "discrete")
    assert found.metrics["left_out"] == {"e23-0": "no time and event"}


def median_risk(training: Training, home: RunDir) -> float:
    """By the definition: each patient by the model of the fold that tested it, a Cox risk against the reference."""
    model = load_ensemble(training.folder)
    told, risks = training.predictions, []
    for fold, rows in told.groupby("fold"):
        one = replace(model, models=(model.models[fold],), tasks=(model.tasks[fold],), specs=(model.specs[fold],))
        records = [SlideRecord(slide, Path(slide), slide) for slide in rows["slide_id"]]
        slides = gather(home, records, "colour")
        risks += predict(one, slides.bags)["risk"].tolist()
    return float(np.median(risks))


def test_parts_that_run_at_once_fill_one_table(training: Training, run: RunDir) -> None:
    records = cohort(run, "e", N, slides=(2, 1), label=LABELS)
    parts = [records[k::5] for k in range(5)]
    with ThreadPoolExecutor(5) as pool:
        list(pool.map(lambda part: apply(training, run, part, records), parts))
    folder = run.predict("colour", "mean")
    together = (folder / "predictions.csv").read_text(), (folder / "metrics.json").read_text()
    whole = apply(training, run, records)
    assert whole.path.read_text() == together[0]
    assert (folder / "metrics.json").read_text() == together[1]
    assert pd.read_csv(whole.path)["slide_id"].tolist() == [record.slide_id for record in records]
    again = apply(training, run, records[:1], records)
    assert (len(again.table), len(again.whole)) == (1, len(records))
    assert whole.path.read_text() == together[0]


def test_rows_of_before_have_the_outcomes_of_today_and_of_slides_that_left_are_kept(
    training: Training, run: RunDir
) -> None:
    records = cohort(run, "e", 8, label=LABELS[:8])
    apply(training, run, records)
    today = tuple(replace(record, label="b") if k == 0 else record for k, record in enumerate(records[:6]))
    found = apply(training, run, today[1:2], today)
    table = pd.read_csv(found.path)
    assert table["slide_id"].tolist() == [record.slide_id for record in records]
    assert table["label"].tolist() == ["b", *LABELS[1:8]]
    assert found.metrics is not None
    assert found.metrics["n_slides"] == 6


def test_another_model_of_the_same_name_has_a_folder_of_its_own(training: Training, run: RunDir) -> None:
    records = cohort(run, "e", 6, label=LABELS[:6])
    first = apply(training, run, records)
    before = first.path.read_bytes()
    home = RunDir(run.root.parent / "other")
    other = trained(home, cohort(home, "t", N, seed=5, label=LABELS), replace(QUICK, seed=1))
    second = apply(other, run, records[:2], records)
    fingerprint = load_ensemble(other.folder).fingerprint
    assert second.folder == run.predict("colour", f"mean-{fingerprint[:8]}")
    assert len(second.whole) == 2
    assert apply(other, run, records[2:], records).folder == second.folder
    assert first.path.read_bytes() == before
    assert apply(training, run, records).folder == first.folder


def test_predictions_of_a_training_that_was_done_again_move_aside(run: RunDir) -> None:
    records = cohort(run, "t", N, label=LABELS)
    first = apply(trained(run, records), run, records)
    before = first.path.read_bytes()
    again = trained(run, records, replace(QUICK, seed=3), replace=True)
    second = apply(again, run, records[:3], records)
    assert second.folder == first.folder
    assert len(second.whole) == 3
    assert second.former is not None
    assert (second.former / "predictions.csv").read_bytes() == before


@pytest.mark.parametrize("first", [True, False])
def test_a_patient_is_never_predicted_by_a_part_of_its_slides(run: RunDir, first: bool) -> None:
    spec = replace(QUICK, bag="patient")
    home = RunDir(run.root.parent / "home")
    training = trained(home, cohort(home, "t", N, label=LABELS), spec)
    records = cohort(run, "e", 9, slides=(3, 1), label=LABELS[:9])
    whole = apply(training, RunDir(run.root), records).whole
    (training.folder.parent / "unused").mkdir()
    chunks = [whole_patients(records[k::4], records, first=first) for k in range(4)]
    if first:
        assert sorted(r.slide_id for part in chunks for r in part) == sorted(r.slide_id for r in records)
    for part in chunks:
        if part:
            found = apply(training, run, part, records)
    pd.testing.assert_frame_equal(found.whole, whole, check_dtype=False, atol=1e-6)
    assert found.patients is None
    assert found.metrics is not None
    assert found.metrics["n_patients"] == 9


def test_without_validation_slides_there_is_no_cut(run: RunDir) -> None:
    home = RunDir(run.root.parent / "home")
    spec: MilSpec = replace(QUICK, val_fraction=0.0, epochs=2)
    training = trained(home, cohort(home, "t", N, label=LABELS), spec)
    found = apply(training, run, cohort(run, "e", 6, label=LABELS[:6]))
    assert "predicted_at_cut" not in found.table
    assert found.metrics is not None
    assert "threshold" not in found.metrics


def test_the_report_shows_what_an_external_cohort_says(training: Training, run: RunDir) -> None:
    records = cohort(run, "e", N, slides=(2, 1), seed=1, label=[*LABELS[:-1], "c"])
    found = apply(training, run, records)
    page = write_report(run, Cohort(records, "here")).read_text(encoding="utf-8")
    assert found.metrics is not None
    area = found.metrics["pooled"]["auroc"]
    words = f"{area['value']:.3f} ({area['low']:.3f}–{area['high']:.3f})"
    assert "External test, by slide" in page
    assert "External test, by patient" in page
    assert words in page
    assert "on an external test set, 35 slides from 23 patients." in page
    assert "colour with mean reaches an AUROC" in page
    cut = found.metrics["threshold"]["value"]
    assert f"chosen on validation slides of the training (chosen in training {cut:.3f})" in page
    assert "a label that is not a class of the model (a, b) was excluded: &#39;c&#39; (e23-0)." in page
    again = RunDir(run.root / "seen")
    records = cohort(again, "t", N, label=LABELS)
    apply(training, again, records)
    page = write_report(again, Cohort(records, "here")).read_text(encoding="utf-8")
    assert "Not an external test, by slide" in page
    assert "on patients it was trained on, 24 slides from 24 patients." in page


def compared(a: Path, b: Path, out: Path) -> dict[str, Any]:
    assert main(["compare", str(a), str(b), "--bootstrap", "100", "--json", str(out)]) == 0
    (found,) = json.loads(out.read_text())
    assert isinstance(found, dict)
    return found


def test_predictions_are_compared_with_predictions_and_with_a_validation(
    training: Training, run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = cohort(run, "e", N, seed=1, label=[*LABELS[:-1], "c"])
    mine = apply(training, run, records)
    home = RunDir(tmp_path / "home")
    other = apply(trained(home, cohort(home, "u", N, seed=7, label=LABELS)), run, records)
    found = compared(mine.folder, other.folder, tmp_path / "1.json")
    assert found["n_patients"] == N - 1
    assert mine.metrics is not None
    assert other.metrics is not None
    assert found["metrics"]["auroc"]["a"] == pytest.approx(mine.metrics["pooled"]["auroc"]["value"])
    assert found["metrics"]["auroc"]["b"] == pytest.approx(other.metrics["pooled"]["auroc"]["value"])
    assert "A and B: predictions of finished models" in capsys.readouterr().out
    validation = trained(run, records[:-1])
    found = compared(mine.folder, validation.folder, tmp_path / "2.json")
    assert found["metrics"]["auroc"]["b"] == pytest.approx(validation.metrics["pooled"]["auroc"]["value"], abs=1e-6)
    seen = apply(validation, run, records)
    assert main(["compare", str(seen.folder), str(validation.folder)]) == 2
    assert "has no test predictions: all are of patients the model was trained on" in capsys.readouterr().err


def test_other_slides_of_the_same_patients_are_compared_by_patient(
    training: Training, run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = apply(training, run, cohort(run, "e", N, seed=1, slides=(2, 1), label=LABELS))
    other = RunDir(tmp_path / "other")
    validation = trained(other, cohort(other, "e", N, seed=3, slides=(1, 3), label=LABELS))
    found = compared(mine.folder, validation.folder, tmp_path / "1.json")
    assert (found["n_patients"], found["n_slides"]) == (N, N)
    assert mine.metrics is not None
    assert found["metrics"]["auroc"]["a"] == pytest.approx(mine.metrics["by_patient"]["pooled"]["auroc"]["value"])
    rows = validation.predictions
    scores = rows.groupby("patient_id")[["p_b"]].mean()["p_b"]
    truth = rows.groupby("patient_id")["label"].first() == "b"
    assert found["metrics"]["auroc"]["b"] == pytest.approx(sk.roc_auc_score(truth, scores), abs=1e-6)
    assert "compared by patient" in capsys.readouterr().out
