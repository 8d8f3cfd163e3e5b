"""Options of published networks for tissue and artefacts."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import option, validate

ARTEFACT_MPPS = (1.0, 1.5, 2.0)
"""Resolutions of GrandQC's three artefact networks, micrometres per pixel."""


@dataclass(frozen=True)
class TissueNetworks:
    """Weights of the networks that find tissue and artefacts. They enter the digest by their bytes, not their path."""

    weights: str | None = option(
        None, "weights of --method grandqc or hest: .safetensors, .onnx, or the published checkpoint", group="tissue",
        metavar="FILE",
    )  # fmt: skip
    artefact_weights: str | None = option(
        None, "weights of GrandQC's artefact network: what it finds is taken out of the tissue", group="tissue",
        metavar="FILE", rare=True,
    )  # fmt: skip
    artefact_mpp: float = option(
        1.5, "resolution that network was trained at, micrometres per pixel: 1, 1.5 or 2", group="tissue",
        check=("1, 1.5 or 2", lambda value: value in ARTEFACT_MPPS), rare=True,
    )  # fmt: skip
    device: str = shared.device()

    def __post_init__(self) -> None:
        validate(self)
