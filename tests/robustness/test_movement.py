"""Distances of features: known values, invariances, and support that is always told."""

from __future__ import annotations

import math

import numpy as np
import pytest

from wsi_pipeline.robustness.confounding import measure_confounding
from wsi_pipeline.robustness.movement import measure_movement, measure_neighbours, unit

RNG = np.random.default_rng(0)
ROWS = unit(RNG.normal(size=(60, 12)))
SLIDES = [f"s{number // 10}" for number in range(60)]


def at(*degrees):
    return unit(np.array([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees]))


def test_what_does_not_move_has_moved_nought():
    found = measure_movement(ROWS, ROWS.copy(), SLIDES)
    assert (found.median, found.low, found.high, found.relative, found.lost) == (0, 0, 0, 0, 0)
    assert (found.patches, found.slides) == (60, 6)


def test_movement_is_the_angle_and_relative_to_the_nearest_other_slide():
    original, slides = at(0, 10, 40), ["a", "a", "b"]
    found = measure_movement(original, at(4, 14, 44), slides)
    assert found.median == pytest.approx(1 - math.cos(math.radians(4)))
    to_other = [1 - math.cos(math.radians(angle)) for angle in (40, 30, 30)]
    assert found.relative == pytest.approx(np.median([found.median / each for each in to_other]))
    assert found.lost == 0
    assert measure_movement(original, at(6, 16, 46), slides).lost == pytest.approx(1 / 3)


def test_longer_features_have_not_moved_and_one_slide_has_no_unit_and_no_interval():
    assert measure_movement(unit(3 * ROWS), unit(ROWS), SLIDES).median == pytest.approx(0, abs=1e-12)
    alone = measure_movement(ROWS, unit(ROWS + 0.1), ["s"] * 60)
    assert math.isnan(alone.relative)
    assert math.isnan(alone.low)
    assert alone.median > 0


def test_intervals_hold_the_median_and_are_repeatable():
    changed = unit(ROWS + 0.2 * RNG.normal(size=ROWS.shape))
    first, again = (measure_movement(ROWS, changed, SLIDES, seed=1) for _ in range(2))
    assert first == again
    assert first.low <= first.median <= first.high


def test_neighbours_are_of_the_kind_that_is_asked_and_counted():
    found = measure_neighbours(at(0, 10, 30, 60), ["a", "a", "b", "c"], ["x", "x", "x", None])
    cosine = {angle: 1 - math.cos(math.radians(angle)) for angle in (10, 20, 30, 60)}
    assert found.support == {
        "nearest_own_slide": 2, "nearest_other_slide": 4, "nearest_same_site": 3, "nearest_other_site": 0,
        "any_other_slide": 4,
    }  # fmt: skip
    assert found.values["nearest_own_slide"] == pytest.approx(cosine[10])
    assert found.values["nearest_other_slide"] == pytest.approx((cosine[20] + cosine[30]) / 2)
    assert found.values["nearest_same_site"] == pytest.approx(cosine[20])
    assert math.isnan(found.values["nearest_other_site"])


def cohort(label_weight, site_weight, patches=240):
    rng = np.random.default_rng(3)
    label, site = rng.integers(0, 2, patches), rng.integers(0, 3, patches)
    rows = rng.normal(size=(patches, 16))
    rows[:, 0] += label_weight * label
    rows[:, 1:4] += site_weight * np.eye(3)[site]
    groups = [f"{a}{b}{c}" for a, b, c in zip(label, site, rng.integers(0, 4, patches), strict=True)]
    return unit(rows), [str(a) for a in label], [str(b) for b in site], groups


def test_indices_follow_what_the_features_follow():
    biology, laboratory = (measure_confounding(*cohort(*weights)) for weights in ((6.0, 0.0), (0.0, 6.0)))
    assert biology.ri.value > 0.9
    assert biology.mari.value > 0.95
    assert biology.croma.value > 0.2
    assert laboratory.ri.value < 0.05
    assert laboratory.croma.value < -0.2
    assert biology.croma.support == laboratory.ri.support == 1


def test_indices_of_four_patches_by_hand():
    rows, labels, sites = at(0, 10, 30, 90), ["t", "t", "n", "n"], ["a", "b", "a", "b"]
    found = measure_confounding(rows, labels, sites, ["1", "2", "3", "4"], neighbours=2)
    # 0: b10 SO, a30 OS; 10: a0 SO, 30 differs in both; 30: 10 differs in both, 0 OS; 90: 30 SO, 10 OS
    assert found.ri.value == pytest.approx(3 / 6)
    assert (found.ri.scored, found.ri.patches) == (4, 4)
    assert math.isnan(found.croma.value)  # nobody has five neighbours of a kind
    assert found.croma.scored == 0


def test_nothing_scored_is_nan_with_support_nought():
    rows, labels, sites, _ = cohort(1.0, 1.0)
    for given in ((labels, sites, ["g"] * len(labels)), (["t"] * len(labels), ["a"] * len(labels), labels)):
        found = measure_confounding(rows, *given)
        assert math.isnan(found.ri.value)
        assert math.isnan(found.mari.value)
        assert math.isnan(found.croma.value)
        assert found.ri.support == found.croma.support == 0


def test_indices_equal_those_of_croma():
    croma, pandas = pytest.importorskip("croma"), pytest.importorskip("pandas")
    rows, labels, sites, groups = cohort(1.2, 0.9)
    names = [f"s{number}" for number in range(len(labels))]
    table = pandas.DataFrame({"sample_id": names, "label": labels, "site": sites, "group_id": groups})
    table["image_path"] = "x"
    found, common = measure_confounding(rows, labels, sites, groups), {"confounder_column": "site"}
    assert found.ri.value == pytest.approx(croma.RI.compute(rows, table, k_candidates=[11], **common).value)
    assert found.mari.value == pytest.approx(croma.MaRI.compute(rows, table, k_candidates=[11], **common).value)
    assert found.croma.value == pytest.approx(croma.CRoMa.compute(rows, table, **common).value)
