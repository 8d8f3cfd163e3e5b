"""What hub config files omit about well-known pathology encoders: resolution, layers, feature, licence.

Taken from each model's card on https://huggingface.co. A model that is not listed works too; it then has no stated
resolution, and its patches are not checked against one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

CLASS_AND_MEAN = "class+mean"
"""A published feature: the class token, then the mean of the patch tokens."""
_NON_COMMERCIAL = "CC-BY-NC-ND-4.0, access on request"


@dataclass(frozen=True)
class Known:
    """Facts about one hub model: mpp it was trained at (None: several), licence, arguments for timm.create_model.

    packed_swiglu  its feed-forward layers are timm's SwiGLUPacked with SiLU, which JSON cannot spell
    feature        what its authors use as the feature: CLASS_AND_MEAN, "" for the network's own output
    crop           part of the resized patch that its authors cut out, None: as its configuration says
    """

    mpp: float | None
    licence: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    packed_swiglu: bool = False
    feature: str = ""
    crop: float | None = None


_LAYER_SCALE = {"init_values": 1e-5}
_UNI2 = {
    "img_size": 224,
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2,
    "no_embed_class": True,
    "reg_tokens": 8,
    "dynamic_img_size": True,
    **_LAYER_SCALE,
}

_KNOWN = {
    "mahmoodlab/uni": Known(0.5, _NON_COMMERCIAL, {**_LAYER_SCALE, "dynamic_img_size": True}),
    "mahmoodlab/uni2-h": Known(0.5, _NON_COMMERCIAL, _UNI2, packed_swiglu=True),
    "paige-ai/virchow": Known(0.5, "Apache-2.0, access on request", packed_swiglu=True, feature=CLASS_AND_MEAN),
    "paige-ai/virchow2": Known(None, _NON_COMMERCIAL, packed_swiglu=True, feature=CLASS_AND_MEAN),
    "bioptimus/h-optimus-0": Known(0.5, "Apache-2.0, access on request", _LAYER_SCALE),
    "bioptimus/h-optimus-1": Known(0.5, _NON_COMMERCIAL, _LAYER_SCALE),
    "bioptimus/h0-mini": Known(0.5, _NON_COMMERCIAL, packed_swiglu=True),
    "prov-gigapath/prov-gigapath": Known(0.5, "Apache-2.0, access on request", crop=224 / 256),
    "wangyh/mstar": Known(0.5, _NON_COMMERCIAL, {**_LAYER_SCALE, "dynamic_img_size": True}),
    "owkin/phikon": Known(0.5, "Owkin non-commercial"),
    "owkin/phikon-v2": Known(0.5, "Owkin non-commercial"),
}


def known_facts(repo: str) -> Known | None:
    """Facts about the hub model `ORG/NAME` (with or without @revision), or None."""
    return _KNOWN.get(repo.partition("@")[0].lower())
