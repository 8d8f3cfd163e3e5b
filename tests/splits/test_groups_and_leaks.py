"""What belongs together stays together; what is on both sides is named, each kind by its name."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import SplitError
from wsi_pipeline.splits.assign import Fold, check_no_leaks, find_leaks, make_splits
from wsi_pipeline.splits.groups import groups_of, joined


def cohort(n: int = 24, sites: int = 4) -> pd.DataFrame:
    """Two slides a patient, two classes, sites in turns, all files different."""
    patient = np.arange(n) // 2
    return pd.DataFrame(
        {
            "slide_id": [f"s{i}" for i in range(n)],
            "patient_id": [f"p{p}" for p in patient],
            "label": np.where(patient % 2, "tumour", "normal"),
            "site": [f"site{(p // 2) % sites}" for p in patient],
            "content": [f"digest{i}" for i in range(n)],
        }
    )


def fold_of(table: pd.DataFrame, test: list[int]) -> Fold:
    rest = np.setdiff1d(np.arange(len(table)), test)
    return Fold(0, rest[:-2], rest[-2:], np.array(test))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(-1, 4)), min_size=1, max_size=20))
def test_groups_are_the_smallest_that_divide_nothing(rows: list[tuple[int, int]]) -> None:
    """Against the plain way: merge until nothing more merges."""
    columns = [np.array(column) for column in zip(*rows, strict=True)]
    groups = joined(columns)
    expected = [{i} for i in range(len(rows))]
    for codes in columns:
        for code in set(codes[codes >= 0]):
            together = set(np.flatnonzero(codes == code))
            merged = set().union(*(group for group in expected if group & together))
            expected = [group for group in expected if not group & together] + [merged]
    found = [set(np.flatnonzero(groups == k)) for k in range(groups.max() + 1)]
    assert sorted(map(sorted, found)) == sorted(map(sorted, expected))


def test_identical_files_of_two_patients_are_one_group() -> None:
    table = cohort()
    table.loc[5, "content"] = table.loc[0, "content"]
    groups = groups_of(table, sites=False)
    assert groups[0] == groups[1] == groups[4] == groups[5]
    assert len(set(groups)) == 11


def test_folds_keep_copies_on_one_side_and_say_so() -> None:
    table = cohort(40)
    table.loc[[9, 20], "content"] = table.loc[0, "content"]
    splits = make_splits(table, MilSpec(folds=4, repeats=3))
    assert splits.repeats == 3
    assert len(splits.folds) == 12
    for fold in splits.folds:
        assert find_leaks(table, fold) == ()
    (warning,) = [text for text in splits.warnings if "several names" in text]
    assert "s0 = s9 = s20 (patients p0, p4, p10)" in warning


@pytest.mark.parametrize(
    ("change", "kind", "named"),
    [
        ({}, "patient", r"patient p0 \(train: s1; test: s0\)"),
        ({"patient_id": "new"}, "patient", None),
        ({"patient_id": "new", "content": "digest8"}, "file", r"file under several names \(train: s8; test: s0\)"),
        ({"patient_id": "new", "slide_id": "s8"}, "slide", r"slide s8 \(train: s8; test: s8\)"),
        ({"patient_id": "new", "site": "site2"}, "site", r"site site2 \(train: s8, s9, s10, s11; test: s0\)"),
    ],
)  # fmt: skip
def test_every_kind_of_leak_is_named(change: dict[str, str], kind: str, named: str | None) -> None:
    table = cohort(16, sites=8)
    for column, value in change.items():
        table.loc[0, column] = value
    if kind != "site":
        table = table.drop(columns="site")
    fold = Fold(0, np.arange(1, 16), np.empty(0, np.int64), np.array([0]))
    leaks = find_leaks(table, fold, sites=True)
    if named is None:
        assert leaks == ()
        check_no_leaks(table, fold)
        return
    assert [leak.kind for leak in leaks] == [kind]
    with pytest.raises(SplitError, match=named):
        check_no_leaks(table, fold, sites=True)


def test_all_leaks_are_counted_together() -> None:
    table = cohort(16)
    table.loc[15, "content"] = table.loc[3, "content"]
    with pytest.raises(SplitError, match=r"fold 0 divides 1 patient and 1 file: patient p1 .* the same file") as caught:
        check_no_leaks(table, fold_of(table, [3]))
    assert "copies of a file" in str(caught.value.todo)


def test_a_fixed_split_with_the_same_file_on_both_sides_is_refused() -> None:
    table = cohort().assign(split=["train"] * 16 + ["test"] * 8)
    table.loc[20, "content"] = table.loc[3, "content"]
    with pytest.raises(SplitError, match=r"divides 1 file: the same file under several names \(train: s3; test: s20\)"):
        make_splits(table, MilSpec())


@settings(max_examples=12, deadline=None)
@given(st.integers(2, 6), st.integers(2, 8), st.integers(0, 5))
def test_site_folds_test_whole_sites_once(folds: int, sites: int, seed: int) -> None:
    table = cohort(64, sites)
    splits = make_splits(table, MilSpec(folds=folds, site_folds=True, seed=seed, allow_few=True))
    assert len(splits.folds) == min(folds, sites)
    assert sorted(np.concatenate([fold.test for fold in splits.folds])) == list(range(64))
    for fold in splits.folds:
        seen = set(table["site"].iloc[np.concatenate([fold.train, fold.val])])
        assert not seen & set(table["site"].iloc[fold.test])
        assert not set(table["patient_id"].iloc[fold.train]) & set(table["patient_id"].iloc[fold.val])
        assert len(fold.val) > 0


def test_early_stopping_sites_are_whole_where_there_are_enough() -> None:
    table = cohort(64, 8)
    for fold in make_splits(table, MilSpec(folds=4, site_folds=True)).folds:
        assert not set(table["site"].iloc[fold.train]) & set(table["site"].iloc[fold.val])
    assert any("allow only 2" in text for text in make_splits(cohort(64, 2), MilSpec(site_folds=True)).warnings)


def test_a_patient_of_two_sites_joins_them() -> None:
    table = cohort(64, 4)
    table.loc[0, "site"] = "site3"
    splits = make_splits(table, MilSpec(folds=4, site_folds=True))
    assert len(splits.folds) == 3
    for fold in splits.folds:
        assert ("site0" in set(table["site"].iloc[fold.test])) == ("site3" in set(table["site"].iloc[fold.test]))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (cohort().drop(columns="site"), "only where the column site is filled in"),
        (cohort().assign(site=""), "only where the column site is filled in"),
        (cohort().assign(site=[None, *["a"] * 12, *["b"] * 11]), "site is missing for s0"),
        (cohort(sites=1), r"all slides are of one site \(site0\)"),
    ],
)
def test_site_folds_need_sites(table: pd.DataFrame, message: str) -> None:
    with pytest.raises(SplitError, match=message):
        make_splits(table, MilSpec(site_folds=True))


def test_repeats_are_different_and_the_first_is_what_it_was() -> None:
    table = cohort(60)
    single, several = make_splits(table, MilSpec(seed=3)), make_splits(table, MilSpec(seed=3, repeats=4))
    for before, after in zip(single.folds, several.folds, strict=False):
        assert before.test.tolist() == after.test.tolist()
        assert before.val.tolist() == after.val.tolist()
    divisions = {tuple(tuple(fold.test) for fold in several.folds if fold.repeat == r) for r in range(4)}
    assert len(divisions) == 4
    listed = several.assignment(table)
    tested = listed[listed["part"] == "test"].groupby("repeat")["slide_id"]
    assert (tested.nunique() == 60).all()
    assert (tested.size() == 60).all()


def test_repeats_do_nothing_to_a_fixed_split() -> None:
    table = cohort().assign(split=["train"] * 16 + ["test"] * 8)
    splits = make_splits(table, MilSpec(repeats=5))
    assert len(splits.folds) == 1
    assert "The column split gives a single fold: --repeats has no effect." in splits.warnings
