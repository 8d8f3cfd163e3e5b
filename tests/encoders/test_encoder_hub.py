"""Weights from the cache and the hub: a local server in its place, gated, missing, silent and offline."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from encoder_files import TimmFile, save_huggingface
from hub_server import ask, hub_serving
from huggingface_hub.utils import close_session

from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.names import open_encoder
from wsi_pipeline.errors import EncoderError

OFFLINE = """
import sys
sys.path.insert(0, sys.argv[1])
from hub_server import ask
print(ask(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory, timm_file: TimmFile) -> Path:
    """A hub's content: one timm model, one model with pickled weights only, one of transformers."""
    root = tmp_path_factory.mktemp("repositories")
    listed = root / "timm" / "test_vit.r160_in1k"
    listed.mkdir(parents=True)
    (listed / "model.safetensors").write_bytes(timm_file("test_vit", 3).read_bytes())
    pickled = root / "timm" / "test_resnet.r160_in1k"
    pickled.mkdir()
    (pickled / "pytorch_model.bin").write_bytes(b"pickle")
    save_huggingface(root / "someone" / "tiny-vit", "vit")
    return root


@pytest.fixture(scope="module")
def endpoint(repositories: Path) -> Iterator[str]:
    with hub_serving(repositories) as address:
        yield address


def line(text: str, start: str) -> str:
    """The line of `text` that begins with `start`."""
    found = [part for part in text.splitlines() if part.startswith(start)]
    assert found, text
    return found[0]


PLACE = "/{repo_id}/resolve/{revision}/{filename}"
HERE = ("test_vit", "someone/tiny-vit")
REFUSED = ("hf-hub:gated/uni", "gated/model", "nobody/nothing", "test_resnet", "timm/test_vit.r160_in1k")
ELSEWHERE = ("test_efficientnet", "hf-hub:MahmoodLab/UNI", "facebook/dinov2-small")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory, endpoint: str) -> tuple[str, str]:
    """What is said online, and in a fresh process after it, with the same cache, offline."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", endpoint + PLACE)
        patch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "hub"))
        patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        for name in os.environ:
            if name == "HF_HUB_OFFLINE" or name.lower().endswith("_proxy"):
                patch.delenv(name)
        close_session()  # of before, with a proxy perhaps
        online = ask([*HERE, *REFUSED])
    done = subprocess.run(
        [sys.executable, "-c", OFFLINE, str(Path(__file__).parent), *HERE, *ELSEWHERE],
        env={**os.environ, "HF_HOME": str(cache), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return online, done.stdout


def test_downloaded_once_then_taken_from_the_cache(said: tuple[str, str]) -> None:
    first, again = said
    assert "downloading model.safetensors (" in first
    assert "MB) from https://huggingface.co/timm/test_vit.r160_in1k" in first
    assert "downloading" not in again
    for name in HERE:
        assert line(again, f"OPENED {name}") == line(first, f"OPENED {name}")


def test_refusals_say_what_to_do(said: tuple[str, str]) -> None:
    text = said[0]
    for name in ("hf-hub:gated/uni", "gated/model"):
        told = line(text, f"REFUSED {name}")
        assert "is gated" in told
        assert "huggingface-cli login" in told
        assert "--weights FOLDER" in told
    assert "is not on the Hugging Face hub, or it is private" in line(text, "REFUSED nobody/nothing")
    pickled = line(text, "REFUSED test_resnet")
    assert "no model.safetensors" in pickled
    assert "weights_only=True" in pickled
    assert "has no config.json" in line(text, "REFUSED timm/test_vit.r160_in1k")


def test_offline_says_which_file_to_bring(said: tuple[str, str]) -> None:
    text = said[1]
    listed = line(text, "REFUSED test_efficientnet")
    assert "HF_HUB_OFFLINE forbids the network" in listed
    assert "Download model.safetensors from https://huggingface.co/timm/test_efficientnet.r160_in1k" in listed
    assert "--weights FILE" in listed
    assert "HF_HOME" in listed
    assert "config.json and model.safetensors" in line(text, "REFUSED hf-hub:MahmoodLab/UNI")
    assert "preprocessor_config.json" in line(text, "REFUSED facebook/dinov2-small")


@pytest.fixture
def silent() -> Iterator[str]:
    """Address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize(
    ("kind", "reason"), [("refused", "refused"), ("unknown", r"not known|resolve"), ("silent", r"timed out|no answer")]
)
def test_without_a_network_the_answer_comes_soon(
    kind: str, reason: str, silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = {"refused": "http://127.0.0.1:9", "unknown": "http://no-such-host.invalid", "silent": silent}[kind]
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", address + PLACE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with pytest.raises(EncoderError, match=f"cannot be downloaded: .*({reason})") as caught:
        open_encoder("test_vit", device="cpu")
    assert hub.ASK_SECONDS <= hub.GIVE_UP_SECONDS <= 15
    assert "--weights FILE, or set HF_HOME" in str(caught.value.todo)


def test_a_call_that_hangs_is_given_up() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        hub._within(0.2, never.wait)
    never.set()


def test_results_and_errors_pass_through() -> None:
    def fail() -> None:
        raise KeyError("inner")

    assert hub._within(5, lambda: 7) == 7
    with pytest.raises(KeyError, match="inner"):
        hub._within(5, fail)
