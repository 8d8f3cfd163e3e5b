"""Splits: no group divided, every class in every part, the same for the same seed; leaks are found and named."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.labelled.images import picture, save, write_table
from tests.work import calls
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.open_labelled import open_labelled
from wsi_pipeline.labelled.splits.patch_leaks import check_leaks, find_leaks
from wsi_pipeline.labelled.splits.patch_split import PatchSplit, split_patches

CLASSES = ("benign", "malignant", "stroma")


def check(split: PatchSplit, labels: np.ndarray, groups: list[str], parts: int) -> None:
    """Every row once, no group on two sides, every class in every part."""
    rows = np.concatenate([split.train, split.validation, split.test])
    assert sorted(rows.tolist()) == list(range(len(labels)))
    used = [part for part in (split.train, split.validation, split.test) if len(part)]
    assert len(used) == parts
    sides = [{groups[row] for row in part} for part in used]
    assert sum(map(len, sides)) == len(set(groups)), "a group is divided"
    for part in used:
        assert set(labels[part]) == set(labels)
        assert (np.diff(part) > 0).all()


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_no_group_is_divided_and_no_part_lacks_a_class(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 4))
    pure = [(label, f"{label}-{k}") for label in range(classes) for k in range(data.draw(st.integers(3, 6)))]
    mixed = data.draw(
        st.lists(st.tuples(st.integers(0, classes - 1), st.sampled_from(["m1", "m2", "m3"])), max_size=12)
    )
    sizes = data.draw(st.lists(st.integers(1, 9), min_size=len(pure), max_size=len(pure)))
    rows = [pair for pair, size in zip(pure, sizes, strict=True) for _ in range(size)] + mixed
    rows = data.draw(st.permutations(rows))
    labels, groups = np.array([label for label, _ in rows]), [group for _, group in rows]
    seed = data.draw(st.integers(0, 1000))
    split = split_patches(labels, groups, None, val_fraction=0.2, test_fraction=0.2, seed=seed)
    check(split, labels, groups, 3)
    again = split_patches(labels, groups, None, val_fraction=0.2, test_fraction=0.2, seed=seed)
    assert all((a == b).all() for a, b in zip(split.parts().values(), again.parts().values(), strict=True))


@pytest.mark.parametrize(("val", "test"), [(0.15, 0.2), (0.1, 0.3), (0.2, 0.0), (0.33, 0.33), (0.0, 0.25)])
def test_sizes_come_near_the_fractions_class_by_class(val: float, test: float) -> None:
    rng = np.random.default_rng(0)
    groups = [f"p{k // 20}" for k in range(2000)]
    labels = rng.choice(3, 2000, p=[0.6, 0.3, 0.1])
    split = split_patches(labels, groups, None, val_fraction=val, test_fraction=test, seed=1)
    check(split, labels, groups, 1 + (val > 0) + (test > 0))
    for label in range(3):
        total = (labels == label).sum()
        assert abs((labels[split.validation] == label).sum() / total - val) < 0.05
        assert abs((labels[split.test] == label).sum() / total - test) < 0.05


def test_few_mixed_groups_still_reach_every_part() -> None:
    counts = {"t10": (3, 3), "t12": (3, 3), "t23": (3, 3), "t49": (17, 17), "t55": (6, 0)}
    rows = [(label, name) for name, pair in counts.items() for label, n in enumerate(pair) for _ in range(n)]
    labels, groups = np.array([label for label, _ in rows]), [name for _, name in rows]
    found = set()
    for seed in range(12):
        split = split_patches(labels, groups, None, val_fraction=0.15, test_fraction=0.2, seed=seed)
        check(split, labels, groups, 3)
        assert len(split.train) > len(labels) / 2
        found.add(frozenset(groups[row] for row in split.test))
    assert len(found) > 1, "several divisions are as good, so the seed decides"


def test_a_class_in_exactly_three_groups_goes_one_to_each_part() -> None:
    groups = [f"p{k}" for k in range(30)]
    labels = np.array([1 if k in (4, 11, 20) else 0 for k in range(30)])
    for seed in range(10):
        check(split_patches(labels, groups, None, val_fraction=0.1, test_fraction=0.1, seed=seed), labels, groups, 3)


def test_the_class_with_too_few_groups_is_named() -> None:
    labels, groups = np.array([0, 0, 0, 1, 1, 1, 1]), ["a", "b", "c", "d", "d", "e", "e"]
    with pytest.raises(
        LabelError, match=r"at least 3 groups to be in training and validation and test; malignant has 2"
    ):
        split_patches(labels, groups, None, val_fraction=0.2, test_fraction=0.2, seed=0, classes=CLASSES)
    split = split_patches(labels, groups, None, val_fraction=0.3, test_fraction=0.0, seed=0, classes=CLASSES)
    check(split, labels, groups, 2)


def test_a_given_split_is_respected_and_what_it_lacks_is_made() -> None:
    labels, groups = np.tile([0, 1], 20), [f"p{k // 2}" for k in range(40)]
    given = ["test" if k < 8 else "train" for k in range(40)]
    split = split_patches(labels, groups, given, val_fraction=0.2, test_fraction=0.5, seed=0)
    assert split.test.tolist() == list(range(8))
    assert 4 <= len(split.validation) <= 12
    check(split, labels, groups, 3)
    given[9] = "val"
    with pytest.raises(LabelError, match="divides 1 group: p4 is in train and val"):
        split_patches(labels, groups, given, val_fraction=0.2, test_fraction=0.2, seed=0)
    given[8] = "val"
    split = split_patches(labels, groups, given, val_fraction=0.2, test_fraction=0.2, seed=0)
    assert split.validation.tolist() == [8, 9]


def test_classes_that_a_given_split_lacks_are_told() -> None:
    labels, groups = np.array([0, 1, 0, 2, 0, 1]), list("abcdef")
    given = ["train", "train", "val", "train", "test", "test"]
    split = split_patches(labels, groups, given, val_fraction=0.2, test_fraction=0.2, seed=0, classes=CLASSES)
    assert split.notes == (
        "no patch of class malignant, stroma in the validation part",
        "no patch of class stroma in the test part",
    )
    with pytest.raises(LabelError, match="no patch of class stroma to train on"):
        split_patches(
            labels, groups, ["train"] * 3 + ["val", "test", "test"], val_fraction=0.2, test_fraction=0.2, seed=0,
            classes=CLASSES,
        )  # fmt: skip


def test_many_groups_of_one_patch_are_no_more_work_than_few() -> None:
    labels, groups = np.random.default_rng(0).integers(0, 5, 60_000), [str(k) for k in range(60_000)]

    def split(number: int) -> None:
        found = split_patches(labels[:number], groups[:number], None, val_fraction=0.1, test_fraction=0.2, seed=0)
        parts.append((found, labels[:number], groups[:number]))

    parts: list[Any] = []
    few, many = calls(split, 3000), calls(split, 60_000)
    assert many < 1.5 * few
    for found in parts:
        check(*found, 3)


def image_set(folder: Path) -> Path:
    rows = []
    for k in range(12):
        save(folder / f"{k}.png", picture(k))
        rows.append((f"{k}.png", "ab"[k % 2], f"p{k // 2}"))
    return write_table(folder / "labels.csv", ("path", "label", "group"), rows)


def test_leaks_of_groups_and_of_copies_are_named(tmp_path: Path) -> None:
    path = image_set(tmp_path)
    shutil.copy(tmp_path / "1.png", tmp_path / "10.png")
    patches = open_labelled(path)
    whole = PatchSplit(np.arange(6), np.arange(6, 8), np.arange(8, 12))
    leaks = find_leaks(patches, whole)
    assert [str(leak) for leak in leaks] == ["image 1.png in train (1.png), test (10.png)"]
    with pytest.raises(LabelError, match=r"the split leaks: 1 on more than one side: image 1\.png"):
        check_leaks(patches, whole)
    divided = PatchSplit(np.array([0, 2, 3, 4, 5]), np.array([1, 6, 7]), np.array([8, 9]))
    assert [str(leak) for leak in find_leaks(patches, divided)] == ["group p0 in train (0.png), val (1.png)"]


def test_crops_of_one_image_on_two_sides_are_a_leak_whatever_their_groups(tmp_path: Path) -> None:
    save(tmp_path / "a.png", picture(0, 60, 60))
    save(tmp_path / "b.png", picture(1, 60, 60))
    rows = [("a.png", "x", 20, 20, "g1"), ("a.png", "y", 22, 20, "g2"), ("b.png", "x", 20, 20, "g3")]
    patches = open_labelled(
        write_table(tmp_path / "p.csv", ("image", "class", "x", "y", "group"), rows), LabelSpec(crop_px=16)
    )
    leaks = find_leaks(patches, PatchSplit(np.array([0, 2]), np.array([1]), np.zeros(0, np.int64)))
    assert [leak.what for leak in leaks] == ["image"]
    assert find_leaks(patches, PatchSplit(np.array([0, 1]), np.array([2]), np.zeros(0, np.int64))) == ()


def test_a_split_made_here_does_not_leak(tmp_path: Path) -> None:
    patches = open_labelled(image_set(tmp_path))
    split = split_patches(patches.labels, patches.groups, val_fraction=0.2, test_fraction=0.2, seed=3)
    check_leaks(patches, split)
