"""The log of a run, for people and for machines: slides, levels, a summary at the end, and never a secret."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.commands.shell.logfile import log_to
from wsi_pipeline.errors import SlideError
from wsi_pipeline.system.redaction import REDACTED, redact

TOKEN = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"
_WORDS = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=16, max_size=40)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cohort(tmp_path_factory.mktemp("logs"), per_class=1)


def _lines(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "logs" / "run.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("workers", ["0", "2"])
def test_both_logs_tell_of_every_slide_and_end_with_a_summary(cohort: Path, tmp_path: Path, workers: str) -> None:
    run = tmp_path / "r"
    assert main(["tile", str(cohort), "--run", str(run), "--workers", workers, "--log-json", "--quiet"]) == 3
    text = (run / "logs" / "run.log").read_text()
    assert re.search(r"ERROR +torn: segment failed: truncated TIFF", text)
    assert re.search(r"INFO +ended after \d+\.\d s; segment: 3 made, 1 failed; tile: 3 made$", text, re.M)
    lines = _lines(run)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    told = {(line["slide"], line["stage"], line["action"]) for line in lines if "action" in line}
    assert {("s0", "segment", "made"), ("s0", "tile", "made"), ("torn", "segment", "failed")} <= told
    assert next(line for line in lines if line.get("slide") == "torn")["level"] == "error"
    last = lines[-1]["summary"]
    assert isinstance(last, dict)
    assert (last["ended"], last["stages"]) == ("ended", {"segment": {"made": 3, "failed": 1}, "tile": {"made": 3}})
    main(["tile", str(cohort), "--run", str(run), "--workers", workers, "--log-json", "--quiet"])
    again = _lines(run)[-1]["summary"]
    assert isinstance(again, dict)
    assert again["stages"]["tile"] == {"fresh": 3}


def test_without_the_option_there_is_no_log_for_machines(cohort: Path, tmp_path: Path) -> None:
    assert main(["segment", str(cohort), "--run", str(tmp_path / "r"), "--only", "s0", "--workers", "0"]) == 0
    assert not (tmp_path / "r" / "logs" / "run.jsonl").exists()


def test_an_error_that_ends_a_command_is_in_both_with_its_traceback(tmp_path: Path) -> None:
    paths = {"path": tmp_path / "a.log", "json_path": tmp_path / "a.jsonl"}
    with pytest.raises(SlideError), log_to(command="x", show=print, **paths):
        try:
            raise SlideError(f"bad {TOKEN}", slide="s1")
        except SlideError as error:
            logging.getLogger("wsi_pipeline.cli").error("%s", error, exc_info=error)
            raise
    for path in paths.values():
        text = path.read_text()
        assert "Traceback" in text
        assert "stopped after" in text
        assert TOKEN not in text
        assert REDACTED in text


def test_tokens_reach_no_log_and_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_REGISTRY_PASSWORD", "correct-horse-battery")
    with log_to(tmp_path / "a.log", f"wsi-pipeline embed --token {TOKEN}", print, json_path=tmp_path / "a.jsonl"):
        log = logging.getLogger("wsi_pipeline.encoders.hub")
        log.info("GET https://u:correct-horse-battery@host/x with Authorization: Bearer %s", TOKEN)
        log.info("HF_TOKEN=%s in the environment", TOKEN)
    for text in ((tmp_path / "a.log").read_text(), (tmp_path / "a.jsonl").read_text(), capsys.readouterr().out):
        assert TOKEN not in text
        assert "correct-horse" not in text
        assert REDACTED in text


@pytest.mark.parametrize(
    "frame",
    ["{}", "Bearer {}", "Authorization: Bearer {}", "HF_TOKEN={}", 'token: "{}"', "{{'api_key': '{}'}}", "a {}\nb",
     "?token={}&x=1", "--hub-token {}", "https://me:{}@host.org/a"],
)  # fmt: skip
@given(word=_WORDS)
def test_a_token_is_redacted_wherever_it_stands(frame: str, word: str) -> None:
    token = f"hf_{word}"
    assert word not in redact(frame.format(token), {})


@given(word=_WORDS)
def test_values_of_secret_variables_are_redacted_whatever_they_look_like(word: str) -> None:
    assert redact(f"x{word}y", {"AWS_SECRET": word}) == f"x{REDACTED}y"
    assert redact(f"x{word}y", {"COLOUR": word}) == f"x{word}y"


@pytest.mark.parametrize(
    "text",
    [
        "s01: tile made, done",
        "encoder token count 197",
        "tensors 1 of another shape (cls_token: 1 x 1 x 4 instead of 1 x 1 x 384)",
        "class token is the feature",
        "the token pooled",
        "basic settings",
        "https://huggingface.co/org/model/resolve/main/a.safetensors",
        "region at (256, 128), level 0 does not decode",
    ],
)
def test_plain_messages_stay_as_they_are(text: str) -> None:
    assert redact(text, {}) == text
