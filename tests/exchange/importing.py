"""What tests of `wsi-pipeline import` begin with: a slide in the folder, and the command."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.exchange import foreign_files as files
from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.cli import main


def slide(name: str, width: int = files.WIDTH, height: int = files.HEIGHT, mpp: float | None = 0.5) -> Path:
    """`slides/NAME.svs` of a size."""
    Path("slides").mkdir(exist_ok=True)
    return write_pyramid_tiff(Path("slides", f"{name}.svs"), tissue_like(width, height), mpp=mpp)


def imported(*words: str, code: int = 0, capsys: pytest.CaptureFixture[str] | None = None) -> str:
    """`import` with these words, ended with `code`; all it printed if `capsys` is given."""
    assert main(["import", *words]) == code
    return "".join(capsys.readouterr()) if capsys else ""
