"""Are two runs the same? Byte for byte, except for times and the folder of the run."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

STAGES = ("segment", "tile", "tune", "embed", "classify", "train-mil", "predict", "heatmap", "report")
NOTES = "known"
"""Folder of what is only noted of files, their inodes and times among it."""
_TIMES = ("seconds", "traceback")
_LEFT = re.compile(r"^\..*\.(tmp|old|partial)$|\.(stolen|now)$|\.damaged-\d+$")


def differences(one: Path, other: Path, stages: Sequence[str] = STAGES) -> list[str]:
    """Result files that are not the same in both run folders, and files that should not be there at all."""
    names = {
        str(path.relative_to(run))
        for run in (one, other)
        for stage in (*stages, "status")
        for path in (run / stage).rglob("*")
        if path.is_file() and path.parent.name != NOTES
    }
    found = [name for name in sorted(names) if not _same(one, other, name)]
    return found + [
        f"{run.name}: left over: {path.relative_to(run)}" for run in (one, other) for path in left_over(run)
    ]


def left_over(run: Path) -> list[Path]:
    """Temporary files, unfinished rows, locks and damaged stores in a run folder where nobody is at work."""
    locks = [path for path in (run / "locks").rglob("*") if path.is_file()] if (run / "locks").is_dir() else []
    return sorted({*locks, *(path for path in run.rglob("*") if _LEFT.search(path.name))})


def _same(one: Path, other: Path, name: str) -> bool:
    if not ((one / name).is_file() and (other / name).is_file()):
        return False
    a, b = ((run / name).read_bytes().replace(str(run.resolve()).encode(), b"RUN") for run in (one, other))
    timeless = _TIMELESS.get(Path(name).suffix)
    return a == b or (timeless is not None and timeless(a) == timeless(b))


def _timeless_json(data: bytes) -> Any:
    def strip(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: strip(item) for key, item in value.items() if key not in _TIMES}
        return [strip(item) for item in value] if isinstance(value, list) else value

    return strip(json.loads(data))


def _timeless_csv(data: bytes) -> Any:
    return [
        {key: value for key, value in row.items() if key not in _TIMES}
        for row in csv.DictReader(io.StringIO(data.decode()))
    ]


def _timeless_html(data: bytes) -> Any:
    """Without the list of commands: one that was begun several times may stand there several times."""
    return re.sub(rb"<h3>Commands</h3><pre>.*?</pre>", b"", data, flags=re.DOTALL)


_TIMELESS: dict[str, Callable[[bytes], Any]] = {".json": _timeless_json, ".csv": _timeless_csv, ".html": _timeless_html}
