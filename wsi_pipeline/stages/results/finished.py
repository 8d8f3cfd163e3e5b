"""Which trainings and tunings of a run are finished, without their tables: `status` has no need of pandas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

METRICS = "metrics.json"
"""Written last, so it marks a result as complete."""


def finished(root: Path, pattern: str) -> list[tuple[Path, dict[str, Any]]]:
    """Folders below `root` that match, with their metrics, by name; those without readable metrics are left out."""
    found = []
    for folder in sorted(root.glob(pattern)):
        try:
            metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(metrics, dict):
            found.append((folder, metrics))
    return found
