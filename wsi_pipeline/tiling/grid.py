"""Which patches to take: a fixed grid over the slide, and how much tissue lies under each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size
from wsi_pipeline.tiling.coverage import box_coverage
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.wording import counted


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """Patches of one slide: level-0 top-left corners (x, y) int64 (N, 2) and tissue coverage float32 (N,).

    Row by row, left to right. N may be 0.
    """

    coords: NDArray[np.int64]
    coverage: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.coords)
        if self.coords.shape != (n, 2) or self.coords.dtype != np.int64 or self.coverage.shape != (n,):
            raise WsiPipelineError(
                f"a grid needs int64 coords (N, 2) and coverage (N,), got {self.coords.dtype} "
                f"{self.coords.shape} and {self.coverage.shape}"
            )

    def __len__(self) -> int:
        return len(self.coords)

    def __repr__(self) -> str:
        return f"<PatchGrid: {counted(len(self), 'patch')}>"


def lay_grid(mask: TissueMask, patch_level0: int, stride_level0: int, min_coverage: float) -> PatchGrid:
    """Lay square patches over tissue.

    The grid is anchored at level-0 (0, 0) with a fixed stride, so that coordinates do not move when the mask
    does. Every patch that starts inside the slide is a candidate; at the right and bottom edge it may reach
    past the slide, where pixels are white and count as not tissue. A patch with no tissue at all is never kept.

    patch_level0, stride_level0   level-0 pixels, at least 1
    min_coverage                  smallest part of the patch that must be tissue, 0 to 1
    """
    if patch_level0 < 1 or stride_level0 < 1:
        raise WsiPipelineError(
            f"patch and stride must be at least 1 level-0 pixel, got {patch_level0}, {stride_level0}"
        )
    xs, ys = _starts(mask.slide_size, stride_level0)
    coverage = box_coverage(mask, xs, ys, patch_level0)
    keep = (coverage > 0) & (coverage >= min_coverage - 1e-9)
    rows, columns = np.nonzero(keep)
    coords = np.stack([xs[columns], ys[rows]], axis=1).astype(np.int64).reshape(-1, 2)
    return PatchGrid(coords, coverage[rows, columns].astype(np.float32))


def _starts(size: Size, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return np.arange(0, size.width, stride, dtype=np.int64), np.arange(0, size.height, stride, dtype=np.int64)
