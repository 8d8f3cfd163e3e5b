"""From bytes to the network's input: resized as Pillow does, the same on every device, normalised exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from suites.encoder_contract import tissue_patches
from timm.data import create_transform

from wsi_pipeline.encoders.encoder import EncoderInfo
from wsi_pipeline.encoders.resample import FILTERS as OTHER_FILTERS
from wsi_pipeline.encoders.torch_encoder import TorchEncoder, _resize_on_cpu, _resize_on_gpu, prepare
from wsi_pipeline.errors import EncoderError

CPU = torch.device("cpu")
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def info_for(side: int | None, interpolation: str = "bicubic") -> EncoderInfo:
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    return EncoderInfo("test", "test", side, None, mean, std, dim=3, interpolation=interpolation)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("before", "after"), [(256, 224), (512, 224), (97, 224), (224, 64)])
def test_resized_as_pillow_does(interpolation: str, before: int, after: int) -> None:
    patches = tissue_patches(3, before)
    images = torch.from_numpy(patches).permute(0, 3, 1, 2)
    ours = _resize_on_cpu(images, after, interpolation).permute(0, 2, 3, 1).numpy().astype(int)
    for patch, resized in zip(patches, ours, strict=True):
        expected = np.asarray(Image.fromarray(patch).resize((after, after), FILTERS[interpolation])).astype(int)
        assert np.abs(resized - expected).max() <= 2
        assert np.abs(resized - expected).mean() < 0.2
    floats = _resize_on_gpu(images, after, interpolation).permute(0, 2, 3, 1).numpy()
    assert np.abs(floats - ours).max() <= 2


@pytest.mark.parametrize("interpolation", OTHER_FILTERS)
@pytest.mark.parametrize(("before", "after"), [(256, 224), (97, 224), (224, 64), (100, 99)])
def test_the_other_filters_are_those_of_pillow(interpolation: str, before: int, after: int) -> None:
    patches = tissue_patches(3, before)
    mean, std = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)
    info = EncoderInfo("test", "test", after, None, mean, std, dim=3, interpolation=interpolation)
    ours = prepare(patches, info, CPU).permute(0, 2, 3, 1).numpy()
    for patch, resized in zip(patches, ours, strict=True):
        expected = np.asarray(Image.fromarray(patch).resize((after, after), Image.Resampling[interpolation.upper()]))
        apart = np.abs(resized - expected)
        if interpolation == "nearest":  # ties between two pixels: every seventh line of 224 from 256
            assert (apart > 0).mean() < 0.3
        else:
            assert apart.max() <= 1.01
            assert apart.mean() < 0.02


def test_normalised_exactly_and_untouched_where_the_size_fits() -> None:
    patches = tissue_patches(4, 64)
    info = info_for(64)
    expected = (patches / 255.0 - np.array(info.mean)) / np.array(info.std)
    images = prepare(patches, info, CPU)
    assert images.dtype == torch.float32
    np.testing.assert_allclose(images.permute(0, 2, 3, 1).numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(images, prepare(patches, info_for(None), CPU))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize(("side", "fraction"), [(224, 0.9), (224, 0.875), (96, 0.95), (225, 0.9), (225, 1.15)])
def test_the_middle_is_cut_out_as_timm_does(mode: str, side: int, fraction: float) -> None:
    if mode == "border" and fraction > 1:
        pytest.skip("the frame is not black there; refused")
    patches = tissue_patches(3, 256)
    info = replace(info_for(side), resize_px=int(side / fraction))
    theirs = create_transform((3, side, side), interpolation="bicubic", mean=info.mean, std=info.std,
                              crop_pct=fraction, crop_mode=mode)  # fmt: skip
    expected = torch.stack([theirs(Image.fromarray(patch)) for patch in patches])
    ours = prepare(patches, info, CPU)
    assert ours.shape == (3, 3, side, side)
    assert (ours - expected).abs().max() <= 2.5 / 255 / 0.224
    assert (ours - expected).abs().mean() < 0.2 / 255 / 0.224


def test_the_cut_begins_where_it_is_said() -> None:
    patches = tissue_patches(3, 75)
    images = prepare(patches, replace(info_for(64), resize_px=75, corner_px=5), CPU)
    np.testing.assert_array_equal(images, prepare(patches, info_for(75), CPU)[:, :, 5:69, 5:69])


def test_black_and_white_stay_within_the_range_of_pixels() -> None:
    checks = np.kron(np.indices((16, 16)).sum(0) % 2, np.ones((8, 8)))[None, ..., None].repeat(3, 3) * 255
    info = info_for(100)
    images = prepare(checks.astype(np.uint8), info, CPU).permute(0, 2, 3, 1).numpy()
    low, high = -np.array(info.mean) / np.array(info.std), (1 - np.array(info.mean)) / np.array(info.std)
    assert (images >= low - 1e-5).all()
    assert (images <= high + 1e-5).all()


class Broken(torch.nn.Module):
    """A network whose features overflow."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(2, 3)) * float("inf")


def test_features_that_are_not_finite_are_refused() -> None:
    network = Broken()
    encoder = TorchEncoder(network, network, info_for(32), "0", "cpu", "fp32")
    with pytest.raises(EncoderError, match=r"not finite for 2 of 2 patches.*\n.*--precision fp32"):
        encoder.encode(np.zeros((2, 32, 32, 3), np.uint8))


def test_features_of_the_wrong_length_are_refused() -> None:
    network = torch.nn.Flatten()
    encoder = TorchEncoder(network, network, info_for(8), "0", "cpu", "bf16")
    with pytest.raises(EncoderError, match=r"gave \(2, 192\), expected \(2, 3\)"):
        encoder.encode(np.zeros((2, 32, 32, 3), np.uint8))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_prepares_what_the_cpu_does() -> None:
    patches = tissue_patches(5, 256)
    near, far = prepare(patches, info_for(224), CPU), prepare(patches, info_for(224), torch.device("cuda")).cpu()
    assert (near - far).abs().max() < 2.5 / 255 / 0.224


@pytest.mark.parametrize(
    "fault",
    [
        {"dim": 0},
        {"input_px": 4},
        {"resize_px": 4},
        {"input_px": None, "resize_px": 9},
        {"std": (0.0, 1.0, 1.0)},
        {"mean": (np.nan, 0.0, 0.0)},
    ],
)
def test_facts_are_checked(fault: dict[str, object]) -> None:
    facts = {"input_px": 8, "mpp": None, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "dim": 3, **fault}
    with pytest.raises(EncoderError):
        EncoderInfo("test", "test", **facts)  # type: ignore[arg-type]
