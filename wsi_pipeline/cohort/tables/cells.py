"""Parsers of manifest cells: numbers as people write them, words for yes and no. Errors say what is wrong."""

from __future__ import annotations

import math
import re

from wsi_pipeline.config.units import MAX_MPP, MIN_MPP, is_plausible_mpp

HAPPENED = ("1", "yes", "y", "true", "dead", "deceased", "died", "death", "event")
NOT_SEEN = ("0", "no", "n", "false", "alive", "living", "censored")
"""Words for `event`, in any case: observed, or censored."""

_CODES = ("1", "0", "yes", "no", "y", "n", "true", "false")
"""Words among them whose meaning depends on the column's name."""

_THOUSANDS = re.compile(r"[1-9]\d{0,2}(,\d{3})+")


def number(text: str) -> float:
    """A finite number, with a point or a comma before its decimals.

    Raises ValueError saying why not; `1,234` is ambiguous and refused.
    """
    text = text.strip()
    if _THOUSANDS.fullmatch(text):
        raise ValueError(f"must be a number, got {text!r}, which may be {text.replace(',', '')} or a decimal comma")
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"must be a number, got {text!r}")
    return value


def mpp(text: str) -> float:
    """Micrometres per pixel. Raises ValueError for anything else."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        raise ValueError(f"must be a number, got {text!r}") from None
    if not is_plausible_mpp(value):
        raise ValueError(f"must be between {MIN_MPP} and {MAX_MPP} micrometres per pixel, got {text}")
    return value


def mask_mpp(text: str) -> float:
    """Micrometres per pixel of a mask, which may be far coarser than a slide. Raises ValueError for anything else."""
    value = number(text)
    if value <= 0:
        raise ValueError(f"must be a number above 0, got {text}")
    return value


def time(text: str) -> float:
    """A time in the table's own unit. Raises ValueError for anything else."""
    return number(text)


def event(text: str) -> int:
    """1 if the event was seen, 0 if not: a word of HAPPENED or NOT_SEEN; `1:DECEASED` is read as its code.

    Raises ValueError for any other word.
    """
    word = _word(text)
    if word in HAPPENED:
        return 1
    if word in NOT_SEEN:
        return 0
    raise ValueError(f"must be 1 or 0 (or {', '.join(HAPPENED[1:])}; {', '.join(NOT_SEEN[1:])}), got {text!r}")


def is_code(text: str) -> bool:
    """Whether a cell answers its column's name with a plain yes or no, rather than stating the patient's outcome."""
    return _word(text) in _CODES


def _word(text: str) -> str:
    word = text.strip().lower().split(":")[0].strip()
    return word.removesuffix(".0")  # how a spreadsheet writes 1 in a column with gaps
