"""Encoders side by side: patches per second in fp32 and bf16, how far bf16 strays, and what features are worth.

python benchmarks/encoders.py                 DeiT-Tiny and colour on the real patches in WSI_PIPELINE_DATA
python benchmarks/encoders.py --threads 1     with another number of threads (default 2)
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from wsi_pipeline.encoders.colour import ColourEncoder  # noqa: E402
from wsi_pipeline.encoders.encoder import Encoder  # noqa: E402
from wsi_pipeline.encoders.names import open_encoder  # noqa: E402

Patches = NDArray[np.uint8]
Features = NDArray[np.float32]
SIDE, PER_IMAGE = 256, 6


def read_patches(folder: Path) -> tuple[Patches, NDArray[np.int64], list[str]]:
    """Six patches of 256 px of each image of the breast benchmark, the image's label and its TMA."""
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patches = []
    for row in rows:
        image = np.asarray(Image.open(folder / row["path"]).convert("RGB"))
        corners = [(top, left) for top in (64, 448) for left in (64, 320, 576)]
        patches += [image[top : top + SIDE, left : left + SIDE] for top, left in corners]
    return np.stack(patches), np.array([row["label"] == "malignant" for row in rows]), [row["group"] for row in rows]


def encode(encoder: Encoder, patches: Patches, batch: int) -> Features:
    """All features, batch by batch."""
    parts = [encoder.encode(patches[start : start + batch]) for start in range(0, len(patches), batch)]
    return np.concatenate(parts)


def speed(encoder: Encoder, patches: Patches, batch: int, repeats: int) -> tuple[float, float]:
    """Patches per second of wall time and of processor time, the best of `repeats` batches after one to warm up."""
    encode(encoder, patches, batch)
    best = [0.0, 0.0]
    for _ in range(repeats):
        wall, busy = time.perf_counter(), time.process_time()
        encode(encoder, patches, batch)
        spent = time.perf_counter() - wall, time.process_time() - busy
        best = [max(rate, len(patches) / seconds) for rate, seconds in zip(best, spent, strict=True)]
    return best[0], best[1]


def auroc(features: Features, malignant: NDArray[np.int64], groups: list[str]) -> float:
    """Of a linear classifier on the mean feature of each image, on TMAs it was not trained on."""
    images = features.reshape(len(groups), PER_IMAGE, -1).mean(axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    score = cross_val_predict(model, images, malignant, groups=groups, cv=GroupKFold(5), method="decision_function")
    return float(roc_auc_score(malignant, score))


def main() -> None:
    """Print the table of docs/encoders.md."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--threads", type=int, default=2)
    options.add_argument("--repeats", type=int, default=20)
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    data = Path(os.environ.get("WSI_PIPELINE_DATA", ROOT.parent / "shared" / "data"))
    patches, malignant, groups = read_patches(data / "patches" / "ucsb_breast")
    weights = data / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
    deit = [
        open_encoder("deit_tiny_patch16_224", weights=weights, device="cpu", precision=precision)
        for precision in ("fp32", "bf16")
    ]
    colour = ColourEncoder("", threads=given.threads)
    print(f"{platform.processor() or platform.machine()}, {given.threads} threads, torch {torch.__version__}")
    print(f"{len(patches)} patches of {SIDE} px from {len(groups)} images")
    print(f"{'encoder':<24}{'runs as':<28}{'patches/s':>10}{'per core-s':>12}{'AUROC':>8}")
    features = []
    for encoder in (*deit, colour):
        batch = 16 if encoder in deit else encoder.batch
        rates = speed(encoder, patches[:batch], batch, given.repeats)
        features.append(encode(encoder, patches, batch))
        worth = auroc(features[-1], malignant, groups)
        print(f"{encoder.info.name:<24}{encoder.describe(batch):<28}{rates[0]:>10.0f}{rates[1]:>12.0f}{worth:>8.3f}")
    exact, fast = features[0], features[1]
    cosine = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    print(f"cosine of bf16 to fp32: least {cosine.min():.5f}, mean {cosine.mean():.5f} over {len(cosine)} patches")


if __name__ == "__main__":
    main()
