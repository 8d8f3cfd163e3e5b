"""TITAN's and PRISM's slide encoders, small, against their equations written out once more in double precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.special import erf, softmax

from wsi_pipeline.encoders.slide_zoo import grid_transformer
from wsi_pipeline.encoders.slide_zoo.grid_transformer import on_grid, slopes
from wsi_pipeline.encoders.slide_zoo.plan_slide import SlideLayoutPlan
from wsi_pipeline.encoders.slide_zoo.slide_facts import SlidePreset, find_slide_preset
from wsi_pipeline.encoders.slide_zoo.slide_networks import PatchRows
from wsi_pipeline.errors import EncoderError

Array = NDArray[np.float64]
DIM, IN, HEADS = 24, 6, 3


def linear(state: dict[str, Array], name: str, x: Array) -> Array:
    return x @ state[f"{name}.weight"].T + state.get(f"{name}.bias", np.zeros(1))


def normed(state: dict[str, Array], name: str, x: Array, eps: float = 1e-5) -> Array:
    scaled = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return scaled * state[f"{name}.weight"] + state[f"{name}.bias"]


def gelu(x: Array) -> Array:
    return x * (1 + erf(x / np.sqrt(2))) / 2


def attention(q: Array, k: Array, v: Array, heads: int, bias: Any = 0.0) -> Array:
    """Softmax attention of q (L, D) to k and v (N, D); bias (heads, L, N)."""
    q, k, v = (each.reshape(len(each), heads, -1) for each in (q, k, v))
    weights = softmax(np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[2]) + bias, axis=2)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(len(q), -1)


def multihead(state: dict[str, Array], name: str, q: Array, k: Array, heads: int) -> Array:
    """nn.MultiheadAttention with keys that are also the values."""
    biases = np.split(state.get(f"{name}.in_proj_bias", np.zeros(3 * q.shape[1])), 3)
    wq, wk, wv = (w.T for w in np.split(state[f"{name}.in_proj_weight"], 3))
    mixed = attention(q @ wq + biases[0], k @ wk + biases[1], k @ wv + biases[2], heads)
    return linear(state, f"{name}.out_proj", mixed)


def small(name: str, **arguments: int) -> SlidePreset:
    return replace(find_slide_preset(name), arguments={"in_dim": IN, "dim": DIM, **arguments}, in_dim=IN, dim=DIM)


def randomised(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) * 0.4 for name, shape in shapes.items()}


def as_arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Array]:
    return {name: value.double().numpy() for name, value in tensors.items()}


def titan_file(depth: int) -> dict[str, torch.Tensor]:
    """The tensors of the authors' TITAN: layers under modules_list, two pools, a projection, a text encoder."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, DIM), "patch_embed.0.weight": (DIM, IN), "patch_embed.0.bias": (DIM,),
        "norm.weight": (DIM,), "norm.bias": (DIM,), "proj": (DIM, DIM), "attn_pool.query": (5, DIM),
        "attn_pool_contrastive.query": (1, DIM),
        "attn_pool_contrastive.attn.in_proj_weight": (3 * DIM, DIM),
        "attn_pool_contrastive.attn.in_proj_bias": (3 * DIM,),
        "attn_pool_contrastive.attn.out_proj.weight": (DIM, DIM),
        "attn_pool_contrastive.attn.out_proj.bias": (DIM,),
    }  # fmt: skip
    shapes |= {f"attn_pool_contrastive.{part}.{kind}": (DIM,) for part in ("ln_q", "ln_k") for kind in _BOTH}
    for number in range(depth):
        name = f"blocks.modules_list.{number}"
        sizes = {"attn.qkv": (3 * DIM, DIM), "attn.proj": (DIM, DIM), "mlp.fc1": (4 * DIM, DIM)}
        sizes["mlp.fc2"] = (DIM, 4 * DIM)
        shapes |= {f"{name}.{part}.weight": size for part, size in sizes.items()}
        shapes |= {f"{name}.{part}.bias": size[:1] for part, size in sizes.items()}
        shapes |= {f"{name}.{part}.{kind}": (DIM,) for part in ("norm1", "norm2") for kind in _BOTH}
    tensors = {f"vision_encoder.{name}": value for name, value in randomised(shapes).items()}
    return {**tensors, "text_encoder.token_embedding.weight": torch.ones(2, 2)}


_BOTH = ("weight", "bias")


def titan_reference(state: dict[str, Array], x: Array, coords: Array, side: int, depth: int) -> Array:
    """Token by token: one cell per place, in the order in which places first come up."""
    cells: dict[tuple[int, int], Array] = {}
    for place, row in zip((coords - coords.min(0)) // side, x, strict=True):
        key = (int(place[0]), int(place[1]))
        cells[key] = cells.get(key, np.zeros(IN)) + row
    places = np.array([key for key, row in cells.items() if (row != 0).any()], dtype=float)
    rows = np.stack([row for row in cells.values() if (row != 0).any()])
    h = np.concatenate([state["cls_token"][0], gelu(linear(state, "patch_embed.0", rows))])
    bias = np.zeros((HEADS, len(h), len(h)))
    for head, slope in enumerate((2**-4, 2**-8, 2**-2)):
        bias[head, 1:, 1:] = -slope * np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    for number in range(depth):
        name = f"blocks.modules_list.{number}"
        q, k, v = np.split(linear(state, f"{name}.attn.qkv", normed(state, f"{name}.norm1", h, 1e-6)), 3, axis=1)
        h = h + linear(state, f"{name}.attn.proj", attention(q, k, v, HEADS, bias))
        hidden = gelu(linear(state, f"{name}.mlp.fc1", normed(state, f"{name}.norm2", h, 1e-6)))
        h = h + linear(state, f"{name}.mlp.fc2", hidden)
    keys = normed(state, "attn_pool_contrastive.ln_k", normed(state, "norm", h, 1e-6))
    query = normed(state, "attn_pool_contrastive.ln_q", state["attn_pool_contrastive.query"])
    return multihead(state, "attn_pool_contrastive.attn", query, keys, 8)[0]


@pytest.mark.parametrize("most", [1 << 26, 200])
def test_titan_from_its_published_names(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two patches in one cell are summed, an empty one is background; queries in blocks give the same."""
    monkeypatch.setattr(grid_transformer, "_MOST_SCORES", most)
    preset, tensors = small("titan", depth=2, heads=HEADS), titan_file(2)
    save_file(tensors, tmp_path / "w.safetensors")
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(40, IN, generator=generator)
    x[7] = 0
    coords = torch.stack([torch.arange(40) % 8 * 512 + 100, torch.arange(40) // 8 * 512 + 30], 1)
    coords[11] = coords[12] + 40
    embed = SlideLayoutPlan(preset, tmp_path / "w.safetensors").open()
    found = embed(PatchRows(x.split(16), coords, 512)).numpy()
    state = {name.removeprefix("vision_encoder."): value for name, value in as_arrays(tensors).items()}
    expected = titan_reference(state, x.double().numpy(), coords.numpy(), 512, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert np.abs(embed(PatchRows(x.split(16), coords.flip(0), 512)).numpy() - found).max() > 1e-3  # places count


def test_slopes_of_alibi() -> None:
    assert slopes(8) == [2.0**-k for k in range(1, 9)]
    assert slopes(12) == [2.0**-k for k in range(1, 9)] + [2.0 ** (-k - 0.5) for k in range(4)]


def test_titan_needs_places_and_features() -> None:
    preset = find_slide_preset("titan")
    network = SlideLayoutPlan(small("titan", depth=1, heads=HEADS)).build()
    with pytest.raises(EncoderError, match="needs the coordinates and the size"):
        network.embed(PatchRows([torch.ones(2, IN)]))
    with pytest.raises(EncoderError, match="all features of this slide are 0"):
        on_grid(torch.zeros(2, 2, dtype=torch.int64), 512, torch.zeros(2, IN))
    with pytest.raises(EncoderError, match="needs the coordinates of the patches"):
        SlideLayoutPlan(preset).check({"name": "conch-v1.5", "dim": 768}, 512, 0.5, places=False)


def prism_file(rounds: int, depth: int, latents: int) -> dict[str, torch.Tensor]:
    """The tensors of the authors' PRISM; rounds share their layers, and a pickled file has them in each."""
    shapes: dict[str, tuple[int, ...]] = {"latents": (latents, DIM)}
    for number in (0, 1):
        name = f"layers.{number}.xattn"
        shapes |= {f"{name}.xattn.to_q.weight": (DIM, DIM), f"{name}.xattn.to_kv.weight": (2 * DIM, IN)}
        shapes |= {f"{name}.xattn.to_out.weight": (DIM, DIM)}
        shapes |= {f"{name}.xattn.x_norm.{kind}": (DIM,) for kind in _BOTH} | _feed_forward(f"{name}.ff")
    for number in range(depth):
        name = f"layers.0.tf.{number}"
        shapes |= {f"{name}.mhsa.mha.in_proj_weight": (3 * DIM, DIM), f"{name}.mhsa.mha.out_proj.weight": (DIM, DIM)}
        shapes |= {f"{name}.mhsa.norm.{kind}": (DIM,) for kind in _BOTH} | _feed_forward(f"{name}.ff")
    tensors = randomised(shapes)
    for number in range(1, rounds):
        tensors |= {
            name.replace("layers.0.", f"layers.{number}.", 1): value
            for name, value in tensors.items()
            if name.startswith("layers.0.tf.")
        }
        tensors |= {
            name.replace("layers.1.", f"layers.{number}.", 1): value
            for name, value in tensors.items()
            if name.startswith("layers.1.xattn.")
        }
    tensors = {f"image_resampler.perceiver.{name}": value.clone() for name, value in tensors.items()}
    norms = {f"image_resampler.{part}_norm.{kind}": (DIM,) for part in ("cls", "img") for kind in _BOTH}
    return {**tensors, **randomised(norms), "img_to_latents.to_latents.weight": torch.ones(2, 2),
            "text_decoder.model.embed.weight": torch.ones(2, 2), "temperature": torch.ones(())}  # fmt: skip


def _feed_forward(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.norm.weight": (DIM,), f"{name}.norm.bias": (DIM,), f"{name}.net.0.weight": (2 * DIM, DIM),
            f"{name}.net.0.bias": (2 * DIM,), f"{name}.net.2.weight": (DIM, DIM),
            f"{name}.net.2.bias": (DIM,)}  # fmt: skip


def feed_forward(state: dict[str, Array], name: str, x: Array) -> Array:
    value, gate = np.split(linear(state, f"{name}.net.0", normed(state, f"{name}.norm", x)), 2, axis=1)
    return x + linear(state, f"{name}.net.2", value * gelu(gate))


def prism_reference(state: dict[str, Array], x: Array, rounds: int, depth: int) -> Array:
    h = state["perceiver.latents"]
    for number in range(rounds):
        name = f"perceiver.layers.{number}.xattn"
        query = linear(state, f"{name}.xattn.to_q", normed(state, f"{name}.xattn.x_norm", h))
        keys, values = np.split(linear(state, f"{name}.xattn.to_kv", x), 2, axis=1)
        h = h + linear(state, f"{name}.xattn.to_out", attention(query, keys, values, 1))
        h = feed_forward(state, f"{name}.ff", h)
        for layer in range(depth):
            name = f"perceiver.layers.{number}.tf.{layer}"
            z = normed(state, f"{name}.mhsa.norm", h)
            h = feed_forward(state, f"{name}.ff", h + multihead(state, f"{name}.mhsa.mha", z, z, HEADS))
    return normed(state, "cls_norm", h[0])


def test_prism_from_its_published_names(tmp_path: Path) -> None:
    rounds, depth, latents = 3, 2, 5
    preset = small("prism", latents=latents, rounds=rounds, depth=depth, heads=HEADS)
    tensors = prism_file(rounds, depth, latents)
    save_file(tensors, tmp_path / "w.safetensors")
    x = torch.randn(50, IN, generator=torch.Generator().manual_seed(3))
    found = SlideLayoutPlan(preset, tmp_path / "w.safetensors").open()(PatchRows(x.split(16))).numpy()
    state = {name.removeprefix("image_resampler."): value for name, value in as_arrays(tensors).items()}
    np.testing.assert_allclose(found, prism_reference(state, x.double().numpy(), rounds, depth), rtol=1e-3, atol=1e-4)
    once = {name: value for name, value in tensors.items() if ".layers.2." not in name and ".layers.1.tf." not in name}
    save_file(once, tmp_path / "once.safetensors")  # as safetensors keeps what layers share
    again = SlideLayoutPlan(preset, tmp_path / "once.safetensors").open()(PatchRows(x.split(16))).numpy()
    assert np.array_equal(found, again)
    tensors["image_resampler.perceiver.layers.2.tf.0.ff.net.0.bias"] += 1
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"PRISM shares layers\.0\.ff\.net\.0\.bias between layers"):
        SlideLayoutPlan(preset, tmp_path / "w.safetensors").open()
