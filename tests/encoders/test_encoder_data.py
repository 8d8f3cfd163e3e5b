"""Encoders on real patches: DeiT-Tiny in both precisions, its labels, and the colour baseline."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_pipeline.encoders.encoder import Encoder
from wsi_pipeline.encoders.names import open_encoder

pytestmark = pytest.mark.data
Labelled = tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.str_]]


@pytest.fixture(scope="module")
def labelled(data_dir: Path) -> Labelled:
    """One 512 px patch from the middle of each image of the breast benchmark, malignant or not, TMA group."""
    folder = data_dir / "patches" / "ucsb_breast"
    with (folder / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    patches = []
    for row in rows:
        image = np.asarray(Image.open(folder / row["path"]).convert("RGB"))
        top, left = (image.shape[0] - 512) // 2, (image.shape[1] - 512) // 2
        patches.append(image[top : top + 512, left : left + 512])
    labels = np.array([row["label"] for row in rows])
    return np.stack(patches), (labels == "malignant").astype(np.int64), np.array([row["group"] for row in rows])


def deit(data_dir: Path, precision: str) -> Encoder:
    weights = data_dir / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
    return open_encoder("deit_tiny_patch16_224", weights=weights, device="cpu", precision=precision)


def auroc(features: NDArray[np.float32], labelled: Labelled) -> float:
    """Of a linear classifier on patches of TMAs that it was not trained on."""
    _, malignant, group = labelled
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000))
    score = cross_val_predict(model, features, malignant, groups=group, cv=GroupKFold(5), method="decision_function")
    return float(roc_auc_score(malignant, score))


def test_deit_in_bf16_points_where_fp32_does(data_dir: Path, labelled: Labelled) -> None:
    patches = labelled[0][::7]
    exact, fast = (deit(data_dir, precision).encode(patches) for precision in ("fp32", "bf16"))
    assert exact.shape == (len(patches), 192)
    cosine = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert cosine.min() >= 0.999


def test_features_of_real_tissue_tell_malignant_from_benign(data_dir: Path, labelled: Labelled) -> None:
    """Both encoders find more than chance in one patch per image (0.5 by chance; 58 images)."""
    assert auroc(deit(data_dir, "auto").encode(labelled[0]), labelled) > 0.6
    assert auroc(open_encoder("colour").encode(labelled[0]), labelled) > 0.6
