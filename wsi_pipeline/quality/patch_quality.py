"""The measures of one slide's patches as columns, which patches are artefacts, and the slide's own values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.quality.measures import ARTEFACTS, CLIPPED, FOCUS, MEASURES, NAMES, UNITS, Measure, limit_of
from wsi_pipeline.wording import counted

LEAST_SAMPLE, MOST_SAMPLE = 5, 64
"""Fewest and most patches whose pixels are read for a sample."""


@dataclass(frozen=True, eq=False)
class PatchQuality:
    """What was measured of N patches: values float32 (N, K), row for row with the coordinates; NaN: not measured.

    names, units   of the K columns; an older store may have fewer or other ones
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        shape = self.values.shape
        if len(shape) != 2 or not shape[1] == len(self.names) == len(self.units):
            raise WsiPipelineError(f"quality needs values (N, {len(self.names)}), got {shape}")

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[np.floating[Any]]], count: int) -> PatchQuality:
        """From columns (count,) by name; those of the table that are missing are NaN."""
        values = np.full((count, len(NAMES)), np.nan, np.float32)
        for name, column in columns.items():
            values[:, NAMES.index(name)] = column
        return cls(NAMES, UNITS, values)

    def __len__(self) -> int:
        return len(self.values)

    def __repr__(self) -> str:
        return f"<PatchQuality of {counted(len(self), 'patch')}: {', '.join(self.names)}>"

    def column(self, name: str) -> NDArray[np.float32]:
        """One measure, float32 (N,); all NaN if it was not measured."""
        if name not in self.names:
            return np.full(len(self), np.nan, np.float32)
        return self.values[:, self.names.index(name)]

    def take(self, rows: NDArray[Any]) -> PatchQuality:
        """The same of some patches: row numbers or a mask (N,)."""
        return PatchQuality(self.names, self.units, self.values[rows])


def artefact_of(quality: PatchQuality, mpp: float, scan_mpp: float) -> NDArray[np.int8]:
    """int8 (N,): index into ARTEFACTS of the first limit that a patch exceeds, -1 for none.

    mpp        resolution of the patches, micrometres per pixel; scan_mpp: of the slide

    A patch that was read but has no edges to judge focus by is out of focus if most others of the slide are.
    """
    found = np.full(len(quality), -1, np.int8)
    for index, measure in reversed(list(enumerate(ARTEFACTS))):
        beyond = _beyond(quality, measure, mpp, scan_mpp)
        if measure.name == FOCUS:
            known = ~np.isnan(quality.column(FOCUS))
            if 2 * np.count_nonzero(beyond) > np.count_nonzero(known):
                beyond |= ~known & ~np.isnan(quality.column(CLIPPED))
        found[beyond] = index
    return found


def summary_of(quality: PatchQuality, mpp: float, scan_mpp: float) -> dict[str, dict[str, float | int | None]]:
    """The slide's values by measure: `median` and `measured`, number of patches; of artefacts also `beyond`, the
    fraction of the measured patches beyond the limit. None if nothing was measured.
    """
    found: dict[str, dict[str, float | int | None]] = {}
    for measure in MEASURES:
        column = quality.column(measure.name)
        known = column[~np.isnan(column)]
        row: dict[str, float | int | None] = {
            "median": _rounded(float(np.median(known))) if len(known) else None,
            "measured": len(known),
        }
        if measure.limit is not None:
            above = np.count_nonzero(_beyond(quality, measure, mpp, scan_mpp))
            row["beyond"] = _rounded(above / len(known)) if len(known) else None
        found[measure.name] = row
    return found


def sample_rows(count: int) -> NDArray[np.int64]:
    """Rows of `count` patches to read for a sample, evenly spread over the slide: more of larger slides."""
    n = min(count, MOST_SAMPLE, max(LEAST_SAMPLE, round(0.3 * math.sqrt(count))))
    return np.unique(np.linspace(0, count - 1, n).round().astype(np.int64)) if n else np.zeros(0, np.int64)


def _beyond(quality: PatchQuality, measure: Measure, mpp: float, scan_mpp: float) -> NDArray[np.bool_]:
    return quality.column(measure.name) > limit_of(measure, mpp, scan_mpp)  # False for NaN


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")
