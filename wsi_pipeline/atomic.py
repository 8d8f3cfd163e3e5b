"""Files and folders that appear whole or not at all, also when the process is killed or the power fails.

Everything is written to a hidden temporary sibling, flushed to the disk, and renamed. Left-over siblings of
dead processes are swept when the same target is written again.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TMP, _OLD = ".tmp", ".old"
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", platform.node()) or "localhost"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path to write a file or a folder at; on success it takes the place of `target`.

    If the body raises, what was written is removed and `target` stays as it was.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target)
    temporary = target.with_name(f".{target.name}.{_HOST}.{os.getpid()}{_TMP}")
    try:
        yield temporary
        _sync_tree(temporary)
        _replace(temporary, target)
    finally:
        remove(temporary)  # there is none left where it took its place


def write_text(target: Path, text: str) -> None:
    """Write a UTF-8 text file atomically."""
    write_bytes(target, text.encode())


def write_bytes(target: Path, data: bytes) -> None:
    """Write a file atomically."""
    with atomic_path(target) as temporary:
        temporary.write_bytes(data)


def write_text_if_changed(target: Path, text: str) -> bool:
    """Write a text file only where its content differs; True if it was written."""
    if target.is_file() and target.read_text(encoding="utf-8") == text:
        return False
    write_text(target, text)
    return True


def remove(path: Path) -> None:
    """Remove a file or a folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def recover(target: Path) -> None:
    """Finish or undo the replacing of a folder that a killed process left half-way; files need no such thing.

    A folder cannot be renamed over a folder, so for an instant the old one is aside under its own name.
    """
    aside = target.with_name(f".{target.name}{_OLD}")
    if aside.exists():
        if target.exists():
            remove(aside)
        else:
            aside.rename(target)


def _replace(temporary: Path, target: Path) -> None:
    if temporary.is_dir():
        recover(target)
        aside = target.with_name(f".{target.name}{_OLD}")
        if target.exists():
            target.rename(aside)
        temporary.rename(target)
        remove(aside)
    else:
        temporary.replace(target)
    _sync(target.parent)


def _sweep(target: Path) -> None:
    for left in target.parent.glob(f".{glob_escape(target.name)}.{_HOST}.*{_TMP}"):
        pid = left.name.removesuffix(_TMP).rpartition(".")[2]
        if pid.isdigit() and not _alive(int(pid)):
            remove(left)


def glob_escape(name: str) -> str:
    """`name` with the characters that glob patterns treat specially made literal."""
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_tree(path: Path) -> None:
    if path.is_dir():
        for item in path.rglob("*"):
            _sync(item)
    _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        pass  # some network file systems refuse fsync on folders; the rename itself still holds
    finally:
        os.close(handle)
