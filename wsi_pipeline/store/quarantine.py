"""Damaged stores are renamed, so that nothing reads them but they can still be inspected."""

from __future__ import annotations

import glob
import logging
from pathlib import Path

from wsi_pipeline.errors import DamagedStoreError
from wsi_pipeline.store.store import file_mark

logger = logging.getLogger(__name__)
_ENDING = ".damaged-"
_MADE_BY = {"segment": "tile slides.csv", "tile": "tile slides.csv", "embed": "embed", "classify": "classify"}


def set_aside(error: DamagedStoreError) -> DamagedStoreError:
    """Rename the damaged store to `<name>.damaged-<n>` and log it; returns the error with the new name and what to do.

    A store that has replaced the damaged one in the meantime stays. If the folder is not writable, the error says
    what to remove.
    """
    path = error.path
    if path is None or file_mark(path) != error.mark:
        return error
    aside = path.with_name(f"{path.name}{_ENDING}{max(_copies(path).values(), default=0) + 1}")
    try:
        path.rename(aside)
    except OSError as refusal:
        todo = f"Remove {path} ({refusal.strerror}), then run {_made_by(path)}"
        return DamagedStoreError(error.what, slide=error.slide, todo=todo)
    logger.warning("%s; kept as %s", error.what, aside.name)
    return DamagedStoreError(
        f"{error.what}; kept as {aside.name}", slide=error.slide, todo=f"It will be recomputed by {_made_by(path)}"
    )


def set_aside_copies(path: Path) -> list[Path]:
    """Damaged stores once at `path`, in the order they were set aside."""
    numbers = _copies(path)
    return sorted(numbers, key=lambda copy: numbers[copy])


def _copies(path: Path) -> dict[Path, int]:
    """Damaged stores that were once at `path`, and their numbers."""
    found = path.parent.glob(f"{glob.escape(path.name)}{_ENDING}*") if path.parent.is_dir() else ()
    numbers = {copy: copy.name[len(path.name) + len(_ENDING) :] for copy in found}
    return {copy: int(number) for copy, number in numbers.items() if number.isdecimal()}


def _made_by(path: Path) -> str:
    """The command that makes the store at `path` of a run folder."""
    command = next((_MADE_BY[part] for part in reversed(path.parts[:-1]) if part in _MADE_BY), "")
    return f"wsi-pipeline {command}" if command else "the command that made it"
