"""Metrics of a finished model on other patients, with the same content as those of cross-validation.

Rows with an outcome that cannot be scored (a class the model was not trained on, an invalid time) are excluded and
named, and so are rows of patients the model was trained on. If all rows belong to such patients they are measured
anyway, `external` is false, and the first warning says what that means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks import choose_class
from wsi_pipeline.mil.tasks.classification import ClassEvaluation
from wsi_pipeline.mil.tasks.survival import SurvivalEvaluation, outcome_of
from wsi_pipeline.mil.tasks.task import Task, numbers_of
from wsi_pipeline.mil.training.seeding import sub_seed
from wsi_pipeline.mil.validation.classification_report import rates_json
from wsi_pipeline.mil.validation.validation_metrics import (
    class_json,
    metric_warnings,
    permutation_json,
    pooled_estimates,
)
from wsi_pipeline.statistics.estimates import LEVEL, Resampler
from wsi_pipeline.wording import agreed, counted, listed

Json = dict[str, Any]

AT_CUT, RISK_GROUP, SEEN = "predicted_at_cut", "risk_group", "patient_in_training"
"""Columns: class at the threshold chosen in training; `high` or `low` risk by the median of training; whether the model
was trained on the patient, `yes` or `no`."""

SAYS = (
    "fraction of label permutations across patients that fit the predictions at least as well as the true labels do; "
    "what the predictions rest on (tumour, stain, hospital) is not tested"
)


@dataclass(frozen=True)
class Cut:
    """Decision threshold of a two-class model, as chosen in training."""

    positive: str
    value: float

    def called(self, table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
        """The class of each row: `positive` at or above the threshold, else the other one."""
        (other,) = (name for name in classes if name != self.positive)
        above = table[f"p_{self.positive}"].to_numpy(np.float64) >= self.value
        return [self.positive if yes else other for yes in above]


@dataclass(frozen=True)
class RiskCut:
    """Risk above which a patient is in the high-risk group: the median of the training patients."""

    value: float

    def called(self, table: pd.DataFrame) -> list[str]:
        """`high` or `low` for each row."""
        return ["high" if risk > self.value else "low" for risk in table["risk"].to_numpy(np.float64)]


def with_calls(table: pd.DataFrame, cut: Cut | RiskCut | None, classes: Sequence[str] = ()) -> pd.DataFrame:
    """The table with the calls at a cut in a column after the prediction: AT_CUT for classes, RISK_GROUP for risks."""
    if isinstance(cut, Cut):
        table.insert(list(table.columns).index("predicted") + 1, AT_CUT, cut.called(table, classes))
    elif cut is not None:
        table.insert(list(table.columns).index("risk") + 1, RISK_GROUP, cut.called(table))
    return table


@dataclass(frozen=True)
class Usable:
    """Mask of the rows that can be scored, and the names of rows with an outcome that cannot, by outcome."""

    rows: np.ndarray[Any, np.dtype[np.bool_]]
    unknown: dict[str, list[str]]


def external_metrics(
    task: Task, table: pd.DataFrame, spec: MilSpec, cut: Cut | RiskCut | None, warnings: Sequence[str] = ()
) -> Json | None:
    """The metrics of a prediction table (slide_id, patient_id, outcome and prediction columns, perhaps SEEN).

    spec   settings of the training: bag, bootstrap, permutations and seed
    cut    chosen in training, for two classes or a risk

    None if no row has an outcome. If none can be scored, `pooled` is missing and `warnings` has the reason.
    """
    if not set(task.columns) <= set(table) or table[list(task.columns)].isna().any(axis=1).all():
        return None
    names = table["slide_id"].astype(str)
    usable = usable_rows(task, table, names)
    seen = (table[SEEN] == "yes").to_numpy() if SEEN in table else np.zeros(len(table), bool)
    unseen = usable.rows & ~seen
    external = bool(unseen.any())
    rows = unseen if external else usable.rows
    notes = [*_about_seen(usable.rows, seen, spec), *_about_unknown(task, usable.unknown, spec), *warnings]
    found: Json = {"task": task.name, "bag": spec.bag, "external": external}
    if rows.any():
        found |= _measured(task, table[rows].reset_index(drop=True), spec, cut, notes)
    without = table[list(task.columns)].isna().any(axis=1).to_numpy()
    left_out = {name: "no " + " and ".join(task.columns) for name in names[without]}
    left_out |= {name: f"{'/'.join(task.columns)} {value}" for value, own in usable.unknown.items() for name in own}
    if external:
        left_out |= dict.fromkeys(names[usable.rows & seen], "the model was trained on this patient")
    return {**found, "warnings": notes, "unknown_labels": usable.unknown, "left_out": left_out}


def by_patient(task: Task, table: pd.DataFrame, cut: Cut | RiskCut | None = None) -> tuple[pd.DataFrame, list[str]]:
    """One row per patient: the mean of the predictions of its slides, and the outcome they agree on.

    Returns (patient_id, n_slides, outcome, prediction columns, SEEN), patients in the order of their first slide, and
    the patients whose slides disagree in the outcome, which is missing for them.
    """
    made = list(task.outcomes(np.zeros((0, task.n_outputs))).columns)
    numbers = [name for name in made if name in table and not (task.classes and name == "predicted")]
    groups = table.groupby(table["patient_id"].astype(str), sort=False)
    means = groups[numbers].mean()
    found = pd.DataFrame({"patient_id": means.index, "n_slides": groups.size().to_numpy()})
    outcomes, conflicting = [column for column in task.columns if column in table], set[str]()
    for column in outcomes:
        values = [list(dict.fromkeys(own.dropna())) for _, own in groups[column]]
        conflicting |= {who for who, own in zip(means.index, values, strict=True) if len(own) > 1}
        found[column] = pd.Series([own[0] if len(own) == 1 else None for own in values], dtype=object)
    if outcomes:
        found.loc[found["patient_id"].isin(conflicting), outcomes] = None
    if task.classes:
        codes = choose_class(task, means[[f"p_{name}" for name in task.classes]].to_numpy())
        found["predicted"] = [task.classes[code] for code in codes]
    for name in numbers:
        found[name] = means[name].to_numpy()
    found = with_calls(found, cut, task.classes)
    if SEEN in table:
        found[SEEN] = ["yes" if (own == "yes").any() else "no" for _, own in groups[SEEN]]
    return found, sorted(conflicting)


def usable_rows(task: Task, table: pd.DataFrame, names: pd.Series[str]) -> Usable:
    """The rows with an outcome that the task can score; other outcomes, with the names of their rows."""
    known = table[list(task.columns)].notna().all(axis=1).to_numpy()
    rows, unknown = known.copy(), dict[str, list[str]]()
    for i in np.flatnonzero(known).tolist():
        if not _measurable(task, table.iloc[[i]]):
            rows[i] = False
            value = " ".join(str(table[column].iloc[i]) for column in task.columns)
            unknown.setdefault(value, []).append(str(names.iloc[i]))
    return Usable(rows, unknown)


def _measurable(task: Task, row: pd.DataFrame) -> bool:
    if task.classes:
        return str(row["label"].iloc[0]) in task.classes
    try:
        numbers_of(row, "label") if task.name == "regression" else outcome_of(row)
    except MilError:
        return False
    return True


def _measured(task: Task, table: pd.DataFrame, spec: MilSpec, cut: Cut | RiskCut | None, notes: list[str]) -> Json:
    """All metrics of the rows that can be scored; warnings about them are appended to `notes`."""
    resampler = Resampler(table["patient_id"], spec.bootstrap, sub_seed(spec.seed, 2, 0))
    plain = table.drop(columns=["repeat", "fold"], errors="ignore")
    evaluation = task.evaluate(plain)
    pooled, _ = pooled_estimates([(np.ones(len(plain), bool), evaluation)], resampler)
    notes += metric_warnings(task, plain, pooled, spec.bootstrap)
    found: Json = {
        **evaluation.details(),
        **({"n_slides": len(plain)} if spec.bag == "slide" else {}),
        "n_patients": resampler.n,
        "interval": {
            "level": LEVEL, "unit": "patient", "resamples": spec.bootstrap,
            "method": "percentile bootstrap of the predictions",
        },
        "pooled": pooled,
        "chance": evaluation.chance(),
        "permutation": permutation_json(task, plain, [evaluation], spec, SAYS),
    }  # fmt: skip
    if isinstance(evaluation, ClassEvaluation):
        found |= class_json(plain, evaluation, resampler)
        if isinstance(cut, Cut) and AT_CUT in plain:
            found |= {"threshold": _threshold(plain, evaluation, cut, resampler)}
    if isinstance(evaluation, SurvivalEvaluation) and isinstance(cut, RiskCut):
        found |= evaluation.groups(above=cut.value)
    return found


def _threshold(table: pd.DataFrame, evaluation: ClassEvaluation, cut: Cut, resampler: Resampler) -> Json:
    positive = evaluation.scored.truth == evaluation.classes.index(cut.positive)
    called = (table[AT_CUT].astype(str) == cut.positive).to_numpy()
    return {
        "class": cut.positive,
        "value": cut.value,
        "value_is": "chosen in training",
        "chosen_on": "validation slides of the training",
        "rule": "highest sensitivity + specificity",
        **rates_json(table, positive, called, resampler),
    }


def _about_seen(usable: np.ndarray[Any, Any], seen: np.ndarray[Any, Any], spec: MilSpec) -> list[str]:
    """A warning if rows belong to patients the model was trained on."""
    n, every = int((usable & seen).sum()), int(usable.sum())
    if not n:
        return []
    if n == every:
        return [
            f"Not an external test: all {counted(every, spec.bag)} with an outcome belong to patients the model was "
            "trained on, so these metrics are too optimistic; use the cross-validated metrics of train-mil instead."
        ]
    return [
        f"{n} of {counted(every, spec.bag)} with an outcome belong to patients the model was trained on "
        "and were excluded from these metrics."
    ]


def _about_unknown(task: Task, unknown: dict[str, list[str]], spec: MilSpec) -> list[str]:
    if not unknown:
        return []
    classes = task.classes
    parts = [f"{value!r}{_meant(value, classes)} ({listed(names, 3)})" for value, names in unknown.items()]
    n = sum(len(names) for names in unknown.values())
    reason = f"a label that is not a class of the model ({', '.join(classes)})" if classes else "an invalid outcome"
    return [f"{counted(n, spec.bag)} with {reason} {agreed(n, 'was')} excluded: {listed(parts)}."]


def _meant(value: str, classes: Sequence[str]) -> str:
    """` (use the spelling 'mutant')` if a label differs from a class in spelling only."""
    alike = [name for name in classes if _folded(name) == _folded(value)]
    return f" (use the spelling {alike[0]!r})" if alike else ""


def _folded(label: str) -> str:
    return " ".join(label.casefold().replace("_", " ").replace("-", " ").split()).removesuffix(".0")
