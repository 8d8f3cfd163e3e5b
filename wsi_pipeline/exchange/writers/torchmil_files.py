"""What torchmil's `ProcessedMILDataset` reads: one .npy per bag in a folder for each kind of value.

features/<slide_id>.npy       float32 (N, D)
coords/<slide_id>.npy         int64 (N, 2), column and row in the grid of patches: neighbours are 1 apart
labels/<slide_id>.npy         int64 (), number of the class
inst_labels/<slide_id>.npy    int64 (N,), -1 for none; only of slides whose patches are labelled
bags.csv                      slide_id, patient_id, label, code, split
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsi_pipeline.errors import StoreError
from wsi_pipeline.exchange.writers.cohort_tables import write_slide_table
from wsi_pipeline.exchange.writers.export_files import write_npy
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent


def write_torchmil(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the files."""
    name, stride = f"{slide.slide_id}.npy", slide.geometry.stride_level0
    if slide.side and stride <= 0:
        raise StoreError("the grid of its patches is not known, but torchmil needs it", slide=slide.slide_id)
    cells = slide.coords // stride
    written = [
        write_npy(folder / "features" / name, slide.matrix),
        write_npy(folder / "coords" / name, cells - cells.min(axis=0)),
    ]
    if slide.code is not None:
        written.append(write_npy(folder / "labels" / name, np.array(slide.code, np.int64)))
    if slide.patch_labels is not None:
        written.append(write_npy(folder / "inst_labels" / name, slide.patch_labels[0]))
    return written


def finish_torchmil(cohort: CohortContent, folder: Path) -> str:
    """Write bags.csv; returns what to do next."""
    write_slide_table(cohort, folder / "bags.csv")
    place = folder.absolute()
    return (
        f"ProcessedMILDataset({str(place / 'features')!r}, {str(place / 'labels')!r}, "
        f"coords_path={str(place / 'coords')!r}, bag_keys=['X', 'Y', 'adj', 'coords'])"
    )


EXPORT_FORMATS.register("torchmil")(
    ExportFormat("torchmil", "features", "torchmil 1.0.2", write_torchmil, finish_torchmil, labels=True)
)
