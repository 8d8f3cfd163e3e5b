"""Image processors of transformers: their own pixels, whatever their files leave out or add, or a refusal by name."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from suites.encoder_contract import tissue_patches

from wsi_pipeline.encoders.encoder import EncoderInfo
from wsi_pipeline.encoders.hf_models.hf_processor import Preprocessing, read_processor
from wsi_pipeline.encoders.torch_encoder import prepare
from wsi_pipeline.errors import EncoderError

FILES: list[dict[str, Any]] = [
    {"image_processor_type": "ViTImageProcessor"},
    {"image_processor_type": "ViTImageProcessor", "size": 96},
    {"image_processor_type": "ViTImageProcessor", "size": {"height": 96, "width": 96}, "resample": 3},
    {"image_processor_type": "ViTImageProcessor", "do_rescale": False},
    {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
    {"image_processor_type": "ViTImageProcessor", "do_rescale": False, "do_normalize": False},
    {"image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.9, 0.8]},
    {"image_processor_type": "ViTImageProcessor", "resample": 0, "size": 100},
    {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 96, "width": 96}},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": 112, "resample": 2},
    {"image_processor_type": "CLIPImageProcessor"},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 120}, "crop_size": 96},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 107}, "crop_size": 96},
    {"image_processor_type": "CLIPImageProcessor", "size": 112, "do_center_crop": False},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 96, "width": 96}},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 256}, "image_std": [0.2, 0.3, 0.4]},
    {"image_processor_type": "ConvNextImageProcessor", "size": 224, "crop_pct": 0.875},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 96}, "crop_pct": 0.95},
    {"image_processor_type": "ConvNextImageProcessor"},
    {"image_processor_type": "PoolFormerImageProcessor", "crop_pct": 0.95},
    {"image_processor_type": "LevitImageProcessor"},
    {"image_processor_type": "DeiTImageProcessor"},
    {"image_processor_type": "MobileNetV2ImageProcessor"},
    {"image_processor_type": "MobileViTImageProcessor", "size": {"shortest_edge": 288}},
    {"image_processor_type": "MobileViTImageProcessor", "do_flip_channel_order": False},
    {"image_processor_type": "MobileViTImageProcessor"},
    {"image_processor_type": "MobileViTImageProcessor", "do_normalize": True, "image_mean": [0.1, 0.5, 0.9]},
    {"image_processor_type": "EfficientNetImageProcessor"},
    {"image_processor_type": "EfficientNetImageProcessor", "include_top": False, "resample": 0},
    {"image_processor_type": "EfficientNetImageProcessor", "rescale_offset": True, "rescale_factor": 1 / 127.5},
    {"image_processor_type": "EfficientNetImageProcessor", "do_center_crop": True},
    {"image_processor_type": "SegformerImageProcessor", "size": 128, "do_reduce_labels": True},
    {"image_processor_type": "DINOv3ViTImageProcessor"},
]


def written(folder: Path, facts: dict[str, Any] | None, nested: dict[str, Any] | None = None) -> dict[str, Path | None]:
    """A folder as people have them, and its files by the names of `read_processor`."""
    (folder / "config.json").write_text('{"model_type": "vit"}')
    files = {
        "plain": (folder / "preprocessor_config.json", facts),
        "nested": (folder / "processor_config.json", nested),
    }
    for path, content in files.values():
        if content is not None:
            path.write_text(json.dumps(content))
    return {name: path if content is not None else None for name, (path, content) in files.items()}


def read(folder: Path, facts: dict[str, Any] | None, nested: dict[str, Any] | None = None) -> Preprocessing:
    return read_processor("some/model", folder / "config.json", start_px=224, **written(folder, facts, nested))


def ours(pre: Preprocessing, patches: np.ndarray) -> np.ndarray:
    info = EncoderInfo("test", "huggingface", pre.side, None, pre.mean, pre.std, 1, pre.interpolation,
                       resize_px=pre.resize_px, corner_px=pre.corner_px)  # fmt: skip
    return prepare(patches, info, torch.device("cpu"))[:, list(pre.order)].numpy()


def theirs(folder: Path, patches: np.ndarray) -> np.ndarray:
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    images = [Image.fromarray(patch) for patch in patches]
    return processor(images=images, return_tensors="pt")["pixel_values"].float().numpy()


@pytest.mark.parametrize("facts", FILES, ids=lambda facts: ",".join(map(str, facts.values())))
def test_the_pixels_are_those_of_the_processor(tmp_path: Path, facts: dict[str, Any]) -> None:
    pre = read(tmp_path, facts)
    step = 1 / 255 / np.array(pre.std)[list(pre.order)][None, :, None, None]
    rounded = "DINOv3" in str(facts)
    for side in (pre.side or 0, 256, 150):
        patches = tissue_patches(3, side)
        apart = np.abs(ours(pre, patches) - theirs(tmp_path, patches)) / step
        assert apart.max() < (1.1 if rounded else 1e-3), side


def test_values_that_the_file_leaves_out_are_those_of_its_class(tmp_path: Path) -> None:
    pre = read(tmp_path, {"image_processor_type": "ViTImageProcessor"})
    assert pre == Preprocessing(224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    assert pre.beyond_the_usual() == {}


def test_a_file_without_a_type_is_read_by_the_class_of_the_model(tmp_path: Path) -> None:
    assert read(tmp_path, {"size": 96}) == Preprocessing(96, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")


def test_the_channels_of_a_flip_are_in_the_fingerprint(tmp_path: Path) -> None:
    pre = read(tmp_path, {"image_processor_type": "MobileViTImageProcessor", "size": 288})
    assert (pre.side, pre.mean, pre.std) == (256, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert pre.beyond_the_usual() == {"order": (2, 1, 0), "resize_px": 288, "corner_px": 16}


def test_the_nested_processor_comes_first(tmp_path: Path) -> None:
    nested = {"image_processor": {"image_processor_type": "CLIPImageProcessor"}, "processor_class": "CLIPProcessor"}
    pre = read(tmp_path, {"image_processor_type": "ViTImageProcessor"}, nested)
    assert pre.mean == (0.48145466, 0.4578275, 0.40821073)
    assert read(tmp_path, None, nested) == pre


def test_a_processor_config_without_images_is_passed_over(tmp_path: Path) -> None:
    pre = read(tmp_path, {"image_processor_type": "ViTImageProcessor"}, {"processor_class": "CLIPProcessor"})
    assert pre.mean == (0.5, 0.5, 0.5)


def test_without_a_file_imagenet_is_assumed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "wsi_pipeline"):
        assert read(tmp_path, None).mean == (0.485, 0.456, 0.406)
    assert "has no preprocessor_config.json" in caplog.text


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"image_processor_type": "PerceiverImageProcessor"}, "PerceiverImageProcessor.*crop_size height=256"),
        ({"image_processor_type": "Swin2SRImageProcessor"}, "do_pad True"),
        ({"image_processor_type": "Siglip2ImageProcessor"}, r"come out as \(1, 256, 768\)"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, r"come out as \(1, 7, 3, 224, 224\)"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, r"come out as \(256, 1176\)"),
        ({"image_processor_type": "NougatImageProcessor"}, "672 x 896 pixels of a square patch"),
        ({"image_processor_type": "ViTImageProcessor", "size": {"height": 96, "width": 64}}, "64 x 96 pixels"),
        ({"image_processor_type": "ViTImageProcessor", "resample": 9}, "ViTImageProcessor"),
        ({"image_processor_type": "ViTImageProcessor", "rescale_factor": -1.0}, "inverts brightness"),
        ({"image_processor_type": "CLIPImageProcessor", "do_resize": False}, "do_resize False"),
        ({"image_processor_type": "SomebodysProcessor"}, "cannot build its image processor SomebodysProcessor"),
        ({"auto_map": {"AutoImageProcessor": "code.Own"}}, r"image processor needs custom code \(code\.Own\)"),
        (
            {"auto_map": {"AutoImageProcessor": "code.Own"}, "image_processor_type": "Own"},
            "cannot build its image processor Own",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(tmp_path: Path, facts: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderError, match=said):
        read(tmp_path, facts)
