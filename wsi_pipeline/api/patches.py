"""`wp.lay_patches`, `wp.read_patches`, `wp.embed`: patches of one slide, their pixels and features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from wsi_pipeline.api.find_tissue import Tissue, find_tissue, opened, png
from wsi_pipeline.config.execution import EmbedExecution
from wsi_pipeline.config.specs import EmbedSpec, TileSpec
from wsi_pipeline.encoders.encoder import Encoder
from wsi_pipeline.encoders.names import open_encoder
from wsi_pipeline.errors import EncoderError, SlideError
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches
from wsi_pipeline.report.maps.overlays import draw_overlay
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.store.tables.feature_table import check_finite
from wsi_pipeline.tiling.grid import PatchGrid, lay_grid
from wsi_pipeline.tiling.resolve import PatchGeometry, resolve_geometry

BATCH = 64
"""Default number of patches in a batch of `read_patches`."""


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches of one slide: where they lie, and how they are read (`geometry`)."""

    tissue: Tissue
    geometry: PatchGeometry
    grid: PatchGrid

    def __len__(self) -> int:
        return len(self.grid)

    @property
    def coords(self) -> NDArray[np.int64]:
        """Top-left corners (x, y) in level-0 pixels, int64 (N, 2)."""
        return self.grid.coords

    @property
    def coverage(self) -> NDArray[np.float32]:
        """Fraction of each patch that is tissue, float32 (N,)."""
        return self.grid.coverage

    @property
    def mpp(self) -> float:
        """Micrometres per pixel of the patches as they are delivered."""
        return self.geometry.mpp

    @property
    def patch_px(self) -> int:
        """Side of a patch in pixels."""
        return self.geometry.patch_px

    def overlay(self) -> Image.Image:
        """The thumbnail with the tissue outlined and the patches drawn."""
        tissue, side = self.tissue, self.geometry.patch_level0
        return draw_overlay(tissue.thumbnail, tissue.info.size, tissue.polygons, self.coords, side, mpp=tissue.mpp)

    def __repr__(self) -> str:
        return f"<Patches of {self.tissue.slide}: {len(self)} of {self.patch_px} px at {self.mpp:.4g} mpp>"

    def _repr_png_(self) -> bytes:
        return png(self.overlay())


def lay_patches(
    source: Tissue | Slide | str | PathLike[str],
    *,
    patch_px: int = TileSpec.patch_px,
    mpp: float = TileSpec.mpp,
    overlap_px: int = TileSpec.overlap_px,
    min_coverage: float = TileSpec.min_coverage,
    mpp_tolerance: float = TileSpec.mpp_tolerance,
    allow_upsample: bool = TileSpec.allow_upsample,
) -> Patches:
    """Lay patches over tissue; for a slide, `find_tissue` is called first with its defaults.

    patch_px         side of a patch, pixels at `mpp`
    mpp              resolution of the patches, micrometres per pixel
    overlap_px       overlap of neighbouring patches, pixels at `mpp`
    min_coverage     a patch is kept when at least this fraction of it is tissue
    mpp_tolerance    shrinking by a whole number is preferred if the result is within this fraction of `mpp` (0: exact)
    allow_upsample   enlarge slides coarser than `mpp` instead of refusing them

    Raises SlideError for a slide coarser than `mpp`, UsageError for a setting out of range.
    """
    spec = TileSpec(patch_px, mpp, overlap_px, min_coverage, mpp_tolerance, allow_upsample)
    tissue = source if isinstance(source, Tissue) else find_tissue(source)
    geometry = resolve_geometry(spec, tissue.info, tissue.mpp)
    grid = lay_grid(tissue.mask, geometry.patch_level0, geometry.stride_level0, spec.min_coverage)
    return Patches(tissue, geometry, grid)


def read_patches(
    slide: Slide | str | PathLike[str], patches: Patches, *, batch: int = BATCH, readers: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """The pixels in the order of `patches.coords`: batches uint8 (B, P, P, 3), the last one shorter.

    batch     patches in a batch
    readers   threads that read ahead (default: one per core)

    Raises SlideError if this is not the slide the patches were laid on, or if a patch cannot be decoded.
    """
    threads = EmbedExecution(batch=batch, readers=readers).threads
    with opened(slide) as source:
        if source.info.levels != patches.tissue.info.levels:
            raise SlideError(
                f"{source.name} is not the slide these patches were laid on: {patches.tissue.slide}",
                todo="Lay patches on this slide.",
            )
        for _, pixels in PatchReader(SlidePatches(source, patches.coords, patches.geometry), batch, threads):
            yield pixels


def embed(
    slide: Slide | str | PathLike[str],
    patches: Patches,
    encoder: Encoder | str = EmbedSpec.model,
    *,
    dtype: str = EmbedSpec.dtype,
    batch: int | None = None,
    readers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.floating[Any]]:
    """Features (N, D) of the patches, in the order of `patches.coords`, as `wsi-pipeline embed` stores them.

    encoder    from `open_encoder`, or a name
    dtype      float16 or float32
    batch      patches in one batch (default: depends on the device)
    readers    threads that read ahead (default: one per core)
    progress   called with (patches done, patches in all) after each batch

    Raises EncoderError if the encoder was trained or opened for another patch size or resolution.
    """
    network = encoder if isinstance(encoder, Encoder) else open_encoder(encoder, patch_px=patches.patch_px)
    spec = EmbedSpec(network.info.name, dtype=dtype)
    network.check_spacing(patches.mpp)
    _check_size(network, patches)
    out = np.zeros((len(patches), network.info.dim), spec.dtype)
    first = 0
    for pixels in read_patches(slide, patches, batch=batch or network.batch, readers=readers):
        last = first + len(pixels)
        with np.errstate(over="ignore"):  # an overflow to infinity is refused below, with its row
            out[first:last] = network.encode(pixels)
        first = last
        if progress is not None:
            progress(first, len(patches))
    check_finite(out, patches.coords)
    return out


def _check_size(encoder: Encoder, patches: Patches) -> None:
    """Refuse a network that was set up for another patch size: it would get these patches resized."""
    size = encoder.patch_px
    if size is not None and size == encoder.info.input_px and size != patches.patch_px:
        raise EncoderError(
            f"encoder {encoder.info.name} was opened for patches of {size} px, these have {patches.patch_px}",
            todo=f"Open it with open_encoder({encoder.info.name!r}, patch_px={patches.patch_px}).",
        )
