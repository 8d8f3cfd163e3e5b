"""Numbers that slide files state as text, read without trust."""

from __future__ import annotations

import math
import re
from typing import Any

MAX_AXIS_DIFFERENCE = 0.01
"""Above this difference of mpp-x and mpp-y (relative) pixels are not square and no single mpp is right."""

_UM_PER_UNIT = {"m": 1e6, "cm": 1e4, "mm": 1e3, "µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 1e-3}


def number(value: Any) -> float | None:
    """A finite positive number from a property (text, fraction, number), or None."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def one_mpp(x: float | None, y: float | None) -> tuple[float | None, str]:
    """One mpp for both axes and a note: their mean, or None with the reason where they differ by over 1 %."""
    if x is None or y is None:
        return x or y, ""
    if abs(x - y) > MAX_AXIS_DIFFERENCE * min(x, y):
        return None, f"the slide states different mpp for x ({x:g}) and y ({y:g})"
    return (x + y) / 2, ""


def stated_mpp(description: str, x: float | None, y: float | None) -> tuple[float | None, str]:
    """`one_mpp` of what an OME-XML `description` states or, where it states nothing, of `x` and `y` from elsewhere."""
    ome = ome_mpp(description)
    return one_mpp(*ome) if any(ome) else one_mpp(x, y)


def ome_mpp(description: str) -> tuple[float | None, float | None]:
    """(x, y) micrometres per pixel of the first image in an OME-XML description; None where not stated.

    Reads attributes only (PhysicalSizeX, PhysicalSizeXUnit and the same for Y; the unit defaults to µm).
    """
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    if pixels is None:
        return None, None
    attributes = dict(re.findall(r'(\w+)\s*=\s*"([^"]*)"', pixels.group()))
    return _length(attributes, "PhysicalSizeX"), _length(attributes, "PhysicalSizeY")


def _length(attributes: dict[str, str], name: str) -> float | None:
    value, unit = number(attributes.get(name)), attributes.get(f"{name}Unit", "µm").replace("&#181;", "µ")
    return value * _UM_PER_UNIT[unit] if value is not None and unit in _UM_PER_UNIT else None
