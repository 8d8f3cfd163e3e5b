"""Checks of values from outside, for configurations: each raises ConfigError naming field, expectation and value."""

from __future__ import annotations

import unicodedata
from typing import Any

from pathotune.errors import ConfigError

MOST_TEXT, MOST_CLASSES = 10_000, 1024


def checked_names(field: str, names: Any) -> tuple[str, ...]:
    """A list of at most MOST_CLASSES different names, as a tuple."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f"{field} must be a list of names, got {names!r}")
    if len(names) > MOST_CLASSES or len(set(names)) != len(names):
        raise ConfigError(f"{field} must be at most {MOST_CLASSES} different names, got {len(names)}")
    if sum(map(len, names)) > MOST_TEXT:
        raise ConfigError(f"{field} must have at most {MOST_TEXT} characters in all")
    for name in names:
        _check_can_be_shown(field, name)
    return tuple(names)


def check_text(field: str, value: Any) -> None:
    """A text of at most MOST_TEXT characters."""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ConfigError(f"{field} must be a text of at most {MOST_TEXT} characters, got {str(value)[:80]!r}")
    _check_can_be_shown(field, value)


def _check_can_be_shown(field: str, value: str) -> None:
    """No half of a surrogate pair, which cannot be written, and no control characters, which a terminal obeys."""
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\r\n" for char in value):
        raise ConfigError(f"{field} must be text that can be shown, got {value[:80]!r}")


def check_whole(field: str, value: Any, low: int, high: int) -> None:
    """A whole number in [low, high]; True and False are none."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{field} must be a whole number from {low} to {high}, got {value!r}")


def check_probability(field: str, value: Any) -> None:
    """A number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{field} must be a number from 0 to below 1, got {value!r}")


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """One of some words."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
