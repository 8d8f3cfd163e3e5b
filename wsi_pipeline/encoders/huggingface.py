"""Any Hugging Face vision model as an encoder, by id `ORG/NAME` or from a local folder (config.json, safetensors).

Code from a repository is never run (no trust_remote_code) and pickled weights are never opened. Pooled output:
an image-text model's image features, else the trained pooler, else the class token, else the mean.
Source: transformers, https://github.com/huggingface/transformers (AutoConfig, AutoModel).
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import transformers

from wsi_pipeline.encoders import hub
from wsi_pipeline.encoders.base import IMAGENET_MEAN, IMAGENET_STD, EncoderInfo, EncoderPlan, Triple
from wsi_pipeline.encoders.pathology import known_facts
from wsi_pipeline.encoders.torch_encoder import TorchEncoder
from wsi_pipeline.encoders.weights import CONVERT, first_few, hash_tensors, read_tensors
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.fields import digest_of

log = logging.getLogger(__name__)
auto: Any = transformers
"""transformers types only a part of its functions."""

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
SAFE_FILE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
BRING = (CONFIG, PROCESSOR, SAFE_FILE)
_RESAMPLE = {2: "bilinear", 3: "bicubic"}
_VOLATILE = {"_name_or_path", "transformers_version", "torch_dtype", "dtype"}


@dataclass(frozen=True)
class Preprocessing:
    """What a repository's preprocessor_config.json says: side in pixels (None: not said), mean, std, filter."""

    side: int | None
    mean: Triple
    std: Triple
    interpolation: str


class HuggingFacePlan(EncoderPlan):
    """A Hugging Face vision model that could be opened. `files` finds its weights when they are first needed."""

    def __init__(self, name: str, facts: dict[str, Any], config: Any, pre: Preprocessing, files: Files) -> None:
        self._facts = facts
        self._config = config
        self._find = files
        self.info = _describe(name, config, pre)

    @cached_property
    def _files(self) -> tuple[Path, ...]:
        return self._find()

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
        )

    def open(self, device: str = "auto", precision: str = "auto") -> TorchEncoder:
        """Load the weights onto `device`; raises EncoderError when they are missing or do not fit."""
        network, pooler_trained = load_network(self._config, self._files)

        def forward(images: torch.Tensor) -> torch.Tensor:
            return pool(network, images, use_pooler=pooler_trained)

        return TorchEncoder(network, forward, self.info, self.fingerprint, device, precision)


Files = Callable[[], tuple[Path, ...]]


def plan_huggingface(name: str, weights: Path | None) -> HuggingFacePlan:
    """A plan for an id `ORG/NAME` or a local folder; `weights` (file or folder) takes the place of the hub's.

    Raises EncoderError for a folder or repository that holds no vision model of transformers.
    """
    folder = Path(name) if Path(name).is_dir() else None
    if folder is None and (name.startswith((".", "/", "~", "\\")) or name.count("/") != 1):
        raise EncoderError(f"{name!r} is neither a Hugging Face id ORG/NAME nor a folder on this machine")
    beside = folder if weights is None else weights if weights.is_dir() else weights.parent
    home = next((place for place in (beside, folder) if _local(place, CONFIG)), None)
    config_file = _local(home, CONFIG) or _hosted(name, folder, CONFIG)
    processor_file = _local(home, PROCESSOR) if home else hub.fetch_if_there(hub.HubFile(name, PROCESSOR), bring=BRING)
    facts = _read_json(config_file)
    if "model_type" not in facts:
        timm_name = f" It is a timm model: use --model hf-hub:{name}" if "architecture" in facts else ""
        raise EncoderError(f"{config_file} does not describe a transformers model: no model_type.{timm_name}")

    def files() -> tuple[Path, ...]:
        if weights is not None and weights.is_file():
            return (weights,)
        return _folder_files(beside) if beside is not None else _hub_files(name)

    plain = folder.resolve().name if folder is not None else name
    return HuggingFacePlan(plain, facts, _read_config(config_file, name), _read_processor(processor_file, name), files)


def load_network(config: Any, files: tuple[Path, ...]) -> tuple[torch.nn.Module, bool]:
    """The network in fp32 with the tensors of `files`, and whether its pooler came with them.

    Raises EncoderError for tensors that are missing or of another shape. Only a missing pooler is tolerated (models
    fine-tuned for classification have none): its output would be random, so it is not used.
    """
    with torch.device("meta"):
        kind = type(auto.AutoModel.from_config(config))
    try:
        with _quiet():
            network, facts = kind.from_pretrained(
                None, config=config, state_dict=read_tensors(files), output_loading_info=True, torch_dtype=torch.float32
            )
    except (RuntimeError, ValueError) as error:
        raise EncoderError(f"{files[0]} does not fit {config.model_type}: {str(error).splitlines()[0]}") from None
    missing = sorted(key for key in facts["missing_keys"])
    pooler = [key for key in missing if "pooler" in key.split(".")]
    faults = [key for key in missing if key not in pooler] + sorted(str(key) for key in facts["mismatched_keys"])
    if faults:
        raise EncoderError(
            f"{files[0]} does not fit {config.model_type}: {len(faults)} tensors missing or of another shape "
            f"({first_few(faults)})",
            todo="Bring the model.safetensors that belongs to this config.json.",
        )
    if pooler:
        log.info("%s has no pooler: the class token is the feature", files[0].name)
    return network.float().eval(), not pooler


def pool(network: Any, images: torch.Tensor, *, use_pooler: bool = True) -> torch.Tensor:
    """Features (B, D) of normalised images (B, 3, S, S).

    From an image-text model its image features; else pooler_output; else the first token of last_hidden_state where
    the model has a class token; else the mean over tokens or positions.
    """
    output = network.get_image_features(pixel_values=images) if _is_image_text(network) else network(images)
    if isinstance(output, torch.Tensor):
        return output.flatten(1)
    pooled = getattr(output, "pooler_output", None)
    if pooled is not None and use_pooler:
        return torch.as_tensor(pooled).flatten(1)
    hidden: torch.Tensor = output.last_hidden_state
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    return hidden[:, 0] if _has_class_token(network) else hidden.mean(dim=1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers without its own report and progress bar: what matters of them is checked and said here."""
    verbosity, bars = auto.logging.get_verbosity(), auto.logging.is_progress_bar_enabled()
    auto.logging.set_verbosity_error()
    auto.logging.disable_progress_bar()
    try:
        yield
    finally:
        auto.logging.set_verbosity(verbosity)
        if bars:
            auto.logging.enable_progress_bar()


def _is_image_text(network: torch.nn.Module) -> bool:
    return callable(getattr(network, "get_image_features", None))


def _has_class_token(network: torch.nn.Module) -> bool:
    names = ("cls_token", "class_token", "class_embedding")
    return any(key.rpartition(".")[2] in names for key, _ in network.named_parameters())


def _describe(name: str, config: Any, pre: Preprocessing) -> EncoderInfo:
    own = getattr(getattr(config, "vision_config", config), "image_size", None)
    own = int(own[0] if isinstance(own, list | tuple) else own) if own else None
    known = known_facts(name)
    side, dim = _measure(name, config, [size for size in (pre.side, own, 224) if size])
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
    )


def _licence(name: str) -> str:
    return f"see https://huggingface.co/{name}" if "/" in name else "not stated"


def _measure(name: str, config: Any, sides: list[int]) -> tuple[int, int]:
    """(side, D): the first image side that the network takes, found by a dry run without data."""
    reason = ""
    try:
        with torch.device("meta"):
            network = auto.AutoModel.from_config(config).eval()
    except (ValueError, KeyError) as error:
        raise EncoderError(f"{name}: transformers has no model for {config.model_type!r}: {error}") from None
    for side in sides:
        try:
            return side, int(pool(network, torch.empty(1, 3, side, side, device="meta")).shape[1])
        except (ValueError, RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    raise EncoderError(
        f"{name} ({config.model_type}) does not turn images into features: {reason}",
        todo="Choose a vision model; text models and detectors are no encoders here.",
    )


def _read_config(path: Path, name: str) -> Any:
    try:
        return auto.AutoConfig.from_pretrained(str(path.parent), local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise EncoderError(
            f"{name}: this version of transformers cannot use {path.name}: {str(error).splitlines()[0]}",
            todo="Models that bring their own code are not run; look for a timm version (hf-hub:ORG/NAME).",
        ) from None


def _read_processor(path: Path | None, name: str) -> Preprocessing:
    if path is None:
        log.warning("%s has no %s: ImageNet's mean and std are assumed", name, PROCESSOR)
        return Preprocessing(None, IMAGENET_MEAN, IMAGENET_STD, "bicubic")
    facts = _read_json(path)
    size = facts.get("crop_size") if facts.get("do_center_crop") else facts.get("size")
    if isinstance(size, dict):
        size = size.get("height") or size.get("shortest_edge")
    normalised = facts.get("do_normalize", True)
    mean = facts.get("image_mean", IMAGENET_MEAN) if normalised else (0.0, 0.0, 0.0)
    std = facts.get("image_std", IMAGENET_STD) if normalised else (1.0, 1.0, 1.0)
    if len(mean) != 3 or len(std) != 3:
        raise EncoderError(f"{name} does not take RGB images: image_mean is {mean}")
    interpolation = _RESAMPLE.get(facts.get("resample", 3), "bicubic")
    return Preprocessing(int(size) if size else None, _triple(mean), _triple(std), interpolation)


def _triple(values: Any) -> Triple:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _read_json(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise EncoderError(f"{path} is not a JSON object")
    return facts


def _local(folder: Path | None, file: str) -> Path | None:
    return folder / file if folder is not None and (folder / file).is_file() else None


def _hosted(name: str, folder: Path | None, file: str) -> Path:
    if folder is not None:
        raise EncoderError(f"{folder} has no {file}", todo=f"Bring {file} of the model into this folder.")
    return hub.fetch(hub.HubFile(name, file), bring=BRING)


def _folder_files(folder: Path) -> tuple[Path, ...]:
    """The weights in a local folder: one file, or the shards that its index names."""
    if (folder / SAFE_FILE).is_file():
        return (folder / SAFE_FILE,)
    if (folder / SAFE_INDEX).is_file():
        return tuple(folder / Path(shard).name for shard in _shards(folder / SAFE_INDEX))
    raise EncoderError(f"{folder} has no {SAFE_FILE}", todo="Bring it; pickled weights (.bin, .pth) are not opened.")


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
    return tuple(hub.fetch(hub.HubFile(name, shard), bring=BRING) for shard in _shards(listing))


def _shards(index: Path) -> list[str]:
    return sorted(set(map(str, (_read_json(index).get("weight_map") or {}).values())))
