"""Losses against their formulas written out, gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wsi_pipeline.mil.training.objectives import Classification, Regression
from wsi_pipeline.mil.training.survival_losses import CoxSurvival, DiscreteSurvival, cox_losses, intervals

EDGES = (2.0, 5.0, 9.0)

times = st.lists(st.integers(1, 24).map(lambda half: half / 2), min_size=1, max_size=12)


def follow(values: list[float], seed: int) -> tuple[Tensor, Tensor]:
    """The times and drawn events."""
    rng = np.random.default_rng(seed)
    return torch.tensor(values, dtype=torch.float64), torch.from_numpy(rng.integers(0, 2, len(values)))


def likelihood(hazards: list[float], time: float, event: bool) -> float:
    """Probability of one patient's follow-up, interval by interval."""
    found, start = 1.0, 0.0
    for hazard, end in zip(hazards, EDGES, strict=True):
        if event and time <= end:
            return found * hazard
        if not event and time < (start + end) / 2:
            return found
        found, start = found * (1 - hazard), end
    return found


@settings(deadline=None)
@given(times, st.integers(0, 99))
def test_discrete_loss_is_the_negative_log_likelihood(values: list[float], seed: int) -> None:
    time, event = follow(values, seed)
    outputs = torch.randn(len(values), 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    losses = DiscreteSurvival(time, event, torch.tensor(EDGES).double()).losses(outputs, torch.arange(len(values)))
    for row, t, e, loss in zip(outputs.sigmoid().tolist(), time.tolist(), event.tolist(), losses.tolist(), strict=True):
        assert loss == pytest.approx(-math.log(likelihood(row, t, bool(e))), abs=1e-9)


@settings(deadline=None)
@given(times, st.integers(0, 99))
def test_an_interval_is_survived_or_died_in_never_both(values: list[float], seed: int) -> None:
    time, event = follow(values, seed)
    survived, died = intervals(time, event, torch.tensor(EDGES).double())
    assert (survived + died <= 1).all()
    assert (survived.diff(dim=1) <= 0).all()
    assert torch.equal(died.sum(1), (event.bool() & (time <= EDGES[-1])).float())


def test_discrete_gradient() -> None:
    time, event = follow([0.5, 2, 3, 5.5, 8.9, 9, 12, 30], 1)
    objective = DiscreteSurvival(time, event, torch.tensor(EDGES).double())
    outputs = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: objective.losses(x, torch.arange(8)), outputs)


def test_extreme_outputs_stay_finite() -> None:
    time, event = follow([1, 3, 8, 20], 0)
    edges = torch.tensor(EDGES).double()
    for value in (-1e4, 1e4):
        outputs = torch.full((4, 3), value, requires_grad=True)
        DiscreteSurvival(time, event, edges).losses(outputs, torch.arange(4)).sum().backward()
        assert outputs.grad is not None
        assert outputs.grad.isfinite().all()
    risks = torch.tensor([1e4, -1e4, 0, 50.0], requires_grad=True)
    cox_losses(risks, time, event.bool()).sum().backward()
    assert risks.grad is not None
    assert risks.grad.isfinite().all()


def breslow(risks: Tensor, time: Tensor, event: Tensor) -> Tensor:
    """The negative log partial likelihood of each bag, risk set by risk set."""
    found = []
    for i in range(len(risks)):
        at_risk = torch.stack([risks[j].exp() for j in range(len(risks)) if time[j] >= time[i]])
        found.append((at_risk.sum().log() - risks[i]) * event[i])
    return torch.stack(found)


@settings(deadline=None)
@given(times, st.integers(0, 99))
def test_cox_loss_and_gradient_are_those_of_the_formula(values: list[float], seed: int) -> None:
    time, event = follow(values, seed)
    risks = torch.randn(len(values), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ours, written = (risks.clone().requires_grad_() for _ in range(2))
    found, expected = cox_losses(ours, time, event.bool()), breslow(written, time, event)
    torch.testing.assert_close(found, expected)
    found.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, written.grad)
    assert ours.grad is not None
    assert abs(float(ours.grad.sum())) < 1e-9  # a constant added to all risks changes nothing


def test_cox_risk_sets_are_of_the_batch_alone() -> None:
    time, event = torch.tensor([1.0, 2, 3, 4]), torch.tensor([1, 1, 0, 0])
    objective, outputs = CoxSurvival(time, event), torch.randn(2, 1)
    found = objective.losses(outputs, torch.tensor([3, 0]))
    torch.testing.assert_close(found[1], outputs[:, 0].logsumexp(0) - outputs[1, 0])
    assert found[0] == 0


def test_a_batch_without_events_teaches_nothing() -> None:
    outputs = torch.randn(3, 1, requires_grad=True)
    CoxSurvival(torch.tensor([1.0, 2, 3]), torch.zeros(3)).losses(outputs, torch.arange(3)).sum().backward()
    assert outputs.grad is not None
    assert (outputs.grad == 0).all()


def test_huber_is_squared_near_and_straight_far() -> None:
    objective = Regression(torch.zeros(5))
    errors = torch.tensor([[-3.0], [-1.0], [0.5], [1.0], [10.0]])
    expected = [2.5, 0.5, 0.125, 0.5, 9.5]
    assert objective.losses(errors, torch.arange(5)).tolist() == pytest.approx(expected)
    outputs = torch.tensor([[-3.0], [0.3], [0.5], [2.0], [10.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: objective.losses(x, torch.arange(5)).double(), outputs)


def test_label_smoothing_spreads_part_of_each_label() -> None:
    labels, outputs = torch.tensor([2, 0]), torch.randn(2, 3)
    found = Classification(labels, 3, balanced=False, label_smoothing=0.3).losses(outputs, torch.arange(2))
    target = torch.full((2, 3), 0.1) + 0.7 * torch.eye(3)[labels]
    torch.testing.assert_close(found, -(target * outputs.log_softmax(1)).sum(1))


@pytest.mark.parametrize(
    "objective",
    [
        Regression(torch.zeros(4)),
        CoxSurvival(torch.ones(4), torch.ones(4)),
        DiscreteSurvival(torch.ones(4), torch.ones(4), torch.ones(1)),
    ],
)
def test_all_bags_count_alike_and_none_has_a_class(objective: Regression | CoxSurvival | DiscreteSurvival) -> None:
    assert objective.bag_weights(torch.tensor([0, 2])).tolist() == [1, 1, 1, 1]
    assert objective.targets(torch.arange(4)) is None
