"""Make first_slide.ipynb from docs/python.md: `python docs/notebooks/make_notebook.py`. The page is the only source.

Prose becomes Markdown cells, Python code cells; a shell block becomes calls of the command line in this process, so
that the notebook needs no shell.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE, NOTEBOOK = HERE.parent / "python.md", HERE / "first_slide.ipynb"
_BLOCK = re.compile(r"^```(python|sh)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:|#)")


def cells(page: str) -> list[tuple[str, str]]:
    """("markdown", text) and ("code", text) in the order of the page."""
    found: list[tuple[str, str]] = []
    end = 0
    for block in _BLOCK.finditer(page):
        found += _prose(page[end : block.start()])
        found.append(("code", block[2].rstrip() if block[1] == "python" else _calls(block[2])))
        end = block.end()
    return found + _prose(page[end:])


def notebook(page: str) -> str:
    """The notebook as JSON, without outputs."""
    made = [_cell(number, kind, text) for number, (kind, text) in enumerate(cells(page))]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return json.dumps({"cells": made, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}, indent=1) + "\n"


def _prose(text: str) -> list[tuple[str, str]]:
    text = _LINK.sub("](../", text.strip())
    return [("markdown", text)] if text else []


def _calls(commands: str) -> str:
    lines = [shlex.split(line)[1:] for line in commands.splitlines()]
    return "\n".join(["from wsi_pipeline.cli import main", "", *(f"main({json.dumps(words)})" for words in lines)])


def _cell(number: int, kind: str, text: str) -> dict[str, Any]:
    cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
    if kind == "code":
        cell |= {"execution_count": None, "outputs": []}
    return {**cell, "source": text.splitlines(keepends=True)}


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
