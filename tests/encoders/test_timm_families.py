"""One small model of every family of timm, on patches of 224, 256 and 512 pixels, against timm's own features.

`docs/encoders.md` holds the table; a row that differs from what is found fails, with the right row in the message.
"""

from __future__ import annotations

import logging
import re
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

from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.encoders.timm_models.timm_input import has_positions
from wsi_pipeline.errors import EncoderError

DOCUMENT = Path(__file__).parents[2] / "docs" / "encoders.md"
SIDES = (224, 256, 512)
SMALLEST = {
    "beit": "beit_base_patch16_224",
    "byoanet": "halonet_h1",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
    "deit": "deit_tiny_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "mobilenetv2_035",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "vit_tiny_patch16_dinov3_qkvb",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_b",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_300m",
    "mobilevit": "mobilevit_xxs",
    "mvitv2": "mvitv2_tiny",
    "naflexvit": "naflexvit_base_patch16_parfac_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pit": "pit_ti_224",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2next50",
    "resnest": "resnest14d",
    "resnet": "resnet10t",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p",
    "xcit": "xcit_nano_12_p8_224",
}
"""The smallest model of each family (a module of timm.models) of timm 1.0.31."""
TOO_LARGE = {"deepseek_vit", "mobilenetv5", "gemma4_vit"}
"""Families whose smallest model has hundreds of millions of parameters: planned, but not run."""


def families() -> list[str]:
    """Those of the installed timm."""
    return sorted(timm.list_modules())


def model_of(family: str) -> str:
    """The smallest model of a family as far as it is known, else the first by name."""
    models: list[str] = timm.list_models(module=family)
    known = SMALLEST.get(family, "")
    return known if known in models else models[0]


def row_of(family: str) -> str:
    """The line of the table: what is fed for patches of each size, what --input-px takes, and the feature."""
    model = model_of(family)
    plans = [plan_encoder(model, patch_px=512)]
    bound = plans[0].info.input_px != 512
    plans += plans * 2 if bound else [plan_encoder(model, patch_px=side) for side in (256, 224)]
    fed = [plan.info.input_px if plan.info.resize_px is None else f"{plan.info.resize_px}/{plan.info.input_px}"
           for plan in reversed(plans)]  # fmt: skip
    taken = [str(side) for side in SIDES if _takes(model, side)]
    feature = re.sub(r"of (\d+ x )?\d[\d ,]* ", "of ", plans[1].info.feature)  # `of 2 304 patch tokens`
    return f"| {family} | `{model}` | {' | '.join(map(str, fed))} | {', '.join(taken) or 'none'} | {feature} |"


def _takes(model: str, side: int) -> bool:
    try:
        return plan_encoder(model, patch_px=256, input_px=side).info.input_px == side
    except EncoderError as error:
        if f"does not take images of {side} x {side}" not in error.what:
            raise
        return False


def of_timm(network: torch.nn.Module, patches: NDArray[np.uint8], as_they_are: bool) -> NDArray[np.float32]:
    """Features of timm's own network, through its own transform or only normalised."""
    config = resolve_data_config(network.pretrained_cfg, model=network)
    if as_they_are:
        config |= {"input_size": (3, *patches.shape[1:3]), "crop_pct": 1.0}
    transform = create_transform(**config)
    with torch.inference_mode():
        output = network(torch.stack([transform(Image.fromarray(patch)) for patch in patches]))
    return output.numpy()


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("timm").setLevel(logging.ERROR)


@pytest.mark.slow
@pytest.mark.parametrize("family", families())
def test_a_family_gives_timms_own_features(family: str, tmp_path: Path) -> None:
    """Two passes are equal to the bit, and equal to timm's, at every size of patch."""
    if family in TOO_LARGE:
        pytest.skip("hundreds of millions of parameters")
    model, path = model_of(family), tmp_path / "model.safetensors"
    network = randomise(timm.create_model(model, num_classes=0), 0)
    save_file({key: value.contiguous().clone() for key, value in network.state_dict().items()}, path)
    done: set[tuple[Any, ...]] = set()
    for side in SIDES:
        plan = plan_encoder(model, weights=path, patch_px=side)
        own = plan.info.resize_px, plan.info.input_px
        if own in done:
            continue
        done.add(own)
        encoder, patches = plan.open("cpu", "fp32"), tissue_patches(3, side)[1:]
        features = encoder.encode(patches)
        np.testing.assert_array_equal(encoder.encode(patches), features)
        as_they_are = plan.info.resize_px is None and plan.info.input_px == side
        assert_same_direction(features, of_timm(network, patches, as_they_are), 0.995)


@pytest.mark.slow
@pytest.mark.parametrize("family", families())
def test_the_table_says_what_is_found(family: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    if f"timm {timm.__version__}" not in text:
        row_of(family)  # refused or taken, whatever the version
        pytest.skip("the table is of another version of timm")
    assert row_of(family) in text.splitlines()


@pytest.mark.parametrize(
    ("model", "bound"),
    [
        ("test_vit", True), ("test_vit_relpos", True), ("vit_tiny_patch16_dinov3_qkvb", True), ("halonet26t", True),
        ("lambda_resnet26rpt_256", True), ("resnet50_clip", True), ("edgenext_xx_small", True),
        ("tiny_vit_5m_224", True),
        ("resnet10t", False), ("test_convnext", False), ("mobilevit_xxs", False), ("davit_tiny", False),
    ],
)  # fmt: skip
def test_networks_that_know_where_they_look_are_told_from_others(model: str, bound: bool) -> None:
    with torch.device("meta"):
        assert has_positions(timm.create_model(model)) == bound


def test_a_known_family_is_still_there() -> None:
    assert "vision_transformer" in families()
    assert model_of("vision_transformer") == "test_vit"
