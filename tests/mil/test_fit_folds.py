"""Folds that train together equal folds that train one after the other; drawn instances; arithmetic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.mil.synthetic import QUICK, planted, random_bags
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.training import batching as pieces
from wsi_pipeline.mil.training.fit import fit, fit_folds
from wsi_pipeline.mil.training.objectives import Classification
from wsi_pipeline.mil.training.training_run import Fitted, FoldRows

BAGS, TABLE = planted(40)
LABELS = torch.tensor((TABLE["label"] == "tumour").to_numpy(dtype=np.int64))
OBJECTIVE = Classification(LABELS, 2, balanced=True)
FOLDS = [FoldRows(np.roll(np.arange(40), 8 * k)[:24], np.roll(np.arange(40), 8 * k)[24:32], 10 + k) for k in range(3)]
SHORT = replace(QUICK, epochs=3)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def assert_alike(left: Fitted, right: Fitted) -> None:
    for one, other in zip(left.history, right.history, strict=True):
        assert one.train_loss == pytest.approx(other.train_loss, rel=1e-4)
        assert one.val_loss == pytest.approx(other.val_loss, rel=1e-4)
    assert left.best_epoch == right.best_epoch
    states = left.model.state_dict(), right.model.state_dict()
    for name, value in states[0].items():
        torch.testing.assert_close(value, states[1][name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", sorted(MIL_MODELS.names()))
def test_together_equals_one_after_the_other(name: str, two_threads: None) -> None:
    """Dropout and order too, which are drawn for each fold by itself."""
    slow = name == "transmil"
    spec = replace(SHORT, model=name, epochs=1 if slow else 2)
    folds = [FoldRows(fold.train[:8], fold.val[:4], fold.seed) for fold in FOLDS] if slow else FOLDS
    together = fit_folds(BAGS, OBJECTIVE, folds, spec)
    assert torch.get_num_threads() == 2
    for fold, fitted in zip(folds, together, strict=True):
        assert_alike(fitted, fit(BAGS, OBJECTIVE, fold.train, fold.val, spec, seed=fold.seed))


def test_together_gives_the_same_bits_again(two_threads: None) -> None:
    first, second = (fit_folds(BAGS, OBJECTIVE, FOLDS, SHORT) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert one.history == other.history
        assert all(map(torch.equal, one.model.state_dict().values(), other.model.state_dict().values()))


def test_a_fold_reads_no_other_bags(two_threads: None) -> None:
    """The bags outside a fold's train and val replaced by nonsense: the same bits for that fold."""
    used = np.concatenate([FOLDS[0].train, FOLDS[0].val])
    features = BAGS.features.copy()
    for index in set(range(40)) - set(used.tolist()):
        features[BAGS.rows(index)] = 6e2
    plain = fit_folds(BAGS, OBJECTIVE, FOLDS, SHORT)[0]
    other = fit_folds(Bags(features, BAGS.offsets, BAGS.slide_ids), OBJECTIVE, FOLDS, SHORT)[0]
    assert plain.history == other.history


def test_epochs_of_all_folds_are_told_one_at_a_time(two_threads: None) -> None:
    seen: dict[int, list] = {0: [], 1: [], 2: []}
    fitted = fit_folds(BAGS, OBJECTIVE, FOLDS, SHORT, on_epoch=lambda fold, epoch: seen[fold].append(epoch))
    assert [tuple(seen[fold]) for fold in range(3)] == [each.history for each in fitted]


def test_each_fold_may_have_an_objective_of_its_own() -> None:
    flipped = Classification(1 - LABELS, 2, balanced=True)
    fitted = fit_folds(BAGS, [OBJECTIVE, flipped, OBJECTIVE], FOLDS, SHORT)
    expected = fit(BAGS, flipped, FOLDS[1].train, FOLDS[1].val, SHORT, seed=FOLDS[1].seed)
    assert_alike(fitted[1], expected)


def test_one_fold_that_fails_ends_all(two_threads: None) -> None:
    """A bag among the validation bags of fold 1 that no loss survives; the others would go on for long."""
    features = BAGS.features.astype(np.float32)
    features[BAGS.rows(20)] = 3e38
    spec = replace(SHORT, epochs=100_000, patience=100_000)
    with pytest.raises(MilError, match="no longer a finite number in epoch 1"):
        fit_folds(Bags(features, BAGS.offsets, BAGS.slide_ids), OBJECTIVE, FOLDS[1:], spec)
    assert torch.get_num_threads() == 2


def test_no_folds_no_models() -> None:
    assert fit_folds(BAGS, OBJECTIVE, [], SHORT) == []


def test_drawn_instances_are_of_their_bag_in_order_and_drawn_anew() -> None:
    bags = random_bags([9, 0, 3, 20], dim=2)
    rng = np.random.default_rng(0)
    batches = [bags.sampled(np.array([3, 2, 1]), 5, rng) for _ in range(2)]
    for batch in batches:
        assert batch.offsets.tolist() == [0, 5, 8, 8]
        assert torch.equal(batch.features[5:8], bags.bag(2))
        where = [int((bags.bag(3) == row).all(1).nonzero()) for row in batch.features[:5]]
        assert where == sorted(set(where))
    assert not torch.equal(batches[0].features, batches[1].features)
    tensor = Bags(torch.from_numpy(bags.features), bags.offsets, bags.slide_ids)
    assert torch.equal(tensor.sampled(np.array([3]), 5, np.random.default_rng(0)).features,
                       bags.sampled(np.array([3]), 5, np.random.default_rng(0)).features)  # fmt: skip


def test_no_step_takes_more_instances_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "MAX_INSTANCES", 50)
    rng, indices = np.random.default_rng(0), np.arange(40)
    batches = list(pieces.sampled_pieces(BAGS, indices, 12, rng))
    assert [index for batch in batches for index in batch.indices.tolist()] == indices.tolist()
    assert all(int(batch.offsets.diff().max()) <= 12 and len(batch.features) <= 50 for batch in batches)


def test_drawing_more_than_there_is_changes_nothing() -> None:
    plain, limited = (
        fit(BAGS, OBJECTIVE, FOLDS[0].train, FOLDS[0].val, spec, seed=1)
        for spec in (SHORT, replace(SHORT, max_instances=1000))
    )
    assert plain.history == limited.history


def test_training_learns_from_drawn_instances() -> None:
    spec = replace(QUICK, max_instances=20)
    fitted = fit(BAGS, OBJECTIVE, FOLDS[0].train, FOLDS[0].val, spec, seed=1)
    assert min(epoch.val_loss for epoch in fitted.history) < 0.5
    again = fit(BAGS, OBJECTIVE, FOLDS[0].train, FOLDS[0].val, spec, seed=1)
    assert fitted.history == again.history


@pytest.mark.parametrize("name", sorted(MIL_MODELS.names()))
def test_low_precision_learns_the_same(name: str) -> None:
    """bf16 works on every CPU, fast or not; the models are float32 whatever they were trained in."""
    spec = replace(QUICK, model=name, epochs=1, dropout=0.0)
    exact, low = (
        fit(BAGS, OBJECTIVE, FOLDS[0].train, FOLDS[0].val, replace(spec, precision=precision), seed=1)
        for precision in ("fp32", "bf16")
    )
    assert all(value.dtype == torch.float32 for value in low.model.state_dict().values())
    assert low.history[0].train_loss == pytest.approx(exact.history[0].train_loss, rel=0.05)
    lowered = low.history[0].train_loss != exact.history[0].train_loss
    assert lowered == (name != "linear"), "a linear model is fitted in float64"
