"""Worker processes that do not run the user's script again.

A process started by multiprocessing imports its parent's script again, in case something it
receives is defined there. A script without `if __name__ == "__main__":` then starts its work again in every worker,
and Python refuses with a long message. Our workers need nothing from the script, so they are started as if there
were none, which is the same from scripts, notebooks and the command line, and faster.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import context
from types import ModuleType
from typing import Any

from wsi_pipeline.errors import UsageError

CAN_FORK_FROM_SERVER = "forkserver" in multiprocessing.get_all_start_methods()
"""Windows has no fork server; processes are spawned there."""

_LOCK = threading.RLock()


@contextmanager
def _without_script() -> Iterator[None]:
    """Make `__main__` an empty module without a file, so that a new process does not import its parent's script."""
    if multiprocessing.current_process().daemon:
        raise UsageError(
            "a daemonic multiprocessing worker cannot start processes",
            todo="Use concurrent.futures.ProcessPoolExecutor, or let --workers and --device distribute the work.",
        )
    with _LOCK:
        script = sys.modules["__main__"]
        sys.modules["__main__"] = ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = script


class _SpawnProcess(context.SpawnProcess):
    def start(self) -> None:
        with _without_script():
            super().start()


class _SpawnContext(context.SpawnContext):
    Process = _SpawnProcess


if CAN_FORK_FROM_SERVER:

    class _ServerProcess(context.ForkServerProcess):
        def start(self) -> None:
            with _without_script():
                super().start()

    class _ServerContext(context.ForkServerContext):
        Process = _ServerProcess


def spawn_context() -> Any:
    """Processes that inherit nothing from this one; for multiprocessing and concurrent.futures."""
    return _SpawnContext()


def process_context(preload: Sequence[str]) -> Any:
    """Processes forked from a server that has imported `preload`, which takes about ten milliseconds; else spawned."""
    if not CAN_FORK_FROM_SERVER:
        return spawn_context()
    made = _ServerContext()
    made.set_forkserver_preload(list(preload))
    return made


def start_server(preload: Sequence[str]) -> None:
    """Start the server of `process_context`, which imports `preload` while this process does other work."""
    process_context(preload)
    if CAN_FORK_FROM_SERVER:
        from multiprocessing import forkserver

        with _without_script():
            forkserver.ensure_running()
