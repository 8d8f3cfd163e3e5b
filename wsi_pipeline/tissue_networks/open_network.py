"""A published network with the weights of a file: safetensors, ONNX, or a checkpoint that holds tensors alone."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.encoders.weights import compare, read_tensors
from wsi_pipeline.encoders.zoo.zoo_weights import checkpoint_tensors
from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.system.device import choose_device
from wsi_pipeline.tissue_networks.onnx_network import open_onnx
from wsi_pipeline.tissue_networks.published import MEAN, STD, Labels, Network, PublishedNetwork
from wsi_pipeline.wording import counted

if TYPE_CHECKING:
    import torch

_SHOWN = 3
_BLOCK = 1 << 22


def weights_digest(path: Path, published: PublishedNetwork) -> str:
    """SHA-256 (hex) of a weights file. Raises UsageError, with where to get it, if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        why = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise UsageError(
            f"weights file {path} of {published.name} {why}", todo=f"Published weights: {published.where}."
        ) from None
    return digest.hexdigest()


def open_network(published: PublishedNetwork, weights: Path, device: str = "cpu") -> Network:
    """The network with these weights. ONNX runs on the CPU whatever the device.

    Raises EncoderError, naming the first tensors that do not fit and their shapes, unless the weights fit exactly.
    """
    if weights.suffix.lower() == ".onnx":
        return open_onnx(published, weights)
    import torch

    network = build(published)
    _load(network, published, weights)
    chosen = choose_device(device)
    network.to(chosen)

    def run(windows: NDArray[np.uint8]) -> Labels:
        """Classes of windows."""
        images = torch.from_numpy(np.ascontiguousarray(windows.transpose(0, 3, 1, 2))).to(chosen).float()
        mean, std = (torch.tensor(values, device=chosen).view(1, 3, 1, 1) for values in (MEAN, STD))
        with torch.inference_mode():
            logits = network((images / 255 - mean) / std)
            logits = logits["out"] if isinstance(logits, Mapping) else logits
            return np.asarray(logits.argmax(dim=1).to(torch.uint8).cpu().numpy())

    return run


def build(published: PublishedNetwork) -> torch.nn.Module:
    """The network with random weights, in evaluation mode."""
    classes = len(published.classes)
    if published.layout == "deeplabv3":
        from torchvision.models.segmentation import deeplabv3_resnet50  # type: ignore[import-untyped]

        # Without `weights_backbone=None` torchvision fetches weights that are overwritten at once.
        network: torch.nn.Module = deeplabv3_resnet50(
            weights=None, weights_backbone=None, num_classes=classes, aux_loss=False
        )
        return network.eval()
    from wsi_pipeline.tissue_networks.unet import SegmentationUnet

    return SegmentationUnet(classes, nested=published.layout == "unet++").eval()


def _load(network: torch.nn.Module, published: PublishedNetwork, file: Path) -> None:
    given = _tensors_of(file)
    kept = {name.removeprefix(published.prefix): value for name, value in given.items()}
    kept = {name: value for name, value in kept.items() if not published.ignores(name)}
    wanted = network.state_dict()
    fit = compare(wanted, kept)
    faults = [
        (f"{counted(len(fit.missing), 'tensor')} missing", [f"{name} {_shape(wanted[name])}" for name in fit.missing]),
        (
            f"{len(fit.reshaped)} of another shape",
            [f"{name} {_shape(kept[name])} instead of {_shape(wanted[name])}" for name in fit.reshaped],
        ),
        (f"{len(fit.extra)} not in the network", [f"{name} {_shape(kept[name])}" for name in fit.extra]),
    ]
    unfit = [
        f"{what} ({', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)})" for what, names in faults if names
    ]
    if unfit:
        raise EncoderError(
            f"{file} does not fit {published.name}: {'; '.join(unfit)}",
            todo=f"Published weights: {published.where}.",
        )
    network.load_state_dict(kept, strict=False)


def _tensors_of(file: Path) -> dict[str, torch.Tensor]:
    """The tensors of a weights file by name, in float32."""
    if file.suffix == ".safetensors":
        return read_tensors([file])
    advice = (
        "A whole pickled network, as GrandQC publishes its artefact networks, is not opened. Where you trust it and "
        "segmentation_models_pytorch is installed, save its tensors: safetensors.torch.save_file(torch.load(FILE, "
        "weights_only=False).state_dict(), 'weights.safetensors')"
    )
    given = checkpoint_tensors(file, advice)
    return {name: value.float() if value.is_floating_point() else value for name, value in given.items()}


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
