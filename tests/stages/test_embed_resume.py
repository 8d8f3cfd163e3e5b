"""`embed` killed in the middle of a slide and run again: the same bytes as undisturbed, and no patch done twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.encoders.encoder_files import save_timm
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.store.tables.partial import read_partial

MODEL = "test_vit"
KEEPING = "import sys, wsi_pipeline.stages.streaming.slide_rows as r; r.KEEP_SECONDS = 0.0; "
SLOWLY = (
    "import time, wsi_pipeline.encoders.torch_encoder as t; old = t.TorchEncoder._begin; "
    "t.TorchEncoder._begin = lambda self, batch: (time.sleep(0.15), old(self, batch))[1]; "
)
CALL = "from wsi_pipeline.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def cohort(tmp_path: Path) -> tuple[Path, list[str]]:
    """A tiled run, and the words of the embed command without its run folder."""
    csv = write_cohort(tmp_path / "cohort", per_class=1, broken=False)
    weights = save_timm(tmp_path / "w.safetensors", MODEL)
    tile = ["tile", str(csv), "--run", str(tmp_path / "calm"), "--patch-px", "64", "--workers", "0", "--quiet"]
    assert main(tile) == 0
    shutil.copytree(tmp_path / "calm", tmp_path / "rough")
    return tmp_path, ["embed", "--model", MODEL, "--weights", str(weights), "--batch", "7", "--device", "cpu"]


def test_killed_in_the_middle_of_a_slide(cohort: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    folder, words = cohort
    assert main([*words, "--run", str(folder / "calm")]) == 0
    whole = _patches(capsys.readouterr().out)
    partial = folder / "rough" / "embed" / MODEL / ".s0.partial"
    kept = []
    for _ in range(2):  # killed, and killed again while it goes on
        kept.append(_kill_at(partial, [*words, "--run", str(folder / "rough")], more_than=max(kept, default=0)))
    assert kept[1] > kept[0] > 0
    assert main([*words, "--run", str(folder / "rough")]) == 0
    assert _patches(capsys.readouterr().out) == whole - kept[1], "it says only what is left to do"
    for calm in sorted((folder / "calm" / "embed").rglob("*.h5")):
        assert (folder / "rough" / calm.relative_to(folder / "calm")).read_bytes() == calm.read_bytes()
    assert not list((folder / "rough" / "embed").rglob(".*"))


def _kill_at(partial: Path, words: list[str], more_than: int = 0) -> int:
    """Run a command until it has kept more rows than that, kill it, and say how many there are."""
    process = subprocess.Popen(
        [sys.executable, "-c", KEEPING + SLOWLY + CALL, *words], stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        deadline = time.monotonic() + 300
        while _rows(partial) <= more_than:
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return _rows(partial)


def _rows(partial: Path) -> int:
    found = read_partial(partial)
    return len(found[1]) if found else 0


def _patches(out: str) -> int:
    line = [line for line in out.splitlines() if line.startswith("embed ")][-1]
    return int(line.split("/")[1].split(" patches")[0].replace(" ", ""))
