"""The ROC picture: pooled curve, each fold faint, band over patients; or one curve per class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup

from wsi_pipeline.report.curves import Band, Roc, roc_band, roc_points
from wsi_pipeline.report.svg import Scale, clip, el, figure, line, path, text, upright

_SIDE, _LEFT, _TOP, _BOTTOM = 300.0, 46.0, 12.0, 42.0


def roc_figure(predictions: pd.DataFrame, classes: Sequence[str], level: float = 0.95) -> Markup | None:
    """ROC of all test slides pooled; None when no class has both positives and negatives.

    Two classes: the last one against the other, each fold faint, and a pointwise bootstrap band over patients.
    More: one curve per class against the rest. Slides without a label are left out.
    """
    known = predictions[predictions["label"].notna()]
    shown = list(classes[-1:]) if len(classes) == 2 else list(classes)
    pooled = [_roc_of(known, name) for name in shown]
    if len(classes) < 2 or all(curve is None for curve in pooled):
        return None
    x, y = Scale(0, 1, _LEFT, _LEFT + _SIDE), Scale(0, 1, _TOP + _SIDE, _TOP)
    parts = [_roc_axes(x, y), line(x(0), y(0), x(1), y(1), "chance")]
    if len(classes) == 2:
        parts += _folds_and_band(known, shown[0], level, x, y)
    for i, curve in enumerate(pooled):
        if curve is not None:
            parts.append(_roc_path(curve, x, y, f"curve c{i % 7}", shown[i]))
    parts += _legend(shown, x(1) - 8, y(0)) if len(shown) > 1 else []
    what = f"{shown[0]} against {classes[0]}" if len(classes) == 2 else "each class against the rest"
    return figure(x(1) + 10, y(0) + _BOTTOM, f"ROC curve, {what}, {len(known)} slides pooled over folds", parts)


def _roc_of(rows: pd.DataFrame, name: str) -> Roc | None:
    truth, score = _truth_and_score(rows, name)
    return roc_points(truth, score)


def _truth_and_score(rows: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    column = f"p_{name}"
    if column not in rows:
        return np.zeros(0, np.bool_), np.zeros(0)
    score = rows[column].to_numpy(np.float64)
    usable = np.isfinite(score)
    return (rows["label"].astype(str) == name).to_numpy()[usable], score[usable]


def _folds_and_band(rows: pd.DataFrame, name: str, level: float, x: Scale, y: Scale) -> list[Markup]:
    parts = []
    usable = rows[np.isfinite(rows[f"p_{name}"].to_numpy(np.float64))]
    truth, score = _truth_and_score(usable, name)
    band = roc_band(truth, score, _patients(usable), level=level)
    if band is not None:
        parts.append(_band_path(band, x, y))
    folds = usable.groupby("fold") if "fold" in usable else ()
    for fold, part in folds:
        curve = _roc_of(part, name)
        if curve is not None:
            parts.append(_roc_path(curve, x, y, "fold", f"fold {fold}"))
    return parts


def _patients(rows: pd.DataFrame) -> np.ndarray:
    """Each slide's patient; a slide without one stands for itself."""
    own = rows["slide_id"].astype(str)
    patients = rows["patient_id"].where(rows["patient_id"].notna(), own) if "patient_id" in rows else own
    return patients.astype(str).to_numpy(np.str_)


def _roc_path(curve: Roc, x: Scale, y: Scale, css: str, hint: str) -> Markup:
    return path([(x(f), y(t)) for f, t in zip(curve.fpr, curve.tpr, strict=True)], css, hint=hint)


def _band_path(band: Band, x: Scale, y: Scale) -> Markup:
    upper = [(x(f), y(t)) for f, t in zip(band.fpr, band.high, strict=True)]
    lower = [(x(f), y(t)) for f, t in zip(band.fpr, band.low, strict=True)]
    return path(upper + lower[::-1], "band", closed=True, hint=f"{band.level:.0%} band, {band.resamples} resamples")


def _roc_axes(x: Scale, y: Scale) -> Markup:
    ticks = [0, 0.25, 0.5, 0.75, 1]
    across = [text(x(t), y(0) + 17, f"{t:g}", anchor="middle", css="tick") for t in ticks]
    up = [text(x(0) - 8, y(t) + 4, f"{t:g}", anchor="end", css="tick") for t in ticks]
    grid = [line(x(t), y(0), x(t), y(1), "grid") for t in ticks] + [line(x(0), y(t), x(1), y(t), "grid") for t in ticks]
    names = [
        text(x(0.5), y(0) + 36, "false positive rate", anchor="middle"),
        upright(11, y(0.5), "true positive rate"),
    ]
    return el("g", *grid, *across, *up, *names)


def _legend(names: Sequence[str], right: float, bottom: float) -> list[Markup]:
    top = bottom - 8 - 18 * (len(names) - 1)
    parts = []
    for i, name in enumerate(names):
        y = top + 18 * i
        parts += [
            line(right - 18, y - 4, right, y - 4, f"curve c{i % 7}"),
            text(right - 24, y, clip(name, 28), anchor="end"),
        ]
    return parts
