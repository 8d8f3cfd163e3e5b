"""What features are worth on real tissue nobody trained on: a linear classifier on vit-mini, DeiT-Tiny and others.

python benchmarks/builtin/probe.py [--begin /tmp/vit-mini/begin.safetensors]

Breast patches (UCSB, benign or malignant, 224 px, whole TMAs held out) and crops of nuclei (CRC, 4 classes, 48 px
enlarged to 112, whole images held out): five parts, each predicted by a logistic regression fitted on the others.
Intervals: bootstrap over the groups, 95 %. Needs WSI_PIPELINE_DATA.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from corpus import data_folder
from crops import normalise
from distill import TEACHER_WEIGHTS
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from students import Network, agreement, open_teacher
from timm import create_model

from pathotune.backbone import BUILT_IN, open_backbone
from pathotune.builtin import VIT_MINI, default_adapter_path, vit_mini
from pathotune.checkpoint import load_adapter
from pathotune.model import PathoTune
from pathotune.training.arithmetic import ON_CPU

NUCLEI, CROP = 6000, 48
RESAMPLES = 500


@dataclass(frozen=True, eq=False)
class LabelledSet:
    """Pixels uint8 (N, side, side, 3) with a class and a group each."""

    name: str
    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    groups: NDArray[np.int64]


def main() -> None:
    """Print one line for each backbone and set."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--begin", type=Path, help="weights that vit-mini began with")
    options.add_argument("--weights", type=Path, help="weights to look at in place of the package's")
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--only-mini", action="store_true", help="leave out what vit-mini is compared with")
    given = options.parse_args()
    torch.set_num_threads(given.threads)
    teacher = open_teacher(data_folder() / TEACHER_WEIGHTS)
    student = open_backbone(VIT_MINI, given.weights)[0] if given.weights else vit_mini()[0]
    backbones = {"vit-mini": student} if given.only_mini else _compared(student, teacher, given.begin)
    for images in (breast(), nuclei()):
        print(f"{images.name}: {len(images.labels)} images of {len(set(images.groups.tolist()))} groups")
        batches = [normalise(torch.from_numpy(images.pixels[:200]).permute(0, 3, 1, 2).float())]
        print({key: round(value, 4) for key, value in agreement(student, teacher, batches).items()})
        for name, network in backbones.items():
            scores = probe(features(network, images.pixels), images)
            print(f"{name:<28}" + "  ".join(f"{key} {value}" for key, value in scores.items()), flush=True)


def _compared(student: Network, teacher: Network, begin: Path | None) -> dict[str, Network]:
    torch.manual_seed(0)
    base, shape = BUILT_IN[VIT_MINI]
    blank = create_model(base, num_classes=0, dynamic_img_size=True, **shape).eval()
    tuned = load_adapter(default_adapter_path(), vit_mini()[0])
    found = {"vit-mini": student, "the built-in adapter on it": tuned, "DeiT-Tiny": teacher}
    found["vit-mini, random weights"] = blank
    if begin is not None:
        found["vit-mini before teaching"] = open_backbone(VIT_MINI, begin)[0]
    return found


def breast() -> LabelledSet:
    """Six patches of 224 px of each image of the breast set."""
    folder = data_folder() / "patches" / "ucsb_breast"
    rows = _table(folder / "labels.csv")
    corners = [(top, left) for top in (96, 448) for left in (80, 336, 592)]
    images = [np.asarray(Image.open(folder / row["path"]).convert("RGB")) for row in rows]
    pixels = [image[top : top + 224, left : left + 224] for image in images for top, left in corners]
    labels = np.repeat([row["label"] == "malignant" for row in rows], len(corners))
    return LabelledSet("breast", np.stack(pixels), labels.astype(np.int64), _grouped(rows, "group", len(corners)))


def nuclei() -> LabelledSet:
    """A random sample of nuclei, crops of 48 px round each, mirrored at the image's border, enlarged to 112."""
    folder = data_folder() / "patches" / "crc_nuclei"
    rows = _table(folder / "nuclei.csv")
    rows = [rows[k] for k in np.sort(np.random.default_rng(0).permutation(len(rows))[:NUCLEI])]
    names = sorted({row["image"] for row in rows})
    half = CROP // 2
    padded = {
        name: np.pad(
            np.asarray(Image.open(folder / name).convert("RGB")), ((half, half), (half, half), (0, 0)), "reflect"
        )
        for name in names
    }
    pixels = []
    for row in rows:
        x, y = (round(float(row[axis])) - 1 for axis in ("x", "y"))
        crop = padded[row["image"]][y : y + CROP, x : x + CROP]
        pixels.append(np.asarray(Image.fromarray(crop).resize((112, 112), Image.Resampling.BICUBIC)))
    classes = sorted({row["class"] for row in rows})
    labels = np.array([classes.index(row["class"]) for row in rows])
    return LabelledSet("nuclei", np.stack(pixels), labels, _grouped(rows, "image", 1))


def _table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _grouped(rows: list[dict[str, str]], column: str, times: int) -> NDArray[np.int64]:
    return np.repeat(np.unique([row[column] for row in rows], return_inverse=True)[1], times)


@torch.inference_mode()
def features(network: Network, pixels: NDArray[np.uint8], batch: int = 64) -> NDArray[np.float32]:
    """The final [CLS] of each image."""
    parts = []
    for start in range(0, len(pixels), batch):
        images = normalise(torch.from_numpy(pixels[start : start + batch]).permute(0, 3, 1, 2).float())
        with ON_CPU.lowered():
            tokens = network.tokens(images) if isinstance(network, PathoTune) else network.forward_features(images)
            parts.append(tokens[:, 0].float().numpy())
    return np.concatenate(parts)


def probe(vectors: NDArray[np.float32], images: LabelledSet) -> Mapping[str, str]:
    """Scores of a linear classifier on groups it was not fitted on, each with its interval."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    chances = cross_val_predict(
        model, vectors, images.labels, groups=images.groups, cv=GroupKFold(5), method="predict_proba"
    )
    return {"AUROC": _interval(_auroc, chances, images), "macro F1": _interval(_macro_f1, chances, images)}


def _auroc(labels: NDArray[np.int64], chances: NDArray[np.float64]) -> float:
    if chances.shape[1] == 2:
        return float(roc_auc_score(labels, chances[:, 1]))
    return float(roc_auc_score(labels, chances, multi_class="ovr", average="macro"))


def _macro_f1(labels: NDArray[np.int64], chances: NDArray[np.float64]) -> float:
    return float(f1_score(labels, chances.argmax(1), average="macro"))


def _interval(score: Callable[..., float], chances: NDArray[np.float64], images: LabelledSet) -> str:
    """The score, and the middle 95 % of it over resampled groups."""
    members = [np.flatnonzero(images.groups == group) for group in np.unique(images.groups)]
    rng, found = np.random.default_rng(0), []
    for _ in range(RESAMPLES):
        rows = np.concatenate([members[k] for k in rng.integers(len(members), size=len(members))])
        if len(np.unique(images.labels[rows])) == chances.shape[1]:
            found.append(score(images.labels[rows], chances[rows]))
    low, high = np.quantile(found, (0.025, 0.975))
    return f"{score(images.labels, chances):.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
