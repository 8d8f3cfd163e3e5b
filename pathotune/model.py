"""The PathoTune model: a frozen vision transformer of timm with visual, textual and instance prompts in its sequence.

Sources: Lu et al. 2024, arXiv 2403.16497 (multi-modal prompts); Jia et al. 2022, arXiv 2203.12119 (deep prompts: the
prompts of each layer replace the previous layer's outputs at their positions).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from pathotune.backbone import Backbone, adapt, adapted, check_plain, count_parameters, fingerprint
from pathotune.config import PathoTuneConfig
from pathotune.errors import ConfigError
from pathotune.keyed import can_be_keyed, layer_with_correction, layer_with_keys
from pathotune.prompts import (
    InstanceVisualPrompts,
    LayerInstancePrompts,
    TaskTextualPrompts,
    TaskVisualPrompts,
    TextualPrompts,
    prompt_bound,
    start_as_tokens,
)
from pathotune.refine import LayerRefineModule
from pathotune.tokens import KINDS, TokenLayout

PARTS = ("tvp", "ttp", "ivp", "head")
"""The modules that are trained as a whole. Of the backbone, only the part that `config.backbone` selects is trained."""


@dataclass(frozen=True)
class _Begun:
    """Images on their way: the sequence that enters `layer`, what prompts are made from, and the patch grid."""

    sequence: Tensor
    images: Tensor
    patches: Tensor
    grid: tuple[int, int]
    layer: int = 0


class PathoTune(nn.Module):
    """Images (B, 3, H, W), normalised for the backbone, to features (B, F) or logits (B, classes).

    `backbone` is modified in place: frozen, or adapted as the configuration says. It stays in eval mode even after
    `.train()`. `text_states` (tasks, n, H) come from `pathotune.text.text_states` or an adapter; None computes them if
    TTP are on.
    Raises BackboneError unless the network is a plain ViT, TextEncoderError if the text encoder is missing.
    """

    def __init__(self, config: PathoTuneConfig, backbone: nn.Module, text_states: Tensor | None = None) -> None:
        super().__init__()
        self.config = config
        self.backbone: Backbone = check_plain(backbone)
        self.backbone_parameters = count_parameters(self.backbone)
        self._fingerprint = None if config.backbone == "frozen" else fingerprint(self.backbone)
        adapt(self.backbone, config)
        self.tvp = self._make_tvp()
        self.ttp: TextualPrompts | None = self._make_ttp(text_states)
        self.ivp = self._make_ivp()
        self.drop = nn.Dropout(config.prompt_dropout)
        self.head = _make_head(config, self.feature_dim) if config.classes else None
        self.layout = TokenLayout(
            self.backbone.num_reg_tokens, config.tvp_tokens, config.text_tokens, config.ivp_tokens
        )
        # New modules go to the backbone's device, except those on `meta`, which are about to be loaded from a file.
        for _, part in self._parts():
            if not any(value.is_meta for value in part.parameters()):
                part.to(self.backbone.patch_embed.proj.weight.device)

    @property
    def entry(self) -> int:
        """The layer, from 0, at which prompts enter."""
        depth = len(self.backbone.blocks)
        return min(round(self.config.entry * depth), depth - 1)

    @property
    def _layers(self) -> int:
        """Number of layers with prompts."""
        return len(self.backbone.blocks) - self.entry

    @property
    def feature_dim(self) -> int:
        """Length F of a feature vector."""
        return int(self.backbone.embed_dim) * self.config.feature_parts

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the backbone before any training (`pathotune.backbone.fingerprint`)."""
        return self._fingerprint or fingerprint(self.backbone)

    def forward(self, images: Tensor, task: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        return self.logits(images, task)

    def logits(self, images: Tensor, task: Tensor | None = None) -> Tensor:
        """Logits (B, classes), in the order of config.classes; -inf for classes outside an image's task.

        Raises ConfigError if the model has no classes.
        """
        return self.classify(self.features(images, task), task)

    def classify(self, features: Tensor, task: Tensor | None = None) -> Tensor:
        """Logits (B, classes) from features (B, F): see `logits`."""
        if self.head is None:
            raise ConfigError("this model has no classes to give logits for", todo="Name classes in its configuration.")
        logits: Tensor = self.head(features)
        own = self.config.task_classes
        if own is None or task is None:
            return logits
        return logits.masked_fill(~torch.tensor(own, device=logits.device)[task], float("-inf"))

    def features(self, images: Tensor, task: Tensor | None = None) -> Tensor:
        """The final [CLS], then the mean patch token and the mean IVP of the last layer if the configuration says so.

        Shape (B, C), (B, 2C) or (B, 3C).

        `task` (B,), int64, selects the text of each image if the model serves several tasks. With all prompts off,
        [CLS] equals the output of the plain backbone bit for bit.
        """
        return self._features(self._begin(images), task)

    def features_from(self, states: Tensor, task: Tensor | None = None) -> Tensor:
        """Features of images from what `frozen_states` gave for them."""
        if not self.layout.prompts:
            return states
        side = math.isqrt(states.shape[1] - self.layout.prefix)
        return self._features(_Begun(states, states, states, (side, side), self.entry), task)

    @torch.no_grad()
    def frozen_states(self, images: Tensor) -> Tensor | None:
        """What no training changes, to be computed once for square images that are used often; None if there is none.

        The features (B, F) of a model without prompts; else the sequence (B, prefix + N, C) below the first layer with
        prompts. None if the backbone is trained, or the refine module reads pixels or patch embeddings.
        """
        if self.config.backbone != "frozen" or isinstance(self.ivp, InstanceVisualPrompts):
            return None
        if not self.layout.prompts:
            return self.features(images)
        sequence = self._begin(images).sequence
        for block in self.backbone.blocks[: self.entry]:
            sequence = block(sequence)
        return sequence

    def _features(self, begun: _Begun, task: Tensor | None) -> Tensor:
        if self.keyed:
            sequence, last = self._keyed_tokens(begun, task)
            image = slice(self.layout.prefix, None)
        else:
            sequence, last = self._whole_tokens(begun, task)
            image = self.layout.place("image")
        found = [sequence[:, 0]]
        if self.config.feature == "cls_mean":
            found.append(sequence[:, image].mean(dim=1))
        if self.config.reads_instances:
            found.append(self.backbone.norm(last["ivp"]).mean(dim=1))
        return torch.cat(found, dim=1) if len(found) > 1 else found[0]

    def _begin(self, images: Tensor) -> _Begun:
        """The sequence that enters the first layer."""
        vit = self.backbone
        patches = vit.patch_embed(images)
        sequence: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(patches)))
        return _Begun(sequence, images, patches, self._grid(patches))

    @property
    def keyed(self) -> bool:
        """Whether all prompts are new in each layer, so that features need only their keys and values."""
        config = self.config
        deep = (
            config.tvp_tokens == 0 or config.tvp_depth == "deep",
            not config.ttp or config.ttp_depth == "deep",
            config.ivp_tokens == 0 or config.vrm_input == "layers",
        )
        return bool(self.layout.prompts) and all(deep) and can_be_keyed(self.backbone)

    def _keyed_tokens(self, begun: _Begun, task: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The final sequence without the prompts, (B, prefix + N, C), and the prompts of the last layer.

        The sequence is (B, 1, C) if no image tokens are read.
        """
        vit, sequence = self.backbone, begun.sequence
        # One row serves all images unless each has its own task: prompts made from images come later.
        rows = slice(1 if task is None else None)
        prompts = self.prompts(begun.images[rows], begun.patches[rows], task)
        for number, block in enumerate(vit.blocks[begun.layer :], begun.layer):
            if number < self.entry:
                sequence = block(sequence)
                continue
            normed = block.norm1(sequence)
            own, correction = self._layer_prompts(normed, number, prompts, begun.grid)
            alone = number == len(vit.blocks) - 1 and self.config.feature == "cls"
            kinds = [own[kind] for kind in KINDS if kind in own]
            sequence = layer_with_keys(block, sequence, normed, kinds, correction, 1 if alone else None)
        return vit.norm(sequence), own

    def tokens(self, images: Tensor, task: Tensor | None = None) -> Tensor:
        """The final sequence (B, prefix + prompts + N, C), after the backbone's last norm."""
        return self._whole_tokens(self._begin(images), task)[0]

    def _whole_tokens(self, begun: _Begun, task: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """The final sequence, and the prompts that were new in the last layer."""
        vit, layout, sequence = self.backbone, self.layout, begun.sequence
        prompts = self.prompts(begun.images, begun.patches, task)
        for number, block in enumerate(vit.blocks[begun.layer :], begun.layer):
            if number < self.entry:
                sequence = block(sequence)
                continue
            bare, kept = (sequence, {}) if number == self.entry else layout.take_out(sequence)
            own, correction = self._layer_prompts(block.norm1(bare), number, prompts, begun.grid)
            sequence = layout.insert(bare, {**kept, **own})
            if correction is None:
                sequence = block(sequence)
            else:
                none = {kind: torch.zeros_like(tokens) for kind, tokens in layout.take_out(sequence)[1].items()}
                sequence = layer_with_correction(block, sequence, layout.insert(correction, none))
        return vit.norm(sequence), own

    def _layer_prompts(
        self, normed: Tensor, number: int, prompts: Sequence[dict[str, Tensor]], grid: tuple[int, int]
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        """All prompts that are new in a layer, and the correction its refine module adds to the tokens."""
        layer = number - self.entry
        if not isinstance(self.ivp, LayerInstancePrompts):
            return prompts[layer], None
        tokens, correction = self.ivp(layer, normed, self.layout.prefix, grid)
        return {**prompts[layer], "ivp": self.drop(tokens)}, correction

    def prompts(self, images: Tensor, patches: Tensor, task: Tensor | None = None) -> list[dict[str, Tensor]]:
        """Prompts that enter at each layer from `entry` on: (B, n, C) for each kind that is on and enters there.

        Instance prompts that are made from a layer's tokens are not among them. `patches` are the backbone's patch
        embeddings, (B, N, C) or (B, h, w, C).
        """
        found = [self._task_prompts(images.shape[0], layer) for layer in range(self._layers)]
        if self.ttp is not None:
            for layer, place in enumerate(found if self.config.ttp_depth == "deep" else found[:1]):
                place["ttp"] = self.drop(self.ttp(images.shape[0], task, layer))
        if isinstance(self.ivp, InstanceVisualPrompts):
            source = images if self.config.vrm_input == "pixels" else self._as_map(patches)
            for place, tokens in zip(found, self.drop(self.ivp(source)), strict=False):
                place["ivp"] = tokens
        return found

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Prepare for training from images (B, 3, H, W) of the task; call once, before training.

        Sets the statistics of a calibrated refine module, and prompts that start as tokens.
        """
        if isinstance(self.ivp, InstanceVisualPrompts):
            pixels = self.config.vrm_input == "pixels"
            self.ivp.refine.calibrate(images if pixels else self._as_map(self.backbone.patch_embed(images)))
        if self.config.start == "tokens":
            self._start_as_tokens(images)

    def _start_as_tokens(self, images: Tensor) -> None:
        """Give prompts the values of patch tokens that enter their layer of the bare backbone."""
        sequence = self._begin(images).sequence
        for number, block in enumerate(self.backbone.blocks):
            layer = number - self.entry
            if layer >= 0:
                pool = sequence[:, self.layout.prefix :].flatten(0, 1)
                start_as_tokens(self._starts(layer), pool, self._bound(), seed=layer)
            sequence = block(sequence)

    def _starts(self, layer: int) -> list[Tensor]:
        """The learned part of the prompts of a layer, (n, C) each."""
        found = [
            part.tokens[layer]
            for part in (self.tvp, self.ttp)
            if part is not None and part.tokens is not None and layer < len(part.tokens)
        ]
        if isinstance(self.ivp, LayerInstancePrompts):
            found.append(cast(LayerRefineModule, self.ivp.refine[layer]).start)
        return found

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """Trained parameters by name: all modules in PARTS, and those of the backbone that `config.backbone` selects.

        These are exactly the parameters that require gradients.
        """
        found = {f"{name}.{key}": value for name, part in self._parts() for key, value in part.named_parameters()}
        return found | {f"backbone.{key}": value for key, value in adapted(self.backbone, self.config).items()}

    def adapter_state(self) -> dict[str, Tensor]:
        """The trained tensors and the cached text states, by name: all that the model adds to its backbone."""
        found = {f"{name}.{key}": value for name, part in self._parts() for key, value in part.state_dict().items()}
        own = adapted(self.backbone, self.config)
        return found | {f"backbone.{key}": value.detach() for key, value in own.items()}

    def train(self, mode: bool = True) -> PathoTune:
        """Set training mode for the trained modules; the backbone stays in eval mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    def trained_fraction(self) -> float:
        """Trained parameters as a fraction of the backbone's, its head not counted. The paper states 5.9 %."""
        return sum(value.numel() for value in self.trained_parameters().values()) / self.backbone_parameters

    def summary(self) -> str:
        """A table to print: tokens and trained parameters of each module, and their fraction of the backbone."""
        lines = [f"{'part':<10}{'tokens':>8}{'trained':>12}"]
        for name, part in self._parts():
            count = sum(parameter.numel() for parameter in part.parameters())
            lines.append(f"{name:<10}{getattr(self.layout, name, '-'):>8}{count:>12,}")
        own = sum(value.numel() for value in adapted(self.backbone, self.config).values())
        if own:
            lines.append(f"{self.config.backbone:<10}{'-':>8}{own:>12,}")
        total = sum(parameter.numel() for parameter in self.trained_parameters().values())
        lines.append(f"{'all':<10}{self.layout.prompts:>8}{total:>12,}")
        lines.append(
            f"backbone: {self.backbone_parameters:,} parameters; trained: {self.trained_fraction():.2%} of that"
        )
        return "\n".join(lines)

    def _parts(self) -> Iterator[tuple[str, nn.Module]]:
        for name in PARTS:
            part = getattr(self, name)
            if part is not None:
                yield name, part

    def _task_prompts(self, batch: int, layer: int) -> dict[str, Tensor]:
        """TVP that enter at a layer: none after the first if TVP are shallow, none at all if TVP are off."""
        if self.tvp is None or layer >= self.tvp.layers:
            return {}
        return {"tvp": self.drop(self.tvp(batch, layer))}

    def _as_map(self, patches: Tensor) -> Tensor:
        """Patch embeddings as (B, C, h, w)."""
        return patches.reshape(patches.shape[0], *self._grid(patches), -1).permute(0, 3, 1, 2)

    def _grid(self, patches: Tensor) -> tuple[int, int]:
        """Rows and columns of patch embeddings (B, N, C) or (B, h, w, C)."""
        rows, columns = patches.shape[1:3] if patches.ndim == 4 else self.backbone.patch_embed.grid_size
        return int(rows), int(columns)

    def _bound(self) -> float:
        return prompt_bound(int(self.backbone.patch_embed.patch_size[0]), int(self.backbone.embed_dim))

    def _make_tvp(self) -> TaskVisualPrompts | None:
        config, vit = self.config, self.backbone
        if not config.tvp_tokens:
            return None
        layers = self._layers if config.tvp_depth == "deep" else 1
        return TaskVisualPrompts(layers, config.tvp_tokens, vit.embed_dim, self._bound())

    def _make_ttp(self, states: Tensor | None) -> TaskTextualPrompts | None:
        config = self.config
        if not config.ttp:
            return None
        if states is None:
            from pathotune.text import text_states

            states = text_states(config)
        wanted = (len(config.tasks), config.ttp_tokens)
        if states.ndim != 3 or tuple(states.shape[:2]) != wanted:
            raise ConfigError(f"text_states must be of shape ({wanted[0]}, {wanted[1]}, H), got {tuple(states.shape)}")
        own = self._layers if config.start == "tokens" and config.ttp_depth == "deep" else 0
        return TaskTextualPrompts(states, self.backbone.embed_dim, self._bound(), own)

    def _make_ivp(self) -> InstanceVisualPrompts | LayerInstancePrompts | None:
        config = self.config
        if not config.ivp_tokens:
            return None
        if config.vrm_input == "layers":
            dim = self.backbone.embed_dim
            return LayerInstancePrompts(self._layers, config.ivp_tokens, dim, config.vrm_rank, self._bound())
        return InstanceVisualPrompts(
            config.vrm_input,
            config.ivp_tokens,
            self.backbone.embed_dim,
            config.vrm_width,
            self._bound(),
            layers=self._layers if config.ivp_depth == "deep" else 1,
            calibrated=config.vrm_calibrated,
        )


def _make_head(config: PathoTuneConfig, inputs: int) -> nn.Sequential:
    """Dropout, then a linear layer or an MLP with one hidden layer, with one logit per class."""
    layers: list[nn.Module] = [nn.Dropout(config.head_dropout)]
    if config.head == "mlp":
        layers += [nn.Linear(inputs, config.head_width), nn.GELU()]
    last = nn.Linear(config.head_width if config.head == "mlp" else inputs, len(config.classes))
    nn.init.normal_(last.weight, std=0.02)
    nn.init.zeros_(last.bias)
    return nn.Sequential(*layers, last)
