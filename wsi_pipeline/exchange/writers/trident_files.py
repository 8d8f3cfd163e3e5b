"""TRIDENT's job folder: patch coordinates, features of one encoder and tissue outlines.

    <mag>x_<px>px_<overlap>px_overlap/patches/<slide_id>_patches.h5
    <mag>x_<px>px_<overlap>px_overlap/features_<encoder>/<slide_id>.h5
    contours_geojson/<slide_id>.geojson

Its slide encoders, Patho-Bench and torchmil's `TridentWSIDataset` read these.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shapely.geometry import mapping

from wsi_pipeline.exchange.writers.cohort_tables import write_slide_table
from wsi_pipeline.exchange.writers.export_files import write_h5
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.store.tables.patch_table import coords_attrs
from wsi_pipeline.system.atomic import write_text


def write_trident(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns the files."""
    attrs = {**coords_attrs(slide.header, slide.geometry), "patch_size_level0": slide.side}
    place = folder / _folder_name(attrs)
    coords, features = place / "patches", place / f"features_{slide.encoder_name}"
    about = {"name": slide.slide_id, "savetodir": str(features.name), "encoder": str(slide.encoder.get("name", ""))}
    written = [
        write_h5(
            coords / f"{slide.slide_id}_patches.h5",
            {"coords": slide.coords},
            {"coords": {**attrs, "savetodir": coords.name}},
        ),
        write_h5(
            features / f"{slide.slide_id}.h5",
            {"features": slide.matrix, "coords": slide.coords},
            {"features": about, "coords": {**attrs, "savetodir": features.name}},
        ),
    ]
    if slide.segment is not None:
        outlines = folder / "contours_geojson" / f"{slide.slide_id}.geojson"
        write_text(outlines, json.dumps(_outlines(slide)))
        written.append(outlines)
    return written


def _folder_name(attrs: dict[str, Any]) -> str:
    return f"{attrs['target_magnification']:g}x_{attrs['patch_size']}px_{attrs['overlap']}px_overlap"


def _outlines(slide: SlideContent) -> dict[str, Any]:
    features = [
        {"type": "Feature", "properties": {"tissue_id": number}, "geometry": mapping(polygon)}
        for number, polygon in enumerate(slide.tissue)
    ]
    return {"type": "FeatureCollection", "features": features}


def finish_trident(cohort: CohortContent, folder: Path) -> str:
    """Write slides.csv; returns what to do next."""
    write_slide_table(cohort, folder / "slides.csv")
    coords = next((path.name for path in sorted(folder.glob("*_overlap"))), "")
    return (
        f"python run_batch_of_slides.py --task feat --wsi_dir SLIDES --job_dir {folder} --coords_dir {coords} "
        f"--slide_encoder NAME   (Patho-Bench: {folder / coords}/features_{cohort.encoder})"
    )


EXPORT_FORMATS.register("trident")(ExportFormat("trident", "features", "TRIDENT 0.3.0", write_trident, finish_trident))
