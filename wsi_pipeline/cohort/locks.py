"""One process at a time per slide and stage, on file systems that have no advisory locks.

A lock is a file made with O_EXCL that names host, process and the process's start. It is stale when that process
is gone (same host) or has not touched it for ten minutes (another host). Should a lock ever be stolen
wrongly, both processes write the same content atomically: work is wasted, nothing is damaged.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

STALE_SECONDS = 600.0
_BEAT_SECONDS = 60.0
_POLL_SECONDS = 0.02


class LockedError(Exception):
    """Another living process holds the lock."""


@contextmanager
def locked(path: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock at `path` during the body.

    Raises LockedError if another living process still holds it after `wait_seconds`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    while not _create(path):
        if _is_stale(path):
            _steal(path)
        elif time.monotonic() >= deadline:
            raise LockedError(str(path))
        else:
            time.sleep(_POLL_SECONDS)
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, stop), daemon=True)
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        path.unlink(missing_ok=True)


def _create(path: Path) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump({"host": platform.node(), "pid": os.getpid(), "started": _started(os.getpid())}, file)
    return True


def _is_stale(path: Path) -> bool:
    try:
        age = time.time() - path.stat().st_mtime
        holder = json.loads(path.read_text(encoding="utf-8"))
        host, pid, started = holder["host"], int(holder["pid"]), holder["started"]
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        # Not written yet (its maker is between two system calls), or its maker died there.
        return age > 5
    if host == platform.node():
        return bool(_started(pid) != started)
    return age > STALE_SECONDS


def _steal(path: Path) -> None:
    """Take a stale lock out of the way. Renaming lets only one of several thieves have it."""
    aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        if not _is_stale(aside):  # someone stole and took it between our look and our rename: give it back
            os.link(aside, path)
    except FileExistsError:
        pass
    finally:
        aside.unlink(missing_ok=True)


def _started(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _beat(path: Path, stop: threading.Event) -> None:
    while not stop.wait(_BEAT_SECONDS):
        try:
            os.utime(path)
        except OSError:
            return
