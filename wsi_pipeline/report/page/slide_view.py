"""Data of the report's section on slides, ready for the template: stacked pictures, predictions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wsi_pipeline.report.data import ModelSection, SlideRow, as_number
from wsi_pipeline.report.maps.pictures import embedded
from wsi_pipeline.statistics.metric_words import CLASS_TASKS

CARD_PX = 420
"""Largest height of a picture on the page, pixels."""


@dataclass(frozen=True)
class SlidePrediction:
    """One model's prediction for one slide; `right` is None if the true class is unknown."""

    predicted: str
    probability: float | None
    fold: str | None
    right: bool | None


def slide_cards(slides: Sequence[SlideRow], models: Sequence[ModelSection]) -> list[dict[str, Any]]:
    """One card per slide with a picture: its pictures, and each model's prediction in the order of `models`."""
    predictors = [_predictions(model) for model in models]
    cards = []
    for index, slide in enumerate(slides):
        predictions = [predict(slide) for predict in predictors]
        if slide.overlay_png or slide.heatmaps:
            heats = [
                {
                    "model": i,
                    "name": model.key,
                    "picture": picture_view(slide.heatmaps.get(model.key)),
                    "sheet": picture_view(slide.sheets.get(model.key)),
                    "prediction": predictions[i],
                }
                for i, model in enumerate(models)
                if predictions[i] or model.key in slide.heatmaps
            ]
            overlay, plain = picture_view(slide.overlay_png), picture_view(slide.thumbnail)
            cards.append({"index": index, "slide": slide, "overlay": overlay, "plain": plain, "heats": heats})
    return cards


def picture_view(encoded: bytes | None) -> dict[str, Any] | None:
    """URI and size of a picture, and the width at which it is CARD_PX high."""
    if encoded is None:
        return None
    picture = embedded(encoded)
    return {**picture, "widest": round(CARD_PX * picture["width"] / picture["height"])}


def _predictions(model: ModelSection) -> Callable[[SlideRow], SlidePrediction | None]:
    """A function that looks up a model's prediction for a slide (for its patient, if bags are patients).

    Of several repeats the first counts.
    """
    rows = [] if model.predictions is None else model.predictions.to_dict("records")
    key = "slide_id" if model.predictions is not None and "slide_id" in model.predictions else "patient_id"
    found: dict[str, SlidePrediction] = {}
    for row in rows:
        prediction = _prediction(row, model.task)
        if prediction is not None:
            found.setdefault(str(row[key]), prediction)
    return lambda slide: found.get(str(getattr(slide, key)))


def _prediction(row: Mapping[Hashable, Any], task: str) -> SlidePrediction | None:
    fold = row.get("fold")
    fold_name = None if missing(fold) else f"{fold:g}" if isinstance(fold, float) else str(fold)
    value = row.get("risk" if task == "survival" else "predicted")
    if missing(value):
        return None
    if task not in CLASS_TASKS:
        number = as_number(float(value))  # type: ignore[arg-type]
        return None if number is None else SlidePrediction(f"{number:.4g}", None, fold_name, None)
    truth = row.get("label")
    right = None if missing(truth) else str(truth) == str(value)
    return SlidePrediction(str(value), as_number(row.get(f"p_{value}")), fold_name, right)


def missing(value: Any) -> bool:
    """True for None, NaN and NaT."""
    return value is None or bool(pd.isna(value))
