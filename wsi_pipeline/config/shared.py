"""Options that several commands share, each defined once: every function makes a new field for a spec."""

from __future__ import annotations

from typing import Any

from wsi_pipeline.config.fields import at_least, between, option
from wsi_pipeline.config.units import MAX_MPP, MIN_MPP
from wsi_pipeline.errors import UsageError

PLAUSIBLE_MPP = between(MIN_MPP, MAX_MPP)
ZERO_OR_SIDE = ("0 or between 16 and 4096", lambda value: value == 0 or 16 <= value <= 4096)


def device() -> Any:
    """Device of a network."""
    return option("auto", "device: auto, cpu, cuda, cuda:N or mps", group="running", metavar="NAME")


def precision(group: str) -> Any:
    """Arithmetic of a network."""
    text = "arithmetic (auto: bf16 where the device is fast at it, else fp32)"
    return option("auto", text, group=group, choices=("auto", "bf16", "fp32"), rare=True)


def store() -> Any:
    """File format of the stores that a stage writes."""
    return option("hdf5", "file format of the stores", group="running", choices=("hdf5", "zarr"))


def default_mpp(group: str, *, rare: bool = False) -> Any:
    """Resolution of slides that do not state one."""
    text = "micrometres per pixel of slides where neither the file nor the CSV states it"
    return option(None, text, group=group, check=PLAUSIBLE_MPP, rare=rare)


def weights(whose: str, group: str, repeat: bool = False, rare: bool = False) -> Any:
    """Local weights of a network, instead of the cache and the hub."""
    several = "; several models: MODEL=FILE" if repeat else ""
    text = f"local weights of {whose}: a .safetensors file or a Hugging Face folder{several}"
    return option(None, text, group=group, metavar="FILE", repeat=repeat, rare=rare)


def patch_px(what: str, group: str, most: int) -> Any:
    """Width and height of patches."""
    return option(256, f"{what} width and height, pixels at --mpp", group=group, check=between(16, most))


def mpp(group: str) -> Any:
    """Resolution of patches."""
    return option(0.5, "patch resolution, micrometres per pixel", group=group, check=PLAUSIBLE_MPP)


def overlap_px(group: str) -> Any:
    """Overlap of patches."""
    return option(0, "overlap of neighbouring patches, pixels at --mpp", group=group, check=at_least(0), rare=True)


def mpp_tolerance(group: str) -> Any:
    """Tolerance between the delivered and the requested resolution."""
    text = "use an integer downsampling factor if within this fraction of --mpp (0: exact)"
    return option(0.03, text, group=group, check=between(0, 0.2), rare=True)


def allow_upsample(group: str) -> Any:
    """Treatment of slides coarser than the requested resolution."""
    return option(False, "enlarge slides coarser than --mpp instead of refusing them", group=group, rare=True)


def bootstrap(resampled: str, default: int = 1000, group: str = "validation") -> Any:
    """Resamples behind each interval."""
    text = f"bootstrap resamples of {resampled} for each interval"
    return option(default, text, group=group, check=between(100, 100_000), rare=True)


def seed(of: str, group: str = "validation") -> Any:
    """Seed of the random generators."""
    return option(0, f"random seed of {of}", group=group, check=at_least(0))


def epochs(default: int, examples: str) -> Any:
    """Maximum number of epochs."""
    return option(default, f"maximum passes over the training {examples}", group="training", check=at_least(1))


def patience(default: int, measure: str) -> Any:
    """Early stopping."""
    text = f"stop after this many epochs without a better {measure}"
    return option(default, text, group="training", check=at_least(1), rare=True)


def class_weights() -> Any:
    """Weighting of the loss."""
    return option(True, "weight classes by their inverse frequency", group="training", rare=True)


def label_smoothing() -> Any:
    """Smoothing of the targets."""
    text = "fraction of each label spread over all classes"
    return option(0.0, text, group="training", check=between(0, 0.9), rare=True)


def stain_norm(text: str = "stain normalisation, estimated once per slide from its tissue") -> Any:
    """Method of stain normalisation."""
    return option("none", text, group="stain", choices=("none", "reinhard", "macenko", "vahadane"))


def stain_target() -> Any:
    """Whose stain every slide is given."""
    text = "stain to give: auto (the most typical slide), a slide's id, a picture of tissue, or a recorded target.json"
    return option("auto", text, group="stain", metavar="FILE")


def refuse_target_alone(stain_norm: str, stain_target: str) -> None:
    """Raise UsageError for a stain target without a method of normalisation."""
    if stain_norm == "none" and stain_target != "auto":
        raise UsageError("stain_target needs stain_norm", todo="Add --stain-norm reinhard, macenko or vahadane")
