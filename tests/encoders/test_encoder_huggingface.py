"""Hugging Face models from local folders: pooling, preprocessing, shards, and weights that do not belong."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from encoder_files import PROCESSOR, HuggingFaceFolder
from PIL import Image
from safetensors.torch import load_file, save_file
from suites.encoder_contract import tissue_patches

from wsi_pipeline.encoders.names import encoder_info, open_encoder, plan_encoder
from wsi_pipeline.errors import EncoderError


def own_pixels(folder: Path, patches: np.ndarray) -> torch.Tensor:
    """Patches as the model's own image processor hands them over."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    return processor(images=[Image.fromarray(patch) for patch in patches], return_tensors="pt")["pixel_values"]


def drop(folder: Path, part: str) -> None:
    """Remove all tensors whose name contains `part` from a folder's weights."""
    file = folder / "model.safetensors"
    tensors = {name: value for name, value in load_file(file).items() if part not in name}
    assert len(tensors) < len(load_file(file))
    save_file(tensors, file, {"format": "pt"})


@pytest.mark.parametrize("kind", ["vit", "dinov2", "convnext", "clip"])
def test_the_features_are_those_of_transformers(huggingface_folder: HuggingFaceFolder, kind: str) -> None:
    folder = huggingface_folder(kind)
    patches = tissue_patches(4, 64)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        output = (network.get_image_features if kind == "clip" else network)(pixel_values=own_pixels(folder, patches))
    expected = output if isinstance(output, torch.Tensor) else output.pooler_output
    encoder = open_encoder(str(folder), device="cpu", precision="fp32")
    np.testing.assert_allclose(encoder.encode(patches), expected.flatten(1).numpy(), rtol=1e-3, atol=1e-4)


def test_facts_come_from_the_configs(huggingface_folder: HuggingFaceFolder) -> None:
    info = encoder_info(str(huggingface_folder("vit")))
    assert (info.name, info.family, info.input_px, info.dim) == ("tiny-vit", "huggingface", 64, 32)
    assert info.mean == (0.7, 0.5, 0.6)
    assert info.std == (0.2, 0.3, 0.25)
    assert info.interpolation == "bilinear"
    assert info.resize_px == 80
    assert info.feature == "pooled output; the class token where the weights have no pooler"


def test_facts_need_no_weights(huggingface_folder: HuggingFaceFolder) -> None:
    folder = huggingface_folder("dinov2")
    (folder / "model.safetensors").unlink()
    plan = plan_encoder(str(folder))
    assert plan.info.dim == 32
    with pytest.raises(EncoderError, match=r"has no model\.safetensors") as caught:
        _ = plan.fingerprint
    assert "weights_only=True" in str(caught.value.todo)


def test_a_pooler_that_was_never_trained_is_not_used(
    huggingface_folder: HuggingFaceFolder, caplog: pytest.LogCaptureFixture
) -> None:
    """Classifiers are saved without pooler; transformers would fill in random numbers."""
    folder = huggingface_folder("vit")
    drop(folder, "pooler")
    patches = tissue_patches(3, 64)
    with caplog.at_level(logging.INFO, "wsi_pipeline"):
        features = [open_encoder(str(folder), device="cpu", precision="fp32").encode(patches) for _ in range(2)]
    assert "has no pooler: the class token is the feature" in caplog.text
    np.testing.assert_array_equal(*features)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        expected = network(pixel_values=own_pixels(folder, patches)).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(features[0], expected, rtol=1e-3, atol=1e-4)


def test_missing_tensors_are_refused_by_name(huggingface_folder: HuggingFaceFolder) -> None:
    folder = huggingface_folder("vit")
    drop(folder, "intermediate.dense.weight")
    with pytest.raises(
        EncoderError, match=r"2 tensors missing or of another shape \(.*(fc1|intermediate\.dense)\.weight"
    ):
        open_encoder(str(folder), device="cpu")


def test_tensors_of_another_shape_are_refused(huggingface_folder: HuggingFaceFolder) -> None:
    folder = huggingface_folder("vit")
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "intermediate_size": 48}))
    with pytest.raises(EncoderError, match="does not fit vit"):
        open_encoder(str(folder), device="cpu")


def test_shards_give_the_same_as_one_file(huggingface_folder: HuggingFaceFolder) -> None:
    whole, sharded = huggingface_folder("vit"), huggingface_folder("vit", max_shard_size="20KB")
    assert len(list(sharded.glob("*.safetensors"))) > 1
    first, second = plan_encoder(str(whole)), plan_encoder(str(sharded))
    assert first.fingerprint == second.fingerprint
    patches = tissue_patches(3, 64)
    np.testing.assert_array_equal(first.open("cpu").encode(patches), second.open("cpu").encode(patches))


@pytest.mark.parametrize("kept", ["folder", "file"])
def test_weights_stand_in_for_the_hub(huggingface_folder: HuggingFaceFolder, kept: str) -> None:
    folder = huggingface_folder("vit")
    weights = folder if kept == "folder" else folder / "model.safetensors"
    encoder = open_encoder("someone/model", weights=weights, device="cpu")
    assert encoder.info.name == "someone/model"
    assert encoder.encode(tissue_patches(2)).shape == (2, 32)


def test_without_a_processor_imagenet_is_assumed_and_said(
    huggingface_folder: HuggingFaceFolder, caplog: pytest.LogCaptureFixture
) -> None:
    folder = huggingface_folder("vit", processor=False)
    info = encoder_info(str(folder))
    assert info.mean == (0.485, 0.456, 0.406)
    assert info.input_px == 64
    assert "has no preprocessor_config.json: ImageNet's mean and std are assumed" in caplog.text


def test_preprocessing_is_part_of_the_fingerprint(huggingface_folder: HuggingFaceFolder) -> None:
    folder = huggingface_folder("vit")
    before = plan_encoder(str(folder)).fingerprint
    changed = {**PROCESSOR, "image_mean": [0.5, 0.5, 0.5]}
    (folder / "preprocessor_config.json").write_text(json.dumps(changed))
    assert plan_encoder(str(folder)).fingerprint != before


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not json", "is not a JSON object"),
        ("{}", "no model_type"),
        ('{"model_type": "nonesuch"}', "cannot use config.json"),
    ],
)
def test_folders_of_other_things_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(EncoderError, match=said):
        plan_encoder(str(tmp_path))


def test_text_models_are_refused(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    transformers.BertConfig(vocab_size=50, **sizes).save_pretrained(tmp_path)
    with pytest.raises(EncoderError, match="does not turn images into features"):
        plan_encoder(str(tmp_path))
