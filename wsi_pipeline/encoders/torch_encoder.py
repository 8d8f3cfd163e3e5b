"""A PyTorch network as an encoder: uint8 to the device, resized and normalised there, pooled to (B, D)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_pipeline.encoders.cuda import CudaLane
from wsi_pipeline.encoders.encoder import Encoder, EncoderInfo, Pending, Triple
from wsi_pipeline.encoders.resample import resize_by_weights
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.system.device import Precision, choose_device, choose_precision, probe_sizes, suggest_batch

if TYPE_CHECKING:
    from wsi_pipeline.encoders.encoder import Batch

_OF_TORCH = ("bilinear", "bicubic")
"""The filters that PyTorch resizes with, antialiased, on every device."""

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
        self.batches = probe_sizes(self._device)
        self._forward = forward
        self._network = network.eval().requires_grad_(False)
        if self.precision.dtype != torch.float32:
            _lower(self._network, self.precision.dtype)
        self._network.to(self._device).to(memory_format=torch.channels_last)
        self._lane = CudaLane(self._device) if self._device.type == "cuda" else None
        self._compiled_for: int | None = None

    def compile(self) -> bool:
        """Compile the network with torch.compile when the first batch comes, for batches of that size.

        Shorter batches are padded, because each size would be compiled separately. Rounding may differ slightly.
        """
        if self._compiled_for is None:
            self._forward = torch.compile(self._forward, dynamic=False)
            self._compiled_for = 0
            self.summary += ", compiled"
        return True

    def _begin(self, batch: Batch) -> Pending:
        lowered = self.precision.dtype != torch.float32
        count = len(batch)
        with torch.inference_mode(), torch.autocast(self._device.type, self.precision.dtype, enabled=lowered):
            try:
                images = prepare(self._lane.upload(batch) if self._lane else batch, self.info, self._device)
                features = self._run(images)[:count].float()
            except torch.OutOfMemoryError:
                raise EncoderError(
                    f"encoder {self.info.name} ran out of memory on {self.device} with {count} patches at once",
                    todo="Use a smaller --batch.",
                ) from None
            if self._lane:
                return self._lane.download(features)
            result: NDArray[np.float32] = features.cpu().numpy()
        return lambda: result

    def _encode(self, batch: Batch) -> NDArray[np.float32]:
        return self._begin(batch)()

    def _run(self, images: torch.Tensor) -> torch.Tensor:
        if self._compiled_for is None:
            return self._forward(images)
        first = self._compiled_for == 0
        self._compiled_for = max(self._compiled_for, len(images))
        missing = self._compiled_for - len(images)
        if missing:
            images = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
        try:
            return self._forward(images.contiguous(memory_format=torch.channels_last))
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # the compiler's errors derive from it
            if not first:
                raise
            raise EncoderError(
                f"encoder {self.info.name} cannot be compiled here: {str(error).strip().splitlines()[0]}",
                todo="Leave --compile out, or install a C++ compiler.",
            ) from error


def prepare(batch: Batch, info: EncoderInfo, device: torch.device) -> torch.Tensor:
    """uint8 (B, P, P, 3) to normalised float32 (B, 3, S, S) on `device`, in channels-last memory.

    Pixels travel as bytes, a quarter of what floats would be. Resized where P differs from `info.resize_px` (where that
    is None, `info.input_px`), and then cut to the central S x S, or framed in black.
    """
    if isinstance(batch, np.ndarray):
        # torch warns about read-only memory, which HDF5 and memory-mapped readers hand out.
        batch = torch.from_numpy(batch if batch.flags.writeable and batch.flags.c_contiguous else batch.copy())
    final = info.input_px if info.input_px is not None else batch.shape[1]
    side = info.resize_px or final
    images = batch.permute(0, 3, 1, 2)
    if images.shape[-1] != side and info.interpolation not in _OF_TORCH:
        images = resize_by_weights(images.to(device), side, info.interpolation)
    if images.shape[-1] != side and device.type != "cuda":
        images = _resize_on_cpu(images.cpu(), side, info.interpolation)
    images = images.to(device, non_blocking=True)
    if images.shape[-1] != side:
        images = _resize_on_gpu(images, side, info.interpolation)
    if side > final:
        corner = round((side - final) / 2) if info.corner_px is None else info.corner_px
        images = images[:, :, corner : corner + final, corner : corner + final]
    elif side < final:
        before, after = (final - side) // 2, (final - side + 1) // 2
        images = torch.nn.functional.pad(images, (before, after, before, after))
    scale, shift = _normalisation(info.mean, info.std, device)
    normalised = images.float().mul_(scale).sub_(shift)
    return normalised.contiguous(memory_format=torch.channels_last)


@lru_cache(maxsize=64)
def _normalisation(mean: Triple, std: Triple, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Scale and shift that normalise bytes. Cached: creating them per batch would stall a GPU."""
    with torch.inference_mode(False):
        means = torch.tensor(mean, device=device).view(1, 3, 1, 1)
        stds = torch.tensor(std, device=device).view(1, 3, 1, 1)
        return 1.0 / (stds * 255.0), means / stds


def _resize_on_cpu(images: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    """Antialiased resize of bytes to bytes: PyTorch's fast path, which rounds as Pillow does."""
    return torch.nn.functional.interpolate(
        images, size=(side, side), mode=interpolation, align_corners=False, antialias=True
    )


def _resize_on_gpu(images: torch.Tensor, side: int, interpolation: str) -> torch.Tensor:
    """The same resize in floats: first across, then down, rounded to bytes in between, as on the CPU.

    Without the rounding a bicubic overshoot at a sharp edge survives the first pass and devices differ visibly.
    """
    floats = images.float()
    for size in ((images.shape[2], side), (side, side)):
        floats = torch.nn.functional.interpolate(
            floats, size=size, mode=interpolation, align_corners=False, antialias=True
        )
        floats = floats.round_().clamp_(0.0, 255.0)
    return floats


def _lower(network: torch.nn.Module, dtype: torch.dtype) -> None:
    """Make a network ready for autocast to `dtype`, in place: matrix weights are cast once, not for every batch.

    The convolution that reads the image stays in fp32, and with it the sum that the blocks of a transformer add to.
    On 120 patches of real slides the least cosine of DeiT-Tiny's features to fp32 was 0.9969 without this and 0.9996
    with it. Norms and sums are fp32 under autocast.
    """
    matrices = [part for part in network.modules() if isinstance(part, torch.nn.Linear | torch.nn.Conv2d)]
    first = next((part for part in matrices if isinstance(part, torch.nn.Conv2d) and part.in_channels == 3), None)
    for part in matrices:
        if part is not first:
            part.to(dtype)
    if first is not None:
        _keep_in_fp32(first)


def _keep_in_fp32(layer: torch.nn.Module) -> None:
    inner = layer.forward

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return torch.as_tensor(inner(images.float()))

    layer.forward = forward
