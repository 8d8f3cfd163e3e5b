"""Novelty: how far a slide is from those a model was trained on, calibrated on held-out training slides.

The distance is the Mahalanobis distance of the slide's mean feature from those of the training slides, with their
covariance shrunk towards a multiple of the identity (Ledoit, Wolf 2004,
https://doi.org/10.1016/S0047-259X(03)00096-4). It discounts directions in which training slides vary anyway, such as
the stains of their sites; nearest neighbours among a few dozen slides do not. Shrinkage also makes it defined with more
features than slides. The limit is calibrated on the training slides, each measured by a fit without its patient: at
most FALSE_FLAGS of slides like them exceed it (a conformal bound from ranks, no assumed distribution). With fewer than
MIN_PATIENTS patients there is no such bound, and the flag is `unknown`.

    novelty.safetensors   mean, scale (D,), basis (r, D), variances (r,), rest (1,), held_out (n,); float32
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as safetensors_bytes

from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.system.atomic import write_bytes

FILE = "novelty.safetensors"
FALSE_FLAGS = 0.05
"""Expected fraction of slides like the training slides that are flagged, at most."""
LEAST_SLIDES = 3
"""Fewest slides for a fit."""
MIN_PATIENTS = 20
"""With fewer, not even the largest distance bounds 19 of 20 slides."""
YES, NO, UNKNOWN = "yes", "no", "unknown"

_FORMAT = "wsi-pipeline-novelty 1"
_MOST_PARTS = 100
_ARRAYS = ("mean", "scale", "basis", "variances", "rest", "held_out")

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    """A mean and a covariance in D dimensions: `variances` (r,) along `basis` (r, D), `rest` elsewhere."""

    mean: Floats
    basis: Floats
    variances: Floats
    rest: float

    @classmethod
    def of(cls, rows: Floats, dim: int) -> Ellipsoid:
        """The shrunk covariance of `rows` (n, d), which span d of `dim` dimensions."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        gram = centred @ centred.T
        level = float(np.trace(gram)) / (len(rows) * dim)
        shrinkage = ledoit_wolf(gram, dim)
        values, vectors = np.linalg.eigh(gram)
        kept = values > max(float(values[-1]), 1e-12) * 1e-10
        basis = (vectors[:, kept] / np.sqrt(values[kept])).T @ centred
        # Never 0, even if all training slides are equal: any other slide is then far.
        rest = max(shrinkage * level, level * 1e-6, 1e-12)
        return cls(mean, basis, (1 - shrinkage) * values[kept] / len(rows) + rest, rest)

    def distance(self, rows: Floats) -> Floats:
        """Mahalanobis distance of each row (m, D), (m,)."""
        away = rows - self.mean
        along = away @ self.basis.T
        beyond = np.maximum((away**2).sum(axis=1) - (along**2).sum(axis=1), 0.0)
        return np.asarray(np.sqrt((along**2 / self.variances).sum(axis=1) + beyond / self.rest))


@dataclass(frozen=True, eq=False)
class Novelty:
    """The distribution of training slides, and the held-out distance of each.

    scale        standard deviation (D,) of the training patches, by which features are divided first
    held_out     distances (n,) of the training slides, each from a fit without its patient, ascending
    n_patients   number of their patients
    """

    ellipsoid: Ellipsoid
    scale: Floats
    held_out: Floats
    n_patients: int

    def limit(self, rate: float = FALSE_FLAGS) -> float | None:
        """The distance that at most `rate` of slides like the training slides exceed; None with too few patients."""
        n = len(self.held_out)
        rank = math.ceil((n + 1) * (1 - rate))
        return None if rank > n or self.n_patients < MIN_PATIENTS else float(self.held_out[rank - 1])

    def distance(self, bags: Bags) -> Floats:
        """Distance of each bag's mean feature, (B,); NaN for an empty bag. Raises MilError for another width."""
        if bags.dim != len(self.scale):
            raise MilError(f"novelty was fitted on features of {len(self.scale)} values, got {bags.dim}")
        return self.ellipsoid.distance(_means(bags, range(len(bags))) / self.scale)

    def columns(self, bags: Bags) -> pd.DataFrame:
        """One row per bag: slide_id; novelty, the distance over the median held-out distance of training slides;
        far_from_training, `yes`, `no` or `unknown` (too few training patients, or an empty bag).
        """
        distance, limit = self.distance(bags), self.limit()
        flags = [UNKNOWN if limit is None or math.isnan(d) else YES if d > limit else NO for d in distance.tolist()]
        return pd.DataFrame(
            {"slide_id": list(bags.slide_ids), "novelty": distance / self._unit, "far_from_training": flags}
        )

    @property
    def _unit(self) -> float:
        return max(float(np.median(self.held_out)), 1e-12)


def fit(bags: Bags, rows: Sequence[int] | None = None, patients: Sequence[str] | None = None) -> Novelty:
    """Fit the bags at `rows` (all of them if None); empty bags are skipped.

    patients   of each of those rows; bags of one patient are held out together (default: each bag is its own patient)

    Raises MilError with fewer than LEAST_SLIDES bags with patches.
    """
    chosen = np.arange(len(bags)) if rows is None else np.asarray(rows, np.int64)
    who = np.array([bags.slide_ids[i] for i in chosen] if patients is None else list(patients), dtype=np.str_)
    filled = bags.lengths[chosen] > 0
    chosen, who = chosen[filled], who[filled]
    if len(chosen) < LEAST_SLIDES:
        raise MilError(f"novelty needs at least {LEAST_SLIDES} slides with patches, got {len(chosen)}")
    means = _means(bags, chosen.tolist())
    scale = _spread(bags, chosen.tolist(), means)
    means = means / scale
    whole = Ellipsoid.of(means, bags.dim)
    # In the axes of the whole fit training slides are represented exactly, by at most n numbers instead of D.
    turned = (means - whole.mean) @ whole.basis.T
    names, member = np.unique(who, return_inverse=True)
    return Novelty(whole, scale, np.sort(_held_out(turned, member, bags.dim)), len(names))


def ledoit_wolf(gram: Floats, dim: int) -> float:
    """Shrinkage in [0, 1] of a covariance of centred rows, from their inner products (n, n); `dim` values each."""
    n, trace = len(gram), float(np.trace(gram)) / len(gram)
    squared = float((gram**2).sum()) / n**2
    spread = (squared - trace**2 / dim) / dim
    noise = (float((np.diag(gram) ** 2).sum()) / n - squared) / (n * dim)
    return 1.0 if spread <= 0 else float(np.clip(noise / spread, 0.0, 1.0))


def save(folder: Path, novelty: Novelty) -> Path:
    """Write `novelty.safetensors` into `folder`, atomically; returns its path."""
    body = novelty.ellipsoid
    values = (body.mean, novelty.scale, body.basis, body.variances, np.array([body.rest]), novelty.held_out)
    arrays = {name: np.ascontiguousarray(value, np.float32) for name, value in zip(_ARRAYS, values, strict=True)}
    facts = json.dumps({"format": _FORMAT, "patients": novelty.n_patients})
    write_bytes(folder / FILE, safetensors_bytes(arrays, metadata={"novelty": facts}))
    return folder / FILE


def load(folder: str | PathLike[str]) -> Novelty | None:
    """Read what `save` wrote; None without a file (older or tiny trainings). Raises StoreError if damaged."""
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            facts = json.loads((file.metadata() or {}).get("novelty", "{}"))
            arrays = {name: np.asarray(file.get_tensor(name), np.float64) for name in _ARRAYS}
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}", todo="Train again with: wsi-pipeline train-mil") from error
    _check(path, facts, arrays)
    body = Ellipsoid(arrays["mean"], arrays["basis"], arrays["variances"], float(arrays["rest"][0]))
    return Novelty(body, arrays["scale"], arrays["held_out"], int(facts["patients"]))


def _check(path: Path, facts: dict[str, Any], arrays: dict[str, Floats]) -> None:
    dim, rank = len(arrays["mean"]), len(arrays["variances"])
    shapes = {"mean": (dim,), "scale": (dim,), "basis": (rank, dim), "variances": (rank,), "rest": (1,)}
    whole = all(arrays[name].shape == shape for name, shape in shapes.items()) and arrays["held_out"].ndim == 1
    finite = all(np.isfinite(array).all() for array in arrays.values())
    positive = all((arrays[name] > 0).all() for name in ("scale", "variances", "rest"))
    if facts.get("format") != _FORMAT or not (whole and finite and positive and len(arrays["held_out"])):
        raise StoreError(f"{path} does not fit together", todo="Train again with: wsi-pipeline train-mil")


def _means(bags: Bags, rows: Sequence[int]) -> Floats:
    """Mean feature of each bag, (b, D); NaN for an empty one."""
    out = np.full((len(rows), bags.dim), np.nan)
    for place, row in enumerate(rows):
        if bags.lengths[row]:
            out[place] = bags.bag(row).double().mean(dim=0).numpy()
    return out


def _spread(bags: Bags, rows: Sequence[int], means: Floats) -> Floats:
    """Standard deviation (D,) of all patches of these bags, with a floor of a twentieth of its median."""
    count, centre = bags.lengths[list(rows)], means.mean(axis=0)
    total = np.zeros(bags.dim)
    for row in rows:
        total += ((bags.bag(row).double().numpy() - centre) ** 2).sum(axis=0)
    spread = np.sqrt(total / count.sum())
    # A feature that is almost constant in training must not make small changes look far.
    floor = max(0.05 * float(np.median(spread)), 1e-6)
    return np.asarray(np.maximum(spread, floor))


def _held_out(rows: Floats, patient: NDArray[np.int64], dim: int) -> Floats:
    """Distance of each row from a fit without its patient; above 100 patients, without its group of patients."""
    parts = min(int(patient.max()) + 1, _MOST_PARTS)
    out = np.empty(len(rows))
    for part in range(parts):
        left = patient % parts == part
        others = rows[~left]
        out[left] = Ellipsoid.of(others, dim).distance(rows[left]) if len(others) > 1 else 0.0
    return out
