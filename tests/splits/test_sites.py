"""A label that follows the site is seen and said; one that does not is left alone."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import fisher_exact

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.splits.assign import make_splits
from wsi_pipeline.splits.groups import codes_of
from wsi_pipeline.splits.sites import Association, cramers_v, site_association, site_warnings


def cohort(counts: dict[str, dict[str, int]], slides: int = 1) -> pd.DataFrame:
    """A table with the given patients of each site and class."""
    rows = [
        {"slide_id": f"{site}{label}{k}-{s}", "patient_id": f"{site}{label}{k}", "label": label, "site": site}
        for site, classes in counts.items()
        for label, n in classes.items()
        for k in range(n)
        for s in range(slides)
    ]
    return pd.DataFrame(rows)


def associated(table: pd.DataFrame) -> Association | None:
    return site_association(table, codes_of(table["label"]), tuple(sorted(table["label"].unique())))


def test_the_table_is_told_in_words_and_counts_patients() -> None:
    table = cohort({"North": {"normal": 2, "tumour": 18}, "South": {"normal": 17, "tumour": 3}}, slides=3)
    (warning,) = make_splits(table, MilSpec()).warnings
    assert "The label follows the site" in warning
    assert "40 patients; North: normal 2, tumour 18; South: normal 17, tumour 3" in warning
    assert "p < 0.001" in warning
    assert "--site-folds" in warning


def test_sites_of_one_class_each() -> None:
    table = cohort({"A": {"x": 3}, "B": {"y": 3}})
    found = associated(table)
    assert found is not None
    assert found.complete
    assert "Every site has patients of one class only" in site_warnings(found, whole_sites=False)[0]


def test_balanced_sites_are_no_warning() -> None:
    table = cohort({name: {"x": 10, "y": 9} for name in "ABC"})
    found = associated(table)
    assert found is not None
    assert found.strength < 0.1
    assert found.p_value > 0.5
    assert site_warnings(found, whole_sites=False) == []
    assert make_splits(table, MilSpec()).warnings == ()


def test_whole_sites_held_out_is_other_advice() -> None:
    table = cohort({"A": {"x": 18, "y": 3}, "B": {"x": 2, "y": 20}, "C": {"x": 10, "y": 9}, "D": {"x": 9, "y": 9}})
    told = " ".join(make_splits(table, MilSpec(folds=2, site_folds=True, allow_few=True)).warnings)
    assert "Whole sites were held out" in told


def test_p_is_that_of_fishers_exact_test_on_a_table_of_two_by_two() -> None:
    table = cohort({"A": {"x": 60, "y": 40}, "B": {"x": 45, "y": 55}}).sample(frac=1, random_state=1)
    found = associated(table)
    assert found is not None
    expected = fisher_exact(np.array(found.counts)).pvalue
    assert found.p_value == pytest.approx(expected, abs=0.015)


def test_false_alarms_are_rare() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(40):
        table = cohort({name: {"x": 5, "y": 5} for name in "ABCD"})
        table["label"] = rng.permutation(table["label"])
        alarms += bool(site_warnings(associated(table), whole_sites=False))
    assert alarms <= 6


def test_strength_is_one_for_complete_and_none_for_independent_tables() -> None:
    assert cramers_v(np.array([[30.0, 0], [0, 30]])) == pytest.approx(1, abs=0.02)
    assert cramers_v(np.array([[10.0, 20], [20, 40]])) == 0
    assert 0.3 < cramers_v(np.array([[30.0, 10], [10, 30]])) < 0.6


@pytest.mark.parametrize("sites", [None, "one", ""])
def test_without_two_sites_there_is_nothing_to_say(sites: str | None) -> None:
    table = cohort({"A": {"x": 6, "y": 6}})
    assert associated(table.drop(columns="site") if sites is None else table.assign(site=sites)) is None
