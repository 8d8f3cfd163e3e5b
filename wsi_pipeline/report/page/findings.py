"""Sentences of the report: the main findings, and the caveats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from wsi_pipeline.report.data import Estimate, ModelSection, ReportData, SlideRow
from wsi_pipeline.report.figures.curves import patch_count_outliers
from wsi_pipeline.statistics.metric_words import CHANCE_LEVEL, LOWER_IS_BETTER, metric_words, target_name
from wsi_pipeline.statistics.metric_words import estimate_words as words_of_estimate
from wsi_pipeline.wording import NOT_KNOWN, agreed, counted, listed

_NAMED = 4


def ranked(models: Sequence[ModelSection]) -> list[ModelSection]:
    """Models sorted by the headline metric of their task, best first; models without a value last, in given order."""
    values = [(model, _goodness(model)) for model in models]
    return [model for model, good in sorted(values, key=lambda pair: (pair[1] is None, -(pair[1] or 0.0)))]


def _goodness(model: ModelSection) -> float | None:
    best = model.best
    return None if best is None else -best.value if model.headline in LOWER_IS_BETTER else best.value


def baseline_of(model: ModelSection, models: Sequence[ModelSection]) -> ModelSection | None:
    """The colour baseline to compare a model with: the one with the same MIL model, else the best one."""
    others = [other for other in ranked(models) if other.is_baseline and other is not model]
    others = [other for other in others if _question(other) == _question(model)]
    if model.is_baseline or not others:
        return None
    return next((other for other in others if other.mil_model == model.mil_model), others[0])


def estimate_words(estimate: Estimate | None) -> str:
    """`0.912 (0.842–0.968)`; without an interval `0.912`; without a value `undefined`."""
    if estimate is None:
        return words_of_estimate(None)
    return words_of_estimate(estimate.value, estimate.low, estimate.high, interval="({low}–{high})")


def interval_words(model: ModelSection) -> str:
    """How the intervals of a model were computed: `95 % interval, bootstrap, 1000 resamples of patients`."""
    interval = model.metrics.get("interval") or {}
    level = interval.get("level")
    parts = [f"{level * 100:g}\u00a0% interval" if level else "interval"]
    if interval.get("method"):
        parts.append(str(interval["method"]))
    if interval.get("resamples"):
        parts.append(f"{interval['resamples']} resamples of {_unit(model, str(interval.get('unit') or 'unit'))}s")
    return ", ".join(parts) if interval else "no interval recorded"


def sample_words(model: ModelSection) -> str:
    """Size of the test set: `40 slides from 30 patients`, or only the patients if each prediction is of a patient."""
    words = ("slide", "patient") if model.patients_known else ("slide",)
    counts = [(model.metrics.get(f"n_{word}s"), word) for word in words]
    return " from ".join(counted(count, word) for count, word in counts if count) or f"? {model.unit}s"


def _unit(model: ModelSection, unit: str) -> str:
    return unit if model.patients_known else "slide"


def findings(data: ReportData) -> list[str]:
    """The result in at most two sentences per question (target, task, classes); empty if no model was trained."""
    questions = dict.fromkeys(_question(model) for model in data.models)
    return [
        text
        for question in questions
        for text in _finding(ranked([m for m in data.models if _question(m) == question]), data)
    ]


def external_findings(data: ReportData) -> list[str]:
    """Performance on newly predicted labelled slides, one sentence per model; says whether the test is external."""
    sentences = []
    for section in data.predictions:
        encoder, _, name = section.name.partition("/")
        model = ModelSection(encoder, name, section.metrics)
        if model.best is not None:
            words = metric_words(model.headline)
            where = "on an external test set" if section.metrics.get("external") else "on patients it was trained on"
            article = "an" if words[0] in "AM" else "a"
            reached = f"reaches {article} {words} of {_with_level(model.best, model)} {where}, {sample_words(model)}"
            sentences.append(f"{_name(model)} {reached}.")
    return sentences


def _question(model: ModelSection) -> tuple[str, ...]:
    """Target, task and classes: models can be compared if these are the same."""
    return (target_name(model.metrics), model.task, *sorted(model.classes))


def _finding(order: Sequence[ModelSection], data: ReportData) -> list[str]:
    """Sentences on the models of one question, which are given best first."""
    best = order[0]
    value, words = best.best, metric_words(best.headline)
    if value is None:
        return [f"{words} is undefined for every model; see the warnings below."]
    article = "an" if words[0] in "AM" else "a"
    sentences = [f"{_name(best)} reaches {article} {words} of {_with_level(value, best)} on {sample_words(best)}."]
    reference = baseline_of(best, data.models)
    floor = reference.best if reference and reference.headline == best.headline else None
    if best.is_baseline and len(order) > 1:
        sentences.append("This is the colour baseline: no deep encoder here outperforms stain and texture statistics.")
    elif floor is not None:
        difference = "" if best.headline in LOWER_IS_BETTER else _difference(value, floor)
        sentences.append(f"The colour baseline reaches {estimate_words(floor)}{difference}.")
    return sentences


def _with_level(estimate: Estimate, model: ModelSection) -> str:
    """`0.912 (95 % interval 0.842–0.968)`."""
    level = (model.metrics.get("interval") or {}).get("level")
    words = estimate_words(estimate)
    return words.replace("(", f"({level * 100:g}\u00a0% interval ") if level else words


def _difference(best: Estimate, floor: Estimate) -> str:
    words = f", {best.value - floor.value:.3f} lower"
    if best.low is None or floor.high is None:
        return words
    return f"{words}; the two intervals {'do not overlap' if best.low > floor.high else 'overlap'}"


def cautions(data: ReportData) -> list[str]:
    """Caveats: what could mislead a reader. Warnings that came with the data are first."""
    sentences = [*data.warnings, *_about_slides(data)]
    for model in ranked(data.models):
        sentences += _about_model(model)
    sentences += _about_predictions(data)
    for question in dict.fromkeys(_question(model) for model in data.models):
        compared = [model for model in data.models if model.best and _question(model) == question]
        if sum(not model.is_baseline for model in compared) > 1:
            sentences.append(
                f"{len(compared)} models were compared on the same slides, so the score of the best one is optimistic."
            )
    return list(dict.fromkeys(sentences))


def _about_slides(data: ReportData) -> list[str]:
    sentences = []
    failed = [slide.slide_id for slide in data.slides if slide.state == "failed"]
    empty = [slide.slide_id for slide in data.slides if slide.state == "empty"]
    if failed:
        sentences.append(
            f"{counted(len(failed), 'slide')} failed and {agreed(len(failed), 'is')} excluded from all results: "
            f"{listed(failed, _NAMED)}."
        )
    if empty:
        sentences.append(f"No tissue was found on {counted(len(empty), 'slide')}: {listed(empty, _NAMED)}.")
    odd = outliers(data.slides)
    if odd:
        sentences.append(f"Patch counts far from the cohort median: {listed(odd, _NAMED)}. Check the overlays.")
    if data.models and _label_follows_site(data.slides):
        sentences.append(
            "Each site has slides of a single class: models may have learned site-specific staining "
            "instead of the classes."
        )
    return sentences


def outliers(slides: Sequence[SlideRow]) -> list[str]:
    """slide_id of every slide whose patch count is an outlier."""
    marks = patch_count_outliers(np.array([slide.patches or 0 for slide in slides], np.int64))
    return [slide.slide_id for slide, mark in zip(slides, marks, strict=True) if mark]


def _label_follows_site(slides: Sequence[SlideRow]) -> bool:
    """Whether there are several sites and classes, and every site has one class only."""
    pairs = {(slide.site, slide.label) for slide in slides if slide.site and slide.label}
    sites, labels = {site for site, _ in pairs}, {label for _, label in pairs}
    return len(labels) > 1 and len(sites) > 1 and len(pairs) == len(sites)


def _about_model(model: ModelSection) -> list[str]:
    name = _name(model)
    sentences = [] if model.patients_known else [NOT_KNOWN]
    sentences += [f"{name}: {warning}" for warning in model.metrics.get("warnings") or ()]
    value, chance, words = model.best, CHANCE_LEVEL.get(model.headline), metric_words(model.headline)
    if chance is not None and value is not None and value.low is not None and value.low <= chance:
        sentences.append(
            f"{name} is not shown to be better than chance: the interval of its {words} extends down to {chance:g} "
            "or below."
        )
    return sentences


def _about_predictions(data: ReportData) -> list[str]:
    """Warnings of predictions, and slides (or patients) that are out of distribution for a model."""
    sentences = []
    for section in data.predictions:
        patients = (section.metrics.get("by_patient") or {}).get("warnings") or ()
        own = [*(section.metrics.get("warnings") or ()), *patients]
        sentences += [f"Predictions by {section.name}: {text}" for text in own]
        if "far_from_training" in section.table:
            flagged = section.table["far_from_training"] == "yes"
            far = section.table.loc[flagged, f"{section.unit}_id"].astype(str).tolist()
            if far:
                who = f"{counted(len(far), section.unit)} {agreed(len(far), 'is')}"
                sentences.append(
                    f"{who} out of distribution for {section.name} (far from its training {section.unit}s), so "
                    f"predictions are unreliable: {listed(far, _NAMED)}."
                )
    return sentences


def _name(model: ModelSection) -> str:
    return f"{model.encoder} with {model.mil_model}"
