"""The labelled sets of the data folder, cut into patches and split by group; the same for every method.

crc    CRCHistoPhenotypes: 48 px crops round 22,444 nuclei of 4 classes on 100 images; 30 images to test, 15 to validate
ucsb   UCSB breast: 12 patches of 224 px from each of 58 images, benign or malignant as the image is; two of the three
       small TMAs to test (which two depends on the seed), the third to validate, the two others to train
wbc    white blood cells under two stains, 396 images of 4 classes (the 4 basophils are left out): a quarter to test, a
       sixth to validate, by image and stratified by class and stain; task 0 (rapid) and 1 (Romanowsky)
wbc-rapid, wbc-romanowsky   trained and validated on one stain, tested on all images of the other
retina, breast              MedMNIST v2: fundus photographs (5 grades), breast ultrasound (2); the official splits, so a
                            seed decides the training alone
crc-questions, wbc-questions, retina-questions   the same images, two questions with the answers no and yes (QUESTIONS);
       task 0 or 1 says which one is asked: at random in training and validation, both of every image in the test
NAME@N a set of which only N patches a class are drawn to train, and N to validate
both   crc and ucsb together, 6 classes, task 0 (crc) and 1 (ucsb), the same number of training patches of each
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.model_selection import train_test_split
from torch.nn import functional as F

from pathotune.training.batches import ArrayImages

DATA = Path(os.environ.get("WSI_PIPELINE_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CROP, PATCH = 48, 224
INPUT_PX = 112
ASKED = "-questions"
QUESTIONS = {
    "crc": (("epithelial",), ("inflammatory",)),
    "wbc": (("neutrophil",), ("lymphocyte",)),
    "retina": (("grade 1", "grade 2", "grade 3", "grade 4"), ("grade 3", "grade 4")),
}
"""The classes to which each of a set's two questions is answered with yes."""
SMALL_TMAS = ("ytma10", "ytma12", "ytma23")


@dataclass(frozen=True, eq=False)
class Patches:
    """Patches uint8 (N, P, P, 3) with labels, class names, groups (image or TMA) and the image each is from."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    groups: NDArray[np.str_]
    images: NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Part:
    """Training, validation or test patches, and the group of each."""

    data: ArrayImages
    groups: NDArray[np.str_]


@cache
def load(name: str) -> Patches:
    """A whole set."""
    name = name.partition("@")[0]
    if name.startswith("wbc"):
        return _wbc()
    return {"crc": _crc, "ucsb": _ucsb, "retina": _retina, "breast": _breast}[name]()


def classes_of(name: str) -> tuple[str, ...]:
    """Class names of a set."""
    if name.endswith(ASKED):
        return "no", "yes"
    return load("crc").classes + load("ucsb").classes if name == "both" else load(name).classes


def split(name: str, seed: int, sizes: tuple[int, int, int]) -> tuple[Part, Part, Part]:
    """Train, validation, test; groups never split. `sizes` are the most patches of each, drawn at random."""
    if name == "both":
        crc, ucsb = (split(one, seed, tuple(size // 2 for size in sizes)) for one in ("crc", "ucsb"))
        first, second, third = (_join(*parts) for parts in zip(crc, ucsb, strict=True))
        return first, second, third
    if name.endswith(ASKED):
        base = name.removesuffix(ASKED)
        train, validation, test = split(base, seed, (*sizes[:2], max(sizes[2] // 2, 1)))
        return _asked(base, train, seed), _asked(base, validation, seed + 1), _asked(base, test, None)
    name, _, each = name.partition("@")
    patches = load(name)
    rng = np.random.default_rng(seed)
    test, validation = _held_out(name, patches, seed, rng)
    tasks = (patches.groups == "romanowsky").astype(np.int64) if name == "wbc" else None
    parts = []
    for number, rows in enumerate((~test & ~validation, validation, test)):
        chosen = rng.permutation(np.flatnonzero(rows))
        if each and number < 2:
            own = patches.labels[chosen]
            chosen = np.concatenate([chosen[own == label][: int(each)] for label in range(len(patches.classes))])
        chosen = chosen[: sizes[number]]
        own = None if tasks is None else tasks[chosen]
        parts.append(Part(ArrayImages(patches.pixels[chosen], patches.labels[chosen], own), patches.groups[chosen]))
    return parts[0], parts[1], parts[2]


def _asked(name: str, part: Part, seed: int | None) -> Part:
    """The images of a part with one of the two questions each, drawn by the seed; None: both questions for each."""
    count, classes = len(part.groups), load(name).classes
    answers = np.array([[kind in yes for kind in classes] for yes in QUESTIONS[name]], np.int64)
    rows, tasks = np.tile(np.arange(count), 2), np.repeat(np.arange(2), count)
    if seed is not None:
        rows, tasks = np.arange(count), np.random.default_rng(seed).integers(0, 2, count)
    images = ArrayImages(part.data.pixels[rows], answers[tasks, part.data.labels[rows]], tasks)
    return Part(images, part.groups[rows])


def _join(crc: Part, ucsb: Part) -> Part:
    """One part of both sets; patches are brought to one size, and labels of the second follow those of the first."""
    pixels = np.concatenate([_resized(part.data.pixels) for part in (crc, ucsb)])
    labels = np.concatenate([crc.data.labels, ucsb.data.labels + len(load("crc").classes)])
    tasks = np.repeat([0, 1], [len(crc.groups), len(ucsb.groups)])
    return Part(ArrayImages(pixels, labels, tasks), np.concatenate([crc.groups, ucsb.groups]))


def _resized(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    size = (INPUT_PX, INPUT_PX)
    resized = F.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)
    return resized.permute(0, 2, 3, 1).contiguous().numpy()


def _held_out(
    name: str, patches: Patches, seed: int, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    if name == "crc":
        order = rng.permutation(np.unique(patches.groups))
        return np.isin(patches.groups, order[:30]), np.isin(patches.groups, order[30:45])
    if name.startswith("wbc"):
        return _held_out_cells(name, patches, seed)
    if name in ("retina", "breast"):
        return patches.groups == "test", patches.groups == "val"
    kept = SMALL_TMAS[seed % len(SMALL_TMAS)]
    test = [tma for tma in SMALL_TMAS if tma != kept]
    return np.isin(patches.groups, test), patches.groups == kept


def _crc() -> Patches:
    folder = DATA / "patches" / "crc_nuclei"
    table = pd.read_csv(folder / "nuclei.csv")
    classes = tuple(sorted(table["class"].unique()))
    half = CROP // 2
    pixels = np.empty((len(table), CROP, CROP, 3), np.uint8)
    for image, rows in table.groupby("image").indices.items():
        picture = np.pad(_open(folder / str(image)), ((half, half), (half, half), (0, 0)), mode="reflect")
        for row in rows:
            x, y = (int(np.clip(round(table[axis].iloc[row]) - 1, 0, 499)) for axis in "xy")  # they count from 1
            pixels[row] = picture[y : y + CROP, x : x + CROP]
    labels = table["class"].map({name: place for place, name in enumerate(classes)}).to_numpy(np.int64)
    names = table["image"].to_numpy(str)
    return Patches(pixels, labels, classes, names, names)


def _ucsb() -> Patches:
    folder = DATA / "patches" / "ucsb_breast"
    table = pd.read_csv(folder / "labels.csv")
    classes = tuple(sorted(table["label"].unique()))
    pixels, labels, groups, images = [], [], [], []
    for row in table.itertuples():
        for patch in _grid(_open(folder / row.path)):
            pixels.append(patch)
            labels.append(classes.index(row.label))
            groups.append(row.group)
            images.append(row.path)
    return Patches(np.stack(pixels), np.array(labels, np.int64), classes, np.array(groups), np.array(images))


def _held_out_cells(name: str, patches: Patches, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells for testing and validation; stratified by class and stain."""
    strata = np.char.add(patches.groups, patches.labels.astype(str))
    rows = np.arange(len(strata))
    if name == "wbc":
        rest, test = train_test_split(rows, test_size=0.25, stratify=strata, random_state=seed)
    else:
        own = patches.groups == name.removeprefix("wbc-")
        rest, test = rows[own], rows[~own]
    _, validation = train_test_split(rest, test_size=0.2, stratify=strata[rest], random_state=seed)
    return np.isin(rows, test), np.isin(rows, validation)


def _wbc() -> Patches:
    folder = DATA / "patches" / "wbc"
    table = pd.read_csv(folder / "labels.csv")
    table = table[table["label"] != "basophil"]
    classes = tuple(sorted(table["label"].unique()))
    pixels = np.concatenate([_resized(np.array(_open(folder / path))[None]) for path in table["path"]])
    labels = np.array([classes.index(label) for label in table["label"]], np.int64)
    return Patches(pixels, labels, classes, table["stain"].to_numpy(str), table["path"].to_numpy(str))


def _retina() -> Patches:
    return _medmnist("retinamnist", ("grade 0", "grade 1", "grade 2", "grade 3", "grade 4"))


def _breast() -> Patches:
    return _medmnist("breastmnist", ("malignant", "normal or benign"))


def _medmnist(name: str, classes: tuple[str, ...]) -> Patches:
    with np.load(DATA / "patches" / "medmnist" / f"{name}.npz") as found:
        parts = {part: (found[f"{part}_images"], found[f"{part}_labels"]) for part in ("train", "val", "test")}
    pixels = np.concatenate([images for images, _ in parts.values()])
    if pixels.ndim == 3:
        pixels = np.repeat(pixels[..., None], 3, axis=3)
    labels = np.concatenate([own.ravel() for _, own in parts.values()]).astype(np.int64)
    groups = np.concatenate([np.full(len(own), part) for part, (_, own) in parts.items()])
    return Patches(pixels, labels, classes, groups, np.arange(len(labels)).astype(str))


def _grid(picture: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Patches side by side, centred: what is left over at the border is left out."""
    height, width = picture.shape[:2]
    top, left = (height % PATCH) // 2, (width % PATCH) // 2
    return [
        picture[y : y + PATCH, x : x + PATCH]
        for y in range(top, height - PATCH + 1, PATCH)
        for x in range(left, width - PATCH + 1, PATCH)
    ]


def _open(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
