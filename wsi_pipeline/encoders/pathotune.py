"""PathoTune as an encoder, and its head as a patch classifier: the only use of adapters outside `pathotune/`.

pathotune, pathotune:NAME   a tuned adapter on its backbone; the caller names the adapter file
vit-mini                    the packaged backbone without an adapter, for comparison

The network is built for each opening, because an adapter modifies the backbone it is given.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch

from pathotune.backbone import BUILT_IN as BUILT_IN_BACKBONES
from pathotune.backbone import BackboneCard, fingerprint, open_backbone
from pathotune.builtin import VIT_MINI, default_adapter_path
from pathotune.checkpoint import AdapterInfo, load_adapter, read_adapter
from pathotune.errors import PathoTuneError
from pathotune.model import PathoTune
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.units import MAX_MPP, MIN_MPP
from wsi_pipeline.encoders.encoder import BUILT_IN, SPACING_TOLERANCE, EncoderInfo, EncoderPlan
from wsi_pipeline.encoders.patch_classifier import PatchClassifier
from wsi_pipeline.encoders.timm_models.plan_timm import PREFIX as HUB_PREFIX
from wsi_pipeline.encoders.timm_models.plan_timm import plan_timm
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.encoders.weights import hash_tensors
from wsi_pipeline.encoders.zoo.facts import known_facts
from wsi_pipeline.errors import EncoderError

log = logging.getLogger(__name__)

_MAX_SIDE = 1 << 16
_OWN_LICENCE = "part of wsi-pipeline (Apache-2.0)"
_TUNE = "Tune one with: wsi-pipeline tune, or name another with --adapter FILE."
_WHICH_WEIGHTS = "Name the weights it was tuned on with --weights FILE, or tune again."


@dataclass(frozen=True)
class _Weights:
    """Where a backbone's weights come from: a file, or None if `open_backbone` finds them."""

    path: Path | None
    source: str
    recorded: bool = False


class PathoTunePlan(EncoderPlan):
    """An adapter ready to be opened: its header has been read, its backbone has not.

    tuned     the adapter file's header
    adapter   the file as text, or `built-in`
    """

    def __init__(self, name: str, adapter: Path | None, weights: Path | None) -> None:
        built_in = default_adapter_path()
        self.path = adapter or built_in
        self.adapter = BUILT_IN if self.path == built_in else str(self.path)
        if not self.path.is_file():
            raise EncoderError(f"adapter {self.path} is missing", todo=_TUNE)
        with _as_encoder_error(_TUNE):
            self.tuned: AdapterInfo = read_adapter(self.path)
        _check_one_task(self.tuned, self.path)
        groups = self.tuned.provenance.get("groups")
        self.groups = frozenset(map(str, groups)) if isinstance(groups, list) else frozenset()
        self.info = _describe(name, self.tuned, _OWN_LICENCE if self.adapter == BUILT_IN else "")
        self._weights = _find_weights(self.tuned, weights)

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the adapter's head, in the order of its probabilities."""
        return self.tuned.config.classes

    @property
    def patch_um(self) -> float | None:
        """Side of the patches it was tuned on, micrometres; None if the adapter does not say."""
        side = self._patch_px
        return side * self.info.mpp if side and self.info.mpp else None

    @property
    def _patch_px(self) -> int | None:
        """Side of the patches it was tuned on, pixels; None if the adapter states none or an impossible one."""
        side = self.tuned.provenance.get("patch_px")
        return side if type(side) is int and 0 < side <= _MAX_SIDE else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the adapter's tensors and configuration, its backbone's fingerprint and the preprocessing.

        Needs only the adapter file: a different backbone is refused on opening.
        """
        return digest_of(
            encoder="pathotune",
            tensors=hash_tensors([self.path]),
            config=self.tuned.config.to_dict(),
            backbone=self.tuned.fingerprint,
            preprocessing=_preprocessing(self.info),
        )

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """Load backbone and adapter onto `device`. Raises EncoderError when either is missing or does not fit."""
        return self._encoder(self._load(), device, precision)

    def open_classifier(self, device: str = "auto", precision: str = "auto") -> PatchClassifier:
        """The same with the adapter's head. Raises EncoderError also for an adapter tuned without classes."""
        model = self._load()
        head, model.head = model.head, None
        if head is None:
            raise EncoderError(f"adapter {self.path} has no classes", todo=_TUNE)
        return PatchClassifier(self._encoder(model, device, precision), head, self.classes)

    def remember(self) -> dict[str, Any]:
        """Nothing more: a store records the adapter's name anyway."""
        return {}

    def about(self) -> tuple[str, ...]:
        """Lines for the user: adapter and backbone; what it was tuned on; sizes, weights, licence."""
        side = self._patch_px
        tuned_at = f"tuned at {self.info.mpp:g} um/px" if self.info.mpp else "tuned at no stated resolution"
        on = f" on patches of {side} px" if side else ""
        classes = ", ".join(self.classes) or "none"
        called = "built-in adapter" if self.adapter == BUILT_IN else f"adapter {self.adapter}"
        return (
            f"{called} on {self.tuned.backbone.name}",
            f"classes: {classes}; {tuned_at}{on}",
            f"input {self.info.input_px} px, {self.info.dim} features; "
            f"weights of the backbone: {self._weights.source}; licence: {self.info.licence}",
        )

    def fit_note(self, patch_px: int, mpp: float) -> str:
        """A warning if patches cover a larger or smaller area than those the adapter was tuned on.

        They are resized to the network's input, so cells would appear smaller or larger.
        """
        side, tuned_mpp = self.patch_um, self.info.mpp
        if side is None or tuned_mpp is None or abs(patch_px * mpp / side - 1) <= SPACING_TOLERANCE:
            return ""
        return (
            f"patches of {patch_px * mpp:.0f} um, but the adapter was tuned on {side:.0f} um and sees them resized: "
            f"tile with --patch-px {round(side / tuned_mpp)} --mpp {tuned_mpp:g} to match"
        )

    def _encoder(self, model: PathoTune, device: str, precision: str) -> TorchEncoder:
        return TorchEncoder(model, model.features, self.info, self.fingerprint, device, precision)

    def _load(self) -> PathoTune:
        with _as_encoder_error(_WHICH_WEIGHTS):
            return load_adapter(self.path, self._backbone())

    def _backbone(self) -> torch.nn.Module:
        """The backbone with the weights the adapter was tuned on; the file it names is used only if it fits."""
        wanted, place = self.tuned.backbone, self._weights
        network = None
        if place.recorded:
            network = self._recorded_backbone(wanted, place)
        if network is None:
            network = _open(wanted, self._from_hub() if place.recorded or _is_hub(place, wanted) else place.path)
        found = fingerprint(network)
        if found != self.tuned.fingerprint:
            raise EncoderError(
                f"adapter {self.path} was tuned on {wanted.name} with other weights (fingerprint "
                f"{self.tuned.fingerprint[:12]}) than {place.source} (fingerprint {found[:12]})",
                todo=_WHICH_WEIGHTS,
            )
        return network

    def _recorded_backbone(self, wanted: BackboneCard, place: _Weights) -> torch.nn.Module | None:
        """The backbone from the file named in the adapter, or None if that file has changed."""
        try:
            network: torch.nn.Module = _open(wanted, place.path)
        except PathoTuneError as error:
            log.info("%s, named in the adapter, cannot be used: %s", place.path, error.what)
            return None
        if fingerprint(network) == self.tuned.fingerprint:
            return network
        log.info("%s, named in the adapter, has changed: its weights are different", place.path)
        return None

    def _from_hub(self) -> Path:
        """The backbone's weights file in the Hugging Face cache or from the hub, with a line before any download."""
        name = self.tuned.backbone.name
        try:
            return plan_timm(name, None, None).weights_files[0]
        except EncoderError as error:
            raise EncoderError(f"backbone {name} of adapter {self.path}: {error.what}", todo=error.todo) from None


class VitMiniPlan(EncoderPlan):
    """The packaged backbone without an adapter; `weights` may name another file for the same network."""

    def __init__(self, weights: Path | None) -> None:
        self._weights = weights
        with _as_encoder_error("Install wsi-pipeline again: its weights are part of the package."):
            self._network, card = open_backbone(VIT_MINI, weights)
        self.info = EncoderInfo(
            name=VIT_MINI,
            family="built-in",
            input_px=card.input_px,
            mpp=None,
            mean=card.mean,
            std=card.std,
            dim=int(self._network.embed_dim),
            interpolation=_interpolation(card),
            licence=_OWN_LICENCE if weights is None else "not stated",
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the weights and the preprocessing."""
        return digest_of(encoder=VIT_MINI, tensors=fingerprint(self._network), preprocessing=_preprocessing(self.info))

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """The network, freshly loaded, on `device`; its feature is the final class token."""
        network, _ = open_backbone(VIT_MINI, self._weights)
        return TorchEncoder(network, network, self.info, self.fingerprint, device, precision)


@contextmanager
def _as_encoder_error(todo: str) -> Iterator[None]:
    """Turn the library's errors into ours; `todo` is used if the library gives no advice."""
    try:
        yield
    except PathoTuneError as error:
        raise EncoderError(error.what, todo=error.todo or todo) from error


def _check_one_task(tuned: AdapterInfo, path: Path) -> None:
    tasks = tuned.config.tasks
    if tuned.config.ttp and len(tasks) > 1:
        names = ", ".join(task.task for task in tasks)
        raise EncoderError(
            f"adapter {path} was tuned for {len(tasks)} tasks ({names}), and patches of a slide do not say which",
            todo="Tune an adapter for one task.",
        )


def _describe(name: str, tuned: AdapterInfo, licence: str) -> EncoderInfo:
    card, mpp = tuned.backbone, tuned.provenance.get("mpp")
    known = isinstance(mpp, int | float) and not isinstance(mpp, bool) and MIN_MPP <= mpp <= MAX_MPP
    return EncoderInfo(
        name=name,
        family="pathotune",
        input_px=card.input_px,
        mpp=float(mpp) if known and mpp is not None else None,
        mean=card.mean,
        std=card.std,
        dim=tuned.geometry["dim"] * tuned.config.feature_parts,
        interpolation=_interpolation(card),
        licence=licence or f"backbone: {_backbone_licence(card.name)}; adapter: as of the data it was tuned on",
    )


def _interpolation(card: BackboneCard) -> str:
    return "bilinear" if card.interpolation == "bilinear" else "bicubic"


def _preprocessing(info: EncoderInfo) -> dict[str, Any]:
    return {"input_px": info.input_px, "mean": info.mean, "std": info.std, "interpolation": info.interpolation}


def _backbone_licence(name: str) -> str:
    if name in BUILT_IN_BACKBONES:
        return _OWN_LICENCE
    if name.startswith(HUB_PREFIX):
        known = known_facts(name.removeprefix(HUB_PREFIX))
        return known.licence if known is not None else "not stated"
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        return "not stated"
    return str(getattr(config, "license", None) or "not stated")


def _find_weights(tuned: AdapterInfo, given: Path | None) -> _Weights:
    """Weights as given, else built in, else as recorded in the adapter, else from the Hugging Face cache or hub."""
    if given is not None:
        return _Weights(given, str(given))
    if tuned.backbone.name in BUILT_IN_BACKBONES:
        return _Weights(None, "built in")
    recorded = tuned.provenance.get("weights")
    path = Path(recorded) if isinstance(recorded, str) and recorded else None
    if path is not None and _is_weights(path):
        return _Weights(path, f"{path}, named in the adapter", recorded=True)
    return _Weights(None, "Hugging Face cache or hub")


def _is_weights(path: Path) -> bool:
    """Whether weights can lie at a path recorded in an adapter, which may be arbitrary text."""
    try:
        return (path.is_file() and path.suffix == ".safetensors") or path.is_dir()
    except (OSError, ValueError):
        return False


def _is_hub(place: _Weights, card: BackboneCard) -> bool:
    return place.path is None and card.name not in BUILT_IN_BACKBONES


def _open(card: BackboneCard, weights: Path | None) -> Any:
    network, _ = open_backbone(card.name, weights, input_px=card.input_px, arguments=card.arguments)
    return network
