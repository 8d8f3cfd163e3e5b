"""Folds that share their steps on small bags: each has the values, gradients and trainings that it has by itself."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.mil.synthetic import QUICK, planted, random_bags
from tests.mil.test_fused import DIM, GATES, HIDDEN
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.fused_attention import AttentionWeights, attention_pool
from wsi_pipeline.mil.models.ragged import segment_ids
from wsi_pipeline.mil.models.stacked_folds import stacked_logits, stacked_pool
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.training import steps
from wsi_pipeline.mil.training.fit import fit_folds
from wsi_pipeline.mil.training.objectives import Classification
from wsi_pipeline.mil.training.standardise import Moments
from wsi_pipeline.mil.training.training_run import Fitted, FoldRows, TrainingRun

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=5)
BAGS, TABLE = planted(40)
OBJECTIVE = Classification(torch.tensor((TABLE["label"] == "tumour").to_numpy(dtype=np.int64)), 2, balanced=True)
UNEQUAL = [
    FoldRows(np.arange(30), np.arange(30, 40), 1),
    FoldRows(np.arange(12, 25), np.arange(25, 40), 2),
    FoldRows(np.arange(20, 37), np.arange(0, 12), 3),
]


def weights_of(n_folds: int, halves: int, dtype: torch.dtype = torch.float64) -> AttentionWeights:
    generator = torch.Generator().manual_seed(n_folds)
    shapes = (HIDDEN, DIM), (HIDDEN,), (halves * GATES, HIDDEN), (halves * GATES,), (GATES,), (1,)
    drawn = [torch.randn(n_folds, *shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return AttentionWeights(*(part.requires_grad_() for part in drawn))


def filled(folds: list[list[int]], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Features (F, R, DIM) and the bag of each row (F, R) for bags of given lengths; what fills up is not zero."""
    longest = max(map(sum, folds))
    rows = torch.randn(len(folds), longest, DIM, generator=torch.Generator().manual_seed(longest), dtype=torch.float64)
    bags = torch.full((len(folds), longest), -1)
    for own, lengths in zip(bags, folds, strict=True):
        own[: sum(lengths)] = segment_ids(torch.tensor([0, *lengths]).cumsum(0))
    return rows.to(dtype), bags


def gradients(pooled: Tensor, weights: AttentionWeights) -> list[Tensor]:
    used = [getattr(weights, field.name) for field in dataclasses.fields(weights)][:-1]  # no softmax sees the last
    return list(torch.autograd.grad((pooled.sin() + pooled.square()).sum(), used))


@pytest.mark.parametrize("halves", [1, 2])
@settings(max_examples=25, deadline=None)
@given(folds=st.lists(LENGTHS, min_size=1, max_size=4))
def test_each_fold_has_its_own_embeddings_and_gradients(halves: int, folds: list[list[int]]) -> None:
    weights, (features, bags) = weights_of(len(folds), halves), filled(folds)
    pooled = stacked_pool(features, bags, max(map(len, folds)), weights)
    alone = torch.zeros_like(pooled)
    for k, lengths in enumerate(folds):
        own = AttentionWeights(*(getattr(weights, field.name)[k] for field in dataclasses.fields(weights)))
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        alone[k, : len(lengths)] = attention_pool(features[k, : sum(lengths)], offsets, own)[0]
    torch.testing.assert_close(pooled, alone)
    for one, other in zip(gradients(pooled, weights), gradients(alone, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-10)


def test_bfloat16_stays_near_float32() -> None:
    folds = [[300, 40], [2, 500]]
    weights, (features, bags) = weights_of(2, 2, torch.float32), filled(folds, torch.float32)
    low = stacked_pool(features.bfloat16(), bags, 2, weights)
    exact = stacked_pool(features, bags, 2, weights)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, exact, rtol=0.02, atol=0.03)
    for one, other in zip(gradients(low, weights), gradients(exact, weights), strict=True):
        assert float((one - other).norm()) <= 0.06 * float(other.norm()) + 1e-4


def test_a_fold_that_is_no_number_leaves_the_others_alone() -> None:
    weights, (features, bags) = weights_of(2, 2), filled([[5, 3], [4, 4]])
    plain = stacked_pool(features, bags, 2, weights)
    features[1] = torch.nan
    other = stacked_pool(features, bags, 2, weights)
    assert torch.equal(plain[0], other[0])
    assert other[1].isnan().all()
    assert not gradients(other[0], weights)[0][0].isnan().any()


def fold_of(bags: Bags, spec: MilSpec, seed: int = 0) -> TrainingRun:
    indices = np.arange(len(bags))
    objective = Classification(torch.zeros(len(bags)), 2, balanced=False)
    rows = FoldRows(indices, indices[:0], seed)
    return TrainingRun(bags, objective, rows, spec, torch.device("cpu"), Moments.of(bags, indices))


@pytest.mark.parametrize("name", ["abmil", "gated-abmil"])
def test_logits_are_those_of_each_model(name: str) -> None:
    bags = random_bags([3, 0, 7, 1, 12])
    models = [fold_of(bags, replace(QUICK, model=name), seed).model.eval() for seed in range(2)]
    for model in models:
        torch.nn.init.normal_(model.network.attention.w.weight)
    batches = [next(bags.batches([2, 1, 4], 3)), next(bags.batches([3, 0], 2))]
    with torch.no_grad():
        together = stacked_logits(models, batches, torch.float32)
        for logits, model, batch in zip(together, models, batches, strict=True):
            torch.testing.assert_close(logits, model(batch.features, batch.offsets).logits)


def test_only_attention_models_on_small_bags_share_their_steps() -> None:
    small = random_bags([100] * 20)
    assert steps.sharing(fold_of(small, replace(QUICK, batch_bags=8))) == steps.SHARED_ROWS // 800
    assert steps.sharing(fold_of(small, replace(QUICK, batch_bags=16))) == steps.SHARED_ROWS // 1600
    assert steps.sharing(fold_of(small, replace(QUICK, batch_bags=1000))) == 0
    one_large = random_bags([1] * 20 + [steps.SHARED_ROWS + 1])
    assert steps.sharing(fold_of(one_large, QUICK)) == 0
    assert steps.sharing(fold_of(one_large, replace(QUICK, max_instances=100))) > 0
    sharing = {name for name in MIL_MODELS.names() if steps.sharing(fold_of(small, replace(QUICK, model=name)))}
    assert sharing == {"abmil", "gated-abmil"}


def assert_alike(left: Fitted, right: Fitted) -> None:
    losses = [[(epoch.train_loss, epoch.val_loss) for epoch in fitted.history] for fitted in (left, right)]
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert left.best_epoch == right.best_epoch
    states = left.model.state_dict(), right.model.state_dict()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=3e-4)


@pytest.mark.parametrize("max_instances", [0, 20])
def test_folds_of_unequal_length_that_stop_apart(max_instances: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other numbers of steps in an epoch, and of epochs: as without sharing, where each is trained by itself.

    The labels of one fold are drawn by lot, so that its patience soon ends.
    """
    spec = replace(QUICK, epochs=10, patience=3, max_instances=max_instances, batch_bags=4)
    lots = Classification(torch.from_numpy(np.random.default_rng(0).integers(0, 2, 40)), 2, balanced=True)
    objectives = [OBJECTIVE, lots, OBJECTIVE]
    shared = fit_folds(BAGS, objectives, UNEQUAL, spec)
    assert len(shared[1].history) < len(shared[0].history)
    monkeypatch.setattr(steps, "SHARED_ROWS", 0)
    for one, other in zip(shared, fit_folds(BAGS, objectives, UNEQUAL, spec), strict=True):
        assert_alike(one, other)


def test_every_size_of_group_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = replace(QUICK, epochs=2)
    every = fit_folds(BAGS, OBJECTIVE, UNEQUAL, spec)
    largest = np.sort(BAGS.lengths)[-spec.batch_bags :].sum()
    monkeypatch.setattr(steps, "SHARED_ROWS", int(largest))
    for one, other in zip(every, fit_folds(BAGS, OBJECTIVE, UNEQUAL, spec), strict=True):
        assert_alike(one, other)
