"""Status of each slide: one JSON file per slide, with the state of every stage run so far.

    {"slide_id", "state", "stage", "reason", "todo", "traceback", "stages": {"tile": {...}, "embed/colour": {...}}}

The top-level fields describe the first stage that failed or, if none did, the last one done.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.system.locks import locked
from wsi_pipeline.system.redaction import redact

State = Literal["done", "empty", "failed"]
LOCK_WAIT_SECONDS = 30.0


@dataclass(frozen=True)
class StageStatus:
    """How one stage ended for one slide.

    state      done; empty (a result of 0 patches); failed
    reason     why it failed, one sentence; "" otherwise
    note       anything unusual although it succeeded
    summary    what the stage measured: patches, tissue_mm2, mpp, ... (stage by stage)
    """

    state: State
    reason: str = ""
    todo: str = ""
    note: str = ""
    traceback: str = ""
    digest: str = ""
    seconds: float = 0.0
    summary: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SlideStatus:
    """All stages of one slide, in the order they were first run."""

    slide_id: str
    stages: dict[str, StageStatus] = field(default_factory=dict)

    @property
    def failed(self) -> tuple[str, StageStatus] | None:
        """The first stage that failed and how, or None."""
        return next(((name, status) for name, status in self.stages.items() if status.state == "failed"), None)


def read_status(path: Path, slide_id: str) -> SlideStatus:
    """Read a slide's status; an absent or damaged file reads as "nothing done yet"."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
        return SlideStatus(slide_id, {name: StageStatus(**values) for name, values in stages.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return SlideStatus(slide_id)


def record_status(path: Path, slide_id: str, stage: str, status: StageStatus, lock: Path | None = None) -> None:
    """Put the outcome of one stage into a slide's status file, atomically.

    lock   held meanwhile, so that two stages of one slide that end together both record their outcome
    """
    with locked(lock, LOCK_WAIT_SECONDS) if lock else nullcontext():
        _record(path, slide_id, stage, status)


def _record(path: Path, slide_id: str, stage: str, status: StageStatus) -> None:
    status = replace(status, reason=redact(status.reason), traceback=redact(status.traceback))
    stages = {**read_status(path, slide_id).stages, stage: status}
    whole = SlideStatus(slide_id, stages)
    name, outcome = whole.failed or (stage, status)
    document = {
        "slide_id": slide_id,
        "state": outcome.state,
        "stage": name,
        "reason": outcome.reason,
        "todo": outcome.todo,
        "traceback": outcome.traceback,
        "stages": {key: asdict(value) for key, value in stages.items()},
    }
    # Not flushed to the disk: a status lost in a power cut is restored from the store it describes.
    write_text(path, json.dumps(document, indent=2, ensure_ascii=False) + "\n", durable=False)
