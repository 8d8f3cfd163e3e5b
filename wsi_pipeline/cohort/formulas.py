"""Texts that spreadsheet programs run as formulas when they open a CSV (CWE-1236), and what to do about them.

Ids and labels that look like formulas are refused when they come in, because files of this program name slides by
them and must give them back unchanged; texts that come from elsewhere (what a slide file says of itself) are
neutralised when they go out.
"""

from __future__ import annotations

import re

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_HARMLESS = re.compile(r"[+-]?[0-9][0-9.,]*([eE][+-]?[0-9]+)?%?|[+-]+")
"""A number, or grades such as `++`, which spreadsheets keep as they are."""


def is_formula(text: str) -> bool:
    """Whether a spreadsheet program may run `text` as a formula: it begins with = + - @ and is no number or grade."""
    return text.startswith(_STARTS) and not _HARMLESS.fullmatch(text)


def safe_cell(text: str) -> str:
    """`text`, behind an apostrophe where a spreadsheet program would run it as a formula."""
    return f"'{text}" if is_formula(text) else text
