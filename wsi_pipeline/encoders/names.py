"""From the name a user writes to an encoder. Imports no framework until a name needs one.

colour            stain and texture statistics, built in, no weights
pathotune         a backbone with a tuned adapter (pathotune:NAME where a run has several)
vit-mini          the built-in backbone of the built-in adapter, untuned
uni, virchow2     a published patch encoder by name, built from its facts (zoo/encoders.toml)
resnet50          any timm model, ViT or CNN (a tag chooses the weights: vit_small_patch14_dinov2.lvd142m)
hf-hub:ORG/NAME   a timm model on the Hugging Face hub
ORG/NAME          a Hugging Face vision model (transformers)
./folder          a local folder of either
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import cast

from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.encoders.encoder import Encoder, EncoderInfo, EncoderPlan, PublishedPlan
from wsi_pipeline.encoders.zoo.facts import find_preset, is_preset
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.registry import Registry


@dataclass(frozen=True)
class Asked:
    """A request for an encoder: see `plan_encoder`."""

    name: str
    weights: Path | None = None
    patch_px: int | None = None
    adapter: Path | None = None
    input_px: int | None = None
    whole_patch: bool = False


Planner = Callable[[Asked], EncoderPlan]
"""From a request to a plan; raises EncoderError for a name the family does not have."""

ENCODERS: Registry[Planner] = Registry("encoder family")
HUB_PREFIX = "hf-hub:"
TUNED = "pathotune"
"""The encoder with an adapter; `pathotune:NAME` names the tuning it comes from."""


@ENCODERS.register("colour")
def _plan_colour(asked: Asked) -> EncoderPlan:
    from wsi_pipeline.encoders.colour import ColourPlan

    if asked.weights is not None:
        raise EncoderError(f"encoder colour has no weights, got --weights {asked.weights}", todo="Leave --weights out.")
    return ColourPlan()


def plan_published(name: str) -> PublishedPlan:
    """The published encoder called `name`. Raises EncoderError if there is none, or if it cannot be built here."""
    return cast("PublishedPlan", _plan_zoo(Asked(name)))


@ENCODERS.register("zoo")
def _plan_zoo(asked: Asked) -> PublishedPlan:
    preset = find_preset(asked.name)
    if not preset.built:
        raise EncoderError(
            f"encoder {preset.name} ({preset.title}) cannot be built here: {preset.reason}",
            todo="List the others with: wsi-pipeline encoders",
        )
    if preset.library == "timm":
        from wsi_pipeline.encoders.timm_models.plan_timm import plan_preset as plan_timm_preset

        whole = asked.whole_patch
        return plan_timm_preset(preset, asked.weights, asked.patch_px, input_px=asked.input_px, whole_patch=whole)
    if asked.input_px is not None:
        raise _only_timm(asked.name)
    if preset.library == "transformers":
        from wsi_pipeline.encoders.hf_models.plan_hf import plan_preset as plan_huggingface_preset

        return plan_huggingface_preset(preset, asked.weights, whole_patch=asked.whole_patch)
    from wsi_pipeline.encoders.zoo.plan_layout import LayoutPlan

    return LayoutPlan(preset, asked.weights, whole_patch=asked.whole_patch)


@ENCODERS.register("timm")
def _plan_timm(asked: Asked) -> EncoderPlan:
    from wsi_pipeline.encoders.timm_models.plan_timm import plan_timm

    return plan_timm(asked.name, asked.weights, asked.patch_px, input_px=asked.input_px, whole_patch=asked.whole_patch)


@ENCODERS.register("huggingface")
def _plan_huggingface(asked: Asked) -> EncoderPlan:
    from wsi_pipeline.encoders.hf_models.plan_hf import plan_huggingface

    return plan_huggingface(asked.name, asked.weights, asked.patch_px, whole_patch=asked.whole_patch)


@ENCODERS.register(TUNED)
def _plan_pathotune(asked: Asked) -> EncoderPlan:
    from wsi_pipeline.encoders.pathotune import PathoTunePlan

    if asked.name == f"{TUNED}:":
        raise EncoderError("encoder pathotune: needs a name after the colon", todo="Write pathotune:NAME or pathotune.")
    if asked.adapter is None and asked.name != TUNED:
        raise EncoderError(
            f"encoder {asked.name} needs its adapter file",
            todo="Name it with --adapter FILE (adapter=... in Python).",
        )
    return PathoTunePlan(asked.name, asked.adapter, asked.weights)


@ENCODERS.register("vit-mini")
def _plan_vit_mini(asked: Asked) -> EncoderPlan:
    from wsi_pipeline.encoders.pathotune import VitMiniPlan

    return VitMiniPlan(asked.weights)


def family_of(name: str) -> str:
    """The registered family that a name belongs to, judged by its form alone.

    A family that is itself a name (colour, pathotune, vit-mini) wins; `hf-hub:` and bare names are timm's; a slash or
    an existing folder means Hugging Face, unless the folder's config.json is of timm.
    """
    if is_tuned(name):
        return TUNED
    if name in ENCODERS and name not in {"timm", "huggingface", "zoo"}:
        return name
    if name.startswith(HUB_PREFIX):
        return "timm"
    if Path(name).is_dir():
        return "timm" if _is_timm_folder(Path(name)) else "huggingface"
    if is_preset(name):
        return "zoo"
    return "huggingface" if "/" in name or "\\" in name else "timm"


def _only_timm(name: str) -> EncoderError:
    return EncoderError(f"--input-px applies only to timm models, not to {name}", todo="Leave --input-px out.")


def _is_timm_folder(folder: Path) -> bool:
    """Whether a folder's config.json describes a timm model: it names an architecture and no model of transformers."""
    try:
        facts = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(facts, dict) and isinstance(facts.get("architecture"), str) and "model_type" not in facts


def is_tuned(name: str) -> bool:
    """True for `pathotune` and `pathotune:NAME`: encoders that need an adapter."""
    return name == TUNED or name.startswith(f"{TUNED}:")


def plan_encoder(
    name: str,
    *,
    weights: str | PathLike[str] | None = None,
    patch_px: int | None = None,
    adapter: str | PathLike[str] | None = None,
    input_px: int | None = None,
    whole_patch: bool = False,
) -> EncoderPlan:
    """The encoder called `name`, not yet loaded: `info` and, if its weights are available, `fingerprint`.

    weights      local safetensors file, or a folder with model.safetensors and config.json
    patch_px     side of the patches; networks that take any size (most CNNs) then use them unresized
    adapter      adapter file of `pathotune` and `pathotune:NAME`; None: the built-in one, for `pathotune`
    input_px     side of the images that a timm network is to see; None: its own
    whole_patch  show a network the whole patch if its own preprocessing would crop the edges

    Raises EncoderError for an unknown name, with similar names.
    """
    if not name.strip() or name != name.strip():
        raise EncoderError(f"an encoder name must not be empty or have spaces around it, got {name!r}")
    weights, adapter = (None if given is None else Path(given) for given in (weights, adapter))
    if weights is not None and not weights.exists():
        raise EncoderError(f"--weights {weights} does not exist")
    if patch_px is not None and patch_px < 1:
        raise EncoderError(f"patch_px must be >= 1, got {patch_px}")
    family = family_of(name)
    if input_px is not None and family not in ("timm", "zoo"):
        raise _only_timm(name)
    if whole_patch and family not in ("timm", "huggingface", "zoo"):
        raise EncoderError(
            f"--whole-patch applies only to timm and transformers models, not to {name}",
            todo="Leave --whole-patch out.",
        )
    if input_px is not None and input_px < 8:
        raise EncoderError(f"input_px must be >= 8, got {input_px}")
    if adapter is not None and not is_tuned(name):
        raise EncoderError(
            f"encoder {name} takes no adapter, got --adapter {adapter}", todo=f"Leave it out, or use --model {TUNED}."
        )
    return ENCODERS.get(family)(Asked(name, weights, patch_px, adapter, input_px, whole_patch))


def open_encoder(
    name: str,
    *,
    weights: str | PathLike[str] | None = None,
    device: str = "auto",
    precision: str = "auto",
    patch_px: int | None = TileSpec.patch_px,
    adapter: str | PathLike[str] | None = None,
    input_px: int | None = None,
    whole_patch: bool = False,
) -> Encoder:
    """The encoder called `name`, loaded and ready on `device`. See `plan_encoder` for the arguments.

    Raises EncoderError when the name is unknown or the weights are missing or do not fit, UsageError for a
    device that is not there.
    """
    plan = plan_encoder(
        name, weights=weights, patch_px=patch_px, adapter=adapter, input_px=input_px, whole_patch=whole_patch
    )
    encoder = plan.open(device, precision)
    encoder.patch_px = patch_px
    return encoder


def encoder_info(name: str, *, weights: str | PathLike[str] | None = None, patch_px: int | None = None) -> EncoderInfo:
    """Facts about an encoder without its weights. A hub model's config.json is downloaded if it is not cached."""
    return plan_encoder(name, weights=weights, patch_px=patch_px).info
