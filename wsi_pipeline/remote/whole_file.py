"""A remote file fetched whole into the cache: for formats whose readers need a file, and servers without ranges.

Only if WSI_PIPELINE_WHOLE_GB allows files of that size: a slide has gigabytes, and most runs need a part of them.
"""

from __future__ import annotations

import logging
import math
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from wsi_pipeline.errors import SlideError
from wsi_pipeline.remote.remote_file import RemoteFile
from wsi_pipeline.remote.retry import retried
from wsi_pipeline.remote.settings import CACHE_GB, WHOLE_GB
from wsi_pipeline.remote.traffic import Traffic, count, megabytes
from wsi_pipeline.system.atomic import atomic_path, make_folder
from wsi_pipeline.system.locks import locked
from wsi_pipeline.system.prefetch import prefetch

log = logging.getLogger(__name__)

NO_RANGES = "the server does not send parts of files"

_FOLDER = "whole"
_PIECE = 8 << 20


def whole_file(file: RemoteFile, why: str, *, any_size: bool = False) -> Path:
    """The file on this machine, fetched now unless the cache has it. One process fetches, others wait for it.

    why        the sentence that says why it cannot be read in parts
    any_size   also if WSI_PIPELINE_WHOLE_GB does not allow it

    Raises SlideError if files of its size are not to be fetched whole, or cannot be kept.
    """
    size = max(0, file.size)
    if (size > file.settings.whole_bytes and not any_size) or file.size < 0:
        there = f" ({megabytes(size)})" if size else ""
        raise SlideError(
            f"{why}{there}: {file.address}",
            todo=f"Copy it to this machine, or let such files be fetched whole into the cache: "
            f"export {WHOLE_GB}={max(1, math.ceil(size / 1e9))}",
        )
    if not file.tag:
        raise SlideError(
            f"{why}, and the server states neither an ETag nor a time of change, by which a copy would be known: "
            f"{file.address}",
            todo="Copy it to this machine.",
        )
    if file.version is None or size > file.settings.cache_bytes:
        raise SlideError(
            f"{why}, and its {megabytes(size)} are more than the cache may hold: {file.address}",
            todo=f"Copy it to this machine, or enlarge the cache: export {CACHE_GB}={math.ceil(size / 1e9) + 1}",
        )
    path = file.version / _FOLDER / file.name
    if not _is_there(path, size):
        with locked(file.version / f"{_FOLDER}.lock", math.inf):
            if not _is_there(path, size):
                _fetch(file, path)
    else:
        count(file.address, Traffic(cached=size))
    with suppress(OSError):
        os.utime(path.parent)
    return path


def kept_whole(file: RemoteFile) -> Path | None:
    """The whole file if the cache has it."""
    path = file.version / _FOLDER / file.name if file.version is not None else None
    return path if path is not None and _is_there(path, file.size) else None


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _fetch(file: RemoteFile, path: Path) -> None:
    log.info("%s: fetching %s into the cache", file.address, megabytes(file.size))
    make_folder(path.parent)
    with atomic_path(path) as temporary:
        if file.ranges:
            _by_ranges(file, temporary)
        else:
            retried(lambda: _at_once(file, temporary), file.settings.seconds, file.address)
        if temporary.stat().st_size != file.size:
            raise file.changed()
    file.cache.count(file.size)


def _by_ranges(file: RemoteFile, path: Path) -> None:
    starts = range(0, file.size, _PIECE)
    with ThreadPoolExecutor(4) as pool, path.open("wb") as made:
        for data in prefetch(pool, lambda start: file.ask(start, min(start + _PIECE, file.size)).data, starts, 6):
            made.write(data)


def _at_once(file: RemoteFile, path: Path) -> None:
    with path.open("wb") as made:
        tag = file.server.whole(_Counted(made, file.address).write)
    if tag != file.tag:
        raise file.changed()


class _Counted:
    def __init__(self, file: BinaryIO, address: str) -> None:
        self._file, self._address = file, address

    def write(self, data: bytes) -> None:
        """Write and count as traffic."""
        self._file.write(data)
        count(self._address, Traffic(len(data), 0))
