"""PathoTune: adapt a frozen vision transformer to pathology with visual and textual prompts.

Reimplemented from the published description: Lu et al., "PathoTune: Adapting Visual Foundation Model to Pathological
Specialists", MICCAI 2024, arXiv 2403.16497. The authors' Visual Refine Module and hyper-parameters are not public;
every choice the paper leaves open is a field of `PathoTuneConfig`.

    network, card = open_backbone("vit-mini")          # or a timm model name and "weights.safetensors"
    model = PathoTune(PathoTuneConfig(classes=("benign", "malignant")), network)
    ...                                                # pathotune.training.fit, or your own training loop
    save_adapter("adapter.safetensors", model, card)
    model = load_adapter("adapter.safetensors", open_backbone("vit-mini")[0])
    features = model.features(normalise(images, card)) # pathotune.training.batches.normalise; images in 0..255

Names are imported on first use, so `import pathotune` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathotune.backbone import BackboneCard, fingerprint, open_backbone
    from pathotune.checkpoint import AdapterInfo, load_adapter, read_adapter, save_adapter
    from pathotune.config import PathoTuneConfig, TaskText
    from pathotune.errors import AdapterError, BackboneError, ConfigError, PathoTuneError, TextEncoderError
    from pathotune.model import PathoTune
    from pathotune.tokens import TokenLayout

__version__ = "0.1.0"

__all__ = [
    "AdapterError",
    "AdapterInfo",
    "BackboneCard",
    "BackboneError",
    "ConfigError",
    "PathoTune",
    "PathoTuneConfig",
    "PathoTuneError",
    "TaskText",
    "TextEncoderError",
    "TokenLayout",
    "fingerprint",
    "load_adapter",
    "open_backbone",
    "read_adapter",
    "save_adapter",
]

_PLACES = {
    "backbone": ("BackboneCard", "fingerprint", "open_backbone"),
    "checkpoint": ("AdapterInfo", "load_adapter", "read_adapter", "save_adapter"),
    "config": ("PathoTuneConfig", "TaskText"),
    "errors": ("AdapterError", "BackboneError", "ConfigError", "PathoTuneError", "TextEncoderError"),
    "model": ("PathoTune",),
    "tokens": ("TokenLayout",),
}


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"pathotune.{module}"), name)
    raise AttributeError(f"module 'pathotune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
