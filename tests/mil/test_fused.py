"""The fused operation against the same written as separate ones, in value and gradient, whatever the blocks."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsi_pipeline.mil.models import fused_attention as fused
from wsi_pipeline.mil.models.fused_attention import AttentionWeights, attention_pool
from wsi_pipeline.mil.models.ragged import segment_pool, segment_softmax

DIM, HIDDEN, GATES = 5, 6, 4
LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=7)


def weights_of(gated: bool, dtype: torch.dtype = torch.float64) -> AttentionWeights:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    wide = 2 * GATES if gated else GATES
    return AttentionWeights(draw(HIDDEN, DIM), draw(HIDDEN), draw(wide, HIDDEN), draw(wide), draw(GATES), draw(1))


def rows_of(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(n, DIM, generator=torch.Generator().manual_seed(n), dtype=torch.float64).to(dtype)


def separate(features: Tensor, offsets: Tensor, w: AttentionWeights) -> tuple[Tensor, Tensor]:
    h = torch.relu(features @ w.projection.T + w.projection_bias)
    gates = h @ w.gates.T + w.gates_bias
    inner = gates[:, :GATES].tanh()
    if gates.shape[1] > GATES:
        inner = inner * gates[:, GATES:].sigmoid()
    attention = segment_softmax(inner @ w.score + w.score_bias, offsets)
    return segment_pool(h, attention, offsets), attention


def gradients(pooled: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    signs = torch.linspace(-1, 2, pooled.numel(), dtype=pooled.dtype).reshape(pooled.shape)
    return list(torch.autograd.grad((pooled * signs).sum() + pooled.square().sum(), inputs))


@pytest.mark.parametrize("gated", [True, False])
@settings(max_examples=25, deadline=None)
@given(lengths=LENGTHS, block=st.integers(1, 12))
def test_equals_the_separate_operations(gated: bool, lengths: list[int], block: int) -> None:
    weights, offsets = weights_of(gated), torch.tensor([0, *lengths]).cumsum(0)
    features = rows_of(sum(lengths)).requires_grad_()
    inputs = [features, *(getattr(weights, field.name) for field in dataclasses.fields(weights))]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "BLOCK", block)
        pooled, attention = attention_pool(features, offsets, weights)
        got = gradients(pooled, inputs)
    expected_pooled, expected_attention = separate(features, offsets, weights)
    torch.testing.assert_close(pooled, expected_pooled)
    torch.testing.assert_close(attention, expected_attention)
    for one, other in zip(got, gradients(expected_pooled, inputs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("gated", [True, False])
def test_without_gradients_the_same_values(gated: bool) -> None:
    weights, offsets = weights_of(gated, torch.float32), torch.tensor([0, 3, 3, 40])
    features = rows_of(40, torch.float32)
    with torch.no_grad():
        quiet = attention_pool(features, offsets, weights)
    for one, other in zip(quiet, attention_pool(features, offsets, weights), strict=True):
        assert torch.equal(one, other)
        assert not quiet[0].requires_grad


def test_bfloat16_stays_near_float32() -> None:
    """Values and gradients within the digits of bfloat16; sums over rows are float32."""
    weights, offsets = weights_of(True, torch.float32), torch.tensor([0, 300, 3000])
    features = rows_of(3000, torch.float32)
    inputs = [getattr(weights, field.name) for field in dataclasses.fields(weights)]
    pooled, attention = attention_pool(features.bfloat16(), offsets, weights)
    exact, exact_attention = attention_pool(features, offsets, weights)
    assert pooled.dtype == attention.dtype == torch.float32
    torch.testing.assert_close(pooled, exact, rtol=0.02, atol=0.02)
    torch.testing.assert_close(attention, exact_attention, rtol=0.1, atol=1e-5)
    for one, other in zip(gradients(pooled, inputs), gradients(exact, inputs), strict=True):
        assert float((one - other).norm()) <= 0.06 * float(other.norm()) + 1e-4


def test_bfloat16_gives_the_same_bits_again() -> None:
    weights, offsets, features = (
        weights_of(True, torch.float32),
        torch.tensor([0, 1500, 2500]),
        rows_of(2500).bfloat16(),
    )
    inputs = [getattr(weights, field.name) for field in dataclasses.fields(weights)]
    runs = [gradients(attention_pool(features, offsets, weights)[0], inputs) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))
