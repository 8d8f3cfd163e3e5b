"""All registered models keep the contract; each computes what its paper says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.suites.mil_contract import MilContract, awake
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.models.zoo import MIL_MODELS, build_model

SPEC = MilSpec(hidden_dim=7, attention_dim=5)


class TestEveryModel(MilContract):
    """The shared suite, for every name in the registry."""


def test_names() -> None:
    assert set(MIL_MODELS.names()) == {"abmil", "clam-sb", "dsmil", "gated-abmil", "linear", "max", "mean", "transmil"}
    assert MilSpec().model in MIL_MODELS
    assert MilSpec.__dataclass_fields__["model"].metadata["choices"] is MIL_MODELS


def test_gated_abmil_is_equation_9() -> None:
    """a_k = softmax_k(w^T (tanh(V h_k) * sigm(U h_k))), z = sum_k a_k h_k, written out with numpy."""
    model = awake(build_model(SPEC, 4, 2)).eval()
    features = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    p = {name.removeprefix("network."): t.detach().numpy() for name, t in model.named_parameters()}
    h = np.maximum(features @ p["projection.0.weight"].T + p["projection.0.bias"], 0)
    v = np.tanh(h @ p["attention.v.weight"].T + p["attention.v.bias"])
    u = 1 / (1 + np.exp(-(h @ p["attention.u.weight"].T + p["attention.u.bias"])))
    score = (v * u) @ p["attention.w.weight"][0] + p["attention.w.bias"]
    a = np.exp(score) / np.exp(score).sum()
    logits = p["head.1.weight"] @ (a @ h) + p["head.1.bias"]
    output = model(torch.from_numpy(features), torch.tensor([0, 6]))
    np.testing.assert_allclose(output.attention.detach().numpy(), a, rtol=1e-5)
    np.testing.assert_allclose(output.logits[0].detach().numpy(), logits, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["abmil", "gated-abmil", "clam-sb"])
def test_untrained_attention_is_mean_pooling(name: str) -> None:
    model = build_model(MilSpec(model=name), 4, 2).eval()
    attention = model(torch.randn(6, 4), torch.tensor([0, 4, 6])).attention
    assert attention.tolist() == pytest.approx([0.25] * 4 + [0.5] * 2)


def test_an_empty_bag_gets_the_bias_of_the_classifier() -> None:
    model = build_model(SPEC, 4, 2).eval()
    bias = dict(model.named_parameters())["network.head.1.bias"]
    assert torch.equal(model(torch.empty(0, 4), torch.tensor([0, 0])).logits[0], bias)


def test_mean_pooling_attends_equally() -> None:
    model = build_model(MilSpec(model="mean"), 4, 2).eval()
    attention = model(torch.randn(6, 4), torch.tensor([0, 4, 6])).attention
    assert attention.tolist() == pytest.approx([0.25] * 4 + [0.5] * 2)


def test_other_width_is_refused() -> None:
    with pytest.raises(MilError, match=r"takes features of 4 values, got shape \(6, 5\)"):
        build_model(SPEC, 4, 2)(torch.randn(6, 5), torch.tensor([0, 6]))


def test_unknown_model_lists_the_known() -> None:
    with pytest.raises(UsageError, match="gated-abmil"):
        build_model(MilSpec(model="gated"), 4, 2)
