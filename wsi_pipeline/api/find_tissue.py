"""`wp.find_tissue`: where tissue is on a slide, as the stage `segment` finds it."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from shapely.geometry import Polygon

from wsi_pipeline.config.specs import SegmentSpec
from wsi_pipeline.config.tissue_weights import TissueNetworks
from wsi_pipeline.errors import SlideError
from wsi_pipeline.report.maps.overlays import draw_overlay
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide, SlideInfo
from wsi_pipeline.slides.spacing import Spacing, spacing_of
from wsi_pipeline.stages.engine.whole_pictures import read_pictures
from wsi_pipeline.stages.segment import notes_of
from wsi_pipeline.tissue.contours import tissue_polygons
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue_networks.find_by_network import segment_by_networks
from wsi_pipeline.tissue_networks.plan_networks import plan_networks


@dataclass(frozen=True, eq=False)
class Tissue:
    """Where tissue is on one slide.

    slide       name of the slide; `info` has its levels and the other metadata of the file
    mask        boolean pixels with their scale to level 0
    thumbnail   the whole slide as uint8 RGB (h, w, 3)
    warning     what looks odd about the slide, its resolution or its tissue; "" if nothing does
    """

    slide: str
    info: SlideInfo
    mask: TissueMask
    thumbnail: NDArray[np.uint8]
    warning: str

    @property
    def mm2(self) -> float:
        """Tissue area in square millimetres."""
        return self.mask.tissue_mm2

    @property
    def mpp(self) -> float:
        """Micrometres per level-0 pixel."""
        return self.mask.mpp

    @property
    def polygons(self) -> list[Polygon]:
        """Outlines in level-0 pixels."""
        return tissue_polygons(self.mask)

    def overlay(self) -> Image.Image:
        """The thumbnail with the tissue outlined."""
        return draw_overlay(self.thumbnail, self.info.size, self.polygons, None, 0, mpp=self.mpp)

    def __repr__(self) -> str:
        warning = f" ({self.warning})" if self.warning else ""
        return f"<Tissue of {self.slide}: {self.mm2:.2f} mm2, {self.mask.fraction:.0%} of the slide{warning}>"

    def _repr_png_(self) -> bytes:
        return png(self.overlay())


def find_tissue(
    slide: Slide | str | PathLike[str],
    *,
    method: str = SegmentSpec.method,
    mask_mpp: float = SegmentSpec.mask_mpp,
    min_tissue_um2: float = SegmentSpec.min_tissue_um2,
    max_hole_um2: float = SegmentSpec.max_hole_um2,
    weights: str | PathLike[str] | None = None,
    artefact_weights: str | PathLike[str] | None = None,
    artefact_mpp: float = TissueNetworks.artefact_mpp,
) -> Tissue:
    """Find the tissue on a slide; no tissue is a result with a warning.

    method           hybrid, density, otsu, or none; with `weights`: grandqc or hest
    mask_mpp         resolution of the mask, micrometres per pixel
    min_tissue_um2   smaller fragments are dropped, square micrometres
    max_hole_um2     smaller holes are filled, square micrometres
    weights          weights file of the network that `method` names
    artefact_weights weights file of GrandQC's artefact network for `artefact_mpp` (1, 1.5 or 2)

    Raises SlideError for a slide that cannot be read or states no resolution, UsageError for a setting out of range,
    EncoderError for weights that do not fit.
    """
    spec = SegmentSpec(method, mask_mpp, min_tissue_um2, max_hole_um2)
    tissue, artefacts = (None if path is None else str(path) for path in (weights, artefact_weights))
    networks = plan_networks(method, TissueNetworks(tissue, artefacts, artefact_mpp))
    with opened(slide) as source:
        spacing = _spacing(source)
        picture, thumbnail = read_pictures(source, spacing.mpp, spec.mask_mpp)
        found, _ = segment_by_networks(source, spacing.mpp, picture, spec, networks)
        return Tissue(source.name, source.info, found.mask, thumbnail, notes_of(source.info, spacing, found))


@contextmanager
def opened(slide: Slide | str | PathLike[str]) -> Iterator[Slide]:
    """The slide itself, left open; or the one at a path, closed at the end."""
    if isinstance(slide, Slide):
        yield slide
    else:
        with open_slide(slide) as source:
            yield source


def png(image: Image.Image) -> bytes:
    """A picture as a PNG file."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _spacing(slide: Slide) -> Spacing:
    try:
        return spacing_of(slide.info, slide.given_mpp, None)
    except SlideError as error:
        raise SlideError(error.what, todo="Name it when you open the slide: open_slide(path, mpp=...).") from error
