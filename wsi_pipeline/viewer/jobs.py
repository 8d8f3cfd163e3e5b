"""Jobs that outlive the page and the server: a separate process runs their commands one after the other.

view/jobs/<number>/job.json     kind, title and the commands
view/jobs/<number>/state.json   the current command, the process that runs it, how it ended
view/jobs/<number>/log.txt      output of the commands
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import UsageError
from wsi_pipeline.system.atomic import make_folder, write_text
from wsi_pipeline.system.process_identity import parse_identity

JOB, STATE, LOG = "job.json", "state.json", "log.txt"
_TAIL_BYTES = 16_384
_TAIL_LINES = 40
_START_SECONDS = 30.0
_EPOCH = re.compile(r"^epoch +(\d+)/(\d+)", re.MULTILINE)
_COUNT = re.compile(r"^[^\d\n]+ (\d[\d ]*)/(\d[\d ]*) \w+ ", re.MULTILINE)


class Jobs:
    """The jobs of a run."""

    def __init__(self, run: RunDir) -> None:
        self._folder = run.view / "jobs"

    def start(self, kind: str, title: str, commands: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Start commands of wsi-pipeline, each given as its arguments. Only one job of a kind runs at a time.

        Raises UsageError if a job of this kind is running.
        """
        for job in self.all():
            if job["kind"] == kind and job["state"] == "running":
                raise UsageError(f"{job['title']} is still running", todo="Wait for it, or stop it first.")
        folder = self._new_folder()
        write_text(
            folder / JOB, json.dumps({"kind": kind, "title": title, "commands": [list(words) for words in commands]})
        )
        with (folder / LOG).open("ab") as log:
            subprocess.Popen(
                [sys.executable, "-m", "wsi_pipeline.viewer.run_job", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self.one(int(folder.name))

    def all(self) -> list[dict[str, Any]]:
        """Every job, newest first, without its log."""
        if not self._folder.is_dir():
            return []
        numbers = sorted((int(path.name) for path in self._folder.iterdir() if path.name.isdigit()), reverse=True)
        return [job for number in numbers if (job := self._read(number)) is not None]

    def one(self, number: int) -> dict[str, Any]:
        """One job with the end of its log. Raises UsageError for an unknown number."""
        job = self._read(number)
        if job is None:
            raise UsageError(f"no job {number}")
        text = _tail(self._folder / str(number) / LOG)
        lines = text.splitlines()[-_TAIL_LINES:]
        return {**job, "log": lines, "progress": progress_in(text, job)}

    def stop(self, number: int) -> dict[str, Any]:
        """Stop a running job and all processes it has started; finished results stay."""
        job = self.one(number)
        owner = parse_identity(job.get("process") or "")
        if job["state"] == "running" and owner is not None and owner.here and owner.alive:
            os.killpg(owner.pid, signal.SIGTERM)
        return job

    def _new_folder(self) -> Path:
        make_folder(self._folder)
        number = max((int(path.name) for path in self._folder.iterdir() if path.name.isdigit()), default=0) + 1
        while True:
            try:
                (self._folder / str(number)).mkdir()
                return self._folder / str(number)
            except FileExistsError:
                number += 1

    def _read(self, number: int) -> dict[str, Any] | None:
        folder = self._folder / str(number)
        try:
            job = json.loads((folder / JOB).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        state: dict[str, Any] = {"state": "running", "step": 0}
        try:
            state |= json.loads((folder / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            if time.time() - folder.stat().st_mtime > _START_SECONDS:
                state["state"] = "failed"
        owner = parse_identity(state.get("process") or "")
        if state["state"] == "running" and owner is not None and not owner.alive:
            state["state"] = "stopped"
        shown = [shlex.join(["wsi-pipeline", *words]) for words in job["commands"]]
        return {**job, **state, "number": number, "commands": shown}


def progress_in(log: str, job: dict[str, Any]) -> float | None:
    """Progress of the current command, 0 to 1, read from the end of its log; None if the log does not say."""
    current = log.rpartition("\n$ ")[2]
    found = (_EPOCH.findall(current) or _COUNT.findall(current))[-1:]
    if not found or job["state"] != "running":
        return None
    done, total = (int(text.replace(" ", "")) for text in found[0])
    return min(1.0, done / total) if total else None


def _tail(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""
