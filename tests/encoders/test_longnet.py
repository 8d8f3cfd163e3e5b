"""GigaPath's slide encoder, small, against its equations written out token by token."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.special import erf, logsumexp, softmax

from wsi_pipeline.encoders.slide_zoo import longnet
from wsi_pipeline.encoders.slide_zoo.longnet import RATIOS, dilated_attention, positions
from wsi_pipeline.encoders.slide_zoo.plan_slide import SlideLayoutPlan
from wsi_pipeline.encoders.slide_zoo.slide_facts import find_slide_preset
from wsi_pipeline.encoders.slide_zoo.slide_networks import PatchRows
from wsi_pipeline.errors import EncoderError

Array = NDArray[np.float64]
HEADS = 16


def branch(q: Array, k: Array, v: Array, segment: int, ratio: int) -> tuple[Array, Array]:
    """Token by token: q, k, v (N, H, d). Keys beyond the end are zeros, which count in the softmax."""
    count, heads, width = q.shape
    segment = min(segment, count)
    out, lse = np.zeros_like(q), np.full((count, heads), -np.inf)
    for head in range(heads):
        offset = head // (heads // ratio)
        for token in range(count):
            first = token // segment * segment
            if (token - first) % ratio != offset:
                continue
            kept = range(first + offset, first + -(-segment // ratio) * ratio, ratio)
            inside = [t < min(first + segment, count) for t in kept]
            keys = np.array([k[t, head] if yes else np.zeros(width) for t, yes in zip(kept, inside, strict=True)])
            values = np.array([v[t, head] if yes else np.zeros(width) for t, yes in zip(kept, inside, strict=True)])
            scores = keys @ q[token, head] / np.sqrt(width)
            out[token, head], lse[token, head] = softmax(scores) @ values, logsumexp(scores)
    return out, lse


@pytest.mark.parametrize(("count", "segment", "ratio"), [(23, 8, 1), (23, 8, 2), (23, 100, 4), (16, 8, 8), (5, 8, 16)])
def test_dilated_attention(count: int, segment: int, ratio: int) -> None:
    q, k, v = np.random.default_rng(0).normal(size=(3, count, HEADS, 3))
    expected, sums = branch(q, k, v, segment, ratio)
    out, lse = dilated_attention(*(torch.from_numpy(each) for each in (q, k, v)), segment, ratio)
    np.testing.assert_allclose(out.numpy(), expected, atol=1e-12)
    there = np.isfinite(sums)
    np.testing.assert_allclose(lse.numpy()[there], sums[there], atol=1e-12)
    assert (lse.numpy()[~there] < -1e7).all()


def linear(state: dict[str, Array], name: str, x: Array) -> Array:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def normed(state: dict[str, Array], name: str, x: Array, eps: float = 1e-5) -> Array:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt(x.var(-1, keepdims=True) + eps)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def place_embedding(column: int, row: int, dim: int) -> Array:
    """MAE's: sine and cosine of the row number (y) first, then of the column number (x)."""
    waves = 1 / 10000 ** (np.arange(dim // 4) / (dim / 4))
    return np.concatenate([f(p * waves) for p in (row, column) for f in (np.sin, np.cos)])


def reference(state: dict[str, Array], x: Array, coords: Array, side: int, segments: Any) -> Array:
    dim = state["cls_token"].shape[2]
    tokens = linear(state, "patch_embed.proj", x)
    tokens += np.array([place_embedding(cx // side, cy // side, dim) for cx, cy in coords])
    h = np.concatenate([state["cls_token"][0], tokens])
    for number in (0, 1):
        name = f"encoder.layers.{number}"
        z = normed(state, f"{name}.self_attn_layer_norm", h)
        q, k, v = (linear(state, f"{name}.self_attn.{p}_proj", z).reshape(len(z), HEADS, -1) for p in "qkv")
        each = [branch(q, k, v, segment, ratio) for segment, ratio in zip(segments, RATIOS, strict=True)]
        weights = softmax(np.stack([lse for _, lse in each]), axis=0)
        mixed = sum(weight[..., None] * out for weight, (out, _) in zip(weights, each, strict=True))
        mixed = normed(state, f"{name}.self_attn.inner_attn_ln", np.asarray(mixed).reshape(len(z), -1))
        h = h + linear(state, f"{name}.self_attn.out_proj", mixed)
        z = linear(state, f"{name}.ffn.fc1", normed(state, f"{name}.final_layer_norm", h))
        z = normed(state, f"{name}.ffn.ffn_layernorm", z * (1 + erf(z / np.sqrt(2))) / 2)
        h = h + linear(state, f"{name}.ffn.fc2", z)
    return normed(state, "norm", h[1:].mean(0), 1e-6)


def test_network_from_its_published_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(longnet, "SEGMENTS", (8, 12, 20, 40, 80))
    arguments = {"in_dim": 6, "dim": 64, "depth": 2, "heads": HEADS}
    preset = replace(find_slide_preset("gigapath"), arguments=arguments, in_dim=6, dim=64)
    plain = SlideLayoutPlan(preset).build().state_dict()
    generator = torch.Generator().manual_seed(0)
    tensors = {name: torch.randn(value.shape, generator=generator) * 0.3 for name, value in plain.items()}
    beside = {name: torch.zeros(2) for name in ("decoder.norm.weight", "encoder.layer_norm.weight")}
    save_file({**tensors, **beside, "encoder.layers.11.ffn.fc1.weight": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert {
        "cls_token", "patch_embed.proj.weight", "norm.bias", "encoder.layers.1.self_attn.q_proj.weight",
        "encoder.layers.0.self_attn.inner_attn_ln.bias", "encoder.layers.0.ffn.ffn_layernorm.weight",
        "encoder.layers.1.final_layer_norm.weight",
    } <= set(tensors)  # fmt: skip
    x = torch.randn(43, 6, generator=generator)
    coords = torch.stack([torch.arange(43) % 7 * 512 + 100, torch.arange(43) // 7 * 512], 1)
    embed = SlideLayoutPlan(preset, tmp_path / "w.safetensors").open()
    found = embed(PatchRows(x.split(10), coords, 512)).numpy()
    state = {name: value.double().numpy() for name, value in tensors.items()}
    expected = reference(state, x.double().numpy(), coords.numpy(), 512, (8, 12, 20, 40, 80))
    np.testing.assert_allclose(found, expected, atol=2e-4)
    moved = embed(PatchRows(x.split(10), coords.flip(0), 512)).numpy()
    assert np.abs(moved - found).max() > 1e-3  # places count


def test_places_must_be_known_and_on_the_grid() -> None:
    preset = find_slide_preset("gigapath")
    network = SlideLayoutPlan(replace(preset, arguments={"in_dim": 6, "dim": 64, "depth": 1})).build()
    for coords, side in ((None, 256), (torch.zeros(2, 2, dtype=torch.int64), 0)):
        with pytest.raises(EncoderError, match="needs the coordinates and the size"):
            network.embed(PatchRows([torch.zeros(2, 6)], coords, side))
    with pytest.raises(EncoderError, match="at most 1000 x 1000"):
        positions(torch.tensor([[256_000, 0]]), 256, 64)
    with pytest.raises(EncoderError, match="needs the coordinates of the patches"):
        SlideLayoutPlan(preset).check({"name": "gigapath", "dim": 1536}, 256, 0.5, places=False)
