"""Calls of snakemake as a user types them, and what its output says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


def snakemake(
    folder: Path, profile: str, *words: str, path: Path | None = None, timeout: float = 1800
) -> subprocess.CompletedProcess[str]:
    """Run the workflow in `folder` with one of the profiles; output and errors come in one text.

    path   a folder to look for commands in first
    """
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOWS / "Snakefile")]
    command += ["--profile", str(WORKFLOWS / "profiles" / profile), "--configfile", "config.yaml", *words]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / ".cache"), "HOME": str(folder)}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        timeout=timeout,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def jobs_of(output: str) -> dict[str, int]:
    """Jobs per rule, as the table `Job stats` of snakemake tells them; {} where there was nothing to do."""
    table = re.search(r"^job +count\n-+ +-+\n(.*?)^total", output, re.MULTILINE | re.DOTALL)
    rows = table[1].split("\n")[:-1] if table else []
    return {name: int(count) for name, count in (row.split() for row in rows) if name != "all"}
