"""Networks of transformers: weights complete and nothing over, one row an image, the same every time."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from encoder_files import randomise
from hf_families import BOTH, FAMILIES, TEXT, VIT, save_family
from PIL import Image
from suites.encoder_contract import EncoderCase, EncoderContract, tissue_patches

from wsi_pipeline.encoders.hf_models.hf_network import measure
from wsi_pipeline.encoders.names import open_encoder, plan_encoder
from wsi_pipeline.errors import EncoderError

SMALL = {**VIT, "image_size": 64, "patch_size": 16}
MAE = {**SMALL, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2,
       "decoder_intermediate_size": 32}  # fmt: skip


def saved(folder: Path, network: Any, config: Any = None) -> str:
    """A folder with the network's weights and its config, or another one."""
    randomise(network, 0).save_pretrained(folder)
    if config is not None:
        config.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", "size": 64})
    )
    return str(folder)


class _Family(EncoderContract):
    kind = ""

    @pytest.fixture(scope="class")
    def case(self, tmp_path_factory: pytest.TempPathFactory) -> EncoderCase:
        places = [tmp_path_factory.mktemp(self.kind) / "model" for _ in range(2)]
        first, second = (save_family(place, self.kind, seed) for seed, place in enumerate(places))
        return EncoderCase(plan=lambda: plan_encoder(str(first)), other=lambda: plan_encoder(str(second)))


class TestMaskedAutoencoder(_Family):
    kind = "vit_mae"


class TestFlava(_Family):
    kind = "flava"


@pytest.mark.parametrize("kind", ["vit_mae", "flava", "cvt", "radio", "textnet", "mobilevit", "sam2_hiera_det_model"])
def test_the_row_of_an_image_is_the_models_own(tmp_path: Path, kind: str) -> None:
    folder = save_family(tmp_path, kind)
    patches = tissue_patches(3, 256)
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    pixels = processor(images=[Image.fromarray(patch) for patch in patches], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = FAMILIES[kind].read(network, pixels).numpy()
    features = open_encoder(str(folder), device="cpu", precision="fp32").encode(patches)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_a_masked_autoencoder_sees_all_patches(tmp_path: Path) -> None:
    """A change in any one patch of the image changes the feature; with three quarters masked, most do not."""
    encoder = open_encoder(saved(tmp_path, transformers.ViTMAEModel(transformers.ViTMAEConfig(**MAE))), device="cpu",
                           precision="fp32")  # fmt: skip
    patches = np.repeat(tissue_patches(3, 64)[2:], 17, axis=0)
    for index in range(16):
        row, column = 16 * (index // 4), 16 * (index % 4)
        patches[index + 1, row : row + 16, column : column + 16] //= 2
    features = encoder.encode(patches)
    assert (np.abs(features[1:] - features[0]).max(axis=1) > 1e-4).all()


LEFT_OUT: dict[str, Any] = {
    "classifier": lambda: (transformers.ViTForImageClassification(transformers.ViTConfig(**SMALL)), None),
    "masked images": lambda: (transformers.ViTForMaskedImageModeling(transformers.ViTConfig(**SMALL)), None),
    "autoencoder": lambda: (transformers.ViTMAEForPreTraining(transformers.ViTMAEConfig(**MAE)), None),
    "segmenter": lambda: (transformers.SegformerForSemanticSegmentation(transformers.SegformerConfig()), None),
    "text tower": lambda: (
        transformers.CLIPModel(transformers.CLIPConfig(text_config=TEXT, vision_config=SMALL)),
        transformers.CLIPVisionConfig(**SMALL),
    ),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_heads_decoders_and_text_towers_are_left_out(
    tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    network, config = LEFT_OUT[kind]()
    with caplog.at_level(logging.INFO, "wsi_pipeline"):
        features = open_encoder(saved(tmp_path, network, config), device="cpu").encode(tissue_patches(3, 64))
    assert np.isfinite(features).all()
    assert "left out tensors that are not part of the encoder" in caplog.text


def vit(layers: int) -> Any:
    return transformers.ViTConfig(**{**SMALL, "num_hidden_layers": layers})


def resnet(depth: int) -> Any:
    return transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, depth])


def clip(layers: int) -> Any:
    return transformers.CLIPConfig(**{**BOTH, "vision_config": {**SMALL, "num_hidden_layers": layers}})


@pytest.mark.parametrize(
    ("network", "config"),
    [
        (lambda: transformers.ViTModel(vit(4)), vit(2)),
        (lambda: transformers.ViTForImageClassification(vit(4)), vit(2)),
        (lambda: transformers.ResNetModel(resnet(3)), resnet(1)),
        (lambda: transformers.ResNetForImageClassification(resnet(3)), resnet(1)),
        (lambda: transformers.CLIPModel(clip(3)), clip(1)),
    ],
    ids=["vit", "vit classifier", "resnet", "resnet classifier", "clip"],
)
def test_more_layers_than_the_config_has_are_refused(tmp_path: Path, network: Any, config: Any) -> None:
    folder = saved(tmp_path, network(), config)
    with pytest.raises(EncoderError, match=r"\d+ tensors more than the config has \(.*layers?\.\d"):
        open_encoder(folder, device="cpu")


def test_fewer_layers_than_the_config_has_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, transformers.ViTModel(vit(2)), vit(4))
    with pytest.raises(EncoderError, match="32 tensors missing or of another shape"):
        open_encoder(folder, device="cpu")


@pytest.mark.parametrize(
    ("model_type", "config", "said"),
    [
        ("detr", {"use_timm_backbone": False, "backbone_config": resnet(1), "backbone": None},
         "set of detected objects"),
        ("llava", {"vision_config": {"model_type": "clip_vision_model", **SMALL},
                   "text_config": {"model_type": "llama", **TEXT}}, "many vectors per image"),
        ("videomae", {**SMALL, "num_frames": 2}, "does not turn images into features"),
        ("bert", TEXT, "does not turn images into features"),
        ("siglip2", {"text_config": TEXT}, "siglip2 .*does not turn images into features"),
    ],
)  # fmt: skip
def test_models_without_one_row_an_image_are_refused(model_type: str, config: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        measure(transformers.AutoConfig.for_model(model_type, **config), [64])


def test_networks_that_draw_random_numbers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A masked autoencoder whose patches nobody puts in order stands for any other."""
    monkeypatch.setattr("wsi_pipeline.encoders.hf_models.hf_network._fixed_order", lambda network, images: {})
    with pytest.raises(EncoderError, match=r"draws random numbers \(rand\)"):
        measure(transformers.ViTMAEConfig(**MAE), [64])


def test_only_what_changed_changes_the_fingerprint(tmp_path: Path) -> None:
    """Features of models that were read right before stay up to date."""
    folder = saved(tmp_path, transformers.ViTModel(vit(2)))
    plan: Any = plan_encoder(folder)
    assert plan._pre.beyond_the_usual() == {}
    assert plan._new == ""
    mae: Any = plan_encoder(saved(tmp_path / "mae", transformers.ViTMAEModel(transformers.ViTMAEConfig(**MAE))))
    assert mae._new == "all patches"
