"""The docstrings of this project as reStructuredText.

They are written to be read in an editor: Markdown's backticks, a table of names and their meaning in two columns,
examples indented by four.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAME = re.compile(r"[A-Za-z_][\w.]*(\(\))?$")
_ROW = re.compile(r"(?P<name>\S(?:[^`]|`[^`]*`)*?) {2,}(?P<text>\S.*)$")
_SPECIAL = re.compile(r"([\\*|]|_(?=\W|$))")


def to_rst(lines: Iterable[str]) -> list[str]:
    """A docstring, its indentation already taken off, as lines of reStructuredText."""
    result: list[str] = []
    for block in _blocks(list(lines)):
        result += [*_convert(block), ""]
    return result


def _blocks(lines: list[str]) -> list[list[str]]:
    """Runs of lines between blank ones; blank lines inside an example do not end it."""
    blocks: list[list[str]] = [[]]
    for line in (line.rstrip() for line in lines):
        if line:
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    merged: list[list[str]] = []
    for block in filter(None, blocks):
        if merged and _is_example(block) and _is_example(merged[-1]):
            merged[-1] += ["", *block]
        else:
            merged.append(block)
    return merged


def _is_example(block: list[str]) -> bool:
    return all(line.startswith("    ") or not line for line in block)


def _convert(block: list[str]) -> list[str]:
    if _is_example(block):
        return ["::", "", *block]
    if block[0].startswith("- "):
        return [_item(line) for line in block]
    rows = _rows(block)
    if rows:
        return [line for name, text in rows for line in (f"``{name.replace('`', '')}``", f"    {_inline(text)}")]
    if any(line.startswith(" ") or _ROW.match(line) for line in block):  # another table, or a tree of files
        return ["::", "", *(f"    {line}" for line in block)]
    return [_inline(" ".join(block))]


def _item(line: str) -> str:
    """A line of a list: the first of an item, or one that goes on."""
    return f"- {_inline(line[2:])}" if line.startswith("- ") else f"  {_inline(line.strip())}"


def _rows(block: list[str]) -> list[tuple[str, str]]:
    """The rows of a table in two columns, [] where the block is none: all its texts begin in one column."""
    first = _ROW.match(block[0])
    if first is None:
        return []
    column = first.start("text")
    rows: list[tuple[str, str]] = []
    for line in block:
        row = _ROW.match(line)
        if line[:column].strip() and row is not None and row.start("text") == column:
            rows.append((row["name"], row["text"]))
        elif not line[:column].strip() and rows:
            rows[-1] = (rows[-1][0], f"{rows[-1][1]} {line.strip()}")
        else:
            return []
    return rows


def _inline(text: str) -> str:
    """Backticks as code, with a link where the name is known; what reStructuredText would read as markup, escaped."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _SPECIAL.sub(r"\\\1", text).replace("`", r"\`")
    return "".join(_code(part) if number % 2 else _SPECIAL.sub(r"\\\1", part) for number, part in enumerate(parts))


def _code(text: str) -> str:
    text = text.strip()
    if not text:
        return ""
    return rf"\ :py:obj:`{text}`\ " if _NAME.match(text) else rf"\ ``{text}``\ "
