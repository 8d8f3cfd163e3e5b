"""The stain of each slide, from a sample of its patches: the same patches whenever it is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, require_store
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.reading.patch_sources import PatchSource
from wsi_pipeline.stages.engine.freshness import read_header
from wsi_pipeline.stages.engine.guards import check_unchanged
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.runner import Freshness
from wsi_pipeline.stages.inputs.slide_stain import glass_of, profile_patches, sample_rows
from wsi_pipeline.stages.inputs.stain_files import (
    profile_digest,
    profile_path,
    read_profile,
    sample_path,
    stage_name,
    write_profile,
)
from wsi_pipeline.stains.density import density, stained
from wsi_pipeline.stains.stain_profile import StainProfile
from wsi_pipeline.store.schema import PATCH_FORMAT
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table
from wsi_pipeline.system.atomic import atomic_path

SHOWN, SHOWN_PX = 4, 160
"""Patches in the slide's sample picture, and their side in pixels."""


@dataclass(frozen=True)
class StainStage:
    """Measures the stain of slides for one method of normalisation.

    slides_a_worker   see `SlideStage`: to start a process takes longer than to measure a slide
    """

    slides_a_worker: ClassVar[int] = 8

    run_dir: RunDir
    method: str

    @property
    def name(self) -> str:
        """`stain/<method>`."""
        return stage_name(self.method)

    def check(self, record: SlideRecord) -> Freshness:
        """Up to date if the profile is from the current patches."""
        path = profile_path(self.run_dir, self.method, record.slide_id)
        patches = read_header(self._patch_store(record), PATCH_FORMAT)
        found = read_profile(path)
        drawn = sample_path(self.run_dir, self.method, record.slide_id).is_file()
        if found and patches and found[0] == profile_digest(self.method, patches.digest) and drawn:
            return Freshness(True, status=_status(*found))
        return Freshness(False, "its patches have changed" if found else "")

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Measure one slide; the profile is written last."""
        store = self._patch_store(record)
        table = read_patch_table(store)
        rows = sample_rows(len(table.grid))
        with _source(table, PatchFiles.of(table, store, record.path), slide) as source:
            patches = [source.read(row) for row in rows] if source is not None else []
        if table.pixels == "none" and patches:
            check_unchanged(record.path, table.header.slide)
        glass, glass_from = glass_of(self.run_dir, record)
        profile = profile_patches(patches, self.method, glass, glass_from)
        _draw(sample_path(self.run_dir, self.method, record.slide_id), patches, glass)
        digest = profile_digest(self.method, table.header.digest)
        write_profile(profile_path(self.run_dir, self.method, record.slide_id), digest, profile)
        return _status(digest, profile)

    def _patch_store(self, record: SlideRecord) -> Path:
        return require_store(self.run_dir.patch_store(record.slide_id), "tile slides.csv")


@contextmanager
def _source(table: PatchTable, files: PatchFiles, slide: OpenOnce) -> Iterator[PatchSource | None]:
    """The patches of a slide; None if it has none, so that its file is not opened."""
    if not len(table.grid):
        yield None
        return
    with files.on(slide.open) as source:
        yield source


def _draw(path: Path, patches: list[NDArray[np.uint8]], glass: tuple[float, ...]) -> None:
    """Draw the most stained of the patches side by side; white if there are none."""
    strip = np.full((SHOWN_PX, SHOWN * SHOWN_PX, 3), 255, np.uint8)
    parts = [-float(stained(density(patch[::8, ::8].reshape(-1, 3), glass)).mean()) for patch in patches]
    chosen = sorted(int(row) for row in np.argsort(parts, kind="stable")[:SHOWN]) if patches else []
    for place, row in enumerate(chosen):
        shown = Image.fromarray(patches[row]).resize((SHOWN_PX, SHOWN_PX), Image.Resampling.BOX)
        strip[:, place * SHOWN_PX : (place + 1) * SHOWN_PX] = np.asarray(shown)
    with atomic_path(path) as temporary:
        Image.fromarray(strip).save(temporary, "PNG")


def _status(digest: str, profile: StainProfile) -> StageStatus:
    note = f"stain: {profile.fault}" if profile.fault else ""
    return StageStatus("done", note=note, digest=digest, summary={"kind": profile.kind})
