"""What the report's section on models shows, made ready for the template: figures, metrics, folds, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report.data import Estimate, ModelSection, as_number
from wsi_pipeline.report.figures import charts as figures
from wsi_pipeline.report.figures.calibration_figure import calibration_figure
from wsi_pipeline.report.figures.outcome_figures import scatter_figure, survival_figure
from wsi_pipeline.report.figures.roc import pr_figure, roc_figure
from wsi_pipeline.report.page import findings
from wsi_pipeline.statistics.metric_words import OF_CHANCE, metric_words

Json = Mapping[str, Any]
_FOLD_METRICS = 4


def model_views(models: Sequence[ModelSection], every: Sequence[ModelSection]) -> list[dict[str, Any]]:
    """One view per model, in the order given; each held against the baseline among `every` model."""
    low = axis_low(models)
    return [_view(model, every, low) for model in models]


def axis_low(models: Sequence[ModelSection]) -> float:
    """Lower end of the axis of the headline metric: 0.4, or as much lower as the intervals reach."""
    shown = [best for model in models if _on_axis(model) and (best := model.best)]
    ends = [best.low if best.low is not None else best.value for best in shown]
    return max(0.0, min([0.4, *((end * 10 // 1) / 10 for end in ends)]))


def _on_axis(model: ModelSection) -> bool:
    """Whether the headline is drawn on the common axis, which runs from chance at 0.5 to 1."""
    return OF_CHANCE.get(model.headline) == 0.5


def _view(model: ModelSection, every: Sequence[ModelSection], low: float) -> dict[str, Any]:
    reference = findings.baseline_of(model, every)
    alike = reference is not None and reference.headline == model.headline
    best, floor = model.best, reference.best if reference is not None and alike else None
    css = "base" if model.is_baseline else ""
    on_axis = _on_axis(model)
    return {
        "bar": figures.interval_bar(best, low, floor.value if floor else None, css) if on_axis else None,
        "gain": best.value - floor.value if best and floor else None,
        **measured_view(model),
        "folds": fold_table(model.metrics),
        "repeats": _repeats(model.metrics),
    }


def measured_view(model: ModelSection) -> dict[str, Any]:
    """How good the predictions are, whoever was tested: headline, figures, metrics by class, single facts."""
    return {
        "section": model,
        "headline": metric_words(model.headline),
        "best": model.best,
        "sample": findings.sample_words(model),
        "interval": findings.interval_words(model),
        "plots": _plots(model),
        "per_class": {name: _with_intervals(row) for name, row in (model.metrics.get("per_class") or {}).items()},
        "facts": _facts(model.metrics),
    }


def _plots(model: ModelSection) -> list[tuple[Markup, str]]:
    """The figures there are, each with its caption."""
    rows, metrics, level = model.predictions, model.metrics, _level(model)
    if rows is not None and metrics.get("untrained"):
        rows = rows[~rows["label"].isin(metrics["untrained"])]
    two = len(model.classes) == 2
    faint = " Faint: each fold." if rows is not None and "fold" in rows else ""
    whom = "patients" if model.patients_known else "slides"
    positive = f" Positive: {model.classes[-1]}.{faint} Band: bootstrap over {whom}." if two else ""
    each = positive or " Each class against the rest."
    drawn: list[tuple[Markup | None, str]] = []
    if rows is not None and model.task == "classification":
        drawn += [
            (roc_figure(rows, model.classes, level), f"ROC, test {model.unit}s pooled.{each}"),
            (pr_figure(rows, model.classes, level), f"Precision and recall, test {model.unit}s pooled.{each}"),
        ]
    drawn += [
        (
            figures.confusion_figure(metrics.get("confusion") or [], model.classes),
            f"{model.unit.capitalize()}s, and their share of the true class.",
        ),
        (calibration_figure(metrics.get("calibration"), _n_repeats(metrics)), _calibration_words(metrics)),
        (survival_figure(metrics.get("survival")), _survival_words(metrics, whom)),
    ]
    if model.task == "regression":
        words = f"Test {model.unit}s; on the dotted line prediction and measurement agree."
        drawn.append((scatter_figure(rows), words))
    losses = "Loss by epoch and fold: training dashed, validation solid, dot where validation was best."
    drawn.append((figures.training_figure(model.histories), losses))
    return [(picture, words) for picture, words in drawn if picture is not None]


def fold_table(metrics: Json) -> dict[str, Any]:
    """Folds as rows: name, counts, metrics, best epoch, what was chosen."""
    folds = metrics.get("folds") or ()
    names = list(dict.fromkeys(name for fold in folds for name in fold.get("metrics") or {}))[:_FOLD_METRICS]
    repeated = any(fold.get("repeat") for fold in folds)
    rows = [
        {
            "name": f"{fold.get('repeat')}.{fold.get('fold')}" if repeated else fold.get("fold"),
            "counts": [fold.get(name) for name in ("n_train", "n_val", "n_test")],
            "values": [(fold.get("metrics") or {}).get(name) for name in names],
            "best_epoch": fold.get("best_epoch"),
            "chosen": ", ".join(f"{key} {value}" for key, value in (fold.get("chosen") or {}).items()),
        }
        for fold in folds
    ]
    return {
        "rows": rows,
        "metrics": [metric_words(name) for name in names],
        "chosen": any(row["chosen"] for row in rows),
        "repeated": repeated,
    }


def _facts(metrics: Json) -> list[tuple[str, str]]:
    """Single facts worth a line: threshold, permutation test, what chance reaches."""
    found = []
    if threshold := metrics.get("threshold"):
        rates = [f"{name} {_words(threshold.get(name))}" for name in ("sensitivity", "specificity")]
        value = threshold.get("value")
        at = f" ({threshold.get('value_is') or 'about'} {value:.3f})" if isinstance(value, float) else ""
        told = f"{', '.join(rates)} for {threshold.get('class')}, threshold chosen on {threshold.get('chosen_on')}{at}"
        found.append(("At the threshold", told))
    if (test := metrics.get("permutation")) and test.get("p_value") is not None:
        whom = "slides" if metrics.get("patients") == "not known" else "patients"
        shuffles = f"{test.get('n')} permutations of the labels across {whom}"
        found.append(
            ("Permutation test", f"p = {test['p_value']:.3g} for {metric_words(str(test.get('metric')))}, {shuffles}")
        )
    if target := metrics.get("target"):
        words = f"{target.get('mean'):.4g} on average, standard deviation {target.get('sd'):.4g}"
        found.append(("Measured values", words))
    return found


def _n_repeats(metrics: Json) -> int:
    return len({fold.get("repeat") for fold in metrics.get("folds") or ()}) or 1


def _repeats(metrics: Json) -> list[tuple[str, float, float, int]]:
    """Metric, mean and standard deviation over repeats, and how many; nothing where there was one."""
    rows = (metrics.get("repeats") or {}).items()
    return [(metric_words(name), r["mean"], r["sd"], r["n"]) for name, r in rows if r.get("sd") is not None]


def _calibration_words(metrics: Json) -> str:
    found = metrics.get("calibration") or {}
    numbers = [f"{metric_words(name)} {_words(found.get(name))}" for name in ("brier", "ece") if found.get(name)]
    said = f"Calibration of {found.get('of') or 'the prediction'}; whiskers: 95\u00a0% of each bin."
    return f"{said} {', '.join(numbers)}." if numbers else said


def _survival_words(metrics: Json, whom: str) -> str:
    told = metrics.get("survival") or {}
    test = told.get("logrank") or {}
    p = f" Log-rank {_chi_square(test)}p = {test['p_value']:.3g}." if test.get("p_value") is not None else ""
    cut = told.get("cut") or "median risk"
    return f"Kaplan-Meier, test {whom} above and below the {cut}; band: 95\u00a0% pointwise.{p}"


def _chi_square(test: Json) -> str:
    """`chi-square 7.21, `; files of before, which do not say what the statistic is, hold its signed root."""
    value = as_number(test.get("statistic"))
    if value is None:
        return ""
    return f"chi-square {value if test.get('statistic_is') else value**2:.3g}, "


def _words(raw: Any) -> str:
    return findings.estimate_words(Estimate.read(raw))


def _with_intervals(row: Json) -> dict[str, Any]:
    """One class's metrics, each joined with its interval where metrics.json has one under `intervals`."""
    intervals = row.get("intervals") or {}
    return {name: {"value": value, **intervals[name]} if name in intervals else value for name, value in row.items()}


def _level(model: ModelSection) -> float:
    return float((model.metrics.get("interval") or {}).get("level") or 0.95)
