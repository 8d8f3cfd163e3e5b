"""timm models: which weights fit, which are refused, and what is fed to the network."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from encoder_files import TimmFile
from safetensors.torch import load_file, save_file
from suites.encoder_contract import assert_same_direction, tissue_patches

from wsi_pipeline.encoders.names import encoder_info, open_encoder, plan_encoder
from wsi_pipeline.encoders.timm_models.timm_network import Architecture
from wsi_pipeline.errors import EncoderError


def edited(path: Path, change: str) -> Path:
    """A copy of a weights file with one fault."""
    tensors = load_file(path)
    if change == "missing":
        del tensors["blocks.1.attn.qkv.weight"], tensors["norm.bias"]
    elif change == "reshaped":
        tensors["blocks.0.mlp.fc1.weight"] = torch.zeros(7, 9)
    elif change == "extra":
        tensors |= {f"blocks.99.{name}": torch.zeros(3) for name in ("a", "b")}
    elif change == "renamed":
        tensors = {f"model.{name}": value for name, value in tensors.items()}
    elif change == "headless":
        tensors = {name: value for name, value in tensors.items() if not name.startswith("head.")}
    out = path.with_name(f"{change}.safetensors")
    save_file(tensors, out)
    return out


def test_the_features_are_those_of_timm(timm_file: TimmFile) -> None:
    """The whole way, against timm's own model and plain arithmetic: 160 px patches need no resizing."""
    path = timm_file("test_vit")
    patches = tissue_patches(4, 160)
    network = timm.create_model("test_vit", pretrained=False, num_classes=0)
    network.load_state_dict({key: value for key, value in load_file(path).items() if "head." not in key})
    info = encoder_info("test_vit")
    assert (info.input_px, info.resize_px) == (160, 168)
    images = (patches / 255.0 - np.array(info.mean)) / np.array(info.std)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    encoder = open_encoder("test_vit", weights=path, device="cpu", precision="fp32", whole_patch=True)
    np.testing.assert_allclose(encoder.encode(patches), expected, rtol=1e-3, atol=1e-4)


def test_classifier_tensors_are_left_out_with_a_line(timm_file: TimmFile, caplog: pytest.LogCaptureFixture) -> None:
    path = timm_file("test_vit")
    patches = tissue_patches(3)
    with caplog.at_level(logging.INFO, "wsi_pipeline"):
        full = open_encoder("test_vit", weights=path, device="cpu").encode(patches)
    assert "left out the classifier's tensors: head.bias, head.weight" in caplog.text
    caplog.clear()
    without = open_encoder("test_vit", weights=edited(path, "headless"), device="cpu").encode(patches)
    assert "left out" not in caplog.text
    np.testing.assert_array_equal(full, without)


def test_fp16_files_are_accepted(timm_file: TimmFile) -> None:
    full, half = timm_file("test_vit"), timm_file("test_vit", dtype=torch.float16)
    assert half.stat().st_size < 0.6 * full.stat().st_size
    patches = tissue_patches(5)
    pair = [open_encoder("test_vit", weights=path, device="cpu", precision="fp32") for path in (full, half)]
    assert pair[0].fingerprint != pair[1].fingerprint
    assert_same_direction(pair[0].encode(patches), pair[1].encode(patches), 0.999)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("missing", r"2 missing \(.*blocks\.1\.attn\.qkv\.weight"),
        ("reshaped", r"1 of another shape \(blocks\.0\.mlp\.fc1\.weight: 7 x 9 instead of 192 x 64\)"),
        ("extra", r"2 not in the model \(blocks\.99\.a, blocks\.99\.b\)"),
        ("renamed", r"missing \(.* and \d+ more\); .* not in the model \(model\."),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(timm_file: TimmFile, change: str, said: str) -> None:
    path = edited(timm_file("test_vit"), change)
    with pytest.raises(EncoderError, match=said) as caught:
        open_encoder("test_vit", weights=path, device="cpu")
    assert str(path) in caught.value.what


def test_weights_of_another_model_are_refused(timm_file: TimmFile) -> None:
    with pytest.raises(EncoderError, match="does not fit test_resnet"):
        open_encoder("test_resnet", weights=timm_file("test_vit"), device="cpu")
    with pytest.raises(EncoderError, match="does not fit vit_tiny_patch16_224"):
        open_encoder("vit_tiny_patch16_224", weights=timm_file("test_vit"), device="cpu")


def test_position_embeddings_of_another_size_are_resampled(
    timm_file: TimmFile, caplog: pytest.LogCaptureFixture
) -> None:
    larger = timm_file("test_vit", img_size=224)
    assert load_file(larger)["pos_embed"].shape == (1, 197, 64)
    with caplog.at_level(logging.INFO, "wsi_pipeline"):
        features = open_encoder("test_vit", weights=larger, device="cpu", precision="fp32").encode(tissue_patches(5))
    assert "resampled to the model's image size: pos_embed" in caplog.text
    same_size = open_encoder("test_vit", weights=timm_file("test_vit"), device="cpu", precision="fp32")
    assert features.shape == same_size.encode(tissue_patches(5)).shape


@pytest.mark.parametrize("model", ["test_vit", "test_resnet", "test_convnext"])
def test_bf16_follows_fp32(timm_file: TimmFile, model: str) -> None:
    path, patches = timm_file(model), tissue_patches(5, 128)
    exact, fast = (
        open_encoder(model, weights=path, device="cpu", precision=precision).encode(patches)
        for precision in ("fp32", "bf16")
    )
    assert_same_direction(exact, fast, 0.999)


@pytest.mark.parametrize("kept", ["folder", "file"])
def test_a_hub_model_comes_from_a_local_folder(timm_file: TimmFile, tmp_path: Path, kept: str) -> None:
    path = timm_file("test_vit", global_pool="", img_size=96)
    (tmp_path / "model.safetensors").write_bytes(path.read_bytes())
    config = {
        "architecture": "test_vit",
        "model_args": {"img_size": 96, "global_pool": ""},
        "pretrained_cfg": {
            "input_size": [3, 96, 96], "fixed_input_size": True, "interpolation": "bilinear",
            "mean": [0.7, 0.6, 0.5], "std": [0.2, 0.2, 0.3], "license": "mit", "classifier": "head",
        },
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = tmp_path if kept == "folder" else tmp_path / "model.safetensors"
    plan = plan_encoder("hf-hub:someone/model", weights=weights)
    assert (plan.info.input_px, plan.info.interpolation, plan.info.licence) == (96, "bilinear", "mit")
    assert plan.info.mean == (0.7, 0.6, 0.5)
    assert plan.open("cpu").encode(tissue_patches(3)).shape == (3, plan.info.dim) == (3, 64)


@pytest.mark.parametrize("content", ["{}", "[]", "no json", '{"model_type": "vit"}', '{"architecture": "nonesuch"}'])
def test_a_config_that_is_not_timms_is_refused(timm_file: TimmFile, tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    (tmp_path / "model.safetensors").write_bytes(timm_file("test_vit").read_bytes())
    with pytest.raises(EncoderError, match=r"names no architecture|lacks"):
        plan_encoder("hf-hub:someone/model", weights=tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"has no model\.safetensors"):
        open_encoder("test_vit", weights=tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("repo", "config", "million", "dim", "mpp"),
    [
        ("MahmoodLab/UNI2-h", {"architecture": "vit_giant_patch14_224"}, 681, 1536, 0.5),
        (
            "paige-ai/Virchow2",
            {
                "architecture": "vit_huge_patch14_224",
                "model_args": {
                    "img_size": 224, "init_values": 1e-5, "mlp_ratio": 5.3375, "reg_tokens": 4, "global_pool": "",
                    "dynamic_img_size": True,
                },
            },
            631, 2560, None,
        ),
    ],
)  # fmt: skip
def test_known_pathology_models_have_their_published_size(
    tmp_path: Path, repo: str, config: dict[str, object], million: int, dim: int, mpp: float | None
) -> None:
    """Their configs cannot spell the packed SwiGLU layers; with them, the parameter counts are those of the cards."""
    normalisation = {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (tmp_path / "config.json").write_text(json.dumps({**config, "pretrained_cfg": normalisation}))
    plan = plan_encoder(f"hf-hub:{repo}", weights=tmp_path)
    architecture: Architecture = plan._architecture  # type: ignore[attr-defined]
    network = architecture.build("meta")
    assert sum(value.numel() for value in network.parameters()) // 1_000_000 == million
    assert (plan.info.dim, plan.info.mpp) == (dim, mpp)
    if mpp is not None:
        with pytest.raises(EncoderError, match=r"Tile again with --mpp 0\.5"):
            plan.info.check_spacing(1.0)
