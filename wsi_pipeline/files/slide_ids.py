"""Ids of slides named after their files: files of equal name get their folders' names as a prefix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wsi_pipeline.wording import listed


@dataclass(frozen=True)
class Named:
    """A slide with the id it would have alone; `folder` supplies the prefix if others have that id too."""

    slide_id: str
    path: Path
    folder: Path


def distinct_ids(slides: Sequence[Named]) -> tuple[list[str], list[str]]:
    """An id for each slide, and a note if ids got folder names.

    Slides of equal id get as many folder names as distinguish them: `siteA/s1.svs` and `siteB/s1.svs` become
    `siteA-s1` and `siteB-s1`. Files that differ only in their suffix keep it in the id. A path that
    is listed twice keeps one id for both, which the caller refuses.
    """
    ids = [item.slide_id for item in slides]
    groups: dict[str, list[int]] = {}
    for number, name in enumerate(ids):
        groups.setdefault(name, []).append(number)
    taken = set(ids)
    examples: list[str] = []
    for name, group in groups.items():
        if len({slides[number].path for number in group}) < 2:
            continue
        made = _apart([slides[number] for number in group], taken - {name})
        for number, slide_id in zip(group, made, strict=True):
            ids[number] = slide_id
        taken |= set(made)
        examples += dict.fromkeys(made)
    if not examples:
        return ids, []
    return ids, [f"files of one name have ids with the names of their folders or suffixes: {listed(examples, 4)}"]


def _apart(group: list[Named], taken: set[str]) -> list[str]:
    """The shortest ids that differ wherever the paths do."""
    bases = [item.slide_id for item in group]
    paths = {item.path for item in group}
    if len({(item.folder, base) for item, base in zip(group, bases, strict=True)}) < len(paths):
        bases = [item.path.name for item in group]
    deepest = max(len(item.folder.parts) for item in group)
    for depth in range(deepest + 1):
        made = [_under(item.folder, depth, base) for item, base in zip(group, bases, strict=True)]
        if len(set(made)) == len(paths) and not taken & set(made):
            return made
    return [item.slide_id for item in group]


def _under(folder: Path, depth: int, base: str) -> str:
    parts = [part for part in folder.parts if part != folder.anchor]
    return "-".join([*(part.strip().lstrip(".") or "_" for part in parts[len(parts) - min(depth, len(parts)) :]), base])
