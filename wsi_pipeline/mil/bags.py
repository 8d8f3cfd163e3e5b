"""Bags: the feature rows of many slides in one array, with the offsets of each slide. No padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from wsi_pipeline.errors import MilError
from wsi_pipeline.wording import counted

Features = NDArray[np.float16] | NDArray[np.float32] | Tensor

_DTYPES = {np.dtype(np.float16), np.dtype(np.float32), torch.float16, torch.float32}


@dataclass(frozen=True, eq=False)
class BagBatch:
    """Some bags: the features (N, D) of each, offsets int64 (b + 1), indices (b,) of the bags.

    The parts are views of the bags' features where these allow it: read them, do not write to them.
    """

    parts: tuple[Tensor, ...]
    offsets: Tensor
    indices: Tensor

    @property
    def features(self) -> Tensor:
        """A copy of all features, one after the other, (sum N, D)."""
        with torch.autocast("cpu", enabled=False):  # which knows no float16
            return torch.cat(self.parts)


@dataclass(frozen=True, eq=False)
class Bags:
    """The instances of B slides.

    features   float16 or float32 (sum N, D), an array (memory-mapped is fine: rows are copied out) or a tensor
    offsets    int64 (B + 1): bag i is rows offsets[i] to offsets[i + 1]; two equal offsets enclose an empty bag
    slide_ids  B unique names

    Raises MilError if these do not fit together.
    """

    features: Features
    offsets: NDArray[np.int64]
    slide_ids: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.features.dtype not in _DTYPES:
            raise MilError(
                "features must be a float16 or float32 array of two axes (instances, values), "
                f"got {self.features.dtype} of shape {tuple(self.features.shape)}"
            )
        offsets = self.offsets
        if offsets.ndim != 1 or offsets.dtype != np.int64 or len(offsets) != len(self.slide_ids) + 1:
            raise MilError(f"offsets must be int64 ({len(self.slide_ids) + 1},), got {offsets.dtype} {offsets.shape}")
        if offsets[0] != 0 or offsets[-1] != len(self.features) or (np.diff(offsets) < 0).any():
            raise MilError(f"offsets must rise from 0 to the number of instances, {len(self.features)}")
        if len(set(self.slide_ids)) != len(self.slide_ids):
            raise MilError("slide_ids of bags must be unique")

    @classmethod
    def from_arrays(cls, arrays: Sequence[NDArray[np.floating]], slide_ids: Sequence[str]) -> Bags:
        """Concatenate the features (N_i, D) of each slide; float16 stays float16, else float32.

        Raises MilError naming the slide whose features have another width, or are not finite.
        """
        if not arrays or len(arrays) != len(slide_ids):
            raise MilError(
                f"bags need one array for each slide, got {len(arrays)} for {counted(len(slide_ids), 'slide')}"
            )
        for array, slide in zip(arrays, slide_ids, strict=True):
            if array.ndim != 2 or array.shape[1] != arrays[0].shape[-1]:
                expected = f"(N, {arrays[0].shape[-1]})"
                raise MilError(f"features must be of shape {expected}, got {array.shape}", slide=slide)
            if not np.isfinite(array).all():
                raise MilError("features hold NaN or infinite values", slide=slide, todo="Embed this slide again.")
        half = all(array.dtype == np.float16 for array in arrays)
        joined: Features = (
            np.concatenate(arrays, dtype=np.float16) if half else np.concatenate(arrays, dtype=np.float32)
        )
        offsets = np.concatenate([[0], np.cumsum([len(array) for array in arrays])]).astype(np.int64)
        return cls(joined, offsets, tuple(map(str, slide_ids)))

    def __len__(self) -> int:
        return len(self.slide_ids)

    def __repr__(self) -> str:
        return f"<Bags: {len(self)} with {len(self.features)} instances x {self.dim}>"

    @property
    def dim(self) -> int:
        """Values per instance, D."""
        return int(self.features.shape[1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Instances per bag, (B,)."""
        return np.diff(self.offsets)

    def rows(self, index: int) -> slice:
        """The rows of bag `index` in `features`."""
        return slice(int(self.offsets[index]), int(self.offsets[index + 1]))

    def bag(self, index: int) -> Tensor:
        """A copy of the features (N, D) of one bag."""
        return self._gather([index])

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> Bags:
        """The bags at `indices`, in that order (copied)."""
        chosen = [int(index) for index in indices]
        slides = tuple(self.slide_ids[index] for index in chosen)
        return Bags(self._gather(chosen), _offsets(self.lengths[chosen]), slides)

    def batches(self, order: Sequence[int] | NDArray[np.int64], batch_bags: int) -> Iterator[BagBatch]:
        """Batches of up to `batch_bags` bags, in the given order of bag indices."""
        indices = np.asarray(order, dtype=np.int64)
        for start in range(0, len(indices), batch_bags):
            chosen = indices[start : start + batch_bags]
            offsets = torch.from_numpy(_offsets(self.lengths[chosen]))
            parts = tuple(self._part(index) for index in chosen.tolist())
            yield BagBatch(parts, offsets, torch.from_numpy(chosen.copy()))

    def sampled(self, indices: NDArray[np.int64], limit: int, rng: np.random.Generator) -> BagBatch:
        """The bags at `indices` in one batch, at most `limit` instances of each, drawn without replacement."""
        rows = []
        for index in indices.tolist():
            start, length = int(self.offsets[index]), int(self.lengths[index])
            drawn = np.arange(length) if length <= limit else np.sort(rng.choice(length, limit, replace=False))
            rows.append(start + drawn)
        chosen = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        features = self.features
        part = (
            features[torch.from_numpy(chosen)] if isinstance(features, Tensor) else torch.from_numpy(features[chosen])
        )
        offsets = torch.from_numpy(_offsets(np.array([len(part) for part in rows], np.int64)))
        return BagBatch((part,), offsets, torch.from_numpy(indices.copy()))

    def _part(self, index: int) -> Tensor:
        """The features (N, D) of a bag, not copied; copied from an array that is read-only, as torch has no such."""
        part = self.features[self.rows(index)]
        if isinstance(part, Tensor):
            return part
        return torch.from_numpy(part if part.flags.writeable else part.copy())

    def _gather(self, indices: list[int]) -> Tensor:
        slices = [self.rows(index) for index in indices] or [slice(0, 0)]
        features = self.features
        if isinstance(features, Tensor):
            return torch.cat([features[rows] for rows in slices])
        return torch.from_numpy(np.concatenate([features[rows] for rows in slices]))


def _offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
