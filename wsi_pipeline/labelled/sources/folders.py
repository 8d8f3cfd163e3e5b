"""Labels from folders: ROOT/<class>/file, ROOT/<class>/<group>/file, or the same below train, val and test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from wsi_pipeline.cohort.table_words import SPLIT_WORDS
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.labelled.assemble import LabelRows, assemble
from wsi_pipeline.labelled.faults import Faults
from wsi_pipeline.labelled.image_file import IMAGE_SUFFIXES, ImageFact, probe_images
from wsi_pipeline.labelled.image_patches import ImageSet, image_patches
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.splits.patch_groups import group_by_pattern, join_copies, note_no_groups
from wsi_pipeline.wording import counted


def is_class_folders(root: Path) -> bool:
    """Whether a folder holds folders that hold images."""
    return next(_files(root), None) is not None


def open_class_folders(root: Path, spec: LabelSpec) -> LabelledPatches:
    """Labelled patches from class folders; a folder between class and file is the group, across classes.

    Raises LabelError if no image can be used or there are fewer than two classes.
    """
    faults, rows = Faults(str(root)), LabelRows()
    loose = sum(_is_image(path) for path in root.iterdir())
    if loose:
        rows.notes.append(f"{counted(loose, 'image')} directly in {root.name}, outside any class folder: not used")
    found = list(_files(root))
    facts = probe_images([path for path, _ in found])
    good: list[tuple[Path, ImageFact]] = []
    splits: list[str] = []
    for (path, parts), fact in zip(found, facts, strict=True):
        if not isinstance(fact, ImageFact):
            faults.add(path.relative_to(root).as_posix(), fact.what)
            continue
        split, label, group = parts
        good.append((path, fact))
        splits.append(split)
        rows.add(path.relative_to(root).as_posix(), label, group)
    rows.notes += faults.notes("images", len(good))
    rows.splits = splits if all(splits) else None
    images = ImageSet(tuple(path for path, _ in good), tuple(fact for _, fact in good))
    _fill_groups(rows, images, spec)
    return assemble(rows, image_patches(images, spec, rows.notes), str(root), spec)


def _fill_groups(rows: LabelRows, images: ImageSet, spec: LabelSpec) -> None:
    if spec.group_pattern:
        rows.groups = group_by_pattern(rows.names, spec.group_pattern, rows.notes)
        return
    missing = sum(not group for group in rows.groups)
    rows.groups = [group or name for group, name in zip(rows.groups, rows.names, strict=True)]
    if missing == len(rows.names):
        note_no_groups(rows)
    elif missing:
        rows.notes.append(f"{counted(missing, 'image')} outside any group folder: each counts as its own group")
    if missing:
        join_copies(rows, images.digests, range(len(images)))


def _files(root: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Image files in the order of their paths, with (split, class, group); split and group may be empty."""
    folders = _folders(root)
    if folders and all(folder.name.lower() in SPLIT_WORDS for folder in folders):
        parents = [(SPLIT_WORDS[folder.name.lower()], child) for folder in folders for child in _folders(folder)]
    else:
        parents = [("", folder) for folder in folders]
    for split, folder in parents:
        for path in sorted(folder.rglob("*")):
            inside = path.relative_to(folder).parts
            if _is_image(path) and not any(part.startswith(".") for part in inside):
                yield path, (split, folder.name, inside[0] if len(inside) > 1 else "")


def _folders(root: Path) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
