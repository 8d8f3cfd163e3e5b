"""PNG figures of a tuning: training curves and confusion matrix (example patches: `maps.example_sheets`).

Designed for print: white background, one font size, hues safe for colour-blind readers (Okabe and Ito 2008), and
nothing shown by hue alone. Each is a pure function of numbers and names; names may contain any character.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK, MUTED, LINE = "#1d2127", "#5a616b", "#dcddda"
BLUE, ORANGE, GREY = "#0072b2", "#c24f00", "#7a8088"
DPI = 200
_POINTS = 8.0
_LONGEST_NAME = 28
_MOST_CELLS_WITH_COUNTS, _MOST_CELLS_WITH_SHARES = 12, 24

Epochs = Sequence[Mapping[str, float]]
"""Rows of history.csv: epoch, train_loss, val_loss, val_accuracy, val_macro_f1, in order."""


def curves_png(history: Epochs, best_epoch: int) -> bytes:
    """Loss and validation scores by epoch; the epoch whose weights were kept is marked. `history` must not be empty."""
    figure = new_figure(6.7, 2.7)
    epochs = [row["epoch"] for row in history]
    best = next((row for row in history if row["epoch"] == best_epoch), history[-1])
    losses, scores = figure.subplots(1, 2)
    _curve(losses, epochs, [row["train_loss"] for row in history], GREY, "training", dashed=True)
    _curve(losses, epochs, [row["val_loss"] for row in history], BLUE, "validation")
    _curve(scores, epochs, [row["val_accuracy"] for row in history], GREY, "accuracy", dashed=True)
    _curve(scores, epochs, [row["val_macro_f1"] for row in history], BLUE, "macro F1")
    _axes(losses, "loss", epochs, best["epoch"])
    _axes(scores, "validation score", epochs, best["epoch"])
    scores.plot(best["epoch"], best["val_macro_f1"], "o", ms=5, mfc="white", mec=BLUE, mew=1.4, zorder=5)
    losses.plot(best["epoch"], best["val_loss"], "o", ms=5, mfc="white", mec=BLUE, mew=1.4, zorder=5)
    shown = [row[name] for row in history for name in ("train_loss", "val_loss") if math.isfinite(row[name])]
    losses.set_ylim(0, 1.06 * max([*shown, 1e-6]))
    words = f"epoch {best['epoch']:g} kept: macro F1 {best['val_macro_f1']:.3f}, loss {best['val_loss']:.3f}"
    scores.set_title(words, loc="right", fontsize=_POINTS, color=MUTED)
    figure.tight_layout(w_pad=2.5)
    return png_of(figure)


def confusion_png(matrix: Sequence[Sequence[int]], classes: Sequence[str], what: str = "patches") -> bytes:
    """Confusion matrix as PNG: see `draw_confusion`."""
    return png_of(draw_confusion(matrix, classes, what))


def draw_confusion(matrix: Sequence[Sequence[int]], classes: Sequence[str], what: str) -> Figure:
    """Confusion matrix (C, C), rows true, columns predicted: counts and percentages of the row.

    With more than 12 classes cells show percentages only, with more than 24 only the shade. `what` names what is
    counted.
    """
    counts = np.asarray(matrix, dtype=np.int64).reshape(len(classes), len(classes))
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    cell = float(np.clip(5.0 / len(classes), 0.16, 0.8))
    side = max(1.6, cell * len(classes))
    figure = new_figure(side + 2.4, side + 1.8)
    axes = figure.add_axes((1.6 / (side + 2.4), 0.4 / (side + 1.8), side / (side + 2.4), side / (side + 1.8)))
    axes.imshow(share, cmap="Blues", vmin=0.0, vmax=1.0, aspect="equal")
    _grid(axes, len(classes))
    _write_cells(axes, counts, share)
    _class_names(axes, classes, counts, cell)
    axes.set_title(f"predicted (of {_spaced(int(counts.sum()))} {what})", fontsize=_POINTS, color=MUTED, pad=8)
    return figure


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of this size in inches."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def png_of(figure: Figure) -> bytes:
    """The figure as PNG, cropped to its content. Characters that the font lacks are drawn as boxes."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # matplotlib warns about every missing glyph
        figure.savefig(out, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.06, metadata={"Software": None})
    return out.getvalue()


def plain(text: Text) -> Text:
    """The label with math parsing off, so that `$` is shown as it is."""
    text.set_parse_math(False)
    return text


def short(name: str, most: int = _LONGEST_NAME) -> str:
    """A class name for a picture: one line of at most `most` characters.

    Long names are shortened in the middle, because names with the same beginning often differ at the end.
    """
    line = " ".join(name.split())
    if len(line) <= most:
        return line
    tail = (most - 1) // 3
    return f"{line[: most - 1 - tail].rstrip()}…{line[len(line) - tail :].lstrip()}"


def _curve(
    axes: Axes, epochs: Sequence[float], values: Sequence[float], colour: str, name: str, *, dashed: bool = False
) -> None:
    drawn = [value if value is not None and math.isfinite(value) else math.nan for value in values]
    marker = "." if len(drawn) == 1 else ""
    axes.plot(epochs, drawn, color=colour, lw=1.5, ls="--" if dashed else "-", marker=marker, label=name)


def _axes(axes: Axes, name: str, epochs: Sequence[float], best: float) -> None:
    axes.axvline(best, color=LINE, lw=1.2, zorder=0)
    axes.set_xlabel("epoch", fontsize=_POINTS, color=MUTED)
    axes.set_ylabel(name, fontsize=_POINTS, color=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
    axes.set_xlim(min(epochs) - 0.4, max(epochs) + 0.4)
    axes.tick_params(labelsize=_POINTS, colors=INK, color=LINE, length=3)
    axes.grid(axis="y", color=LINE, lw=0.6)
    axes.set_axisbelow(True)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(LINE)
    axes.legend(fontsize=_POINTS, frameon=False, labelcolor=INK, loc="best", handlelength=2.2)


def _grid(axes: Axes, count: int) -> None:
    """White gaps between the cells; no frame, no ticks."""
    axes.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axes.grid(which="minor", color="white", lw=1.5)
    axes.tick_params(which="both", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _write_cells(axes: Axes, counts: NDArray[np.int64], share: NDArray[np.float64]) -> None:
    k = len(counts)
    if k > _MOST_CELLS_WITH_SHARES:
        return
    with_counts = k <= _MOST_CELLS_WITH_COUNTS
    for (i, j), count in np.ndenumerate(counts):
        colour = "white" if share[i, j] > 0.55 else INK if count else GREY
        weight = "bold" if i == j else "normal"
        if with_counts:
            percent = f"\n{share[i, j]:.0%}" if counts[i].sum() else ""
            size = _POINTS if k <= 8 else 6.5
            axes.text(j, i, f"{_spaced(int(count))}{percent}", ha="center", va="center", fontsize=size, color=colour,
                      fontweight=weight, linespacing=1.15)  # fmt: skip
        elif count:
            axes.text(j, i, f"{100 * share[i, j]:.0f}", ha="center", va="center", fontsize=5.5, color=colour)


def _class_names(axes: Axes, classes: Sequence[str], counts: NDArray[np.int64], cell: float) -> None:
    """True classes with counts at the left; predicted classes above, slanted if wider than a cell."""
    size = _POINTS if len(classes) <= 24 else max(4.0, 72 * cell * 0.6)
    places = np.arange(len(classes))
    left = [f"{short(name)}  {_spaced(int(row.sum()))}" for name, row in zip(classes, counts, strict=True)]
    axes.set_yticks(places, left, fontsize=size, color=INK)
    axes.set_ylabel("true", fontsize=_POINTS, color=MUTED)
    axes.xaxis.tick_top()
    wide = max(len(short(name)) for name in classes) * size * 0.6 / 72 > cell
    angle = 40 if cell >= 0.22 else 90
    anchor: dict[str, Any] = {"rotation": angle, "ha": "left", "va": "bottom", "rotation_mode": "anchor"}
    if angle == 90:
        anchor["va"] = "center"
    axes.set_xticks(places, [short(name) for name in classes], fontsize=size, color=INK, **(anchor if wide else {}))
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        plain(label)


def _spaced(count: int) -> str:
    return f"{count:,}".replace(",", "\u2009")
