"""The next command is named where it can be run, and not where nothing was made for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main


@pytest.mark.parametrize("good", [True, False])
def test_embed_names_training_only_if_there_are_features(
    good: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = write_cohort(tmp_path / "slides", per_class=1, broken=False)
    for slide in () if good else (tmp_path / "slides").glob("*.svs"):
        slide.write_bytes(slide.read_bytes()[:500])
    run, code = ["--run", str(tmp_path / "run")], 0 if good else 3
    assert main(["tile", str(table), "--workers", "0", *run]) == code
    capsys.readouterr()
    assert main(["embed", "--model", "colour", *run]) == code
    assert ("next: wsi-pipeline train-mil" in capsys.readouterr().out) is good
