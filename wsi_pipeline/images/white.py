"""White images: what a slide shows where it has no pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def white(width: int, height: int) -> NDArray[np.uint8]:
    """A white image of shape (height, width, 3)."""
    return np.full((height, width, 3), 255, np.uint8)
