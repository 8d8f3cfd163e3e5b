"""Whether a training may replace the one in its folder: not if its settings or labels differ.

With new slides or recomputed features the question stays the same, so the training is repeated in place. Other
settings or labels ask another question, whose answer must not replace the first.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.config.fields import from_mapping
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.trained.model_config import CONFIG
from wsi_pipeline.stages.inputs.outcome_source import OUTCOMES
from wsi_pipeline.wording import counted, listed


def check_replaceable(folder: Path, predictions: pd.DataFrame, table: pd.DataFrame, spec: MilSpec) -> None:
    """Raise UsageError, naming what differs, if the training in `folder` has other settings or other labels.

    predictions   predictions of the existing training
    table         table of the bags to train on
    """
    changes = _settings(folder, spec)
    changes = changes or [*(_labels(predictions, table, column) for column in OUTCOMES[spec.task])]
    if differing := [words for words in changes if words]:
        raise UsageError(
            f"{folder} holds a training with {listed(differing)}",
            todo=f"Keep both: --name NAME. Or replace it: --replace ({folder.name} is then kept under former/)",
        )


def _settings(folder: Path, spec: MilSpec) -> list[str]:
    """`epochs 60, not 2`; empty if the settings are equal or can no longer be read."""
    try:
        given: dict[str, Any] = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["spec"]
        before = asdict(from_mapping(MilSpec, given, CONFIG))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError):
        return []
    now = asdict(spec)
    return [f"{key} {before[key]!r}, not {now[key]!r}" for key in now if before[key] != now[key]]


def _labels(predictions: pd.DataFrame, table: pd.DataFrame, column: str) -> str:
    """`another label for 3 slides (s01: a, not b)`; "" if the labels of the common slides are equal."""
    key = "slide_id" if "slide_id" in predictions else "patient_id"
    if column not in predictions or column not in table:
        return ""
    before = predictions.assign(**{key: predictions[key].astype(str)}).drop_duplicates(key).set_index(key)[column]
    now = table.assign(slide_id=table["slide_id"].astype(str)).set_index("slide_id")[column]
    both = before.index.intersection(now.index)
    differs = [name for name in both if not _equal(before[name], now[name])]
    if not differs:
        return ""
    first = differs[0]
    example = f"{first}: {before[first]}, not {now[first]}"
    return f"another {column} for {counted(len(differs), key.removesuffix('_id'))} ({example})"


def _equal(one: object, other: object) -> bool:
    """Whether two cells are equal, as text or, if both are numbers, to the precision of the file."""
    if str(one) == str(other):
        return True
    try:
        a, b = float(str(one)), float(str(other))
    except ValueError:
        return False
    return abs(a - b) <= 1e-6 * max(abs(a), abs(b))
