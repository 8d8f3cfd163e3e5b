"""One .h5ad per slide: features as X, places in obsm['spatial'], thumbnail in uns['spatial'] as scanpy expects.

    <slide_id>.h5ad

X float32 (N, D), columns ENCODER_0, ENCODER_1, ...; obs: x, y, side, x_um, y_um, tissue, label, slide_id, patient_id,
slide_label; obsm['spatial']: centres of the patches in level-0 pixels; uns['spatial'][slide_id]: images.hires,
scalefactors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import pandas as pd

from wsi_pipeline.exchange.writers.anndata_layout import write_anndata
from wsi_pipeline.exchange.writers.cohort_tables import write_slide_table
from wsi_pipeline.exchange.writers.csv_tables import feature_names, patch_frame
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.system.atomic import atomic_path


def observations(slide: SlideContent) -> pd.DataFrame:
    """`obs`: one row per patch, named after slide and row."""
    frame = patch_frame(slide).rename(columns={"label": "patch_label"})
    frame["slide_id"] = slide.slide_id
    frame["patient_id"] = slide.record.patient_id
    if slide.record.label is not None:
        frame["label"] = slide.record.label
    frame.index = pd.Index([f"{slide.slide_id}-{row}" for row in range(len(frame))])
    return frame


def write_h5ad(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the file."""
    path = folder / f"{slide.slide_id}.h5ad"
    centres = slide.coords + slide.side / 2
    uns: dict[str, Any] = {"encoder": _plain(slide.encoder), **known_mpp(slide)}
    if slide.segment is not None:
        thumbnail = slide.segment.thumbnail
        scale = thumbnail.shape[1] / slide.header.slide.width
        factors = {"tissue_hires_scalef": float(scale), "spot_diameter_fullres": float(slide.side)}
        uns["spatial"] = {slide.slide_id: {"images": {"hires": thumbnail}, "scalefactors": factors}}
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        write_anndata(file, slide.matrix, feature_names(slide), observations(slide), {"spatial": centres}, uns)
    return [path]


def known_mpp(slide: SlideContent) -> dict[str, float]:
    """`mpp`, micrometres per level-0 pixel, if known."""
    return {} if slide.mpp is None else {"mpp": slide.mpp}


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in facts.items() if isinstance(value, str | int | float)}


def finish_h5ad(cohort: CohortContent, folder: Path) -> str:
    """Write slides.csv; returns what to do next."""
    write_slide_table(cohort, folder / "slides.csv")
    return f"anndata.read_h5ad('{folder}/SLIDE_ID.h5ad'); of all slides: anndata.concat"


EXPORT_FORMATS.register("anndata")(
    ExportFormat("anndata", "features", "AnnData on disk 0.1.0", write_h5ad, finish_h5ad)
)
