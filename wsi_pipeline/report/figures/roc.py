"""ROC and precision-recall curves: pooled curve, faint single folds and bootstrap band; or one curve per class."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from wsi_pipeline.report.figures.axes import (
    BOTTOM,
    HUES,
    band_path,
    labelled,
    legend,
    patients_of,
    truth_and_score,
    unit_axes,
    unit_square,
    usable,
)
from wsi_pipeline.report.figures.curves import Curve, curve_band, pr_points, roc_points
from wsi_pipeline.report.figures.svg import Scale, figure, line, path
from wsi_pipeline.wording import counted

_Points = Callable[[NDArray[np.bool_], NDArray[np.float64]], Curve | None]


def roc_figure(predictions: pd.DataFrame, classes: Sequence[str], level: float = 0.95) -> Markup | None:
    """ROC curve of all test slides pooled; None if no class has both positives and negatives.

    Two classes: the last one is positive; single folds are faint, with a pointwise bootstrap band over patients.
    More classes: one curve per class, one-vs-rest. Slides without a label are left out.
    """
    x, y = unit_square()
    chance = [line(x(0), y(0), x(1), y(1), "chance")]
    ground = [unit_axes(x, y, "false positive rate", "true positive rate"), *chance]
    return _curves(predictions, classes, level, roc_points, ground, "ROC curve")


def pr_figure(predictions: pd.DataFrame, classes: Sequence[str], level: float = 0.95) -> Markup | None:
    """Precision-recall curve, otherwise as `roc_figure`; the dotted line is chance, the fraction of positives."""
    x, y = unit_square()
    ground = [unit_axes(x, y, "recall", "precision")]
    rows = labelled(predictions)
    if len(classes) == 2 and len(rows):
        prevalence = float((rows["label"].astype(str) == classes[-1]).mean())
        ground.append(line(x(0), y(prevalence), x(1), y(prevalence), "chance"))
    return _curves(predictions, classes, level, pr_points, ground, "Precision-recall curve")


def _curves(
    predictions: pd.DataFrame,
    classes: Sequence[str],
    level: float,
    points: _Points,
    ground: list[Markup],
    what: str,
) -> Markup | None:
    known = labelled(predictions)
    shown = list(classes[-1:]) if len(classes) == 2 else list(classes)
    pooled = [points(*truth_and_score(known, name)) for name in shown]
    if len(classes) < 2 or all(curve is None for curve in pooled):
        return None
    x, y = unit_square()
    parts = list(ground)
    if len(classes) == 2:
        parts += _folds_and_band(usable(known, shown[0]), shown[0], level, points)
    for i, curve in enumerate(pooled):
        if curve is not None:
            parts.append(_path(curve, x, y, f"curve c{i % HUES}", shown[i]))
    parts += legend(shown, x(1) - 8, y(0)) if len(shown) > 1 else []
    contrast = f"{shown[0]} vs {classes[0]}" if len(classes) == 2 else "one-vs-rest"
    return figure(
        x(1) + 10, y(0) + BOTTOM, f"{what}, {contrast}, {counted(len(known), 'slide')} pooled over folds", parts
    )


def _folds_and_band(rows: pd.DataFrame, name: str, level: float, points: _Points) -> list[Markup]:
    x, y = unit_square()
    band = curve_band(points, *truth_and_score(rows, name), patients_of(rows), level=level)
    parts = [] if band is None else [band_path(band, x, y)]
    keys = [key for key in ("repeat", "fold") if key in rows]
    for number, part in rows.groupby(keys) if keys else ():
        curve = points(*truth_and_score(part, name))
        if curve is not None:
            parts.append(_path(curve, x, y, "fold", f"fold {number[-1] if isinstance(number, tuple) else number}"))
    return parts


def _path(curve: Curve, x: Scale, y: Scale, css: str, hint: str) -> Markup:
    return path([(x(f), y(t)) for f, t in zip(curve.x, curve.y, strict=True)], css, hint=hint)
