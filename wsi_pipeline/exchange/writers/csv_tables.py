"""Plain tables: a CSV per slide with place, tissue fraction, label and features of every patch.

patches/<slide_id>.csv     x, y, side (level-0 px), x_um, y_um, tissue, label, ENCODER_0, ENCODER_1, ...
slides.csv                 slide_id, patient_id, label, ...
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from wsi_pipeline.exchange.writers.cohort_tables import write_slide_table
from wsi_pipeline.exchange.writers.export_files import write_csv
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent


def patch_frame(slide: SlideContent) -> pd.DataFrame:
    """One row per patch: place, tissue fraction and label, as far as known."""
    coords, geometry = slide.coords, slide.geometry
    columns: dict[str, object] = {
        "x": coords[:, 0],
        "y": coords[:, 1],
        "side": np.full(len(coords), geometry.patch_level0, np.int64),
    }
    if slide.mpp is not None:
        columns |= {"x_um": coords[:, 0] * slide.mpp, "y_um": coords[:, 1] * slide.mpp}
    if slide.coverage is not None:
        columns["tissue"] = slide.coverage
    if slide.patch_labels is not None:
        codes, classes = slide.patch_labels
        columns["label"] = [classes[code] if code >= 0 else "" for code in codes]
    return pd.DataFrame(columns)


def feature_names(slide: SlideContent) -> list[str]:
    """Names of the features, with the encoder's: tables are joined by name, which must not mix encoders."""
    return [f"{slide.encoder_name}_{k}" for k in range(slide.matrix.shape[1])]


def write_csvs(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the file."""
    frame = patch_frame(slide)
    values = slide.matrix.astype(np.float32)
    features = pd.DataFrame(values, columns=feature_names(slide))
    return [write_csv(folder / "patches" / f"{slide.slide_id}.csv", pd.concat([frame, features], axis=1))]


def finish_csvs(cohort: CohortContent, folder: Path) -> str:
    """Write slides.csv; returns what to do next."""
    write_slide_table(cohort, folder / "slides.csv")
    return f"pandas.read_csv('{folder}/patches/SLIDE_ID.csv')   (or R: read.csv)"


EXPORT_FORMATS.register("csv")(ExportFormat("csv", "features", "RFC 4180", write_csvs, finish_csvs, empty=True))
