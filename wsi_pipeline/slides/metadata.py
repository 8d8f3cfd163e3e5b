"""Numbers that slide files state as text, parsed defensively."""

from __future__ import annotations

import math
import re
from typing import Any

MAX_AXIS_DIFFERENCE = 0.01
"""Relative difference of mpp-x and mpp-y above which pixels are not square and no single mpp is right."""

_IMAGEJ_UM_PER_UNIT = {
    "micron": 1.0, "microns": 1.0, "um": 1.0, "\N{MICRO SIGN}m": 1.0, "\N{GREEK SMALL LETTER MU}m": 1.0,
    "\\u00b5m": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "inch": 25_400.0,
}  # fmt: skip


def number(value: Any) -> float | None:
    """A finite positive number from a property (text, fraction, number), or None."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def one_mpp(x: float | None, y: float | None) -> tuple[float | None, str]:
    """One mpp for both axes and a note: their mean, or None with the reason if they differ by more than 1 %."""
    if x is None or y is None:
        return x or y, ""
    if abs(x - y) > MAX_AXIS_DIFFERENCE * min(x, y):
        return None, f"the slide states different mpp for x ({x:g}) and y ({y:g})"
    return (x + y) / 2, ""


def stated_field(description: str, name: str) -> str | None:
    """The number after `name =` in a description such as `...|MPP = 0.25|AppMag = 40`; a comma counts as a point."""
    found = re.search(rf"(?<![\w.]){name}\s*[=:]\s*[\"']?(\d*[.,]?\d+(?:[eE][-+]?\d+)?)", description, re.IGNORECASE)
    return found[1].replace(",", ".") if found else None


def imagej_mpp(
    description: str, x_per_unit: float | None, y_per_unit: float | None
) -> tuple[float | None, float | None]:
    """(x, y) micrometres per pixel of an ImageJ file, whose resolution tags count by the unit in its description."""
    unit = re.search(r"^unit=(.+?)\s*$", description, re.MULTILINE) if description.startswith("ImageJ=") else None
    scale = _IMAGEJ_UM_PER_UNIT.get(unit[1].lower()) if unit else None
    x, y = (None if scale is None or per_unit is None else scale / per_unit for per_unit in (x_per_unit, y_per_unit))
    return x, y
