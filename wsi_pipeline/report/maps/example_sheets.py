"""Sheets of example patches: of one slide by attention, and of a patch classifier by correctness.

An attention sheet shows the patches with the strongest and weakest attention. A verdict sheet shows, for each class,
correctly classified patches and the most confident errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from wsi_pipeline.report.figures.tuning_figures import BLUE, INK, MUTED, ORANGE, new_figure, plain, png_of, short
from wsi_pipeline.report.maps.heatmaps import share_words

ATTENTION_EACH = 8
"""Patches per row of the attention sheet."""

_SIDE_PX, _GAP_PX, _EDGE_PX, _HEAD_PX, _UNDER_PX = 144, 8, 14, 30, 22
_INK_RGB, _MUTED_RGB, _PAPER_RGB = (29, 33, 39), (90, 97, 107), (255, 255, 255)
_FONT = str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")

EACH, MOST_CLASSES = 4, 9
_PATCH, _GAP, _UNDER, _LEFT, _MIDDLE, _TOP = 0.78, 0.1, 0.26, 1.55, 0.32, 0.42
"""Inches: patch side, gap between patches, text below a patch, class names, gap between correct and wrong, headings."""

Images = Mapping[int, NDArray[np.uint8]]


def strongest_and_weakest(values: NDArray[np.floating], each: int = ATTENTION_EACH) -> tuple[list[int], list[int]]:
    """Rows of the `each` largest values, largest first, and of the smallest, smallest first; no row is in both.

    Tied rows keep their order. With fewer than 2 * `each` patches both lists are shorter.
    """
    order = np.argsort(-np.asarray(values, np.float64), kind="stable").tolist()
    half = (len(order) + 1) // 2
    return order[: min(each, half)], order[half:][::-1][: min(each, len(order) - half)]


def draw_attention_sheet(
    values: NDArray[np.floating],
    strong: Sequence[int],
    weak: Sequence[int],
    images: Images,
    title: str,
) -> Image.Image:
    """Two rows of patches with their attention as a multiple of uniform attention.

    values   attention of all patches of the slide (N,), summing to 1
    images   row -> uint8 (P, P, 3), for every row of `strong` and `weak`
    """
    across = 2 * _EDGE_PX + ATTENTION_EACH * _SIDE_PX + (ATTENTION_EACH - 1) * _GAP_PX
    down = _HEAD_PX + _SIDE_PX + _UNDER_PX
    rows = [(f"strongest attention · {title}", strong), ("weakest attention", weak)]
    canvas = Image.new("RGB", (across, _EDGE_PX + down * len(rows)), _PAPER_RGB)
    draw = ImageDraw.Draw(canvas)
    head, small = ImageFont.truetype(_FONT, 15), ImageFont.truetype(_FONT, 13)
    for number, (words, chosen) in enumerate(rows):
        top = _EDGE_PX // 2 + number * down
        draw.text((_EDGE_PX, top + _HEAD_PX / 2), words, fill=_INK_RGB, font=head, anchor="lm")
        for place, row in enumerate(chosen):
            left = _EDGE_PX + place * (_SIDE_PX + _GAP_PX)
            patch = Image.fromarray(images[row]).resize((_SIDE_PX, _SIDE_PX), Image.Resampling.LANCZOS)
            canvas.paste(patch, (left, top + _HEAD_PX))
            middle = (left + _SIDE_PX / 2, top + _HEAD_PX + _SIDE_PX + _UNDER_PX / 2)
            draw.text(middle, share_words(float(values[row]), len(values)), fill=_MUTED_RGB, font=small, anchor="mm")
    return canvas


@dataclass(frozen=True)
class ClassExamples:
    """One line of a verdict sheet: row numbers of patches of class `code`; total numbers of correct and wrong ones."""

    code: int
    right: tuple[int, ...]
    wrong: tuple[int, ...]
    n_right: int
    n_wrong: int


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Classification of N patches: true and predicted class numbers (N,), probabilities (N, C), group of each patch."""

    truth: NDArray[np.int64]
    predicted: NDArray[np.int64]
    probabilities: NDArray[np.floating]
    groups: Sequence[str]

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class, (N,)."""
        return np.asarray(self.probabilities, np.float64)[np.arange(len(self.truth)), self.predicted]


def choose_examples(verdicts: Verdicts, *, each: int = EACH, most: int = MOST_CLASSES) -> tuple[ClassExamples, ...]:
    """Which patches to show per class: `each` correct ones over the range of confidence, and `each` confident errors.

    Errors of different groups are preferred. If there are more than `most` classes, those with the most errors are
    shown.
    """
    confidence, rows = verdicts.confidence, np.arange(len(verdicts.truth))
    lines = []
    for code in np.unique(verdicts.truth).tolist():
        own = verdicts.truth == code
        right = _by_confidence(rows[own & (verdicts.predicted == code)], confidence)
        wrong = _by_confidence(rows[own & (verdicts.predicted != code)], confidence)
        shown = right[np.linspace(0, len(right) - 1, min(each, len(right))).round().astype(int)]
        errors = _of_many_groups(wrong, verdicts.groups, each)
        lines.append(ClassExamples(code, tuple(shown.tolist()), errors, len(right), len(wrong)))
    kept = sorted(sorted(lines, key=lambda line: -line.n_wrong)[:most], key=lambda line: line.code)
    return tuple(kept)


def sheet_png(lines: Sequence[ClassExamples], images: Images, verdicts: Verdicts, classes: Sequence[str]) -> bytes:
    """The sheet as PNG: see `draw_sheet`."""
    return png_of(draw_sheet(lines, images, verdicts, classes))


def draw_sheet(lines: Sequence[ClassExamples], images: Images, verdicts: Verdicts, classes: Sequence[str]) -> Figure:
    """The sheet: a line per class, correct patches at the left (blue), wrong ones at the right (orange).

    images   row number -> uint8 (P, P, 3), for every row that `lines` names
    """
    across, down = 2 * EACH * (_PATCH + _GAP) + _MIDDLE, _PATCH + _UNDER + _GAP
    figure = new_figure(_LEFT + across, _TOP + down * len(lines) + 0.15)
    sheet = _Sheet(figure.add_axes((0, 0, 1, 1)), classes, verdicts)
    middle = _LEFT + EACH * (_PATCH + _GAP) + _MIDDLE
    sheet.words(_LEFT, _TOP - 0.16, "correct, most to least confident", BLUE, size=8.0)
    sheet.words(middle, _TOP - 0.16, "wrong, most confident first: predicted class", ORANGE, size=8.0)
    for number, line in enumerate(lines):
        top = _TOP + number * down
        sheet.name(top, line)
        for left, rows, colour in ((_LEFT, line.right, BLUE), (middle, line.wrong, ORANGE)):
            for place, row in enumerate(rows):
                sheet.patch(left + place * (_PATCH + _GAP), top, row, images[row], colour)
            if not rows:
                sheet.words(left, top + _PATCH / 2, "none", MUTED)
    if len(lines) < (whole := len(np.unique(verdicts.truth))):
        note = f"{len(lines)} of {whole} classes shown: those with the most errors"
        sheet.words(_LEFT, _TOP + down * len(lines) + 0.05, note, MUTED)
    sheet.finish(*figure.get_size_inches())
    return figure


@dataclass(frozen=True, eq=False)
class _Sheet:
    """Draws on axes in inches from the upper left corner."""

    axes: Axes
    classes: Sequence[str]
    verdicts: Verdicts

    def words(self, x: float, y: float, text: str, colour: str, *, size: float = 7.0, align: str = "left") -> None:
        """Plain text, centred vertically on y."""
        plain(self.axes.text(x, y, text, color=colour, fontsize=size, ha=align, va="center"))

    def name(self, top: float, line: ClassExamples) -> None:
        """The class at the left of its line, with its numbers of correct and wrong patches."""
        right, middle = _LEFT - 0.12, top + _PATCH / 2
        self.words(right, middle - 0.08, short(self.classes[line.code], 22), INK, size=8.0, align="right")
        self.words(right, middle + 0.09, f"{line.n_right} correct, {line.n_wrong} wrong", MUTED, align="right")

    def patch(self, x: float, y: float, row: int, image: NDArray[np.uint8], colour: str) -> None:
        """One patch in a frame, with its confidence and, if wrong, the predicted class below."""
        self.axes.imshow(image, interpolation="bilinear", aspect="auto", extent=(x, x + _PATCH, y + _PATCH, y))
        self.axes.add_patch(Rectangle((x, y), _PATCH, _PATCH, fill=False, ec=colour, lw=2.2))
        confidence, code = float(self.verdicts.confidence[row]), int(self.verdicts.predicted[row])
        wrong = code != int(self.verdicts.truth[row])
        caption = [short(self.classes[code], 16)] if wrong else []
        for number, text in enumerate([*caption, f"{confidence:.2f}"]):
            self.words(x + _PATCH / 2, y + _PATCH + 0.09 + 0.1 * number, text, INK, size=5.8, align="center")

    def finish(self, width: float, height: float) -> None:
        """Set the limits of the axes, which each imshow call has changed."""
        self.axes.axis("off")
        self.axes.set_xlim(0, width)
        self.axes.set_ylim(height, 0)


def _by_confidence(rows: NDArray[np.int64], confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Most confident first; tied rows keep their order."""
    return rows[np.argsort(-confidence[rows], kind="stable")]


def _of_many_groups(rows: NDArray[np.int64], groups: Sequence[str], most: int) -> tuple[int, ...]:
    """The first `most` rows in order, taking one row of each group before a second of any."""
    seen: dict[str, int] = {}
    ranked = []
    for place, row in enumerate(rows.tolist()):
        group = str(groups[row])
        ranked.append((seen.get(group, 0), place, row))
        seen[group] = seen.get(group, 0) + 1
    chosen = sorted(ranked)[:most]
    return tuple(row for _, _, row in sorted(chosen, key=lambda item: item[1]))
