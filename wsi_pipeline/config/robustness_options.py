"""Options of `robustness`."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import at_least, between, option, validate


@dataclass(frozen=True)
class RobustnessOptions:
    """Which encoders are measured, on how many patches; weights enter the digest by their fingerprint."""

    model: str = option(
        "colour", "encoder, as for embed; repeat it to compare several", group="encoder", metavar="NAME", repeat=True
    )
    adapter: str | None = option(
        None, "adapter of --model pathotune: a file, or built-in; several models: pathotune=FILE", group="encoder",
        metavar="FILE", repeat=True,
    )  # fmt: skip
    weights: str | None = shared.weights("the network", "encoder", repeat=True)
    precision: str = shared.precision("encoder")
    stain_norm: str = shared.stain_norm("measure with normalised stain, estimated on each changed slide: one more row")
    stain_target: str = shared.stain_target()
    n_patches: int = option(
        256, "patches that are changed, spread evenly over the slides", group="sample", check=between(2, 20_000)
    )
    seed: int = shared.seed("the sample and the intervals", group="sample")
    device: str = shared.device()
    batch: int | None = option(None, "patches per batch (default: by device)", group="running", check=at_least(1))

    def __post_init__(self) -> None:
        validate(self)
        shared.refuse_target_alone(self.stain_norm, self.stain_target)
