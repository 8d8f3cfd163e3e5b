"""Keep results that are replaced: their folder moves to former/<name>-<digest> beside it."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.errors import UsageError
from wsi_pipeline.system.atomic import make_folder

FORMER = "former"


def keep_former(folder: Path, digest: str) -> Path | None:
    """Move the results in `folder` to former/, atomically; returns their new place, None if there were none.

    digest   digest of those results; its first characters distinguish several former results
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    shelf = folder.parent / FORMER
    make_folder(shelf)
    wanted = f"{folder.name}-{slug(digest)[:8] or 'unknown'}"
    taken = {path.name for path in shelf.iterdir()}
    name = next(name for name in (wanted, *(f"{wanted}-{k}" for k in range(2, len(taken) + 3))) if name not in taken)
    return folder.rename(shelf / name)


def check_name(name: str) -> str:
    """Return `name`. Raises UsageError if it is not valid as the name of a results folder."""
    if not name or slug(name) != name or name.startswith(".") or name == FORMER:
        raise UsageError(
            f"name must be letters, digits and . _ + - (no dot first, not {FORMER}), got {name!r}",
            todo="For example: --name kras",
        )
    return name
