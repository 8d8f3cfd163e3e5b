"""Targets of one run side by side: metric, interval, and p-values corrected for the number of targets."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from wsi_pipeline.cohort.formulas import safe_cell
from wsi_pipeline.report.data import Estimate, ModelSection, as_number
from wsi_pipeline.statistics.metric_words import metric_words, target_name
from wsi_pipeline.statistics.permutation import holm
from wsi_pipeline.wording import listed


@dataclass(frozen=True)
class TargetRow:
    """One target: size of the test set, headline metric, and p-value of the permutation test, raw and corrected."""

    target: str
    task: str
    model: str
    classes: tuple[str, ...]
    slides: int | None
    patients: int | None
    metric: str
    estimate: Estimate | None
    p_value: float | None
    p_holm: float | None


@dataclass(frozen=True)
class TargetGroup:
    """The targets for which one kind of model was trained on the features of one encoder.

    shared   groups of targets that were cross-validated on the same folds
    """

    encoder: str
    model: str
    rows: tuple[TargetRow, ...]
    shared: tuple[tuple[str, ...], ...]

    @property
    def tested(self) -> int:
        """Number of targets with a p-value."""
        return sum(row.p_value is not None for row in self.rows)

    @property
    def words(self) -> str:
        """Caption: what the p-values are, and which targets share folds."""
        tests = "No permutation test was run."
        if self.tested:
            tests = (
                "p: permutation test of the metric shown. p (Holm): corrected for the "
                f"{self.tested} tests in this table."
            )
        if self.shared:
            together = "; ".join(listed(names, 20) for names in self.shared)
            return f"{tests} Cross-validated on the same folds: {together}."
        return f"{tests} Each target has its own folds."


def side_by_side(models: Sequence[ModelSection]) -> list[TargetGroup]:
    """Models grouped by encoder, kind and bag; groups with fewer than two targets are left out."""
    groups: dict[tuple[str, str, str], list[ModelSection]] = {}
    for model in models:
        kind = str(model.metrics.get("model") or model.mil_model)
        groups.setdefault((model.encoder, kind, model.unit), []).append(model)
    return [
        _group(encoder, kind, members)
        for (encoder, kind, _), members in groups.items()
        if len({target_name(member.metrics) for member in members}) > 1
    ]


def to_csv(groups: Sequence[TargetGroup]) -> str:
    """The tables as CSV text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("encoder", "model", "target", "task", "training", "slides", "patients", "metric", "value", "low", "high",
             "p_value", "p_holm")  # fmt: skip
    writer.writerow(names)
    for group in groups:
        for row in group.rows:
            best = row.estimate
            numbers = (best.value, best.low, best.high) if best else (None, None, None)
            values = (group.encoder, group.model, row.target, row.task, row.model, row.slides, row.patients, row.metric,
                      *numbers, row.p_value, row.p_holm)  # fmt: skip
            writer.writerow(["" if v is None else safe_cell(v) if isinstance(v, str) else v for v in values])
    return out.getvalue()


def _group(encoder: str, kind: str, members: Sequence[ModelSection]) -> TargetGroup:
    raw = [as_number((member.metrics.get("permutation") or {}).get("p_value")) for member in members]
    tested = [k for k, value in enumerate(raw) if value is not None]
    corrected = dict(zip(tested, holm([value for value in raw if value is not None]), strict=True))
    rows = tuple(
        TargetRow(
            target=target_name(member.metrics),
            task=member.task,
            model=member.mil_model,
            classes=member.classes,
            slides=member.metrics.get("n_slides"),
            patients=member.metrics.get("n_patients") if member.patients_known else None,
            metric=metric_words(member.headline),
            estimate=member.best,
            p_value=raw[k],
            p_holm=corrected.get(k),
        )
        for k, member in enumerate(members)
    )
    divisions: dict[str, list[str]] = {}
    for row, member in zip(rows, members, strict=True):
        if key := str(member.metrics.get("division") or ""):
            divisions.setdefault(key, []).append(row.target)
    shared = tuple(tuple(names) for names in divisions.values() if len(names) > 1)
    return TargetGroup(encoder, kind, rows, shared)
