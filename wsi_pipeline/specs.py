"""What each stage is asked to do, as frozen facts.

Every field is in the digest of what the stage writes: change one and the slide is redone. What changes only
how the work is run (workers, device, batch size, file format) is in `wsi_pipeline.execution` and is not.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.errors import UsageError
from wsi_pipeline.fields import at_least, between, option, validate
from wsi_pipeline.units import MAX_MPP, MIN_MPP

_MPP = between(MIN_MPP, MAX_MPP)


@dataclass(frozen=True)
class SegmentSpec:
    """How tissue is found on a slide."""

    method: str = option("hybrid", "tissue detector", group="tissue", metavar="NAME")
    mask_mpp: float = option(8.0, "resolution of the tissue mask, micrometres per pixel", group="tissue", check=_MPP)
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
    """How patches are laid over tissue."""

    patch_px: int = option(256, "patch width and height, pixels at --mpp", group="patches", check=between(16, 8192))
    mpp: float = option(0.5, "patch resolution, micrometres per pixel", group="patches", check=_MPP)
    overlap_px: int = option(0, "overlap of neighbouring patches, pixels at --mpp", group="patches", check=at_least(0))
    min_coverage: float = option(
        0.25, "keep a patch when at least this fraction of it is tissue", group="patches", check=between(0, 1)
    )
    mpp_tolerance: float = option(
        0.03,
        "take a whole-number shrink within this fraction of --mpp (0: exact)",
        group="patches",
        check=between(0, 0.2),
    )
    allow_upsample: bool = option(False, "enlarge slides coarser than --mpp instead of refusing them", group="patches")
    pixels: str = option("none", "keep pixels in the patch store", group="patches", choices=("none", "jpeg", "raw"))
    jpeg_quality: int = option(90, "quality for --pixels jpeg", group="patches", check=between(1, 100))

    def __post_init__(self) -> None:
        validate(self)
        if self.overlap_px >= self.patch_px:
            raise UsageError(f"overlap_px must be smaller than patch_px ({self.patch_px}), got {self.overlap_px}")


@dataclass(frozen=True)
class EmbedSpec:
    """How patches become features. Weights enter the digest by their fingerprint, not by their path."""

    model: str = option(
        "colour",
        "encoder: colour, a timm name, hf-hub:ORG/NAME, or a Hugging Face id ORG/NAME",
        group="encoder",
        metavar="NAME",
    )
    precision: str = option(
        "auto",
        "arithmetic: bf16 where the device is fast at it, else fp32",
        group="encoder",
        choices=("auto", "bf16", "fp32"),
    )
    dtype: str = option("float16", "how features are stored", group="encoder", choices=("float16", "float32"))

    def __post_init__(self) -> None:
        validate(self)
        if not self.model.strip():
            raise UsageError("model must name an encoder, got an empty name")


@dataclass(frozen=True)
class MilSpec:
    """How a slide-level model is trained and validated."""

    model: str = option("gated-abmil", "MIL model", group="model", metavar="NAME")
    hidden_dim: int = option(256, "width of the instance projection", group="model", check=between(1, 8192))
    attention_dim: int = option(128, "width of the attention layer", group="model", check=between(1, 8192))
    dropout: float = option(0.25, "dropout in the head", group="model", check=between(0, 0.95))
    folds: int = option(5, "outer folds; patients are never split", group="validation", check=between(2, 100))
    allow_few: bool = option(False, "train although a class has fewer patients than folds", group="validation")
    val_fraction: float = option(
        0.2,
        "part of the training patients that chooses when to stop",
        group="validation",
        check=between(0.05, 0.5),
    )
    bootstrap: int = option(
        1000, "bootstrap resamples over patients for each interval", group="validation", check=between(100, 100_000)
    )
    seed: int = option(0, "seed of splits, initial weights, order and bootstrap", group="validation", check=at_least(0))
    epochs: int = option(60, "most passes over the training bags", group="training", check=at_least(1))
    patience: int = option(
        12, "stop after this many epochs without a better validation loss", group="training", check=at_least(1)
    )
    batch_bags: int = option(8, "bags in one step", group="training", check=at_least(1))
    learning_rate: float = option(1e-3, "AdamW learning rate", group="training", check=between(1e-8, 1))
    weight_decay: float = option(1e-3, "AdamW weight decay", group="training", check=at_least(0))
    class_weights: bool = option(True, "weigh classes by the inverse of their frequency", group="training")

    def __post_init__(self) -> None:
        validate(self)
