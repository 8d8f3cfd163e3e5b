"""Labelled patches of several sources as one, such as annotated slides and a list of suggested patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.table_words import in_order
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.errors import LabelError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches, PatchPixels, Rows

_SAME_MPP = 0.1
"""Resolutions may differ by this fraction."""


@dataclass(frozen=True, eq=False)
class JoinedPixels:
    """Row i is row `index_of[i]` of the source `part_of[i]`."""

    parts: tuple[PatchPixels, ...]
    part_of: Rows
    index_of: Rows
    patch_px: int
    mpp: float | None

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Patches (B, P, P, 3): see `PatchPixels.read`."""
        out = np.empty((len(rows), self.patch_px, self.patch_px, 3), np.uint8)
        for number, places, own in self._by_part(rows):
            out[places] = self.parts[number].read(own)
        return out

    def contents(self, rows: Rows) -> list[str]:
        """Digests of the images that patches are cut from."""
        found = [""] * len(rows)
        for number, places, own in self._by_part(rows):
            for place, content in zip(places.tolist(), self.parts[number].contents(own), strict=True):
                found[place] = content
        return found

    def identity(self, rows: Rows) -> Any:
        """The identity of each source's rows."""
        parts = [[number, self.parts[number].identity(own)] for number, _, own in self._by_part(rows)]
        return {"kind": "joined", "part_of": self.part_of[rows].tolist(), "parts": parts}

    def _by_part(self, rows: Rows) -> list[tuple[int, Rows, Rows]]:
        """Each source in use: its number, the places of its rows among `rows`, and its own rows."""
        owners = self.part_of[rows]
        return [
            (int(number), (places := np.flatnonzero(owners == number)), self.index_of[rows[places]])
            for number in np.unique(owners)
        ]


def join_patches(sources: Sequence[LabelledPatches]) -> LabelledPatches:
    """The patches of all sources, in order; classes are matched by name, groups too.

    Raises LabelError unless all have one patch size and about one resolution, and all or none state a split.
    """
    first = sources[0]
    for other in sources[1:]:
        _check_alike(first, other)
    classes = in_order({name for source in sources for name in source.classes})
    number = {name: place for place, name in enumerate(classes)}
    labels = [np.array([number[name] for name in source.classes], np.int64)[source.labels] for source in sources]
    part_of = np.repeat(np.arange(len(sources)), [len(source) for source in sources])
    index_of = np.concatenate([source.index for source in sources])
    pixels = JoinedPixels(tuple(source.pixels for source in sources), part_of, index_of, first.patch_px, first.mpp)
    return LabelledPatches(
        names=tuple(name for source in sources for name in source.names),
        labels=np.concatenate(labels),
        classes=tuple(classes),
        groups=tuple(group for source in sources for group in source.groups),
        splits=None if first.splits is None else tuple(side for source in sources for side in source.splits or ()),
        patch_px=first.patch_px,
        mpp=first.mpp,
        source=" and ".join(source.source for source in sources),
        digest=digest_of(what="joined labelled patches", parts=[source.digest for source in sources]),
        notes=tuple(note for source in sources for note in source.notes),
        pixels=pixels,
        index=np.arange(len(part_of)),
    )


def _check_alike(first: LabelledPatches, other: LabelledPatches) -> None:
    if other.patch_px != first.patch_px:
        raise LabelError(
            f"{other.source}: patches of {other.patch_px} px, but those of {first.source} have {first.patch_px} px",
            todo="Label patches of the same size, or tune on one of the sources",
        )
    if first.mpp and other.mpp and abs(other.mpp / first.mpp - 1) > _SAME_MPP:
        raise LabelError(
            f"{other.source}: patches at {other.mpp:g} mpp, but those of {first.source} are at {first.mpp:g}",
            todo="Label patches of the same resolution, or tune on one of the sources",
        )
    if (other.splits is None) != (first.splits is None):
        raise LabelError(
            f"{first.source} and {other.source}: one states a split and the other does not",
            todo="Give a column split in both, or in none",
        )
