"""The settings of `segment` and `tile`: where tissue is, and which patches are laid over it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import at_least, between, option, validate
from wsi_pipeline.config.registries import TISSUE_METHODS
from wsi_pipeline.config.shared import PLAUSIBLE_MPP
from wsi_pipeline.errors import UsageError


@dataclass(frozen=True)
class SegmentSpec:
    """How tissue is found on a slide."""

    method: str = option("hybrid", "tissue detector", group="tissue", choices=TISSUE_METHODS)
    mask_mpp: float = option(
        8.0, "resolution of the tissue mask, micrometres per pixel", group="tissue", check=PLAUSIBLE_MPP
    )
    min_tissue_um2: float = option(
        16_000.0, "drop tissue fragments smaller than this, square micrometres", group="tissue", check=at_least(0)
    )
    max_hole_um2: float = option(
        50_000.0, "fill holes smaller than this, square micrometres", group="tissue", check=at_least(0)
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TileSpec:
    """How patches are laid over the tissue."""

    patch_px: int = shared.patch_px("patch", "patches", most=8192)
    mpp: float = shared.mpp("patches")
    overlap_px: int = shared.overlap_px("patches")
    min_coverage: float = option(
        0.25, "keep patches of which at least this fraction is tissue", group="patches", check=between(0, 1)
    )
    mpp_tolerance: float = shared.mpp_tolerance("patches")
    allow_upsample: bool = shared.allow_upsample("patches")
    pixels: str = option("none", "pixels to keep in the patch store", group="patches", choices=("none", "jpeg", "raw"))
    jpeg_quality: int = option(90, "JPEG quality for --pixels jpeg", group="patches", check=between(1, 100), rare=True)
    quality: str = option(
        "sample", "quality: focus on a sample of the patches, on all (reads all pixels), or none", group="quality",
        choices=("sample", "all", "none"), rare=True,
    )  # fmt: skip
    drop_artefacts: bool = option(
        False, "leave out patches that are out of focus, folded, or under pen, a bubble or a glass edge",
        group="patches",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        if self.overlap_px >= self.patch_px:
            raise UsageError(f"overlap_px must be smaller than patch_px ({self.patch_px}), got {self.overlap_px}")
        if self.drop_artefacts and self.quality == "none":
            raise UsageError("drop_artefacts needs the quality of all patches, but quality is none")

    @property
    def quality_of(self) -> str:
        """Whose pixels are measured: sample, all or none; --drop-artefacts has to measure all."""
        return "all" if self.drop_artefacts else self.quality

    def facts(self) -> dict[str, Any]:
        """The fields for digests and stores: what decides which patches there are, and their pixels.

        Measuring quality changes neither; so it is left out unless artefacts are dropped, and older stores stay valid.
        """
        fields = asdict(self)
        return {key: value for key, value in fields.items() if key != "quality" and (value or key != "drop_artefacts")}
