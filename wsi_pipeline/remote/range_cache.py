"""Parts of remote files kept on this machine: bounded, the least recently used go first, for several processes.

One folder per file and version of it (address, size and tag), one file per part, named after its range. A part appears
by renaming, so it is complete or not there; its last four bytes are a checksum, because the parts are not flushed and a
power cut may leave one empty. Deleting a part that another process reads does it no harm.
"""

from __future__ import annotations

import hashlib
import os
import threading
import zlib
from contextlib import suppress
from pathlib import Path

from wsi_pipeline.system.atomic import make_folder, remove, write_bytes
from wsi_pipeline.system.locks import LockedError, locked

_CHECK_BYTES = 4
_SLACK = 16
"""The cache is measured again after one sixteenth of its size was written: it may be that much too large."""
_SPARED = 0.9
"""Part of the limit that is left after parts were removed, so that it is not done for each new one."""
_GUESSED_BYTES = 64 << 20
_PATIENCE_SECONDS = 30.0
"""How long a process waits for its turn to shrink the cache. Without waiting, all others would go on writing while a
slow one shrinks what it saw at first, and the limit would be passed by as much as they write. Past this, as when the
other process is suspended, it goes on and tries again after the next sixteenth."""


class RangeCache:
    """The cache in `folder`, at most `limit` bytes. For several threads and processes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._lock = threading.Lock()
        self._written = max(1, limit // _SLACK - _GUESSED_BYTES)

    def version(self, address: str, size: int, tag: str) -> Path | None:
        """The folder of one version of a file; None if nothing of it is kept: no cache, or no tag to know it by."""
        if not self.limit or not tag:
            return None
        key = hashlib.sha256(f"{address}\0{size}\0{tag}".encode()).hexdigest()[:40]
        return self.folder / key[:2] / key

    def parts(self, version: Path) -> list[tuple[int, int]]:
        """(start, stop) of the parts of a file that are there, sorted."""
        found = []
        with suppress(OSError):
            for name in os.listdir(version):  # noqa: PTH208 - 10,000 parts: names are enough
                start, dash, stop = name.partition("-")
                if dash and start.isdecimal() and stop.isdecimal():
                    found.append((int(start), int(stop)))
        return sorted(found)

    def read(self, version: Path, start: int, stop: int) -> bytes | None:
        """One part, marked as used; None if it is not there or not whole."""
        path = version / f"{start}-{stop}"
        try:
            data = path.read_bytes()
        except OSError:
            return None
        body = data[:-_CHECK_BYTES]
        if len(body) != stop - start or zlib.crc32(body).to_bytes(_CHECK_BYTES, "big") != data[-_CHECK_BYTES:]:
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):
            os.utime(path)
        return body

    def write(self, version: Path, start: int, data: bytes) -> None:
        """Keep a part. On a full or read-only disk it is not kept, and read from the server again when it is needed."""
        try:
            make_folder(version)
            check = zlib.crc32(data).to_bytes(_CHECK_BYTES, "big")
            write_bytes(version / f"{start}-{start + len(data)}", data + check, durable=False)
        except OSError:
            return
        self.count(len(data))

    def note(self, version: Path, name: str) -> str:
        """A short text kept beside the parts of a file; empty if there is none."""
        try:
            return (version / f"{name}.txt").read_text(encoding="utf-8")
        except OSError:
            return ""

    def keep_note(self, version: Path, name: str, text: str) -> None:
        """Keep a short text beside the parts of a file."""
        with suppress(OSError):
            make_folder(version)
            write_bytes(version / f"{name}.txt", text.encode(), durable=False)

    def count(self, written: int) -> None:
        """Count bytes as written, and remove what was not used for longest if the cache may have passed its limit."""
        with self._lock:
            self._written += written
            if self._written * _SLACK < self.limit:
                return
            self._written = 0
        with suppress(LockedError, OSError), locked(self.folder / "lock", _PATIENCE_SECONDS):
            self._shrink()

    def _shrink(self) -> None:
        found = []
        for path in self.folder.glob("*/*/[!.]*"):  # not the unfinished ones of other processes
            with suppress(OSError):
                found.append((path.stat().st_mtime, _taken(path), path))
        total = sum(size for _, size, _ in found)
        if total <= self.limit:
            return
        for _, size, path in sorted(found, key=lambda item: item[0]):
            if total <= self.limit * _SPARED:
                break
            remove(path)
            total -= size
        for version in self.folder.glob("*/*"):
            with suppress(OSError):
                version.rmdir()  # if nothing is left in it


def _taken(path: Path) -> int:
    """Bytes of a part, or of a folder with a whole file."""
    files = path.iterdir() if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files)
