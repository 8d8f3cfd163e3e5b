"""Small bags with known answers."""

from __future__ import annotations

import numpy as np
import pandas as pd

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags

QUICK = MilSpec(
    hidden_dim=32, attention_dim=16, epochs=40, patience=8, learning_rate=3e-3, bootstrap=200, folds=5, precision="fp32"
)
"""A small model that learns in a second what there is to learn."""


def planted(
    n_slides: int = 60,
    *,
    n_classes: int = 2,
    slides_per_patient: int = 1,
    instances: int = 40,
    dim: int = 24,
    seed: int = 0,
) -> tuple[Bags, pd.DataFrame]:
    """Slides whose class is told by a tenth of their instances; the others are noise."""
    rng = np.random.default_rng(seed)
    patient = np.arange(n_slides) // slides_per_patient
    labels = patient % n_classes
    arrays = []
    for label in labels:
        features = rng.normal(size=(instances + int(rng.integers(-10, 10)), dim))
        features[: instances // 10, label * 5 : label * 5 + 5] += 3.0
        arrays.append(rng.permutation(features).astype(np.float16))
    return Bags.from_arrays(arrays, [f"s{i:03d}" for i in range(n_slides)]), _table(patient, labels)


def patient_noise(
    n_patients: int = 60, *, slides_per_patient: int = 3, dim: int = 24, seed: int = 0
) -> tuple[Bags, pd.DataFrame]:
    """Labels drawn by lot for each patient, features that betray the patient and nothing else.

    A model can only be right about a patient it was trained on.
    """
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), slides_per_patient)
    labels = rng.permutation(np.arange(n_patients) % 2)[patient]
    looks = rng.normal(size=(n_patients, dim)) * 2
    arrays = [(looks[p] + 0.3 * rng.normal(size=(20, dim))).astype(np.float32) for p in patient]
    return Bags.from_arrays(arrays, [f"s{i:03d}" for i in range(len(patient))]), _table(patient, labels)


def random_bags(lengths: list[int], dim: int = 6, seed: int = 0, dtype: type = np.float32) -> Bags:
    """Bags of the given lengths with normal features."""
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=(length, dim)).astype(dtype) for length in lengths]
    return Bags.from_arrays(arrays, [f"s{i}" for i in range(len(lengths))])


def _table(patient: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    names = np.array(["normal", "tumour", "borderline", "necrotic"])
    return pd.DataFrame(
        {
            "slide_id": [f"s{i:03d}" for i in range(len(labels))],
            "patient_id": [f"p{p:03d}" for p in patient],
            "label": names[labels],
        }
    )
