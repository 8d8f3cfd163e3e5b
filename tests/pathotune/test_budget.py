"""At most 5.9 % of a backbone trains, as in the paper: a small one gets narrower refine modules."""

from __future__ import annotations

import pytest
import torch

from pathotune.adapters import configure
from pathotune.backbone import fingerprint
from pathotune.builtin import vit_mini
from pathotune.model import PathoTune
from pathotune.training.budget import MOST_TRAINED, within_budget

STATES = torch.randn(1, 8, 384, generator=torch.Generator().manual_seed(0))
"""Of the size that the offline text encoder gives."""


def names(count: int) -> tuple[str, ...]:
    return tuple(f"class {number}" for number in range(count))


@pytest.mark.parametrize(("classes", "rank"), [(2, 15), (5, 15), (20, 13)])
def test_the_built_in_backbone_gets_the_largest_rank_that_fits(classes: int, rank: int) -> None:
    config = configure("pathotune", classes=names(classes))
    model = within_budget(config, vit_mini()[0], STATES)
    assert model.config.vrm_rank == rank
    assert model.trained_fraction() <= MOST_TRAINED
    wider = PathoTune(configure("pathotune", classes=names(classes), vrm_rank=rank + 1), vit_mini()[0], STATES)
    assert wider.trained_fraction() > MOST_TRAINED
    assert torch.equal(model.ttp.states, STATES)


def test_a_smaller_rank_that_was_asked_for_stays_and_the_backbone_is_as_before() -> None:
    network, _ = vit_mini()
    before = fingerprint(network)
    model = within_budget(configure("pathotune", classes=names(5), vrm_rank=4), network, STATES)
    assert model.config.vrm_rank == 4
    assert fingerprint(within_budget(configure("pathotune", classes=names(5)), network, STATES).backbone) == before


@pytest.mark.parametrize("method", ["linear", "vpt-deep", "lora", "full"])
def test_other_methods_are_left_as_they_are(method: str) -> None:
    config = configure(method, classes=names(5))
    assert within_budget(config, vit_mini()[0]).config == config


def test_more_classes_than_the_budget_holds_leave_rank_one() -> None:
    model = within_budget(configure("pathotune", classes=names(1000)), vit_mini()[0], STATES)
    assert model.config.vrm_rank == 1
    assert model.trained_fraction() > MOST_TRAINED
