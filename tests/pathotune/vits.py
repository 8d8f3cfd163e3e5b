"""Small plain ViTs of timm with random weights, and text states, for the tests of this folder."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from pathotune.backbone import BackboneCard
from pathotune.config import PathoTuneConfig

SIDE, PATCH, DIM, LAYERS, HIDDEN = 32, 8, 24, 3, 20
CARD = BackboneCard("tests/small", SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OFF = {"tvp_tokens": 0, "ttp": False, "ivp_tokens": 0}
KINDS = ("plain", "registers", "dynamic", "clip")


def small_vit(kind: str = "plain", seed: int = 0, **options: object) -> VisionTransformer:
    """A ViT of 3 layers, 24 wide, for images of 32 px in patches of 8; `kind` is one of KINDS."""
    kinds: dict[str, dict[str, object]] = {
        "plain": {},
        # As in DINOv2 with registers: these and the class token get no position embedding, and layers are scaled.
        "registers": {"reg_tokens": 4, "no_embed_class": True, "init_values": 0.1},
        "dynamic": {"dynamic_img_size": True},
        "clip": {"pre_norm": True},
    }
    arguments = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": DIM, "depth": LAYERS, "num_heads": 2}
    torch.manual_seed(seed)
    vit = VisionTransformer(**{**arguments, "num_classes": 0, **kinds[kind], **options})  # type: ignore[arg-type]
    for parameter in vit.parameters():
        nn.init.normal_(parameter, std=0.2)
    return vit.eval()


def images(count: int = 3, side: int = SIDE, seed: int = 1) -> Tensor:
    """Normalised images (count, 3, side, side)."""
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def states(config: PathoTuneConfig, seed: int = 2) -> Tensor:
    """Text states of the shape the configuration asks for, HIDDEN wide."""
    shape = (len(config.tasks), config.ttp_tokens, HIDDEN)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
