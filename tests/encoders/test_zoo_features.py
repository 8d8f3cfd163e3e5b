"""Features of the zoo's encoders on tiny networks: weights under their published names, features by the definition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers
from encoder_files import randomise
from numpy.typing import NDArray
from safetensors.torch import save_file

from wsi_pipeline.cli import main
from wsi_pipeline.encoders.encoder import EncoderPlan
from wsi_pipeline.encoders.hf_models.plan_hf import plan_preset as plan_huggingface_preset
from wsi_pipeline.encoders.timm_models.plan_timm import plan_preset as plan_timm_preset
from wsi_pipeline.encoders.torch_encoder import prepare
from wsi_pipeline.encoders.zoo.facts import Preset, presets
from wsi_pipeline.encoders.zoo.plan_layout import LayoutPlan
from wsi_pipeline.encoders.zoo.zoo_weights import convert
from wsi_pipeline.errors import EncoderError

timm_models: Any = timm.models
timm_layers: Any = timm.layers
TINY = {"patch_px": 16, "width": 32, "depth": 2, "heads": 2}


def tiny(name: str, input_px: int, arguments: Mapping[str, Any], dim: int) -> Preset:
    return replace(presets()[name], input_px=input_px, arguments=dict(arguments), dim=dim)


def saved(tensors: Mapping[str, torch.Tensor], folder: Path) -> Path:
    path = folder / "model.safetensors"
    save_file({name: value.detach().clone().contiguous() for name, value in tensors.items()}, path)
    return path


def encoded(plan: EncoderPlan, patches: NDArray[np.uint8]) -> tuple[NDArray[np.float32], torch.Tensor]:
    """Features of the opened encoder, and the normalised images that it has seen."""
    return plan.open("cpu", "fp32").encode(patches), prepare(patches, plan.info, torch.device("cpu"))


def patches(side: int = 70) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (3, side, side, 3), np.uint8)


def assert_equal(ours: NDArray[np.float32], theirs: torch.Tensor) -> None:
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def vit(image_px: int, **more: Any) -> Any:
    return randomise(
        timm_models.vision_transformer.VisionTransformer(
            img_size=image_px, patch_size=16, embed_dim=32, depth=2, num_heads=2, num_classes=0, **more
        ),
        5,
    )


def test_midnight_is_class_token_and_mean_of_patches(tmp_path: Path) -> None:
    """Also from a file saved for another image size, as AutoModel.from_pretrained reads it."""
    sizes = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "use_swiglu_ffn": True,
    }
    for image_px in (56, 112):
        config = transformers.Dinov2Config(**sizes, image_size=image_px, patch_size=14)
        network = randomise(transformers.Dinov2Model(config), 3)
        file = saved(network.state_dict(), tmp_path)
        preset = tiny("midnight", 56, {**sizes, "image_size": 56, "patch_size": 14}, 64)
        ours, images = encoded(plan_huggingface_preset(preset, file), patches())
        with torch.inference_mode():
            hidden = network(images).last_hidden_state
        assert_equal(ours, torch.cat([hidden[:, 0], hidden[:, 1:].mean(dim=1)], dim=1))


def test_phikon_is_the_class_token_even_where_the_file_has_a_pooler(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
             "image_size": 64, "patch_size": 16}  # fmt: skip
    network = randomise(transformers.ViTModel(transformers.ViTConfig(**sizes)), 4)
    preset = tiny("phikon", 64, sizes, 32)
    ours, images = encoded(plan_huggingface_preset(preset, saved(network.state_dict(), tmp_path)), patches())
    with torch.inference_mode():
        assert_equal(ours, network(images).last_hidden_state[:, 0])


def test_conch_pools_with_one_query(tmp_path: Path) -> None:
    """By nn.MultiheadAttention with tokens first, as its authors call it; parts for texts and captions are ignored."""
    trunk = vit(64)
    attention = randomise(torch.nn.MultiheadAttention(24, 8, kdim=32, vdim=32), 6)
    query, ln_q, ln_k, last = torch.randn(1, 24), *(randomise(torch.nn.LayerNorm(n), n) for n in (24, 32, 24))
    pool = "visual.attn_pool_contrast."
    tensors = {
        **{f"visual.trunk.{name}": value for name, value in trunk.state_dict().items()},
        **{f"{pool}attn.{name}": value for name, value in attention.state_dict().items()},
        **{f"{pool}ln_q.{name}": value for name, value in ln_q.state_dict().items()},
        **{f"{pool}ln_k.{name}": value for name, value in ln_k.state_dict().items()},
        **{f"visual.ln_contrast.{name}": value for name, value in last.state_dict().items()},
        f"{pool}query": query, "visual.proj_contrast": torch.ones(24, 24), "logit_scale": torch.ones(1),
        "text.token_embedding.weight": torch.ones(2, 2), "visual.attn_pool_caption.query": torch.ones(2, 2),
    }  # fmt: skip
    preset = tiny("conch", 64, {**TINY, "image_px": 64, "dim": 24}, 24)
    ours, images = encoded(LayoutPlan(preset, saved(tensors, tmp_path)), patches())
    with torch.inference_mode():
        keys = ln_k(trunk.forward_features(images)).permute(1, 0, 2)
        pooled = attention(ln_q(query).unsqueeze(1).repeat(1, 3, 1), keys, keys, need_weights=False)[0]
        assert_equal(ours, last(pooled[0]))
    tensors.pop("visual.trunk.norm.weight")
    with pytest.raises(EncoderError, match=r"does not fit CONCH: tensors 1 missing \(trunk\.norm\.weight\)"):
        LayoutPlan(preset, saved(tensors, tmp_path)).open("cpu", "fp32")


def test_conch_15_resamples_positions_while_it_runs(tmp_path: Path) -> None:
    """Saved for 32 px, run at 64: positions of a 2 x 2 grid become 4 x 4 by bicubic with the scale 4.1 / 2."""
    trunk = vit(32, init_values=1.0)
    names = {
        "ln_q": torch.nn.LayerNorm(24),
        "ln_k": torch.nn.LayerNorm(32),
        "to_q": torch.nn.Linear(24, 24, bias=False),
        "to_kv": torch.nn.Linear(32, 48, bias=False),
        "to_out": torch.nn.Linear(24, 24, bias=False),
    }
    layers = {name: randomise(layer, 7) for name, layer in names.items()}
    last, query = randomise(torch.nn.LayerNorm(24), 8), torch.randn(1, 24)
    tensors = {f"trunk.{name}": value for name, value in trunk.state_dict().items()}
    tensors |= {f"attn_pool_contrast.{part}.{key}": value
                for part, layer in layers.items() for key, value in layer.state_dict().items()}  # fmt: skip
    tensors |= {f"ln_contrast.{key}": value for key, value in last.state_dict().items()}
    tensors["attn_pool_contrast.query"] = query
    preset = tiny("conch-v1.5", 64, {**TINY, "image_px": 64, "dim": 24, "saved_px": 32}, 24)
    ours, images = encoded(LayoutPlan(preset, saved(tensors, tmp_path)), patches())
    with torch.inference_mode():
        table = trunk.pos_embed
        grid = table[:, 1:].reshape(1, 2, 2, 32).permute(0, 3, 1, 2)
        resized = torch.nn.functional.interpolate(grid, scale_factor=(4.1 / 2, 4.1 / 2), mode="bicubic")
        positions = torch.cat([table[:, :1], resized.permute(0, 2, 3, 1).reshape(1, 16, 32)], dim=1)
        flat = trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([trunk.cls_token.expand(3, -1, -1), flat], dim=1) + positions
        tokens = trunk.norm(trunk.blocks(tokens))
        keys, values = layers["to_kv"](layers["ln_k"](tokens)).chunk(2, dim=-1)
        asked = layers["to_q"](layers["ln_q"](query))[0].view(8, 3)
        weights = torch.einsum("hd,bnhd->bhn", asked, keys.view(3, -1, 8, 3)).mul(3**-0.5).softmax(dim=-1)
        pooled = torch.einsum("bhn,bnhd->bhd", weights, values.view(3, -1, 8, 3)).flatten(1)
        assert_equal(ours, last(layers["to_out"](pooled)))


def test_keep_projects_and_scales_to_length_1(tmp_path: Path) -> None:
    trunk = vit(64, init_values=1e-5)
    first, second = randomise(torch.nn.Linear(32, 24), 9), randomise(torch.nn.Linear(24, 24), 10)
    tensors = {f"visual.{name.replace('.gamma', '.weight')}": value for name, value in trunk.state_dict().items()}
    tensors |= {f"visual_head.0.{name}": value for name, value in first.state_dict().items()}
    tensors |= {f"visual_head.2.{name}": value for name, value in second.state_dict().items()}
    tensors |= {"text.pooler.dense.bias": torch.ones(3), "logit_scale": torch.ones(1)}
    preset = tiny("keep", 64, {**TINY, "image_px": 64, "dim": 24}, 24)
    ours, images = encoded(LayoutPlan(preset, saved(tensors, tmp_path)), patches())
    with torch.inference_mode():
        raw = second(torch.nn.functional.gelu(first(trunk(images))))
    assert_equal(ours, raw / raw.norm(dim=1, keepdim=True))


def test_ctranspath_is_a_swin_behind_a_stem_in_its_old_names(tmp_path: Path) -> None:
    """Its file names the merging layers after the stage before them, and keeps masks that timm does not."""
    sizes = {"width": 16, "depths": [1, 1], "heads": [1, 2], "window": 2}
    swin = timm_models.swin_transformer
    body = randomise(
        swin.SwinTransformer(img_size=32, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=2, num_classes=0),
        1,
    )
    stem = randomise(
        torch.nn.Sequential(
            torch.nn.Conv2d(3, 2, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(2), torch.nn.ReLU(),
            torch.nn.Conv2d(2, 4, 3, 2, 1, bias=False), torch.nn.BatchNorm2d(4), torch.nn.ReLU(),
            torch.nn.Conv2d(4, 16, 1),
        ), 2,
    )  # fmt: skip
    norm = randomise(torch.nn.LayerNorm(16), 3)
    tensors = {name.replace("layers.1.downsample", "layers.0.downsample"): value
               for name, value in body.state_dict().items() if not name.startswith("patch_embed")}  # fmt: skip
    tensors |= {f"patch_embed.proj.{name}": value for name, value in stem.state_dict().items()}
    tensors |= {f"patch_embed.norm.{name}": value for name, value in norm.state_dict().items()}
    tensors |= {"layers.0.blocks.0.attn_mask": torch.ones(2), "head.weight": torch.ones(2, 2)}
    preset = tiny("ctranspath", 32, {"image_px": 32, **sizes}, 32)
    ours, images = encoded(LayoutPlan(preset, saved(tensors, tmp_path)), patches())
    with torch.inference_mode():
        inside = body.layers(norm(stem(images).permute(0, 2, 3, 1)))
        assert_equal(ours, body.norm(inside).mean(dim=(1, 2)))


def test_crown_is_read_in_the_names_of_dinov2(tmp_path: Path) -> None:
    """Blocks in chunks, SwiGLU layers w12 and w3, and a mask token that only training uses."""
    small = {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2, "init_values": 1.0, "mlp_ratio": 4.0}
    packed = {"mlp_layer": timm_layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    network: Any = randomise(timm.create_model("vit_large_patch16_224", num_classes=0, **small, **packed), 1)
    tensors = {"mask_token": torch.zeros(1, 32)}
    for name, value in network.state_dict().items():
        old = name.replace("blocks.", "blocks.0.").replace("mlp.fc1", "mlp.w12").replace("mlp.fc2", "mlp.w3")
        tensors[old] = value
    plan = plan_timm_preset(tiny("crown", 64, small, 32), saved(tensors, tmp_path))
    ours, images = encoded(plan, patches())
    with torch.inference_mode():
        assert_equal(ours, network(images))


class _Harmless:
    """What a pickle may not bring along."""


def test_pickled_weights_are_converted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = presets()["dinobloom-s"]
    plan = plan_timm_preset(preset, None)
    chunked = {f"backbone.{name}".replace("blocks.", "blocks.0."): torch.zeros(value.shape)
               for name, value in plan._architecture.build("meta").state_dict().items()}  # fmt: skip
    inside = {**chunked, "dino_head.mlp.weight": torch.ones(2)}
    torch.save({"teacher": inside, "iteration": 3}, tmp_path / "DinoBloom-S.pth")
    words = ["encoders", "dinobloom-s", "--convert", str(tmp_path / "DinoBloom-S.pth")]
    assert main(words) == 0
    written = tmp_path / "dinobloom-s.safetensors"
    assert f"--model dinobloom-s --weights {written}" in capsys.readouterr().out
    from safetensors.torch import load_file

    assert set(load_file(written)) == set(inside)
    assert main(words) == 2
    assert "already exists" in capsys.readouterr().err
    written.unlink()
    changed = {**inside, "backbone.cls_token": torch.ones(1, 1, 4), "backbone.norm.extra": torch.ones(2)}
    del changed["backbone.norm.bias"]
    torch.save({"teacher": changed}, tmp_path / "DinoBloom-S.pth")
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "DinoBloom-S.pth does not fit DinoBloom-S (haematology): tensors 1 missing (norm.bias);" in said
    assert "1 of another shape (cls_token: 1 x 1 x 4 instead of 1 x 1 x 384); 1 not in the model (norm.extra)" in said
    assert not written.exists()
    torch.save({"model": inside, "extra": _Harmless()}, tmp_path / "more.pth")
    with pytest.raises(EncoderError, match=r"more\.pth cannot be read as tensors alone"):
        convert(preset, tmp_path / "more.pth", plan.check_tensors)
    (tmp_path / "torn.pth").write_bytes((tmp_path / "DinoBloom-S.pth").read_bytes()[:200])
    with pytest.raises(EncoderError, match=r"torn\.pth cannot be read as tensors alone"):
        convert(preset, tmp_path / "torn.pth", plan.check_tensors)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(EncoderError, match="holds no tensors by name"):
        convert(preset, tmp_path / "list.pth", plan.check_tensors)
    with pytest.raises(EncoderError, match=r"--convert .*none\.pth does not exist"):
        convert(preset, tmp_path / "none.pth", plan.check_tensors)


def test_conversion_needs_weights_of_the_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also of those that transformers builds; what cannot be built is not converted."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
             "image_size": 64, "patch_size": 16}  # fmt: skip
    plan = plan_huggingface_preset(tiny("phikon", 64, sizes, 32), None)
    tensors = dict(randomise(transformers.ViTModel(transformers.ViTConfig(**sizes)), 4).state_dict())
    plan.check_tensors(tensors, Path("own.bin"))
    with pytest.raises(EncoderError, match=r"own\.bin does not fit vit: .*layernorm\.bias: 3 instead of 32"):
        plan.check_tensors({**tensors, "layernorm.bias": torch.ones(3)}, Path("own.bin"))
    torch.save(tensors, tmp_path / "checkpoint.pt")
    assert main(["encoders", "omiclip", "--convert", str(tmp_path / "checkpoint.pt")]) == 2
    assert "OmiCLIP) cannot be built here" in capsys.readouterr().err


def test_the_command_lists_and_describes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encoders"]) == 0
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in presets())
    assert "wsi-pipeline encoders NAME" in out
    assert main(["encoders", "virchow2"]) == 0
    out = capsys.readouterr().out
    for said in ("virchow2: Virchow2", "class+mean, 2560 values", "SwiGLU layers", "CC-BY-NC-ND-4.0", "request",
                 "https://huggingface.co/paige-ai/Virchow2 (pytorch_model.bin)", "--convert pytorch_model.bin",
                 "[trident, lazyslide]", "github.com/mahmoodlab/TRIDENT a91fa84"):  # fmt: skip
        assert said in out
    assert main(["encoders", "uni_v2"]) == 2
    assert "Did you mean uni2-h?" in capsys.readouterr().err
    assert main(["encoders", "--convert", "x.bin"]) == 2
    assert "--convert needs the name of one encoder, got 0" in capsys.readouterr().err
