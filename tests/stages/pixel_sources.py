"""Patches with known pixels, some of which cannot be read: what a reading process may meet. Imported there too."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.errors import SlideError
from wsi_pipeline.stages.streaming.reader_process import Reading, SlideJob

SIDE = 8


def pixels(slide_id: str, row: int) -> np.ndarray:
    """The pixels of a patch: all alike, told apart by slide and row."""
    return np.full((SIDE, SIDE, 3), (sum(map(ord, slide_id)) * 31 + row) % 251, np.uint8)


def job(slide_id: str, rows: int, start: int = 0) -> SlideJob:
    """A slide whose name says what happens: `crash@7` ends the process at row 7, `bad@7` raises there."""
    return SlideJob(SlideRecord(slide_id, Path(slide_id), slide_id), Path(slide_id), rows, start)


@dataclass(frozen=True)
class NamedPatches:
    """Patches of a slide that behaves as its name says."""

    slide_id: str
    rows: int

    def __len__(self) -> int:
        return self.rows

    def read(self, row: int) -> np.ndarray:
        what, _, at = self.slide_id.partition("@")
        if at and row == int(at):
            if what == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if what == "bad":
                raise SlideError(f"row {row} is damaged", slide=self.slide_id)
            if what == "odd":
                raise ZeroDivisionError("by zero")
        return pixels(self.slide_id, row)

    def close(self) -> None:
        pass


def open_named(job: SlideJob) -> NamedPatches:
    """Open a slide by its name; `shut` does not open, `torn` ends the process."""
    if job.record.slide_id == "shut":
        raise SlideError("does not open", slide="shut")
    if job.record.slide_id == "torn":
        os.abort()
    return NamedPatches(job.record.slide_id, job.rows)


READING = Reading(SIDE, block=4, threads=2, open=open_named)
