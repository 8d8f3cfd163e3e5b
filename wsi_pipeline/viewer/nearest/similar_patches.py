"""Nearest patches in the cohort by stored features, and nearest slides."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.run_dir import POOLED_MARK, RunDir, existing_store, slug
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.validation.neighbours import Neighbours
from wsi_pipeline.stages.inputs.alike import check_alike
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import COORDS
from wsi_pipeline.store.tables.cohort_features import CohortFeatures, read_cohort_features
from wsi_pipeline.store.tables.patch_table import geometry_from
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.nearest.patch_index import PatchIndex, kept_index
from wsi_pipeline.viewer.nearest.slide_means import SlideMeans
from wsi_pipeline.wording import counted

MOST = 200
EXACT_ROWS = 1_000_000
"""Up to so many patches all are compared; beyond, those that an index finds."""
_ROWS = 32_768
_SAMPLE = 200_000
_LEAST_DEVIATION = 1e-6


@dataclass(frozen=True, eq=False)
class _Index:
    """All features of one encoder, with precomputed values for fast distances.

    marks    path and modification time of each store; sides: patch side of each slide, level-0 pixels
    weights  (D,) 1 / standard deviation over a sample of the patches
    squares  (N,) squared lengths of the weighted rows, or None with an `index`
    """

    marks: tuple[tuple[str, int], ...]
    slides: tuple[str, ...]
    features: CohortFeatures
    coords: tuple[NDArray[np.int64], ...]
    sides: tuple[int, ...]
    weights: NDArray[np.float32]
    squares: NDArray[np.float32] | None
    index: PatchIndex | None

    @property
    def how(self) -> str:
        """How patches are found, in one sentence."""
        patches = counted(len(self.features.features), "patch")
        if self.index is None:
            return f"All {patches} compared."
        groups = counted(len(self.index.centres), "group")
        return f"{patches} in {groups} of similar ones; the nearest {self.index.searched} groups compared."


class SimilarPatches:
    """Nearest neighbours by Euclidean distance of features, each divided by its standard deviation over the cohort.

    Up to `exact_rows` patches all are compared; beyond, an index in the run chooses which. The features of one encoder
    at a time are kept, in memory if they fit into half of the free memory, else mapped from a file.
    """

    def __init__(self, library: Library, exact_rows: int = EXACT_ROWS) -> None:
        self._library, self._lock, self._exact_rows = library, threading.Lock(), exact_rows
        self._index: tuple[str, _Index] | None = None

    def encoders(self) -> tuple[str, ...]:
        """Encoders that the run has features of."""
        return self._library.run.patch_encoders() if self._library.run else ()

    def patches(
        self, slide_id: str, row: int, encoder: str, count: int, *, others: bool = False
    ) -> list[dict[str, Any]]:
        """The `count` patches most similar to patch `row` of a slide, nearest first, without patches that overlap it.

        others   leave out the slide itself

        Raises UsageError for a slide without features of this encoder, or a row that does not exist, MilError if slides
        were embedded with different weights, adapters or stain normalisation.
        """
        index = self._of(encoder)
        if slide_id not in index.slides:
            raise UsageError(f"{slide_id[:80]} has no features of {encoder}")
        own = index.slides.index(slide_id)
        start, end = (int(index.features.offsets[own + k]) for k in (0, 1))
        if not 0 <= row < end - start:
            raise UsageError(f"{slide_id[:80]} has {end - start} patches, and none with number {row}")
        close = np.abs(index.coords[own] - index.coords[own][row]).max(axis=1) < index.sides[own]
        left_out, features = (start, end, close | others), index.features.features
        count = min(max(1, count), MOST, len(features))
        if index.index is not None:
            rows, distances = index.index.nearest(features, start + row, count, left_out)
        else:
            assert index.squares is not None
            rows, distances = nearest_of_all(features, start + row, count, left_out, index.weights, index.squares)
        return [self._found(index, int(k), float(value)) for k, value in zip(rows, distances, strict=True)]

    def place(self, slide_id: str, row: int, encoder: str) -> tuple[int, int]:
        """Upper left corner of patch `row` of a slide, level-0 pixels."""
        index = self._of(encoder)
        x, y = index.coords[index.slides.index(slide_id)][row].tolist()
        return int(x), int(y)

    def row_at(self, slide_id: str, encoder: str, x: int, y: int) -> int:
        """Number of the patch whose upper left corner is (x, y), else of the one nearest around that level-0 pixel.

        Raises UsageError if the slide has no features of this encoder, or no patch there.
        """
        index = self._of(encoder)
        if slide_id not in index.slides:
            raise UsageError(f"{slide_id[:80]} has no features of {encoder}")
        own = index.slides.index(slide_id)
        coords, side = index.coords[own], index.sides[own]
        if not len(coords):
            raise UsageError(f"{slide_id[:80]} has no patches")
        corner = np.flatnonzero((coords == (x, y)).all(axis=1))
        if len(corner):
            return int(corner[0])
        away = np.abs(coords + side / 2 - (x, y)).max(axis=1)
        if away.min() > side / 2:
            raise UsageError(f"{slide_id[:80]} has no patch at ({x}, {y})", todo="Name a pixel of level 0 in tissue.")
        return int(away.argmin())

    def how(self, encoder: str) -> str:
        """How `patches` finds them: all compared, or by the index."""
        return self._of(encoder).how

    def pooled(self, encoder: str) -> str | None:
        """Name of the slide embeddings made from this encoder's features, or None."""
        run = self._library.needed_run
        found = (name for name in run.slide_embeddings() if name.partition(POOLED_MARK)[0] == slug(encoder))
        return next(found, None)

    def slides(self, slide_id: str, encoder: str, count: int) -> list[dict[str, Any]]:
        """The most similar slides, nearest first: by slide embeddings if there are any, else by mean features.

        Compared as by the command `similar`.
        """
        self._check(encoder)
        run = self._library.needed_run
        pooled = self.pooled(encoder)
        if pooled is not None:
            return self._embedded(run, slide_id, pooled, count)
        known = SlideMeans(run, slug(encoder))
        means = known.of(list(self._library.records))
        known.check_alike(list(means))
        if slide_id not in means:
            raise UsageError(f"{slide_id[:80]} has no features of {encoder}")
        names = list(means)
        patients = pd.Series([self._library.records[name].patient_id for name in names], dtype=str)
        order, similarity = Neighbours.of(np.stack(list(means.values())), patients).around(names.index(slide_id))
        near = zip(order[: min(max(1, count), MOST)].tolist(), similarity.tolist(), strict=False)
        return [self._slide(names[k], value) for k, value in near]

    def _embedded(self, run: RunDir, slide_id: str, name: str, count: int) -> list[dict[str, Any]]:
        """Neighbours as the command `similar` finds them."""
        from wsi_pipeline.stages.inputs.slide_bags import gather
        from wsi_pipeline.stages.similar_slides import neighbours_of

        slides = gather(run, self._library.cohort.records, name)
        table = neighbours_of(slides, min(max(1, count), MOST), [slide_id])
        pairs = zip(table["neighbour"].astype(str), table["similarity"].astype(float), strict=True)
        return [self._slide(other, value) for other, value in pairs]

    def _slide(self, slide_id: str, similarity: float) -> dict[str, Any]:
        record = self._library.records[slide_id]
        away = round(1 - similarity, 4)
        return {"id": slide_id, "distance": away, "patient": record.patient_id, "label": record.label}

    def _found(self, index: _Index, k: int, squared: float) -> dict[str, Any]:
        slide = int(np.searchsorted(index.features.offsets, k, side="right")) - 1
        row = k - int(index.features.offsets[slide])
        x, y = (int(value) for value in index.coords[slide][row])
        record = self._library.record(index.slides[slide])
        return {
            "id": record.slide_id, "row": row, "x": x, "y": y, "side": index.sides[slide], "patient": record.patient_id,
            "label": record.label, "distance": round(float(np.sqrt(max(0.0, squared) / len(index.weights))), 4),
        }  # fmt: skip

    def _check(self, encoder: str) -> None:
        if slug(encoder) not in self.encoders():
            known = ", ".join(self.encoders()) or "none yet"
            raise UsageError(f"no features of {encoder[:80]!r}", todo=f"There are: {known}")

    def _of(self, encoder: str) -> _Index:
        """The features of an encoder, read again if a store has changed."""
        self._check(encoder)
        run = self._library.needed_run
        found = [(name, existing_store(run.feature_store(encoder, name))) for name in self._library.records]
        there = [(name, path) for name, path in found if path is not None]
        marks = tuple((str(path), path.stat().st_mtime_ns) for _, path in there)
        with self._lock:
            if self._index is None or self._index[0] != encoder or self._index[1].marks != marks:
                self._index = None  # free the old one before allocating the new one
                self._index = encoder, self._read(run, encoder, there, marks)
            return self._index[1]

    def _read(
        self, run: RunDir, encoder: str, there: list[tuple[str, Path]], marks: tuple[tuple[str, int], ...]
    ) -> _Index:
        features = read_cohort_features([path for _, path in there])
        check_alike(features.headers)
        coords, sides = [], []
        for _, path in there:
            with open_store(path) as store:
                coords.append(store.read(COORDS))
                sides.append(geometry_from(store.array_attrs(COORDS), path).patch_level0)
        slides, weights = tuple(name for name, _ in there), weights_of(features.features)
        squares, index = None, None
        if len(features.features) > self._exact_rows:
            versions = [f"{name} {mark}" for name, (_, mark) in zip(slides, marks, strict=True)]
            kept = run.view / f"index-{slug(encoder)}.npz"
            index, _ = kept_index(kept, versions, features.features, features.offsets, weights)
        else:
            squares = squared_lengths(features.features, weights)
        return _Index(marks, slides, features, tuple(coords), tuple(sides), weights, squares, index)


def nearest_of_all(
    features: NDArray[Any],
    row: int,
    count: int,
    left_out: tuple[int, int, NDArray[np.bool_]],
    weights: NDArray[np.float32],
    squares: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(rows, squared distances) of the `count` rows nearest to `row`; see `PatchIndex.nearest`."""
    distances = squared_distances(features, row, weights, squares)
    first, end, mask = left_out
    distances[first:end][mask] = np.inf
    near = np.argpartition(distances, count - 1)[:count]
    near = near[np.argsort(distances[near], kind="stable")]
    near = near[np.isfinite(distances[near])]
    return near, distances[near]


def squared_distances(
    features: NDArray[Any], row: int, weights: NDArray[np.float32], squares: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Squared distances (N,) of row `row` to all rows, in blocks; features are multiplied by `weights`."""
    query = features[row].astype(np.float32) * weights
    out = np.empty(len(features), np.float32)
    for first in range(0, len(features), _ROWS):
        block = features[first : first + _ROWS].astype(np.float32)
        out[first : first + _ROWS] = block @ (-2 * query * weights)
    out += squares + np.float32((query**2).sum())
    return out


def weights_of(features: NDArray[Any]) -> NDArray[np.float32]:
    """(D,) 1 / standard deviation over a sample of the rows (N, D); 0 where all are the same."""
    step = max(1, len(features) // _SAMPLE)
    deviation = features[::step].astype(np.float32).std(axis=0)
    found = np.where(deviation > _LEAST_DEVIATION, 1 / np.maximum(deviation, _LEAST_DEVIATION), 0)
    return np.asarray(found, np.float32)


def squared_lengths(features: NDArray[Any], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N,) squared lengths of the weighted rows, in blocks."""
    squares = np.empty(len(features), np.float32)
    for first in range(0, len(features), _ROWS):
        block = features[first : first + _ROWS].astype(np.float32) * weights
        squares[first : first + _ROWS] = (block**2).sum(axis=1)
    return squares
