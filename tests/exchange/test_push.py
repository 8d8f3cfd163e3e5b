"""`push` against a hub on this machine: what arrives there, byte for byte, and what never does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session

from tests.stages.feature_runs import cohort, trained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.mil.deployed.model_card import model_card
from wsi_pipeline.mil.deployed.publish import nameless
from wsi_pipeline.mil.trained.checkpoint import load_ensemble

PATIENT = "patient-"


class FakeHub(BaseHTTPRequestHandler):
    """The calls of an upload: make a repository, ask how to upload, commit. Keeps what it is given."""

    files: dict[str, bytes]
    repos: list[dict[str, object]]
    tokens: set[str]
    refuse = False

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        type(self).tokens.add(str(self.headers.get("Authorization")))
        if self.refuse:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        answer: dict[str, object] = {}
        if self.path == "/api/repos/create":
            self.repos.append(json.loads(body))
            answer = {"url": f"http://{self.headers['Host']}/org/model", "id": "org/model", "name": "org/model"}
        elif "/preupload/" in self.path:
            names = [entry["path"] for entry in json.loads(body)["files"]]
            answer = {"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]}
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            host = f"http://{self.headers['Host']}"
            answer = {"commitUrl": f"{host}/org/model/commit/{'a' * 40}", "commitOid": "a" * 40, "success": True}
        else:
            answer = {"errors": [], "warnings": []}
        text = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Silent."""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeHub]]:
    handler = type("Hub", (FakeHub,), {"files": {}, "repos": [], "tokens": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_test")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = RunDir(tmp_path_factory.mktemp("push") / "wsi-run")
    records = cohort(run, PATIENT, 12, label=["no", "yes"] * 6)
    return trained(run, records).folder


def test_what_arrives(hub: type[FakeHub], model: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["push", "org/model", "--model", str(model), "--onnx"]) == 0
    said = capsys.readouterr().out
    folds = {f"fold{k}.safetensors" for k in range(2)}
    assert set(hub.files) == {
        "README.md", "config.json", "metrics.json", "model.json", "model.onnx", "novelty.safetensors", *folds
    }  # fmt: skip
    for name in hub.files:
        assert name in said
    assert hub.tokens == {"Bearer hf_of_a_test"}
    asked = hub.repos[0]
    assert asked.get("private") is True or asked.get("visibility") == "private", asked
    assert hub.files["README.md"] == (model / "model_card.md").read_bytes()
    for name, content in hub.files.items():
        assert PATIENT.encode() not in content, name
        (tmp_path / name).write_bytes(content)
    assert load_ensemble(tmp_path).fingerprint == load_ensemble(model).fingerprint
    assert "/commit/" in said
    assert said.splitlines()[-1].startswith("next: hf download org/model")


def test_names_only_on_request(hub: type[FakeHub], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "org/model", "--model", str(model), "--with-predictions"]) == 0
    assert hub.files["predictions.csv"] == (model / "predictions.csv").read_bytes()
    assert "they name 12 patients" in capsys.readouterr().out


def test_onnx_by_the_command_line(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--to", "onnx", "--model", str(model), "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "compared with ONNX Runtime: at most " in said
    assert said.splitlines()[-1].startswith("next: onnxruntime.InferenceSession(")
    assert json.loads((tmp_path / "model.json").read_text())["classes"] == ["no", "yes"]


def test_a_dry_run_calls_nobody(hub: type[FakeHub], model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["push", "org/model", "--model", str(model), "--dry-run"]) == 0
    assert "fold1.safetensors" in capsys.readouterr().out
    assert not hub.tokens


def test_refusals(
    hub: type[FakeHub], model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["push", "model", "--model", str(model)]) == 2
    assert "a repository is named ORG/NAME, got 'model'" in capsys.readouterr().err
    hub.refuse = True
    assert main(["push", "org/model", "--model", str(model)]) == 2
    assert "org/model answered 403" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    assert main(["push", "org/model", "--model", str(model)]) == 2
    assert "hf auth login" in capsys.readouterr().err


def test_the_card(model: Path) -> None:
    card = huggingface_hub.ModelCard.load(model / "model_card.md")
    metrics = json.loads((model / "metrics.json").read_text())
    assert card.data.library_name == "wsi-pipeline"
    measured = {result.metric_type: result.metric_value for result in card.data.eval_results}
    pooled = metrics["pooled"]
    assert measured["roc_auc"] == pooled["auroc"]["value"]
    assert measured["accuracy"] == pooled["accuracy"]["value"]
    low, high = pooled["auroc"]["low"], pooled["auroc"]["high"]
    assert f"| AUROC | {pooled['auroc']['value']:.3f} [{low:.3f}, {high:.3f}] | 0.500 |" in card.text
    assert "not a medical device" in card.text
    assert "12 slides of 12 patients" in card.text
    assert "Class yes: 6 slides, 6 patients" in card.text
    assert PATIENT not in card.content


def test_warnings_that_name_somebody_are_counted(model: Path) -> None:
    warnings = ["Only 12 patients tested: intervals are rough.", "s7 and case-9 have the same file."]
    metrics = {**json.loads((model / "metrics.json").read_text()), "warnings": warnings}
    text = model_card(load_ensemble(model), metrics, ["s7", "case-9"])
    assert "Only 12 patients tested: intervals are rough." in text
    assert "case-9" not in text
    assert "1 warning about single slides" in text
    published = nameless({**metrics, "left_out": {"s8": "empty"}}, ["s7", "case-9"])
    assert published["left_out"] == 1
    assert not any("case-9" in warning for warning in published["warnings"])
