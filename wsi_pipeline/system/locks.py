"""One process at a time per slide and stage, on file systems without advisory locks.

A lock is a file created only if there is none, complete at once (by a hard link), that names host, process, the
process's start, and the time. It is stale if that process is gone (same boot of the same host) or has not touched
it for five minutes (any other host), by the file system's clock, as hosts' clocks may differ. Should a lock ever be
stolen wrongly, both processes write the same content atomically: work is wasted, but nothing is damaged.
"""

from __future__ import annotations

import _thread
import json
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from wsi_pipeline.system.atomic import create_text, make_folder, sweep
from wsi_pipeline.system.process_identity import ProcessIdentity, this_process

STALE_SECONDS = 300.0
_BEAT_SECONDS = 30.0
_POLL_SECONDS = 0.02
_UNWRITTEN_SECONDS = 5.0


class LockedError(Exception):
    """Another living process holds the lock."""


@contextmanager
def locked(path: Path, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock at `path` during the body.

    wait_seconds   how long to wait for a living holder; `math.inf` to take one's turn

    Raises LockedError if another living process still holds it after that.
    """
    make_folder(path.parent)
    deadline = time.monotonic() + wait_seconds
    token = uuid.uuid4().hex
    held = _thread.allocate_lock()
    held.acquire()
    try:
        while not _create(path, token):
            if _is_stale(path):
                _steal(path)
            elif time.monotonic() >= deadline:
                raise LockedError(str(path))
            else:
                time.sleep(_POLL_SECONDS)
        # Not `threading`, whose internal locks stay held if a signal unwinds this thread inside them.
        _thread.start_new_thread(_beat, (path, token, held))
        yield
    finally:
        try:
            _release(path, token, held)
        except BaseException:  # a signal to end may arrive here, and arrives only once
            _release(path, token, held)
            raise


def _release(path: Path, token: str, held: _thread.LockType) -> None:
    """Remove the lock if it is still ours: a process suspended for a long time may have lost it."""
    if held.locked():
        held.release()  # ends the thread that refreshes the lock
    if _token(path) == token:
        path.unlink(missing_ok=True)


def clear_stale(folder: Path) -> None:
    """Remove locks below `folder` whose holders are dead; otherwise the locks of up-to-date slides would stay."""
    for path in folder.rglob("*.lock"):
        if _is_stale(path):
            _steal(path)
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            sweep(path)


def _create(path: Path, token: str) -> bool:
    facts = {**asdict(this_process()), "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "token": token}
    return create_text(path, json.dumps(facts))


def _is_stale(path: Path) -> bool:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        owner = ProcessIdentity(str(facts["host"]), str(facts["place"]), int(facts["pid"]), int(facts["started"]))
    except FileNotFoundError:
        return False
    except OSError:  # another user's, which we may not read
        return _age(path) > STALE_SECONDS
    except (ValueError, KeyError, TypeError):
        # Not written yet (its creator is between two system calls), or its creator died there.
        return _age(path) > _UNWRITTEN_SECONDS
    return not owner.alive if owner.here else _age(path) > STALE_SECONDS


def _age(path: Path) -> float:
    """Seconds since a lock was touched, by the clock of the file system it is on."""
    probe = path.with_name(f".{uuid.uuid4().hex}.now")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
    except OSError:
        return time.time() - path.stat().st_mtime
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)


def _steal(path: Path) -> None:
    """Move a stale lock out of the way. Renaming lets only one of several processes take it."""
    aside = path.with_name(f".{uuid.uuid4().hex}.stolen")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    try:
        if not _is_stale(aside):  # another process took it between our check and our rename: give it back
            _give_back(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def _give_back(aside: Path, path: Path) -> None:
    try:
        os.link(aside, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            aside.rename(path)


def _token(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["token"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _beat(path: Path, token: str, held: _thread.LockType) -> None:
    while not held.acquire(timeout=_BEAT_SECONDS):
        if _token(path) != token:
            return
        with suppress(OSError):
            os.utime(path)
