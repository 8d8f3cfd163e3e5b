"""Diagnosis: attention by kind of token, variation of [CLS], gradients by part."""

from __future__ import annotations

import pytest
import torch

from pathotune.config import PathoTuneConfig
from pathotune.diagnosis import PLACES, diagnose
from pathotune.model import PathoTune
from tests.pathotune.vits import KINDS, LAYERS, OFF, images, small_vit, states


def make(kind: str = "plain", **fields: object) -> PathoTune:
    config = PathoTuneConfig(**{"classes": ("a", "b", "c"), "vrm_width": 8, "vrm_rank": 4, **fields})  # type: ignore[arg-type]
    torch.manual_seed(3)
    return PathoTune(config, small_vit(kind), states(config) if config.ttp else None)


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_that_of_the_network_and_divided_among_all_kinds(kind: str) -> None:
    model = make(kind, vrm_input="layers", entry=0.34)
    found = diagnose(model, images())
    assert set(found.attention) == set(PLACES)
    assert len(found.variation) == LAYERS
    for layer in range(LAYERS):
        assert sum(found.attention[place][layer] for place in PLACES) == pytest.approx(1, abs=1e-5)
    assert [share > 0 for share in found.attention["tvp"]] == [False, True, True]
    assert (found.attention["registers"][0] > 0) == (kind == "registers")


def test_attention_of_a_layer_is_what_timm_computes() -> None:
    model = make(ttp=False, ivp_tokens=0, tvp_tokens=2)
    first = model.backbone.blocks[0].attn
    first.fused_attn = False
    seen: list[torch.Tensor] = []
    first.attn_drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    found = diagnose(model, images()).attention
    row = seen[0][:, :, 0].mean(dim=(0, 1))
    assert found["tvp"][0] == pytest.approx(float(row[1:3].sum()), abs=1e-6)
    assert found["image"][0] == pytest.approx(float(row[3:].sum()), abs=1e-6)


def test_class_tokens_of_one_image_do_not_vary() -> None:
    bare = make(**OFF)
    varied = diagnose(bare, images()).variation
    seen: list[torch.Tensor] = []
    bare.backbone.blocks[1].register_forward_hook(lambda _, given, out: seen.append(out[:, 0]))
    diagnose(bare, images())
    expected = seen[0].std(dim=0, correction=0).norm() / seen[0].norm(dim=1).mean()
    assert varied[1] == pytest.approx(float(expected), rel=1e-4)
    same = diagnose(bare, images(1).expand(3, -1, -1, -1)).variation
    assert len(varied) == LAYERS
    assert min(varied) > 1e-3
    assert max(same) < 1e-5


def test_gradients_are_shared_out_among_the_parts_that_train() -> None:
    model = make(vrm_input="layers")
    labels = torch.tensor([0, 1, 2])
    found = diagnose(model, images(), labels)
    assert set(found.gradient) == {"tvp", "ttp", "ivp", "head"}
    assert sum(found.gradient.values()) == pytest.approx(1)
    assert diagnose(model, images()).gradient == {}
    assert not any(value.grad is not None for value in model.parameters())
    assert set(diagnose(make(backbone="full", **OFF), images(), labels).gradient) == {"head", "backbone"}
