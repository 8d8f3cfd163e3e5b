"""Batches to a CUDA device and features back without waiting: pinned memory and a separate copy stream.

Written against the semantics that PyTorch documents for CUDA; `pytest -m gpu` checks it on a machine with a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from wsi_pipeline.encoders.encoder import Batch

_BUFFERS = 3


@dataclass
class _Staging:
    """A pinned buffer; `copied` fires when the device has its content."""

    memory: torch.Tensor
    copied: torch.cuda.Event


class CudaLane:
    """Uploads and downloads of one device. For one thread."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._staging: list[_Staging] = []
        self._turn = 0

    def upload(self, batch: Batch) -> torch.Tensor:
        """The batch uint8 (B, P, P, 3) on the device, for work queued after this.

        The batch may change as soon as this returns: it was copied to pinned memory, whose own copy to the device runs
        beside the kernels of earlier batches.
        """
        tensor = torch.from_numpy(np.ascontiguousarray(batch)) if isinstance(batch, np.ndarray) else batch
        if tensor.is_cuda:
            return tensor.to(self._device)
        staging = self._next_staging(tensor.numel())
        pinned = staging.memory[: tensor.numel()].view(tensor.shape)
        pinned.copy_(tensor)
        work = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._copies):
            there = pinned.to(self._device, non_blocking=True)
            staging.copied.record(self._copies)
        work.wait_event(staging.copied)
        there.record_stream(work)  # it was allocated on the copy stream; its memory must outlive the work on it
        return there

    def download(self, features: torch.Tensor) -> Callable[[], NDArray[np.float32]]:
        """Start downloading float32 features; calling the result waits for these features only."""
        pinned = torch.empty(features.shape, dtype=torch.float32, pin_memory=True)
        pinned.copy_(features.float(), non_blocking=True)
        there = _event()
        there.record(torch.cuda.current_stream(self._device))

        def wait() -> NDArray[np.float32]:
            there.synchronize()
            return np.array(pinned.numpy(), dtype=np.float32)

        return wait

    def _next_staging(self, size: int) -> _Staging:
        """A pinned buffer of at least `size` bytes that is no longer being copied."""
        self._turn = (self._turn + 1) % _BUFFERS
        if self._turn >= len(self._staging):
            self._staging.append(_Staging(self._pin(size), _event()))
            self._turn = len(self._staging) - 1
        staging = self._staging[self._turn]
        staging.copied.synchronize()
        if staging.memory.numel() < size:
            staging.memory = self._pin(size)
        return staging

    @staticmethod
    def _pin(size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)


def _event() -> torch.cuda.Event:
    event: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    return event
