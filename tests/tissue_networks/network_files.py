"""Networks with made-up weights, and small trained stand-ins for published ones."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from scipy import ndimage as ndi
from sklearn.linear_model import LogisticRegression
from torch import nn

from wsi_pipeline.tissue_networks.published import MEAN, STD, PublishedNetwork


def fill(network: nn.Module) -> nn.Module:
    """Give every tensor values that depend on its name's place and its size alone."""
    tensors = network.state_dict()
    for place, name in enumerate(sorted(tensors)):
        tensor = tensors[name]
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 0.7 + place).reshape(tensor.shape)
        if tensor.ndim > 1:
            wave = wave * math.sqrt(0.6 / tensor[0].numel())
        elif name.endswith("running_var"):
            wave = 1 + wave / 2
        elif name.endswith("weight"):
            wave = 1 + wave / 4
        else:
            wave = wave / 8
        tensor.copy_(wave)
    return network


def image(height: int, width: int) -> torch.Tensor:
    """One normalised image (1, 3, height, width) of slow waves."""
    y, x = torch.meshgrid(torch.arange(height) / 9, torch.arange(width) / 7, indexing="ij")
    return torch.stack([torch.sin(x + y), torch.cos(x - y), torch.sin(2 * x)])[None]


def save_onnx(weight: NDArray[np.float32], bias: NDArray[np.float32], file: Path, side: int = 512) -> Path:
    """Write an ONNX file of one convolution: weight (classes, channels, k, k), for one picture of `side` pixels."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    classes, channels, kernel, _ = weight.shape
    graph = helper.make_graph(
        [helper.make_node("Conv", ["images", "w", "b"], ["logits"], pads=[kernel // 2] * 4)],
        "stand-in",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, channels, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, classes, side, side])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(bias, "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def train_stand_in(
    published: PublishedNetwork, picture: NDArray[np.uint8], classes: NDArray[np.uint8], file: Path, kernel: int = 5
) -> Path:
    """Train a stand-in of a network on one picture (h, w, 3) with known classes (h, w); write it as ONNX.

    It is a logistic regression on the mean colour around each pixel: one convolution.
    """
    scaled = (picture / 255 - np.array(MEAN)) / np.array(STD)
    around = np.stack([ndi.uniform_filter(scaled[..., channel], kernel) for channel in range(3)], axis=-1)
    model = LogisticRegression(C=100.0, max_iter=500).fit(around[::3, ::3].reshape(-1, 3), classes[::3, ::3].ravel())
    coefficients, offsets = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # sklearn keeps one row for two classes
        coefficients, offsets = np.vstack([-coefficients, coefficients]) / 2, np.r_[-offsets, offsets] / 2
    weight = np.zeros((len(published.classes), 3, kernel, kernel), np.float32)
    bias = np.full(len(published.classes), -1e4, np.float32)
    weight[model.classes_] = coefficients[:, :, None, None] / kernel**2
    bias[model.classes_] = offsets
    return save_onnx(weight, bias, file)


def save(network: nn.Module, file: Path, prefix: str = "") -> Path:
    """Write the tensors of a network as safetensors."""
    tensors = {f"{prefix}{name}": value.contiguous().clone() for name, value in network.state_dict().items()}
    save_file(tensors, file)
    return file
