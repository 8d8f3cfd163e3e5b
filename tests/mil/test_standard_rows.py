"""Instances standardised block by block are those standardised at once, bit by bit; training makes no copy of all."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.mil.synthetic import QUICK, random_bags
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import BagBatch, Bags
from wsi_pipeline.mil.models.fused_attention import tanh
from wsi_pipeline.mil.models.mil_model import MilModel, build_model
from wsi_pipeline.mil.models.standard_rows import StandardRows, scaled
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.training.fit import fit
from wsi_pipeline.mil.training.objectives import Classification

DIM = 19
BLOCK_MODELS = ["abmil", "clam-sb", "gated-abmil"]
TYPES = [torch.float32, torch.bfloat16]


def rows_of(lengths: list[int], dtype: torch.dtype) -> tuple[StandardRows, torch.Tensor]:
    """Rows to be standardised, and all of them standardised at once."""
    generator = torch.Generator().manual_seed(sum(lengths))
    parts = [torch.randn(n, DIM, generator=generator).half() for n in lengths]
    scale, shift = torch.rand(DIM, generator=generator) + 0.5, torch.randn(DIM, generator=generator) * 30
    return StandardRows(parts, scale, shift, dtype), scaled(torch.cat(parts), scale, shift, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 700), min_size=1, max_size=5), start=st.integers(0, 1500), n=st.integers(1, 900))
def test_a_block_holds_the_same_bits(dtype: torch.dtype, lengths: list[int], start: int, n: int) -> None:
    rows, expected = rows_of(lengths, dtype)
    block, own = rows.block(slice(start, start + n)), expected[start : start + n]
    assert len(rows) == len(expected)
    assert block.shape == (n, DIM)
    assert block.dtype == dtype
    assert torch.equal(block[: len(own)], own)
    assert not block[len(own) :].any(), "rows beyond the last one are zeros"


@pytest.mark.parametrize("dtype", TYPES)
def test_chosen_rows_hold_the_same_bits(dtype: torch.dtype) -> None:
    rows, expected = rows_of([3, 0, 700, 1], dtype)
    chosen = torch.tensor([703, 0, 2, 3, 702, 500])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rows[chosen], expected[chosen])
        assert rows[chosen[:0]].shape == (0, DIM)


def model_of(name: str, dim: int = 6) -> MilModel:
    torch.manual_seed(0)
    model = build_model(replace(QUICK, model=name, dropout=0.0), dim, 2)
    model.set_standardisation(torch.linspace(-5, 40, dim), torch.linspace(0.1, 3, dim))
    for pooling in (module for module in model.modules() if hasattr(module, "attention")):
        if hasattr(pooling.attention, "w"):
            torch.nn.init.normal_(pooling.attention.w.weight)
    return model


@pytest.mark.parametrize("low", [False, True])
@pytest.mark.parametrize("name", sorted(MIL_MODELS.names()))
def test_a_model_of_parts_has_the_bits_of_the_whole(name: str, low: bool) -> None:
    bags, targets = random_bags([300, 0, 900, 41], dim=6), torch.tensor([0, 1, 1, 0])
    batch = next(bags.batches(np.arange(4), 4))
    found = []
    for of in (
        lambda m: m(batch.features, batch.offsets, targets),
        lambda m: m.of_parts(batch.parts, batch.offsets, targets),
    ):
        model = model_of(name).train()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            output = of(model)
        loss = output.logits.float().square().sum() + (0 if output.auxiliary is None else output.auxiliary.sum())
        loss.backward()
        gradients = [part.grad for part in model.parameters() if part.grad is not None]
        found.append([output.logits.detach(), output.attention.detach(), *gradients])
    assert len(found[0]) > 2
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@pytest.mark.parametrize("name", BLOCK_MODELS)
def test_training_makes_no_copy_of_all_instances(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(_: BagBatch) -> torch.Tensor:
        raise AssertionError("the features of the bags were joined")

    bags = random_bags([300, 20, 900, 41, 5000, 60], dim=6)
    monkeypatch.setattr(BagBatch, "features", property(copied))
    monkeypatch.setattr("wsi_pipeline.mil.training.fit.Moments.of", lambda *_: Unit())
    objective = Classification(torch.tensor([0, 1, 0, 1, 0, 1]), 2, balanced=False)
    spec = replace(QUICK, model=name, epochs=1, batch_bags=3)
    fitted = fit(bags, objective, np.arange(4), np.array([4, 5]), spec, seed=0)
    assert fitted.history[0].val_loss is not None


class Unit:
    """Moments of mean 0 and deviation 1."""

    def standardisation(self, _: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(6), torch.ones(6)


def test_parts_are_views_and_read_only_features_are_copied() -> None:
    bags = random_bags([3, 4], dim=6)
    parts = next(bags.batches([1, 0], 2)).parts
    assert [len(part) for part in parts] == [4, 3]
    assert np.shares_memory(parts[0].numpy(), bags.features)
    frozen = bags.features.copy()
    frozen.flags.writeable = False
    copied = next(Bags(frozen, bags.offsets, bags.slide_ids).batches([1, 0], 2)).parts
    assert all(torch.equal(one, other) for one, other in zip(parts, copied, strict=True))
    assert not np.shares_memory(copied[0].numpy(), frozen)


def test_features_of_another_width_are_refused() -> None:
    with pytest.raises(MilError, match="takes features of 6 values"):
        model_of("abmil").of_parts([torch.zeros(3, 6), torch.zeros(3, 5)], torch.tensor([0, 3, 6]))


def test_the_fast_tanh_is_within_its_bound() -> None:
    values = torch.cat([torch.linspace(-40, 40, 100_001), torch.logspace(-8, 1, 1000)]).bfloat16()
    exact = values.double().tanh()
    assert float((tanh(values, torch.float32).double() - exact).abs().max()) < 2e-7
    wide = values.float()
    assert torch.equal(tanh(wide, torch.float32), wide.tanh())
    assert torch.equal(wide, values.float()), "the argument is left as it was"
