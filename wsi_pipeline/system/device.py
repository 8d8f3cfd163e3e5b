"""Device and arithmetic of an encoder: bf16 if the hardware is fast at it, else fp32.

torch is imported when a device is first asked for, so that a command with nothing to compute does without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pathotune.hardware import fast_bf16
from wsi_pipeline.errors import UsageError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "bf16", "fp32")
_BATCH = {"cpu": 16, "mps": 64, "cuda": 128}
_PROBED = {"cpu": (4, 8, 16, 32, 64), "mps": (32, 64, 128), "cuda": (32, 64, 128, 256, 512, 1024)}


@dataclass(frozen=True)
class Precision:
    """The chosen arithmetic: `name` is bf16 or fp32, `why` the hardware or the reason, for messages."""

    name: str
    why: str

    @property
    def dtype(self) -> torch.dtype:
        """The torch type activations are computed in."""
        import torch

        return torch.bfloat16 if self.name == "bf16" else torch.float32

    def __str__(self) -> str:
        return f"{self.name} ({self.why})" if self.why else self.name


def choose_device(wanted: str = "auto") -> torch.device:
    """The device for `auto` (CUDA, then Apple's MPS, then the CPU), `cpu`, `cuda`, `cuda:1` or `mps`.

    Raises UsageError for a device this machine does not have.
    """
    import torch

    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except RuntimeError:
        device = torch.device("meta")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "cuda":
        return _cuda_device(device)
    if device.type == "mps":
        if torch.backends.mps.is_available():
            return device
        raise UsageError("device mps is not available", todo="Use --device auto or --device cpu.")
    raise UsageError(f"device must be auto, cpu, cuda, cuda:N or mps, got {wanted!r}")


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """The arithmetic for `auto`, `bf16` or `fp32` on a device from `choose_device`.

    `auto` takes bf16 on CUDA devices with native bf16 and on CPUs with AMX or AVX-512 BF16, else fp32.
    """
    if wanted not in PRECISIONS:
        raise UsageError(f"precision must be one of {', '.join(PRECISIONS)}, got {wanted!r}")
    fast = fast_bf16(device)
    if wanted == "fp32" or (wanted == "auto" and fast is None):
        return Precision("fp32", "")
    return Precision("bf16", fast if fast is not None else "slow here: no bf16 hardware found")


def suggest_batch(device: torch.device) -> int:
    """Default patches per batch: enough to fill the device, small enough to fit its memory."""
    return _BATCH[device.type]


def probe_sizes(device: torch.device) -> tuple[int, ...]:
    """Batch sizes worth trying on a device."""
    return _PROBED[device.type]


def list_devices(wanted: str) -> tuple[str, ...]:
    """The devices of `--devices`: comma-separated names, or a number of CUDA devices, from the first.

    Raises UsageError for a device this machine does not have, and for an empty list or a number below 1.
    """
    import torch

    names = [name.strip() for name in wanted.split(",")]
    if len(names) == 1 and names[0].isdigit():
        count = int(names[0])
        if count < 1:
            raise UsageError(f"devices must be >= 1 or comma-separated names, got {wanted!r}")
        names = [f"cuda:{index}" for index in range(count)] if count > 1 or torch.cuda.is_available() else ["auto"]
    return tuple(str(choose_device(name)) for name in names)


def _cuda_device(device: torch.device) -> torch.device:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index or 0
    if count == 0:
        raise UsageError(f"device {device} was requested, but PyTorch finds no CUDA device", todo="Use --device cpu.")
    if index >= count:
        raise UsageError(f"device {device} was requested, but only cuda:0 to cuda:{count - 1} exist")
    return torch.device("cuda", index)
