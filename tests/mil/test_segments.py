"""Ragged operations equal the plain ones done bag by bag, gradients included."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from wsi_pipeline.mil.models.ragged import segment_mean, segment_pool, segment_softmax, segment_sum, segment_uniform

LENGTHS = st.lists(st.integers(0, 6), max_size=7)


def offsets_of(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0)


def values(lengths: list[int], *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(sum(lengths), *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(LENGTHS)
def test_sum_and_mean_equal_the_plain_ones(lengths: list[int]) -> None:
    rows, offsets = values(lengths, 3), offsets_of(lengths)
    sums, means = segment_sum(rows, offsets), segment_mean(rows, offsets)
    assert sums.shape == means.shape == (len(lengths), 3)
    for bag, part in enumerate(rows.split(lengths) if lengths else ()):
        torch.testing.assert_close(sums[bag], part.sum(0))
        torch.testing.assert_close(means[bag], part.mean(0) if len(part) else torch.zeros(3, dtype=torch.float64))


@given(LENGTHS, st.sampled_from([(), (2,)]))
def test_softmax_sums_to_one_in_each_segment(lengths: list[int], shape: tuple[int, ...]) -> None:
    scores, offsets = values(lengths, *shape) * 20, offsets_of(lengths)
    weights = segment_softmax(scores, offsets)
    assert weights.shape == scores.shape
    for part, score in zip(weights.split(lengths), scores.split(lengths), strict=True) if lengths else ():
        torch.testing.assert_close(part, score.exp() / score.exp().sum(0))


@given(LENGTHS)
def test_pool_equals_the_sum_of_weighted_rows(lengths: list[int]) -> None:
    rows, weights, offsets = values(lengths, 3), values(lengths, seed=1), offsets_of(lengths)
    torch.testing.assert_close(segment_pool(rows, weights, offsets), segment_sum(rows * weights[:, None], offsets))


@given(LENGTHS)
def test_uniform_weights_make_the_mean(lengths: list[int]) -> None:
    rows, offsets = values(lengths, 3).float(), offsets_of(lengths)
    torch.testing.assert_close(segment_pool(rows, segment_uniform(offsets), offsets), segment_mean(rows, offsets))


@pytest.mark.parametrize("lengths", [[3, 0, 2, 1], [0, 0], [4]])
def test_gradients_are_right(lengths: list[int]) -> None:
    offsets = offsets_of(lengths)
    rows, scores = values(lengths, 2).requires_grad_(), values(lengths, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda r: segment_sum(r, offsets), rows)
    assert torch.autograd.gradcheck(lambda r: segment_mean(r, offsets), rows)
    assert torch.autograd.gradcheck(lambda s: segment_softmax(s, offsets), scores)
    assert torch.autograd.gradcheck(lambda r, s: segment_pool(r, segment_softmax(s, offsets), offsets), (rows, scores))


def test_half_precision_is_summed_in_float32() -> None:
    """70,000 ones are beyond float16, and 2049 ones beyond its whole numbers."""
    ones = torch.ones(70_000, 1, dtype=torch.float16)
    total = segment_sum(ones, torch.tensor([0, 2049, 70_000]))
    assert total.dtype == torch.float32
    assert total.flatten().tolist() == [2049.0, 67_951.0]


def test_a_bag_of_200_000_instances_keeps_its_digits() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.rand(200_000, 8, generator=generator)
    scores = torch.randn(200_000, generator=generator)
    offsets = torch.tensor([0, 200_000])
    weights = segment_softmax(scores, offsets)
    assert float(weights.double().sum()) == pytest.approx(1, abs=1e-5)
    exact = scores.double().softmax(0) @ rows.double()
    torch.testing.assert_close(segment_pool(rows, weights, offsets)[0].double(), exact, rtol=5e-5, atol=0)
    torch.testing.assert_close(segment_mean(rows, offsets)[0].double(), rows.double().mean(0), rtol=1e-5, atol=0)


def test_large_scores_do_not_overflow() -> None:
    weights = segment_softmax(torch.tensor([1e4, 1e4, -1e4, 3e38, -3e38]), torch.tensor([0, 3, 5]))
    assert weights.tolist() == pytest.approx([0.5, 0.5, 0, 1, 0])


def test_a_segment_touches_no_other() -> None:
    """NaN stays in its own segment, and each segment has the same bits alone as in company."""
    lengths, rows = [3, 2, 4], values([3, 2, 4], 5).float()
    scores = values(lengths, seed=2).float()
    rows[3], scores[3] = torch.nan, torch.nan
    offsets = offsets_of(lengths)
    weights = segment_softmax(scores, offsets)
    pooled = segment_pool(rows, weights, offsets)
    assert pooled[1].isnan().all()
    for bag, (start, stop) in enumerate([(0, 3), (3, 5), (5, 9)]):
        alone = torch.tensor([0, stop - start])
        own = segment_softmax(scores[start:stop], alone)
        assert torch.equal(own.nan_to_num(), weights[start:stop].nan_to_num())
        assert torch.equal(segment_pool(rows[start:stop], own, alone)[0].nan_to_num(), pooled[bag].nan_to_num())
