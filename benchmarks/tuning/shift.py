"""Other domains, without training anew: brown instead of pink stain, and another organ.

ihc    the test nuclei with eosin's colour replaced by DAB's brown, after unmixing (Ruifrok and Johnston 2001): what an
       immunostain with haematoxylin would look like; a simulation, not a stained section
ucsb   features of the model tuned on CRC nuclei, frozen, under a logistic regression on UCSB breast patches, whole TMAs
       held out in turn (macro F1 and AUROC over all patches of the three TMAs that have both classes)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.color import hed2rgb, rgb2hed
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.tuning.data import SMALL_TMAS, load
from benchmarks.tuning.job import scores
from pathotune.backbone import BackboneCard
from pathotune.model import PathoTune
from pathotune.training import probabilities
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import ArrayImages, LabelledImages, batches, normalise

Json = dict[str, Any]


def at_test(model: PathoTune, card: BackboneCard, test: ArrayImages, device: str) -> Json:
    """Scores under both shifts."""
    brown = ArrayImages(as_immunostain(test.pixels), test.labels)
    return {
        "ihc": scores(test.labels, probabilities(model, card, brown, Compute(device))),
        "ucsb": probe_ucsb(model, card, device),
    }


def as_immunostain(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """H&E pixels (N, P, P, 3) with the amount of eosin shown in DAB's brown."""
    out = np.empty_like(pixels)
    for first in range(0, len(pixels), 256):
        stains = rgb2hed(pixels[first : first + 256])
        stains[..., 2] = np.maximum(stains[..., 1], 0) + np.maximum(stains[..., 2], 0)
        stains[..., 1] = 0
        out[first : first + 256] = (hed2rgb(stains) * 255).round().clip(0, 255).astype(np.uint8)
    return out


def probe_ucsb(model: PathoTune, card: BackboneCard, device: str) -> Json:
    """A logistic regression on the model's features of breast patches; each small TMA is held out once."""
    patches = load("ucsb")
    found = features(model, card, ArrayImages(patches.pixels, patches.labels), device)
    scored = np.full(len(found), np.nan)
    for held_out in SMALL_TMAS:
        test = patches.groups == held_out
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
        probe.fit(found[~test], patches.labels[~test])
        scored[test] = probe.predict_proba(found[test])[:, 1]
    known = ~np.isnan(scored)
    labels = patches.labels[known]
    return {
        "macro_f1": float(f1_score(labels, scored[known] > 0.5, average="macro")),
        "auroc": float(roc_auc_score(labels, scored[known])),
    }


def features(model: PathoTune, card: BackboneCard, images: LabelledImages, device: str) -> NDArray[np.float32]:
    """Features float32 (N, F)."""
    model.to(device).eval()
    compute, found = Compute(device), []
    for part in batches(images, np.arange(len(images.labels)), 64, card, compute.place):
        with torch.inference_mode(), compute.lowered():
            found.append(model.features(normalise(part.images, card)).float().cpu().numpy())
    return np.concatenate(found)
