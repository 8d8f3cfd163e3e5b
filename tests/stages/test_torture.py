"""Killed, shared and cut short at random, a run ends as one that nobody disturbed: `make torture` in its quick form."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.torture.cohort import write_cohort
from benchmarks.torture.compare import differences, left_over
from benchmarks.torture.together import made_twice
from tests.conftest import ROOT

QUICK = {
    "kills": ["--kills", "1", "--slides", "3", "--only", "tile,embed,train-mil", "--encoder", "colour"],
    "together": ["--kills", "3", "--slides", "3", "--steps", "tile", "--encoder", "colour", "--pause", "0.6"],
    "disk": ["--cases", "40"],
}


@pytest.mark.parametrize("part", list(QUICK))
def test_a_part_in_its_quick_form(part: str) -> None:
    words = [sys.executable, "-m", f"benchmarks.torture.{part}", *QUICK[part]]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_all_parts_and_all_stages() -> None:
    words = [sys.executable, "-m", "benchmarks.torture", "--quick"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_comparison_notices_what_changed_is_missing_or_was_left(tmp_path: Path) -> None:
    for run in ("a", "b"):
        (tmp_path / run / "tile").mkdir(parents=True)
        (tmp_path / run / "tile" / "x.h5").write_text(run)
        (tmp_path / run / "tile" / "same.json").write_text(f'{{"seconds": "{run}", "n": 1}}')
    (tmp_path / "a" / "tile" / "y.h5").write_text("only here")
    (tmp_path / "b" / "locks" / "tile").mkdir(parents=True)
    (tmp_path / "b" / "locks" / "tile" / "x.lock").touch()
    (tmp_path / "b" / "tile" / ".x.h5.0.host.0.1-1.tmp").touch()
    found = differences(tmp_path / "a", tmp_path / "b")
    assert found == [
        "tile/.x.h5.0.host.0.1-1.tmp",
        "tile/x.h5",
        "tile/y.h5",
        "b: left over: locks/tile/x.lock",
        "b: left over: tile/.x.h5.0.host.0.1-1.tmp",
    ]


def test_two_hosts_share_a_run(tmp_path: Path) -> None:
    """Each in a space of process numbers and with a host name of its own: neither can see whether the other lives."""
    csv, run = write_cohort(tmp_path / "cohort", 8, side=384, distinct=2), tmp_path / "run"
    tile = f"{sys.executable} -m wsi_pipeline tile {csv} --patch-px 64 --workers 1 --run {run}"
    apart = ["unshare", "-u", "-p", "-f", "--mount-proc", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*apart, "hostname x"], capture_output=True).returncode:
        pytest.skip("host names cannot be changed here (needs root)")
    words = [[*apart, f"hostname {name}; {tile}"] for name in ("one", "other")]
    processes = [subprocess.Popen(word, stdout=subprocess.DEVNULL, cwd=ROOT) for word in words]
    assert [process.wait(600) for process in processes] == [0, 0]
    assert made_twice(run) == {}
    assert left_over(run) == []
    assert len(list((run / "tile").glob("*.h5"))) == 8
