"""Settings of `train-mil --tune-prompts`: prompts of the encoder, tuned through the slide-level model."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import at_least, between, option, validate


@dataclass(frozen=True)
class PromptSpec:
    """How prompts are tuned from slide labels, inside each fold. All but `weights` enter the digest."""

    tune_prompts: bool = option(
        False, "tune visual prompts of the encoder from the slide labels alone, in each fold", group="model"
    )
    prompt_epochs: int = option(8, "epochs of that tuning", group="prompts", check=at_least(1), rare=True)
    prompt_top: int = option(
        24, "patches of each slide with most attention that get gradients", group="prompts", check=at_least(1),
        rare=True,
    )  # fmt: skip
    prompt_random: int = option(
        8, "further patches of each slide that get gradients, resampled in each epoch", group="prompts",
        check=at_least(0), rare=True,
    )  # fmt: skip
    prompt_rate: float = option(
        3e-3, "peak learning rate of the prompts", group="prompts", check=between(1e-8, 1), rare=True
    )
    weights: str | None = shared.weights("the encoder whose prompts are tuned", "prompts", rare=True)

    def __post_init__(self) -> None:
        validate(self)
