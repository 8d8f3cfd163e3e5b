"""Ranks with ties, computed by pandas because scipy.stats takes half a second to import."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mid_ranks(values: NDArray[np.generic]) -> Floats:
    """Rank of each value within its column, 1 the smallest; ties share the mean of their ranks. (n,) or (n, C)."""
    table = pd.Series(values) if values.ndim == 1 else pd.DataFrame(values)
    return np.asarray(table.rank(), dtype=np.float64)
