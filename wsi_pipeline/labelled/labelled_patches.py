"""Labelled patches, the training data of `tune`, from any source. Pixels are read on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import LabelError

Rows = NDArray[np.int64]
SPLITS = ("train", "val", "test")
"""Names of the sides of a given split."""


class PatchPixels(Protocol):
    """A source of labelled patches' pixels. Called from several threads."""

    @property
    def patch_px(self) -> int:
        """Side of every patch, pixels."""

    @property
    def mpp(self) -> float | None:
        """Micrometres per pixel as delivered; None if unknown."""

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Patches (B, P, P, 3), RGB."""

    def contents(self, rows: Rows) -> list[str]:
        """For each row a digest of the image (file or slide) it is cut from, equal only for equal images."""

    def identity(self, rows: Rows) -> Any:
        """Plain JSON values that determine the pixels of these rows, without reading the pixels."""


@dataclass(frozen=True, eq=False)
class LabelledPatches:
    """N labelled patches in a stable order.

    names      N readable names: a file, a point of an image, a patch of a slide
    labels     int64 (N,), indices into `classes`
    classes    C names, sorted
    groups     N names of groups that must stay on one side of a split (patient, slide, TMA, image)
    splits     N of train, val, test if the source gives them, else None
    patch_px   side P of every patch, pixels
    mpp        micrometres per pixel, None if unknown
    source     description of what was opened, for users
    digest     SHA-256 (hex) over everything that determines pixels, labels, groups and splits; `take` keeps it
    notes      sentences on anything unusual: rows left out, images cropped, groups missing
    tasks      int64 (N,), which of several tasks a patch belongs to; None for one task
    """

    names: tuple[str, ...]
    labels: Rows
    classes: tuple[str, ...]
    groups: tuple[str, ...]
    splits: tuple[str, ...] | None
    patch_px: int
    mpp: float | None
    source: str
    digest: str
    notes: tuple[str, ...]
    pixels: PatchPixels
    index: Rows
    """Row of each patch in `pixels`."""
    tasks: Rows | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        lengths = {len(self.labels), len(self.groups), len(self.index), count}
        lengths |= {len(part) for part in (self.splits, self.tasks) if part is not None}
        if lengths != {count} or self.labels.dtype != np.int64:
            raise LabelError(f"names, labels (int64), groups and splits must be of one length, got {sorted(lengths)}")
        if count and not 0 <= self.labels.min() <= self.labels.max() < len(self.classes):
            raise LabelError(f"labels must be 0 to {len(self.classes) - 1}")

    def __len__(self) -> int:
        return len(self.names)

    def read(self, rows: Rows | Sequence[int]) -> NDArray[np.uint8]:
        """The patches at `rows` (B,), in that order: uint8 (B, P, P, 3) RGB.

        Raises LabelError or SlideError naming the patch that cannot be read.
        """
        return self.pixels.read(self.index[np.asarray(rows, np.int64)])

    def contents(self) -> list[str]:
        """For each patch a digest of the image that it is cut from."""
        return self.pixels.contents(self.index)

    def take(self, rows: Rows | Sequence[int]) -> LabelledPatches:
        """The patches at `rows` only, in that order; a view, which copies no pixels."""
        rows = np.asarray(rows, np.int64)
        return replace(
            self,
            names=tuple(self.names[row] for row in rows),
            labels=self.labels[rows],
            groups=tuple(self.groups[row] for row in rows),
            splits=None if self.splits is None else tuple(self.splits[row] for row in rows),
            index=self.index[rows],
            tasks=None if self.tasks is None else self.tasks[rows],
        )

    def class_counts(self) -> dict[str, int]:
        """Patches of each class, in the order of `classes`."""
        counts = np.bincount(self.labels, minlength=len(self.classes))
        return {name: int(count) for name, count in zip(self.classes, counts, strict=True)}
