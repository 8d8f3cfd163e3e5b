"""MUSK's image branch, small, against its equations written out in double precision from a file in published names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.special import erf, softmax

from wsi_pipeline.encoders.zoo.facts import presets
from wsi_pipeline.encoders.zoo.plan_layout import LayoutPlan
from wsi_pipeline.encoders.zoo.zoo_weights import load_published

Array = NDArray[np.float64]
WIDTH, HEADS, DEPTH, PATCH, SIDE = 12, 3, 2, 4, 8


def published() -> dict[str, torch.Tensor]:
    """The tensors of the authors' MUSK: experts A for images and B for text, heads, and a mask token."""
    shapes: dict[str, tuple[int, ...]] = {"encoder.layer_norm": (WIDTH,)}
    for number in range(DEPTH):
        layer = f"encoder.layers.{number}"
        shapes |= {f"{layer}.self_attn.{part}_proj": (WIDTH, WIDTH) for part in ("q", "k", "v", "out")}
        shapes |= {f"{layer}.self_attn.inner_attn_ln": (WIDTH,), f"{layer}.self_attn_layer_norm": (WIDTH,)}
        shapes |= {f"{layer}.final_layer_norm": (WIDTH,), f"{layer}.ffn": (4 * WIDTH, WIDTH)}
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}

    def add(name: str, *shape: int) -> None:
        tensors[f"beit3.{name}"] = torch.randn(shape, generator=generator) * 0.5

    for expert in "AB":
        for name, shape in shapes.items():
            if name.endswith("ffn"):
                add(f"{name}.{expert}.fc1.weight", 4 * WIDTH, WIDTH)
                add(f"{name}.{expert}.fc1.bias", 4 * WIDTH)
                add(f"{name}.{expert}.ffn_layernorm.weight", 4 * WIDTH)
                add(f"{name}.{expert}.ffn_layernorm.bias", 4 * WIDTH)
                add(f"{name}.{expert}.fc2.weight", WIDTH, 4 * WIDTH)
                add(f"{name}.{expert}.fc2.bias", WIDTH)
            else:
                add(f"{name}.{expert}.weight", *shape)
                add(f"{name}.{expert}.bias", WIDTH)
    add("encoder.embed_positions.A.weight", 3 + (SIDE // PATCH) ** 2, WIDTH)
    add("encoder.embed_positions.B.weight", 9, WIDTH)
    add("text_embed.weight", 7, WIDTH)
    for name in ("cls_token", "mask_token"):
        add(f"vision_embed.{name}", 1, 1, WIDTH)
    add("vision_embed.proj.weight", WIDTH, 3, PATCH, PATCH)
    add("vision_embed.proj.bias", WIDTH)
    heads = {f"{kind}_head.weight": torch.ones(WIDTH, WIDTH) for kind in ("vision", "language")}
    return {**tensors, **heads, "logit_scale": torch.ones(())}


def class_token(state: dict[str, Array], image: Array) -> Array:
    """The normalised class token, (WIDTH,), of one image (3, SIDE, SIDE)."""

    def linear(name: str, x: Array) -> Array:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def normed(name: str, x: Array) -> Array:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    kernel = state["beit3.vision_embed.proj.weight"].reshape(WIDTH, -1)
    cells = [(row, column) for row in range(0, SIDE, PATCH) for column in range(0, SIDE, PATCH)]
    patches = [kernel @ image[:, r : r + PATCH, c : c + PATCH].ravel() for r, c in cells]
    x = np.stack([state["beit3.vision_embed.cls_token"][0, 0], *patches])
    x[1:] += state["beit3.vision_embed.proj.bias"]
    x += state["beit3.encoder.embed_positions.A.weight"][2:]
    for number in range(DEPTH):
        name = f"beit3.encoder.layers.{number}"
        z = normed(f"{name}.self_attn_layer_norm.A", x)
        q, k, v = (linear(f"{name}.self_attn.{part}_proj.A", z).reshape(len(z), HEADS, -1) for part in "qkv")
        scores = softmax(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(WIDTH / HEADS), axis=2)
        mixed = normed(f"{name}.self_attn.inner_attn_ln.A", np.einsum("hij,jhd->ihd", scores, v).reshape(len(z), -1))
        x = x + linear(f"{name}.self_attn.out_proj.A", mixed)
        hidden = linear(f"{name}.ffn.A.fc1", normed(f"{name}.final_layer_norm.A", x))
        hidden = normed(f"{name}.ffn.A.ffn_layernorm", hidden * (1 + erf(hidden / np.sqrt(2))) / 2)
        x = x + linear(f"{name}.ffn.A.fc2", hidden)
    return normed("beit3.encoder.layer_norm.A", x[0])


@pytest.mark.parametrize("name", ["musk", "musk-multiscale"])
def test_musk_is_the_class_token_of_the_image_experts(name: str, tmp_path: Path) -> None:
    sizes = {"image_px": SIDE, "patch_px": PATCH, "width": WIDTH, "depth": DEPTH, "heads": HEADS}
    preset = presets()[name]
    preset = replace(preset, arguments={**preset.arguments, **sizes})
    tensors = published()
    save_file(tensors, tmp_path / "w.safetensors")
    network = LayoutPlan(preset, None).build()
    load_published(network, preset, tmp_path / "w.safetensors")
    state = {key: value.double().numpy() for key, value in tensors.items()}
    images = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = network(images).numpy()
    expected = np.stack([class_token(state, image) for image in images.double().numpy()])
    if name == "musk-multiscale":
        large = torch.nn.functional.interpolate(images, size=2 * SIDE, mode="bicubic").double().numpy()
        halves = (slice(0, SIDE), slice(SIDE, None))
        parts = [[class_token(state, image[:, r, c]) for r in halves for c in halves] for image in large]
        expected = np.concatenate([expected, np.mean(parts, axis=1)], axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(found[0] - found[1]).max() > 0.1
