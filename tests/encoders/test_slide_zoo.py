"""Published slide encoders: networks by their published layout, against the equations written out once more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy.special import erf, expit

from wsi_pipeline.cli import main
from wsi_pipeline.encoders.slide_zoo.plan_slide import SlideLayoutPlan, plan_slide
from wsi_pipeline.encoders.slide_zoo.slide_facts import (
    find_slide_preset,
    list_slide_encoders,
    read_slide_zoo,
    slide_zoo,
)
from wsi_pipeline.encoders.slide_zoo.slide_networks import PatchRows
from wsi_pipeline.errors import EncoderError

BUILT = [preset for preset in list_slide_encoders() if preset.built]
Arrays = dict[str, NDArray[np.float64]]


def random_state(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> dict[str, torch.Tensor]:
    """Tensors of these shapes, large enough for attention that is far from even."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.2 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }


def linear(state: Arrays, name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def gated(state: Arrays, name: str, h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Attention, (n,), of CLAM's layers `attention_a`, `_b` and `_c`."""
    a = np.tanh(linear(state, f"{name}.attention_a.0", h)) * expit(linear(state, f"{name}.attention_b.0", h))
    scores = linear(state, f"{name}.attention_c", a)[:, 0]
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def gated_shapes(name: str, hidden: int, attention: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.attention_a.0.weight": (attention, hidden), f"{name}.attention_a.0.bias": (attention,),
        f"{name}.attention_b.0.weight": (attention, hidden), f"{name}.attention_b.0.bias": (attention,),
        f"{name}.attention_c.weight": (1, attention), f"{name}.attention_c.bias": (1,),
    }  # fmt: skip


def feather_file(in_dim: int) -> dict[str, torch.Tensor]:
    """The tensors of ABMILModel in MIL-Lab, with its head."""
    shapes = {"model.patch_embed.0.weight": (512, in_dim), "model.patch_embed.0.bias": (512,)}
    shapes |= gated_shapes("model.global_attn", 512, 384)
    return random_state(shapes | {"model.classifier.weight": (108, 512), "model.classifier.bias": (108,)})


def feather_reference(state: Arrays, x: NDArray[np.float64]) -> NDArray[np.float64]:
    h = np.maximum(linear(state, "model.patch_embed.0", x), 0)
    return gated(state, "model.global_attn", h) @ h


def chief_file(in_dim: int) -> dict[str, torch.Tensor]:
    """The tensors of CHIEF(size_arg="small", dropout=True, n_classes=2)."""
    shapes: dict[str, tuple[int, ...]] = {"attention_net.0.weight": (512, in_dim), "attention_net.0.bias": (512,)}
    shapes |= gated_shapes("attention_net.3", 512, 256)
    shapes |= {"classifiers.weight": (2, 512), "classifiers.bias": (2,), "organ_embedding": (19, 768)}
    shapes |= {f"instance_classifiers.{k}.{name}": size for k in (0, 1) for name, size in _LINEAR2.items()}
    shapes |= {"att_head.fc1.weight": (256, 512), "att_head.fc1.bias": (256,), "att_head.fc2.weight": (1, 256)}
    return random_state(shapes | {"att_head.fc2.bias": (1,), "text_to_vision.0.weight": (512, 768),
                                  "text_to_vision.0.bias": (512,)})  # fmt: skip


_LINEAR2: dict[str, tuple[int, ...]] = {"weight": (2, 512), "bias": (2,)}


def chief_reference(state: Arrays, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """The repository's WSI_feature: patch features by the attention over their projections."""
    return gated(state, "attention_net.3", np.maximum(linear(state, "attention_net.0", x), 0)) @ x


def madeleine_file(in_dim: int) -> dict[str, torch.Tensor]:
    """The tensors of MADELEINE with 4 heads, as DataParallel saves them."""
    shapes: dict[str, tuple[int, ...]] = {}
    for first, (wide, narrow) in zip((0, 4, 8), ((in_dim, 512), (512, 512), (512, 2048)), strict=True):
        shapes |= {f"pre_attn.{first}.weight": (narrow, wide), f"pre_attn.{first}.bias": (narrow,)}
        shapes |= {f"pre_attn.{first + 1}.weight": (narrow,), f"pre_attn.{first + 1}.bias": (narrow,)}
    for head in range(4):
        shapes |= gated_shapes(f"attn.{head}", 512, 512)
    shapes = {f"module.wsi_embedders.{name}": shape for name, shape in shapes.items()}
    shapes |= {"module.token_projector.weight": (128, 2048), "module.token_projector.bias": (128,)}
    return random_state(shapes | {"module.projector.weight": (512, 2048), "module.projector.bias": (512,)})


def madeleine_reference(state: Arrays, x: NDArray[np.float64]) -> NDArray[np.float64]:
    name = "module.wsi_embedders"
    for first in (0, 4, 8):
        x = linear(state, f"{name}.pre_attn.{first}", x)
        x = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        x = x * state[f"{name}.pre_attn.{first + 1}.weight"] + state[f"{name}.pre_attn.{first + 1}.bias"]
        x = x * (1 + erf(x / np.sqrt(2))) / 2
    pooled = np.stack([gated(state, f"{name}.attn.{c}", x[:, c::4]) @ x[:, c::4] for c in range(4)], axis=1)
    return linear(state, "module.projector", pooled.reshape(1, -1))[0]


PUBLISHED = {
    "feather": (feather_file, feather_reference),
    "feather-uni2-h": (feather_file, feather_reference),
    "feather-uni": (feather_file, feather_reference),
    "chief": (chief_file, chief_reference),
    "madeleine": (madeleine_file, madeleine_reference),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_layout_and_equations(name: str, tmp_path: Path) -> None:
    preset, (write, reference) = find_slide_preset(name), PUBLISHED[name]
    tensors = write(preset.in_dim)
    save_file(tensors, tmp_path / "w.safetensors")
    plan = plan_slide(name, tmp_path / "w.safetensors")
    x = np.random.default_rng(1).normal(size=(700, preset.in_dim))
    block = torch.from_numpy(x).float()
    embed = plan.open("cpu")
    found = embed(PatchRows(block.split(256))).numpy()
    expected = reference({key: value.double().numpy() for key, value in tensors.items()}, block.double().numpy())
    assert found.dtype == np.float32
    assert found.shape == (preset.dim,)
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4 * np.abs(expected).max())
    once, again = embed(PatchRows([block])).numpy(), embed(PatchRows(block.split(256))).numpy()
    assert np.array_equal(found, again)
    np.testing.assert_allclose(once, found, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_every_built_encoder_is_tested() -> None:
    assert {preset.name for preset in BUILT if "Pooling" in preset.network} == set(PUBLISHED)


@pytest.mark.parametrize("preset", BUILT, ids=lambda preset: preset.name)
def test_number_of_parameters(preset: Any) -> None:
    network = SlideLayoutPlan(preset).build("meta")
    assert sum(one.numel() for one in network.parameters()) / 1e6 == pytest.approx(preset.million, abs=0.06)


def test_tensors_must_fit(tmp_path: Path) -> None:
    tensors = feather_file(768)
    del tensors["model.global_attn.attention_c.bias"]
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(EncoderError, match=r"does not fit FEATHER.*1 missing \(attention.w.bias\)"):
        plan_slide("feather", tmp_path / "w.safetensors").open()


def test_pickled_weights_are_converted_if_they_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tensors = chief_file(768)
    torch.save(tensors, tmp_path / "CHIEF_pretraining.pth")
    with pytest.raises(EncoderError, match="safetensors"):
        plan_slide("chief", tmp_path / "CHIEF_pretraining.pth").open()
    words = ["encoders", "chief", "--convert", str(tmp_path / "CHIEF_pretraining.pth")]
    assert main(words) == 0
    written = tmp_path / "chief-slide.safetensors"
    assert f"embed-slides --model chief --weights {written}" in capsys.readouterr().out
    assert plan_slide("chief", written).open() is not None
    written.unlink()
    kept = {name: value for name, value in tensors.items() if "attention_c" not in name}
    for changed, said in (
        (kept, "CHIEF: tensors 2 missing (attention.w.weight, attention.w.bias)"),
        ({**tensors, "attention_net.0.bias": torch.ones(3)}, "1 of another shape (projection.bias: 3 instead of 512)"),
        ({**tensors, "attention_net.9.bias": torch.ones(3)}, "1 not in the model (attention_net.9.bias)"),
        (feather_file(768), "CHIEF: tensors 8 missing (projection.weight, projection.bias, attention.v.weight"),
    ):
        torch.save(changed, tmp_path / "CHIEF_pretraining.pth")
        assert main(words) == 2
        assert said in capsys.readouterr().err
        assert not list(tmp_path.glob("*.safetensors*"))


@pytest.mark.parametrize(
    ("encoder", "dim", "patch_px", "mpp", "refused"),
    [
        ("conch-v1.5", 768, 512, 0.5, ""),
        ("conch_v15", 768, 512, 0.52, ""),
        ("conch_v15", 768, 0, 0.0, ""),
        ("uni", 1024, 512, 0.5, "takes features of conch-v1.5, these are of uni"),
        ("conch_v15", 512, 512, 0.5, "takes features of 768 values"),
        ("conch-v1.5", 768, 512, 1.0, "trained on patches of 512 px at 0.5 mpp"),
        ("conch-v1.5", 768, 256, 0.5, "these have 256 px at 0.5 mpp"),
    ],
)
def test_features_of_others_are_refused(encoder: str, dim: int, patch_px: int, mpp: float, refused: str) -> None:
    plan = SlideLayoutPlan(find_slide_preset("feather"))
    if not refused:
        plan.check({"name": encoder, "dim": dim}, patch_px, mpp)
        return
    with pytest.raises(EncoderError, match=refused):
        plan.check({"name": encoder, "dim": dim}, patch_px, mpp)


@pytest.mark.parametrize("name", ["threads", "care"])
def test_what_is_not_built_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(EncoderError, match=f"not built here: {slide_zoo().presets[name].reason}"):
        plan_slide(name)


def test_unknown_names_and_facts() -> None:
    with pytest.raises(EncoderError, match="no slide encoder is called 'fether'") as error:
        plan_slide("fether")
    assert "feather" in str(error.value.todo)
    with pytest.raises(EncoderError, match="no slide encoder") as error:
        plan_slide("feather_uni_v2")
    assert "Did you mean feather-uni2-h?" in str(error.value.todo)
    with pytest.raises(EncoderError, match="no weights"):
        plan_slide("mean", Path("w.safetensors"))
    text = '[sources]\na = "b"\n[encoders.x]\ntitle = "X"\nencoders = ["uni"]\nflavour = 1\n'
    with pytest.raises(EncoderError, match="x has unknown keys"):
        read_slide_zoo(text)


def test_mean_is_summed_in_double_precision() -> None:
    x = torch.full((300_000, 2), 0.1)
    x[:, 1] = torch.arange(300_000)
    found = plan_slide("mean").open()(PatchRows(x.split(4096)))
    assert found.tolist() == [pytest.approx(0.1, rel=1e-7), 149_999.5]
