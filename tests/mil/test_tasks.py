"""Every task: its JSON, its predictions, its strata and scores, and what it refuses in plain words."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.synthetic import QUICK
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MilModel, build_model
from wsi_pipeline.mil.tasks import Task, make_task, task_from_json
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.tasks.regression import RegressionTask
from wsi_pipeline.mil.tasks.survival import CoxTask, DiscreteTask
from wsi_pipeline.mil.trained.checkpoint import load_ensemble, save_ensemble
from wsi_pipeline.mil.trained.inference import outputs, predict
from wsi_pipeline.mil.training.fit import fit

SPECS = {
    "classes": MilSpec(),
    "grades": MilSpec(task="ordinal", grades="a,b,c"),
    "number": MilSpec(task="regression"),
    "hazards": MilSpec(task="survival"),
    "cox": MilSpec(task="survival", survival_loss="cox"),
}
every = pytest.mark.parametrize("kind", SPECS)


def cohort(n: int = 60, seed: int = 0) -> pd.DataFrame:
    """A table with every kind of outcome, two slides a patient."""
    rng = np.random.default_rng(seed)
    patients = np.arange(n) // 2
    time = np.round(rng.exponential(100, n // 2 + 1) + 1, 1)[patients]
    return pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{p}" for p in patients],
            "label": np.array(["a", "b", "c"])[patients % 3],
            "time": time,
            "event": rng.integers(0, 2, n // 2 + 1)[patients],
        }
    )


def table_of(kind: str, n: int = 60) -> pd.DataFrame:
    table = cohort(n)
    if kind == "number":
        table["label"] = np.random.default_rng(3).normal(5, 2, n).round(3).astype(str)
    return table


def told(kind: str, seed: int = 1) -> tuple[Task, pd.DataFrame]:
    """A task, and predictions of random outputs in two folds."""
    table = table_of(kind)
    task = make_task(table, SPECS[kind])
    found = task.outcomes(np.random.default_rng(seed).normal(size=(len(table), task.n_outputs)))
    return task, pd.concat([table, found], axis=1).assign(fold=(table["patient_id"].str[1:].astype(int) % 2))


@every
def test_json_brings_a_task_back(kind: str) -> None:
    task = make_task(table_of(kind), SPECS[kind])
    assert task_from_json(json.loads(json.dumps(task.to_json(), allow_nan=False))) == task


@every
def test_scores_are_resampled_ones_with_weights_of_one(kind: str) -> None:
    task, predictions = told(kind)
    score = task.evaluate(predictions).values()
    sampled = task.evaluate(predictions).resampled(np.ones((2, len(predictions))))
    assert set(score) == set(sampled)
    assert set(task.headline) <= set(score)
    for name, value in score.items():
        assert sampled[name].tolist() == pytest.approx([value, value])


@every
@pytest.mark.parametrize("seed", [0, 1])
def test_weights_are_rows_repeated(kind: str, seed: int) -> None:
    task, predictions = told(kind)
    weights = np.random.default_rng(seed).integers(0, 3, len(predictions))
    repeated = task.evaluate(predictions.iloc[np.repeat(np.arange(len(predictions)), weights)]).values()
    sampled = task.evaluate(predictions).resampled(weights[None].astype(float))
    assert {name: values[0] for name, values in sampled.items()} == pytest.approx(repeated)


@every
def test_details_and_scores_are_json(kind: str) -> None:
    task, predictions = told(kind)
    found = task.evaluate(predictions)
    assert json.loads(json.dumps(found.details() | found.values(), allow_nan=False))
    with pytest.raises(MilError, match="no predictions"):
        task.evaluate(predictions.head(0)).values()


@every
def test_strata_are_numbered_from_0_and_large_enough_for_folds(kind: str) -> None:
    table = table_of(kind)
    codes = make_task(table, SPECS[kind]).strata(table)
    assert codes.dtype == np.int64
    assert np.unique(codes).tolist() == list(range(codes.max() + 1))
    assert np.bincount(codes).min() >= 5
    if kind in ("hazards", "cox"):
        assert all(table["event"][codes == code].nunique() == 1 for code in range(codes.max() + 1))


@every
def test_no_rows_have_no_predictions(kind: str) -> None:
    task, predictions = told(kind)
    none = task.outcomes(np.zeros((0, task.n_outputs)))
    assert len(none) == 0
    assert set(none.columns) <= set(predictions.columns)


def test_selection_is_higher_for_better() -> None:
    task, predictions = told("number")
    better = predictions.assign(predicted=predictions["label"].astype(float) + 0.01)
    assert task.evaluate(better).selection() == pytest.approx(-0.01)
    assert task.evaluate(better).selection() > task.evaluate(predictions).selection()
    task, predictions = told("hazards")
    assert task.evaluate(predictions.assign(risk=-predictions["time"])).selection() == 1
    task, predictions = told("classes")
    assert np.isnan(task.evaluate(predictions[predictions["label"] == "a"]).selection())


def test_regression_learns_mean_and_spread_of_the_rows_it_is_given() -> None:
    table = table_of("number")
    task, part = make_task(table, SPECS["number"]), table.head(20)
    values = part["label"].astype(float)
    learned = task.learned(part)
    assert isinstance(learned, RegressionTask)
    assert (learned.mean, learned.sd) == pytest.approx((values.mean(), values.std(ddof=0)))
    scaled = task.learned(part).objective(part, SPECS["number"]).values
    assert (float(scaled.mean()), float(scaled.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)
    one = part.head(1)
    assert task.learned(one) == RegressionTask(float(one["label"].iloc[0]), task.sd)
    assert task.outcomes(np.array([[0.0], [1.0]]))["predicted"].tolist() == [task.mean, task.mean + task.sd]


def test_only_regression_learns_from_training_rows() -> None:
    for kind in ("classes", "grades", "hazards", "cox"):
        task = make_task(table_of(kind), SPECS[kind])
        assert task.learned(table_of(kind).head(4)) == task


@settings(deadline=None)
@given(
    st.lists(st.floats(0.1, 50), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.floats(-6, 6), min_size=6, max_size=6),
)
def test_survival_falls_and_risk_is_the_area_above_it(widths: list[float], values: list[float]) -> None:
    edges = np.cumsum(widths)
    task = DiscreteTask(tuple(edges.tolist()))
    row = task.outcomes(np.array([values[: len(edges)]])).iloc[0]
    curve = np.array([1.0, *row[list(task.survived)]])
    assert (np.diff(curve) <= 0).all()
    assert (curve >= 0).all()
    area = np.trapezoid(1 - curve, [0, *edges])
    assert row["risk"] == pytest.approx(area, abs=1e-6 * edges[-1])


def test_a_higher_hazard_is_a_higher_risk() -> None:
    low, high = DiscreteTask((1.0, 2.0, 10.0)).outcomes(np.array([[-2.0, -2, -2], [-2.0, 1, -2]]))["risk"]
    assert low < high


def test_intervals_hold_equal_numbers_of_events() -> None:
    table = pd.DataFrame({"slide_id": list("abcdefgh"), "patient_id": list("abcdefgh")})
    table = table.assign(time=[1, 2, 3, 4, 5, 6, 7, 8], event=[1, 1, 1, 0, 1, 1, 1, 0])
    assert make_task(table, MilSpec(task="survival", time_bins=3)) == DiscreteTask((2.0, 5.0, 7.0))
    assert make_task(table, MilSpec(task="survival", time_bins=50)) == DiscreteTask((1.0, 2.0, 3.0, 5.0, 6.0, 7.0))
    assert DiscreteTask((365.0, 412.5)).survived == ("p_survived_365", "p_survived_412.5")


def test_a_patient_with_many_slides_does_not_move_the_intervals() -> None:
    table = cohort(40)
    more = pd.concat([table, *[table.head(2).assign(slide_id=[f"x{i}", f"y{i}"]) for i in range(30)]])
    assert make_task(more.reset_index(drop=True), SPECS["hazards"]) == make_task(table, SPECS["hazards"])


def test_cox_risks_are_compared_within_a_fold_only() -> None:
    """Each fold orders its patients rightly, on a scale of its own: perfect within, mixed across."""
    table = cohort(40).drop_duplicates("patient_id").assign(event=1).reset_index(drop=True)
    fold = np.arange(len(table)) % 2
    rows = table.assign(fold=fold, risk=-table["time"] + 1000 * fold)
    assert CoxTask().evaluate(rows).values() == {"c_index": 1}
    discrete = DiscreteTask((10.0,)).evaluate(rows.assign(p_survived_10=0.5)).values()["c_index"]
    assert discrete is not None
    assert discrete < 0.9
    halves = CoxTask().evaluate(rows).details()["survival"]
    assert [group["n"] for group in halves["groups"]] == [10, 10]
    assert halves["logrank"]["p_value"] < 0.01


def test_curves_are_of_patients() -> None:
    task, predictions = told("hazards")
    halves = task.evaluate(predictions).details()["survival"]
    assert sum(group["n"] for group in halves["groups"]) == predictions["patient_id"].nunique() == 30
    assert halves["unit"] == "patient"


def refused(table: pd.DataFrame, **spec: str) -> str:
    with pytest.raises(MilError) as caught:
        make_task(table, MilSpec(**spec))  # type: ignore[arg-type]
    return str(caught.value)


def test_what_is_no_classification() -> None:
    table = cohort(12)
    assert refused(table.assign(label="a")).startswith("every slide has the label a; training needs at least 2 classes")
    numbers = [f"{value:.2f}" for value in np.linspace(0, 1, 12)]
    assert "use --task regression" in refused(table.assign(label=numbers))
    assert "they look like identifiers" in refused(table.assign(label=table["patient_id"] + "x"))
    assert refused(table.drop(columns="label")).startswith("the slides have no column `label`")
    assert refused(table.assign(label=["a", None] * 6)) == "label is missing for s1, s3, s5, s7, s9 and 1 more"


def test_grades_are_classes() -> None:
    table = cohort(60)
    task = make_task(table.assign(label=[str(i // 2 % 6) for i in range(60)]), MilSpec())
    assert task == ClassificationTask(("0", "1", "2", "3", "4", "5"))
    codes = ClassificationTask(("b", "a")).strata(table.assign(label=["a", "b"] * 30))
    assert codes.tolist() == [1, 0] * 30
    with pytest.raises(MilError, match="s2: label must be one of a, b, got 'c'"):
        ClassificationTask(("a", "b")).strata(table.head(6).assign(label=list("aacbca")))


def test_what_is_no_regression() -> None:
    table = table_of("number", 12)
    assert refused(table.assign(label=["1", "high"] * 6), task="regression") == (
        "s1: label must be a number, got 'high'"
    )
    assert refused(table.assign(label="3"), task="regression").startswith("every slide has the label 3;")
    assert make_task(table.assign(label=["0,5", "1,5"] * 6), MilSpec(task="regression")) == RegressionTask(1.0, 0.5)


def test_what_is_no_survival() -> None:
    table = cohort(12)
    assert refused(table.assign(event=0), task="survival").startswith("no patient has an event")
    few = table.assign(event=(table["patient_id"] == "p1").astype(int))
    assert refused(few, task="survival").startswith("only 1 patient has an event")
    assert refused(table.assign(time=[0, *table["time"][1:]]), task="survival") == (
        "s0: time must be a positive number, got 0"
    )
    assert refused(table.assign(event=[2, *table["event"][1:]]), task="survival") == "s0: event must be 0 or 1, got 2"
    other = refused(table.assign(time=np.arange(1, 13), event=1), task="survival")
    assert other.startswith("slides of patient p0 differ in time (s0, s1)")
    assert refused(table.assign(time=4.0, event=1), task="survival").startswith("all events are at one time, 4")
    with pytest.raises(MilError, match="--batch-bags is 1"):
        make_task(table, MilSpec(task="survival", survival_loss="cox", batch_bags=1))


def graded(n: int = 60) -> tuple[Bags, pd.DataFrame]:
    """Slides whose share of bright instances tells a number, and how early the event is."""
    rng = np.random.default_rng(5)
    share = rng.uniform(0, 1, n)
    arrays = []
    for part in share:
        features = rng.normal(size=(40, 8))
        features[: round(40 * part), 0] += 3
        arrays.append(features.astype(np.float32))
    seen = rng.random(n) < 0.7
    time = np.where(seen, 1, rng.uniform(0.2, 1, n)) * np.exp(3 - 3 * share + 0.1 * rng.normal(size=n))
    ids = [f"s{i}" for i in range(n)]
    outcome = {"label": 10 + 100 * share, "time": time, "event": seen.astype(int)}
    return Bags.from_arrays(arrays, ids), pd.DataFrame({"slide_id": ids, "patient_id": ids, **outcome})


def fitted(kind: str) -> tuple[Task, MilModel, Bags, pd.DataFrame, MilSpec]:
    """A model trained on the first 40 of 60 graded slides."""
    bags, table = graded()
    spec = replace(QUICK, task=SPECS[kind].task, survival_loss=SPECS[kind].survival_loss, model="mean", batch_bags=20)
    train = np.arange(40)
    task = make_task(table, spec).learned(table.iloc[train])
    model = fit(bags, task.objective(table, spec), train, np.empty(0, np.int64), spec, seed=0).model
    return task, model, bags, table, spec


@pytest.mark.parametrize("kind", ["number", "hazards", "cox"])
def test_what_is_in_the_slides_is_learned(kind: str) -> None:
    task, model, bags, table, _ = fitted(kind)
    test = np.arange(40, 60)
    found = task.outcomes(outputs(model, bags, test))
    score = task.evaluate(pd.concat([table.iloc[test].reset_index(drop=True), found], axis=1)).values()
    assert score["c_index" if "c_index" in score else "spearman"] > 0.85  # type: ignore[operator]


@pytest.mark.parametrize("kind", ["number", "hazards", "cox"])
def test_an_ensemble_tells_the_mean_of_its_folds_and_their_spread(kind: str, tmp_path) -> None:
    table = table_of(kind)
    spec = replace(SPECS[kind], hidden_dim=6, attention_dim=4)
    task = make_task(table, spec)
    tasks = [RegressionTask(1, 2), RegressionTask(0, 5)] if isinstance(task, RegressionTask) else [task, task]
    models = [build_model(spec, 5, task.n_outputs) for _ in range(2)]
    save_ensemble(tmp_path, models, spec=spec, task=task, encoder={}, provenance={}, tasks=tasks)
    ensemble = load_ensemble(tmp_path)
    rng = np.random.default_rng(0)
    bags = Bags.from_arrays([rng.normal(size=(n, 5)).astype(np.float32) for n in (4, 1, 0)], ["a", "b", "c"])
    found = predict(ensemble, bags)
    each = [own.outcomes(outputs(model, bags)) for own, model in zip(tasks, ensemble.models, strict=True)]
    if task.relative:
        zero = Bags.from_arrays([np.zeros((1, 5), np.float32)], ["zero"])
        each = [one - outputs(m, zero)[0, 0] for one, m in zip(each, ensemble.models, strict=True)]
    assert found.columns.tolist() == ["slide_id", *each[0].columns, "spread"]
    np.testing.assert_allclose(found[each[0].columns], (each[0] + each[1]) / 2)
    main = each[0].columns[0]
    np.testing.assert_allclose(found["spread"], abs(each[0][main] - each[1][main]) / 2)
    assert len(predict(ensemble, bags.subset([]))) == 0
