"""High or low risk: patients are divided at the median out-of-fold risk of the validated patients."""

from __future__ import annotations

from typing import Any

import pandas as pd
import torch

from wsi_pipeline.mil.trained.inference import reference_output
from wsi_pipeline.mil.validation.crossval import CrossValidation

Json = dict[str, Any]


def risk_cut_json(result: CrossValidation, device: torch.device | str = "cpu") -> Json:
    """`risk_cut` of metrics.json: the median out-of-fold risk of patients, on the scale of `predict`; {} without risks.

    A patient counts once, with the mean of its rows. Risks of a Cox model are taken against the reference that
    `predict` uses, each fold's against its own.
    """
    table = result.predictions
    if "risk" not in table:
        return {}
    risk = table["risk"].astype(float)
    if result.task.relative:
        zeros = {
            (fold.repeat, fold.number): float(reference_output(fitted.model, device)[0, 0])
            for fold, fitted in zip(result.splits.folds, result.fitted, strict=True)
        }
        risk = risk - [zeros[key] for key in zip(table["repeat"], table["fold"], strict=True)]
    return {"risk_cut": _median(risk, table["patient_id"])}


def _median(risk: pd.Series[float], patient: pd.Series[Any]) -> Json:
    means = risk.groupby(patient.astype(str).to_numpy()).mean()
    return {
        "value": float(means.median()),
        "value_is": "median risk of patients, each by models that never saw it",
        "n_patients": len(means),
    }
