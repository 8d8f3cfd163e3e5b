"""Nearest slides by their embeddings, and what the labels of neighbours of other patients predict.

Each value of the embeddings is standardised over the cohort; slides are then compared by the cosine of the angle
between them. Labels are not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.make_task import make_task
from wsi_pipeline.mil.tasks.task import Task, numbers_of
from wsi_pipeline.mil.training.seeding import sub_seed
from wsi_pipeline.mil.validation.validation_metrics import metric_warnings, permutation_json, pooled_estimates
from wsi_pipeline.statistics.estimates import LEVEL, Resampler

Floats = NDArray[np.float64]
Json = dict[str, Any]
_FLAT = 1e-12
_ROWS = 1024


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The order of all slides around each.

    units     float64 (S, D), standardised embeddings of length 1; all 0 for a slide equal to the cohort's mean
    patients  of each slide, (S,)
    """

    units: Floats
    patients: NDArray[np.object_]

    @classmethod
    def of(cls, embeddings: NDArray[np.floating[Any]], patients: pd.Series[str]) -> Neighbours:
        """Embeddings (S, D) of at least two slides."""
        if len(embeddings) < 2:
            raise MilError(f"neighbours need at least two slides with embeddings, got {len(embeddings)}")
        values = np.asarray(embeddings, np.float64)
        centred = values - values.mean(0)
        spread = centred.std(0)
        scaled = np.divide(centred, spread, out=np.zeros_like(centred), where=spread > _FLAT)
        length = np.linalg.norm(scaled, axis=1, keepdims=True)
        units = np.divide(scaled, length, out=np.zeros_like(scaled), where=length > _FLAT)
        return cls(units, patients.astype(str).to_numpy(dtype=object))

    def around(self, row: int) -> tuple[NDArray[np.int64], Floats]:
        """All other slides by falling similarity, equal ones in order, and their similarity, -1 to 1."""
        similarity = self.units @ self.units[row]
        order = np.argsort(-similarity, kind="stable")
        order = order[order != row]
        return order, similarity[order]

    def table(self, slides: pd.DataFrame, most: int, rows: NDArray[np.int64] | None = None) -> pd.DataFrame:
        """Per slide the `most` nearest slides of other patients, and slides of its own patient that are as near.

        slides   slide_id, patient_id, label and perhaps site of each slide
        rows     slides to list the neighbours of; None: all

        Columns: slide_id, rank (counted from 1 among other patients; none for the same patient), neighbour,
        similarity, same_patient (yes, no), and patient_id, label and site of the neighbour.
        """
        about = [column for column in ("patient_id", "label", "site") if column in slides]
        found: list[pd.DataFrame] = []
        for row in range(len(slides)) if rows is None else rows.tolist():
            order, similarity = self.around(row)
            own = self.patients[order] == self.patients[row]
            rank = np.cumsum(~own)
            last = np.flatnonzero(~own & (rank == min(most, rank[-1])))
            shown = np.arange(len(order)) <= (last[0] if len(last) else len(order))
            frame = slides.iloc[order[shown]][["slide_id", *about]].rename(columns={"slide_id": "neighbour"})
            frame = frame.reset_index(drop=True)
            frame.insert(0, "slide_id", slides["slide_id"].iloc[row])
            frame.insert(1, "rank", pd.Series(np.where(own, 0, rank)[shown], dtype="Int64"))
            frame.loc[own[shown], "rank"] = pd.NA
            frame.insert(3, "similarity", similarity[shown])
            frame.insert(4, "same_patient", np.where(own[shown], "yes", "no"))
            found.append(frame)
        return pd.concat(found, ignore_index=True)

    def others(self, most: int) -> list[NDArray[np.int64]]:
        """For each slide the rows of its `most` nearest slides of other patients."""
        found = []
        for start in range(0, len(self.units), _ROWS):
            similarity = self.units[start : start + _ROWS] @ self.units.T
            for row, line in enumerate(similarity, start):
                order = np.argsort(-line, kind="stable")
                found.append(order[self.patients[order] != self.patients[row]][:most])
        return found


def same_site(embeddings: NDArray[np.floating[Any]], slides: pd.DataFrame, most: int) -> Json | None:
    """Share of slides from the slide's own site: among its `most` nearest of other patients, and among all of these.

    slides   slide_id, patient_id, site of each slide; without a site it is left out

    None with fewer than two sites. Where the first share is far above the second, embeddings tell sites apart.
    """
    known = slides["site"].notna().to_numpy() if "site" in slides else np.zeros(len(slides), bool)
    site, patients = slides["site"][known].astype(str).to_numpy() if known.any() else np.zeros(0), slides["patient_id"]
    if len(np.unique(site)) < 2:
        return None
    found = Neighbours.of(np.asarray(embeddings)[known], patients[known])
    near = [site[rows] == own for rows, own in zip(found.others(most), site, strict=True) if len(rows)]
    others = [found.patients != own for own in found.patients]
    among = [(site[rows] == own).mean() for rows, own in zip(others, site, strict=True) if rows.any()]
    return {"near": float(np.mean([rows.mean() for rows in near])), "all": float(np.mean(among)), "neighbours": most}


def score_neighbours(embeddings: NDArray[np.floating[Any]], slides: pd.DataFrame, most: int, spec: MilSpec) -> Json:
    """How well the `most` nearest labelled slides of other patients predict the label of a slide.

    slides   slide_id, patient_id, label; all labelled
    spec     task (classification or regression), positive, bootstrap, permutations and seed

    Classification: the share of each class among the neighbours, ties broken by the nearer ones; regression: their
    mean. Metrics with intervals as in metrics.json of train-mil. Raises MilError as `make_task` does.
    """
    task = make_task(slides, spec)
    if slides["patient_id"].nunique() < 2:
        raise MilError("neighbours of other patients need at least two patients")
    near = Neighbours.of(embeddings, slides["patient_id"]).others(most)
    predictions = pd.concat(
        [slides.reset_index(drop=True), task.outcomes(_outputs(task, slides, near))], axis=1
    ).assign(repeat=0, fold=0)
    every = task.evaluate(predictions)
    resampler = Resampler(predictions["patient_id"], spec.bootstrap, sub_seed(spec.seed, 2, 0))
    pooled, _ = pooled_estimates([(np.ones(len(slides), bool), every)], resampler)
    says = "fraction of label permutations across patients that fit the votes at least as well as the true labels do"
    return {
        "task": task.name,
        "neighbours": most,
        "similarity": "cosine of embeddings standardised over the cohort",
        "n_slides": len(slides),
        "n_patients": resampler.n,
        "interval": {
            "level": LEVEL, "unit": "patient", "resamples": spec.bootstrap,
            "method": "percentile bootstrap of predictions from slides of other patients",
        },
        "pooled": pooled,
        "chance": every.chance(),
        "permutation": permutation_json(task, predictions, [every], spec, says),
        "warnings": metric_warnings(task, predictions, pooled, spec.bootstrap),
    }  # fmt: skip


def _outputs(task: Task, slides: pd.DataFrame, near: list[NDArray[np.int64]]) -> Floats:
    """The votes in the form of model outputs: logits of the classes (S, C), or standardised numbers (S, 1)."""
    if not task.classes:
        values = (numbers_of(slides, "label") - task.to_json()["mean"]) / task.to_json()["sd"]
        return np.array([[values[rows].mean()] for rows in near])
    codes, shares = task.strata(slides), np.zeros((len(slides), len(task.classes)))
    for row, rows in enumerate(near):
        # Nearer neighbours weigh slightly more, only enough to break ties.
        np.add.at(shares[row], codes[rows], 1 + 1e-6 * np.arange(len(rows), 0, -1))
    logits: Floats = np.log(shares / shares.sum(1, keepdims=True) + 1e-12)
    return logits
