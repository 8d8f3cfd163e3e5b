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
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import timm.layers
import torch

from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.base import EncoderInfo, EncoderPlan, Triple
from wsi_pipeline.encoders.pathology import Known, known_facts
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.encoders.weights import CONVERT, compare, first_few, hash_tensors, read_tensors
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.fields import digest_of

log = logging.getLogger(__name__)

layers: Any = timm.layers
"""timm names its layers in the package without exporting them in the sense of the type checker."""
PREFIX = "hf-hub:"
SAFE_FILE = "model.safetensors"
BRING = ("config.json", SAFE_FILE)
_HEADS = ("head.", "head_dist.", "fc.", "classifier.", "last_linear.")
_FILTER_FAULTS = (KeyError, ValueError, RuntimeError, AttributeError, IndexError, TypeError, AssertionError)


@dataclass(frozen=True)
class Architecture:
    """Which network to build and how its images are prepared.

    model       timm's name of the architecture, without tag
    config      timm's pretrained_cfg: input_size, mean, std, interpolation, classifier, hf_hub_id, license
    arguments   keyword arguments for timm.create_model
    known       what the config leaves out, for a known pathology model
    """

    model: str
    config: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    known: Known | None = None

    def build(self, device: str = "cpu") -> torch.nn.Module:
        """The network without a classifier; on device `meta` it costs no memory and no time."""
        arguments = {**self.arguments, "num_classes": 0}
        if self.known is not None and self.known.packed_swiglu:
            arguments |= {"mlp_layer": layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
        with torch.device(device):
            network = timm.create_model(self.model, pretrained=False, **arguments)
        if not isinstance(network, torch.nn.Module):
            raise EncoderError(f"timm model {self.model} is not a network")
        return network.eval()


class TimmPlan(EncoderPlan):
    """A timm model that could be opened."""

    def __init__(self, name: str, architecture: Architecture, weights: Path | None, patch_px: int | None) -> None:
        self._architecture = architecture
        self._weights = weights
        self.info = _describe(name, architecture, patch_px)

    @cached_property
    def weights_file(self) -> Path:
        """The file of the weights: as given, else cached, else fetched. Raises EncoderError when not to be had."""
        if self._weights is not None:
            return self._weights / SAFE_FILE if self._weights.is_dir() else self._weights
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
        return found

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors of the weights file, the architecture and the preprocessing."""
        return digest_of(
            model=self._architecture.model,
            arguments={key: str(value) for key, value in self._architecture.arguments.items()},
            packed_swiglu=self._architecture.known is not None and self._architecture.known.packed_swiglu,
            input_px=self.info.input_px,
            mean=self.info.mean,
            std=self.info.std,
            interpolation=self.info.interpolation,
            tensors=hash_tensors([self.weights_file]),
        )

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """Load the weights onto `device`; raises EncoderError when they are missing or do not fit."""
        network = self._architecture.build()
        load_into(network, read_tensors([self.weights_file]), self.weights_file, self._architecture.config)
        return TorchEncoder(
            network, lambda images: pool(network, images), self.info, self.fingerprint, device, precision
        )


def plan_timm(name: str, weights: Path | None, patch_px: int | None) -> TimmPlan:
    """A plan for a timm name or `hf-hub:ORG/NAME`; raises EncoderError with the nearest names on a miss."""
    hosted = name.startswith(PREFIX)
    architecture = _hosted(name.removeprefix(PREFIX), weights) if hosted else _listed(name)
    return TimmPlan(name, architecture, weights, patch_px)


def pool(network: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Features (B, D) of normalised images: the network's own pooling, else the class token, else the mean."""
    output: torch.Tensor = network(images)
    if output.ndim == 3:
        prefix = int(getattr(network, "num_prefix_tokens", 0))
        return output[:, 0] if prefix else output.mean(dim=1)
    return output.mean(dim=(2, 3)) if output.ndim == 4 else output


def load_into(
    network: torch.nn.Module, given: Mapping[str, torch.Tensor], source: Path, config: Mapping[str, Any]
) -> None:
    """Put tensors into a network, all of them or none.

    Keys of the classifier are left out with a log line; position embeddings of another image size are resampled by
    timm's own filter for the architecture. Raises EncoderError for anything else that is missing, left over or of
    another shape, naming the first few.
    """
    wanted = network.state_dict()
    tensors = dict(given)
    if not _fits(wanted, tensors, config):
        tensors = _converted(network, tensors)
    fit = compare(wanted, tensors)
    extra = [key for key in fit.extra if not _is_head(key, config)]
    faults = [("missing", list(fit.missing)), ("of another shape", list(fit.reshaped)), ("not in the model", extra)]
    told = [f"{len(names)} {kind} ({first_few(names)})" for kind, names in faults if names]
    if told:
        raise EncoderError(
            f"{source} does not fit {config.get('architecture') or type(network).__name__}: tensors {'; '.join(told)}",
            todo="Name the timm model these weights were saved from.",
        )
    if fit.extra:
        log.info("%s: left out the classifier's tensors: %s", source.name, first_few(fit.extra))
    network.load_state_dict({key: tensors[key] for key in wanted if key in tensors}, strict=False)


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
        log.info("resampled to the model's image size: %s", first_few(resampled))
    return {key: value for key, value in converted.items() if isinstance(value, torch.Tensor)}


def _is_head(key: str, config: Mapping[str, Any]) -> bool:
    classifier = config.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return key.startswith(_HEADS + tuple(f"{name}." for name in names))


def _describe(name: str, architecture: Architecture, patch_px: int | None) -> EncoderInfo:
    config, known = architecture.config, architecture.known
    side = int(tuple(config.get("input_size") or (3, 224, 224))[-1])
    if patch_px is not None and not config.get("fixed_input_size", False):
        side = patch_px
    interpolation = config.get("interpolation") or "bicubic"
    return EncoderInfo(
        name=name,
        family="timm",
        input_px=side,
        mpp=known.mpp if known is not None else None,
        mean=_triple(config.get("mean"), name),
        std=_triple(config.get("std"), name),
        dim=_measure_dim(name, architecture, side),
        interpolation="bilinear" if interpolation == "bilinear" else "bicubic",
        licence=known.licence if known is not None else str(config.get("license") or "not stated"),
    )


def _measure_dim(name: str, architecture: Architecture, side: int) -> int:
    """Length of the features, found by a dry run without data."""
    try:
        network = architecture.build("meta")
        return int(pool(network, torch.empty(1, 3, side, side, device="meta")).shape[1])
    except (NotImplementedError, RuntimeError) as error:
        log.debug("%s cannot be dry-run (%s): building it", name, error)
    try:
        with torch.inference_mode():
            return int(pool(architecture.build(), torch.zeros(1, 3, side, side)).shape[1])
    except RuntimeError as error:
        raise EncoderError(f"timm model {name} does not take images of {side} x {side}: {error}") from None


def _triple(values: Any, name: str) -> Triple:
    numbers = tuple(float(value) for value in values or ())
    if len(numbers) != 3:
        raise EncoderError(f"timm model {name} does not take RGB images: mean or std is {values}")
    return numbers[0], numbers[1], numbers[2]


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
    return Architecture(model, asdict(config))


_ALL = "pathotune, vit-mini, colour, a timm model name, hf-hub:ORG/NAME, or a Hugging Face id ORG/NAME"


def _unknown(name: str, known: list[str]) -> EncoderError:
    near = difflib.get_close_matches(name, ["colour", "pathotune", "vit-mini", *known], n=3, cutoff=0.5)
    hint = f"Did you mean {', '.join(near)}? " if near else ""
    return EncoderError(f"unknown encoder {name!r}", todo=f"{hint}Encoders are: {_ALL}.")


def _hosted(repo: str, weights: Path | None) -> Architecture:
    """A model described by the config.json of a hub repository, or by the one beside local weights."""
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
    config = {**facts.get("pretrained_cfg", facts), "architecture": model, "hf_hub_id": repo}
    known = known_facts(repo)
    arguments = {**(facts.get("model_args") or {}), **(known.arguments if known is not None else {})}
    return Architecture(model, config, arguments, known)
