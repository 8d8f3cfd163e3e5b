"""Patches of a run as PNG files below annotations/patches/, with the pixels that `embed` reads."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from PIL import Image

from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.errors import LabelError
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.store.tables.patch_table import PatchTable, read_patch_table
from wsi_pipeline.system.atomic import write_bytes


def patch_table_of(run: RunDir, slide_id: str) -> tuple[PatchTable, Path]:
    """The patches of a slide, and its patch store. Raises LabelError if the slide has none (any more)."""
    store = existing_store(run.patch_store(slide_id))
    if store is None:
        raise LabelError(f"{slide_id} has no patches any more", todo="Tile it again: wsi-pipeline tile")
    return read_patch_table(store), store


def write_patch_images(run: RunDir, slide_id: str, path: Path, rows: Sequence[int]) -> tuple[PatchTable, list[str]]:
    """Write some patches of the slide at `path`; returns the patch table and the files, relative to annotations/.

    Files already there are kept: their names contain the digest of the patch store. Raises LabelError for a slide
    without patches, SlideError for one that cannot be read.
    """
    table, store = patch_table_of(run, slide_id)
    names = []
    with closing(PatchFiles.of(table, store, path).open()) as source:
        for row in rows:
            x, y = (int(value) for value in table.grid.coords[row])
            target = run.annotations / "patches" / slide_id / f"{table.header.digest[:8]}-{x}-{y}.png"
            if not target.is_file():
                out = io.BytesIO()
                Image.fromarray(source.read(row)).save(out, "PNG", compress_level=3)
                write_bytes(target, out.getvalue(), durable=False)
            names.append(target.relative_to(run.annotations).as_posix())
    return table, names
