"""A sheet of examples as PNG: for each class patches that were named right, and the surest of those named wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from wsi_pipeline.report.figures.tuning_figures import BLUE, INK, MUTED, ORANGE, new_figure, plain, png_of, short

EACH, MOST_CLASSES = 4, 9
_PATCH, _GAP, _UNDER, _LEFT, _MIDDLE, _TOP = 0.78, 0.1, 0.26, 1.55, 0.32, 0.42
"""Inches: side of a patch, between patches, words under it, class names, between right and wrong, heads."""


Images = Mapping[int, NDArray[np.uint8]]


@dataclass(frozen=True)
class ClassExamples:
    """One line of the sheet: row numbers of patches of class `code`, and how many were right and wrong in all."""

    code: int
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    n_right: int
    n_wrong: int


@dataclass(frozen=True, eq=False)
class Verdicts:
    """N patches as they were judged: truth, predicted (N,) class numbers; probabilities (N, C); group (N,) of each."""

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.floating]
    groups: Sequence[str]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class, (N,)."""
        return np.asarray(self.probabilities, np.float64)[np.arange(len(self.truth)), self.predicted]


def choose_examples(verdicts: Verdicts, *, each: int = EACH, most: int = MOST_CLASSES) -> tuple[ClassExamples, ...]:
    """Which patches to show: of each class `each` right ones from certain to hesitant, and `each` surest mistakes.

    Different groups come first. Where there are more than `most` classes, those with most mistakes are shown.
    """
    sure, rows = verdicts.confidence, np.arange(len(verdicts.truth))
    lines = []
    for code in np.unique(verdicts.truth).tolist():
        own = verdicts.truth == code
        right = _by_confidence(rows[own & (verdicts.predicted == code)], sure)
        wrong = _by_confidence(rows[own & (verdicts.predicted != code)], sure)
        spread = right[np.linspace(0, len(right) - 1, min(each, len(right))).round().astype(int)]
        many = _of_many_groups(wrong, verdicts.groups, each)
        lines.append(ClassExamples(code, tuple(spread.tolist()), many, len(right), len(wrong)))
    kept = sorted(sorted(lines, key=lambda line: -line.n_wrong)[:most], key=lambda line: line.code)
    return tuple(kept)


def sheet_png(lines: Sequence[ClassExamples], images: Images, verdicts: Verdicts, classes: Sequence[str]) -> bytes:
    """The sheet as PNG: see `draw_sheet`."""
    return png_of(draw_sheet(lines, images, verdicts, classes))


def draw_sheet(lines: Sequence[ClassExamples], images: Images, verdicts: Verdicts, classes: Sequence[str]) -> Figure:
    """The sheet: a line per class, right patches at the left (blue), wrong ones at the right (orange).

    images   row number -> uint8 (P, P, 3), for every row that `lines` names
    """
    across, down = 2 * EACH * (_PATCH + _GAP) + _MIDDLE, _PATCH + _UNDER + _GAP
    figure = new_figure(_LEFT + across, _TOP + down * len(lines) + 0.15)
    sheet = _Sheet(figure.add_axes((0, 0, 1, 1)), classes, verdicts)
    middle = _LEFT + EACH * (_PATCH + _GAP) + _MIDDLE
    sheet.words(_LEFT, _TOP - 0.16, "right, from certain to hesitant", BLUE, size=8.0)
    sheet.words(middle, _TOP - 0.16, "wrong, surest first: what they were taken for", ORANGE, size=8.0)
    for number, line in enumerate(lines):
        top = _TOP + number * down
        sheet.name(top, line)
        for left, rows, colour in ((_LEFT, line.right, BLUE), (middle, line.wrong, ORANGE)):
            for place, row in enumerate(rows):
                sheet.patch(left + place * (_PATCH + _GAP), top, row, images[row], colour)
            if not rows:
                sheet.words(left, top + _PATCH / 2, "none", MUTED)
    if len(lines) < (whole := len(np.unique(verdicts.truth))):
        note = f"{len(lines)} of {whole} classes: those with most mistakes"
        sheet.words(_LEFT, _TOP + down * len(lines) + 0.05, note, MUTED)
    sheet.finish(*figure.get_size_inches())
    return figure


@dataclass(frozen=True, eq=False)
class _Sheet:
    """Places things on axes whose units are inches from the upper left corner."""

    axes: Axes
    classes: Sequence[str]
    verdicts: Verdicts

    def words(self, x: float, y: float, text: str, colour: str, *, size: float = 7.0, align: str = "left") -> None:
        plain(self.axes.text(x, y, text, color=colour, fontsize=size, ha=align, va="center"))

    def name(self, top: float, line: ClassExamples) -> None:
        right, middle = _LEFT - 0.12, top + _PATCH / 2
        self.words(right, middle - 0.08, short(self.classes[line.code], 22), INK, size=8.0, align="right")
        self.words(right, middle + 0.09, f"{line.n_right} right, {line.n_wrong} wrong", MUTED, align="right")

    def patch(self, x: float, y: float, row: int, image: NDArray[np.uint8], colour: str) -> None:
        self.axes.imshow(image, interpolation="bilinear", aspect="auto", extent=(x, x + _PATCH, y + _PATCH, y))
        self.axes.add_patch(Rectangle((x, y), _PATCH, _PATCH, fill=False, ec=colour, lw=2.2))
        sure, code = float(self.verdicts.confidence[row]), int(self.verdicts.predicted[row])
        wrong = code != int(self.verdicts.truth[row])
        told = [f"{sure:.2f}"] if not wrong else [short(self.classes[code], 16), f"{sure:.2f}"]
        for number, text in enumerate(told):
            self.words(x + _PATCH / 2, y + _PATCH + 0.09 + 0.1 * number, text, INK, size=5.8, align="center")

    def finish(self, width: float, height: float) -> None:
        """Set the limits, which every picture has set to its own."""
        self.axes.axis("off")
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)


def _by_confidence(rows: NDArray[np.int64], sure: NDArray[np.float64]) -> NDArray[np.int64]:
    """Surest first; equal ones in the order of the rows."""
    return rows[np.argsort(-sure[rows], kind="stable")]


def _of_many_groups(rows: NDArray[np.int64], groups: Sequence[str], most: int) -> tuple[int, ...]:
    """The first `most` rows in order, one per group before a second of any."""
    seen: dict[str, int] = {}
    ranked = []
    for place, row in enumerate(rows.tolist()):
        group = str(groups[row])
        ranked.append((seen.get(group, 0), place, row))
        seen[group] = seen.get(group, 0) + 1
    chosen = sorted(ranked)[:most]
    return tuple(row for _, _, row in sorted(chosen, key=lambda item: item[1]))
