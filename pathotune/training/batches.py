"""From labelled images of any source to batches for a backbone: read ahead, resize, normalise."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pathotune.backbone import BackboneCard
from pathotune.errors import ConfigError


class LabelledImages(Protocol):
    """Images with a class each, read on demand.

    labels  int64 (N,), indices into the configuration's classes
    tasks   int64 (N,), index of the task of each image; None if there is only one task
    """

    @property
    def labels(self) -> NDArray[np.int64]:
        """Class index of each image."""
        ...

    @property
    def tasks(self) -> NDArray[np.int64] | None:
        """Task index of each image."""
        ...

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Read the images at these rows: uint8 (B, P, P, 3), RGB."""
        ...


@dataclass(frozen=True, eq=False)
class ArrayImages:
    """Labelled images in memory: pixels uint8 (N, P, P, 3). Raises ConfigError for other types or shapes."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    tasks: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if self.pixels.dtype != np.uint8 or len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
            raise ConfigError(f"pixels must be uint8 (N, P, P, 3), got {self.pixels.dtype} {shape}")
        for name, values in (("labels", self.labels), ("tasks", self.tasks)):
            if values is not None and (values.dtype != np.int64 or values.shape != shape[:1]):
                raise ConfigError(f"{name} must be int64 ({shape[0]},), got {values.dtype} {values.shape}")

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at these rows: uint8 (B, P, P, 3)."""
        return self.pixels[rows]


@dataclass(frozen=True)
class Batch:
    """Images float32 (B, 3, S, S) in 0..255; labels and tasks int64 (B,); None for tasks if there is only one."""

    images: Tensor
    labels: Tensor
    tasks: Tensor | None


def batches(
    source: LabelledImages, order: NDArray[np.int64], size: int, card: BackboneCard, device: torch.device
) -> Iterator[Batch]:
    """Yield the images at rows `order`, `size` at a time. The next batch is read while the device works on this one."""
    parts = [order[first : first + size] for first in range(0, len(order), size)]
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        coming = pool.submit(_read, source, parts[0], card) if parts else None
        for number, rows in enumerate(parts):
            assert coming is not None
            pixels = coming.result()
            coming = pool.submit(_read, source, parts[number + 1], card) if number + 1 < len(parts) else None
            yield Batch(pixels.to(device, non_blocking=True).float(), *answers(source, rows, device))


def answers(source: LabelledImages, rows: NDArray[np.int64], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Labels and tasks of the images at some rows."""
    labels = torch.from_numpy(source.labels[rows]).to(device)
    return labels, None if source.tasks is None else torch.from_numpy(source.tasks[rows]).to(device)


def normalise(images: Tensor, card: BackboneCard) -> Tensor:
    """Scale images in 0..255 to [0, 1] and standardise them by the backbone's mean and std."""
    mean, std = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (card.mean, card.std))
    return (images / 255.0 - mean) / std


def _read(source: LabelledImages, rows: NDArray[np.int64], card: BackboneCard) -> Tensor:
    """Images uint8 (B, 3, S, S), resized with antialiasing as uint8, exactly as the pipeline's encoder does."""
    images = torch.from_numpy(np.ascontiguousarray(source.read(rows))).permute(0, 3, 1, 2)
    side = card.input_px
    if images.shape[-1] == side:
        return images
    mode = card.interpolation if card.interpolation in ("bilinear", "bicubic") else "bicubic"
    return F.interpolate(images, size=(side, side), mode=mode, align_corners=False, antialias=True)
