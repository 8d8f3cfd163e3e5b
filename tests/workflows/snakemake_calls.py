"""Calls of snakemake as a user types them, and what its output says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


_ENDED = "ended with exit code"

_IN_TURN = f"""
import json, sys
from pathlib import Path
from snakemake.cli import main
for files, words in json.load(sys.stdin):
    for name, text in files.items():
        Path(name).write_text(text)
    try:
        main(words)
    except SystemExit as stop:
        print("{_ENDED}", stop.code or 0, flush=True)
"""


def snakemake(
    folder: Path, profile: str, *words: str, path: Path | None = None, timeout: float = 1800
) -> subprocess.CompletedProcess[str]:
    """Run the workflow in `folder` with one of the profiles; output and errors come in one text.

    path   a folder to look for commands in first
    """
    command = [sys.executable, "-m", "snakemake", *_words(profile), *words]
    return _run(command, folder, path=path, timeout=timeout)


def in_turn(folder: Path, *runs: tuple[Mapping[str, str], list[str]]) -> list[tuple[int, str]]:
    """Exit code and output of calls with the local profile that do little: in one process, which starts but once.

    runs   files to write first, by name; words of the command
    """
    told = json.dumps([(files, [*_words("local"), *words]) for files, words in runs])
    done = _run([sys.executable, "-c", _IN_TURN], folder, told=told)
    parts = re.split(rf"^{_ENDED} (\d+)\n", done.stdout, flags=re.MULTILINE)
    assert len(parts) == 2 * len(runs) + 1, done.stdout
    return [(int(code), output) for output, code in zip(parts[::2], parts[1::2], strict=False)]


def _words(profile: str) -> list[str]:
    words = ["--snakefile", str(WORKFLOWS / "Snakefile"), "--profile", str(WORKFLOWS / "profiles" / profile)]
    return [*words, "--configfile", "config.yaml"]


def _run(
    command: list[str], folder: Path, *, path: Path | None = None, timeout: float = 1800, told: str = ""
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), "HOME": str(folder)}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        timeout=timeout,
        text=True,
        input=told,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def jobs_of(output: str) -> dict[str, int]:
    """Jobs per rule, as the table `Job stats` of snakemake tells them; {} where there was nothing to do."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    rows = table[1].split("\n")[:-1] if table else []
    return {name: int(count) for name, count in (row.split() for row in rows) if name != "all"}
