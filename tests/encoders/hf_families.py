"""Small networks of the vision families of transformers, and by hand what the row of an image is for each.

`FAMILIES[model_type]` is (keyword arguments of the config, where the row is read from, image processor). Sizes are so
small that all of them build within minutes; images have the size that the processor's class has by default.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from encoder_files import randomise

Read = Callable[[Any, torch.Tensor], torch.Tensor]


def pooler(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network(pixel_values=images).pooler_output.flatten(1)


def class_token(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network(pixel_values=images).last_hidden_state[:, 0]


def tokens(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network(pixel_values=images).last_hidden_state.mean(1)


def maps(network: Any, images: torch.Tensor) -> torch.Tensor:
    return network(pixel_values=images).last_hidden_state.mean((2, 3))


def image(network: Any, images: torch.Tensor) -> torch.Tensor:
    given = network.get_image_features(pixel_values=images)
    return given if isinstance(given, torch.Tensor) else given.pooler_output


def all_patches(network: Any, images: torch.Tensor) -> torch.Tensor:
    """ViTMAE with nothing masked: in whatever order the patches come, the class token is the same."""
    network.config.mask_ratio = 0.0
    return network(pixel_values=images).last_hidden_state[:, 0]


@dataclass(frozen=True)
class Family:
    """How a small one is made; `processor` None: the class that transformers has for the model type."""

    read: Read
    config: dict[str, Any] = field(default_factory=dict)
    processor: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)


LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
VIT = {**LAYERS, "image_size": 224, "patch_size": 32}
TEXT = {**LAYERS, "vocab_size": 50}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
SWIN = {"embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2], "window_size": 7, "image_size": 224}
BOTH = {"text_config": TEXT, "vision_config": VIT, "projection_dim": 24}

FAMILIES: dict[str, Family] = {
    "aimv2": Family(image, BOTH),
    "aimv2_vision_model": Family(pooler, VIT),
    "align": Family(image, {"text_config": TEXT, "vision_config": {"depth_coefficient": 0.3, "width_coefficient": 0.3,
                                                                   "hidden_dim": 384}, "projection_dim": 24}),
    "altclip": Family(image, {**BOTH, "text_config": {**TEXT, "project_dim": 24}}),
    "beit": Family(pooler, VIT),
    "bit": Family(pooler, {"embedding_size": 8, "num_groups": 4, **STAGES}),
    "blip": Family(image, {**BOTH, "vision_config": {**VIT, "image_size": 384}}),
    "blip-2": Family(image, {"vision_config": {**VIT, "image_size": 384},
                             "qformer_config": {**TEXT, "encoder_hidden_size": 32}, "num_query_tokens": 4,
                             "text_config": {"model_type": "opt", "hidden_size": 32, "word_embed_proj_dim": 32,
                                             "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 32,
                                             "vocab_size": 50}}),
    "chinese_clip": Family(image, BOTH),
    "chinese_clip_vision_model": Family(pooler, VIT, "ChineseCLIPImageProcessor"),
    "clip": Family(image, BOTH),
    "clip_vision_model": Family(pooler, VIT, "CLIPImageProcessor"),
    "clipseg": Family(image, BOTH),
    "convnext": Family(pooler, STAGES),
    "convnextv2": Family(pooler, STAGES),
    "cvt": Family(lambda network, images: network(pixel_values=images).cls_token_value[:, 0],
                  {"embed_dim": [8, 16, 32], "num_heads": [1, 2, 4], "depth": [1, 2, 3]}),
    "data2vec-vision": Family(class_token, VIT),
    "deit": Family(pooler, VIT),
    "dinov2": Family(pooler, {**VIT, "mlp_ratio": 2}),
    "dinov2_with_registers": Family(pooler, {**VIT, "mlp_ratio": 2}, "BitImageProcessor"),
    "dinov3_convnext": Family(pooler, STAGES, "DINOv3ViTImageProcessor"),
    "dinov3_vit": Family(pooler, {**VIT, "num_register_tokens": 4}),
    "donut-swin": Family(pooler, SWIN, "DonutImageProcessor", {"size": {"height": 224, "width": 224}}),
    "dpt": Family(pooler, {**VIT, "image_size": 384, "backbone_out_indices": [0, 1, 1, 1],
                           "neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8}),
    "efficientnet": Family(pooler, {"depth_coefficient": 0.3, "width_coefficient": 0.3, "hidden_dim": 384}),
    "flava": Family(lambda network, images: image(network, images)[:, 0],
                    {"image_config": VIT, "text_config": TEXT, "multimodal_config": LAYERS, "hidden_size": 32,
                     "projection_dim": 24, "init_codebook": False}),
    "focalnet": Family(pooler, {"embed_dim": 8, "depths": [1, 1], "focal_levels": [1, 1], "focal_windows": [3, 3],
                                "hidden_sizes": [8, 16]}),
    "glpn": Family(maps, {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
                          "decoder_hidden_size": 8}),
    "groupvit": Family(image, {"text_config": TEXT, "vision_config": {**LAYERS, "depths": [1, 1, 0], "image_size": 224,
                               "patch_size": 32, "num_group_tokens": [8, 4, 0], "num_output_groups": [8, 4, 0]},
                               "projection_dim": 24, "projection_intermediate_dim": 32}),
    "hgnet_v2": Family(lambda network, images: network(pixel_values=images).feature_maps[-1].mean((2, 3)),
                       {}, "ViTImageProcessor"),
    "hiera": Family(pooler, {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "mask_ratio": 0.6,
                             "query_stride": [2, 2], "num_query_pool": 1, "masked_unit_size": [4, 4],
                             "masked_unit_attention": [True, False]}),
    "ijepa": Family(tokens, VIT),
    "internvl_vision": Family(class_token, {**VIT, "image_size": [224, 224], "patch_size": [32, 32]},
                              "CLIPImageProcessor"),
    "levit": Family(pooler, {"hidden_sizes": [16, 32, 48], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1],
                             "key_dim": [8, 8, 8]}),
    "maskformer-swin": Family(pooler, SWIN, "MaskFormerImageProcessor", {"size": {"height": 224, "width": 224}}),
    "metaclip_2": Family(image, BOTH),
    "mlcd": Family(pooler, {**VIT, "num_key_value_groups": 1}),
    "mobilenet_v1": Family(pooler, {"depth_multiplier": 0.25}),
    "mobilenet_v2": Family(pooler, {"depth_multiplier": 0.35}),
    "mobilevit": Family(pooler, {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [8, 8, 16, 24, 32, 32, 64]},
                        settings={"size": {"shortest_edge": 288}}),
    "mobilevitv2": Family(pooler, {"width_multiplier": 0.25}, settings={"size": {"shortest_edge": 288}}),
    "owlvit": Family(image, {**BOTH, "vision_config": {**VIT, "image_size": 768, "patch_size": 64}}),
    "pixio": Family(pooler, VIT),
    "poolformer": Family(maps, STAGES),
    "pvt": Family(class_token, {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
                                "num_attention_heads": [1, 2, 2, 4]}),
    "pvt_v2": Family(maps, {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1],
                            "num_attention_heads": [1, 2, 2, 4]}),
    "radio": Family(lambda network, images: network(pixel_values=images).summary, VIT, "CLIPImageProcessor"),
    "regnet": Family(pooler, {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "groups_width": 8}),
    "resnet": Family(pooler, {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    "sam2_hiera_det_model": Family(
        lambda network, images: network(pixel_values=images).last_hidden_state.mean((1, 2)),
        {"hidden_size": 8, "num_attention_heads": 1, "image_size": [256, 256], "blocks_per_stage": [1, 1, 1, 1],
         "embed_dim_per_stage": [8, 16, 32, 64], "num_attention_heads_per_stage": [1, 1, 2, 2],
         "global_attention_blocks": []}, "Sam2ImageProcessor", {"size": {"height": 256, "width": 256}}),
    "sam_vision_model": Family(maps, {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
                                      "image_size": 256, "output_channels": 24, "mlp_dim": 64,
                                      "global_attn_indexes": [1]}, "ViTImageProcessor",
                               {"size": {"height": 256, "width": 256}}),
    "segformer": Family(maps, {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1],
                               "num_attention_heads": [1, 1, 2, 2]}),
    "siglip": Family(image, {"text_config": TEXT, "vision_config": VIT}),
    "siglip_vision_model": Family(pooler, VIT, "SiglipImageProcessor"),
    "swiftformer": Family(maps, {"embed_dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "swin": Family(pooler, SWIN),
    "swinv2": Family(pooler, SWIN),
    "textnet": Family(lambda network, images: network(pixel_values=images).pooler_output.mean((2, 3)),
                      {"hidden_sizes": [8, 8, 8, 16, 16], "stem_out_channels": 8}),
    "timm_wrapper": Family(pooler, {"architecture": "test_vit", "model_args": {}, "pretrained_cfg": {
        "architecture": "test_vit", "input_size": [3, 160, 160], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.25],
        "interpolation": "bilinear", "crop_pct": 0.9, "num_classes": 0}}, "none"),
    "tipsv2": Family(image, {"text_config": TEXT, "vision_config": {**VIT, "image_size": 448}}),
    "vision-text-dual-encoder": Family(image, {"vision_config": {"model_type": "vit", **VIT},
                                               "text_config": {"model_type": "bert", **TEXT}, "projection_dim": 24},
                                       "ViTImageProcessor"),
    "vit": Family(pooler, VIT),
    "vit_mae": Family(all_patches, {**VIT, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1,
                                    "decoder_num_attention_heads": 2, "decoder_intermediate_size": 32}),
    "vit_msn": Family(class_token, VIT),
    "vitdet": Family(maps, VIT, "ViTImageProcessor"),
    "yolos": Family(pooler, {**VIT, "image_size": [224, 224]}, settings={"size": {"height": 224, "width": 224}}),
}  # fmt: skip


def processor_class(model_type: str) -> str | None:
    """Name of the image processor that transformers has for a model type."""
    from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

    known = IMAGE_PROCESSOR_MAPPING_NAMES.get(model_type) or {}
    return known.get("torchvision") or known.get("pil")


def save_family(folder: Path, model_type: str, seed: int = 0) -> Path:
    """A small model of the family with random tensors, and a processor's file that leaves everything to its class."""
    family = FAMILIES[model_type]
    config = transformers.AutoConfig.for_model(model_type, **family.config)
    network = randomise(transformers.AutoModel.from_config(config), seed)
    folder.mkdir(parents=True, exist_ok=True)
    network.save_pretrained(folder)
    name = family.processor or processor_class(model_type)
    if name != "none":
        facts = {"image_processor_type": name, **family.settings}
        (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder
