"""AdamW takes the steps of torch's class, and does not load torch's compiler."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from tests.mil.test_mil_training import trained
from wsi_pipeline.mil.training.adamw import AdamW


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_its_steps_are_those_of_torch_to_the_bit(decay: float) -> None:
    torch.manual_seed(0)
    ours = nn.ParameterList([torch.randn(7, 5), torch.randn(5), torch.randn(3)])
    theirs = nn.ParameterList([one.detach().clone() for one in ours])
    mine = AdamW(ours, 3e-3, decay)
    reference = torch.optim.AdamW(theirs, lr=3e-3, weight_decay=decay, fused=True)
    for step in range(20):
        mine.zero_grad()
        reference.zero_grad(set_to_none=True)
        for index, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            if index < 2 or step % 3 == 1:  # a parameter without a gradient stays, and its steps are not counted
                one.grad = torch.randn_like(one)
                other.grad = one.grad.clone()
        mine.step()
        reference.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_training_does_not_load_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # importing it is an error
    trained()
