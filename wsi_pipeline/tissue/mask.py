"""A tissue mask and where it lies: boolean pixels with their exact scale to level 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.geometry import Size


@dataclass(frozen=True, eq=False)
class TissueMask:
    """Tissue as a boolean image of shape (h, w) that spans a whole slide.

    pixels      True for tissue
    slide_size  level-0 size; mask pixel (row i, column j) covers level-0 x from j * scale_x to
                (j + 1) * scale_x and y from i * scale_y to (i + 1) * scale_y, exactly
    mpp         micrometres per level-0 pixel
    """

    pixels: NDArray[np.bool_]
    slide_size: Size
    mpp: float

    def __post_init__(self) -> None:
        if self.pixels.ndim != 2 or self.pixels.dtype != np.bool_ or self.pixels.size == 0:
            raise WsiPipelineError(
                f"a tissue mask must be a non-empty 2-D boolean array, got {self.pixels.dtype} {self.pixels.shape}"
            )

    def __repr__(self) -> str:
        height, width = self.pixels.shape
        return f"<TissueMask: {self.tissue_mm2:.2f} mm2 of tissue, {width} x {height} px>"

    @property
    def scale_x(self) -> float:
        """Level-0 pixels per mask pixel, horizontally."""
        return float(self.slide_size.width / self.pixels.shape[1])

    @property
    def scale_y(self) -> float:
        """Level-0 pixels per mask pixel, vertically."""
        return float(self.slide_size.height / self.pixels.shape[0])

    @property
    def pixel_um2(self) -> float:
        """Area of one mask pixel in square micrometres."""
        return self.scale_x * self.scale_y * self.mpp**2

    @property
    def tissue_mm2(self) -> float:
        """Tissue area in square millimetres."""
        return float(np.count_nonzero(self.pixels)) * self.pixel_um2 / 1e6

    @property
    def fraction(self) -> float:
        """Fraction of the slide that is tissue, 0 to 1."""
        return float(np.mean(self.pixels))
