"""Texts that spreadsheet programs run as formulas when they open a CSV (CWE-1236), and what to do about them.

Ids and labels that look like formulas are refused on input, because they appear in our output files and must stay
unchanged there; texts from other sources (metadata of slide files) are neutralised on output.
"""

from __future__ import annotations

import re

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_HARMLESS = re.compile(r"[+-]?[0-9][0-9.,]*([eE][+-]?[0-9]+)?%?|[+-]+")
"""A number, or grades such as `++`, which spreadsheets keep as they are."""


def is_formula(text: str) -> bool:
    """Whether a spreadsheet may run `text` as a formula: it starts with = + - @ and is neither a number nor a grade."""
    return text.startswith(_STARTS) and not _HARMLESS.fullmatch(text)


def safe_cell(text: str) -> str:
    """`text`, preceded by an apostrophe if a spreadsheet program would run it as a formula."""
    return f"'{text}" if is_formula(text) else text
