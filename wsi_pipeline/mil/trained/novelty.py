"""Is a slide far from those a model was trained on? The distance of its mean feature, calibrated on slides left out.

The distance is Mahalanobis's, from the mean features of the training slides, under their covariance shrunk towards a
sphere (Ledoit, Wolf 2004, https://doi.org/10.1016/S0047-259X(03)00096-4). It discounts the directions in which
training slides differ anyway, such as the stains of their sites, which the nearest neighbours of a few dozen slides do
not; and it is defined where features have more values than there are slides, for a direction that no training slide
has gone in has the sphere's variance. How far is far is told by the training slides themselves, each measured by a fit
that had none of its patient's: the limit is the distance that at most FALSE_FLAGS of slides like them exceed
(a conformal bound: ranks only, no assumed distribution). Fewer than MIN_PATIENTS patients cannot say that; the flag is
then `unknown`.

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
"""Part of slides like the training slides that are flagged all the same, at most and on average."""
LEAST_SLIDES = 3
"""Below this there is no spread to speak of, and no fit."""
MIN_PATIENTS = 20
"""With fewer, not even the farthest of them marks the limit that one slide in twenty exceeds."""
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
        """The shrunk covariance of `rows` (n, d), which lie in d of `dim` dimensions and do not leave them."""
        mean = rows.mean(axis=0)
        centred = rows - mean
        gram = centred @ centred.T
        level = float(np.trace(gram)) / (len(rows) * dim)
        shrinkage = ledoit_wolf(gram, dim)
        values, vectors = np.linalg.eigh(gram)
        kept = values > max(float(values[-1]), 1e-12) * 1e-10
        basis = (vectors[:, kept] / np.sqrt(values[kept])).T @ centred
        # Never 0, though training slides be all alike: what differs from them is then far.
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
    """What training slides look like, and how far from the rest of them each lies.

    scale        what features are divided by before anything else, (D,): spread of the training patches
    held_out     distances of the training slides, each from a fit without its patient, ascending, (n,)
    n_patients   patients they are of
    """

    ellipsoid: Ellipsoid
    scale: Floats
    held_out: Floats
    n_patients: int

    def limit(self, rate: float = FALSE_FLAGS) -> float | None:
        """The distance that at most `rate` of slides like the training slides exceed; None: too few to tell."""
        n = len(self.held_out)
        rank = math.ceil((n + 1) * (1 - rate))
        return None if rank > n or self.n_patients < MIN_PATIENTS else float(self.held_out[rank - 1])

    def distance(self, bags: Bags) -> Floats:
        """Distance of each bag's mean feature, (B,); NaN for an empty bag. Raises MilError for another width."""
        if bags.dim != len(self.scale):
            raise MilError(f"novelty was fitted on features of {len(self.scale)} values, got {bags.dim}")
        return self.ellipsoid.distance(_means(bags, range(len(bags))) / self.scale)

    def columns(self, bags: Bags) -> pd.DataFrame:
        """One row a bag: slide_id; novelty, the distance in units of the median held-out training slide's;
        far_from_training, `yes`, `no` or `unknown` (too few training patients to tell, or an empty bag).
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
    """Learn what the bags at `rows` (all of them if None) look like; empty bags are passed over.

    patients   of each of those rows; bags of one patient are left out together (default: each bag is its own patient)

    Raises MilError with fewer than LEAST_SLIDES bags that hold anything.
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
    # In the axes of the whole fit every training slide is exact, with at most n numbers instead of D.
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
    told = json.dumps({"format": _FORMAT, "patients": novelty.n_patients})
    write_bytes(folder / FILE, safetensors_bytes(arrays, metadata={"novelty": told}))
    return folder / FILE


def load(folder: str | PathLike[str]) -> Novelty | None:
    """Read what `save` wrote; None without a file (older or tiny trainings). Raises StoreError if damaged."""
    folder = Path(folder)
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, "np") as file:
            told = json.loads((file.metadata() or {}).get("novelty", "{}"))
            arrays = {name: np.asarray(file.get_tensor(name), np.float64) for name in _ARRAYS}
    except (SafetensorError, OSError, ValueError) as error:
        raise StoreError(f"{path} is damaged: {error}", todo="Train again with: wsi-pipeline train-mil") from error
    _check(path, told, arrays)
    body = Ellipsoid(arrays["mean"], arrays["basis"], arrays["variances"], float(arrays["rest"][0]))
    return Novelty(body, arrays["scale"], arrays["held_out"], int(told["patients"]))


def _check(path: Path, told: dict[str, Any], arrays: dict[str, Floats]) -> None:
    dim, rank = len(arrays["mean"]), len(arrays["variances"])
    shapes = {"mean": (dim,), "scale": (dim,), "basis": (rank, dim), "variances": (rank,), "rest": (1,)}
    whole = all(arrays[name].shape == shape for name, shape in shapes.items()) and arrays["held_out"].ndim == 1
    finite = all(np.isfinite(array).all() for array in arrays.values())
    positive = all((arrays[name] > 0).all() for name in ("scale", "variances", "rest"))
    if told.get("format") != _FORMAT or not (whole and finite and positive and len(arrays["held_out"])):
        raise StoreError(f"{path} does not fit together", todo="Train again with: wsi-pipeline train-mil")


def _means(bags: Bags, rows: Sequence[int]) -> Floats:
    """Mean feature of each bag, (b, D); NaN for an empty one."""
    out = np.full((len(rows), bags.dim), np.nan)
    for place, row in enumerate(rows):
        if bags.lengths[row]:
            out[place] = bags.bag(row).double().mean(dim=0).numpy()
    return out


def _spread(bags: Bags, rows: Sequence[int], means: Floats) -> Floats:
    """Standard deviation of all patches of these bags, (D,), never far below that of the typical value."""
    count, centre = bags.lengths[list(rows)], means.mean(axis=0)
    total = np.zeros(bags.dim)
    for row in rows:
        total += ((bags.bag(row).double().numpy() - centre) ** 2).sum(axis=0)
    spread = np.sqrt(total / count.sum())
    # A value that hardly moves in training must not turn the least change into the farthest slide.
    floor = max(0.05 * float(np.median(spread)), 1e-6)
    return np.asarray(np.maximum(spread, floor))


def _held_out(rows: Floats, patient: NDArray[np.int64], dim: int) -> Floats:
    """Distance of each row from a fit without its patient; above 100 patients, without its hundredth of them."""
    parts = min(int(patient.max()) + 1, _MOST_PARTS)
    out = np.empty(len(rows))
    for part in range(parts):
        left = patient % parts == part
        others = rows[~left]
        out[left] = Ellipsoid.of(others, dim).distance(rows[left]) if len(others) > 1 else 0.0
    return out
