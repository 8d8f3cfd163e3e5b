"""Distance of each slide from the training slides of a model, for the cohort page."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsi_pipeline.cohort.run_dir import existing_store
from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.model_inputs import model_inputs
from wsi_pipeline.viewer.nearest.slide_means import SlideMeans
from wsi_pipeline.wording import counted, listed

FRESH_SECONDS = 2.0
"""What was read is used again for so long, for the next page of a list: thousands of files are not asked for each."""


@dataclass(frozen=True)
class Distances:
    """slide_id -> distance, and what has to be said about them: which slides have none and why."""

    values: dict[str, float] = field(default_factory=dict)
    note: str = ""


class SlideDistances:
    """Distances as `novelty` of predict, in units of the median training slide; measured again if files change.

    Only slides whose features were made as those of the training slides have one: distances between features of
    different weights, or with and without stain normalisation, would say nothing about the slides.
    """

    def __init__(self, library: Library) -> None:
        self._library, self._lock = library, threading.Lock()
        self._means: dict[str, SlideMeans] = {}
        self._known: dict[Path, tuple[tuple[int, ...], Distances]] = {}
        self._checked: dict[Path, float] = {}

    def of(self, folder: Path) -> Distances:
        """Distances by the training in `folder`; none, with a note, if it cannot be measured."""
        encoder = folder.parent.name
        with self._lock:  # takes a while for a large cohort; other requests are answered meanwhile
            if time.monotonic() - self._checked.get(folder, -math.inf) < FRESH_SECONDS:
                return self._known[folder][1]
            marks = self._marks(folder, encoder)
            if folder not in self._known or self._known[folder][0] != marks:
                try:
                    measured = self._measure(folder, encoder)
                except WsiPipelineError as error:
                    measured = Distances(note=f"No distances: {error.what}.")
                self._known[folder] = marks, measured
            self._checked[folder] = time.monotonic()
            return self._known[folder][1]

    def _marks(self, folder: Path, encoder: str) -> tuple[int, ...]:
        run = self._library.needed_run
        stores = [existing_store(run.feature_store(encoder, slide_id)) for slide_id in self._library.records]
        return tuple(_changed(path) for path in (*sorted(folder.glob("*")), *stores))

    def _measure(self, folder: Path, encoder: str) -> Distances:
        from wsi_pipeline.mil.bags import Bags
        from wsi_pipeline.mil.trained import novelty

        known, inputs = novelty.load(folder), model_inputs(folder)
        if known is None:
            return Distances(note="No distances: the training has too few slides, or is of an older version.")
        found = self._means.setdefault(encoder, SlideMeans(self._library.needed_run, encoder))
        means = found.of(list(self._library.records))
        unlike: dict[str, str] = {}
        for slides in found.made(list(means)).values():
            try:
                inputs.check(found.header(slides[0]))
            except WsiPipelineError as error:
                unlike |= dict.fromkeys(slides, error.what)
        alike = [slide_id for slide_id in means if slide_id not in unlike]
        note = _note(unlike, len(means))
        if not alike:
            return Distances(note=note or "No distances: no slide has features.")
        table = known.columns(Bags.from_arrays([means[slide_id][None] for slide_id in alike], alike))
        pairs = zip(table["slide_id"], table["novelty"].astype(float), strict=True)
        return Distances({str(name): round(value, 3) for name, value in pairs if np.isfinite(value)}, note)


def _changed(path: Path | None) -> int:
    """When a file was written, nanoseconds; 0 without one."""
    try:
        return path.stat().st_mtime_ns if path is not None else 0
    except OSError:
        return 0


def _note(unlike: dict[str, str], slides: int) -> str:
    """Which slides have no distance, with the reason of the first."""
    if not unlike:
        return ""
    which = "No distances" if len(unlike) == slides else f"No distance of {counted(len(unlike), 'slide')}"
    named = "" if len(unlike) == slides else f" ({listed(list(unlike))})"
    return f"{which}{named}: {next(iter(unlike.values()))}."
