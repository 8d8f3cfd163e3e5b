"""The files of one slide's heatmap, written from arrays: pictures, values, outlines."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from wsi_pipeline.reading.patch_reader import PatchSource
from wsi_pipeline.report.maps.heat import attention_geojson, percentiles
from wsi_pipeline.report.maps.heat_sheet import draw_attention_sheet, strongest_and_weakest
from wsi_pipeline.report.maps.heat_tiff import write_pyramid
from wsi_pipeline.report.maps.heatmaps import Heat, blend_heat, draw_heat
from wsi_pipeline.stages.outputs.explain import Looked
from wsi_pipeline.store.schema import SlideIdentity
from wsi_pipeline.system.atomic import remove, write_bytes, write_text
from wsi_pipeline.tissue.geojson import Origin, from_origin

DIGEST, SETTINGS, PICTURE = "wsi-pipeline digest", "wsi-pipeline settings", "wsi-pipeline picture"
"""Text chunks of the PNG: what it was made from, how it was asked for, size of the picture above the bar, WxH."""


@dataclass(frozen=True, eq=False)
class Drawing:
    """What one slide's heatmap is drawn from.

    stem           path of its files without their endings
    coords         int64 (N, 2), level-0 top-left of each patch; patch_level0: its side, level-0 pixels
    told           text chunks of the PNG
    origin         level-0 pixel from which outlines for QuPath count, see tissue.geojson.from_origin
    """

    stem: Path
    slide: SlideIdentity
    coords: NDArray[np.int64]
    patch_level0: int
    looked: Looked
    told: Mapping[str, str]
    origin: Origin | None = None

    def path(self, ending: str) -> Path:
        """The file with this ending (`.png`)."""
        return self.stem.with_name(self.stem.name + ending)

    @property
    def heat(self) -> Heat:
        """Attention as it is laid over the slide."""
        return Heat.of_attention(self.coords, self.patch_level0, self.looked.attention)


def png_info(path: Path) -> dict[str, str]:
    """Text chunks of a PNG; empty where there is no such file or it is damaged."""
    try:
        with Image.open(path) as image:
            return {str(key): str(value) for key, value in image.info.items()}
    except OSError:
        return {}


def write_drawing(drawing: Drawing, picture: NDArray[np.uint8]) -> None:
    """Write values, outlines, and both overlays over `picture`, uint8 (h, w, 3), of the whole slide; the PNG last."""
    write_text(drawing.path(".csv"), values_csv(drawing))
    outlines = attention_geojson(
        drawing.coords, drawing.patch_level0, drawing.looked.attention, drawing.slide.size, drawing.slide.mpp
    )
    write_text(drawing.path(".geojson"), json.dumps(from_origin(outlines, drawing.origin)) + "\n")
    signed = Heat.of_contribution(
        drawing.coords, drawing.patch_level0, drawing.looked.evidence, f"{drawing.looked.towards}:"
    )
    size = {PICTURE: f"{picture.shape[1]}x{picture.shape[0]}"}
    _write_jpeg(drawing.path(".contribution.jpg"), draw_heat(picture, drawing.slide.size, signed))
    _write_png(drawing.path(".png"), draw_heat(picture, drawing.slide.size, drawing.heat), {**drawing.told, **size})


def values_csv(drawing: Drawing) -> str:
    """x, y (level-0 top-left), attention, percentile, contribution_<class>...; row for row with the patch store."""
    looked = drawing.looked
    columns = {"x": drawing.coords[:, 0], "y": drawing.coords[:, 1], "attention": looked.attention}
    columns |= {"percentile": percentiles(looked.attention).round(4)}
    columns |= {f"contribution_{name}": looked.contributions[:, k] for k, name in enumerate(looked.names)}
    return pd.DataFrame(columns).to_csv(index=False, float_format="%.7g", lineterminator="\n")


def write_sheet(drawing: Drawing, patches: PatchSource) -> None:
    """Write the picture of the strongest and weakest patches; none for a slide without patches."""
    path = drawing.path(".patches.jpg")
    if len(drawing.coords) == 0:
        remove(path)
        return
    values = drawing.looked.attention
    strong, weak = strongest_and_weakest(values)
    images = {row: patches.read(row) for row in (*strong, *weak)}
    _write_jpeg(path, draw_attention_sheet(values, strong, weak, images, drawing.slide.slide_id))


def write_tiff(drawing: Drawing, picture: NDArray[np.uint8]) -> None:
    """Write attention over a picture uint8 (h, w, 3) of the whole slide as a pyramidal TIFF."""
    size, mpp = drawing.slide.size, drawing.slide.mpp
    spacing = (size.width * mpp / picture.shape[1], size.height * mpp / picture.shape[0])
    heated = blend_heat(picture, size, drawing.heat)
    write_pyramid(drawing.path(".tif"), heated, spacing, json.dumps({DIGEST: drawing.told[DIGEST]}))


def _write_png(path: Path, image: Image.Image, told: Mapping[str, str]) -> None:
    info, out = PngInfo(), io.BytesIO()
    for key, value in told.items():
        info.add_text(key, value)
    image.save(out, "PNG", pnginfo=info)
    write_bytes(path, out.getvalue())


def _write_jpeg(path: Path, image: Image.Image) -> None:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=88)
    write_bytes(path, out.getvalue())
