"""Slides that were archived after their stores were made are not failed: what they gave is there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import read_status


def test_a_run_whose_slides_were_archived_is_up_to_date(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, run = write_cohort(tmp_path, per_class=1, broken=False), ["--run", str(tmp_path / "run")]
    tile = ["tile", str(table), "--patch-px", "128", "--workers", "0", *run]
    assert main(tile) == 0
    assert main(["embed", "--model", "colour", *run]) == 0
    (tmp_path / "s0.svs").unlink()
    shutil.move(tmp_path / "s1.svs", tmp_path / "elsewhere")
    for words in (tile, ["segment", "--workers", "0", *run], ["embed", "--model", "colour", *run], ["status", *run]):
        assert main(words) == 0, words
    assert "2 up to date" in capsys.readouterr().out
    for name in ("s0", "s1"):
        status = read_status(RunDir(tmp_path / "run").status(name), name)
        states = {stage: one.state for stage, one in status.stages.items()}
        assert states == dict.fromkeys(("segment", "tile", "embed/colour"), "done")


def test_what_needs_the_pixels_of_an_archived_slide_fails_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, run = write_cohort(tmp_path, per_class=1, broken=False), ["--run", str(tmp_path / "run")]
    tile = ["tile", str(table), "--workers", "0", *run]
    assert main([*tile, "--patch-px", "128"]) == 0
    (tmp_path / "s0.svs").unlink()
    assert main([*tile, "--patch-px", "64"]) == 3
    assert "s0.svs" in capsys.readouterr().out
    assert main(["status", *run]) == 3
    assert main([*tile, "--patch-px", "128", "--only", "s0"]) == 0
    assert main(["status", "--only", "s0", *run]) == 0, "its stores for these settings are there"
