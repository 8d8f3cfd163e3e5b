"""Commands of the pipeline as child processes that cost no imports: forked from this one, which has made them all."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # set before torch is imported: threads do not survive a fork
ACCEPTED = (0, 3)


@dataclass(frozen=True)
class Step:
    """One command of a run; `made` are the folders of the run that it writes."""

    name: str
    words: Callable[[Path], list[str]]
    made: tuple[str, ...]


def steps(csv: Path, patches: Path, encoder: str = "pathotune") -> tuple[Step, ...]:
    """All stages, in order, small enough to take seconds; tune and classify only with the encoder pathotune."""

    def step(name: str, *words: str, made: tuple[str, ...] = ()) -> Step:
        return Step(name, lambda run: [name, *words, "--run", str(run)], made or (name,))

    tune = ("--no-ttp", "--epochs", "3", "--batch", "16", "--bootstrap", "100", "--seed", "1")
    mil = ("--features", encoder, "--folds", "2", "--epochs", "4", "--bootstrap", "100", "--allow-few")
    every = (
        step("tile", str(csv), "--patch-px", "64", "--pixels", "jpeg", "--workers", "2", made=("segment", "tile")),
        step("tune", str(patches), *tune),
        step("embed", "--model", encoder),
        step("classify"),
        step("train-mil", *mil, made=("train-mil", "heatmap", "report")),
        step("heatmap"),
        step("predict"),
        step("report"),
    )
    return tuple(item for item in every if encoder == "pathotune" or item.name not in ("tune", "classify"))


def load(names: Iterable[str], encoder: str = "pathotune") -> None:
    """Import all that these commands need, so that children have it when they begin."""
    modules = [name.replace("-", "_") for name in names]
    networks = (["torch"] if set(modules) - {"tile"} else []) + (["timm"] if encoder == "pathotune" else [])
    for name in (*networks, "wsi_pipeline.cli", *(f"wsi_pipeline.commands.{name}" for name in modules)):
        importlib.import_module(name)


def begin(words: Sequence[str], log: Path | None = None) -> int:
    """Start `wsi-pipeline words` in a child and a process group of its own; returns the child's process number."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        out = os.open(log or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        for stream in (1, 2):
            os.dup2(out, stream)
        sys.stdout, sys.stderr = (os.fdopen(stream, "w", closefd=False) for stream in (1, 2))
        from wsi_pipeline.cli import main

        code = main(list(words))
        sys.stdout.flush()
    finally:
        os._exit(code)


def wait(pid: int, seconds: float | None = None) -> int | None:
    """The exit code of a child, negative for a signal; None where it still runs after `seconds`."""
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is not None:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    """SIGKILL to a child and all its own."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:  # so young that it has no group of its own yet
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def clear(run: Path, folders: Sequence[str]) -> None:
    """Remove output folders of a run."""
    for folder in folders:
        shutil.rmtree(run / folder, ignore_errors=True)


def run(words: Sequence[str], log: Path) -> float:
    """Run a command to its end; returns its seconds. Raises RuntimeError with its output where it does not end well."""
    started = time.monotonic()
    code = wait(begin(words, log))
    if code not in ACCEPTED:
        raise RuntimeError(f"wsi-pipeline {' '.join(words)} ended with {code}:\n{log.read_text()[-3000:]}")
    return time.monotonic() - started
