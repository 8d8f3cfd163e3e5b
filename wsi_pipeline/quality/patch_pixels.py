"""What the pixels of a patch tell, at its own resolution: focus, JPEG blocks, clipped colours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.quality import measures as m
from wsi_pipeline.quality.blocks import blockiness
from wsi_pipeline.quality.focus import edge_width

NAMES = tuple(measure.name for measure in m.MEASURES if measure.sampled)


def measure_pixels(rgb: NDArray[np.uint8], mpp: float, as_stored: bool) -> tuple[float, ...]:
    """The measures NAMES of one patch uint8 (P, P, 3); NaN where it gives nothing to measure.

    mpp         micrometres per pixel of the patch
    as_stored   whether its pixels are those of the file, not shrunk
    """
    low = np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])  # min(axis=-1) takes a third of the whole
    clipped = np.count_nonzero(low == 0) / low.size
    found = {
        m.FOCUS: edge_width(rgb) * mpp,
        m.BLOCKS: blockiness(rgb) if as_stored else float("nan"),
        m.CLIPPED: clipped,
    }
    return tuple(found[name] for name in NAMES)
