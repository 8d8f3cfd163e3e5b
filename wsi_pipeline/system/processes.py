"""Worker processes that leave the user's script alone.

A process that multiprocessing starts runs the script again that its parent was started with, in case something that it
is given is defined there. A script without `if __name__ == "__main__":` then begins its work once more in every worker,
and Python refuses with a page of its own. Our workers need nothing of the script, so they are started as from a session
that has none: the same from a script, a notebook and the command line, and sooner.
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
"""Windows has no such server; processes are spawned there."""

_LOCK = threading.RLock()


@contextmanager
def _without_script() -> Iterator[None]:
    """Meanwhile `__main__` is an empty module without a file, which is what a new process is told of its parent's."""
    if multiprocessing.current_process().daemon:
        raise UsageError(
            "this runs in a daemonic worker of multiprocessing, which may not start processes",
            todo="Share work out by concurrent.futures.ProcessPoolExecutor, or leave it to --workers and --device.",
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
    """Processes that begin with nothing of this one; for multiprocessing and concurrent.futures."""
    return _SpawnContext()


def process_context(preload: Sequence[str]) -> Any:
    """Processes forked from a server that has imported `preload`, which takes about ten milliseconds; else spawned."""
    if not CAN_FORK_FROM_SERVER:
        return spawn_context()
    made = _ServerContext()
    made.set_forkserver_preload(list(preload))
    return made


def start_server(preload: Sequence[str]) -> None:
    """Let the server of `process_context` start and import `preload`, while this process does other work."""
    process_context(preload)
    if CAN_FORK_FROM_SERVER:
        from multiprocessing import forkserver

        with _without_script():
            forkserver.ensure_running()
