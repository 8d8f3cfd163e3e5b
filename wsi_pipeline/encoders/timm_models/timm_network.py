"""Which timm network to build, at which input size, and how its output becomes a feature; found without weights."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import timm
import timm.layers
import timm.models
import torch

from wsi_pipeline.encoders.timm_models.timm_input import Preparation, Wish, has_positions
from wsi_pipeline.encoders.timm_models.tokens import Pooling, choose_pooling
from wsi_pipeline.encoders.zoo.facts import Known
from wsi_pipeline.errors import EncoderError

log = logging.getLogger(__name__)

layers: Any = timm.layers
"""timm names its layers in the package without exporting them in the sense of the type checker."""
models: Any = timm.models
_FAULTS = (
    AssertionError, AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError,
    ZeroDivisionError,
)  # fmt: skip
"""What networks of timm raise for a size or an argument that they do not take."""
_OF_THE_FACTORY = set(inspect.signature(timm.create_model).parameters) - {"kwargs"} | {"features_only", "exportable"}
"""Arguments that name files or change the kind of network: a config.json may not set them."""


@dataclass(frozen=True)
class Architecture:
    """Which network to build.

    model       timm's name of the architecture, without tag
    config      timm's pretrained_cfg: input_size, mean, std, interpolation, classifier, hf_hub_id, license
    arguments   keyword arguments for timm.create_model
    known       what the config leaves out, for a known pathology model
    img_size    side that the network is built for, None: its own
    """

    model: str
    config: Mapping[str, Any]
    arguments: Mapping[str, Any] = field(default_factory=dict)
    known: Known | None = None
    img_size: int | None = None

    def build(self, device: str = "cpu") -> torch.nn.Module:
        """The network without a classifier; on device `meta` it costs no memory and no time.

        Raises EncoderError for arguments that it does not take.
        """
        arguments = {**self._checked_arguments(), "num_classes": 0}
        if self.known is not None and self.known.packed_swiglu:
            arguments |= {"mlp_layer": layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
        if self.img_size is not None:
            arguments["img_size"] = self.img_size
        try:
            with torch.device(device):
                network = timm.create_model(self.model, False, self._own_config(), **arguments)
        except _FAULTS as error:
            raise EncoderError(f"timm model {self.model} cannot be built: {_line(error)}") from error
        if not isinstance(network, torch.nn.Module):
            raise EncoderError(f"timm model {self.model} is not a network")
        return network.eval()

    def _own_config(self) -> Any:
        names = {each.name for each in fields(models.PretrainedCfg)}
        known = {key: value for key, value in self.config.items() if key in names and value is not None}
        return models.PretrainedCfg(**{**known, "architecture": self.model})

    def _checked_arguments(self) -> dict[str, Any]:
        """The arguments, layer names turned into classes. Raises EncoderError for arguments of the factory."""
        wrong = sorted(_OF_THE_FACTORY & set(self.arguments))
        if wrong:
            raise EncoderError(f"timm model {self.model}: model_args may not set {', '.join(wrong)}")
        layer = self.arguments.get("mlp_layer")
        if not isinstance(layer, str):
            return dict(self.arguments)
        kind = getattr(layers, layer, None)
        if not (isinstance(kind, type) and issubclass(kind, torch.nn.Module)):
            raise EncoderError(f"timm model {self.model}: there is no mlp_layer {layer} in timm {timm.__version__}")
        return {**self.arguments, "mlp_layer": kind}


@dataclass(frozen=True)
class FittedNetwork:
    """A network that takes images of `side`.

    as_it_is   whether patches are fed as they are, because the network takes any size
    """

    architecture: Architecture
    side: int
    dim: int
    pooling: Pooling
    as_it_is: bool = False


def fit(architecture: Architecture, preparation: Preparation, wish: Wish, name: str) -> FittedNetwork:
    """Find the side of the images to feed: as asked for, else the model's own.

    Networks without position encoding, and without a fixed size in their configuration, take patches of
    `wish.patch_px` unresized if they accept them. Raises EncoderError for a side that the network does not accept.
    """
    network = architecture.build("meta")
    if wish.input_px is not None:
        reason = "" if wish.input_px == preparation.side else _uneven(network, wish.input_px)
        fitted, reason = (None, reason) if reason else _try(architecture, network, wish.input_px)
        if fitted is not None:
            return fitted
        raise EncoderError(
            f"timm model {name} does not take images of {wish.input_px} x {wish.input_px}: {reason}",
            todo=f"Leave --input-px out for its own size, {preparation.side}{_multiple(network)}.",
        )
    if wish.patch_px is not None and not preparation.fixed and not has_positions(network):
        fitted, reason = _try(architecture, network, wish.patch_px)
        if fitted is not None:
            return replace(fitted, as_it_is=True)
        log.info("%s does not take patches of %d px as they are: %s", name, wish.patch_px, reason)
    reasons = []
    for side in dict.fromkeys((preparation.side, *_built_for(network))):
        fitted, reason = _try(architecture, network, side)
        if fitted is not None:
            return fitted
        reasons.append(f"{side} x {side}: {reason}")
    raise EncoderError(f"timm model {name} does not take images of its own size {'; '.join(reasons)}")


def _try(architecture: Architecture, network: torch.nn.Module, side: int) -> tuple[FittedNetwork | None, str]:
    """The network at `side`, as it is or built for it; else None and the reason of the first failure."""
    first = ""
    for variant, built in _variants(architecture, network, side):
        try:
            pooling, dim = _dry_run(variant, built, side)
        except EncoderError as error:
            raise EncoderError(f"timm model {architecture.model}: {error.what}", todo=error.todo) from None
        except _FAULTS as error:
            first = first or _line(error)
            continue
        return FittedNetwork(variant, side, dim, pooling), ""
    return None, first


def _variants(
    architecture: Architecture, network: torch.nn.Module, side: int
) -> Iterator[tuple[Architecture, torch.nn.Module]]:
    yield architecture, network
    sized = replace(architecture, img_size=side)
    try:
        yield sized, sized.build("meta")
    except EncoderError as error:  # most networks have no such argument
        log.debug("%s", error.what)


def _dry_run(architecture: Architecture, network: torch.nn.Module, side: int) -> tuple[Pooling, int]:
    """How to pool and the length of the features. Uses real memory only if the network needs it."""
    published = architecture.known.feature if architecture.known is not None else ""
    images = torch.empty(1, 3, side, side, device="meta")
    with torch.inference_mode():
        try:
            return choose_pooling(network, images, published)
        except (NotImplementedError, RuntimeError) as error:
            if not isinstance(error, NotImplementedError) and "meta" not in str(error).lower():
                raise
            log.debug("%s cannot be dry-run (%s): building it", architecture.model, error)
        real, images = architecture.build(), torch.zeros(1, 3, side, side)
        return choose_pooling(real, images, published)


def _built_for(network: Any) -> tuple[int, ...]:
    """The side that the network itself was built for, if it states a square one."""
    size = getattr(getattr(network, "patch_embed", None), "img_size", None)
    if isinstance(size, list | tuple) and len(size) == 2 and size[0] == size[1]:
        return (int(size[0]),)
    return ()


def _token_side(network: Any) -> int:
    """Side in pixels of patch tokens that lie side by side; 1 where tokens overlap or the network does not say."""
    embed = getattr(network, "patch_embed", None)
    size = getattr(embed, "patch_size", None)
    if not isinstance(size, list | tuple) or len(size) != 2 or size[0] != size[1]:
        return 1
    stride = getattr(getattr(embed, "proj", None), "stride", size)
    return int(size[0]) if tuple(stride) == tuple(size) else 1


def _uneven(network: Any, side: int) -> str:
    """Why a side is refused: timm would silently drop the pixels that do not fill a patch token."""
    token = _token_side(network)
    padded = getattr(network.patch_embed, "dynamic_img_pad", False) if token > 1 else True
    return f"not a multiple of its patch tokens of {token} px" if side % token and not padded else ""


def _multiple(network: Any) -> str:
    token = _token_side(network)
    return f", or name a multiple of {token}" if token > 1 else ""


def _line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
