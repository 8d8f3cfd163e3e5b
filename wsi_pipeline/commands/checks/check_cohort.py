"""Checks across all slides of a cohort: copies, labels, unlisted files, the cost of a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from wsi_pipeline.cohort.discover import is_slide_file
from wsi_pipeline.cohort.manifest import Cohort, SlideRecord
from wsi_pipeline.commands.checks.check_slide import SlideCheck
from wsi_pipeline.files.addresses import may_exist
from wsi_pipeline.files.path_choices import split_choice

MOST_FOLDERS = 1000
_FLOAT16 = 2


def mark_copies(checks: Sequence[SlideCheck]) -> list[SlideCheck]:
    """Return the checks, with each slide marked as a copy if an earlier one has the same content."""
    first: dict[str, str] = {}
    marked = []
    for check in checks:
        digest = check.file.digest if check.file else ""
        earlier = first.setdefault(digest, check.slide_id) if digest else check.slide_id
        marked.append(check if earlier == check.slide_id else replace(check, copy_of=earlier))
    return marked


@dataclass(frozen=True)
class Labels:
    """How labels and slides fit together.

    counts        label -> (slides, patients), most slides first
    without       slides without a label, if others have one
    without_file  labelled rows whose slide file does not exist
    """

    counts: dict[str, tuple[int, int]]
    without: tuple[str, ...]
    without_file: tuple[str, ...]


def join_labels(cohort: Cohort) -> Labels:
    """Compare the labels of a cohort with its slides."""
    patients: dict[str, set[str]] = {}
    for record in cohort.records:
        if record.label is not None:
            patients.setdefault(record.label, set()).add(record.patient_id)
    counts = {label: (slides, len(patients[label])) for label, slides in cohort.label_counts().items()}
    without = tuple(record.slide_id for record in cohort.records if record.label is None) if counts else ()
    gone = tuple(r.slide_id for r in cohort.records if r.label is not None and not may_exist(split_choice(r.path)[0]))
    return Labels(counts, without, gone)


def unlisted_files(records: Sequence[SlideRecord]) -> tuple[Path, ...]:
    """Slide files in the folders of the listed ones that no row names, sorted.

    DICOM files are left out: those next to a listed one are its levels. At most 1,000 folders are searched.
    """
    listed = {split_choice(record.path)[0] for record in records}
    folders = sorted({path.parent for path in listed})[:MOST_FOLDERS]
    return tuple(
        path
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path not in listed and is_slide_file(path) and path.suffix.lower() != ".dcm"
    )


@dataclass(frozen=True)
class RunCost:
    """Estimated cost of a run on this machine.

    tile_seconds   wall-clock, with `processes` slides at a time
    read_seconds   wall-clock to read all patches once for embed, with as many threads
    store_bytes    segment and patch stores
    feature_bytes  feature stores of one encoder
    free_bytes     free space on the disk of the run folder
    """

    patches: int
    tile_seconds: float
    read_seconds: float
    store_bytes: int
    feature_bytes: int
    free_bytes: int

    @property
    def fits(self) -> bool:
        """Whether the disk has enough free space."""
        return self.store_bytes + self.feature_bytes <= self.free_bytes


def run_cost(checks: Sequence[SlideCheck], processes: int, feature_dim: int, run_folder: Path) -> RunCost:
    """The cost of all slides that can be tiled, `processes` at a time, with features of `feature_dim` float16."""
    costs = [check.cost for check in checks if check.cost is not None]
    patches = sum(cost.patches for cost in costs)
    return RunCost(
        patches,
        tile_seconds=sum(cost.tile_seconds for cost in costs) / processes,
        read_seconds=sum(cost.read_seconds for cost in costs) / processes,
        store_bytes=sum(cost.store_bytes for cost in costs),
        feature_bytes=patches * feature_dim * _FLOAT16,
        free_bytes=_free(run_folder),
    )


def _free(folder: Path) -> int:
    """Bytes free on the disk of a folder that may not exist yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free
