"""Figures say what the numbers say, hold together as XML, and are absent where there is nothing to draw."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from fixture import CLASSES, make_model
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from wsi_pipeline.report.data import Estimate
from wsi_pipeline.report.figures.calibration_figure import calibration_figure
from wsi_pipeline.report.figures.charts import (
    confusion_figure,
    interval_axis,
    interval_bar,
    patch_count_figure,
    training_figure,
)
from wsi_pipeline.report.figures.roc import roc_figure
from wsi_pipeline.report.figures.svg import Scale, el, log_ticks, nice_step

HOSTILE = "<i id='x'>one</i>\"&"


def parse(drawing: Markup | None) -> ET.Element:
    assert drawing is not None
    return ET.fromstring(drawing)


def words(root: ET.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter("text")]


def with_class(root: ET.Element, name: str) -> list[ET.Element]:
    return [node for node in root.iter() if name in node.get("class", "").split()]


def test_two_classes_have_one_curve_a_band_and_faint_folds() -> None:
    predictions = make_model("a", "b", 1.0).predictions
    root = parse(roc_figure(predictions, CLASSES))
    assert len(with_class(root, "curve")) == 1
    assert len(with_class(root, "band")) == 1
    assert len(with_class(root, "fold")) == 5


def test_three_classes_have_a_curve_each_with_their_names() -> None:
    classes = ("adenoma", HOSTILE, "normal")
    predictions = make_model("a", "b", 1.0, n=45, classes=classes).predictions
    root = parse(roc_figure(predictions, classes))
    assert len([node for node in with_class(root, "curve") if node.tag == "path"]) == 3
    assert "normal" in words(root)
    assert any(name.startswith("<i id=") for name in words(root))


def test_perfect_model_goes_through_the_upper_left_corner() -> None:
    table = pd.DataFrame({"slide_id": list("abcd"), "label": ["n", "n", "t", "t"], "p_t": [0.1, 0.2, 0.8, 0.9]})
    root = parse(roc_figure(table, ("n", "t")))
    shape = with_class(root, "curve")[0].get("d")
    assert shape is not None
    assert "46 12" in shape, "x = 46 is rate 0, y = 12 is rate 1"


@pytest.mark.parametrize("labels", [[None, None], ["t", "t"], ["t", None]])
def test_no_roc_without_two_classes(labels: list[str | None]) -> None:
    table = pd.DataFrame({"slide_id": ["a", "b"], "label": labels, "p_n": [0.5, 0.2], "p_t": [0.5, 0.8]})
    assert roc_figure(table, ("n", "t")) is None
    assert roc_figure(table, ("t",)) is None
    assert roc_figure(table, ()) is None


def test_probabilities_that_are_missing_are_left_out() -> None:
    table = pd.DataFrame({"slide_id": list("abc"), "label": ["n", "t", "t"], "p_t": [0.1, 0.9, np.nan]})
    assert len(with_class(parse(roc_figure(table, ("n", "t"))), "curve")) == 1


def test_confusion_shows_counts_and_row_shares() -> None:
    root = parse(confusion_figure([[6, 2], [0, 0]], CLASSES))
    cells = words(root)
    assert cells[cells.index("6") : cells.index("6") + 4] == ["6", "75%", "2", "25%"]
    assert "nan%" not in cells
    assert len(with_class(root, "right")) == 2
    assert len(with_class(root, "wrong")) == 2


@pytest.mark.parametrize("matrix", [[], [[1]], [[1, 2]]])
def test_confusion_of_another_shape_is_not_drawn(matrix: list[list[int]]) -> None:
    assert confusion_figure(matrix, CLASSES) is None


def test_interval_bar_places_the_point_between_its_ends() -> None:
    root = parse(interval_bar(Estimate(0.8, 0.7, 0.85), 0.4, 0.6))
    whisker, point = with_class(root, "whisker")[0], with_class(root, "point")[0]
    assert float(whisker.get("x1", "")) < float(point.get("cx", "")) < float(whisker.get("x2", ""))
    assert len(with_class(root, "baseline")) == 1
    assert "0.800" in root.get("aria-label", "")


def test_interval_bar_without_value_or_interval() -> None:
    assert not with_class(parse(interval_bar(None, 0.4, None)), "point")
    assert not with_class(parse(interval_bar(Estimate(0.7), 0.4, None)), "whisker")
    assert words(parse(interval_axis(0.4))) == ["0.4", "0.6", "0.8", "1"]


def test_patch_counts_draw_every_filled_slide_once_and_mark_the_odd_one() -> None:
    counts = [1000 + 7 * i for i in range(40)] + [0, 30]
    root = parse(patch_count_figure(counts, [f"s{i}" for i in range(42)]))
    assert len(with_class(root, "dot")) == 40
    odd = with_class(root, "odd")
    assert ["".join(node.itertext()) for node in odd] == ["s41: 30 patches"]


def test_patch_dots_of_a_large_cohort_stay_on_the_picture() -> None:
    rng = np.random.default_rng(0)
    root = parse(patch_count_figure(rng.lognormal(7, 0.4, 1500).astype(int).tolist(), ["s"] * 1500))
    assert min(float(node.get("cy", "")) for node in with_class(root, "dot")) > 0


def test_nothing_to_draw_draws_nothing() -> None:
    assert patch_count_figure([], []) is None
    assert patch_count_figure([0, 0], ["a", "b"]) is None
    assert training_figure([]) is None
    assert training_figure([[{"epoch": 1, "train_loss": None, "val_loss": float("nan")}]]) is None


def test_repeats_make_no_more_patients_of_the_calibration() -> None:
    """Ten predictions, or the same ten in each of five repeats: the whiskers are as long."""
    bin_ = {"mean_predicted": 0.4, "observed": 0.5}
    once = parse(calibration_figure({"bins": [{**bin_, "n": 10}]}))
    often = parse(calibration_figure({"bins": [{**bin_, "n": 50}]}, repeats=5))
    (short,), (long,) = with_class(once, "whisker"), with_class(often, "whisker")
    assert (short.get("y1"), short.get("y2")) == (long.get("y1"), long.get("y2"))


def test_training_marks_the_lowest_validation_loss() -> None:
    losses = [0.9, 0.5, 0.7]
    history = [{"epoch": i + 1, "train_loss": 1.0, "val_loss": v} for i, v in enumerate(losses)]
    root = parse(training_figure([history]))
    best = with_class(root, "best")[0]
    shape = with_class(root, "val")[0].get("d", "").removeprefix("M").split("L")
    assert f"{best.get('cx')} {best.get('cy')}" == shape[1]


def test_a_single_epoch_is_drawn() -> None:
    assert parse(training_figure([[{"epoch": 1, "train_loss": 0.0, "val_loss": 0.0}]])) is not None


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6))
def test_ticks_lie_in_the_range_and_are_few(low: float, span: float) -> None:
    ticks = Scale(low, low + span, 0, 100).ticks(5)
    slack = 1e-6 * max(abs(low), span)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    assert len(ticks) <= 7


@given(st.floats(1, 1e6), st.floats(1.6, 1e5))
def test_log_axes_have_ticks(low: float, factor: float) -> None:
    ticks = log_ticks(low, low * factor)
    assert all(low <= tick <= low * factor for tick in ticks)
    if factor >= 2.5:
        assert ticks


@given(st.floats(1e-6, 1e6))
def test_nice_steps_are_one_two_or_five(step: float) -> None:
    nice = nice_step(step)
    assert step * (1 - 1e-6) <= nice <= 2.5 * step * (1 + 1e-6)
    assert f"{nice:e}"[0] in "125"


def test_elements_escape_text_and_attributes() -> None:
    drawn = el("text", HOSTILE, data_name=HOSTILE)
    assert "<i" not in drawn
    root = ET.fromstring(drawn)
    assert root.text == HOSTILE
    assert root.get("data-name") == HOSTILE
