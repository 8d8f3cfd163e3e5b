"""Which process wrote a temporary file or holds a lock, and whether it is still running.

A process number alone is not enough: numbers are reused, and on shared storage the process may be
on another machine, or in another container of the same name.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_DEAD = ("Z", "X", "x")
_HIDDEN = -1
_START_FIELD = 19
"""Position of the start time in /proc/<pid>/stat after the command, which may hold spaces itself."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process.

    host      name of its machine, letters, digits and hyphens
    place     distinguishes machines (or containers) of one name, and one boot from the next
    pid       process number
    started   when it started, in a system-specific unit: clock ticks since boot on Linux
    """

    host: str
    place: str
    pid: int
    started: int

    @property
    def here(self) -> bool:
        """Whether it belongs to this boot of this machine, so that `alive` is known."""
        return (self.host, self.place) == (_host(), _place())

    @property
    def alive(self) -> bool:
        """Whether it is still running. True for a process elsewhere, which cannot be seen from here."""
        return not self.here or _started(self.pid) in (self.started, _HIDDEN)

    def __str__(self) -> str:
        """Text for use in a file name; `parse_identity` reads it."""
        return f"{self.host}.{self.place}.{self.pid}-{self.started}"


def this_process() -> ProcessIdentity:
    """The calling process."""
    pid = os.getpid()
    return ProcessIdentity(_host(), _place(), pid, _started(pid) or 0)


def parse_identity(text: str) -> ProcessIdentity | None:
    """The identity that `str` wrote, or None."""
    match = re.fullmatch(r"([A-Za-z0-9-]+)\.([0-9a-f]+)\.(\d+)-(\d+)", text)
    return ProcessIdentity(match[1], match[2], int(match[3]), int(match[4])) if match else None


@cache
def _host() -> str:
    return (re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "localhost")[:40]


@cache
def _place() -> str:
    """Eight hex digits of the boot and the space of process numbers; the same for all processes that see each other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        seen = boot + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        seen = ""  # not Linux: use the machine's name alone
    return hashlib.sha256(seen.encode()).hexdigest()[:8]


def _started(pid: int) -> int | None:
    """When a process started; None if it does not exist or is a zombie.

    _HIDDEN for another user's process that the system does not show.
    """
    stat = Path(f"/proc/{pid}/stat")
    try:
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        # Ticks since boot: psutil adds the time of boot, which moves when the clock is set.
        return None if fields[0] in _DEAD else int(fields[_START_FIELD])
    except OSError:
        if Path("/proc/self/stat").exists():
            return _HIDDEN if _refuses_signals(pid) else None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.Error:
        return None


def _refuses_signals(pid: int) -> bool:
    """Whether the process exists and belongs to another user."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except OSError:
        pass
    return False
