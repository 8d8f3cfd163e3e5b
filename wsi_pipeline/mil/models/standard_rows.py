"""Standardised instances, made block by block where a network works block by block: no copy of all of them is kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_ROWS = 512


def scaled(features: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    """features * scale + shift, computed in float32, returned as `dtype`."""
    if features.requires_grad or dtype == torch.float32:
        return torch.addcmul(shift, features.float(), scale).to(dtype)
    result = torch.empty(features.shape, dtype=dtype, device=features.device)
    _fill(result, features, scale, shift)
    return result


def _fill(target: Tensor, features: Tensor, scale: Tensor, shift: Tensor) -> None:
    for source, part in zip(
        torch.split(features, _ROWS), torch.split(target, _ROWS), strict=True
    ):  # blocks that stay in the cache
        part.copy_(torch.addcmul(shift, source.float(), scale))


class StandardRows:
    """The instances of some bags one after the other, (sum N, D), standardised whenever some are asked for.

    parts         raw features of each bag (N, D), not copied
    scale, shift  (D,) float32: a value x becomes x * scale + shift
    dtype         type of what is given out; the values are those of `scaled`, bit by bit

    Standardising twice, forward and backward, takes less time than to write an array of all instances once.
    """

    def __init__(self, parts: Sequence[Tensor], scale: Tensor, shift: Tensor, dtype: torch.dtype) -> None:
        self.parts = [part for part in parts if len(part)]
        self.scale, self.shift, self.dtype = scale, shift, dtype
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in self.parts], dtype=np.int64)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def device(self) -> torch.device:
        """Where the instances are."""
        return self.scale.device

    def new_empty(self, *shape: int) -> Tensor:
        """An array like these rows, of another shape."""
        return self.scale.new_empty(shape, dtype=self.dtype)

    def block(self, rows: slice) -> Tensor:
        """Some rows (rows.stop - rows.start, D); those beyond the last one are zeros."""
        result = self.new_empty(rows.stop - rows.start, len(self.scale))
        self.write(result, rows.start)
        return result

    def write(self, target: Tensor, start: int = 0) -> None:
        """Fill `target` (n, D) with the rows from `start` on, and with zeros beyond the last one."""
        at, stop = start, min(start + len(target), len(self))
        while at < stop:
            number = int(np.searchsorted(self.starts, at, "right")) - 1
            end, first = min(stop, int(self.starts[number + 1])), int(self.starts[number])
            _fill(
                target[at - start : end - start], self.parts[number][at - first : end - first], self.scale, self.shift
            )
            at = end
        target[max(stop - start, 0) :].zero_()

    def __getitem__(self, indices: Tensor) -> Tensor:
        """The rows at some indices, (n, D)."""
        chosen = indices.numpy(force=True)
        numbers = np.searchsorted(self.starts, chosen, "right") - 1
        raw = torch.zeros(len(chosen), len(self.scale), device=self.device)
        for target, number, row in zip(raw, numbers, chosen - self.starts[numbers], strict=True):
            target.copy_(self.parts[number][row])
        return scaled(raw, self.scale, self.shift, self.dtype)
