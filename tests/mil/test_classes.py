"""Which classes a training has, in which order: numbers, the positive one of two, those that only the test part has."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from tests.mil.synthetic import QUICK, planted
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.tasks.classification import make_classification
from wsi_pipeline.mil.tasks.make_task import make_task
from wsi_pipeline.mil.validation.crossval import cross_validate_bags
from wsi_pipeline.splits.assign import class_strata, make_splits

TINY = replace(QUICK, model="mean", epochs=3, bootstrap=100, folds=2, permutations=0)


def table_of(labels: list[str]) -> pd.DataFrame:
    ids = [f"s{n}" for n in range(len(labels))]
    return pd.DataFrame({"slide_id": ids, "patient_id": ids, "label": labels})


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (["10", "2", "1"], ("1", "2", "10")),
        (["2.5", "10", "-1"], ("-1", "2.5", "10")),
        (["grade 10", "grade 9", "grade 1"], ("grade 1", "grade 9", "grade 10")),
        (["tumour", "normal"], ("normal", "tumour")),
    ],
)
def test_numbers_sort_as_numbers(labels: list[str], classes: tuple[str, ...]) -> None:
    table = table_of(labels * 3)
    assert make_classification(table).classes == classes
    strata = class_strata(table)
    assert strata.names == classes
    assert [strata.names[code] for code in strata.codes] == labels * 3


def test_the_positive_class_of_two_is_the_last() -> None:
    table = table_of(["tumour", "normal"] * 3)
    assert make_classification(table, "normal").classes == ("tumour", "normal")
    assert make_classification(table, "Tumour").classes == ("normal", "tumour")
    with pytest.raises(MilError, match="positive must be one of normal, tumour, got 'ill'"):
        make_classification(table, "ill")
    with pytest.raises(MilError, match="a positive class needs exactly two classes, got 3"):
        make_classification(table_of(["a", "b", "c"] * 3), "b")
    with pytest.raises(MilError, match="regression has no positive class"):
        make_task(table_of(["1", "2"]), replace(TINY, task="regression", positive="a"))


def test_the_other_positive_class_gives_the_same_auroc_and_its_own_threshold() -> None:
    bags, table = planted(24)
    first, other = (cross_validate_bags(bags, table, replace(TINY, positive=name)) for name in ("tumour", "normal"))
    assert (first.classes, other.classes) == (("normal", "tumour"), ("tumour", "normal"))
    assert [r.metrics["threshold"]["class"] for r in (first, other)] == ["tumour", "normal"]
    assert [r.metrics["calibration"]["of"] for r in (first, other)] == ["tumour", "normal"]
    assert list(other.predictions.columns[-2:]) == ["p_tumour", "p_normal"]


def with_a_class_of_the_test_part() -> tuple[Bags, pd.DataFrame, pd.DataFrame]:
    """Bags; a table with a class that test and val have and train lacks; the table without it."""
    bags, table = planted(40)
    split = ["testing" if n >= 28 else "dev" if n >= 20 else "training" for n in range(40)]
    table = table.assign(split=split)
    strange = table.assign(label=table["label"].where(~table.index.isin([25, 30, 33]), "rare"))
    return bags, strange, strange[strange["label"] != "rare"].reset_index(drop=True)


def test_a_class_that_training_lacks_is_in_no_metric_and_named() -> None:
    bags, table, without = with_a_class_of_the_test_part()
    found, expected = cross_validate_bags(bags, table, TINY), cross_validate_bags(bags, without, TINY)
    assert found.classes == expected.classes == ("normal", "tumour")
    for name in ("pooled", "per_class", "calibration", "threshold", "confusion", "n_slides", "chance"):
        assert found.metrics[name] == expected.metrics[name], name
    assert found.metrics["untrained"] == {"rare": {"n_slides": 3, "n_patients": 3}}
    warning = found.metrics["warnings"][0]
    assert warning.startswith("Class rare has no training slides")
    assert "3 slides (s025, s030, s033)" in warning
    rare = found.predictions[found.predictions["label"] == "rare"]
    assert list(rare["slide_id"]) == ["s030", "s033"]
    assert set(rare["predicted"]) <= {"normal", "tumour"}
    parts = found.assignment.set_index("slide_id")["part"]
    assert (parts["s025"], parts["s030"], len(parts)) == ("val", "test", 40)


def test_a_split_in_other_words_is_the_same_split() -> None:
    _, table, without = with_a_class_of_the_test_part()
    words = {"testing": "test", "dev": "val", "training": "train"}
    folds = [make_splits(each, TINY).folds[0] for each in (without, without.assign(split=without["split"].map(words)))]
    for part in ("train", "val", "test"):
        assert getattr(folds[0], part).tolist() == getattr(folds[1], part).tolist()
    with pytest.raises(MilError, match="split must be train, val or test"):
        cross_validate_bags(*planted(40)[:1], table.assign(split=[None, *table["split"][1:]]), TINY)


def test_spellings_are_in_the_warnings() -> None:
    table = table_of(["Tumour", "tumour", "1", "1.0"] * 3)
    table = table.assign(patient_id=["P0", "p0", *(f"q{n}" for n in range(10))])
    warnings = make_splits(table, replace(TINY, folds=2)).warnings
    assert "Classes '1', '1.0' differ only in spelling and count as 2: --fold-labels merges them." in warnings
    assert "Classes 'Tumour', 'tumour' differ only in spelling and count as 2: --fold-labels merges them." in warnings
    assert "Patients 'P0', 'p0' differ only in spelling and count as 2: use one spelling in all rows." in warnings
    assert not any("spelling" in text for text in make_splits(table_of(["a", "b"] * 6), TINY).warnings)
