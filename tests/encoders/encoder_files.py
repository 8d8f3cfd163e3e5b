"""Small networks as real files: random tensors, saved and then loaded through --weights as a user's would be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import transformers
from safetensors.torch import save_file

TimmFile = Callable[..., Path]
HuggingFaceFolder = Callable[..., Path]


def randomise(network: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Fill every tensor with values that keep activations alive: fresh networks zero some branches out."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.copy_(1 + noise.abs())
            elif value.ndim > 1:
                value.copy_(noise / value[0].numel() ** 0.5)
            else:
                value.copy_(0.5 * noise + (1.0 if "weight" in name else 0.0))
    return network.eval()


def tiny_config(kind: str) -> Any:
    """Configuration of a tiny vision model of transformers."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    if kind == "vit":
        return transformers.ViTConfig(**sizes, image_size=64, patch_size=16)
    if kind == "dinov2":
        return transformers.Dinov2Config(**{**sizes, "mlp_ratio": 2}, image_size=70, patch_size=14)
    if kind == "convnext":
        return transformers.ConvNextConfig(hidden_sizes=[16, 32], depths=[1, 1], num_stages=2, image_size=64)
    if kind == "clip":
        vision = {**sizes, "image_size": 64, "patch_size": 16, "projection_dim": 24}
        text = {**sizes, "vocab_size": 50, "projection_dim": 24}
        return transformers.CLIPConfig(vision_config=vision, text_config=text, projection_dim=24)
    raise ValueError(kind)


def save_timm(path: Path, model: str, seed: int = 0, dtype: torch.dtype = torch.float32, **arguments: Any) -> Path:
    """A timm model with random tensors, classifier and all, as a safetensors file."""
    network = randomise(timm.create_model(model, pretrained=False, **arguments), seed)
    state = network.state_dict()
    save_file({key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}, path)
    return path


PROCESSOR = {
    "do_normalize": True,
    "image_mean": [0.7, 0.5, 0.6],
    "image_std": [0.2, 0.3, 0.25],
    "resample": 2,
    "do_center_crop": True,
    "size": {"shortest_edge": 80},
    "crop_size": {"height": 64, "width": 64},
}


def save_huggingface(folder: Path, kind: str, seed: int = 0, *, processor: bool = True, **options: Any) -> Path:
    """A tiny transformers model with random tensors and its image processor's config, as a folder."""
    network = randomise(transformers.AutoModel.from_config(tiny_config(kind)), seed)
    network.save_pretrained(folder, **options)
    if processor:
        (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    return folder
