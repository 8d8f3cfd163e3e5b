"""Presets beyond a network of timm: resampled positions, a part of a network, low-rank adapters, single colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from encoder_files import randomise
from safetensors.torch import save_file

from wsi_pipeline.encoders.timm_models.plan_timm import plan_preset as plan_timm_preset
from wsi_pipeline.encoders.zoo.facts import Preset, presets
from wsi_pipeline.encoders.zoo.plan_layout import LayoutPlan
from wsi_pipeline.encoders.zoo.zoo_weights import encoder_tensors, load_published

models: Any = timm.models


def features(preset: Preset, tensors: Mapping[str, torch.Tensor], images: torch.Tensor, folder: Path) -> torch.Tensor:
    """Of the network of a preset with the tensors of a published file."""
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, folder / "w.safetensors")
    network = LayoutPlan(preset, None).build()
    load_published(network, preset, folder / "w.safetensors")
    with torch.inference_mode():
        return torch.as_tensor(network(images))


def test_conch_for_madeleine_resamples_positions_once(tmp_path: Path) -> None:
    """Saved for 64 px and seen at 32: positions of a 4 x 4 grid become 2 x 2, bilinear, without antialiasing."""
    sizes = {"patch_px": 16, "width": 32, "depth": 1, "heads": 2, "dim": 24}
    small, large = (
        replace(presets()["conch-madeleine"], arguments={**sizes, "image_px": side}, input_px=side) for side in (32, 64)
    )
    network = randomise(LayoutPlan(large, None).build(), 3)
    tensors = {f"visual.{name}": value for name, value in network.state_dict().items()}
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = features(small, tensors, images, tmp_path)
    table = network.trunk.pos_embed
    grid = table[:, 1:].reshape(1, 4, 4, 32).permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(grid, size=(2, 2), mode="bilinear", antialias=False)
    tensors["visual.trunk.pos_embed"] = torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).reshape(1, 4, 32)], dim=1)
    assert torch.allclose(found, features(small, tensors, images, tmp_path), atol=1e-6)


def test_resnet_block3_is_timms_third_feature_map(tmp_path: Path) -> None:
    preset = replace(presets()["resnet50-imagenet"], arguments={"name": "resnet18"}, dim=256)
    whole: Any = randomise(timm.create_model("resnet18"), 1)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = features(preset, whole.state_dict(), images, tmp_path)
    maps = timm.create_model("resnet18", features_only=True, out_indices=[3], num_classes=0).eval()
    maps.load_state_dict(whole.state_dict(), strict=False)
    with torch.inference_mode():
        expected = maps(images)[0].mean(dim=(2, 3))
    assert found.shape == (2, 256)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_low_rank_adapters_are_added_to_their_layers(tmp_path: Path) -> None:
    """CRISP's file: peft's names, W + 2 B A in the attention layers, everything else as in Virchow2."""
    small = {"img_size": 28, "embed_dim": 32, "depth": 1, "num_heads": 2, "mlp_ratio": 4.0, "init_values": 1e-5}
    preset = replace(presets()["crisp"], arguments={**small, "reg_tokens": 4, "global_pool": ""}, input_px=28)
    plan = plan_timm_preset(preset, None)
    network = randomise(plan._architecture.build(), 2)
    generator = torch.Generator().manual_seed(1)
    file, expected = {}, dict(network.state_dict())
    for name, value in network.state_dict().items():
        module, _, last = name.rpartition(".")
        adapted = module.endswith(("attn.qkv", "attn.proj"))
        file[f"base_model.model.{module}.base_layer.{last}" if adapted else f"base_model.model.{name}"] = value
        if adapted and last == "weight":
            down, up = (
                torch.randn(8, value.shape[1], generator=generator),
                torch.randn(len(value), 8, generator=generator),
            )
            file[f"base_model.model.{module}.lora_A.default.weight"] = down
            file[f"base_model.model.{module}.lora_B.default.weight"] = up
            expected[name] = value + 2 * up @ down
    found = encoder_tensors(preset, file)
    assert set(found) == set(expected)
    assert all(torch.allclose(found[name], expected[name], atol=1e-5) for name in expected)
    plan.check_tensors(file, tmp_path)


def turned(x: np.ndarray, grid: int, periods: np.ndarray) -> np.ndarray:
    """Patches (grid * grid, d) turned by their place: pairs (i, i + d / 2), rows first, then columns."""
    half = x.shape[1] // 2
    out = x.copy()
    for row in range(grid):
        for column in range(grid):
            places = 2 * (np.array([row, column]) + 0.5) / grid - 1
            angles = (2 * np.pi * places[:, None] / periods).ravel()
            a, b = x[row * grid + column, :half], x[row * grid + column, half:]
            out[row * grid + column, :half] = a * np.cos(angles) - b * np.sin(angles)
            out[row * grid + column, half:] = b * np.cos(angles) + a * np.sin(angles)
    return out


def channel_token(state: dict[str, np.ndarray], channel: np.ndarray, heads: int, patch: int) -> np.ndarray:
    """The normalised class token of one channel (S, S), in double precision."""

    def normed(name: str, x: np.ndarray) -> np.ndarray:
        scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", np.zeros(1))

    grid = len(channel) // patch
    kernel = state["patch_embed.proj.weight"].reshape(len(state["patch_embed.proj.bias"]), -1)
    cells = channel.reshape(grid, patch, grid, patch).transpose(0, 2, 1, 3).reshape(grid * grid, -1)
    patches = cells @ kernel.T + state["patch_embed.proj.bias"]
    x = np.concatenate([state["cls_token"][0], state["storage_tokens"][0], patches])
    first = len(x) - grid * grid
    z = normed("blocks.0.norm1", x)
    q, k, v = (each.reshape(len(x), heads, -1) for each in np.split(linear("blocks.0.attn.qkv", z), 3, axis=1))
    mixed = np.zeros_like(q)
    for head in range(heads):
        pair = [np.concatenate([each[:first, head], turned(each[first:, head], grid, state["rope_embed.periods"])])
                for each in (q, k)]  # fmt: skip
        scores = pair[0] @ pair[1].T / np.sqrt(q.shape[2])
        weights = np.exp(scores - scores.max(1, keepdims=True))
        mixed[:, head] = weights / weights.sum(1, keepdims=True) @ v[:, head]
    x = x + state["blocks.0.ls1.gamma"] * linear("blocks.0.attn.proj", mixed.reshape(len(x), -1))
    z = normed("blocks.0.norm2", x)
    gate = linear("blocks.0.mlp.w1", z)
    hidden = gate / (1 + np.exp(-gate)) * linear("blocks.0.mlp.w2", z)
    return normed("norm", (x + state["blocks.0.ls2.gamma"] * linear("blocks.0.mlp.w3", hidden))[0])


def test_each_colour_channel_has_its_class_token(tmp_path: Path) -> None:
    """GenBio-PathFM. Queries and keys are rounded to bfloat16 as published, so agreement is to two digits."""
    sizes = {"image_px": 12, "patch_px": 4, "width": 16, "depth": 1, "heads": 2, "hidden": 24, "registers": 2}
    preset = replace(presets()["genbio-pathfm"], arguments=sizes)
    network = LayoutPlan(preset, None).build()
    generator = torch.Generator().manual_seed(4)
    tensors = {name: value if "periods" in name else torch.randn(value.shape, generator=generator) * 0.8
               for name, value in network.state_dict().items()}  # fmt: skip
    images = torch.randn(2, 3, 12, 12, generator=generator)
    found = features(preset, tensors, images, tmp_path).numpy()
    state = {name: value.double().numpy() for name, value in tensors.items()}
    expected = [[channel_token(state, each, 2, 4) for each in image] for image in images.double().numpy()]
    np.testing.assert_allclose(found, np.reshape(expected, (2, 48)), atol=0.03)
    assert np.abs(found[:, :16] - found[:, 16:32]).max() > 0.5
