"""Published encoders that neither timm nor transformers has, in plain PyTorch: a trunk of timm and their last step.

Module names are those of the published tensors. Each function takes the arguments of encoders.toml and returns a
network from normalised images (B, 3, S, S) to features (B, D); `adapt`, where a network has it, fits the tensors of a
file to it.

Sources: CONCH, https://github.com/mahmoodlab/CONCH; CONCH v1.5, https://github.com/mahmoodlab/TRIDENT; KEEP,
https://github.com/MAGIC-AI4Med/KEEP; CTransPath, https://github.com/Xiyue-Wang/TransPath; BiomedCLIP, a model of
https://github.com/mlfoundations/open_clip.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import timm.layers
import timm.models.swin_transformer
import timm.models.vision_transformer
import torch
from torch import nn

from wsi_pipeline.registry import Registry

vit: Any = timm.models.vision_transformer
swin: Any = timm.models.swin_transformer
layers: Any = timm.layers
"""timm's modules are not typed."""

LAYOUTS: Registry[Callable[..., nn.Module]] = Registry("published layout")
_POOL_HEADS = 8
_ROUNDING = 0.1
"""What CONCH v1.5 adds to the side of its grid before it resamples positions (as DINO did)."""


def _trunk(image_px: int, patch_px: int, width: int, depth: int, heads: int, **more: Any) -> Any:
    return vit.VisionTransformer(
        img_size=image_px, patch_size=patch_px, embed_dim=width, depth=depth, num_heads=heads, num_classes=0, **more
    )


class _ConchPool(nn.Module):
    """One query attends to all tokens; keys, values and output are layers of nn.MultiheadAttention."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.attn = nn.MultiheadAttention(dim, _POOL_HEADS, kdim=width, vdim=width, batch_first=True)
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, D) of tokens (B, N, width)."""
        keys = self.ln_k(tokens)
        query = self.ln_q(self.query).expand(len(tokens), 1, -1)
        return torch.as_tensor(self.attn(query, keys, keys, need_weights=False)[0][:, 0])


class _Conch15Pool(nn.Module):
    """The same with layers of its own, without biases."""

    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.zeros(1, dim))
        self.ln_q, self.ln_k = nn.LayerNorm(dim), nn.LayerNorm(width)
        self.to_q = nn.Linear(dim, dim, bias=False)
        self.to_kv = nn.Linear(width, 2 * dim, bias=False)
        self.to_out = nn.Linear(dim, dim, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, D) of tokens (B, N, width)."""
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), 1, -1)
        keys, values = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        parts = [part.unflatten(-1, (_POOL_HEADS, -1)).transpose(1, 2) for part in (query, keys, values)]
        mixed = nn.functional.scaled_dot_product_attention(*parts)
        return torch.as_tensor(self.to_out(mixed.transpose(1, 2).flatten(2))[:, 0])


class Conch(nn.Module):
    """CONCH's image tower up to the pooled, normalised token; without the projection into the space of texts."""

    def __init__(self, dim: int, pool: nn.Module, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk, self.attn_pool_contrast, self.ln_contrast = trunk, pool, nn.LayerNorm(dim)

    def adapt(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors with position embeddings (1, 1 + grid * grid, width) resampled to this network's grid."""
        trunk: Any = self.trunk
        name, grid = "trunk.pos_embed", trunk.patch_embed.grid_size
        table = tensors.get(name)
        if table is None or table.ndim != 3 or table.shape == trunk.pos_embed.shape:
            return tensors
        table = layers.resample_abs_pos_embed(
            table, list(grid), num_prefix_tokens=1, interpolation="bilinear", antialias=False
        )
        return {**tensors, name: table}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D)."""
        trunk: Any = self.trunk
        return torch.as_tensor(self.ln_contrast(self.attn_pool_contrast(trunk.forward_features(images))))


class Conch15(Conch):
    """CONCH v1.5: position embeddings saved for `saved_px` are resampled for the images that it sees."""

    def __init__(self, dim: int, width: int, trunk: Any, saved_px: int) -> None:
        super().__init__(dim, _Conch15Pool(dim, width), trunk)
        self._saved = saved_px // trunk.patch_embed.patch_size[0]

    def adapt(self, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors with position embeddings (1, 1 + grid * grid, width) of this network's grid."""
        trunk: Any = self.trunk
        name, grid = "trunk.pos_embed", trunk.patch_embed.grid_size[0]
        table = tensors.get(name)
        if table is None or table.ndim != 3:
            return tensors
        if table.shape[1] != 1 + self._saved**2:
            table = layers.resample_abs_pos_embed(
                table, [self._saved, self._saved], num_prefix_tokens=1, interpolation="bilinear", antialias=False
            )
        first, rest = table[:, :1], table[:, 1:].unflatten(1, (self._saved, self._saved)).permute(0, 3, 1, 2)
        scale = (grid + _ROUNDING) / self._saved
        resized = nn.functional.interpolate(rest, scale_factor=(scale, scale), mode="bicubic")
        return {**tensors, name: torch.cat([first, resized.permute(0, 2, 3, 1).flatten(1, 2)], dim=1)}


class ProjectedVit(nn.Module):
    """A vision transformer whose class token goes through `head`; scaled to length 1 where `normalised`."""

    def __init__(self, trunk_name: str, trunk: nn.Module, head_name: str, head: nn.Module, normalised: bool) -> None:
        super().__init__()
        self.add_module(trunk_name, trunk)
        self.add_module(head_name, head)
        self._parts = (trunk_name, head_name)
        self._normalised = normalised

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D)."""
        trunk, head = (self.get_submodule(name) for name in self._parts)
        features = torch.as_tensor(head(trunk(images)))
        return nn.functional.normalize(features, dim=-1) if self._normalised else features


class ConvStem(nn.Module):
    """CTransPath's first layers: three convolutions in place of Swin's one; a quarter of the side comes out."""

    def __init__(self, width: int) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        before, after = 3, width // 8
        for _ in range(2):
            steps += [nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
            before, after = after, 2 * after
        self.proj = nn.Sequential(*steps, nn.Conv2d(before, width, 1))
        self.norm = nn.LayerNorm(width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(B, S / 4, S / 4, width) of images (B, 3, S, S)."""
        return torch.as_tensor(self.norm(self.proj(images).permute(0, 2, 3, 1)))


class ResnetBlock3(nn.Module):
    """The mean of the positions behind the third block of a ResNet of timm."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        for name in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3"):
            self.add_module(name, getattr(network, name))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Features (B, D)."""
        x = images
        for part in self.children():
            x = part(x)
        return x.mean(dim=(2, 3))


@LAYOUTS.register("resnet_block3")
def resnet_block3(name: str) -> ResnetBlock3:
    """What TRIDENT takes for `resnet50`."""
    return ResnetBlock3(timm.create_model(name, pretrained=False, num_classes=0))


@LAYOUTS.register("conch")
def conch(image_px: int, patch_px: int, width: int, depth: int, heads: int, dim: int) -> Conch:
    """CONCH's image tower (proj_contrast=False, normalize=False)."""
    return Conch(dim, _ConchPool(dim, width), _trunk(image_px, patch_px, width, depth, heads))


@LAYOUTS.register("conch_v1_5")
def conch_v1_5(image_px: int, patch_px: int, width: int, depth: int, heads: int, dim: int, saved_px: int) -> Conch15:
    """The patch encoder of TITAN."""
    return Conch15(dim, width, _trunk(image_px, patch_px, width, depth, heads, init_values=1.0), saved_px)


@LAYOUTS.register("keep")
def keep(image_px: int, patch_px: int, width: int, depth: int, heads: int, dim: int) -> ProjectedVit:
    """KEEP's image tower: class token through two layers, scaled to length 1."""
    head = nn.Sequential(nn.Linear(width, dim), nn.GELU(), nn.Linear(dim, dim))
    trunk = _trunk(image_px, patch_px, width, depth, heads, init_values=1e-5)
    return ProjectedVit("visual", trunk, "visual_head", head, normalised=True)


@LAYOUTS.register("projected_vit")
def projected_vit(image_px: int, patch_px: int, width: int, depth: int, heads: int, dim: int) -> ProjectedVit:
    """A vision transformer of open_clip with timm's trunk and a linear projection (BiomedCLIP)."""
    head = nn.Sequential()
    head.add_module("proj", nn.Linear(width, dim, bias=False))
    return ProjectedVit("trunk", _trunk(image_px, patch_px, width, depth, heads), "head", head, normalised=False)


@LAYOUTS.register("ctranspath")
def ctranspath(image_px: int, width: int, depths: list[int], heads: list[int], window: int) -> nn.Module:
    """A Swin transformer behind a convolutional stem; the mean of the positions of the last stage."""
    network: nn.Module = swin.SwinTransformer(
        img_size=image_px, embed_dim=width, depths=depths, num_heads=heads, window_size=window, num_classes=0
    )
    network.patch_embed = ConvStem(width)
    return network
