"""Axes shared by several figures, and labels and scores read from a table of predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from wsi_pipeline.report.figures.curves import Band
from wsi_pipeline.report.figures.svg import Scale, clip, el, line, path, text, upright

SIDE, LEFT, TOP, BOTTOM = 300.0, 46.0, 12.0, 42.0
"""Pixels: side of a square plot; margins at its left, above and below."""

_UNIT = (0, 0.25, 0.5, 0.75, 1)
HUES = 7


def unit_square() -> tuple[Scale, Scale]:
    """Scales of a square plot from 0 to 1 along both axes."""
    return Scale(0, 1, LEFT, LEFT + SIDE), Scale(0, 1, TOP + SIDE, TOP)


def unit_axes(x: Scale, y: Scale, across: str, up: str) -> Markup:
    """Grid, ticks and names of a unit square."""
    return axes(x, y, across, up, _UNIT, _UNIT)


def axes(
    x: Scale, y: Scale, across: str, up: str, x_ticks: Sequence[float] = (), y_ticks: Sequence[float] = ()
) -> Markup:
    """Grid, ticks and names of both axes; ticks that are not given are chosen."""
    x_ticks, y_ticks = x_ticks or x.ticks(5), y_ticks or y.ticks(5)
    below = [text(x(t), y(y.low) + 17, f"{t:g}", anchor="middle", css="tick") for t in x_ticks]
    beside = [text(x(x.low) - 8, y(t) + 4, f"{t:g}", anchor="end", css="tick") for t in y_ticks]
    grid = [line(x(t), y(y.low), x(t), y(y.high), "grid") for t in x_ticks]
    grid += [line(x(x.low), y(t), x(x.high), y(t), "grid") for t in y_ticks]
    middle = (x(x.low) + x(x.high)) / 2
    names = [
        text(middle, y(y.low) + 36, across, anchor="middle"),
        upright(11, (y(y.low) + y(y.high)) / 2, up),
    ]
    return el("g", *grid, *below, *beside, *names)


def band_path(band: Band, x: Scale, y: Scale, css: str = "band") -> Markup:
    """The band as one closed shape."""
    upper = [(x(f), y(t)) for f, t in zip(band.at, band.high, strict=True)]
    lower = [(x(f), y(t)) for f, t in zip(band.at, band.low, strict=True)]
    return path(
        upper + lower[::-1], css, closed=True, hint=f"{band.level:.0%} bootstrap band, {band.resamples} resamples"
    )


def legend(names: Sequence[str], right: float, bottom: float) -> list[Markup]:
    """Names, each with a line in the style of its curve, stacked above `bottom`, flush right."""
    top = bottom - 8 - 18 * (len(names) - 1)
    parts = []
    for i, name in enumerate(names):
        y = top + 18 * i
        parts += [
            line(right - 18, y - 4, right, y - 4, f"curve c{i % HUES}"),
            text(right - 24, y, clip(name, 28), anchor="end"),
        ]
    return parts


def labelled(predictions: pd.DataFrame) -> pd.DataFrame:
    """The rows whose true label is known."""
    return predictions[predictions["label"].notna()] if "label" in predictions else predictions.iloc[:0]


def truth_and_score(rows: pd.DataFrame, name: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each row is of class `name`, and the predicted probability; rows without a probability are left out."""
    column = f"p_{name}"
    if column not in rows:
        return np.zeros(0, np.bool_), np.zeros(0)
    score = rows[column].to_numpy(np.float64)
    usable = np.isfinite(score)
    return (rows["label"].astype(str) == name).to_numpy()[usable], score[usable]


def usable(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows that `truth_and_score` keeps."""
    return rows[np.isfinite(rows[f"p_{name}"].to_numpy(np.float64))] if f"p_{name}" in rows else rows.iloc[:0]


def patients_of(rows: pd.DataFrame) -> NDArray[np.str_]:
    """The patient of each row; a slide without a patient counts as its own."""
    if "slide_id" not in rows:
        return rows["patient_id"].astype(str).to_numpy(np.str_)
    own = rows["slide_id"].astype(str)
    patients = rows["patient_id"].where(rows["patient_id"].notna(), own) if "patient_id" in rows else own
    return patients.astype(str).to_numpy(np.str_)
