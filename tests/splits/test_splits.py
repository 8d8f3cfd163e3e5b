"""Folds never divide a patient, hold every class where they can, and refuse what cannot be done honestly."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import SplitError
from wsi_pipeline.splits.assign import Fold, check_no_leaks, find_leaks, make_splits, patients_per_class


def cohort(patients: dict[str, int], slides: int = 1) -> pd.DataFrame:
    """A table with the given number of patients of each class."""
    rows = [
        {"slide_id": f"{label}{p}-{s}", "patient_id": f"{label}{p}", "label": label}
        for label, n in patients.items()
        for p in range(n)
        for s in range(slides)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=0).reset_index(drop=True)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """Any cohort: 2 to 4 classes, patients with 1 to 4 slides, now and then with several labels."""
    n = draw(st.integers(4, 30))
    classes = draw(st.integers(2, 4))
    mixed = draw(st.booleans())
    rows = []
    for patient in range(n):
        own = draw(st.integers(0, classes - 1))
        for slide in range(draw(st.integers(1, 4))):
            label = draw(st.integers(0, classes - 1)) if mixed else own
            rows.append({"slide_id": f"{patient}-{slide}", "patient_id": f"p{patient}", "label": f"c{label}"})
    return pd.DataFrame(rows)


@settings(max_examples=25, deadline=None)
@given(tables(), st.integers(2, 6), st.integers(0, 3))
def test_every_slide_is_tested_once_and_no_patient_is_divided(table: pd.DataFrame, folds: int, seed: int) -> None:
    try:
        splits = make_splits(table, MilSpec(folds=folds, seed=seed, allow_few=True))
    except SplitError:
        n_classes, patients = table["label"].nunique(), table.groupby("label")["patient_id"].nunique()
        assert n_classes == 1 or (n_classes > 2 and patients.max() == 1)
        return
    assert len(splits.folds) == min(folds, table["patient_id"].nunique())
    tested = np.concatenate([fold.test for fold in splits.folds])
    assert sorted(tested.tolist()) == list(range(len(table)))
    for fold in splits.folds:
        assert sorted(np.concatenate([fold.train, fold.val, fold.test]).tolist()) == list(range(len(table)))
        assert len(fold.train) > 0
        assert len(fold.test) > 0
        patients = {part: set(table["patient_id"].iloc[rows]) for part, rows in fold.parts()}
        assert not patients["train"] & patients["test"]
        assert not patients["val"] & patients["test"]
        assert not patients["train"] & patients["val"]


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.sampled_from("abcd"), st.integers(5, 15), min_size=2), st.integers(1, 3), st.integers(0, 9))
def test_every_fold_holds_every_class_where_there_are_patients(
    patients: dict[str, int], slides: int, seed: int
) -> None:
    table = cohort(patients, slides)
    splits = make_splits(table, MilSpec(folds=5, seed=seed))
    assert splits.warnings == ()
    for fold in splits.folds:
        for _, rows in fold.parts():
            assert set(table["label"].iloc[rows]) == set(patients)


def test_uneven_patients_still_give_every_fold_every_class() -> None:
    """A class of exactly as many patients as folds, one of whom has most of the slides."""
    table = pd.concat(
        [cohort({"rare": 5, "common": 30}, 2)]
        + [pd.DataFrame({"slide_id": [f"big{i}"], "patient_id": ["rare0"], "label": ["rare"]}) for i in range(25)]
    )
    for seed in range(5):
        splits = make_splits(table, MilSpec(folds=5, seed=seed))
        assert all(set(table["label"].iloc[fold.test]) == {"rare", "common"} for fold in splits.folds)


def test_same_seed_same_folds() -> None:
    table = cohort({"a": 12, "b": 9}, 2)
    first, again, other = (make_splits(table, MilSpec(seed=seed)) for seed in (1, 1, 2))
    for left, right in zip(first.folds, again.folds, strict=True):
        assert all((x == y).all() for (_, x), (_, y) in zip(left.parts(), right.parts(), strict=True))
    assert any(left.test.tolist() != right.test.tolist() for left, right in zip(first.folds, other.folds, strict=True))


def test_validation_takes_its_share_of_every_class() -> None:
    table = cohort({"a": 50, "b": 25})
    for fold in make_splits(table, MilSpec(folds=5, val_fraction=0.25)).folds:
        assert table["label"].iloc[fold.train].value_counts().to_dict() == {"a": 30, "b": 15}
        assert table["label"].iloc[fold.val].value_counts().to_dict() == {"a": 10, "b": 5}


def test_assignment_lists_every_slide_in_every_fold() -> None:
    table = cohort({"a": 6, "b": 6}, 2)
    listed = make_splits(table, MilSpec(folds=3)).assignment(table)
    assert list(listed.columns) == ["repeat", "fold", "part", "slide_id", "patient_id"]
    assert listed.groupby("fold")["slide_id"].nunique().tolist() == [24, 24, 24]
    assert (listed.query("part == 'test'")["slide_id"].value_counts() == 1).all()


def fold_of(table: pd.DataFrame, train: list[int], test: list[int]) -> Fold:
    return Fold(3, np.array(train), np.array([], np.int64), np.array(test))


def test_a_leak_names_patients_and_slides_on_both_sides() -> None:
    table = pd.DataFrame(
        {"slide_id": ["s1", "s2", "s3", "s4"], "patient_id": ["p", "q", "p", "q"], "label": list("abab")}
    )
    fold = fold_of(table, [0, 1], [2, 3])
    assert [(leak.kind, leak.name) for leak in find_leaks(table, fold)] == [("patient", "p"), ("patient", "q")]
    with pytest.raises(SplitError, match=r"fold 3 divides 2 patients: patient p \(train: s1; test: s3\), patient q"):
        check_no_leaks(table, fold)
    check_no_leaks(table, fold_of(table, [0, 2], [1, 3]))


def test_too_few_patients_are_refused_in_these_words() -> None:
    with pytest.raises(SplitError) as caught:
        make_splits(cohort({"normal": 1, "tumour": 2}, slides=4), MilSpec())
    assert caught.value.what == "5-fold validation needs at least 5 patients per class; tumour has 2, normal has 1."
    assert caught.value.todo == (
        "Use --folds 2 --allow-few, add slides, or apply a trained model with: wsi-pipeline predict"
    )


def test_the_advice_works() -> None:
    table = cohort({"normal": 3, "tumour": 9})
    with pytest.raises(SplitError, match="normal has 3") as caught:
        make_splits(table, MilSpec())
    assert "Use --folds 3, add slides" in str(caught.value.todo)
    assert len(make_splits(table, MilSpec(folds=3)).folds) == 3


def test_allow_few_says_which_classes_are_missing_where() -> None:
    splits = make_splits(cohort({"normal": 1, "tumour": 2}), MilSpec(folds=2, allow_few=True))
    text = "\n".join(splits.warnings)
    assert "Too few patients for 2 folds that hold every class (normal 1)" in text
    assert "no slide of class normal among its training slides" in text
    assert "no slide of class normal among its test slides" in text


def test_allow_few_makes_no_more_folds_than_patients() -> None:
    splits = make_splits(cohort({"a": 2, "b": 2}, 3), MilSpec(folds=10, allow_few=True))
    assert len(splits.folds) == 4
    assert "10 folds were requested, but 4 patients allow only 4." in splits.warnings


def test_two_patients_train_without_early_stopping() -> None:
    splits = make_splits(cohort({"a": 1, "b": 1}), MilSpec(folds=2, allow_few=True))
    assert all(len(fold.val) == 0 for fold in splits.folds)
    assert any("all epochs are run" in warning for warning in splits.warnings)


def test_types_of_the_columns_do_not_matter() -> None:
    table = cohort({"a": 6, "b": 6}, 2)
    strange = table.assign(
        patient_id=table["patient_id"].astype("category").cat.add_categories("nobody"),
        label=(table["label"] == "a").astype(int),
    )
    splits = make_splits(strange, MilSpec(folds=3))
    assert splits.classes == ("0", "1")
    assert all(find_leaks(strange, fold) == () for fold in splits.folds)


def test_patients_with_all_the_labels_are_no_identifiers() -> None:
    table = cohort({"x": 3}, 3).assign(label=["a", "b", "c"] * 3)
    table["label"] = table["slide_id"].str[-1]
    assert len(make_splits(table, MilSpec(folds=3)).folds) == 3


def test_patients_are_counted_once_for_each_class() -> None:
    table = pd.DataFrame({"slide_id": list("abcde"), "patient_id": list("ppqqr"), "label": list("xyxxz")})
    assert patients_per_class(table) == {"x": 2, "y": 1, "z": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (cohort({"a": 9}), "every slide has the label a"),
        (cohort({f"id{i}": 1 for i in range(9)}), "no two patients share a label (id"),
        (cohort({f"id{i}": 1 for i in range(9)}, slides=2), "no two patients share a label (id"),
        (cohort({"a": 1}, 4).assign(label=["a", "b", "a", "b"]), "at least 2 patients, got 1 (a0)"),
        (cohort({"a": 9, "b": 9}).drop(columns="patient_id"), "no column patient_id"),
        (cohort({"a": 9, "b": 9}).head(0), "no labelled slides"),
        (cohort({"a": 1, "b": 1}).assign(label=["a", None]), "label is missing for "),
        (cohort({"a": 1, "b": 1}).assign(label=["a", " "]), "label is missing for "),
        (cohort({"a": 1, "b": 1}).assign(patient_id=[None, "p"]), "patient_id is missing for "),
        (cohort({"a": 1, "b": 1}).assign(slide_id=["s", None]), "slide_id is missing for row 1"),
        (cohort({"a": 1, "b": 1}).assign(slide_id="s"), "more than one row has s"),
    ],
)
@pytest.mark.parametrize("allow_few", [False, True])
def test_what_cannot_be_learned_is_refused(table: pd.DataFrame, message: str, allow_few: bool) -> None:
    with pytest.raises(SplitError) as caught:
        make_splits(table, MilSpec(allow_few=allow_few))
    assert message in caught.value.what


def fixed(values: list[str | None]) -> pd.DataFrame:
    n = len(values)
    return pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{i}" for i in range(n)],
            "label": ["a", "b"] * (n // 2),
            "split": values,
        }
    )


def test_a_split_column_is_respected() -> None:
    splits = make_splits(fixed(["train", "train", "test", "val", "Val", " test "]), MilSpec())
    assert splits.fixed
    (fold,) = splits.folds
    assert (fold.train.tolist(), fold.val.tolist(), fold.test.tolist()) == ([0, 1], [3, 4], [2, 5])


def test_validation_is_taken_from_training_where_the_column_has_none() -> None:
    (fold,) = make_splits(fixed(["train"] * 10 + ["test"] * 2), MilSpec()).folds
    assert fold.test.tolist() == [10, 11]
    assert len(fold.val) == 2
    assert sorted([*fold.train, *fold.val]) == list(range(10))


def test_an_empty_split_column_means_folds() -> None:
    table = fixed([None, ""] * 6)
    assert len(make_splits(table, MilSpec(folds=3)).folds) == 3
    assert not make_splits(table, MilSpec(folds=3)).fixed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["train", "test", "holdout", None], "it is not for s2, s3"),
        (["train", "train", "val", "val"], "has no test slides"),
        (["test", "test", "val", "val"], "has no train slides"),
        (["train", "val", "train", "test"], "training slides of fold 0 all have the label a"),
    ],
)
def test_unfit_split_columns_are_refused(values: list[str | None], message: str) -> None:
    with pytest.raises(SplitError) as caught:
        make_splits(fixed(values), MilSpec())
    assert message in caught.value.what


def test_a_split_that_divides_a_patient_is_refused() -> None:
    table = fixed(["train", "train", "test", "test"]).assign(patient_id=["p", "q", "p", "r"])
    with pytest.raises(SplitError, match=r"divides 1 patient: patient p \(train: s0; test: s2\)"):
        make_splits(table, MilSpec())


def test_a_test_part_without_a_class_is_a_warning() -> None:
    splits = make_splits(fixed(["train"] * 5 + ["test"]), MilSpec())
    assert "Fold 0: no slide of class a among its test slides." in splits.warnings
