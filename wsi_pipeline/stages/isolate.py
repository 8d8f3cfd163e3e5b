"""One process per job, so that a segmentation fault or a killed worker costs one job and no more.

Processes are forked from a server that has imported what jobs need (`forkserver`), which makes a fresh process
cost about ten milliseconds; where there is no such thing (Windows) they are spawned.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any


@dataclass(frozen=True)
class Crash:
    """A worker process that ended without a result."""

    exit_code: int | None

    @property
    def reason(self) -> str:
        """In words: which signal ended it, or its exit code."""
        if self.exit_code is not None and self.exit_code < 0:
            try:
                name = signal.Signals(-self.exit_code).name
            except ValueError:
                name = f"signal {-self.exit_code}"
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"the worker process was ended by {name}{hint}"
        return f"the worker process ended with exit code {self.exit_code} and no result"


def run_isolated(
    function: Callable[..., Any], jobs: Iterable[tuple[Any, ...]], workers: int, *, preload: list[str]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Run `function(*job)` for each job in a process of its own; yields (job, result or Crash) as they end.

    preload   modules that the fork server imports once

    `function`, jobs and results must pickle; `function` must not raise. When the caller stops early, the
    workers at work are ended.
    """
    context = _context(preload)
    waiting = iter(jobs)
    active: dict[Connection, tuple[Any, tuple[Any, ...]]] = {}
    try:
        while True:
            for job in _take(waiting, workers - len(active)):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, function, job), daemon=True)
                process.start()
                sender.close()
                active[receiver] = (process, job)
            if not active:
                return
            for ready in multiprocessing.connection.wait(list(active)):
                assert isinstance(ready, Connection)
                process, job = active.pop(ready)
                yield job, _outcome(ready, process)
    finally:
        for process, _ in active.values():
            process.terminate()


def _take(jobs: Iterator[tuple[Any, ...]], count: int) -> Iterator[tuple[Any, ...]]:
    for _ in range(count):
        try:
            yield next(jobs)
        except StopIteration:
            return


def _outcome(receiver: Connection, process: Any) -> Any:
    try:
        result = receiver.recv()
        process.join()
        return result
    except EOFError:
        process.join()
        return Crash(process.exitcode)
    finally:
        receiver.close()


def _work(sender: Connection, function: Callable[..., Any], job: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    sender.send(function(*job))
    sender.close()


def _context(preload: list[str]) -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(preload)
    return context
