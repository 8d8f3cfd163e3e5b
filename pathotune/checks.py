"""Checks of configuration values. Each raises ConfigError with the field, what is expected, and the value."""

from __future__ import annotations

import unicodedata
from typing import Any

from pathotune.errors import ConfigError

MOST_TEXT, MOST_CLASSES = 10_000, 1024


def checked_names(field: str, names: Any) -> tuple[str, ...]:
    """Return a list of at most MOST_CLASSES different names as a tuple."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) and name.strip() for name in names):
        raise ConfigError(f"{field} must be a list of names, got {names!r}")
    if len(names) > MOST_CLASSES or len(set(names)) != len(names):
        raise ConfigError(f"{field} must be at most {MOST_CLASSES} different names, got {len(names)}")
    if sum(map(len, names)) > MOST_TEXT:
        raise ConfigError(f"{field} must have at most {MOST_TEXT} characters in all")
    for name in names:
        _check_printable(field, name)
    return tuple(names)


def check_text(field: str, value: Any) -> None:
    """Require a text of at most MOST_TEXT characters."""
    if not isinstance(value, str) or len(value) > MOST_TEXT:
        raise ConfigError(f"{field} must be a text of at most {MOST_TEXT} characters, got {str(value)[:80]!r}")
    _check_printable(field, value)


def _check_printable(field: str, value: str) -> None:
    """Refuse lone surrogates, which cannot be encoded, and control characters, which a terminal would interpret."""
    if any(unicodedata.category(char) in ("Cc", "Cs") and char not in "\t\r\n" for char in value):
        raise ConfigError(f"{field} must be printable text, got {value[:80]!r}")


def check_whole(field: str, value: Any, low: int, high: int) -> None:
    """Require a whole number in [low, high]; booleans are refused."""
    if type(value) is not int or not low <= value <= high:
        raise ConfigError(f"{field} must be a whole number from {low} to {high}, got {value!r}")


def check_probability(field: str, value: Any) -> None:
    """Require a number in [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ConfigError(f"{field} must be a number from 0 to below 1, got {value!r}")


def check_choice(field: str, value: Any, choices: tuple[str, ...]) -> None:
    """Require one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ConfigError(f"{field} must be one of {', '.join(choices)}, got {value!r}")
