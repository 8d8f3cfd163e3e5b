"""What comes with the package: it opens without a network, is small, fits together, and does what its cards say."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from pathotune.backbone import check_plain, count_parameters, fingerprint, open_backbone
from pathotune.builtin import VIT_MINI, default_adapter_path, vit_mini, vit_mini_path
from pathotune.checkpoint import load_adapter, read_adapter, save_adapter
from pathotune.config import PathoTuneConfig
from pathotune.errors import AdapterError
from pathotune.model import PathoTune
from tests.pathotune.vits import OFF, images
from wsi_pipeline.demo.tissue import synthetic_tissue
from wsi_pipeline.slides.open import open_slide

CARDS = {"VIT_MINI.md": vit_mini_path(), "ADAPTER.md": default_adapter_path()}
UNSEEN = range(9000, 9006)
"""Seeds of synthetic tissue that nothing in the package was made from."""


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection can be opened."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a network connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def normalised(pixels: np.ndarray, side: int) -> torch.Tensor:
    """uint8 (B, h, w, 3) to what the built-in backbone takes."""
    _, card = vit_mini()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
    found = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    return (F.interpolate(found, (side, side), mode="bicubic", antialias=True) - mean) / std


def test_finding_the_files_imports_no_torch() -> None:
    code = "import sys; from pathotune.builtin import vit_mini_path; vit_mini_path(); print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=300)
    assert found.stdout.strip() == "False"


@pytest.mark.usefixtures("no_network")
def test_backbone_opens_by_its_name_alone_and_without_a_network() -> None:
    vit, card = open_backbone(VIT_MINI)
    assert check_plain(vit) is vit
    assert (card.name, card.input_px, card.arguments) == ("vit-mini", 224, {})
    assert (len(vit.blocks), vit.embed_dim, vit.training) == (6, 192, False)
    assert vit(images(1, 224)).shape == vit(images(1, 112)).shape == (1, 192)


def test_files_are_as_small_as_promised() -> None:
    assert vit_mini_path().stat().st_size < 8e6
    assert default_adapter_path().stat().st_size < 3e6
    assert count_parameters(vit_mini()[0]) == 2_855_232


def test_fingerprint_is_that_of_the_file_in_full_precision(tmp_path: Path) -> None:
    vit, card = vit_mini()
    stored = load_file(vit_mini_path())
    assert {value.dtype for value in stored.values()} == {torch.float16}
    assert all(torch.equal(value, stored[name].float()) for name, value in vit.state_dict().items())
    again, _ = open_backbone(card.name, vit_mini_path(), input_px=112, arguments=card.arguments)
    assert fingerprint(again) == fingerprint(vit) == read_adapter(default_adapter_path()).fingerprint


def test_an_adapter_saved_on_it_loads_from_its_own_card(tmp_path: Path) -> None:
    vit, card = vit_mini()
    torch.manual_seed(0)
    model = PathoTune(PathoTuneConfig(classes=("a", "b"), **{**OFF, "tvp_tokens": 3}), vit).eval()
    save_adapter(tmp_path / "a.safetensors", model, card)
    known = read_adapter(tmp_path / "a.safetensors").backbone
    backbone, _ = open_backbone(known.name, input_px=known.input_px, arguments=known.arguments)
    again = load_adapter(tmp_path / "a.safetensors", backbone)
    assert torch.equal(again.logits(images(2, 112)), model.logits(images(2, 112)))


@pytest.mark.usefixtures("no_network")
def test_default_adapter_needs_no_network_and_no_other_backbone() -> None:
    path = default_adapter_path()
    info = read_adapter(path)
    assert info.backbone.name == VIT_MINI
    assert {"mpp", "patch_px", "method", "source"} <= set(info.provenance)
    assert (info.provenance["method"], info.provenance["patch_px"]) == ("pathotune", 256)
    assert not re.search(r"/(tmp|home|root|work)\b", str(info.provenance))
    model = load_adapter(path, vit_mini()[0])
    assert model.config.classes == ("fat", "gland", "lymphoid", "stroma", "tumour")
    assert model.trained_fraction() <= 0.059
    with pytest.raises(AdapterError, match="vit-mini"):
        load_adapter(path, open_backbone(VIT_MINI, vit_mini_path(), arguments={"qkv_bias": 1, "num_heads": 6})[0])


def test_default_adapter_tells_tumour_from_glands_on_tissue_it_never_saw() -> None:
    info = read_adapter(default_adapter_path())
    model = load_adapter(default_adapter_path(), vit_mini()[0])
    wanted, found = [], []
    for seed in UNSEEN:
        for tumour in (False, True):
            picture = synthetic_tissue(512, seed, tumour=tumour, site=seed % 3)
            parts = np.stack([picture[y : y + 256, x : x + 256] for y in (0, 256) for x in (0, 256)])
            with torch.inference_mode():
                chances = model.logits(normalised(parts, info.backbone.input_px)).softmax(1)
            found += (chances[:, info.config.classes.index("tumour")] > 0.5).tolist()
            wanted += [tumour] * len(parts)
    assert np.mean(np.array(wanted) == np.array(found)) >= 0.85


def test_cards_name_their_file_and_its_scores() -> None:
    for card, path in CARDS.items():
        text = path.with_name(card).read_text(encoding="utf-8")
        assert path.name in text
        assert "Apache-2.0" in text
        assert "no diagnosis" in text
    pooled = read_adapter(default_adapter_path()).metrics["pooled"]
    text = (default_adapter_path().parent / "ADAPTER.md").read_text(encoding="utf-8")
    for name in ("accuracy", "macro_f1"):
        assert f"{pooled[name]['value']:.3f}" in text, name


def test_backbone_gives_nearly_the_tokens_of_its_teacher_on_a_slide_held_out(data_dir: Path) -> None:
    weights = data_dir / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
    slide_path = data_dir / "slides" / "TCGA-CR-7395-01A-01-TS1.svs"
    if not weights.is_file() or not slide_path.is_file():
        pytest.skip("DeiT-Tiny or the slide that was held out is not among the real data here")
    with open_slide(slide_path) as slide:
        parts = np.stack([slide.read_region(x, 1200, 0, 448, 448) for x in range(800, 3400, 448)])
    pixels, teacher = normalised(parts, 224), open_backbone("deit_tiny_patch16_224", weights)[0]
    with torch.inference_mode():
        cosine = F.cosine_similarity(vit_mini()[0](pixels), teacher(pixels))
    assert float(cosine.mean()) > 0.8
