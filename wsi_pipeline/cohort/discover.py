"""Slides named by a folder, a glob, or one by one, where there is no CSV."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.cohort.rundir import RunDir
from wsi_pipeline.errors import UsageError

SLIDE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in (
        "svs",
        "tif",
        "tiff",
        "btf",
        "ndpi",
        "mrxs",
        "scn",
        "bif",
        "vms",
        "vmu",
        "svslide",
        "czi",
        "qptiff",
        "dcm",
    )
)
"""What counts as a slide when a folder is listed; a file named outright may have any suffix."""


def find_slides(sources: Sequence[str | Path]) -> list[Path]:
    """Slide files from folders (searched through), globs and single files; absolute, sorted, each once.

    Hidden files and folders are passed over, and the overlays that `heatmap` writes as TIFF. Of a DICOM folder only the
    first file is taken: the others are levels and tiles of the same slide.
    Raises UsageError naming a source that yields nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        hits = _hits(str(source))
        if not hits:
            raise UsageError(
                f"no slides at {source}", todo="Name a CSV, a folder of slides, or a quoted glob like 'slides/*.svs'"
            )
        found.update(dict.fromkeys(path.absolute() for path in hits))
    return _one_per_dicom_folder(sorted(found))


def slide_id_of(path: Path) -> str:
    """The file name without its suffix (`a.ome.tiff` -> `a`); the whole name where the suffix is no slide's."""
    name = path.name
    for suffix in (".ome.tiff", ".ome.tif"):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return path.stem if path.suffix.lower() in SLIDE_SUFFIXES else name


def with_suffix_found(path: Path) -> Path:
    """`path`, or where it is not there the one slide beside it whose name only adds a suffix (CLAM's ids have none)."""
    if path.exists() or path.suffix.lower() in SLIDE_SUFFIXES or not path.name:
        return path
    beside = [path.with_name(path.name + suffix) for suffix in sorted(SLIDE_SUFFIXES)]
    found = [candidate for candidate in beside if candidate.exists()]
    return found[0] if len(found) == 1 else path


def is_slide_file(path: Path) -> bool:
    """Whether a file found in a folder counts as a slide: by its suffix, unless it is hidden (`._a.svs` of macOS)."""
    return path.suffix.lower() in SLIDE_SUFFIXES and not path.name.startswith(".") and path.is_file()


def at_home(path: str | Path) -> str:
    """`~` and `~name` as home folders; a name of nobody stays as it is."""
    return os.path.expanduser(path)  # noqa: PTH111 - that of pathlib raises for nobody


def _hits(source: str) -> list[Path]:
    path = Path(source)
    if path.is_dir():
        return [item for item in sorted(path.rglob("*")) if is_slide_file(item) and not _passed_over(item, path)]
    if path.exists():
        return [path]
    found = (Path(item) for item in sorted(glob.glob(str(path), recursive=True)))  # noqa: PTH207
    return [item for item in found if item.is_file() and not _is_overlay(item)]


def _passed_over(path: Path, root: Path) -> bool:
    """In a hidden folder below `root`, such as the snapshots of a file server, or no slide but an overlay of a run."""
    return any(part.startswith(".") for part in path.relative_to(root).parts) or _is_overlay(path)


def _is_overlay(path: Path) -> bool:
    """Whether a file lies in the folder `heatmap` of a run."""
    return any(part.name == "heatmap" and RunDir(part.parent).cohort_csv.is_file() for part in path.absolute().parents)


def _one_per_dicom_folder(paths: list[Path]) -> list[Path]:
    kept, folders = [], set[Path]()
    for path in paths:
        if path.suffix.lower() == ".dcm":
            if path.parent in folders:
                continue
            folders.add(path.parent)
        kept.append(path)
    return kept
