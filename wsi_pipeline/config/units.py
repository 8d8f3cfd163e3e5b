"""The type of a slide's resolution, and the range that is plausible.

Other quantities have the unit in the name: arguments and fields end in `_mpp`, `_um2`, `_px` or `_level0`.
"""

from __future__ import annotations

import math
from typing import NewType

Mpp = NewType("Mpp", float)
"""Micrometres per pixel."""

MIN_MPP, MAX_MPP = 0.05, 20.0
"""Outside this range a resolution counts as a metadata error (72 dpi reads as 352.8 mpp)."""


def is_plausible_mpp(value: float | None) -> bool:
    """True if `value` is a finite resolution between 0.05 and 20 micrometres per pixel."""
    return value is not None and math.isfinite(value) and MIN_MPP <= value <= MAX_MPP
