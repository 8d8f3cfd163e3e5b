"""One process per job, so that a segmentation fault or a killed worker costs only that job.

Processes are forked from a server that has imported what jobs need (wsi_pipeline/system/processes.py).
"""

from __future__ import annotations

import math
import multiprocessing.connection
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from wsi_pipeline.system.processes import process_context
from wsi_pipeline.system.termination import raise_on_sigterm

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

_GRACE_SECONDS = 10.0
"""How long a process may take to end after it has sent its result."""
_END_SECONDS = 10.0
"""How long workers may take to end after SIGTERM, to release locks and remove unfinished files."""
_SIGNAL_SECONDS = 0.5
_TERMINATED = 143


@dataclass(frozen=True)
class Crash:
    """A worker process that ended without a result; `overtime` is the time limit in seconds that it exceeded, if so."""

    exit_code: int | None
    overtime: float | None = None

    @property
    def reason(self) -> str:
        """The signal that ended it, its exit code, or its time limit, as a sentence."""
        if self.overtime is not None:
            return f"exceeded {self.overtime:g} s and was stopped"
        if self.exit_code == _TERMINATED:
            return "the worker process was terminated by SIGTERM"
        if self.exit_code is not None and self.exit_code < 0:
            try:
                name = signal.Signals(-self.exit_code).name
            except ValueError:
                name = f"signal {-self.exit_code}"
            hint = " (out of memory?)" if name == "SIGKILL" else ""
            return f"the worker process was terminated by {name}{hint}"
        return f"the worker process ended with exit code {self.exit_code} and no result"


@dataclass(frozen=True)
class Limits:
    """Limits of one job; None: no limit.

    seconds   wall-clock time, after which its process is killed
    memory    address space of its process in bytes (RLIMIT_AS, if the system has it): asking for more raises
              MemoryError or ends the process
    """

    seconds: float | None = None
    memory: int | None = None


@dataclass
class _Active:
    """A running process, its job, and its deadline."""

    process: Any
    job: tuple[Any, ...]
    due: float


def run_isolated(
    function: Callable[..., Any],
    jobs: Iterable[tuple[Any, ...]],
    workers: int,
    *,
    preload: list[str],
    limits: Limits = Limits(),
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Run `function(*job)` for each job in its own process; yields (job, result or Crash) as they end.

    preload   modules that the fork server imports once
    limits    of time and memory, for each job

    `function`, jobs and results must pickle; `function` must not raise. When the caller stops early, the
    running workers are terminated; they leave no lock or temporary file unless they take longer than a few seconds.
    """
    context = process_context(preload)
    waiting = iter(jobs)
    active: dict[Connection, _Active] = {}
    try:
        while True:
            for job in _take(waiting, workers - len(active)):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(sender, limits.memory, function, job), daemon=True)
                process.start()
                sender.close()
                due = math.inf if limits.seconds is None else time.monotonic() + limits.seconds
                active[receiver] = _Active(process, job, due)
            if not active:
                return
            for ready in multiprocessing.connection.wait(list(active), _until_due(active)):
                assert isinstance(ready, Connection)
                ended = active.pop(ready)
                yield ended.job, _outcome(ready, ended.process)
            for late in [receiver for receiver, item in active.items() if item.due <= time.monotonic()]:
                ended = active.pop(late)
                yield ended.job, _end(late, ended.process, limits)
    finally:
        _stop([item.process for item in active.values()])


def _stop(processes: list[Any]) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + _END_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.exitcode is None:
            process.kill()
            process.join()


def _until_due(active: dict[Connection, _Active]) -> float | None:
    """Seconds until the first process is overdue; None without a time limit."""
    first = min(item.due for item in active.values())
    return None if math.isinf(first) else max(0.0, first - time.monotonic())


def _end(receiver: Connection, process: Any, limits: Limits) -> Any:
    """Kill an overdue process, unless its result has just arrived."""
    if receiver.poll():
        return _outcome(receiver, process)
    process.kill()
    process.join()
    receiver.close()
    return Crash(process.exitcode, limits.seconds)


def _take(jobs: Iterator[tuple[Any, ...]], count: int) -> Iterator[tuple[Any, ...]]:
    for _ in range(count):
        try:
            yield next(jobs)
        except StopIteration:
            return


def _outcome(receiver: Connection, process: Any) -> Any:
    try:
        result = receiver.recv()
    except (EOFError, OSError):  # OSError: it died while it was sending
        process.join()
        # Ctrl-C and the end of a cluster job reach all processes at once: give our own signal time to arrive,
        # so that the slide is not recorded as failed.
        time.sleep(_SIGNAL_SECONDS)
        return Crash(process.exitcode)
    else:
        process.join(_GRACE_SECONDS)
        if process.exitcode is None:  # a library's thread keeps it from ending, but the result is here
            process.kill()
            process.join()
        return result
    finally:
        receiver.close()


def obey_parent() -> None:
    """Signals of a worker process: Ctrl-C is left to its parent; SIGTERM unwinds it, so that locks are released."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_on_sigterm(lambda: SystemExit(_TERMINATED))


def _work(sender: Connection, memory: int | None, function: Callable[..., Any], job: tuple[Any, ...]) -> None:
    obey_parent()
    if memory is not None and resource is not None:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sender.send(function(*job))
    sender.close()
