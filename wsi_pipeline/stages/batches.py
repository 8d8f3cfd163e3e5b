"""A number or a vector for each patch of a slide: what embed and classify have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.reading.patches import PatchReader, PatchSource, SlidePatches, StoredPatches
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.stages.tile import check_same_slide
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.patches import PatchTable


def _nobody(count: int) -> None:
    """Told of progress when no one else listens."""


@dataclass(frozen=True)
class Reading:
    """How patches are read: how many at a time, by how many threads, and who is told when a batch is done."""

    batch: int = 16
    threads: int = 2
    on_patches: Callable[[int], None] = _nobody


def fill_rows(
    out: NDArray[np.floating[Any]],
    compute: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    record: SlideRecord,
    path: Path,
    table: PatchTable,
    reading: Reading,
) -> None:
    """Fill `out` (N, ...), row for row with the patch store at `path`, by `compute` on uint8 batches (B, P, P, 3).

    Pixels come from the store where it keeps them, else from the slide. Raises SlideError for a slide that cannot be
    read or is another than was tiled.
    """
    if len(table.grid) == 0:
        return
    with ExitStack() as stack:
        source = _source(record, path, table, stack)
        for first, batch in PatchReader(source, reading.batch, reading.threads):
            out[first : first + len(batch)] = compute(batch)
            reading.on_patches(len(batch))


def _source(record: SlideRecord, path: Path, table: PatchTable, stack: ExitStack) -> PatchSource:
    if table.pixels != "none":
        return StoredPatches(stack.enter_context(open_store(path)), table.pixels)
    slide = stack.enter_context(open_slide(record.path))
    check_same_slide(slide, table.header.slide)
    return SlidePatches(slide, table.grid.coords, table.geometry)
