"""A PyTorch network as an encoder: uint8 to the device, resized and normalised there, pooled to (B, D)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_pipeline.encoders.base import Encoder, EncoderInfo
from wsi_pipeline.encoders.device import Precision, choose_device, choose_precision, suggest_batch
from wsi_pipeline.errors import EncoderError

if TYPE_CHECKING:
    from wsi_pipeline.encoders.base import Batch

Forward = Callable[[torch.Tensor], torch.Tensor]
"""Normalised images (B, 3, S, S) to features (B, D)."""


class TorchEncoder(Encoder):
    """An encoder around a network in eval mode; timm, Hugging Face and tuned models share it.

    `forward` runs `network` and pools; it is separate because each family names its output differently.
    """

    def __init__(
        self,
        network: torch.nn.Module,
        forward: Forward,
        info: EncoderInfo,
        fingerprint: str,
        device: str = "auto",
        precision: str = "auto",
    ) -> None:
        self.info = info
        self.fingerprint = fingerprint
        self._device = choose_device(device)
        self.precision: Precision = choose_precision(precision, self._device)
        self.device = str(self._device)
        self.summary = f"{self.device}, {self.precision}"
        self.batch = suggest_batch(self._device)
        self._forward = forward
        self._network = network.eval().requires_grad_(False).to(self._device, self.precision.dtype)
        self._network.to(memory_format=torch.channels_last)

    def _encode(self, batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            images = prepare(to_device(batch, self._device), self.info)
            images = images.to(self.precision.dtype).contiguous(memory_format=torch.channels_last)
            try:
                features = self._forward(images)
            except torch.OutOfMemoryError:
                raise EncoderError(
                    f"encoder {self.info.name} ran out of memory on {self.device} with {len(batch)} patches at once",
                    todo="Use a smaller --batch.",
                ) from None
            result: NDArray[np.float32] = features.float().cpu().numpy()
        return result


def to_device(batch: Batch, device: torch.device) -> torch.Tensor:
    """The batch as a uint8 tensor on `device`, moved as bytes (a quarter of what floats would be)."""
    if isinstance(batch, np.ndarray):
        # torch warns about read-only memory, which HDF5 and memory-mapped readers hand out.
        batch = torch.from_numpy(batch if batch.flags.writeable and batch.flags.c_contiguous else batch.copy())
    return batch.to(device, non_blocking=True)


def prepare(batch: torch.Tensor, info: EncoderInfo) -> torch.Tensor:
    """uint8 (B, P, P, 3) to normalised float32 (B, 3, S, S) on the same device.

    Resized with an antialiased filter where P differs from `info.input_px`, kept within 0..255, then normalised.
    """
    images = batch.permute(0, 3, 1, 2).float()
    side = info.input_px
    if side is not None and images.shape[-1] != side:
        images = _resize(images, side, info.interpolation).clamp_(0.0, 255.0)
    mean = torch.tensor(info.mean, device=images.device).view(1, 3, 1, 1) * 255.0
    scale = 1.0 / (torch.tensor(info.std, device=images.device).view(1, 3, 1, 1) * 255.0)
    return (images - mean) * scale


def _resize(images: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    # Apple's MPS lacks the antialiased kernels in some PyTorch versions; there the CPU resizes.
    work = images.cpu() if images.device.type == "mps" else images
    resized = torch.nn.functional.interpolate(
        work, size=(side, side), mode=interpolation, align_corners=False, antialias=True
    )
    return resized.to(images.device)
