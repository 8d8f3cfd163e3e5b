"""Encoders of the zoo that are built from their published layout; timm's and transformers' plans build the others.

Network, preprocessing and feature are those of encoders.toml. Weights come as for all encoders (--weights, the Hugging
Face cache, the hub), and must fit completely.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders.encoder import EncoderInfo, PublishedPlan, Triple
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.encoders.weights import hash_tensors
from wsi_pipeline.encoders.zoo.facts import Preset
from wsi_pipeline.encoders.zoo.zoo_weights import find_weights, load_published, published_state
from wsi_pipeline.errors import EncoderError


class LayoutPlan(PublishedPlan):
    """An encoder of layouts.py, ready to be opened."""

    def __init__(self, preset: Preset, weights: Path | None, *, whole_patch: bool = False) -> None:
        self.preset = preset
        self._weights = weights
        if preset.input_px is None or preset.dim is None:
            raise EncoderError(f"encoders.toml: {preset.name} states no input size or no length of its features")
        self.info = EncoderInfo(
            name=preset.name,
            family="layout",
            input_px=preset.input_px,
            mpp=preset.mpp,
            mean=_triple(preset.mean),
            std=_triple(preset.std),
            dim=preset.dim,
            interpolation=preset.interpolation,
            licence=preset.terms,
            resize_px=None if whole_patch else preset.resize_px,
            feature=preset.feature,
        )

    @cached_property
    def weights_file(self) -> Path:
        """The weights file. Raises EncoderError if there is none, with how to get it."""
        return find_weights(self.preset, self._weights)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors of the weights file, the layout and the preprocessing."""
        info = self.info
        return digest_of(
            layout=self.preset.network,
            arguments={key: str(value) for key, value in self.preset.arguments.items()},
            input_px=info.input_px,
            resize_px=info.resize_px,
            mean=info.mean,
            std=info.std,
            interpolation=info.interpolation,
            tensors=hash_tensors([self.weights_file]),
        )

    def build(self, device: str = "cpu") -> torch.nn.Module:
        """The network without weights; on device `meta` it costs no memory."""
        from wsi_pipeline.encoders.zoo import beit3, dinov3  # noqa: F401 (fill the registry)
        from wsi_pipeline.encoders.zoo.layouts import LAYOUTS

        with torch.device(device):
            return LAYOUTS.get(self.preset.network)(**self.preset.arguments).eval()

    def check_tensors(self, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
        """Raise EncoderError, naming the first that do not fit, unless these tensors of `source` are its weights."""
        published_state(self.build("meta"), self.preset, tensors, source)

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """Load the weights onto `device`; raises EncoderError when they are missing or do not fit."""
        network: Any = self.build()
        load_published(network, self.preset, self.weights_file)
        return TorchEncoder(network, network, self.info, self.fingerprint, device, precision)


def _triple(values: tuple[float, ...]) -> Triple:
    first, second, third = values
    return first, second, third
