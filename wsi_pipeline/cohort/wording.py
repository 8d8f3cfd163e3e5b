"""Small words of messages: lists that stop after a few names, counts with their noun."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5
"""How many patients or slides a message names before it says how many more."""


def listed(names: Sequence[object], most: int = NAMED) -> str:
    """`a, b, c and 4 more`."""
    more = len(names) - most
    return ", ".join(map(str, names[:most])) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """`1 patient`, `2 patients`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
