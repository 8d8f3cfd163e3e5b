"""Any Hugging Face vision model as an encoder, by id `ORG/NAME` or from a local folder (config.json, safetensors).

Code from a repository is never run (no trust_remote_code) and pickled weights are never opened.
Source: transformers, https://github.com/huggingface/transformers (AutoConfig, AutoModel, AutoImageProcessor).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.encoder import EncoderInfo, PublishedPlan, Triple
from wsi_pipeline.encoders.folder_weights import SAFE_FILE, SAFE_INDEX, folder_weights, shards_in
from wsi_pipeline.encoders.hf_models.hf_network import is_image_text as _is_image_text
from wsi_pipeline.encoders.hf_models.hf_network import load, measure, pool
from wsi_pipeline.encoders.hf_models.hf_processor import (
    CONFIG,
    NESTED,
    PROCESSOR,
    Preprocessing,
    read_json,
    read_processor,
)
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.encoders.weights import CONVERT, hash_tensors, read_tensors
from wsi_pipeline.encoders.zoo.facts import Known, Preset, known_facts, preset_of_folder
from wsi_pipeline.encoders.zoo.zoo_weights import find_weights
from wsi_pipeline.errors import EncoderError

__all__ = ["HuggingFacePlan", "_is_image_text", "plan_huggingface", "pool"]

log = logging.getLogger(__name__)
auto: Any = transformers
"""transformers types only a part of its functions."""

Files = Callable[[], tuple[Path, ...]]
BRING = (CONFIG, PROCESSOR, SAFE_FILE)
_VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class ModelFiles:
    """Where the files of a model are.

    find_weights   finds the weights files; called when they are first needed
    home           local folder of the other files; None: the cache or hub
    repo           repository ORG/NAME; "" for a model of a local folder
    """

    find_weights: Files
    home: Path | None = None
    repo: str = ""


class HuggingFacePlan(PublishedPlan):
    """A Hugging Face vision model ready to be opened.

    preset  its facts, if it is in the zoo; its feature is then the published one
    """

    def __init__(
        self,
        name: str,
        facts: dict[str, Any],
        config: Any,
        pre: Preprocessing,
        files: ModelFiles,
        preset: Preset | None = None,
    ) -> None:
        self.files = files
        self._facts = facts
        self._feature = "" if preset is None else preset.feature
        self._positions = "" if preset is None else preset.positions
        self.config = config
        own = own_px(config)
        side, row = measure(config, [size for size in (pre.side, own, 224) if size], self._feature)
        if pre.side is not None and side != pre.side:
            log.warning("%s: the network takes no images of %d px, %s's size: %d px", name, pre.side, PROCESSOR, side)
        self._pre = pre if side == pre.side else pre.resized_to(side)
        self._new = row.new or ("all patches" if config.model_type == "vit_mae" else "")
        known = known_facts(name) if preset is None else Known(preset.mpp, preset.terms)
        self.info = _describe(name, self._pre, side, int(row.features.shape[1]), row.made_of, known)

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        return self.files.find_weights()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the tensors of the weights files, the model's config and the preprocessing."""
        return digest_of(
            config={key: value for key, value in self._facts.items() if key not in _VOLATILE},
            input_px=self.info.input_px,
            mean=self.info.mean,
            std=self.info.std,
            interpolation=self.info.interpolation,
            tensors=hash_tensors(self._files),
            **self._pre.beyond_the_usual(),
            **({"feature": self._new} if self._new else {}),
        )

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """Load the weights onto `device`; raises EncoderError when they are missing or do not fit."""
        return self.encoder_of(*self.load_network(), device, precision)

    def load_network(self) -> tuple[torch.nn.Module, bool]:
        """The network in fp32 on the CPU, and whether its pooler is trained. Raises EncoderError as `open` does."""
        return load(self.config, read_tensors(self._files), self._files[0], self._positions)

    def check_tensors(self, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
        """Raise EncoderError, naming the first that do not fit, unless these tensors of `source` are its weights."""
        load(self.config, tensors, source, self._positions)

    def encoder_of(
        self, network: torch.nn.Module, use_pooler: bool, device: str = "auto", precision: str = "auto"
    ) -> TorchEncoder:
        """The encoder around a network of `load_network`, which it moves to the device and may lower to bf16."""
        order = None if self._pre.order == (0, 1, 2) else list(self._pre.order)

        def forward(images: torch.Tensor) -> torch.Tensor:
            seen = images if order is None else images[:, order]
            return pool(network, seen, use_pooler=use_pooler, feature=self._feature)

        return TorchEncoder(network, forward, self.info, self.fingerprint, device, precision)


def plan_huggingface(
    name: str, weights: Path | None, patch_px: int | None = None, *, whole_patch: bool = False
) -> HuggingFacePlan:
    """A plan for an id `ORG/NAME` or a local folder; `weights` (file or folder) takes the place of the hub's.

    patch_px     side of the patches, for models whose config and processor leave the size open
    whole_patch  crop nothing, whatever the model's processor does

    Raises EncoderError for a folder or repository that holds no vision model of transformers.
    """
    folder = Path(name) if Path(name).is_dir() else None
    if folder is None and (name.startswith((".", "/", "~", "\\")) or name.count("/") != 1):
        raise EncoderError(f"{name!r} is neither a Hugging Face id ORG/NAME nor a folder on this machine")
    beside = folder if weights is None else weights if weights.is_dir() else weights.parent
    home = next((place for place in (beside, folder) if _local(place, CONFIG)), None)
    config_file = _local(home, CONFIG) or _hosted(name, folder, CONFIG)
    facts = read_json(config_file)
    if "model_type" not in facts:
        timm_name = f" It is a timm model: use --model hf-hub:{name}" if "architecture" in facts else ""
        raise EncoderError(
            f"{config_file} does not describe a transformers model: no model_type.{timm_name}", todo=_short_name(folder)
        )

    def files() -> tuple[Path, ...]:
        if weights is not None and weights.is_file():
            return (weights,)
        return folder_weights(beside) if beside is not None else _hub_files(name)

    plain = folder.resolve().name if folder is not None else name
    config = _read_config(config_file, name, folder)
    beside_model = (_local(home, PROCESSOR), _local(home, NESTED)) if home else _hosted_processors(name)
    pre = read_processor(plain, config_file, *beside_model, own_px(config) or patch_px or 224)
    if whole_patch and pre.side is not None:
        pre = pre.resized_to(pre.side)
    repo = "" if folder is not None else name
    return HuggingFacePlan(plain, facts, config, pre, ModelFiles(files, home or beside or folder, repo))


def plan_preset(preset: Preset, weights: Path | None, *, whole_patch: bool = False) -> HuggingFacePlan:
    """A plan for an encoder of the zoo that transformers builds; arguments as for `plan_huggingface`."""
    mean, std, resize_px = _triple(preset.mean), _triple(preset.std), None if whole_patch else preset.resize_px
    pre = Preprocessing(preset.input_px, mean, std, preset.interpolation, resize_px=resize_px)
    config = auto.AutoConfig.for_model(preset.network, **preset.arguments)
    facts = {"model_type": preset.network, **preset.arguments}
    home = None if weights is None else weights if weights.is_dir() else weights.parent

    def files() -> tuple[Path, ...]:
        return (find_weights(preset, weights),)

    return HuggingFacePlan(preset.name, facts, config, pre, ModelFiles(files, home, preset.repo), preset)


def _triple(values: tuple[float, ...]) -> Triple:
    first, second, third = values
    return first, second, third


def own_px(config: Any) -> int | None:
    """The image side that a model's config states, or None."""
    own = getattr(getattr(config, "vision_config", config), "image_size", None)
    own = own[0] if isinstance(own, list | tuple) and own else own
    return int(own) if own else None


def _describe(name: str, pre: Preprocessing, side: int, dim: int, made_of: str, known: Known | None) -> EncoderInfo:
    return EncoderInfo(
        name=name,
        family="huggingface",
        input_px=side,
        mpp=known.mpp if known is not None else None,
        mean=pre.mean,
        std=pre.std,
        dim=dim,
        interpolation=pre.interpolation,
        licence=known.licence if known is not None else _licence(name),
        resize_px=pre.resize_px,
        corner_px=pre.corner_px,
        feature=made_of,
    )


def _licence(name: str) -> str:
    return f"see https://huggingface.co/{name}" if "/" in name else "not stated"


def _read_config(path: Path, name: str, folder: Path | None) -> Any:
    try:
        return auto.AutoConfig.from_pretrained(str(path.parent), local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise EncoderError(
            f"{name}: this version of transformers cannot use {path.name}: {str(error).splitlines()[0]}",
            todo=_short_name(folder)
            or "Models that need custom code are not run; look for a timm version (hf-hub:ORG/NAME).",
        ) from None


def _short_name(folder: Path | None) -> str:
    """How to open a folder that is a copy of an encoder of the zoo, or an empty string."""
    preset = preset_of_folder(folder.resolve()) if folder is not None else None
    return (
        f"Use its short name: --model {preset.name} --weights {folder}" if preset is not None and preset.built else ""
    )


def _local(folder: Path | None, file: str) -> Path | None:
    return folder / file if folder is not None and (folder / file).is_file() else None


def _hosted(name: str, folder: Path | None, file: str) -> Path:
    if folder is not None:
        raise EncoderError(
            f"{folder} has no {file}",
            todo=_short_name(folder)
            or f"Copy {file} of the model into this folder; a published patch encoder is named "
            "by its short name (listed by wsi-pipeline encoders), with --weights FILE.",
        )
    return hub.fetch(hub.HubFile(name, file), bring=BRING)


def _hosted_processors(name: str) -> tuple[Path | None, Path | None]:
    """preprocessor_config.json and processor_config.json of a repository, None for what it lacks.

    A cached one is enough: the hub is asked for both or for none.
    """
    plain, nested = hub.HubFile(name, PROCESSOR), hub.HubFile(name, NESTED)
    found = hub.find_cached(plain), hub.find_cached(nested)
    if any(found) or hub.is_offline():
        return (found[0] or (None if found[1] else hub.fetch_if_there(plain, bring=BRING))), found[1]
    return hub.fetch_if_there(plain, bring=BRING), hub.fetch_if_there(nested, bring=BRING)


def _hub_files(name: str) -> tuple[Path, ...]:
    """The weights of a repository: one file, or the shards that its index names; cached ones first."""
    whole, index = hub.HubFile(name, SAFE_FILE), hub.HubFile(name, SAFE_INDEX)
    found = hub.find_cached(whole)
    if found is None and hub.find_cached(index) is None:
        found = hub.fetch_if_there(whole, bring=BRING)
    if found is not None:
        return (found,)
    listing = hub.fetch_if_there(index, bring=BRING)
    if listing is None:
        raise EncoderError(
            f"{name} has no weights in safetensors form",
            todo=CONVERT,
        )
    return tuple(hub.fetch(hub.HubFile(name, shard), bring=BRING) for shard in shards_in(listing))
