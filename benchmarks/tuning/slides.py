"""Whole images as bags: frozen features beside features tuned inside the training part of each fold only.

crc    5 folds over images, stratified; bag label: any epithelial nucleus; instances: up to 60 nuclei an image, tuned on
       the nucleus classes of the training images
ucsb   each of the 5 TMAs held out once; bag label benign or malignant; instances: 12 patches an image, tuned on the
       training images' labels
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold, train_test_split

from benchmarks.tuning.data import Patches, load
from benchmarks.tuning.job import DEVICE, Job, open_vit, train_model
from benchmarks.tuning.shift import features
from pathotune.adapters import configure
from pathotune.model import PathoTune
from pathotune.training.batches import ArrayImages
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.inference import probabilities
from wsi_pipeline.mil.training.fit import fit
from wsi_pipeline.mil.training.objectives import Classification

Json = dict[str, Any]
FOLDS, PER_IMAGE = 5, 60


def run_fold(job: Job) -> Json:
    """Probabilities of the held-out images with frozen and with tuned features: {image: [label, frozen, tuned]}."""
    patches = load(job.dataset)
    images, labels = bag_labels(job.dataset, patches)
    train, val, test = fold_of(job, patches, images, labels)
    rng = np.random.default_rng(job.seed)
    parts = [_patches_of(patches, images[rows], job.sizes[number], rng) for number, rows in enumerate((train, val))]
    tuned, card, _ = train_model(job, *parts)
    frozen = PathoTune(configure("linear"), open_vit(job.backbone)[0])
    chosen = instances_of(patches, images, rng)
    found = {}
    for name, model in (("frozen", frozen), ("tuned", tuned)):
        rows = np.concatenate(chosen)
        values = features(model, card, ArrayImages(patches.pixels[rows], patches.labels[rows]), DEVICE)
        found[name] = _classify(values, chosen, images, labels, (train, val, test), job.seed)
    pairs = zip(images[test], labels[test], found["frozen"], found["tuned"], strict=True)
    return {"bags": {str(image): [int(label), float(a), float(b)] for image, label, a, b in pairs}}


def bag_labels(name: str, patches: Patches) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
    """Images and their labels, 0 or 1."""
    images = np.unique(patches.images)
    positive = patches.classes.index("epithelial" if name == "crc" else "malignant")
    return images, np.array([(patches.labels[patches.images == image] == positive).any() for image in images], np.int64)


def fold_of(
    job: Job, patches: Patches, images: NDArray[np.str_], labels: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Places of the images to train, to validate (a fifth of the others, stratified) and to test."""
    assert job.fold is not None
    if job.dataset == "ucsb":
        groups = np.array([patches.groups[patches.images == image][0] for image in images])
        test = np.flatnonzero(groups == np.unique(groups)[job.fold])
    else:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=job.seed).split(images, labels)
        test = list(folds)[job.fold][1]
    rest = np.setdiff1d(np.arange(len(images)), test)
    train, val = train_test_split(rest, test_size=0.2, stratify=labels[rest], random_state=job.seed)
    return np.sort(train), np.sort(val), test


def _patches_of(patches: Patches, images: NDArray[np.str_], most: int, rng: np.random.Generator) -> ArrayImages:
    rows = rng.permutation(np.flatnonzero(np.isin(patches.images, images)))[:most]
    return ArrayImages(patches.pixels[rows], patches.labels[rows])


def instances_of(patches: Patches, images: NDArray[np.str_], rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Rows of up to PER_IMAGE patches of each image."""
    return [rng.permutation(np.flatnonzero(patches.images == image))[:PER_IMAGE] for image in images]


def _classify(
    values: NDArray[np.float32],
    chosen: list[NDArray[np.int64]],
    images: NDArray[np.str_],
    labels: NDArray[np.int64],
    parts: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    seed: int,
) -> NDArray[np.float64]:
    """Probability of the positive class of the test bags, by gated ABMIL with the pipeline's defaults."""
    ends = np.cumsum([len(rows) for rows in chosen])
    bags = Bags.from_arrays(np.split(values, ends[:-1]), [str(image) for image in images])
    train, val, test = parts
    objective = Classification(torch.from_numpy(labels), 2, balanced=True)
    fitted = fit(bags, objective, train, val, MilSpec(), seed=seed)
    return probabilities(fitted.model, bags, test)[:, 1]
