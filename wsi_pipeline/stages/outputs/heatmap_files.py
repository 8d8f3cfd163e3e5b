"""The files of one slide's heatmap: overlays, values, outlines, example patches, pyramid."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.images.png import encode_png
from wsi_pipeline.reading.patch_reader import PatchSource
from wsi_pipeline.report.maps.example_sheets import draw_attention_sheet, strongest_and_weakest
from wsi_pipeline.report.maps.heat import attention_geojson, percentiles
from wsi_pipeline.report.maps.heat_tiff import write_pyramid
from wsi_pipeline.report.maps.heatmaps import blend_heat, draw_heat
from wsi_pipeline.stages.outputs.explanation import Explanation
from wsi_pipeline.stages.outputs.png_chunks import DIGEST, PICTURE
from wsi_pipeline.system.atomic import remove, write_bytes, write_text
from wsi_pipeline.tissue.geojson import Origin, from_origin, without_areas


@dataclass(frozen=True, eq=False)
class HeatmapFiles:
    """Writes the files of one slide's heatmap.

    stem     path of the files without their endings
    chunks   text chunks of the PNG: DIGEST and SETTINGS
    origin   level-0 pixel that is the origin of outlines for QuPath, see tissue.geojson.from_origin
    outlined whether to write outlines; False if the patches' place on the slide is unknown
    """

    stem: Path
    explanation: Explanation
    chunks: Mapping[str, str]
    origin: Origin | None = None
    outlined: bool = True

    def path(self, ending: str) -> Path:
        """The file with this ending (`.png`)."""
        return self.stem.with_name(self.stem.name + ending)

    def write_overlays(self, picture: NDArray[np.uint8]) -> None:
        """Write values, outlines, and both overlays on `picture`, uint8 (h, w, 3), of the whole slide; the PNG last."""
        slide, size = self.explanation.slide, {PICTURE: f"{picture.shape[1]}x{picture.shape[0]}"}
        write_text(self.path(".csv"), values_csv(self.explanation))
        if self.outlined:
            write_text(self.path(".geojson"), json.dumps(self._outlines()) + "\n")
        else:
            remove(self.path(".geojson"))
        contribution = draw_heat(picture, slide.size, self.explanation.evidence_heat)
        _write_jpeg(self.path(".contribution.jpg"), contribution)
        attention = draw_heat(picture, slide.size, self.explanation.attention_heat)
        _write_png(self.path(".png"), attention, {**self.chunks, **size})

    def write_sheet(self, patches: PatchSource) -> None:
        """Write the strongest and weakest patches; nothing for a slide without patches."""
        values = self.explanation.attention
        if len(values) == 0:
            remove(self.path(".patches.jpg"))
            return
        strong, weak = strongest_and_weakest(values)
        images = {row: patches.read(row) for row in (*strong, *weak)}
        sheet = draw_attention_sheet(values, strong, weak, images, self.explanation.slide.slide_id)
        _write_jpeg(self.path(".patches.jpg"), sheet)

    def write_pyramid(self, picture: NDArray[np.uint8]) -> None:
        """Write attention over a picture, uint8 (h, w, 3), of the whole slide as a pyramidal TIFF."""
        slide = self.explanation.slide
        mpp = (slide.size.width * slide.mpp / picture.shape[1], slide.size.height * slide.mpp / picture.shape[0])
        overlay = blend_heat(picture, slide.size, self.explanation.attention_heat)
        write_pyramid(self.path(".tif"), overlay, mpp, json.dumps({DIGEST: self.chunks[DIGEST]}))

    def _outlines(self) -> dict[str, Any]:
        made = self.explanation
        outlines = attention_geojson(made.coords, made.patch_level0, made.attention, made.slide.size, made.slide.mpp)
        return from_origin(outlines if made.slide.mpp else without_areas(outlines), self.origin)


def values_csv(explanation: Explanation) -> str:
    """x, y (level-0 top-left), attention, percentile, contribution_<class>...; row for row with the patch store."""
    attention, parts = explanation.attention, explanation.contributions
    columns = {"x": explanation.coords[:, 0], "y": explanation.coords[:, 1], "attention": attention}
    columns |= {"percentile": percentiles(attention).round(4)}
    columns |= {f"contribution_{name}": parts[:, k] for k, name in enumerate(explanation.outputs)}
    return pd.DataFrame(columns).to_csv(index=False, float_format="%.7g", lineterminator="\n")


def _write_png(path: Path, image: Image.Image, chunks: Mapping[str, str]) -> None:
    write_bytes(path, encode_png(np.asarray(image), chunks))


def _write_jpeg(path: Path, image: Image.Image) -> None:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    write_bytes(path, out.getvalue())
