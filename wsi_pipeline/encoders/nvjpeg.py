"""JPEG patches decoded on the CUDA device that encodes them: nvJPEG through torchvision. Optional.

Its inverse transform and colour upsampling round slightly differently from libjpeg's, so features differ slightly. On
`cpu` the same call decodes with libjpeg.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from wsi_pipeline.errors import EncoderError

if TYPE_CHECKING:
    import torch

_WITHOUT = "Leave --gpu-decode out."


def decode_jpegs(jpegs: Sequence[bytes], device: str) -> torch.Tensor:
    """uint8 (B, P, P, 3) on `device` of B JPEGs of one size.

    Raises EncoderError if torchvision cannot decode on this device, or if the sizes differ.
    """
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg  # type: ignore[import-untyped]

    files = [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in jpegs]
    try:
        images = decode_jpeg(files, mode=ImageReadMode.RGB, device=device)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        raise EncoderError(f"JPEG patches cannot be decoded on {device}: {reason}", todo=_WITHOUT) from error
    if len({tuple(image.shape) for image in images}) != 1:
        raise EncoderError("the JPEG patches of one batch are of different sizes", todo=_WITHOUT)
    return torch.stack(images).permute(0, 2, 3, 1)
