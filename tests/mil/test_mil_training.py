"""Training reads what it may, stops where it should, and gives the same bits again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.mil.synthetic import QUICK, planted, random_bags
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.models.zoo import MIL_MODELS, build_model
from wsi_pipeline.mil.training import batching as pieces
from wsi_pipeline.mil.training.fit import fit
from wsi_pipeline.mil.training.objectives import Classification
from wsi_pipeline.mil.training.seeding import seeded, sub_seed
from wsi_pipeline.mil.training.standardise import Moments
from wsi_pipeline.mil.training.training_run import MIN_GAIN, Fitted

TRAIN, VAL = np.arange(24), np.arange(24, 34)
BAGS, TABLE = planted(40)
LABELS = torch.tensor((TABLE["label"] == "tumour").to_numpy(dtype=np.int64))
SHORT = replace(QUICK, epochs=6)


def trained(bags: Bags = BAGS, labels: torch.Tensor = LABELS, spec=SHORT, seed: int = 0, val=VAL, **more) -> Fitted:
    return fit(bags, Classification(labels, 2, balanced=True), TRAIN, val, spec, seed=seed, **more)


def same(left: Fitted, right: Fitted) -> bool:
    states = left.model.state_dict(), right.model.state_dict()
    equal = all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values(), strict=True))
    return equal and left.history == right.history


@pytest.mark.parametrize("name", MIL_MODELS.names())
def test_same_seed_same_bits(name: str) -> None:
    spec = replace(SHORT, model=name, epochs=2)
    assert same(trained(spec=spec), trained(spec=spec))
    other = same(trained(spec=spec), trained(spec=spec, seed=1))
    assert other == (name == "linear"), "a convex fit draws nothing, the others do"


def test_the_callers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002 (the global state is what must not change)
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = trained()
    assert torch.equal(torch.get_rng_state(), before)
    np.testing.assert_array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.rand(100)
    assert same(first, trained())


def test_bags_outside_train_and_val_change_nothing() -> None:
    """Features and labels of all other bags replaced by nonsense: the same bits."""
    features = BAGS.features.copy()
    features[BAGS.offsets[34] :] = 6e4
    labels = LABELS.clone()
    labels[34:] = 1
    assert same(trained(), trained(Bags(features, BAGS.offsets, BAGS.slide_ids), labels))


def test_validation_bags_choose_the_epoch_and_nothing_else() -> None:
    """Other validation labels: the same way down, up to where the first of the two stops."""
    flipped = LABELS.clone()
    flipped[VAL] = 1 - flipped[VAL]
    plain, other = trained(), trained(labels=flipped)
    both = list(zip(plain.history, other.history, strict=False))
    assert [a.train_loss for a, _ in both] == [b.train_loss for _, b in both]
    assert other.best_epoch < plain.best_epoch


def test_the_kept_model_is_the_one_with_the_lowest_validation_loss() -> None:
    fitted = trained(spec=replace(QUICK, epochs=25))
    losses = [epoch.val_loss for epoch in fitted.history]
    assert losses[fitted.best_epoch - 1] == min(losses)
    objective = Classification(LABELS, 2, balanced=True)
    weights = objective.bag_weights(torch.from_numpy(TRAIN))[VAL]
    batch = next(BAGS.batches(VAL, len(VAL)))
    with torch.no_grad():
        each = objective.losses(fitted.model(batch.features, batch.offsets).logits, batch.indices)
    assert float((each * weights).sum() / weights.sum()) == pytest.approx(min(losses), rel=1e-5)
    assert not fitted.model.training


def standardisation(bags: Bags, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    return Moments.of(bags, indices).standardisation(indices)


def test_the_first_loss_is_that_of_the_fresh_model() -> None:
    """All bags in one step, no dropout: the reported loss is the weighted mean before anything was learned."""
    fitted = trained(spec=replace(SHORT, epochs=1, batch_bags=len(TRAIN), dropout=0.0))
    with seeded(sub_seed(0, 0), torch.device("cpu")):
        fresh = build_model(SHORT, BAGS.dim, 2).eval()
    fresh.set_standardisation(*standardisation(BAGS, TRAIN))
    batch = next(BAGS.batches(TRAIN, len(TRAIN)))
    objective = Classification(LABELS, 2, balanced=True)
    weights = objective.bag_weights(torch.from_numpy(TRAIN))[TRAIN]
    with torch.no_grad():
        each = objective.losses(fresh(batch.features, batch.offsets).logits, batch.indices)
    assert fitted.history[0].train_loss == pytest.approx(float((each * weights).sum() / weights.sum()), rel=1e-5)


def test_patience_ends_training() -> None:
    """Random labels: the validation loss soon stops falling."""
    labels = torch.from_numpy(np.random.default_rng(0).integers(0, 2, 40))
    fitted = trained(labels=labels, spec=replace(QUICK, epochs=60, patience=4))
    assert len(fitted.history) < 60
    last = [epoch.val_loss for epoch in fitted.history]
    assert min(last[-4:]) >= min(last[:-4]) - MIN_GAIN


def test_without_validation_bags_the_last_epoch_is_kept() -> None:
    fitted = trained(val=np.array([], np.int64))
    assert fitted.best_epoch == len(fitted.history) == SHORT.epochs
    assert all(epoch.val_loss is None for epoch in fitted.history)


def test_every_epoch_is_reported_as_it_ends() -> None:
    seen = []
    fitted = trained(on_epoch=seen.append)
    assert tuple(seen) == fitted.history
    assert [epoch.epoch for epoch in seen] == list(range(1, len(seen) + 1))


def test_work_in_pieces_is_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches larger than the limit are cut; the gradients add up to those of the whole batch."""
    spec = replace(SHORT, dropout=0.0)
    whole = trained(spec=spec)
    monkeypatch.setattr(pieces, "MAX_INSTANCES", 70)
    cut = trained(spec=spec)
    losses = [[epoch.train_loss for epoch in fitted.history] for fitted in (whole, cut)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert not same(whole, cut)


@given(st.lists(st.integers(0, 50), max_size=20), st.integers(1, 100))
def test_pieces_cover_all_and_keep_the_limit(lengths: list[int], limit: int) -> None:
    slices = list(pieces.cut(np.array(lengths, np.int64), limit))
    assert [i for part in slices for i in range(len(lengths))[part]] == list(range(len(lengths)))
    for part in slices:
        assert sum(lengths[part]) <= limit or part.stop - part.start == 1


def test_standardisation_is_that_of_the_chosen_bags() -> None:
    bags = random_bags([5, 0, 9, 4], dim=3, seed=1)
    features = np.concatenate([bags.bag(0), bags.bag(2)]).astype(np.float64)
    mean, std = standardisation(bags, np.array([2, 1, 0]))
    np.testing.assert_allclose(mean, features.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, features.std(0), rtol=1e-6)


def test_standardisation_keeps_digits_beside_a_large_mean() -> None:
    rows = (2000 + np.random.default_rng(0).integers(0, 3, (5000, 1))).astype(np.float16)
    mean, std = standardisation(Bags.from_arrays([rows], ["a"]), np.array([0]))
    assert float(mean) == pytest.approx(rows.astype(float).mean(), rel=1e-7)
    assert float(std) == pytest.approx(rows.astype(float).std(), rel=1e-5)


def test_constant_features_do_not_divide_by_zero() -> None:
    bags = Bags.from_arrays([np.ones((4, 2), np.float32), np.empty((0, 2), np.float32)], ["a", "b"])
    assert standardisation(bags, np.array([0]))[1].tolist() == [1, 1]
    assert [part.tolist() for part in standardisation(bags, np.array([1]))] == [[0, 0], [1, 1]]


def test_class_weights_balance_the_training_bags() -> None:
    objective = Classification(torch.tensor([0, 0, 0, 1, 2]), 4, balanced=True)
    weights = objective.bag_weights(torch.tensor([0, 1, 2, 3]))
    assert weights[:4].tolist() == pytest.approx([4 / 6] * 3 + [2.0])
    assert weights[4] == 1
    assert Classification(torch.tensor([0, 1]), 2, balanced=False).bag_weights(torch.tensor([0, 1])).tolist() == [1, 1]


def test_losses_are_cross_entropy() -> None:
    losses = Classification(torch.tensor([0, 1, 1]), 2, balanced=True).losses(
        torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([2, 0])
    )
    assert losses.tolist() == pytest.approx([np.log(1 + np.exp(2)), np.log(2)])


def test_labels_outside_the_classes_are_refused() -> None:
    with pytest.raises(MilError, match="labels must be 0 to 1, got 0 to 2"):
        Classification(torch.tensor([0, 1, 2]), 2, balanced=True)


def test_a_loss_that_explodes_says_what_to_do() -> None:
    features = BAGS.features.astype(np.float32)
    features[BAGS.offsets[24] :] = 3e38
    with pytest.raises(MilError, match="no longer a finite number in epoch 1") as caught:
        trained(Bags(features, BAGS.offsets, BAGS.slide_ids))
    assert caught.value.todo == "Lower --learning-rate."


def test_nothing_to_train_on_is_refused() -> None:
    with pytest.raises(MilError, match="hold no instances"):
        fit(random_bags([0, 0, 4]), Classification(torch.tensor([0, 1, 1]), 2, balanced=True), np.array([0, 1]),
            np.array([2]), SHORT, seed=0)  # fmt: skip
