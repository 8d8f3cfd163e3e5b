"""What STAMP 2 trains on: one HDF5 file per slide with coordinates in micrometres, and its two tables.

features/<slide_id>.h5     feats (N, D), coords (N, 2) in micrometres; attributes of the file as in STAMP 2.5
clini.csv                  PATIENT and the outcomes; slide.csv: PATIENT, FILENAME
config.yaml                for `stamp --config config.yaml crossval`
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from wsi_pipeline.errors import StoreError
from wsi_pipeline.exchange.writers.export_files import write_csv, write_h5
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.system.atomic import write_text_if_changed
from wsi_pipeline.version import __version__


def write_stamp(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the file. Raises StoreError if the slide's resolution is not known."""
    path, side, mpp = folder / "features" / f"{slide.slide_id}.h5", slide.side, slide.mpp
    if mpp is None:
        raise StoreError("its resolution is not known, but STAMP needs micrometres", slide=slide.slide_id)
    root = {
        "extractor": slide.encoder_name,
        "unit": "um",
        "tile_size_um": float(side * mpp),
        "tile_size_px": slide.geometry.patch_px,
        "feat_type": "tile",
        "writer": f"wsi-pipeline {__version__}",
    }
    coords_um = slide.coords.astype("float64") * mpp
    return [write_h5(path, {"coords": coords_um.astype("float32"), "feats": slide.matrix}, {}, root)]


def finish_stamp(cohort: CohortContent, folder: Path) -> str:
    """Write clini.csv, slide.csv and config.yaml; returns what to do next."""
    table = cohort.table
    write_csv(
        folder / "slide.csv",
        pd.DataFrame({"PATIENT": table["patient_id"], "FILENAME": [f"{name}.h5" for name in table["slide_id"]]}),
    )
    columns = [name for name in ("label", "time", "event") if table[name].notna().any()]
    patients = table.groupby("patient_id", sort=False)[columns].agg(["first", "nunique"]) if columns else None
    clini = pd.DataFrame({"PATIENT": table["patient_id"].unique()})
    for name in columns:
        assert patients is not None
        mixed = patients[patients[(name, "nunique")] > 1].index
        if len(mixed):
            cohort.notes.append(f"{len(mixed)} patients have slides with different {name}: the first is in clini.csv")
        clini[name] = patients[(name, "first")].to_numpy()
    write_csv(folder / "clini.csv", clini)
    write_text_if_changed(folder / "config.yaml", yaml.safe_dump(_config(columns, folder.absolute()), sort_keys=False))
    return f"stamp --config {folder / 'config.yaml'} crossval"


def _config(columns: Sequence[str], place: Path) -> dict[str, Any]:
    if "label" in columns or "time" not in columns:
        target = {"task": "classification", "ground_truth_label": "label"}
    else:
        target = {"task": "survival", "time_label": "time", "status_label": "event"}
    section = {
        "output_dir": str(place / "stamp"),
        "clini_table": str(place / "clini.csv"),
        "slide_table": str(place / "slide.csv"),
        "feature_dir": str(place / "features"),
        **target,
    }
    return {"crossval": section, "training": section.copy()}


EXPORT_FORMATS.register("stamp")(ExportFormat("stamp", "features", "STAMP 2.5.0", write_stamp, finish_stamp))
