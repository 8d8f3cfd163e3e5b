"""Rows that cannot be used: each is logged with its place; users see the count and the first few."""

from __future__ import annotations

import logging

from wsi_pipeline.errors import LabelError
from wsi_pipeline.wording import listed

logger = logging.getLogger(__name__)

_NAMED = 3
_LOGGED = 100


class Faults:
    """Collects what is wrong with single rows (files, points, slides) of one source."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.messages: list[str] = []

    def add(self, where: str, message: str) -> None:
        """Record and log one row that is left out (up to 100 rows)."""
        self.messages.append(f"{where}: {message}")
        if len(self.messages) <= _LOGGED:
            logger.warning("%s: left out %s: %s", self.source, where, message)

    def notes(self, noun: str, good: int) -> list[str]:
        """One sentence on what was left out, or nothing. Raises LabelError if no usable row remains.

        noun   plural noun for the rows: images, points, slides
        """
        bad = len(self.messages)
        first = listed(self.messages, _NAMED, "; ")
        if good == 0:
            what = f"none of {bad} {noun} can be used: {first}" if bad else f"it contains no {noun}"
            raise LabelError(f"{self.source}: {what}", todo="Fix what is listed, or use another source of labels")
        return [f"{bad} of {bad + good} {noun} left out: {first}"] if bad else []
