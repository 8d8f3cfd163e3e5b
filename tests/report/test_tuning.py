"""Pictures of a tuning: nothing overlaps, any name can be drawn, examples show what their headings say."""

from __future__ import annotations

import io
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from shapely import Polygon, STRtree, affinity, box

from wsi_pipeline.report.figures.tuning_figures import confusion_png, curves_png, draw_confusion, short
from wsi_pipeline.report.maps.example_sheets import (
    EACH,
    MOST_CLASSES,
    Verdicts,
    choose_examples,
    draw_sheet,
    sheet_png,
)

LONG = (
    "adipose tissue",
    "background",
    "debris",
    "lymphocytes",
    "mucus",
    "smooth muscle",
    "normal colon mucosa",
    "cancer-associated stroma",
    "colorectal adenocarcinoma epithelium",
)
ODD = ("$\\frac{1}{0", "a<b>&\nsecond line", "腺癌", "%s {x} \\")


def epochs(count: int) -> list[dict[str, float]]:
    return [
        {
            "epoch": e,
            "train_loss": 2.0 / e,
            "val_loss": 1.5 / e,
            "val_accuracy": 1 - 1 / (e + 1),
            "val_macro_f1": 0.1 * e,
        }
        for e in range(1, count + 1)
    ]


def judged(classes: int, n: int = 400, seed: int = 0) -> Verdicts:
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), n)
    truth = np.where(rng.random(n) < 0.6, probabilities.argmax(1), rng.integers(0, classes, n))
    return Verdicts(truth, probabilities.argmax(1), probabilities, [f"g{k % 7}" for k in range(n)])


def matrix_of(verdicts: Verdicts, classes: int) -> list[list[int]]:
    cells = np.bincount(verdicts.truth * classes + verdicts.predicted, minlength=classes**2)
    return [[int(v) for v in row] for row in cells.reshape(classes, classes)]


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.load()
        assert image.format == "PNG"
        return image.size


def outline(text: Text, renderer: RendererAgg) -> Polygon:
    """The ground that the letters of a text cover, turned as it is turned."""
    extent, angle = text.get_window_extent(renderer), text.get_rotation()
    if angle == 0:
        return box(*extent.extents)
    text.set_rotation(0)
    flat = text.get_window_extent(renderer)
    text.set_rotation(angle)
    x, y = (extent.x0 + extent.x1) / 2, (extent.y0 + extent.y1) / 2
    level = box(x - flat.width / 2, y - 0.35 * flat.height, x + flat.width / 2, y + 0.35 * flat.height)
    return affinity.rotate(level, angle, origin=(x, y))


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    canvas = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    outlines = [outline(text, canvas.get_renderer()) for text in texts]
    found = STRtree(outlines).query(outlines, predicate="intersects").T.tolist()
    return [
        (texts[i].get_text(), texts[j].get_text())
        for i, j in found
        if i < j and outlines[i].intersection(outlines[j]).area > 2.0
    ]


@pytest.mark.parametrize("classes", [LONG[:2], LONG[:4], LONG, ODD[:2], tuple(f"class number {k}" for k in range(20)),
                                     tuple(f"tissue {k}" for k in range(40))], ids=len)  # fmt: skip
def test_labels_of_the_confusion_matrix_do_not_overlap(classes: tuple[str, ...]) -> None:
    verdicts = judged(len(classes), n=3000)
    assert overlapping(draw_confusion(matrix_of(verdicts, len(classes)), classes, "patches")) == []


@pytest.mark.parametrize("classes", [LONG[:2], (*LONG, "a further class with a name of its own", "x")], ids=len)
def test_words_of_the_sheet_do_not_overlap_and_stay_on_it(classes: tuple[str, ...]) -> None:
    verdicts = judged(len(classes), n=3000)
    lines = choose_examples(verdicts)
    images = {row: np.zeros((8, 8, 3), np.uint8) for line in lines for row in (*line.right, *line.wrong)}
    sheet = draw_sheet(lines, images, verdicts, classes)
    assert overlapping(sheet) == []
    assert len(lines) == min(len(classes), MOST_CLASSES)
    drawn_texts = [text.get_text() for text in sheet.findobj(Text)]
    assert any("9 of 11 classes" in words for words in drawn_texts) == (len(classes) == 11)


def test_any_name_is_drawn_and_no_warning_reaches_the_user() -> None:
    verdicts = judged(4, n=60)
    lines = choose_examples(verdicts)
    images = {row: np.full((5, 5, 3), 200, np.uint8) for line in lines for row in (*line.right, *line.wrong)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert min(size_of(confusion_png(matrix_of(verdicts, 4), ODD))) > 300
        assert min(size_of(sheet_png(lines, images, verdicts, ODD))) > 300
    drawn = draw_confusion(matrix_of(verdicts, 4), ODD, "patches").axes[0]
    assert [label.get_text() for label in drawn.get_xticklabels()] == ["$\\frac{1}{0", "a<b>& second line", *ODD[2:]]


def test_confusion_says_counts_and_shares_and_survives_empty_rows() -> None:
    drawn = draw_confusion([[6, 2], [0, 0]], ("benign", "malignant"), "patches")
    drawn_texts = [text.get_text() for text in drawn.axes[0].texts]
    assert drawn_texts == ["6\n75%", "2\n25%", "0", "0"]
    assert drawn.axes[0].get_title() == "predicted (of 8 patches)"


@pytest.mark.parametrize("count", [1, 2, 30])
def test_curves_of_any_length_are_drawn_alike_every_time(count: int) -> None:
    picture = curves_png(epochs(count), best_epoch=max(1, count - 1))
    assert size_of(picture)[0] > 1000
    assert picture == curves_png(epochs(count), best_epoch=max(1, count - 1))


def test_the_epoch_that_was_kept_is_in_the_picture() -> None:
    assert curves_png(epochs(9), best_epoch=3) != curves_png(epochs(9), best_epoch=8)


def test_a_loss_that_is_not_finite_breaks_nothing() -> None:
    rows = [{**row, "train_loss": math.inf} for row in epochs(3)]
    assert size_of(curves_png(rows, 2))[0] > 1000


@given(st.text(max_size=60), st.integers(2, 30))
def test_short_names_are_one_line_and_short(name: str, most: int) -> None:
    shown = short(name, most)
    assert len(shown) <= most
    assert len(shown.splitlines()) <= 1
    assert ("…" in shown) or shown == " ".join(name.split())


def test_names_that_begin_alike_stay_apart() -> None:
    names = [f"colorectal adenocarcinoma, {grade} grade" for grade in ("low", "high")]
    assert len({short(name, 22) for name in names}) == 2


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 12), st.integers(1, 120), st.integers(0, 1000))
def test_examples_are_what_they_are_said_to_be(classes: int, n: int, seed: int) -> None:
    verdicts = judged(classes, n, seed)
    lines = choose_examples(verdicts, most=5)
    assert [line.code for line in lines] == sorted(line.code for line in lines)
    assert len(lines) == min(5, len(np.unique(verdicts.truth)))
    for line in lines:
        own = verdicts.truth == line.code
        assert line.n_right + line.n_wrong == own.sum()
        assert len(line.right) == min(EACH, line.n_right)
        assert len(line.wrong) == min(EACH, line.n_wrong)
        assert len({*line.right, *line.wrong}) == len(line.right) + len(line.wrong)
        assert all(own[row] and verdicts.predicted[row] == line.code for row in line.right)
        assert all(own[row] and verdicts.predicted[row] != line.code for row in line.wrong)
        sure = [verdicts.confidence[row] for row in line.right]
        assert sure == sorted(sure, reverse=True)
        # No group twice while another with a mistake is left out.
        groups = [verdicts.groups[row] for row in line.wrong]
        missed = {verdicts.groups[row] for row in np.flatnonzero(own & (verdicts.predicted != line.code))} - set(groups)
        assert len(set(groups)) == len(groups) or not missed


def test_classes_with_most_mistakes_are_shown_where_not_all_fit() -> None:
    truth = np.repeat(np.arange(4), 5)
    predicted = truth.copy()
    predicted[[0, 15, 16]] = 1
    verdicts = Verdicts(truth, predicted, np.eye(4)[predicted], ["g"] * 20)
    assert [line.code for line in choose_examples(verdicts, most=2)] == [0, 3]
