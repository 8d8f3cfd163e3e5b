"""Data of the report's section on models, ready for the template: figures, metrics, folds, thresholds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from wsi_pipeline.report.data import Estimate, ModelSection, as_number, with_intervals
from wsi_pipeline.report.figures import charts as figures
from wsi_pipeline.report.figures.calibration_figure import calibration_figure
from wsi_pipeline.report.figures.outcome_figures import scatter_figure, survival_figure
from wsi_pipeline.report.figures.roc import pr_figure, roc_figure
from wsi_pipeline.report.page import findings
from wsi_pipeline.statistics.metric_words import CHANCE_LEVEL, metric_words

Json = Mapping[str, Any]
_FOLD_METRICS = 4


def model_views(models: Sequence[ModelSection], every: Sequence[ModelSection]) -> list[dict[str, Any]]:
    """One view per model, in the order given; each is compared with the baseline found among `every`."""
    low = axis_low(models)
    return [_view(model, every, low) for model in models]


def axis_low(models: Sequence[ModelSection]) -> float:
    """Lower end of the headline metric's axis: 0.4, or lower if an interval extends below it."""
    shown = [best for model in models if _on_axis(model) and (best := model.best)]
    ends = [best.low if best.low is not None else best.value for best in shown]
    return max(0.0, min([0.4, *((end * 10 // 1) / 10 for end in ends)]))


def _on_axis(model: ModelSection) -> bool:
    """Whether the headline is drawn on the common axis, which runs from chance at 0.5 to 1."""
    return CHANCE_LEVEL.get(model.headline) == 0.5


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
    """Performance on any test set: headline metric, figures, metrics per class, further results."""
    return {
        "section": model,
        "headline": metric_words(model.headline),
        "best": model.best,
        "sample": findings.sample_words(model),
        "interval": findings.interval_words(model),
        "plots": _plots(model),
        "per_class": {name: with_intervals(row) for name, row in (model.metrics.get("per_class") or {}).items()},
        "facts": _facts(model.metrics),
    }


def _plots(model: ModelSection) -> list[tuple[Markup, str]]:
    """The figures that can be drawn, each with its caption."""
    rows, metrics, level = model.predictions, model.metrics, _level(model)
    if rows is not None and metrics.get("untrained"):
        rows = rows[~rows["label"].isin(metrics["untrained"])]
    two = len(model.classes) == 2
    faint = " Faint lines: single folds." if rows is not None and "fold" in rows else ""
    whom = "patients" if model.patients_known else "slides"
    positive = f" Positive class: {model.classes[-1]}.{faint} Band: bootstrap over {whom}." if two else ""
    each = positive or " One curve per class, one-vs-rest."
    drawn: list[tuple[Markup | None, str]] = []
    if rows is not None and model.task == "classification":
        drawn += [
            (roc_figure(rows, model.classes, level), f"ROC curve, all test {model.unit}s.{each}"),
            (pr_figure(rows, model.classes, level), f"Precision-recall curve, all test {model.unit}s.{each}"),
        ]
    drawn += [
        (
            figures.confusion_figure(metrics.get("confusion") or [], model.classes),
            f"Confusion matrix: number of {model.unit}s, and percentage of the true class.",
        ),
        (calibration_figure(metrics.get("calibration"), _n_repeats(metrics)), _calibration_words(metrics)),
        (survival_figure(metrics.get("survival")), _survival_words(metrics, whom)),
    ]
    if model.task == "regression":
        words = f"Test {model.unit}s; dotted line: predicted = measured."
        drawn.append((scatter_figure(rows), words))
    losses = "Loss by epoch for each fold: training dashed, validation solid; dot: lowest validation loss."
    drawn.append((figures.training_figure(model.histories), losses))
    return [(picture, words) for picture, words in drawn if picture is not None]


def fold_table(metrics: Json) -> dict[str, Any]:
    """Folds as rows: name, sizes of the parts, metrics, best epoch, selected candidate."""
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
    """Further results, one line each: decision threshold, permutation test, distribution of the target."""
    facts = []
    if threshold := metrics.get("threshold"):
        rates = [f"{name} {_words(threshold.get(name))}" for name in ("sensitivity", "specificity")]
        value = threshold.get("value")
        at = f" ({threshold.get('value_is') or 'about'} {value:.3f})" if isinstance(value, float) else ""
        words = f"{', '.join(rates)} for {threshold.get('class')}, threshold chosen on {threshold.get('chosen_on')}{at}"
        facts.append(("At the decision threshold", words))
    if (test := metrics.get("permutation")) and test.get("p_value") is not None:
        whom = "slides" if metrics.get("patients") == "not known" else "patients"
        shuffles = f"{test.get('n')} permutations of the labels across {whom}"
        facts.append(
            ("Permutation test", f"p = {test['p_value']:.3g} for {metric_words(str(test.get('metric')))}, {shuffles}")
        )
    if target := metrics.get("target"):
        words = f"mean {target.get('mean'):.4g}, standard deviation {target.get('sd'):.4g}"
        facts.append(("Measured values", words))
    return facts


def _n_repeats(metrics: Json) -> int:
    return len({fold.get("repeat") for fold in metrics.get("folds") or ()}) or 1


def _repeats(metrics: Json) -> list[tuple[str, float, float, int]]:
    """Metric, mean, standard deviation and number of repeats; empty without repeats."""
    rows = (metrics.get("repeats") or {}).items()
    return [(metric_words(name), r["mean"], r["sd"], r["n"]) for name, r in rows if r.get("sd") is not None]


def _calibration_words(metrics: Json) -> str:
    found = metrics.get("calibration") or {}
    numbers = [f"{metric_words(name)} {_words(found.get(name))}" for name in ("brier", "ece") if found.get(name)]
    words = (
        f"Calibration: predicted probability of {found.get('of') or 'the predicted class'} against observed fraction"
    )
    caption = f"{words}; whiskers: 95\u00a0% interval of each bin."
    return f"{caption} {', '.join(numbers)}." if numbers else caption


def _survival_words(metrics: Json, whom: str) -> str:
    survival = metrics.get("survival") or {}
    test = survival.get("logrank") or {}
    p = f" Log-rank test: {_chi_square(test)}p = {test['p_value']:.3g}." if test.get("p_value") is not None else ""
    cut = survival.get("cut") or "median risk"
    return f"Kaplan-Meier curves of test {whom} above and below the {cut}; bands: pointwise 95\u00a0% intervals.{p}"


def _chi_square(test: Json) -> str:
    """`chi-square 7.21, `; older files, which do not say what the statistic is, hold its signed root."""
    value = as_number(test.get("statistic"))
    if value is None:
        return ""
    return f"chi-square {value if test.get('statistic_is') else value**2:.3g}, "


def _words(raw: Any) -> str:
    return findings.estimate_words(Estimate.read(raw))


def _level(model: ModelSection) -> float:
    return float((model.metrics.get("interval") or {}).get("level") or 0.95)
