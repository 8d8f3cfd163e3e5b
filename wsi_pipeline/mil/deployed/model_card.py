"""The model card of a training, in the format of Hugging Face: metadata, then text. Every number in it was measured.

https://huggingface.co/docs/hub/model-cards. Nothing in a card names a slide or a patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.statistics.metric_words import estimate_words, metric_words, p_words
from wsi_pipeline.version import __version__
from wsi_pipeline.wording import counted

CARD = "model_card.md"

_HUB_METRICS = {"auroc": "roc_auc", "f1": "f1", "macro_f1": "f1", "accuracy": "accuracy", "mae": "mae", "rmse": "rmse"}
"""Metrics for which the hub has names of its own."""

_TASKS = {
    "classification": "slide-level classification",
    "ordinal": "slide-level grading",
    "regression": "slide-level regression",
    "survival": "survival prediction from slides",
}
_SOURCES = {
    "stated": "stated for every slide",
    "some": "stated for some slides; each other slide counts as a patient",
    "each slide": "each slide counts as a patient, as the user stated",
    "not known": "not known; each slide counts as a patient",
}


def model_card(ensemble: Ensemble, metrics: Mapping[str, Any], names: Iterable[str] = ()) -> str:
    """The text of the card.

    metrics  the content of metrics.json of the training
    names    ids of slides and patients: warnings in which one occurs are counted, not quoted
    """
    title = f"{ensemble.spec.model} on {ensemble.encoder.get('name', 'features')}"
    front = yaml.safe_dump(_metadata(ensemble, metrics, title), sort_keys=False, allow_unicode=True)
    parts = [
        f"# {title}",
        _what(ensemble, metrics),
        "## Data\n\n" + _bullets(_data(ensemble, metrics)),
        "## Results\n\n" + _results(ensemble, metrics),
        "## Limits\n\n" + _bullets(_limits(ensemble, metrics, tuple(names))),
        "## Use\n\n" + _use(ensemble),
        f"Written by wsi-pipeline {__version__} from metrics.json and config.json of the training.",
    ]
    return f"---\n{front}---\n\n" + "\n\n".join(parts) + "\n"


def _metadata(ensemble: Ensemble, metrics: Mapping[str, Any], title: str) -> dict[str, Any]:
    results = [
        {"type": _HUB_METRICS.get(name, name), "name": f"{metric_words(name)} (cross-validated)", "value": value}
        for name, value in ((name, found.get("value")) for name, found in _pooled(metrics).items())
        if value is not None
    ]
    result = {
        "task": {"type": "other", "name": _TASKS.get(ensemble.task.name, ensemble.task.name)},
        "dataset": {"type": "private", "name": _cohort(metrics)},
        "metrics": results,
    }
    return {
        "library_name": "wsi-pipeline",
        "tags": ["pathology", "whole-slide-image", "multiple-instance-learning", ensemble.task.name],
        **({"model-index": [{"name": title, "results": [result]}]} if results else {}),
    }


def _pooled(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {name: found for name, found in (metrics.get("pooled") or {}).items() if isinstance(found, Mapping)}


def _cohort(metrics: Mapping[str, Any]) -> str:
    slides = metrics.get("n_slides")
    patients = counted(int(metrics.get("n_patients", 0)), "patient")
    return f"{counted(int(slides), 'slide')} of {patients}" if slides is not None else patients


def _what(ensemble: Ensemble, metrics: Mapping[str, Any]) -> str:
    spec, task = ensemble.spec, _TASKS.get(ensemble.task.name, ensemble.task.name)
    outputs = f" Classes: {', '.join(ensemble.classes)}." if ensemble.classes else ""
    column = f" The label is the column `{metrics['label_column']}`." if metrics.get("label_column") else ""
    members = f", {spec.committee} models per fold" if spec.committee > 1 else ""
    return (
        f"A model for {task}: {counted(len(ensemble.models), 'fold')} of {metrics.get('model', spec.model)}{members}, "
        f"averaged at prediction. One prediction per {spec.bag}.{outputs}{column} It takes features of "
        f"{ensemble.feature_dim} values per patch and holds their standardisation."
    )


def _data(ensemble: Ensemble, metrics: Mapping[str, Any]) -> list[str]:
    specs, encoder = ensemble.provenance.get("specs", {}), ensemble.encoder
    tile = specs.get("tile", {})
    found = [f"Trained and tested on {_cohort(metrics)}. Patients: {_SOURCES[metrics.get('patients', 'stated')]}."]
    for name, facts in (metrics.get("per_class") or {}).items():
        slides = facts.get("n_slides")
        shown = [counted(slides, "slide")] if slides is not None else []
        found.append(f"Class {name}: {', '.join([*shown, counted(facts['n_patients'], 'patient')])}")
    if metrics.get("left_out"):
        found.append(f"{counted(len(metrics['left_out']), 'slide')} left out; metrics.json says why.")
    if tile:
        patches = f"{tile.get('patch_px')} px at {tile.get('mpp')} micrometres per pixel"
        found.append(f"Patches: {patches}, overlap {tile.get('overlap_px', 0)} px.")
    licence = f", licence: {encoder['licence']}" if encoder.get("licence") else ", licence not stated"
    found.append(f"Encoder: {encoder.get('name')}{licence}. Features of other encoders are refused.")
    return found


def _results(ensemble: Ensemble, metrics: Mapping[str, Any]) -> str:
    interval, folds = metrics.get("interval") or {}, metrics.get("folds") or ()
    digits = "#.3g" if ensemble.task.name == "regression" else ".3f"
    lines = [
        f"By {'cross-validation' if len(folds) > 1 else 'a split of the cohort'} "
        f"({counted(len(folds), 'fold')}): every patient is predicted by a model that was not trained on them.",
    ]
    if interval:
        lines[0] += (
            f" Intervals of {100 * interval['level']:.0f} % by {interval['resamples']} bootstrap resamples of patients."
        )
    chance = metrics.get("chance") or {}
    rows = [
        f"| {metric_words(name)} | {_estimate(found, digits)} | {_number(chance.get(name), digits)} |"
        for name, found in _pooled(metrics).items()
    ]
    lines.append("\n".join(["| metric | value | chance |", "|---|---|---|", *rows]))
    classes = [
        f"| {name} | " + " | ".join(_estimate({"value": facts.get(key), **_ends(facts, key)}, ".3f") for key in _KEYS)
        for name, facts in (metrics.get("per_class") or {}).items()
    ]
    if classes:
        heads = " | ".join(metric_words(key) for key in _KEYS)
        table = [f"| class | {heads} |", "|---" * (1 + len(_KEYS)) + "|", *(f"{row} |" for row in classes)]
        lines.append("\n".join(table))
    lines += _beside(metrics)
    return "\n\n".join(lines)


_KEYS = ("auroc", "precision", "recall", "f1")


def _ends(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = (facts.get("intervals") or {}).get(key)
    if isinstance(found, Mapping):
        return {"low": found.get("low"), "high": found.get("high")}
    return {"low": found[0], "high": found[1]} if isinstance(found, list) and len(found) == 2 else {}


def _beside(metrics: Mapping[str, Any]) -> list[str]:
    """Threshold, calibration and permutation test, as far as they were measured."""
    found = []
    cut, calibration, test = (metrics.get(name) for name in ("threshold", "calibration", "permutation"))
    if cut:
        rates = ", ".join(f"{name} {_estimate(cut[name], '.3f')}" for name in ("sensitivity", "specificity"))
        found.append(
            f"Threshold: {cut['class']} at {cut['value']:.2f} or above, chosen on {cut['chosen_on']}: {rates}."
        )
    if calibration:
        brier, ece = (_estimate(calibration.get(name) or {}, ".3f") for name in ("brier", "ece"))
        shares = _number(calibration.get("brier_of_chance"), ".3f") or "not measured"
        found.append(f"Calibration: Brier score {brier}, ECE {ece}; Brier score of the class shares alone: {shares}.")
    if test:
        found.append(
            f"Against {test['n']} label permutations, {metric_words(test['metric'])}: {p_words(test['p_value'])}."
        )
    return found


def _estimate(found: Mapping[str, Any], digits: str) -> str:
    return estimate_words(found.get("value"), found.get("low"), found.get("high"), digits=digits)


def _number(value: float | None, digits: str) -> str:
    return "" if value is None else f"{value:{digits}}"


def _limits(ensemble: Ensemble, metrics: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    found = [
        "Research software, not a medical device: not for diagnosis or treatment.",
        "Evaluated within one cohort. Performance on slides from other scanners, stains, hospitals or patients is "
        "unknown until it is measured there.",
        "Licence of the weights: not stated here. The licence of the encoder and the terms of the data apply.",
    ]
    warnings = list(dict.fromkeys(metrics.get("warnings") or ()))
    quoted = [text for text in warnings if not names_one(text, names)]
    found += [text[0].upper() + text[1:].rstrip(".") + "." for text in quoted]
    if len(quoted) < len(warnings):
        found.append(f"{counted(len(warnings) - len(quoted), 'warning')} about single slides: see metrics.json.")
    return found


def names_one(text: str, names: Iterable[str]) -> bool:
    """Whether a sentence contains the name of a slide or patient as a separate word."""
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) for name in names if name)


def _use(ensemble: Ensemble) -> str:
    return (
        "```\nwsi-pipeline predict slides.csv --trained FOLDER --run new-run\n```\n\n"
        "FOLDER holds config.json and the fold files. `predict` tiles and embeds the slides with the settings of the "
        "training, and reports which slides are unlike the training slides."
    )


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
