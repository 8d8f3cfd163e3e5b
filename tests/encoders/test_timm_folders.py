"""timm models from folders in hub layout: the features are those of timm's own network and transform.

The oracle is `timm.create_model("local-dir:...", pretrained=True, num_classes=0)` with `create_transform` of its
configuration, on patches of 256 pixels; pooling that timm leaves to the user is spelled out beside each case.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from encoder_files import randomise
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from suites.encoder_contract import assert_same_direction, tissue_patches
from timm.data import create_transform, resolve_data_config

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders.names import open_encoder, plan_encoder
from wsi_pipeline.encoders.weights import hash_tensors
from wsi_pipeline.errors import EncoderError

UNI_LIKE = {
    "tag": "x", "custom_load": True, "input_size": [3, 224, 224], "fixed_input_size": False,
    "interpolation": "bilinear",
    "crop_pct": 1.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "num_classes": 0, "pool_size": None,
    "first_conv": "patch_embed.proj", "classifier": "head",
}  # fmt: skip
SMALL_VIT = {"img_size": 96, "embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16}
Pool = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Case:
    """A folder: architecture, model_args, pretrained_cfg over that of UNI; and what is to come out.

    flat   whether the pretrained_cfg is the whole file, as old repositories have it
    pool   from what timm gives to the feature
    said   what the user is told of the tokens
    """

    model: str
    arguments: Mapping[str, Any]
    config: Mapping[str, Any] = field(default_factory=dict)
    side: int = 96
    pool: Pool = lambda output: output
    said: str = "class token"
    flat: bool = False
    head: int = 0


def class_token(output: torch.Tensor) -> torch.Tensor:
    return output[:, 0]


def sized(side: int, **others: Any) -> dict[str, Any]:
    return {"input_size": [3, side, side], **others}


CASES = {
    "as UNI": Case("vit_tiny_patch16_224", {**SMALL_VIT, "dynamic_img_size": True, "init_values": 1e-5}, sized(96)),
    "not dynamic": Case("vit_tiny_patch16_224", SMALL_VIT, sized(96)),
    "crop .9, bicubic": Case("vit_tiny_patch16_224", SMALL_VIT, sized(96, crop_pct=0.9, interpolation="bicubic")),
    "crop not stated": Case("vit_tiny_patch16_224", SMALL_VIT, sized(96, crop_pct=None, mean=None, interpolation=None)),
    "crop squash": Case("vit_tiny_patch16_224", SMALL_VIT, sized(96, crop_pct=0.8, crop_mode="squash")),
    "crop above 1": Case("vit_tiny_patch16_224", SMALL_VIT, sized(96, crop_pct=1.15)),
    "lanczos": Case("vit_tiny_patch16_224", SMALL_VIT, sized(96, interpolation="lanczos")),
    "fixed, size in the configuration": Case(
        "vit_tiny_patch16_224", {k: v for k, v in SMALL_VIT.items() if k != "img_size"},
        sized(128, fixed_input_size=True), 128,
    ),
    "fixed, size in the arguments": Case("vit_tiny_patch16_224", SMALL_VIT, sized(128, fixed_input_size=True)),
    "patch 14 at 518": Case(
        "vit_small_patch14_dinov2", {"embed_dim": 32, "depth": 1, "num_heads": 2},
        sized(518, fixed_input_size=True), 518,
    ),
    "patch 14, registers, no pooling": Case(
        "vit_small_patch14_reg4_dinov2",
        {"img_size": 98, "embed_dim": 32, "depth": 2, "num_heads": 2, "global_pool": "", "dynamic_img_size": True},
        sized(98), 98, class_token,
    ),
    "a classifier": Case("vit_tiny_patch16_224", {**SMALL_VIT, "num_classes": 5}, sized(96, num_classes=5), head=5),
    "mean of patches": Case(
        "vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "avg"}, sized(96),
        said="mean of 36 patch tokens, class token left out",
    ),
    "mean with registers": Case(
        "vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "avg", "reg_tokens": 3}, sized(96),
        said="mean of 36 patch tokens, class token and 3 register tokens left out",
    ),
    "attention pooling": Case(
        "vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "map", "class_token": False}, sized(96),
        said="attention pooling of 36 tokens",
    ),
    "registers but no class token, no pooling": Case(
        "vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "", "class_token": False, "reg_tokens": 4}, sized(96),
        pool=lambda output: output[:, 4:].mean(dim=1), said="mean of 36 patch tokens, 4 register tokens left out",
    ),
    "registers but no class token": Case(
        "vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "avg", "class_token": False, "reg_tokens": 4}, sized(96),
        said="mean of 36 patch tokens, 4 register tokens left out",
    ),
    "distilled": Case(
        "deit_tiny_distilled_patch16_224", {k: v for k, v in SMALL_VIT.items() if k != "patch_size"}, sized(96),
        said="mean of class token and distillation token",
    ),
    "flat": Case("test_vit", {}, sized(160, num_features=64), 160, flat=True),
    "EVA": Case(
        "eva02_tiny_patch14_224", {"img_size": 98, "embed_dim": 48, "depth": 2, "num_heads": 3}, sized(98), 98,
        said="mean of 49 patch tokens, class token left out",
    ),
    "rotary DINOv3": Case(
        "vit_tiny_patch16_dinov3_qkvb", {"img_size": 96, "embed_dim": 48, "depth": 2, "num_heads": 3}, sized(96),
        said="mean of 36 patch tokens, class token and 4 register tokens left out",
    ),
    "relative positions": Case(
        "test_vit_relpos", {}, sized(160, fixed_input_size=True), 160, said="mean of 100 patch tokens"
    ),
    "Swin": Case(
        "swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": [1, 1, 2, 1]}, sized(224, crop_pct=0.9), 224,
        said="mean of 7 x 7 positions",
    ),
    "Swin without pooling": Case(
        "swin_tiny_patch4_window7_224", {"embed_dim": 24, "depths": [1, 1, 1, 1], "global_pool": ""}, sized(224), 224,
        pool=lambda output: output.mean(dim=(1, 2)), said="mean of 7 x 7 positions",
    ),
    "hybrid": Case("vit_tiny_r_s16_p8_224", {"img_size": 128, "embed_dim": 48, "depth": 2}, sized(128), 128),
    "CoAtNet": Case("test_coatnet", {}, sized(160, fixed_input_size=True), 160, said="mean of 5 x 5 positions"),
    "attention of halos": Case(
        "halonet26t", {}, sized(256, crop_pct=0.95), 256, said="mean of 8 x 8 positions"
    ),
    "BEiT": Case(
        "beit_base_patch16_224", {"img_size": 96, "embed_dim": 48, "depth": 2, "num_heads": 4}, sized(96),
        said="mean of 36 patch tokens, class token left out",
    ),
    "DeepSeek": Case(
        "deepseek_vit_412m", {"img_size": 98, "embed_dim": 64, "depth": 2, "num_heads": 4}, sized(98), 98,
        said="mean of 7 x 7 positions",
    ),
}  # fmt: skip


def write_folder(case: Case, folder: Path, seed: int = 0) -> Path:
    """The folder of a case, with random tensors."""
    size = {"input_size": tuple(case.config["input_size"]), "fixed_input_size": "fixed_input_size" in case.config}
    arguments = {"num_classes": case.head, **case.arguments}
    network = randomise(timm.create_model(case.model, pretrained_cfg_overlay=size, **arguments), seed)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "model.safetensors")
    config = {**UNI_LIKE, **case.config}
    facts = {"architecture": case.model, "num_classes": case.head, "num_features": network.num_features}
    nested = {**facts, "global_pool": "token", "model_args": dict(case.arguments), "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps({**facts, **config} if case.flat else nested))
    return folder


def of_timm(folder: Path, patches: NDArray[np.uint8], **options: Any) -> torch.Tensor:
    """What timm's own network gives for patches that went through its own transform."""
    network = timm.create_model(f"local-dir:{folder}", pretrained=True, **{"num_classes": 0, **options}).eval()
    transform = create_transform(**resolve_data_config(network.pretrained_cfg, model=network))
    with torch.inference_mode():
        output: torch.Tensor = network(torch.stack([transform(Image.fromarray(patch)) for patch in patches]))
    return output


@pytest.mark.parametrize("name", CASES)
def test_the_features_are_timms_own(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    folder = write_folder(case, tmp_path)
    patches = tissue_patches(5, 256)
    plan = plan_encoder("hf-hub:someone/model", weights=folder, patch_px=256)
    assert (plan.info.input_px, plan.info.feature) == (case.side, case.said)
    features = plan.open("cpu", "fp32").encode(patches)
    expected = case.pool(of_timm(folder, patches)).numpy()
    assert features.shape == expected.shape
    assert_same_direction(features, expected, 0.999)
    assert f"feature: {case.said}" in plan.about()
    by_path = plan_encoder(str(folder), patch_px=256)
    assert by_path.fingerprint == plan.fingerprint


CONVNEXT = Case("test_convnext", {}, sized(160, crop_pct=0.95, classifier="head.fc"))


def test_convolutions_take_patches_as_they_are_and_the_models_own_size_when_asked(tmp_path: Path) -> None:
    folder, patches = write_folder(CONVNEXT, tmp_path), tissue_patches(4, 256)
    free = plan_encoder(str(folder), patch_px=256)
    assert (free.info.input_px, free.info.resize_px) == (256, None)
    with torch.inference_mode():
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
        images = (patches / 255.0 - np.array(free.info.mean)) / np.array(free.info.std)
        whole = network(torch.from_numpy(images).permute(0, 3, 1, 2).float()).numpy()
    assert_same_direction(free.open("cpu", "fp32").encode(patches), whole, 0.9999)
    for options in ({"input_px": 160, "patch_px": 256}, {}):
        own = plan_encoder(str(folder), **options)  # type: ignore[arg-type]
        assert (own.info.input_px, own.info.resize_px) == (160, 168)
        assert_same_direction(own.open("cpu", "fp32").encode(patches), of_timm(folder, patches).numpy(), 0.999)


@pytest.mark.parametrize("name", ["as UNI", "not dynamic", "EVA", "rotary DINOv3", "Swin"])
def test_another_size_is_taken_when_asked(name: str, tmp_path: Path) -> None:
    """timm's own way to another size: built for it, position embeddings resampled when the weights are loaded."""
    side = {"EVA": 126, "Swin": 256}.get(name, 128)
    folder, patches = write_folder(CASES[name], tmp_path), tissue_patches(4, 256)
    plans = [plan_encoder(str(folder), patch_px=256, input_px=asked) for asked in (None, side)]
    assert plans[1].info.input_px == side
    assert plans[0].fingerprint != plans[1].fingerprint
    network = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0, img_size=side).eval()
    transform = create_transform(**resolve_data_config({"img_size": side}, network.pretrained_cfg))
    with torch.inference_mode():
        expected = network(torch.stack([transform(Image.fromarray(patch)) for patch in patches])).numpy()
    assert_same_direction(plans[1].open("cpu", "fp32").encode(patches), expected, 0.999)


@pytest.mark.parametrize(
    ("name", "side", "said"),
    [
        ("as UNI", 100, r"100 x 100: .*\n.*own size, 96, or name a multiple of 16"),
        ("patch 14 at 518", 256, r"256 x 256: .*\n.*own size, 518, or name a multiple of 14"),
        ("CoAtNet", 100, r"100 x 100: .*\n.*own size, 160"),
        ("attention of halos", 300, r"300 x 300: .*\n.*own size, 256"),
        ("DeepSeek", 100, r"100 x 100: "),
    ],
)
def test_a_size_that_does_not_go_is_refused(name: str, side: int, said: str, tmp_path: Path) -> None:
    folder = write_folder(CASES[name], tmp_path)
    with pytest.raises(EncoderError, match=f"does not take images of {said}"):
        plan_encoder(str(folder), input_px=side)


@pytest.mark.parametrize(("model", "side"), [("deepseek_vit_412m", 256), ("halonet26t", 300)])
def test_models_of_the_list_keep_their_own_size(model: str, side: int) -> None:
    config = timm.get_pretrained_cfg(model)
    assert config is not None
    assert plan_encoder(model, patch_px=side).info.input_px == config.input_size[-1]


def test_the_whole_patch_is_shown_when_asked(tmp_path: Path) -> None:
    case = CASES["crop .9, bicubic"]
    folder, patches = write_folder(case, tmp_path), tissue_patches(4, 256)
    cut, whole = (plan_encoder(str(folder), patch_px=256, whole_patch=asked) for asked in (False, True))
    assert (cut.info.resize_px, whole.info.resize_px) == (106, None)
    assert cut.fingerprint != whole.fingerprint
    assert any("central 96 px are seen (82 % of the area)" in line for line in cut.about())
    assert not any("central" in line for line in whole.about())
    facts = json.loads((folder / "config.json").read_text())
    facts["pretrained_cfg"]["crop_pct"] = 1.0
    features = whole.open("cpu", "fp32").encode(patches)
    (folder / "config.json").write_text(json.dumps(facts))
    assert_same_direction(features, of_timm(folder, patches).numpy(), 0.999)


@pytest.mark.parametrize(
    ("config", "arguments", "said"),
    [
        (sized(96, crop_pct=3), {}, "crop_pct must be between"),
        (sized(96, crop_pct="x"), {}, "crop_pct must be between"),
        (sized(96, crop_mode="middle"), {}, "crop_mode must be center, squash or border"),
        (sized(96, interpolation="random"), {}, "interpolation must be one of bilinear"),
        ({"input_size": [3, 96, 128]}, {}, "takes images of 128 x 96, and patches are square"),
        ({"input_size": [1, 96, 96]}, {}, "does not take RGB images"),
        (sized(96), {"in_chans": 1}, "does not take RGB images"),
        ({"input_size": 96}, {}, r"input_size must be \[3, S, S\], got 96"),
        (sized(96, std=[1, 2]), {}, "mean or std is"),
        (sized(96), {"nonsense": 3}, "cannot be built: .*nonsense"),
        (sized(96), {"checkpoint_path": "x.pth"}, "model_args may not set checkpoint_path"),
        (sized(96), {"features_only": True}, "model_args may not set features_only"),
        (sized(96), {"mlp_layer": "Nothing"}, "there is no mlp_layer Nothing"),
    ],
)
def test_what_cannot_be_read_right_is_refused(
    config: dict[str, Any], arguments: dict[str, Any], said: str, tmp_path: Path
) -> None:
    facts = {
        "architecture": "vit_tiny_patch16_224", "model_args": {**SMALL_VIT, **arguments},
        "pretrained_cfg": {**UNI_LIKE, **config},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(facts))
    with pytest.raises(EncoderError, match=said):
        plan_encoder(str(tmp_path))


def test_pickled_weights_are_named_when_there_are_no_others(tmp_path: Path) -> None:
    folder = write_folder(CASES["as UNI"], tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"has pytorch_model\.bin but no model\.safetensors.*\n.*weights_only=True"):
        open_encoder(str(folder), device="cpu")


@pytest.mark.parametrize(
    ("name", "option", "said"),
    [
        ("colour", {"input_px": 224}, "--input-px applies only to timm models"),
        ("vit-mini", {"whole_patch": True}, "--whole-patch applies only to timm and transformers models"),
        ("facebook/dinov2-small", {"input_px": 224}, "--input-px applies only to timm models"),
    ],
)
def test_other_families_refuse_what_is_for_timm(name: str, option: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        plan_encoder(name, **option)


VIRCHOW2 = {
    "img_size": 56, "patch_size": 14, "embed_dim": 32, "depth": 2, "num_heads": 2, "mlp_ratio": 5.3375,
    "init_values": 1e-5, "reg_tokens": 4, "global_pool": "", "dynamic_img_size": True,
}  # fmt: skip
H0_MINI = {**VIRCHOW2, "mlp_ratio": 5.33334}
VIRCHOW = {key: value for key, value in VIRCHOW2.items() if key != "reg_tokens"}


@pytest.mark.parametrize(
    ("repo", "arguments", "dim", "said"),
    [
        ("paige-ai/Virchow", VIRCHOW, 64, "class token + mean of 16 patch tokens"),
        ("paige-ai/Virchow2", VIRCHOW2, 64, "class token + mean of 16 patch tokens, 4 register tokens left out"),
        ("bioptimus/H0-mini", H0_MINI, 32, "class token"),
    ],
)
def test_published_models_give_their_published_feature(
    repo: str, arguments: dict[str, Any], dim: int, said: str, tmp_path: Path
) -> None:
    """As their cards make it: SwiGLU layers with SiLU, class token, patch tokens behind the prefix tokens."""
    layers = {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    network = randomise(timm.create_model("vit_huge_patch14_224", num_classes=0, **arguments, **layers), 0)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, tmp_path / "model.safetensors")
    facts = {
        "architecture": "vit_huge_patch14_224", "num_classes": 0, "model_args": arguments,
        "pretrained_cfg": {**UNI_LIKE, **sized(56)},
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(facts))
    patches = tissue_patches(4, 256)
    plan = plan_encoder(f"hf-hub:{repo}", weights=tmp_path, patch_px=256)
    assert (plan.info.input_px, plan.info.dim, plan.info.feature) == (56, dim, said)
    assert f"feature: {said}" in plan.about()
    tokens = of_timm(tmp_path, patches, **layers)
    parts = [tokens[:, 0], tokens[:, 1 + arguments.get("reg_tokens", 0) :].mean(dim=1)]
    expected = torch.cat(parts[: dim // 32], dim=1).numpy()
    assert_same_direction(plan.open("cpu", "fp32").encode(patches), expected, 0.999)


def test_gigapath_is_cut_as_its_authors_cut(tmp_path: Path) -> None:
    facts = {"architecture": "test_vit", "model_args": {"img_size": 224}, "pretrained_cfg": {**UNI_LIKE, **sized(224)}}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    plan = plan_encoder("hf-hub:prov-gigapath/prov-gigapath", weights=tmp_path, patch_px=256)
    assert (plan.info.resize_px, plan.info.input_px) == (256, 224)


def test_fingerprints_of_features_that_stay_the_same_stay_the_same(tmp_path: Path) -> None:
    """What earlier versions made rightly is not made again: the digest has then no other parts than it had."""
    folder = write_folder(CASES["fixed, size in the arguments"], tmp_path)
    plan = plan_encoder(str(folder), patch_px=256)
    before = digest_of(
        model="vit_tiny_patch16_224", arguments={key: str(value) for key, value in SMALL_VIT.items()},
        packed_swiglu=False, input_px=96, mean=plan.info.mean, std=plan.info.std, interpolation="bilinear",
        tensors=hash_tensors([folder / "model.safetensors"]),
    )  # fmt: skip
    assert plan.fingerprint == before
    facts = json.loads((folder / "config.json").read_text())
    facts["pretrained_cfg"]["crop_pct"] = 0.9
    (folder / "config.json").write_text(json.dumps(facts))
    assert plan_encoder(str(folder), patch_px=256).fingerprint != before


def test_other_pooling_has_another_fingerprint(tmp_path: Path) -> None:
    """Before, a network without class token gave its first register, and Swin without pooling rows of positions."""
    for name in ("registers but no class token, no pooling", "Swin without pooling"):
        folder = tmp_path / name
        folder.mkdir()
        write_folder(CASES[name], folder)
        plan = plan_encoder(str(folder), patch_px=256)
        before = digest_of(
            model=CASES[name].model, arguments={key: str(value) for key, value in CASES[name].arguments.items()},
            packed_swiglu=False, input_px=plan.info.input_px, mean=plan.info.mean, std=plan.info.std,
            interpolation="bilinear", tensors=hash_tensors([folder / "model.safetensors"]),
        )  # fmt: skip
        assert plan.fingerprint != before
