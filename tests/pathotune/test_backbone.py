"""Backbones: opened from a file or refused, and known by their fingerprint."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from pathotune.backbone import BackboneCard, fingerprint, open_backbone
from pathotune.errors import BackboneError, ConfigError
from tests.pathotune.vits import images, small_vit

NAME, SMALL = "vit_tiny_patch16_224", {"depth": 1, "embed_dim": 48, "num_heads": 2}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small ViT with a classifier, in half precision."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file({name: value.half() for name, value in timm.create_model(NAME, **SMALL).state_dict().items()}, path)
    return path


def test_local_weights_are_raised_to_float32_without_their_head(weights: Path) -> None:
    vit, card = open_backbone(NAME, weights, arguments=SMALL)
    given = load_file(weights)
    assert {name for name in given if not name.startswith("head.")} == set(vit.state_dict())
    assert all(torch.equal(value, given[name].float()) for name, value in vit.state_dict().items())
    assert (card.input_px, card.name, card.arguments) == (224, NAME, SMALL)
    assert not vit.training
    assert torch.equal(vit(images(1, 224)), open_backbone(NAME, weights.parent, arguments=SMALL)[0](images(1, 224)))


def test_another_image_size_leaves_the_fingerprint(weights: Path) -> None:
    large, small = (open_backbone(NAME, weights, arguments=SMALL, input_px=side) for side in (224, 112))
    assert fingerprint(large[0]) == fingerprint(small[0])
    assert small[1].input_px == 112
    assert small[0](images(1, 112)).shape == (1, 48)


def test_real_weights_open(data_dir: Path) -> None:
    path = data_dir / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
    if not path.is_file():
        pytest.skip("the DeiT-Tiny weights are not among the real data here")
    vit, card = open_backbone("deit_tiny_patch16_224", path, input_px=112)
    assert sum(value.numel() for value in vit.parameters()) == 5_524_416
    assert card.mean == (0.485, 0.456, 0.406)


@pytest.mark.parametrize("side", [8, 100, -16])
def test_image_sides_off_the_patch_grid_are_refused(weights: Path, side: int) -> None:
    with pytest.raises(BackboneError, match="multiple of the patch side 16"):
        open_backbone(NAME, weights, arguments=SMALL, input_px=side)


def test_weights_that_do_not_fit_are_refused(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="does not fit"):
        open_backbone(NAME, weights, arguments={**SMALL, "depth": 2})
    with pytest.raises(BackboneError, match="missing"):
        open_backbone(NAME, tmp_path / "none.safetensors", arguments=SMALL)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(BackboneError, match="cannot be read"):
        open_backbone(NAME, tmp_path / "text.safetensors", arguments=SMALL)


@pytest.mark.parametrize(
    "arguments", [{"checkpoint_path": "x.pth"}, {"depth": 10**6}, {"embed_dim": "64"}, {"pretrained_cfg": {}}]
)
def test_arguments_that_do_not_shape_a_vit_never_reach_timm(weights: Path, arguments: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        open_backbone(NAME, weights, arguments=arguments)
    with pytest.raises(ConfigError):
        BackboneCard(NAME, 224, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), arguments=arguments)


def test_names_that_are_no_plain_vit_are_refused() -> None:
    with pytest.raises(BackboneError, match="unknown timm model 'vit_nobody'"):
        open_backbone("vit_nobody")
    with pytest.raises(BackboneError, match="plain"):
        open_backbone("resnet18", Path("x.safetensors"))


def test_fingerprint_knows_every_tensor_and_what_no_tensor_shows() -> None:
    plain = fingerprint(small_vit())
    assert fingerprint(small_vit()) == plain
    headed = small_vit(num_classes=5)
    with_head = fingerprint(headed)
    headed.reset_classifier(0)
    assert fingerprint(headed) == with_head
    for name in small_vit().state_dict():
        other = small_vit()
        with torch.no_grad():
            other.state_dict()[name].view(-1)[-1] += 1e-3
        assert fingerprint(other) != plain, name
    assert fingerprint(small_vit(num_heads=3)) != plain
    assert fingerprint(small_vit().half()) != plain
