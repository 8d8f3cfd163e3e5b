"""Small labelled images and a small backbone, as real files, for the tests of tune."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file

BACKBONE = "test_vit"  # timm's smallest plain ViT: 6 layers, 64 wide
SIDE = 32
CLASSES = ("gland", "odd & <name>", "stroma")
_TINTS = {"gland": (150, 95, 175), "odd & <name>": (120, 160, 130), "stroma": (215, 130, 160)}


def texture(label: str, seed: int) -> NDArray[np.uint8]:
    """A grainy square in the tint of its class, some stained more strongly than others."""
    rng = np.random.default_rng(seed)
    grain = rng.normal(0, 30, (SIDE, SIDE, 1)) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return np.clip(np.array(_TINTS[label]) + rng.normal(0, 12) + grain, 0, 255).astype(np.uint8)


def write_class_folders(folder: Path, *, groups: int = 8, each: int = 4) -> Path:
    """`folder`/<class>/<group>/<n>.png: every group (patient) has `each` images of every class."""
    for k, label in enumerate(CLASSES):
        for group in range(groups):
            place = folder / label / f"patient {group}"
            place.mkdir(parents=True, exist_ok=True)
            for n in range(each):
                Image.fromarray(texture(label, 10_000 * k + 100 * group + n)).save(place / f"{n}.png")
    return folder


def write_backbone(path: Path, seed: int = 0) -> Path:
    """Weights of a backbone that never learned anything."""
    torch.manual_seed(seed)
    save_file(timm.create_model(BACKBONE, pretrained=False, num_classes=0).state_dict(), path)
    return path


def label_rows(crops: Path) -> pd.DataFrame:
    """The images of `write_class_folders` as rows of a CSV: path, label, group."""
    paths = sorted(crops.rglob("*.png"))
    return pd.DataFrame(
        {"path": [str(path) for path in paths], "label": [path.parts[-3] for path in paths]}
        | {"group": [path.parts[-2] for path in paths]}
    )
