"""The zoo: every published encoder is built from its facts without data: size, feature and pixels are as stated."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers

from wsi_pipeline.encoders.encoder import EncoderPlan
from wsi_pipeline.encoders.hf_models.hf_network import build as build_huggingface
from wsi_pipeline.encoders.hf_models.plan_hf import plan_preset as plan_huggingface_preset
from wsi_pipeline.encoders.names import encoder_info, family_of, plan_encoder
from wsi_pipeline.encoders.timm_models.plan_timm import TimmPlan
from wsi_pipeline.encoders.timm_models.plan_timm import plan_preset as plan_timm_preset
from wsi_pipeline.encoders.zoo.facts import Preset, known_facts, list_encoders, presets, read_zoo
from wsi_pipeline.encoders.zoo.plan_layout import LayoutPlan
from wsi_pipeline.errors import EncoderError

BUILT = [preset for preset in list_encoders() if preset.built]
DEPTH = {"timm": {"depth": 2}, "transformers": {"num_hidden_layers": 2}}
"""Two blocks are enough to see what a feature is made of; all blocks are counted in another test."""

TOWERS = ("vision_config", "text_config")


def shallow(preset: Preset) -> Preset:
    """The preset with two blocks, where its network has a number of them."""
    if preset.library == "layout" or preset.network == "resnet50":
        return preset
    if preset.network in ("clip", "siglip"):
        parts = {part: {**preset.arguments.get(part, {}), **DEPTH["transformers"]} for part in TOWERS}
        return replace(preset, arguments={**preset.arguments, **parts})
    return replace(preset, arguments={**preset.arguments, **DEPTH[preset.library]})


@cache
def planned(name: str) -> EncoderPlan:
    """The plan of a preset with two blocks."""
    preset = shallow(presets()[name])
    if preset.library == "timm":
        return plan_timm_preset(preset, None, 256)
    return plan_huggingface_preset(preset, None) if preset.library == "transformers" else LayoutPlan(preset, None)


@cache
def parameters(library: str, network: str, arguments: str, name: str) -> float:
    """Parameters in millions of the whole network, without data; equal networks are built once."""
    preset = presets()[name]
    plan = planned(name)
    if isinstance(plan, TimmPlan):
        more = {} if network == "resnet50" else {"weight_init": "skip"}
        whole = replace(plan._architecture, arguments={**preset.arguments, **more}).build("meta")
    elif isinstance(plan, LayoutPlan):
        whole = plan.build("meta")
    else:
        whole = build_huggingface(transformers.AutoConfig.for_model(network, **preset.arguments))
    return sum(value.numel() for value in whole.parameters()) / 1e6


@pytest.mark.parametrize("preset", BUILT, ids=lambda preset: preset.name)
def test_an_encoder_is_built_as_its_facts_say(preset: Preset) -> None:
    plan = planned(preset.name)
    info = plan.info
    assert (info.name, info.input_px, info.resize_px) == (preset.name, preset.input_px, preset.resize_px)
    assert (info.mean, info.std, info.interpolation) == (preset.mean, preset.std, preset.interpolation)
    assert (info.dim, info.mpp, info.licence) == (preset.dim, preset.mpp, preset.terms)
    words = {
        "class+mean": "class token + mean of",
        "pooled": "mean of 7 x 7 positions",
        "image features": "image features",
    }
    if preset.library != "layout":
        assert info.feature.startswith(words.get(preset.feature, preset.feature))
    if isinstance(plan, LayoutPlan):
        images = torch.empty(2, 3, info.input_px or 0, info.input_px or 0, device="meta")
        with torch.inference_mode():
            assert plan.build("meta")(images).shape == (2, preset.dim)


@pytest.mark.parametrize("preset", [each for each in BUILT if each.million], ids=lambda preset: preset.name)
def test_its_network_has_as_many_parameters_as_published(preset: Preset) -> None:
    """Within 1 %: the peers round them, and some count the classifier or the pooler."""
    counted = parameters(preset.library, preset.network, str((preset.arguments, preset.swiglu)), preset.name)
    assert counted == pytest.approx(preset.million, rel=0.012)


def test_the_page_has_a_row_for_each() -> None:
    page = (Path(__file__).parents[2] / "docs/encoders.md").read_text(encoding="utf-8")
    for item in list_encoders():
        side = f"{item.resize_px}, centre {item.input_px}" if item.resize_px else item.input_px
        row = (
            f"| `{item.name}` | {item.title} | {side} | {item.interpolation} | {item.feature}, {item.dim:,} | "
            f"{item.mpp or ''} | {item.licence} | {item.gate} |"
            if item.built
            else f"| `{item.name}` | {item.reason} |"
        )
        assert row in page


def test_names_do_not_hide_models_of_timm_and_open_the_zoo() -> None:
    for name in presets():
        assert not timm.is_model(name.partition(".")[0])
        assert family_of(name) == "zoo"
    assert family_of("resnet50") == family_of("hf-hub:MahmoodLab/UNI") == "timm"
    assert family_of("owkin/phikon") == "huggingface"


def test_what_is_not_built_says_why() -> None:
    with pytest.raises(EncoderError, match=r"omiclip \(OmiCLIP\) cannot be built here: .*unpickling") as refusal:
        plan_encoder("omiclip")
    assert "wsi-pipeline encoders" in refusal.value.todo
    for preset in list_encoders():
        assert preset.built != bool(preset.reason)


def test_a_peers_name_leads_to_ours() -> None:
    with pytest.raises(EncoderError, match=r"unknown encoder 'uni_v1'") as refusal:
        plan_encoder("uni_v1")
    assert "Did you mean uni?" in refusal.value.todo


def test_hub_models_are_completed_as_before() -> None:
    """The digests of old runs contain these arguments."""
    scale = {"init_values": 1e-5}
    assert known_facts("MahmoodLab/UNI@main") is not None
    assert {name: (dict(facts.arguments), facts.packed_swiglu, facts.feature, facts.crop)
            for name in ("mahmoodlab/uni", "paige-ai/Virchow2", "bioptimus/H-optimus-0", "bioptimus/H0-mini",
                         "prov-gigapath/prov-gigapath", "wangyh/mstar", "owkin/phikon")
            if (facts := known_facts(name))} == {
        "mahmoodlab/uni": ({**scale, "dynamic_img_size": True}, False, "", None),
        "paige-ai/Virchow2": ({}, True, "class+mean", None),
        "bioptimus/H-optimus-0": (scale, False, "", None),
        "bioptimus/H0-mini": ({}, True, "", None),
        "prov-gigapath/prov-gigapath": ({}, False, "", 0.875),
        "wangyh/mstar": ({**scale, "dynamic_img_size": True}, False, "", None),
        "owkin/phikon": ({}, False, "", None),
    }  # fmt: skip
    uni2 = known_facts("MahmoodLab/UNI2-h")
    assert uni2 is not None
    assert {key: str(value) for key, value in uni2.arguments.items()}["mlp_ratio"] == str(2.66667 * 2)
    assert known_facts("kaiko-ai/midnight") is None


def text_of(**changed: Any) -> str:
    """A zoo of one encoder as TOML."""
    facts = {"title": "'T'", "library": "'none'", "feature": "'f'", "gate": "'none'", "licence": "'MIT'",
             "reason": "'r'", "sources": "{network = ['s'], pixels = ['s'], feature = ['s'], resolution = ['s'], "
             "licence = ['s'], weights = ['s']}", **changed}  # fmt: skip
    lines = "\n".join(f"{key} = {value}" for key, value in facts.items() if value)
    return f"[sources]\ns = 'a source'\n[colours]\n[encoders.one]\n{lines}\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"spacing": "1"}, "one has unknown keys: spacing"),
        ({"sources": "{network = ['s']}"}, "one has no source for .'pixels', 'feature'"),
        ({"sources": "{network = ['x'], pixels = ['s'], feature = ['s'], resolution = ['s'], licence = ['s'], "
                     "weights = ['s']}"}, "unknown sources .'x'"),
        ({"reason": ""}, "or `none` and a reason"),
        ({"library": "'keras'"}, "needs a library of timm, transformers, layout, none"),
    ],
)  # fmt: skip
def test_facts_without_a_source_are_refused(changed: dict[str, str], said: str) -> None:
    assert read_zoo(text_of()).presets["one"].reason == "r"
    with pytest.raises(EncoderError, match=said):
        read_zoo(text_of(**changed))


def test_options_for_the_input_reach_a_preset() -> None:
    preset = replace(presets()["gigapath"], arguments={**presets()["gigapath"].arguments, "depth": 2})
    assert plan_timm_preset(preset, None, 256, whole_patch=True).info.resize_px is None
    assert plan_timm_preset(preset, None, 256, input_px=256).info.input_px == 256
    with pytest.raises(EncoderError, match="--input-px applies only to timm models, not to conch"):
        plan_encoder("conch", input_px=224)
    assert encoder_info("conch").dim == 512


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_missing_weights_are_explained(no_cache: None) -> None:
    with pytest.raises(EncoderError, match=r"weights of conch \(CONCH\) .*published as pytorch_model\.bin") as refusal:
        _ = plan_encoder("conch").fingerprint
    assert "ask for access at https://huggingface.co/MahmoodLab/CONCH" in str(refusal.value).replace("Ask", "ask")
    assert "wsi-pipeline encoders conch --convert pytorch_model.bin" in refusal.value.todo
    with pytest.raises(EncoderError, match=r"weights of ctranspath .*ctranspath\.pth") as refusal:
        _ = plan_encoder("ctranspath").fingerprint
    assert "https://github.com/Xiyue-Wang/TransPath" in refusal.value.todo
