"""What comes with the package, so that everything runs offline: a small backbone and an adapter tuned on it.

vit-mini.safetensors   weights of `vit-mini`, half precision; its card is VIT_MINI.md
adapter.safetensors    a PathoTune adapter on it, for trying out; its card is ADAPTER.md

Both are made by the scripts of benchmarks/builtin in the repository. Importing this costs no import of torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathotune.backbone import Backbone, BackboneCard

VIT_MINI = "vit-mini"
"""Name under which `open_backbone` knows the built-in backbone."""

_FOLDER = Path(__file__).parent


def vit_mini() -> tuple[Backbone, BackboneCard]:
    """The built-in backbone in float32 on the CPU, in eval mode, and its card. See `pathotune.open_backbone`."""
    from pathotune.backbone import open_backbone

    return open_backbone(VIT_MINI)


def vit_mini_path() -> Path:
    """Where the weights of the built-in backbone lie (safetensors, names of timm)."""
    return _FOLDER / f"{VIT_MINI}.safetensors"


def default_adapter_path() -> Path:
    """Where the built-in adapter lies."""
    return _FOLDER / "adapter.safetensors"
