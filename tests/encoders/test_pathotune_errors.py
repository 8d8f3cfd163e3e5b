"""What is refused about adapters and their backbones, and how it is told: a line what, a line what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from pathotune import PathoTune, TaskText, open_backbone, save_adapter
from pathotune.adapters import configure
from tests.adapter_files import BACKBONE, write_adapter, write_backbone
from wsi_pipeline.encoders.names import ENCODERS, family_of, plan_encoder
from wsi_pipeline.encoders.pathotune import PathoTunePlan
from wsi_pipeline.errors import EncoderError


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No network, and a cache with nothing in it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "weights.safetensors")


@pytest.fixture
def adapter(tmp_path: Path, weights: Path) -> Path:
    return write_adapter(tmp_path / "adapter.safetensors", weights)


def refusal(adapter: Path, weights: Path | None = None) -> EncoderError:
    with pytest.raises(EncoderError) as caught:
        plan_encoder("pathotune", adapter=adapter, weights=weights).open("cpu", "fp32")
    assert "\n" not in caught.value.what
    assert caught.value.todo
    assert "\n" not in caught.value.todo
    return caught.value


@pytest.mark.parametrize("name", ["pathotune", "pathotune:mine", "vit-mini"])
def test_names_have_families(name: str) -> None:
    assert family_of(name) == name.partition(":")[0]
    assert family_of(name) in ENCODERS


def test_a_name_needs_its_adapter_and_others_take_none(adapter: Path) -> None:
    with pytest.raises(EncoderError, match="encoder pathotune:mine needs its adapter file"):
        plan_encoder("pathotune:mine")
    with pytest.raises(EncoderError, match="needs a name after the colon"):
        plan_encoder("pathotune:", adapter=adapter)
    for name in ("colour", "vit-mini", "test_vit"):
        with pytest.raises(EncoderError, match=f"encoder {name} takes no adapter"):
            plan_encoder(name, adapter=adapter)


def test_a_missing_adapter(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.safetensors")
    assert error.what == f"adapter {tmp_path / 'none.safetensors'} is missing"
    assert "--adapter FILE" in str(error.todo)


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "weights"])
def test_a_damaged_adapter(adapter: Path, weights: Path, damage: str) -> None:
    whole = adapter.read_bytes()
    contents = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"x" * 300, "weights": weights.read_bytes()}
    adapter.write_bytes(contents[damage])
    assert str(adapter) in refusal(adapter).what


def test_a_tensor_that_is_not_finite(adapter: Path) -> None:
    whole = bytearray(adapter.read_bytes())
    whole[-4:] = b"\x00\x00\xc0\x7f"
    adapter.write_bytes(bytes(whole))
    assert "NaN" in refusal(adapter).what


def test_other_weights_given(adapter: Path, tmp_path: Path) -> None:
    error = refusal(adapter, write_backbone(tmp_path / "other.safetensors", seed=5))
    assert f"was tuned on {BACKBONE} with other weights" in error.what
    assert str(tmp_path / "other.safetensors") in error.what
    assert "--weights FILE" in str(error.todo)


def test_weights_of_another_network_given(adapter: Path, tmp_path: Path, weights: Path) -> None:
    tensors = load_file(weights)
    tensors.pop("cls_token")
    save_file(tensors, tmp_path / "odd.safetensors")
    assert "does not fit this backbone" in refusal(adapter, tmp_path / "odd.safetensors").what


def test_weights_that_are_gone(adapter: Path, tmp_path: Path) -> None:
    own = write_backbone(tmp_path / "own.safetensors", seed=2)
    path = write_adapter(tmp_path / "a.safetensors", own)
    plan_encoder("pathotune", adapter=path).open("cpu", "fp32")
    own.unlink()
    error = refusal(path)
    assert f"backbone {BACKBONE} of adapter {path}: model.safetensors of timm/test_vit" in error.what
    assert "--weights FILE" in str(error.todo)


@pytest.mark.parametrize("recorded", ["x" * 5000, "null\0"])
def test_what_an_adapter_claims_of_its_making_is_no_trap(tmp_path: Path, weights: Path, recorded: str) -> None:
    network, card = open_backbone(BACKBONE, weights, input_px=64)
    model, path = PathoTune(configure("linear", classes=("a", "b")), network), tmp_path / "a.safetensors"
    save_adapter(path, model, card, provenance={"mpp": 0.5, "patch_px": 10**400, "weights": recorded, "groups": 3})
    plan = PathoTunePlan("pathotune", path, None)
    assert plan.fit_note(256, 0.5) == ""
    assert "patches of" not in "".join(plan.about())


def test_weights_that_were_replaced_are_not_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    own = write_backbone(tmp_path / "own.safetensors", seed=2)
    path = write_adapter(tmp_path / "a.safetensors", own)
    kept = own.rename(tmp_path / "kept.safetensors")
    write_backbone(own, seed=3)
    with caplog.at_level("INFO", logger="wsi_pipeline.encoders.pathotune"):
        refusal(path)
    assert "its weights are different" in caplog.text
    plan_encoder("pathotune", adapter=path, weights=kept).open("cpu", "fp32")


def test_the_fingerprint_is_of_tensors_configuration_and_backbone(tmp_path: Path, weights: Path) -> None:
    other = write_backbone(tmp_path / "other.safetensors", seed=1)

    def print_of(name: str, *args: Path, **fields: object) -> str:
        path = write_adapter(tmp_path / f"{name}.safetensors", *(args or (weights,)), **fields)  # type: ignore[arg-type]
        return plan_encoder("pathotune", adapter=path).fingerprint

    first = print_of("a")
    assert first == print_of("b", patches={"patch_px": 256})
    changed = [
        print_of("c", seed=1),
        print_of("d", other),
        print_of("e", prompt_dropout=0.5),
        print_of("f", classes=("stroma", "fat", "tumour")),
    ]
    assert len({first, *changed}) == 5


def test_an_adapter_for_several_tasks_cannot_know_which(tmp_path: Path, weights: Path) -> None:
    network, card = open_backbone(BACKBONE, weights, input_px=64)
    config = configure("pathotune", classes=("a", "b"), tasks=(TaskText(task="nuclei"), TaskText(task="tumour")))
    from torch import zeros

    save_adapter(tmp_path / "two.safetensors", PathoTune(config, network, zeros(2, 8, 12)), card)
    assert "tuned for 2 tasks (nuclei, tumour)" in refusal(tmp_path / "two.safetensors").what


def test_without_classes_it_embeds_but_does_not_classify(tmp_path: Path, weights: Path) -> None:
    plan = PathoTunePlan("pathotune", write_adapter(tmp_path / "a.safetensors", weights, classes=()), None)
    plan.open("cpu", "fp32")
    with pytest.raises(EncoderError, match="has no classes"):
        plan.open_classifier("cpu", "fp32")


def test_texts_in_an_adapter_need_no_transformers(adapter: Path) -> None:
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("transformers", "peft", "tokenizers"):
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Blocked())
import numpy as np
from pathlib import Path
from wsi_pipeline.encoders.names import open_encoder
encoder = open_encoder("pathotune", adapter=Path({str(adapter)!r}), device="cpu", precision="fp32")
print(encoder.encode(np.full((2, 64, 64, 3), 128, np.uint8)).shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "(2, 128)", done.stderr
