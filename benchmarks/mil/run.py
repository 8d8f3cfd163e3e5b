"""One validation of one model on one set: what to run, and what came of it, kept as a line of a file.

Stratified 10-fold cross-validation, repeated; in each fold a tenth of the training bags chooses when to stop, as in the
published protocol. Accuracy is at a probability of one half. AUC is given twice: pooled over a repeat's bags, which
asks that the models of different folds agree on what a probability means, and as the mean over its folds, as papers do.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.mil.sets import load_set
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.validation.crossval import cross_validate_bags

Json = dict[str, Any]
RESULTS = Path(__file__).with_name("results.jsonl")
NUMBERS = ("accuracy", "auc", "auc_folds")


@dataclass(frozen=True)
class Trial:
    """Which set, model and protocol. settings: fields of MilSpec beyond the defaults."""

    name: str
    model: str
    protocol: str = "stratified"
    folds: int = 10
    repeats: int = 5
    settings: Json = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Twelve characters that name the trial."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def spec(self) -> MilSpec:
        """The settings of the validation."""
        given = {"val_fraction": 0.1, **self.settings}
        return MilSpec(
            model=self.model, folds=self.folds, repeats=self.repeats, site_folds=self.protocol == "groups",
            allow_few=True, bootstrap=100, permutations=0, **given,
        )  # fmt: skip


def run(trial: Trial, work: Path) -> Json:
    """Cross-validate; for each repeat the accuracy and both AUCs."""
    found = load_set(trial.name, work)
    result = cross_validate_bags(found.bags, found.table, trial.spec)
    return {"repeats": [_numbers(rows) for _, rows in result.predictions.groupby("repeat")]}


def _numbers(rows: pd.DataFrame) -> Json:
    positive = sorted(rows["label"].unique())[-1]  # malignant, yes; for crc `none`, whose AUC is the same
    truth, score = (rows["label"] == positive).to_numpy(), rows[f"p_{positive}"].to_numpy()
    each = [
        roc_auc_score(truth[places], score[places])
        for places in (np.flatnonzero(rows["fold"] == fold) for fold in rows["fold"].unique())
        if 0 < truth[places].sum() < len(places)
    ]
    return {
        "accuracy": float((rows["predicted"] == rows["label"]).mean()),
        "auc": float(roc_auc_score(truth, score)),
        "auc_folds": float(np.mean(each)),
    }


class Results:
    """Finished trials by key: one JSON object a line, in a file that only grows."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.path = path
        lines = path.read_text().splitlines() if path.is_file() else []
        self._found = {row["key"]: row["result"] for row in map(json.loads, lines)}

    def get(self, trial: Trial) -> Json | None:
        """The result of a trial, or None."""
        return self._found.get(trial.key)

    def put(self, trial: Trial, result: Json) -> None:
        """Keep a result."""
        row = {"key": trial.key, "trial": dataclasses.asdict(trial), "result": result}
        self._found[trial.key] = result
        with self.path.open("a") as file:
            file.write(json.dumps(row, sort_keys=True) + "\n")
