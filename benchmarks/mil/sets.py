"""The sets: five classical ones as they are, two of histology as bags of frozen DeiT-Tiny features.

musk1, musk2, elephant, fox, tiger   vectors as published (Dietterich 1997; Andrews 2002)
ucsb    58 images of breast cores, benign or malignant: 35 patches of 224 px at a stride of 112 px
crc     100 images of colon, any epithelial nucleus or none: a 48 px crop round each marked nucleus, enlarged to 112 px;
        as in Ilse et al. 2018, whose instances are 27 px crops round the same nuclei
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.mil.recoloured import recolour
from pathotune.adapters import configure
from pathotune.backbone import BackboneCard, open_backbone
from pathotune.model import PathoTune
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import ArrayImages, batches, normalise
from wsi_pipeline.mil.bags import Bags

DATA = Path(os.environ.get("WSI_PIPELINE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
WEIGHTS = DATA / "weights" / "deit_tiny_patch16_224.fp16.safetensors"
CLASSICAL = ("musk1", "musk2", "elephant", "fox", "tiger")
SETS = (*CLASSICAL, "ucsb", "crc")
_CROP = 48


@dataclass(frozen=True, eq=False)
class MilSet:
    """Bags and their table: slide_id, patient_id (the bag itself), label; `site` is the tissue array for ucsb."""

    bags: Bags
    table: pd.DataFrame


def load_set(name: str, work: Path, stain: str = "none") -> MilSet:
    """A set; features of images are made once and kept in the folder `work`.

    stain   method by which all images are given the stain of one of them first, or none
    """
    if name in CLASSICAL:
        return _classical(name)
    path = work / (f"{name}.npz" if stain == "none" else f"{name}-{stain}.npz")
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        cuts, table = (_ucsb if name == "ucsb" else _crc)()
        if stain != "none":
            done = recolour(cuts, stain)
            cuts = done.cuts
            print(f"{name}, {stain}: target image {done.target}; kept: {done.kept or 'none'}", flush=True)
        features, lengths = _features(cuts, 224 if name == "ucsb" else 112)
        np.savez(path, features=features, lengths=lengths, **{column: table[column].to_numpy(str) for column in table})
    with np.load(path) as found:
        table = pd.DataFrame({key: found[key] for key in found.files if key not in ("features", "lengths")})
        arrays = np.split(found["features"], np.cumsum(found["lengths"])[:-1])
    return MilSet(Bags.from_arrays(arrays, list(table["slide_id"])), table)


def _classical(name: str) -> MilSet:
    with np.load(DATA / "bags" / f"{name.upper()}.npz") as found:
        values, bag, labels = found["X"].astype(np.float32), found["bag"], found["y_bag"]
    numbers = np.unique(bag)
    names = [f"bag{number}" for number in numbers]
    table = pd.DataFrame({"slide_id": names, "patient_id": names, "label": np.where(labels == 1, "yes", "no")})
    return MilSet(Bags.from_arrays([values[bag == number] for number in numbers], names), table)


def _ucsb() -> tuple[list[NDArray[np.uint8]], pd.DataFrame]:
    folder = DATA / "patches" / "ucsb_breast"
    labels = pd.read_csv(folder / "labels.csv", dtype=str)
    cuts = []
    for path in labels["path"]:
        image = _image(folder / path)
        corners = [(y, x) for y in range(0, image.shape[0] - 223, 112) for x in range(0, image.shape[1] - 223, 112)]
        cuts.append(np.stack([image[y : y + 224, x : x + 224] for y, x in corners]))
    names = [Path(path).stem for path in labels["path"]]
    return cuts, pd.DataFrame(
        {"slide_id": names, "patient_id": names, "label": labels["label"], "site": labels["group"]}
    )


def _crc() -> tuple[list[NDArray[np.uint8]], pd.DataFrame]:
    folder = DATA / "patches" / "crc_nuclei"
    images, nuclei = pd.read_csv(folder / "images.csv"), pd.read_csv(folder / "nuclei.csv")
    cuts = []
    for path in images["path"]:
        half = _CROP // 2
        image = np.pad(_image(folder / path), ((half, half), (half, half), (0, 0)), mode="reflect")
        places = nuclei[nuclei["image"] == path]
        height, width = image.shape[0] - _CROP, image.shape[1] - _CROP
        rows = (places["y"].round().astype(int) - 1).clip(0, height)
        columns = (places["x"].round().astype(int) - 1).clip(0, width)
        cuts.append(np.stack([image[y : y + _CROP, x : x + _CROP] for y, x in zip(rows, columns, strict=True)]))
    names = [Path(path).stem for path in images["path"]]
    labels = np.where(images["bag_label_any_epithelial"] == 1, "epithelial", "none")
    return cuts, pd.DataFrame({"slide_id": names, "patient_id": names, "label": labels})


def _features(cuts: list[NDArray[np.uint8]], input_px: int) -> tuple[NDArray[np.float16], NDArray[np.int64]]:
    """[CLS] of every cut, float16 (sum N, 192), and how many each image has."""
    vit, card = open_backbone("deit_tiny_patch16_224", WEIGHTS, input_px=input_px)
    model = PathoTune(configure("linear"), vit).eval()
    rows = [_encode(model, card, cut) for cut in cuts]
    return np.concatenate(rows), np.array([len(row) for row in rows])


@torch.inference_mode()
def _encode(model: PathoTune, card: BackboneCard, cuts: NDArray[np.uint8]) -> NDArray[np.float16]:
    compute = Compute("cuda" if torch.cuda.is_available() else "cpu")
    images = ArrayImages(cuts, np.zeros(len(cuts), np.int64))
    found = []
    for part in batches(images, np.arange(len(cuts)), 64, card, compute.place):
        with compute.lowered():
            found.append(model.to(compute.place).features(normalise(part.images, card)).float().cpu().numpy())
    return np.concatenate(found).astype(np.float16)


def _image(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
