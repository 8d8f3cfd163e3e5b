"""What was read of a slide's files, kept in `status/known/<slide_id>.json` while the files stay the same.

Whether a slide is up to date is decided by the headers of its stores and a digest of samples of its file. Reading
them for ten thousand slides takes minutes, on a shared file system much longer. As git does with its index, we note
what was read beside the file's inode, size and times; a file that still has these is not read again. Only decisions
about freshness use it: what a stage computes with is always read, and compared with its checksums. The notes may be
deleted at any time.
"""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from wsi_pipeline.system.atomic import write_text

SETTLED_SECONDS = 10.0
"""How old the last change of a slide must be. A file that is being written may change again within one tick of the
file system's clock. Stores are always replaced as a whole, so they need no such wait."""


class KnownFiles:
    """The notes of one slide: file -> its mark, and what was read of it."""

    def __init__(self, path: Path) -> None:
        self._path, self._changed = path, False
        self._notes = _read(path)

    def look_up(self, file: Path, what: str, read: Callable[[], Any], settled_seconds: float) -> Any:
        """What `read` returned for the file as it is now, a JSON value; `read` is called only if that is not known.

        what              names what is read, as several things may be read of one file
        settled_seconds   files changed more recently than this are not noted
        """
        key, mark = "/".join([what, *file.parts[-3:]]), _mark(file)
        known = self._notes.get(key)
        if mark and isinstance(known, dict) and known.get("mark") == mark and "read" in known:
            return known["read"]
        found = read()
        # If the file was replaced meanwhile, what was read may be of either.
        if mark and _mark(file) == mark and max(mark[-2:]) < (time.time() - settled_seconds) * 1e9:
            self._notes[key] = {"mark": mark, "read": found}
            self._changed = True
        return found

    def save(self) -> None:
        """Write the notes if there are new ones. Where they cannot be written, the files are read again next time."""
        if self._changed:
            with suppress(OSError, TypeError, ValueError):
                write_text(self._path, json.dumps(self._notes), durable=False)


_of_slide: ContextVar[KnownFiles | None] = ContextVar("known_files", default=None)


@contextmanager
def known_files(path: Path) -> Iterator[None]:
    """Use and keep the notes at `path` for everything that `look_up` is asked for in the body."""
    known = KnownFiles(path)
    token = _of_slide.set(known)
    try:
        yield
        known.save()
    finally:
        _of_slide.reset(token)


def look_up(file: Path, what: str, read: Callable[[], Any], settled_seconds: float = 0.0) -> Any:
    """`read()`, a JSON value, or what it returned before while `file` was as it is now. See `KnownFiles.look_up`."""
    known = _of_slide.get()
    return read() if known is None else known.look_up(file, what, read, settled_seconds)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _mark(file: Path) -> list[int]:
    """Inode, size, times of the last change of content and of the inode; [] for what is not a file.

    Of a Zarr folder, those of its `zarr.json`, as folders of stores are replaced as a whole.
    """
    try:
        facts = file.stat()
        if stat.S_ISDIR(facts.st_mode):
            facts = (file / "zarr.json").stat()
    except OSError:
        return []
    return [facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
