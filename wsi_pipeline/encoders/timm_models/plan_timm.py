"""Any timm model as an encoder: pooled features, its own preprocessing, weights from a local safetensors file,
the Hugging Face cache or the hub, in this order. A model without weights is an error, never a random network.

Source: PyTorch Image Models, R. Wightman, https://github.com/huggingface/pytorch-image-models
"""

from __future__ import annotations

import difflib
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.encoder import EncoderInfo, PublishedPlan
from wsi_pipeline.encoders.folder_weights import SAFE_FILE, folder_weights
from wsi_pipeline.encoders.timm_models.timm_input import Preparation, Wish, read_preparation
from wsi_pipeline.encoders.timm_models.timm_network import Architecture, FittedNetwork, fit, models
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.encoders.weights import CONVERT, compare, hash_tensors, misfits, read_tensors
from wsi_pipeline.encoders.zoo.facts import (
    CLASS_AND_MEAN,
    Known,
    Preset,
    known_facts,
    names_elsewhere,
    preset_of_folder,
    presets,
)
from wsi_pipeline.encoders.zoo.zoo_weights import encoder_tensors, find_weights, how_to_get
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import listed

log = logging.getLogger(__name__)

PREFIX = "hf-hub:"
BRING = ("config.json", SAFE_FILE)
_HEADS = ("head.", "head_dist.", "fc.", "classifier.", "last_linear.")
_FILTER_FAULTS = (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError, AssertionError)


class TimmPlan(PublishedPlan):
    """A timm model ready to be opened. `preset`: its facts, if it is in the zoo."""

    def __init__(
        self, name: str, architecture: Architecture, weights: Path | None, wish: Wish, preset: Preset | None = None
    ) -> None:
        preparation = read_preparation(architecture.config, name)
        if architecture.known is not None and architecture.known.crop is not None:
            preparation = replace(preparation, crop=architecture.known.crop)
        if preset is not None:
            preparation = replace(preparation, fixed=True)
        fitted = fit(architecture, preparation, wish, name)
        self._architecture, self._pooling = fitted.architecture, fitted.pooling
        self._weights = weights
        self._preset = preset
        self.info = _describe(name, fitted, preparation, whole=wish.whole_patch)

    @cached_property
    def weights_files(self) -> tuple[Path, ...]:
        """The weights: as given (a file, or a folder of one or of shards), else cached, else downloaded.

        Raises EncoderError if not available.
        """
        if self._preset is not None:
            return (find_weights(self._preset, self._weights),)
        if self._weights is not None:
            return folder_weights(self._weights) if self._weights.is_dir() else (self._weights,)
        repo = self._architecture.config.get("hf_hub_id")
        if not repo:
            raise EncoderError(
                f"timm has no weights in safetensors form for {self.info.name}",
                todo=CONVERT,
            )
        hosted = self.info.name.startswith(PREFIX)
        found = hub.fetch_if_there(hub.HubFile(repo, SAFE_FILE), bring=BRING if hosted else ())
        if found is None:
            raise EncoderError(f"{repo} has no {SAFE_FILE} on the Hugging Face hub", todo=CONVERT)
        return (found,)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors of the weights file, the architecture, the preprocessing, and the pooling.

        Later additions count only if they change features, so that other features stay up to date.
        """
        architecture, info = self._architecture, self.info
        later: dict[str, Any] = {}
        if info.resize_px is not None:
            later["resize_px"] = info.resize_px
        if self._pooling.changed:
            later["pooling"] = self._pooling.kind
        if architecture.img_size is not None:
            later["img_size"] = architecture.img_size
        return digest_of(
            model=architecture.model,
            arguments={key: str(value) for key, value in architecture.arguments.items()},
            packed_swiglu=architecture.known is not None and architecture.known.packed_swiglu,
            input_px=info.input_px,
            mean=info.mean,
            std=info.std,
            interpolation=info.interpolation,
            tensors=hash_tensors(self.weights_files),
            **later,
        )

    def check_tensors(self, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
        """Raise EncoderError, naming the first that do not fit, unless these tensors of `source` are its weights."""
        self._state(self._architecture.build("meta"), tensors, source)

    def _state(
        self, network: torch.nn.Module, tensors: Mapping[str, torch.Tensor], source: Path
    ) -> dict[str, torch.Tensor]:
        if self._preset is not None:
            tensors = encoder_tensors(self._preset, tensors)
        return fitting_state(network, tensors, source, self._architecture.config, self._preset)

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """Load the weights onto `device`; raises EncoderError when they are missing or do not fit."""
        network, pooling = self._architecture.build(), self._pooling
        tensors = self._state(network, read_tensors(self.weights_files), self.weights_files[0])
        network.load_state_dict(tensors, strict=False)
        return TorchEncoder(
            network, lambda images: pooling(network, images), self.info, self.fingerprint, device, precision
        )


def plan_timm(
    name: str,
    weights: Path | None,
    patch_px: int | None = None,
    *,
    input_px: int | None = None,
    whole_patch: bool = False,
) -> TimmPlan:
    """A plan for a timm name, `hf-hub:ORG/NAME`, or a folder with a timm config.json.

    input_px     side that the network is to see, None: its own; or patch_px, for networks that take any size
    whole_patch  crop nothing, whatever the model's configuration says

    Raises EncoderError for an unknown name, with similar names, and for a side that the network does not take.
    """
    wish = Wish(patch_px, input_px, whole_patch)
    if name.startswith(PREFIX):
        return TimmPlan(name, _hosted(name.removeprefix(PREFIX), weights), weights, wish)
    if Path(name).is_dir():
        folder = Path(name).resolve()
        return TimmPlan(folder.name, _hosted(folder.name, weights or folder, folder), weights or folder, wish)
    return TimmPlan(name, _listed(name), weights, wish)


def plan_preset(
    preset: Preset,
    weights: Path | None,
    patch_px: int | None = None,
    *,
    input_px: int | None = None,
    whole_patch: bool = False,
) -> TimmPlan:
    """A plan for an encoder of the zoo that timm builds; arguments as for `plan_timm`."""
    side = preset.input_px or 0
    config = {
        "input_size": (3, side, side),
        "crop_pct": side / (preset.resize_px or side),
        "mean": preset.mean,
        "std": preset.std,
        "interpolation": preset.interpolation,
        "architecture": preset.network,
        "hf_hub_id": preset.repo,
    }
    feature = CLASS_AND_MEAN if preset.feature == CLASS_AND_MEAN else ""
    known = Known(preset.mpp, preset.terms, packed_swiglu=preset.swiglu, feature=feature)
    architecture = Architecture(preset.network, config, preset.arguments, known)
    return TimmPlan(preset.name, architecture, weights, Wish(patch_px, input_px, whole_patch), preset)


def fitting_state(
    network: torch.nn.Module,
    given: Mapping[str, torch.Tensor],
    source: Path,
    config: Mapping[str, Any],
    preset: Preset | None = None,
) -> dict[str, torch.Tensor]:
    """Tensors of the file `source` as the state of a network, which may be on device `meta`.

    Keys of the classifier are left out with a log line; position embeddings of another image size are resampled by
    timm's own filter for the architecture. Raises EncoderError for anything else that is missing, left over or of
    another shape, naming the first few.
    """
    wanted = network.state_dict()
    tensors = dict(given)
    if not _fits(wanted, tensors, config):
        tensors = _converted(network, tensors)
    heads = [key for key in tensors if key not in wanted and _is_head(key, config)]
    unfit = misfits(wanted, {key: value for key, value in tensors.items() if key not in heads})
    if unfit:
        title = config.get("architecture") or type(network).__name__ if preset is None else preset.title
        raise EncoderError(
            f"{source} does not fit {title}: tensors {unfit}",
            todo=how_to_get(preset)
            if preset is not None
            else "Name the timm model these weights were saved from; for a published patch encoder its short name "
            "(listed by wsi-pipeline encoders), with --weights FILE.",
        )
    if heads:
        log.info("%s: left out the classifier's tensors: %s", source.name, listed(heads))
    return {key: tensors[key] for key in wanted if key in tensors}


def _fits(wanted: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> bool:
    fit = compare(wanted, given)
    return fit.good and all(_is_head(key, config) for key in fit.extra)


def _converted(network: torch.nn.Module, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors under the names and sizes of this network, by the filter timm itself uses for downloads."""
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return given
    try:
        converted = convert(dict(given), network)
    except _FILTER_FAULTS as error:
        log.debug("timm's filter does not know these tensors: %s", error)
        return given
    resampled = [key for key in given if key in converted and converted[key].shape != given[key].shape]
    if resampled:
        log.info("resampled to the model's image size: %s", listed(resampled))
    return {key: value for key, value in converted.items() if isinstance(value, torch.Tensor)}


def _is_head(key: str, config: Mapping[str, Any]) -> bool:
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return key.startswith(_HEADS + tuple(f"{name}." for name in names))


def _describe(name: str, fitted: FittedNetwork, preparation: Preparation, *, whole: bool) -> EncoderInfo:
    known = fitted.architecture.known
    licence = fitted.architecture.config.get("license")
    return EncoderInfo(
        name=name,
        family="timm",
        input_px=fitted.side,
        resize_px=None if whole or fitted.as_it_is else preparation.resize_px(fitted.side),
        mpp=known.mpp if known is not None else None,
        mean=preparation.mean,
        std=preparation.std,
        dim=fitted.dim,
        interpolation=preparation.interpolation,
        licence=known.licence if known is not None else str(licence or "not stated"),
        feature=fitted.pooling.description,
    )


def _listed(name: str) -> Architecture:
    """A model of timm's own list, such as `resnet50` or `resnet50.a1_in1k`."""
    model = name.partition(".")[0]
    if not timm.is_model(model):
        raise _unknown(name, timm.list_models())
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        raise _unknown(name, timm.list_pretrained(f"{model}.*")) from None
    if config is None:
        raise EncoderError(f"timm has no preprocessing for {name}", todo="Choose another model.")
    return Architecture(model, {**asdict(config), "architecture": model})


_ALL = (
    "pathotune, vit-mini, colour, those that wsi-pipeline encoders lists, a timm model name, hf-hub:ORG/NAME, or a "
    "Hugging Face id ORG/NAME"
)


def _unknown(name: str, known: list[str]) -> EncoderError:
    named = ["colour", "pathotune", "vit-mini", *presets()]
    near = names_elsewhere(name) or difflib.get_close_matches(name, [*named, *known], n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return EncoderError(f"unknown encoder {name!r}", todo=f"{hint}Encoders are: {_ALL}.")


def _hosted(repo: str, weights: Path | None, copy: Path | None = None) -> Architecture:
    """A model described by the config.json of a hub repository, or by the one beside local weights.

    copy   the local folder that was named; if its name is that of a published encoder, it is completed like that one
    """
    folder = None if weights is None else weights if weights.is_dir() else weights.parent
    path = None if folder is None else folder / "config.json"
    if path is None or not path.is_file():
        path = hub.fetch(hub.HubFile(repo, "config.json"), bring=BRING)
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        model = str(facts["architecture"])
    except (ValueError, KeyError, TypeError):
        raise EncoderError(
            f"{path} does not describe a timm model: it names no architecture", todo=f"Try --model {repo}"
        ) from None
    if not timm.is_model(model):
        raise EncoderError(f"{repo} needs the timm model {model}, which this timm {timm.__version__} lacks")
    known = known_facts(repo) or _known_copy(copy, model)
    own = facts.get("model_args") or {}
    if not isinstance(own, dict) or not isinstance(facts.get("pretrained_cfg", {}), dict):
        raise EncoderError(f"{path} does not describe a timm model: model_args and pretrained_cfg must be objects")
    config = _as_timm_reads(facts.get("pretrained_cfg", facts), own)
    config |= {"architecture": model, "hf_hub_id": repo}
    return Architecture(model, config, {**own, **(known.arguments if known is not None else {})}, known)


def _known_copy(folder: Path | None, model: str) -> Known | None:
    """The missing facts for the config.json of a downloaded zoo encoder, if folder name and architecture match it."""
    preset = preset_of_folder(folder) if folder is not None else None
    known = preset.known() if preset is not None and preset.network == model else None
    if preset is not None and known is not None:
        log.info("%s is read as a copy of %s", folder, preset.repo)
    return known


def _as_timm_reads(stated: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """A pretrained_cfg with timm's own values for what it leaves out, and what the network's arguments say of size.

    timm uses its own values also if the file says null; the arguments describe the network that was saved.
    """
    given = {key: value for key, value in stated.items() if value is not None}
    config = {**asdict(models.PretrainedCfg()), **given}
    flexible = arguments.get("dynamic_img_size") or arguments.get("use_naflex")
    if flexible or arguments.get("strict_img_size") is False:
        config["fixed_input_size"] = False
    channels, size = arguments.get("in_chans"), arguments.get("img_size")
    own = config["input_size"]
    if isinstance(own, list | tuple) and len(own) == 3:
        height, width = own[1:]
        if size is not None and config["fixed_input_size"]:
            height, width = size if isinstance(size, list | tuple) and len(size) == 2 else (size, size)
        config["input_size"] = [own[0] if channels is None else channels, height, width]
    return config
