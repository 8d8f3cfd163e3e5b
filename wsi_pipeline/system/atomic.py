"""Files and folders that appear complete or not at all, even if the process is killed or the power fails.

Everything is written to a hidden temporary sibling, flushed to the disk, and renamed; then the folder is flushed.
The sibling's name says which process writes it. Leftovers of dead processes are removed when something is written to
the same folder.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import itertools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wsi_pipeline.system.process_identity import ProcessIdentity, parse_identity, this_process

_TMP, _OLD = ".tmp", ".old"
_NAME_BYTES = 150
"""Bytes of the target's name kept in the sibling's: with process and suffix it stays below the usual limit of 255."""
_SWEEP_SECONDS = 60.0
_FOREIGN_SECONDS = 86_400.0
_WAIT_SECONDS = 2.0
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EPERM, errno.EISDIR}
_AT_FDCWD, _EXCHANGE = -100, 2
_numbers = itertools.count()
_swept: dict[Path, float] = {}


@contextmanager
def atomic_path(target: Path, *, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path for a file or folder; on success it replaces `target`.

    durable   flush to the disk, so that even a power cut leaves either the old or the new content. Without
              it, a power cut may leave an empty file

    If the body raises, what was written is removed and `target` stays as it was.
    """
    make_folder(target.parent)
    _sweep(target.parent)
    temporary = _sibling(target, _TMP)
    try:
        yield temporary
        if durable:
            _sync_tree(temporary)
        _replace(temporary, target)
        if durable:
            _sync_folder(target.parent)
    finally:
        # After a replacement nothing is left here; after an exchange this is the old folder.
        try:
            remove(temporary)
        except BaseException:  # a signal to end may arrive here, and arrives only once
            remove(temporary)
            raise


def write_text(target: Path, text: str, *, durable: bool = True) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(target, text.encode(), durable=durable)


def write_bytes(target: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a file atomically."""
    with atomic_path(target, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text_if_changed(target: Path, text: str) -> bool:
    """Write a text file only if its content differs; True if it was written."""
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return False
    write_text(target, text)
    return True


def create_text(target: Path, text: str) -> bool:
    """Create a small file unless it exists; True if it was created. It appears with all its text or not at all.

    On a file system without hard links it exists for an instant before its text does. Nothing is flushed.
    """
    if target.exists():
        return False
    temporary = _sibling(target, _TMP)
    try:
        temporary.write_text(text, encoding="utf-8")
        return _link(temporary, target)
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except BaseException:  # a signal to end may arrive here, and arrives only once
            temporary.unlink(missing_ok=True)
            raise


def _link(temporary: Path, target: Path) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:  # no hard links here
        return _copy_exclusively(temporary, target)
    return True


def _copy_exclusively(temporary: Path, target: Path) -> bool:
    try:
        file = target.open("xb")
    except FileExistsError:
        return False
    try:
        with file:
            file.write(temporary.read_bytes())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return True


def make_folder(path: Path) -> None:
    """Make a folder and those above it, and flush the entries of new ones to the disk."""
    if path.is_dir():
        return
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    _sync_folder(path.parent)


def remove(path: Path) -> None:
    """Remove a file or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def recover(target: Path) -> None:
    """Finish or undo the replacement of a folder that a killed process left half-done; files never need this.

    If the file system cannot exchange two folders, the old one is moved aside for an instant. A living process
    in that state is waited for.
    """
    deadline = time.monotonic() + _WAIT_SECONDS
    while not target.exists() and (aside := _aside(target)) is not None:
        path, owner = aside
        if not owner.alive:
            try:
                path.rename(target)
            except OSError:  # another process was faster
                return
        elif time.monotonic() > deadline:
            return
        else:
            time.sleep(0.01)


def _replace(temporary: Path, target: Path) -> None:
    if not temporary.is_dir() or temporary.is_symlink():
        temporary.replace(target)
    elif not target.exists():
        temporary.rename(target)
    elif not _exchange(temporary, target):
        aside = _sibling(target, _OLD)
        target.rename(aside)
        temporary.rename(target)
        remove(aside)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two paths in one step; False if the system or file system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    return bool(call(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _EXCHANGE) == 0)


def _sibling(target: Path, ending: str) -> Path:
    """A name that no other process or thread uses: `.NAME.NUMBER.HOST.PLACE.PID-START.tmp`."""
    return target.with_name(f".{_shortened(target.name)}.{next(_numbers)}.{this_process()}{ending}")


def _shortened(name: str) -> str:
    data = os.fsencode(name)
    if len(data) <= _NAME_BYTES:
        return name
    return data[: _NAME_BYTES - 9].decode(errors="ignore") + "~" + hashlib.sha256(data).hexdigest()[:8]


def _parse(sibling: str, ending: str) -> tuple[str, ProcessIdentity] | None:
    """The (shortened) target name of a sibling and the process that made it; None for other files."""
    if not sibling.startswith(".") or not sibling.endswith(ending):
        return None
    name, *parts = sibling[1:].removesuffix(ending).rsplit(".", 4)
    owner = parse_identity(".".join(parts[1:]))
    return (name, owner) if owner else None


def _aside(target: Path) -> tuple[Path, ProcessIdentity] | None:
    if not target.parent.is_dir():
        return None
    for path in target.parent.glob(f".*{_OLD}"):
        parsed = _parse(path.name, _OLD)
        if parsed is not None and parsed[0] == _shortened(target.name):
            return path, parsed[1]
    return None


def _sweep(folder: Path) -> None:
    """Sweep a folder, at most once a minute because it may hold many files."""
    now = time.monotonic()
    if now - _swept.get(folder, -_SWEEP_SECONDS) < _SWEEP_SECONDS:
        return
    _swept[folder] = now
    sweep(folder)


def sweep(folder: Path) -> None:
    """Remove temporary files of dead processes from a folder."""
    for path in folder.glob(f".*{_TMP}"):
        parsed = _parse(path.name, _TMP)
        if parsed is not None and _is_left(path, parsed[1]):
            remove(path)


def _is_left(path: Path, owner: ProcessIdentity) -> bool:
    """Whether a temporary file is abandoned; one from another machine counts as abandoned after a day."""
    if owner.here:
        return not owner.alive
    try:
        return time.time() - path.stat().st_mtime > _FOREIGN_SECONDS
    except OSError:
        return False


def _sync_tree(path: Path) -> None:
    if not path.is_dir():
        _sync_file(path)
        return
    for item in path.rglob("*"):
        if item.is_dir():
            _sync_folder(item)
        else:
            _sync_file(item)
    _sync_folder(path)


def _sync_file(path: Path) -> None:
    """Flush a file. A full or failing disk may show only here, so its error is not swallowed."""
    _flush(os.open(path, os.O_RDONLY), path)


def _sync_folder(path: Path) -> None:
    """Flush a folder's entries, if the system can open folders and the file system flushes them."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    _flush(handle, path)


def _flush(handle: int, path: Path) -> None:
    """Flush an open file or folder and close it; a file system that cannot flush is no error."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(handle)
