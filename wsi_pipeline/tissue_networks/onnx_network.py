"""A published network from an ONNX file, run by onnxruntime on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.tissue_networks.published import MEAN, STD, WINDOW, Labels, Network, PublishedNetwork
from wsi_pipeline.wording import first_line


def open_onnx(published: PublishedNetwork, file: Path) -> Network:
    """The network in an ONNX file: normalised images in, logits out.

    Raises UsageError without onnxruntime, EncoderError, naming the shapes, if the file does not take one window or
    does not give one value per class and pixel.
    """
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as state
    except ImportError:
        raise UsageError(
            f"{file} is ONNX, which needs onnxruntime", todo="pip install 'wsi-pipeline[onnx]', or give safetensors."
        ) from None
    # onnxruntime's errors share no base class but Exception.
    kinds = (each for each in vars(state).values() if isinstance(each, type) and issubclass(each, Exception))
    faults: tuple[type[Exception], ...] = (*kinds, RuntimeError, ValueError)
    try:
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    except faults as error:
        raise EncoderError(f"{file} is not an ONNX file that can be run: {first_line(error)}") from None
    inputs, wanted = session.get_inputs(), (1, len(published.classes), WINDOW, WINDOW)

    def logits(images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (1, classes, h, w) of one image (1, 3, h, w)."""
        found: NDArray[np.float32] = session.run(None, {inputs[0].name: images})[0]
        return found

    try:
        shape = logits(np.zeros((1, 3, WINDOW, WINDOW), np.float32)).shape
    except faults as error:
        takes = ", ".join(f"{each.name} {tuple(each.shape)}" for each in inputs)
        raise EncoderError(
            f"{file} does not fit {published.name}: it takes {takes} instead of (1, 3, {WINDOW}, {WINDOW})"
            f" ({first_line(error)})",
            todo=f"Published weights: {published.where}.",
        ) from None
    if shape != wanted:
        raise EncoderError(
            f"{file} does not fit {published.name}: its first output is {tuple(shape)} instead of {wanted}",
            todo=f"Published weights: {published.where}.",
        )

    def run(windows: NDArray[np.uint8]) -> Labels:
        """Classes of windows, one by one: a file may be fixed to batches of one."""
        scaled = (windows.astype(np.float32) / 255 - np.asarray(MEAN, np.float32)) / np.asarray(STD, np.float32)
        images = np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
        return np.stack([logits(image[None])[0].argmax(axis=0).astype(np.uint8) for image in images])

    return run
