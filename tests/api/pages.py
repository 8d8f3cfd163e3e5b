"""The pages of the documentation, and the code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON_PAGE = ROOT / "docs" / "python.md"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "manifests/*.md", "workflows/*.md", "benchmarks/*.md", "findings/*.md")
    for path in ROOT.glob(pattern)
)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
