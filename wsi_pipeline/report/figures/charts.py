"""SVG figures of the report: confusion matrix, intervals, patch counts, training curves (ROC curves: `figures.roc`).

Each is a pure function of numbers and returns safe markup. Hues are set by the page (Okabe and Ito 2008, safe for
colour-blind readers), and nothing is shown by hue alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from wsi_pipeline.report.data import Estimate, as_number
from wsi_pipeline.report.figures.axes import BOTTOM, LEFT, SIDE, TOP, axes
from wsi_pipeline.report.figures.curves import patch_count_outliers
from wsi_pipeline.report.figures.svg import Scale, clip, el, figure, line, path, text, upright
from wsi_pipeline.wording import counted

BAR_WIDTH = 240.0


def confusion_figure(matrix: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup | None:
    """Confusion matrix, rows true, columns predicted: counts and percentages of the row. None if empty."""
    counts = np.asarray(matrix, dtype=np.int64)
    if counts.shape != (len(classes), len(classes)) or counts.size == 0:
        return None
    cell = float(np.clip(SIDE / len(classes), 46, 112))
    left, top = 18.0 + min(170.0, 7.2 * max(len(name) for name in classes)) + 10, 40.0
    side = cell * len(classes)
    parts = [
        text(left + side / 2, 14, "predicted", anchor="middle"),
        upright(11, top + side / 2, "true"),
    ]
    for i, name in enumerate(classes):
        parts.append(text(left - 9, top + (i + 0.5) * cell + 4, clip(name, 22), anchor="end", css="name"))
        parts.append(
            text(left + (i + 0.5) * cell, top - 8, clip(name, max(4, int(cell / 7))), anchor="middle", css="name")
        )
        row = counts[i].sum()
        for j, count in enumerate(counts[i].tolist()):
            share = count / row if row else 0.0
            parts += _cell(left + j * cell, top + i * cell, cell, count, share if row else None, i == j)
    total = int(counts.sum())
    return figure(left + side + 4, top + side + 6, f"Confusion matrix of {total} slides", parts, css="confusion")


def _cell(x: float, y: float, side: float, count: int, share: float | None, right: bool) -> list[Markup]:
    """One cell: hue shows correct or wrong, opacity the fraction of the row."""
    kind = "right" if right else "wrong"
    opacity = f"{0.04 + 0.5 * (share or 0.0):.2f}"
    box = el("rect", x=x + 1, y=y + 1, width=side - 2, height=side - 2, rx=3, class_=kind, fill_opacity=opacity)
    percent = "" if share is None else f"{share:.0%}"
    return [
        box,
        text(x + side / 2, y + side / 2, f"{count}", anchor="middle", css="count"),
        text(x + side / 2, y + side / 2 + 16, percent, anchor="middle", css="tick"),
    ]


def interval_bar(estimate: Estimate | None, low: float, baseline: float | None, css: str = "") -> Markup:
    """One row of the model comparison: value and interval on an axis from `low` to 1, dashed line: the baseline."""
    x, height = Scale(low, 1.0, 6, BAR_WIDTH - 6), 26.0
    parts = [line(x(t), 0, x(t), height, "grid") for t in x.ticks(4)]
    if baseline is not None and low <= baseline <= 1:
        parts.append(line(x(baseline), 0, x(baseline), height, "baseline"))
    if estimate is None:
        return figure(BAR_WIDTH, height, "undefined", parts, css="interval")
    words = f"{estimate.value:.3f}"
    if estimate.low is not None and estimate.high is not None:
        parts.append(line(x(max(low, estimate.low)), height / 2, x(estimate.high), height / 2, f"whisker {css}"))
        words += f", interval {estimate.low:.3f} to {estimate.high:.3f}"
    parts.append(el("circle", cx=x(max(low, estimate.value)), cy=height / 2, r=4.5, class_=f"point {css}"))
    return figure(BAR_WIDTH, height, words, parts, css="interval")


def interval_axis(low: float) -> Markup:
    """The tick labels above a column of `interval_bar`."""
    x = Scale(low, 1.0, 6, BAR_WIDTH - 6)
    ticks = x.ticks(4)
    labels = [text(x(t), 12, f"{t:g}", anchor="end" if t == 1 else "middle", css="tick") for t in ticks]
    return figure(BAR_WIDTH, 16, f"axis from {low:g} to 1", labels, css="interval")


def patch_count_figure(counts: Sequence[int], names: Sequence[str]) -> Markup | None:
    """Patches per slide on a log axis, one dot per slide, outliers as diamonds. None without patches.

    `counts` and `names` are in the same order; slides with 0 patches are left out. The line marks the median.
    """
    filled = np.asarray(counts, dtype=np.int64)
    odd = patch_count_outliers(filled)
    if not (filled > 0).any():
        return None
    low, high = float(filled[filled > 0].min()), float(filled.max())
    x = Scale(max(0.8, low / 1.25), high * 1.25, 12, 708, log=True)
    radius, stacks = _stacked([x(float(max(c, 1))) for c in filled.tolist()], filled > 0)
    floor = 24.0 + max(40.0, 2.2 * radius * (max(stacks.values()) + 1))
    median = x(float(np.median(filled[filled > 0])))
    parts = [line(median, 18, median, floor + 6, "median"), line(12, floor + 6, 708, floor + 6, "axis")]
    parts.append(text(median, 12, f"median {np.median(filled[filled > 0]):,.0f}".replace(",", " "), anchor="middle"))
    for index, height in stacks.items():
        centre = x(float(filled[index])), floor - radius - 2.2 * radius * height
        parts.append(_dot(centre, radius, bool(odd[index]), f"{names[index]}: {filled[index]} patches"))
    for t in x.ticks():
        parts.append(line(x(t), floor + 6, x(t), floor + 11, "axis"))
        parts.append(text(x(t), floor + 26, f"{t:,.0f}".replace(",", " "), anchor="middle", css="tick"))
    parts.append(text(708, floor + 46, "patches per slide, log scale", anchor="end"))
    description = f"Patches per slide: {int((filled > 0).sum())} slides, {int(odd.sum())} outliers"
    return figure(720, floor + 54, description, parts)


def _stacked(positions: Sequence[float], shown: np.ndarray) -> tuple[float, dict[int, int]]:
    """The largest dot radius that fits and, for each shown slide, the number of dots below its own."""
    heights: dict[int, int] = {}
    radius = 5.0
    for radius in (5.0, 4.0, 3.0, 2.4, 1.8, 1.3):
        taken: dict[int, int] = {}
        heights = {}
        for index in np.flatnonzero(shown).tolist():
            column = int(positions[index] // (2 * radius))
            heights[index] = taken.get(column, 0)
            taken[column] = heights[index] + 1
        if max(taken.values()) * 2.2 * radius <= 150:
            break
    return radius, heights


def _dot(centre: tuple[float, float], radius: float, odd: bool, hint: str) -> Markup:
    x, y = centre
    if odd:
        r = radius * 1.35
        return path([(x, y - r), (x + r, y), (x, y + r), (x - r, y)], "odd", closed=True, hint=hint)
    return el("circle", el("title", hint), cx=x, cy=y, r=radius, class_="dot")


def training_figure(histories: Sequence[Sequence[Mapping[str, float | None]]]) -> Markup | None:
    """Training (dashed) and validation loss by epoch, one pair of lines per fold, a dot at the best epoch.

    Epochs without a finite loss are left out. None if nothing was recorded.
    """
    drawn = [(_series(h, "train_loss"), _series(h, "val_loss")) for h in histories]
    points = [point for pair in drawn for series in pair for point in series]
    if not points:
        return None
    epochs, losses = [p[0] for p in points], [p[1] for p in points]
    x = Scale(min(epochs), max(max(epochs), min(epochs) + 1), LEFT, LEFT + SIDE)
    y = Scale(0.0, max(max(losses), 1e-9) * 1.05, TOP + SIDE, TOP)
    parts = [axes(x, y, "epoch", "loss", [tick for tick in x.ticks(6) if tick == int(tick)], y.ticks(7))]
    for fold, (train, val) in enumerate(drawn):
        if train:
            parts.append(path([(x(e), y(v)) for e, v in train], "train", hint=f"fold {fold}, training"))
        if val:
            parts.append(path([(x(e), y(v)) for e, v in val], "val", hint=f"fold {fold}, validation"))
            best = min(val, key=lambda point: point[1])
            parts.append(el("circle", cx=x(best[0]), cy=y(best[1]), r=3.2, class_="best"))
    return figure(x(x.high) + 10, y(0) + BOTTOM, f"Loss by epoch, {counted(len(drawn), 'fold')}", parts)


def _series(history: Sequence[Mapping[str, float | None]], name: str) -> list[tuple[float, float]]:
    values = [(float(row["epoch"] or 0), as_number(row.get(name))) for row in history]
    return [(epoch, value) for epoch, value in values if value is not None]
