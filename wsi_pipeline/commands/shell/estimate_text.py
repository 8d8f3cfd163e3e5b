"""Metrics as commands print them: estimates with intervals, facts about a validation, slides left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from wsi_pipeline.mil.validation.choices import named
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.statistics.metric_words import estimate_words, metric_words, p_words
from wsi_pipeline.wording import counted

MOST_WARNINGS = 12
MOST_METRICS = 5


def facts(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Choices, threshold, calibration and the permutation test: one line each, if present."""
    lines = []
    chosen = Counter(named(fold["chosen"]) for fold in (metrics.get("folds") or ()) if fold.get("chosen"))
    if chosen:
        lines.append(("chosen", "; ".join(f"{text} ({counted(n, 'fold')})" for text, n in chosen.most_common())))
    if "threshold" in metrics:
        cut = metrics["threshold"]
        rates = ", ".join(f"{name} {estimate(cut[name])}" for name in ("sensitivity", "specificity"))
        lines.append(("cut", f"{cut['class']} from {cut['value']:.2f}, selected on {cut['chosen_on']}: {rates}"))
    groups = metrics.get("survival") or {}
    if "value" in groups:
        parts = [
            f"{one['name']} {counted(one['n'], groups['unit'])}, {counted(one['events'], 'event')}"
            for one in groups["groups"]
        ]
        p = f"; log-rank {p_words(groups['logrank']['p_value'])}" if groups.get("logrank") else ""
        lines.append(("risk", f"cut at the {groups['cut']}: {'; '.join(parts)}{p}"))
    if "calibration" in metrics:
        found = metrics["calibration"]
        lines.append(
            (
                "calibr.",
                f"Brier {estimate(found['brier'])} (class shares alone: {found['brier_of_chance']:.3f}), "
                f"ECE {estimate(found['ece'])}",
            )
        )
    test = metrics.get("permutation")
    if test:
        lines.append(
            (
                "chance",
                f"{metric_words(test['metric'])} against {test['n']} label permutations over "
                f"{counted(test['n_patients'], unit(metrics))}: {p_words(test['p_value'])}",
            )
        )
    return lines


def cell(metrics: Mapping[str, Any], name: str) -> str:
    """A metric over everything tested, with its interval."""
    found = metrics["pooled"].get(name) or {}
    return estimate(found, _digits(metrics))


def estimate(found: Mapping[str, Any], digits: str = ".3f") -> str:
    """`0.912 [0.842, 0.968]`, without the interval if there is none."""
    return estimate_words(found.get("value"), found.get("low"), found.get("high"), digits=digits)


def number(metrics: Mapping[str, Any], value: float | None) -> str:
    """A plain number with the digits of its task; "" for a missing number."""
    return "" if value is None else f"{value:{_digits(metrics)}}"


def unit(metrics: Mapping[str, Any]) -> str:
    """Unit of resampling and permutation: patients, or slides if the patients are not known."""
    return "slide" if metrics.get("patients") == "not known" else "patient"


def left_out_words(slides: SlideBags) -> str:
    """` (s03: empty; 2 slides: failed in tile)`."""
    reasons: dict[str, list[str]] = {}
    for slide, why in slides.left_out.items():
        reasons.setdefault(why, []).append(slide)
    parts = [f"{ids[0] if len(ids) == 1 else counted(len(ids), 'slide')}: {why}" for why, ids in reasons.items()]
    return f" ({'; '.join(parts)})" if parts else ""


def _digits(metrics: Mapping[str, Any]) -> str:
    """Digits of a number: as needed for numbers with a unit, three decimals for fractions of 1."""
    return "#.3g" if metrics["task"] == "regression" else ".3f"
