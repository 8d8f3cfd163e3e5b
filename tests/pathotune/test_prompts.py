"""Prompts and the refine module: shapes, initial laws, and that instance tokens follow the image."""

from __future__ import annotations

import math

import pytest
import torch

from pathotune.prompts import InstanceVisualPrompts, TaskTextualPrompts, TaskVisualPrompts, prompt_bound
from pathotune.refine import VisualRefineModule

BOUND = prompt_bound(16, 192)


def test_bound_is_that_of_vpt() -> None:
    assert pytest.approx(math.sqrt(6 / (3 * 16 * 16 + 192))) == BOUND


def test_task_prompts_fill_the_uniform_law() -> None:
    torch.manual_seed(0)
    tokens = TaskVisualPrompts(12, 10, 192, BOUND).tokens
    assert float(tokens.detach().abs().max()) <= BOUND
    assert float(tokens.detach().std()) == pytest.approx(BOUND / math.sqrt(3), rel=0.02)


def test_text_prompts_start_with_the_same_spread_whatever_the_encoders_scale() -> None:
    torch.manual_seed(0)
    states = torch.randn(1, 8, 384)
    torch.manual_seed(1)
    small = TaskTextualPrompts(states, 192, BOUND)
    torch.manual_seed(1)
    large = TaskTextualPrompts(states * 50 + 7, 192, BOUND)
    torch.testing.assert_close(small(2), large(2), rtol=1e-3, atol=1e-4)
    assert float(small(1).detach().std()) == pytest.approx(BOUND / math.sqrt(3), rel=0.1)
    assert [name for name, _ in small.named_parameters()] == ["project.weight", "project.bias"]


def test_text_states_are_a_copy_without_gradients() -> None:
    states = torch.randn(1, 3, 20, requires_grad=True)
    prompts = TaskTextualPrompts(states, 24, BOUND)
    with torch.no_grad():
        states += 1
    assert not prompts.states.requires_grad
    assert not torch.equal(prompts.states, states)


@pytest.mark.parametrize(("source", "shape"), [("pixels", (2, 3, 64, 48)), ("patches", (2, 192, 4, 3))])
@pytest.mark.parametrize("tokens", [1, 2, 5])
def test_instance_prompts_follow_the_image(source: str, shape: tuple[int, ...], tokens: int) -> None:
    torch.manual_seed(0)
    prompts = InstanceVisualPrompts(source, tokens, 192, 16, BOUND).eval()
    found = prompts(torch.randn(shape)).detach()
    assert found.shape == (1, 2, tokens, 192)
    assert float((found[0, 0] - found[0, 1]).abs().max()) > 1e-3 * BOUND


@pytest.mark.parametrize(("source", "shape"), [("pixels", (64, 3, 64, 48)), ("patches", (64, 192, 4, 3))])
def test_once_calibrated_half_of_a_token_comes_from_its_image(source: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    prompts = InstanceVisualPrompts(source, 2, 192, 16, BOUND, calibrated=True).eval()
    given = torch.rand(shape[0], 1, 1, 1) * torch.randn(shape)
    before = prompts(given).detach()[0].std(dim=0).mean()
    prompts.refine.calibrate(given)
    after = prompts(given).detach()[0].std(dim=0).mean()
    assert float(after) > 0.5 * float(prompts.start.detach().std())
    assert float(after) > 1.5 * float(before)


def test_deep_instance_prompts_differ_by_layer() -> None:
    prompts = InstanceVisualPrompts("pixels", 2, 24, 8, BOUND, layers=3)
    found = prompts(torch.randn(4, 3, 32, 32)).detach()
    assert found.shape == (3, 4, 2, 24)
    assert len({float(layer.sum()) for layer in found}) == 3


def test_absolute_strength_of_the_stain_gets_through() -> None:
    torch.manual_seed(0)
    refine = VisualRefineModule("pixels", 2, 192, 32, BOUND).eval()
    image = torch.rand(1, 3, 64, 64)
    tokens = refine(torch.cat([image * strength for strength in (0.5, 1.0, 2.0)])).detach()
    steps = (tokens[1:] - tokens[:-1]).norm(dim=-1).mean(dim=1) / tokens[1].norm(dim=-1).mean()
    assert float(steps.min()) > 0.02


def test_each_token_looks_with_weights_that_sum_to_one() -> None:
    torch.manual_seed(0)
    refine = VisualRefineModule("pixels", 3, 24, 8, BOUND)
    weights = refine.look_weights(torch.randn(2, 8, 10)).detach()
    assert weights.shape == (2, 3, 10)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))


def test_smallest_images_are_taken() -> None:
    refine = VisualRefineModule("pixels", 2, 24, 8, BOUND)
    assert refine(torch.randn(1, 3, 16, 16)).isfinite().all()
