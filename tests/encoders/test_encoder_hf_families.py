"""Every vision family of transformers that builds small: the pixels of its own processor, its own row, twice the same.

Run with --log-cli-level=INFO to see the table that docs/encoders.md keeps.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from hf_families import FAMILIES, save_family
from PIL import Image
from suites.encoder_contract import tissue_patches

from wsi_pipeline.encoders.names import encoder_info, open_encoder

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("model_type", FAMILIES)
def test_features_are_the_models_own(tmp_path: Path, model_type: str) -> None:
    folder = save_family(tmp_path, model_type)
    info = encoder_info(str(folder))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder).eval()
    worst = []
    for side in (info.input_px, 256):
        patches = tissue_patches(4, side)
        images = [Image.fromarray(patch) for patch in patches]
        pixels = processor(images=images, return_tensors="pt")["pixel_values"]
        with torch.inference_mode():
            expected = FAMILIES[model_type].read(network, pixels).numpy()
        encoder = open_encoder(str(folder), device="cpu", precision="fp32", patch_px=side)
        features = encoder.encode(patches)
        np.testing.assert_array_equal(features, encoder.encode(patches))
        assert expected.shape == (4, info.dim)
        worst.append(np.abs(features - expected).max() / np.abs(expected).max())
    # DINOv3's processor does not round resized pixels to bytes, ours does.
    assert max(worst) < (0.02 if "DINOv3" in type(processor).__name__ else 1e-4), worst
    again = open_encoder(str(folder), device="cpu", precision="fp32", patch_px=256).encode(patches)
    np.testing.assert_array_equal(again, features)
    assert len(np.unique(features, axis=0)) == 4
    shown = f"{info.resize_px}, then the central {info.input_px}" if info.resize_px else info.input_px
    logging.getLogger(__name__).info(
        "| `%s` | %s | %s | %s | %s |", model_type, type(processor).__name__, shown, info.interpolation, info.feature
    )
