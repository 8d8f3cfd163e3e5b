"""The CUDA path: the same features as on the CPU, batches in flight, JPEGs decoded on the device. Needs a GPU but for
the decoder's layout, which is the same on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.encoders.encoder_files import save_timm
from tests.suites.encoder_contract import assert_same_direction, tissue_patches
from wsi_pipeline.encoders.names import open_encoder
from wsi_pipeline.encoders.nvjpeg import decode_jpegs
from wsi_pipeline.encoders.probe import probe_batch
from wsi_pipeline.errors import EncoderError
from wsi_pipeline.reading.patch_reader import decode_jpeg, encode_jpeg

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
MODEL = "test_vit"


def test_decoded_jpegs_are_those_of_pillow() -> None:
    jpegs = [encode_jpeg(patch, 90) for patch in tissue_patches(4, 64)]
    found = decode_jpegs(jpegs, "cpu")
    assert found.shape == (4, 64, 64, 3)
    np.testing.assert_array_equal(found.numpy(), np.stack([decode_jpeg(data) for data in jpegs]))


def test_what_is_no_jpeg_is_refused() -> None:
    with pytest.raises(EncoderError, match="cannot be decoded on cpu"):
        decode_jpegs([b"no jpeg"], "cpu")
    jpegs = [encode_jpeg(patch, 90) for side in (32, 64) for patch in tissue_patches(2, side)]
    with pytest.raises(EncoderError, match="different sizes"):
        decode_jpegs(jpegs, "cpu")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("side", [160, 96])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_gives_the_features_of_the_cpu(tmp_path: Path, precision: str, side: int) -> None:
    weights, patches = save_timm(tmp_path / "w.safetensors", MODEL), tissue_patches(9, side)
    expected = open_encoder(MODEL, weights=weights, device="cpu", precision="fp32").encode(patches)
    found = open_encoder(MODEL, weights=weights, device="cuda", precision=precision).encode(patches)
    assert_same_direction(expected, found, 0.9999 if precision == "fp32" else 0.995)


@pytest.mark.gpu
@needs_cuda
def test_batches_in_flight_do_not_disturb_each_other(tmp_path: Path) -> None:
    encoder = open_encoder(MODEL, weights=save_timm(tmp_path / "w.safetensors", MODEL), device="cuda")
    batches = [tissue_patches(8 + k, 160, seed=k) for k in range(12)]
    expected = [encoder.encode(batch) for batch in batches]
    buffer = np.empty((20, 160, 160, 3), np.uint8)
    waits = []
    for batch in batches:
        buffer[: len(batch)] = batch
        waits.append(encoder.submit(buffer[: len(batch)]))
        buffer[:] = 0  # a batch may change once submit has returned
    for wait, features in zip(waits, expected, strict=True):
        np.testing.assert_array_equal(wait(), features)


@pytest.mark.gpu
@needs_cuda
def test_nvjpeg_is_close_to_libjpeg() -> None:
    patches = tissue_patches(4, 64)
    jpegs = [encode_jpeg(patch, 90) for patch in patches]
    found = decode_jpegs(jpegs, "cuda").cpu().numpy().astype(int)
    assert np.abs(found - np.stack([decode_jpeg(data) for data in jpegs])).mean() < 2


@pytest.mark.gpu
@needs_cuda
def test_a_probe_on_cuda_names_a_size(tmp_path: Path) -> None:
    encoder = open_encoder(MODEL, weights=save_timm(tmp_path / "w.safetensors", MODEL), device="cuda")
    assert probe_batch(encoder, 160).batch in encoder.batches
