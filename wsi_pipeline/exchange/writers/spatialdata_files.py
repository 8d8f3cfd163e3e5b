"""One SpatialData folder per slide, for napari-spatialdata, spatialdata-plot and LazySlide.

    <slide_id>.zarr/images/thumbnail     colours, scaled to level-0 pixels
    <slide_id>.zarr/labels/tissue        tissue mask, 1 where tissue is
    <slide_id>.zarr/shapes/tiles         one square per patch
    <slide_id>.zarr/tables/<encoder>     features; annotates `tiles`

Container format 0.2 (Zarr v3). The squares are in the shapes format 0.1, which is plain arrays; later ones are Parquet.
Everything lies in the coordinate system `global`, level-0 pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from wsi_pipeline.exchange.writers.anndata_files import known_mpp, observations
from wsi_pipeline.exchange.writers.anndata_layout import new_zarr, write_anndata
from wsi_pipeline.exchange.writers.cohort_tables import write_slide_table
from wsi_pipeline.exchange.writers.csv_tables import feature_names
from wsi_pipeline.exchange.writers.slide_content import EXPORT_FORMATS, CohortContent, ExportFormat, SlideContent
from wsi_pipeline.system.atomic import atomic_path
from wsi_pipeline.version import __version__

_CONTAINER, _RASTER, _SHAPES, _TABLE = "0.2", "0.3", "0.1", "0.2"
_SQUARES: Any = {"version": _SHAPES, "geos": {"name": "POLYGON", "type": 3}}
"""The type is that of shapely's GeometryType."""


def write_spatialdata(slide: SlideContent, folder: Path) -> Sequence[Path]:
    """Write one slide; returns its folder."""
    path = folder / f"{slide.slide_id}.zarr"
    with atomic_path(path) as temporary:
        root = new_zarr(str(temporary))
        about = {"version": _CONTAINER, "spatialdata_software_version": f"wsi-pipeline {__version__}"}
        root.attrs["spatialdata_attrs"] = about
        if slide.segment is not None:
            size = slide.header.slide.size
            images, labels = root.create_group("images"), root.create_group("labels")
            picture = np.ascontiguousarray(slide.segment.thumbnail.transpose(2, 0, 1))
            _raster(images, "thumbnail", picture, size.width, size.height)
            labels.attrs["ome"] = {"labels": ["tissue"]}
            _raster(labels, "tissue", slide.segment.mask.pixels.astype(np.uint8), size.width, size.height)
        _squares(root.create_group("shapes").create_group("tiles"), slide)
        _table(root.create_group("tables").create_group(slide.encoder_name), slide)
        root.store.close()
    return [path]


def _axes(names: str) -> list[dict[str, str]]:
    kinds = {"c": {"type": "channel"}, "y": {"type": "space", "unit": "unit"}, "x": {"type": "space", "unit": "unit"}}
    return [{"name": name, **kinds[name]} for name in names]


def _to_global(axes: str, **transformation: Any) -> dict[str, Any]:
    systems = {
        "input": {"name": axes, "axes": _axes(axes)},
        "output": {"name": "global", "axes": _axes(axes)},
    }
    return {**transformation, **systems}


def _raster(group: zarr.Group, name: str, pixels: NDArray[np.uint8], width: int, height: int) -> None:
    """An image (3, h, w) or labels (h, w) of one scale that spans the slide."""
    item = group.create_group(name)
    item.create_array("s0", data=pixels, chunks=tuple(min(side, 1024) for side in pixels.shape))
    axes = "cyx" if pixels.ndim == 3 else "yx"
    scale = [1.0] * (pixels.ndim - 2) + [height / pixels.shape[-2], width / pixels.shape[-1]]
    own = {"type": "scale", "scale": [1.0] * pixels.ndim}
    multiscale = {
        "name": name,
        "axes": [{key: value for key, value in axis.items() if key != "unit"} for axis in _axes(axes)],
        "datasets": [{"path": "s0", "coordinateTransformations": [own]}],
        "coordinateTransformations": [_to_global(axes, type="scale", scale=scale)],
    }
    ome: dict[str, Any] = {"version": "0.5-dev-spatialdata", "multiscales": [multiscale]}
    if pixels.ndim == 3:
        ome["omero"] = {"channels": [{"label": label} for label in "rgb"]}
    else:
        ome["image-label"] = {"version": "0.5"}
    item.attrs.update({"ome": ome, "spatialdata_attrs": {"version": _RASTER}})


def _squares(item: zarr.Group, slide: SlideContent) -> None:
    """One closed ring of five points per patch; `offset0` is where rings begin, `offset1` where polygons begin."""
    n, side = len(slide.coords), slide.side
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side], [0, 0]], np.float64)
    rings = (slide.coords[:, None].astype(np.float64) + corners).reshape(-1, 2)
    item.create_array("coords", data=rings, chunks=(max(1, len(rings)), 2))
    item.create_array("offset0", data=5 * np.arange(n + 1, dtype=np.int64))
    item.create_array("offset1", data=np.arange(n + 1, dtype=np.int64))
    item.create_array("Index", data=np.arange(n, dtype=np.int64))
    item.attrs.update(
        {
            "encoding-type": "ngff:shapes",
            "axes": ["x", "y"],
            "coordinateTransformations": [_to_global("xy", type="identity")],
            "spatialdata_attrs": _SQUARES,
        }
    )


def _table(item: zarr.Group, slide: SlideContent) -> None:
    obs = observations(slide)
    obs["region"] = "tiles"
    obs["instance_id"] = np.arange(len(obs), dtype=np.int64)
    keys = {"region": "tiles", "region_key": "region", "instance_key": "instance_id"}
    centres = slide.coords + slide.side / 2
    uns = {"spatialdata_attrs": keys, **known_mpp(slide)}
    write_anndata(item, slide.matrix, feature_names(slide), obs, {"spatial": centres}, uns)
    item.attrs.update({"spatialdata-encoding-type": "ngff:regions_table", "version": _TABLE, **keys})


def finish_spatialdata(cohort: CohortContent, folder: Path) -> str:
    """Write slides.csv; returns what to do next."""
    write_slide_table(cohort, folder / "slides.csv")
    return f"spatialdata.read_zarr('{folder}/SLIDE_ID.zarr'), shown by napari-spatialdata or spatialdata-plot"


EXPORT_FORMATS.register("spatialdata")(
    ExportFormat("spatialdata", "features", "SpatialData container 0.2", write_spatialdata, finish_spatialdata)
)
