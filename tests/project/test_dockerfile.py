"""The Dockerfile does what README.md says, with files that are in the repository."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LINES = [line.strip() for line in (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()]


def test_it_installs_as_the_readme_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (command,) = (line.partition("#")[0].strip() for line in readme.splitlines() if line.startswith("    pip install"))
    assert f"RUN {command}" in LINES


def test_what_it_copies_is_tracked() -> None:
    for line in (line for line in LINES if line.startswith("COPY ")):
        for source in shlex.split(line)[1:-1]:
            tracked = subprocess.run(["git", "ls-files", source], cwd=ROOT, capture_output=True, text=True, check=True)
            assert tracked.stdout, source


def test_its_steps_can_be_read() -> None:
    """And an argument that it does not have is refused."""
    command = [sys.executable, ROOT / ".ci/dockerfile-steps", "--dry-run"]
    done = subprocess.run([*command, "--build-arg", "DEVICE=cuda"], capture_output=True, text=True, check=True)
    assert "-- RUN pip install -c constraints.txt ." in done.stdout
    assert done.stdout.endswith("4 RUN steps read\n")
    unknown = subprocess.run([*command, "--build-arg", "COLOUR=red"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 1
    assert "no ARG COLOUR" in unknown.stderr


@pytest.mark.slow
def test_its_steps_run_with_the_packages_that_are_here() -> None:
    """All but the downloads, which take minutes; `make test` has just installed the package itself."""
    command = [sys.executable, ROOT / ".ci/dockerfile-steps", "--installed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert re.search(r"Successfully installed .*wsi-pipeline", done.stdout)
    assert "usage: wsi-pipeline" in done.stdout
    assert done.stdout.rstrip().endswith("4 RUN steps done")


@pytest.mark.slow
def test_its_steps_run() -> None:
    """Needs 6 GB of disk for a while and the packages of constraints.txt."""
    done = subprocess.run([sys.executable, ROOT / ".ci/dockerfile-steps"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.rstrip().endswith("4 RUN steps done")
