"""How images are prepared for a timm network: input size, central crop, filter, mean and std.

The rules are those of timm.data.resolve_data_config and timm.data.create_transform for evaluation.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from wsi_pipeline.encoders.encoder import IMAGENET_MEAN, IMAGENET_STD, Triple
from wsi_pipeline.encoders.resample import FILTERS
from wsi_pipeline.errors import EncoderError

DEFAULT_CROP = 0.875
"""timm's crop_pct where a configuration says none."""
_POSITION_NAME = re.compile(
    r"pos_?emb|position|rel_?pos|relative|rel_coords|attention_bias|attn_bias|_rel$|rel_indices|rope|inv_freq|_pos$"
)
_POSITION_CLASS = re.compile(r"Rotary|Rope|PosEmbed|Positional|RelPos(?!Enc)")


@dataclass(frozen=True)
class Preparation:
    """What a configuration states about a model's images.

    side      side of the square that the network sees
    fixed     whether the configuration says that this is the only one
    crop      part of the resized patch's side that is cut out; 1: all of it, more: all of it in a black frame
    """

    side: int
    fixed: bool
    crop: float
    interpolation: str
    mean: Triple
    std: Triple

    def resize_px(self, side: int) -> int | None:
        """Side that patches are resized to before the middle `side` is cut out; None if it is `side` itself."""
        resized = math.floor(side / self.crop)
        return resized if resized != side else None


@dataclass(frozen=True)
class Wish:
    """The caller's choices for the input size.

    patch_px     side of the patches, None: not known
    input_px     input side of the network, None: its own
    whole_patch  whether cropping is forbidden
    """

    patch_px: int | None = None
    input_px: int | None = None
    whole_patch: bool = False


def read_preparation(config: Mapping[str, Any], name: str) -> Preparation:
    """The preparation of a pretrained_cfg. Raises EncoderError for values that are not for square RGB."""
    return Preparation(
        side=_side(config.get("input_size"), name),
        fixed=bool(config.get("fixed_input_size")),
        crop=_crop(config, name),
        interpolation=_interpolation(config.get("interpolation"), name),
        mean=_triple(config.get("mean"), IMAGENET_MEAN, name),
        std=_triple(config.get("std"), IMAGENET_STD, name),
    )


def has_positions(network: torch.nn.Module) -> bool:
    """Whether the network encodes positions in the image, which ties it to its own input size.

    Judged by the names of parameters, buffers and parts: absolute, relative and rotary embeddings.
    """
    names = [name for name, _ in network.named_parameters()] + [name for name, _ in network.named_buffers()]
    if any(_POSITION_NAME.search(name.rpartition(".")[2]) for name in names):
        return True
    return any(_POSITION_CLASS.search(type(part).__name__) for part in network.modules())


def _side(size: Any, name: str) -> int:
    numbers = tuple(size) if isinstance(size, list | tuple) else () if size is not None else (3, 224, 224)
    if len(numbers) != 3 or not all(type(number) is int and 0 < number <= 1 << 14 for number in numbers):
        raise EncoderError(f"timm model {name}: input_size must be [3, S, S], got {size!r}")
    channels, height, width = numbers
    if channels != 3:
        raise EncoderError(f"timm model {name} does not take RGB images: its input_size is {list(numbers)}")
    if height != width:
        raise EncoderError(f"timm model {name} takes images of {width} x {height}, and patches are square")
    return int(height)


def _crop(config: Mapping[str, Any], name: str) -> float:
    crop, mode = config.get("crop_pct") or DEFAULT_CROP, config.get("crop_mode") or "center"
    if isinstance(crop, bool) or not isinstance(crop, int | float) or not 0.1 <= crop <= 2:
        raise EncoderError(f"timm model {name}: crop_pct must be between 0.1 and 2, got {crop!r}")
    if mode == "border" and crop > 1:
        raise EncoderError(f"timm model {name}: crop_pct {crop} with crop_mode border is not supported")
    if mode not in ("center", "squash", "border"):  # on a square all three are the same
        raise EncoderError(f"timm model {name}: crop_mode must be center, squash or border, got {mode!r}")
    return float(crop)


def _interpolation(value: Any, name: str) -> str:
    known = ("bilinear", "bicubic", *FILTERS)
    if value not in (None, "", *known):
        raise EncoderError(f"timm model {name}: interpolation must be one of {', '.join(known)}, got {value!r}")
    return str(value or "bicubic")


def _triple(values: Any, default: Triple, name: str) -> Triple:
    try:
        numbers = tuple(float(value) for value in values or default)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        raise EncoderError(f"timm model {name} does not take RGB images: mean or std is {values}")
    return numbers[0], numbers[1], numbers[2]
