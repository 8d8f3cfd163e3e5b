"""Bags hold every row once, in order, whatever the lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.mil.synthetic import random_bags
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags

LENGTHS = st.lists(st.integers(0, 7), min_size=1, max_size=9)


@given(LENGTHS, st.integers(1, 4), st.randoms())
def test_batches_hold_each_bag_once_without_padding(lengths: list[int], batch_bags: int, random) -> None:
    bags = random_bags(lengths)
    order = list(range(len(lengths)))
    random.shuffle(order)
    batches = list(bags.batches(order, batch_bags))
    assert torch.cat([batch.indices for batch in batches]).tolist() == order
    for batch in batches:
        assert len(batch.indices) <= batch_bags
        assert batch.offsets.dtype == torch.int64
        assert len(batch.features) == batch.offsets[-1] == sum(lengths[i] for i in batch.indices.tolist())
        for position, index in enumerate(batch.indices.tolist()):
            rows = batch.features[batch.offsets[position] : batch.offsets[position + 1]]
            assert torch.equal(rows, bags.bag(index))


@given(LENGTHS, st.data())
def test_subset_keeps_features_and_names(lengths: list[int], data: st.DataObject) -> None:
    bags = random_bags(lengths)
    chosen = data.draw(st.permutations(range(len(lengths))))[: data.draw(st.integers(0, len(lengths)))]
    part = bags.subset(chosen)
    assert part.slide_ids == tuple(bags.slide_ids[i] for i in chosen)
    assert part.dim == bags.dim
    assert all(torch.equal(part.bag(k), bags.bag(i)) for k, i in enumerate(chosen))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_arrays_come_back_in_their_type(dtype: type) -> None:
    arrays = [np.full((n, 3), n, dtype) for n in (2, 0, 5)]
    bags = Bags.from_arrays(arrays, ["a", "b", "c"])
    assert bags.features.dtype == dtype
    assert bags.lengths.tolist() == [2, 0, 5]
    for index, array in enumerate(arrays):
        np.testing.assert_array_equal(bags.bag(index).numpy(), array)


def test_mixed_precision_becomes_float32() -> None:
    bags = Bags.from_arrays([np.ones((2, 3), np.float16), np.ones((2, 3), np.float64)], ["a", "b"])
    assert bags.features.dtype == np.float32


def test_tensor_and_memory_map_give_the_same_batches(tmp_path: Path) -> None:
    plain = random_bags([3, 0, 4], dtype=np.float16)
    plain.features.tofile(tmp_path / "features.bin")
    mapped = np.memmap(tmp_path / "features.bin", np.float16, "r", shape=plain.features.shape)
    expected = next(plain.batches([2, 0], 2)).features
    for features in (torch.from_numpy(plain.features), mapped):
        assert torch.equal(next(Bags(features, plain.offsets, plain.slide_ids).batches([2, 0], 2)).features, expected)


def test_a_batch_is_a_copy() -> None:
    bags = random_bags([3, 2])
    before = bags.features.copy()
    next(bags.batches([0], 1)).features.zero_()
    bags.bag(1).zero_()
    np.testing.assert_array_equal(bags.features, before)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ([np.ones((2, 3)), np.ones((2, 4))], r"b: features must be of shape \(N, 3\), got \(2, 4\)"),
        ([np.ones((2, 3)), np.full((2, 3), np.nan)], "b: features hold NaN"),
        ([np.ones((2, 3)), np.full((2, 3), np.inf)], "b: features hold NaN"),
        ([np.ones((2, 3))], "one array for each slide, got 1 for 2 slides"),
        ([], "got 0 for 2 slides"),
    ],
)
def test_unfit_arrays_are_refused_by_name(arrays: list[np.ndarray], message: str) -> None:
    with pytest.raises(MilError, match=message):
        Bags.from_arrays(arrays, ["a", "b"])


@pytest.mark.parametrize(
    ("offsets", "ids", "message"),
    [
        ([0, 3, 2, 4], "abc", "rise from 0"),
        ([1, 4], "a", "rise from 0"),
        ([0, 3], "a", "number of instances, 4"),
        ([0, 4], "ab", r"int64 \(3,\)"),
        ([0, 2, 4], "aa", "unique"),
    ],
)
def test_unfit_offsets_are_refused(offsets: list[int], ids: str, message: str) -> None:
    with pytest.raises(MilError, match=message):
        Bags(np.ones((4, 2), np.float32), np.array(offsets), tuple(ids))


def test_features_must_be_a_float_matrix() -> None:
    with pytest.raises(MilError, match="got int64"):
        Bags(np.ones((4, 2), np.int64), np.array([0, 4]), ("a",))  # type: ignore[arg-type]
