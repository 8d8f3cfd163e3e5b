"""Zero-shot: logits are the cosines of transformers' own image and text features; prompts are checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from tests.clip_files import PROMPTS, write_clip
from wsi_pipeline.encoders.hf_models.hf_processor import read_json
from wsi_pipeline.encoders.hf_models.plan_hf import plan_preset
from wsi_pipeline.encoders.hf_models.prompts import Prompts, read_prompts
from wsi_pipeline.encoders.hf_models.zero_shot import ZeroShotPlan
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.encoders.torch_encoder import prepare
from wsi_pipeline.encoders.zoo.facts import presets
from wsi_pipeline.errors import EncoderError, UsageError


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


def features_of(output: Any) -> torch.Tensor:
    features = output if isinstance(output, torch.Tensor) else output.pooler_output
    return torch.nn.functional.normalize(features, dim=-1)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_probabilities_are_those_of_the_model_itself(kind: str, tmp_path: Path) -> None:
    """SigLIP reads sentences padded to the full length, CLIP gives the same either way; SigLIP's bias drops out."""
    clip, padding = write_clip(tmp_path / kind, kind), "longest" if kind == "clip" else "max_length"
    prompts = read_prompts(PROMPTS, "p.yaml")
    plan = ZeroShotPlan(plan_encoder(str(clip)), prompts)
    assert plan.classes == ("tumour", "normal")
    patches = np.random.default_rng(2).integers(0, 256, (5, 90, 90, 3), np.uint8)
    ours = plan.open_classifier("cpu", "fp32").probabilities(patches)
    network, tokenizer = (
        transformers.AutoModel.from_pretrained(clip).eval(),
        transformers.AutoTokenizer.from_pretrained(clip),
    )
    said = {
        "tumour": ["tumour .", "an image of tumour .", "adenocarcinoma .", "an image of adenocarcinoma ."],
        "normal": ["normal mucosa .", "an image of normal mucosa ."],
    }
    with torch.inference_mode():
        images = features_of(network.get_image_features(pixel_values=prepare(patches, plan.info, torch.device("cpu"))))
        tokens = [tokenizer(texts, padding=padding, return_tensors="pt") for texts in said.values()]
        classes = torch.stack([features_of(network.get_text_features(**each)).mean(dim=0) for each in tokens])
        logits = np.e**2 * images @ torch.nn.functional.normalize(classes, dim=-1).T
    np.testing.assert_allclose(ours, logits.softmax(dim=1).numpy(), rtol=1e-4, atol=1e-5)
    assert np.ptp(ours[:, 0]) > 0.002


def test_the_fingerprint_knows_prompts_and_tokenizer(clip: Path, tmp_path: Path) -> None:
    model, prompts = plan_encoder(str(clip)), read_prompts(PROMPTS, "p.yaml")
    first = ZeroShotPlan(model, prompts).fingerprint
    assert first == ZeroShotPlan(plan_encoder(str(clip)), prompts).fingerprint
    assert first != ZeroShotPlan(model, Prompts(prompts.classes)).fingerprint
    own = {key: value for key, value in read_json(clip / "config.json").items() if key != "model_type"}
    preset = replace(presets()["plip"], arguments=own, input_px=64)
    assert ZeroShotPlan(plan_preset(preset, clip / "model.safetensors"), prompts).fingerprint != first
    other = write_clip(tmp_path / "copy")
    (other / "tokenizer_config.json").write_text((other / "tokenizer_config.json").read_text() + "\n")
    assert first != ZeroShotPlan(plan_encoder(str(other)), prompts).fingerprint


def test_models_without_text_and_long_prompts_are_refused(clip: Path, huggingface_folder: Any) -> None:
    prompts = read_prompts(PROMPTS, "p.yaml")
    for model in (plan_encoder("colour"), plan_encoder(str(huggingface_folder("dinov2")))):
        with pytest.raises(EncoderError, match="cannot compare patches with prompts"):
            ZeroShotPlan(model, prompts)
    with pytest.raises(EncoderError, match="has no tokenizer"):
        _ = ZeroShotPlan(plan_encoder(str(huggingface_folder("clip"))), prompts).fingerprint
    long = Prompts((("tumour", ("tumour " * 20,)), ("normal", ("normal",))))
    with pytest.raises(EncoderError, match=r"class tumour: the prompt 'tumour .*' has 22 tokens, the model takes 12"):
        ZeroShotPlan(plan_encoder(str(clip)), long).open_classifier("cpu", "fp32")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ([1], "must have the key classes"),
        ({"classes": {"a": "x", "b": "y"}, "prompts": []}, "must have the key classes"),
        ({"classes": {"a": "x"}}, "at least two classes"),
        ({"classes": {"a": "x", "b": []}}, "class b is empty"),
        ({"classes": {"a": "x", "b": 3}}, "class b must be text, got 3"),
        ({"classes": {"a": "x", 1: "y"}}, "a class must be text, got 1"),
        ({"classes": {"a": ["x", "y"], "b": "y"}}, "'y' stands for more than one class"),
        ({"classes": {"a": "x", "b": "y"}, "templates": ["no place"]}, "'no place' lacks CLASSNAME"),
    ],
)
def test_prompts_that_mean_nothing_are_refused(document: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refusal:
        read_prompts(document, "prompts.yaml")
    assert "prompts.yaml" in refusal.value.what
    assert "CLASSNAME" in refusal.value.todo


def test_braces_are_the_place_of_a_name_too() -> None:
    document = {"classes": {"a": "x", "b": "y"}, "templates": ["an image of {}."]}
    same = {**document, "templates": ["an image of CLASSNAME."]}
    assert read_prompts(document, "p.yaml") == read_prompts(same, "p.yaml")
    assert next(iter(read_prompts(document, "p.yaml").sentences())) == ("a", ("an image of x.",))
