"""Slide encoders ready to be opened: which features they take, which weights they use, how they are loaded.

As with patch encoders, facts and fingerprint are known before weights are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders.encoder import SPACING_TOLERANCE
from wsi_pipeline.encoders.slide_zoo.slide_facts import MEAN, SlidePreset, find_slide_preset
from wsi_pipeline.encoders.slide_zoo.slide_networks import PatchRows, mean_of
from wsi_pipeline.encoders.weights import hash_tensors
from wsi_pipeline.encoders.zoo.zoo_weights import find_weights, load_published, published_state
from wsi_pipeline.errors import EncoderError

Embed = Callable[[PatchRows], Tensor]
"""From the patches of one slide to its embedding, float32 (E,)."""


class MeanPlan:
    """The mean of all patch features, for any encoder."""

    name = MEAN
    fingerprint = "mean of patch features, 1"

    def takes(self, encoder: str) -> bool:
        """Whether it can pool these features: always."""
        return True

    def dim(self, in_dim: int) -> int:
        """Length of an embedding of features of length `in_dim`."""
        return in_dim

    def check(self, encoder: Mapping[str, Any], patch_px: int, mpp: float, *, places: bool = True) -> None:
        """Any patches will do."""

    def open(self, device: str = "cpu") -> Embed:
        """The function that embeds a slide."""
        return lambda rows: mean_of(rows.blocks)


class SlideLayoutPlan:
    """A slide encoder of slide_encoders.toml, with weights of its authors."""

    def __init__(self, preset: SlidePreset, weights: Path | None = None) -> None:
        self.preset = preset
        self.name = preset.name
        self._weights = weights

    def takes(self, encoder: str) -> bool:
        """Whether these are features of the patch encoder it was trained on."""
        return self.preset.takes(encoder)

    def dim(self, in_dim: int) -> int:
        """Length of an embedding."""
        return self.preset.dim or in_dim

    def check(self, encoder: Mapping[str, Any], patch_px: int, mpp: float, *, places: bool = True) -> None:
        """Raise EncoderError unless it was trained on features like these.

        encoder        identity of the patch encoder: name and dim
        patch_px, mpp  side and resolution of the patches; 0: not known, not checked
        places         whether the coordinates of the patches are known
        """
        preset, needed = self.preset, " or ".join(self.preset.encoders)
        if not preset.takes(str(encoder["name"])):
            raise EncoderError(
                f"{preset.title} takes features of {needed}, these are of {encoder['name']}",
                todo=f"Embed the patches first: wsi-pipeline embed --model {preset.encoders[0]}",
            )
        if int(encoder["dim"]) != preset.in_dim:
            raise EncoderError(f"{preset.title} takes features of {preset.in_dim} values, these have {encoder['dim']}")
        if preset.places and not places:
            raise EncoderError(f"{preset.title} needs the coordinates of the patches, and these have none")
        self._check_patches(patch_px, mpp)

    def _check_patches(self, patch_px: int, mpp: float) -> None:
        preset = self.preset
        if preset.mpp and preset.patch_px:
            sides = ((mpp, preset.mpp), (patch_px * mpp, preset.patch_px * preset.mpp))
            if any(found and abs(found / wanted - 1) > SPACING_TOLERANCE for found, wanted in sides):
                raise EncoderError(
                    f"{preset.title} was trained on patches of {preset.patch_px} px at {preset.mpp:g} mpp, these have "
                    f"{patch_px} px at {mpp:.4g} mpp",
                    todo=f"Tile again in a run of their own: wsi-pipeline tile slides.csv --patch-px {preset.patch_px} "
                    f"--mpp {preset.mpp:g} --run NEW",
                )

    @cached_property
    def weights_file(self) -> Path:
        """The weights file. Raises EncoderError if there is none, with how to get it."""
        return find_weights(self.preset, self._weights)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors of the weights file and the layout."""
        arguments = {key: str(value) for key, value in self.preset.arguments.items()}
        return digest_of(network=self.preset.network, arguments=arguments, tensors=hash_tensors([self.weights_file]))

    def build(self, device: str = "cpu") -> Any:
        """The network without weights; on device `meta` it costs no memory."""
        from wsi_pipeline.encoders.slide_zoo import grid_transformer, longnet, perceiver  # noqa: F401 (fill the registry)
        from wsi_pipeline.encoders.slide_zoo.slide_networks import SLIDE_NETWORKS

        with torch.device(device):
            return SLIDE_NETWORKS.get(self.preset.network)(**self.preset.arguments).eval()

    def check_tensors(self, tensors: Mapping[str, Tensor], source: Path) -> None:
        """Raise EncoderError, naming the first that do not fit, unless these tensors of `source` are its weights."""
        published_state(self.build("meta"), self.preset, tensors, source)

    def open(self, device: str = "cpu") -> Embed:
        """Load the weights onto `device`; raises EncoderError when they are missing or do not fit."""
        network = self.build()
        load_published(network, self.preset, self.weights_file)
        network.to(device)

        def embed(rows: PatchRows) -> Tensor:
            with torch.inference_mode():
                found: Tensor = network.embed(rows)
            return found

        return embed


def plan_slide(name: str, weights: Path | None = None) -> MeanPlan | SlideLayoutPlan:
    """The slide encoder called `name`. Raises EncoderError if it is unknown or cannot be built here."""
    if name == MEAN:
        if weights is not None:
            raise EncoderError("the mean of patch features has no weights", todo="Leave out --weights.")
        return MeanPlan()
    return SlideLayoutPlan(find_slide_preset(name), weights)
