"""Patches as picture files: one PNG per patch, one folder per slide, and a table of them.

patches/<slide_id>/<x>_<y>.png     pixels as the encoder got them; x, y: top-left corner, level-0 px
tables/<slide_id>.csv              file, x, y, side, x_um, y_um, tissue, label
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.errors import StoreError
from wsi_pipeline.exchange.writers.cohort_tables import write_slide_table
from wsi_pipeline.exchange.writers.csv_tables import patch_frame
from wsi_pipeline.exchange.writers.export_files import write_csv
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.reading.patch_files import PatchFiles
from wsi_pipeline.reading.patch_reader import PatchReader
from wsi_pipeline.system.atomic import atomic_path

_BATCH = 32


def write_pngs(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns its folder of pictures and its table. Raises SlideError if it cannot be read."""
    if slide.patches is None or slide.store is None:
        raise StoreError("there is no patch store", slide=slide.slide_id, todo="Run: wsi-pipeline tile slides.csv")
    files = PatchFiles.of(slide.patches, slide.store, slide.record.path)
    rows = _chosen(len(slide.coords), slide.most)
    names = [f"{x}_{y}.png" for x, y in slide.coords[rows].tolist()]
    pictures = folder / "patches" / slide.slide_id
    with closing(files.open()) as source, atomic_path(pictures) as temporary:
        temporary.mkdir()
        if len(rows) == len(slide.coords):  # in order, every stored tile is decoded once
            for first, batch in PatchReader(source, _BATCH):
                for name, pixels in zip(names[first : first + len(batch)], batch, strict=True):
                    Image.fromarray(pixels).save(temporary / name)
        else:
            for name, row in zip(names, rows.tolist(), strict=True):
                Image.fromarray(source.read(row)).save(temporary / name)
    table = patch_frame(slide).iloc[rows]
    table.insert(0, "file", [f"patches/{slide.slide_id}/{name}" for name in names])
    return [pictures, write_csv(folder / "tables" / f"{slide.slide_id}.csv", table)]


def _chosen(count: int, most: int) -> NDArray[np.int64]:
    """Rows to write, ascending: all, or `most` evenly spaced ones."""
    if most == 0 or most >= count:
        return np.arange(count)
    return np.unique(np.linspace(0, count - 1, most).round().astype(np.int64))


def finish_pngs(cohort: CohortContent, folder: Path) -> str:
    """Write slides.csv; returns what to do next."""
    write_slide_table(cohort, folder / "slides.csv")
    return f"the pictures are in {folder / 'patches'}/, one folder per slide; torchvision's ImageFolder reads them"


EXPORT_FORMATS.register("png")(ExportFormat("png", "patches", "PNG", write_pngs, finish_pngs))
