"""A small backbone and an adapter tuned on it; both come with the package, so everything runs offline.

vit-mini.safetensors   weights of `vit-mini` in half precision; model card: VIT_MINI.md
adapter.safetensors    a PathoTune adapter for it, as an example; model card: ADAPTER.md

Both are made by the scripts in benchmarks/builtin of the repository. Importing this does not import torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathotune.backbone import Backbone, BackboneCard

VIT_MINI = "vit-mini"
"""Name of the built-in backbone for `open_backbone`."""

_FOLDER = Path(__file__).parent


def vit_mini() -> tuple[Backbone, BackboneCard]:
    """Open the built-in backbone in float32 on the CPU, in eval mode, and its card. See `pathotune.open_backbone`."""
    from pathotune.backbone import open_backbone

    return open_backbone(VIT_MINI)


def vit_mini_path() -> Path:
    """Path of the built-in backbone's weights (safetensors, with timm's tensor names)."""
    return _FOLDER / f"{VIT_MINI}.safetensors"


def default_adapter_path() -> Path:
    """Path of the built-in adapter."""
    return _FOLDER / "adapter.safetensors"
