"""From names to encoders: every form of name, wrong names, wrong weights, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from encoder_files import TimmFile

from wsi_pipeline.encoders.names import ENCODERS, encoder_info, family_of, open_encoder, plan_encoder
from wsi_pipeline.errors import EncoderError


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("colour", "colour"),
        ("resnet50", "timm"),
        ("vit_small_patch14_dinov2.lvd142m", "timm"),
        ("hf-hub:MahmoodLab/UNI", "timm"),
        ("facebook/dinov2-small", "huggingface"),
        ("./folder", "huggingface"),
        ("timm", "timm"),
        ("huggingface", "timm"),
    ],
)
def test_family_is_told_by_the_form_of_the_name(name: str, family: str) -> None:
    assert family_of(name) == family
    assert family in ENCODERS


def test_an_existing_folder_is_a_hugging_face_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mymodel").mkdir()
    monkeypatch.chdir(tmp_path)
    assert family_of("mymodel") == "huggingface"
    with pytest.raises(EncoderError, match=r"mymodel has no config\.json"):
        plan_encoder("mymodel")


@pytest.mark.parametrize(
    ("wrong", "suggested"),
    [
        ("resnet5O", "resnet50"),
        ("deit_tiny_patch16_24", "deit_tiny_patch16_224"),
        ("color", "colour"),
        ("test_vit.r160", "test_vit.r160_in1k"),
        ("timm", "Encoders are: pathotune, vit-mini, colour"),
    ],
)
def test_a_miss_suggests_what_was_meant(wrong: str, suggested: str) -> None:
    with pytest.raises(EncoderError, match=f"unknown encoder '{wrong}'") as caught:
        open_encoder(wrong)
    assert suggested in str(caught.value.todo)


@pytest.mark.parametrize("name", ["", " ", " colour", "colour "])
def test_blank_names_are_refused(name: str) -> None:
    with pytest.raises(EncoderError, match="spaces around it"):
        plan_encoder(name)


@pytest.mark.parametrize("name", ["a/b/c", "./nothing/here", "/nothing/here", "~/model", "a b/c"])
def test_what_is_neither_an_id_nor_a_folder_is_refused(name: str) -> None:
    with pytest.raises(EncoderError, match=r"neither a Hugging Face id|is not a Hugging Face id"):
        plan_encoder(name)


def test_weights_must_exist_and_make_sense(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="does not exist"):
        plan_encoder("test_vit", weights=tmp_path / "none.safetensors")
    with pytest.raises(EncoderError, match="colour has no weights"):
        plan_encoder("colour", weights=tmp_path)
    with pytest.raises(EncoderError, match="patch_px must be >= 1"):
        plan_encoder("colour", patch_px=0)


def test_facts_need_no_weights() -> None:
    info = encoder_info("vit_tiny_patch16_224")
    assert (info.family, info.input_px, info.dim, info.mpp) == ("timm", 224, 192, None)
    assert info.mean == info.std == (0.5, 0.5, 0.5)
    assert encoder_info("mobilenetv3_small_100").dim == 1024
    assert encoder_info("colour").input_px is None


def test_networks_of_free_size_take_patches_as_they_are(timm_file: TimmFile) -> None:
    assert encoder_info("resnet18", patch_px=256).input_px == 256
    assert encoder_info("resnet18").input_px == 224
    assert encoder_info("deit_tiny_patch16_224", patch_px=256).input_px == 224
    weights = timm_file("test_resnet")
    plans = [plan_encoder("test_resnet", weights=weights, patch_px=side) for side in (96, 160)]
    assert plans[0].fingerprint != plans[1].fingerprint


def run_python(*lines: str) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, "-c", "\n".join(lines)]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=300).stdout.strip()


def test_importing_the_registry_is_light() -> None:
    heavy = "('torch', 'timm', 'transformers', 'skimage', 'huggingface_hub')"
    printed = run_python(
        "import sys, wsi_pipeline.encoders.names, wsi_pipeline.encoders.encoder",
        f"print([name for name in {heavy} if name in sys.modules])",
    )
    assert printed == "[]"


def test_colour_needs_no_torch() -> None:
    printed = run_python(
        "import sys, numpy as np",
        "from wsi_pipeline.encoders.names import open_encoder",
        "features = open_encoder('colour').encode(np.zeros((2, 32, 32, 3), np.uint8))",
        "print(len(features), 'torch' in sys.modules)",
    )
    assert printed == "2 False"
