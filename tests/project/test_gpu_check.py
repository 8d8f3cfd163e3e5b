"""The script that measures a GPU runs to its end on a CPU, and refuses a device that is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.py"


def check(*words: str) -> subprocess.CompletedProcess[str]:
    """The script with these words."""
    return subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_every_part_has_its_rows(tmp_path: Path) -> None:
    ran = check("--device", "cpu", "--small", "--out", str(tmp_path / "table.md"))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = (tmp_path / "table.md").read_text()
    for words in ("the stage `embed`", "JPEG patches decoded", "slide-level training", "tune, pathotune"):
        assert words in table
    assert "largest difference 0 grey values" in table


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    ran = check("--out", str(tmp_path / "table.md"))
    assert ran.returncode == 2
    assert "no CUDA device" in ran.stderr
    assert not (tmp_path / "table.md").exists()
