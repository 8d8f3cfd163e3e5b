"""What the report's section on slides shows, made ready for the template: pictures laid on each other, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from wsi_pipeline.report.data import ModelSection, SlideRow, as_number
from wsi_pipeline.report.maps.pictures import data_uri, picture_size
from wsi_pipeline.statistics.metric_words import OF_CLASSES

CARD_PX = 420
"""Greatest height of a picture on the page."""


@dataclass(frozen=True)
class SlidePrediction:
    """One model's prediction for one slide; `right` is None if the true class is unknown."""

    predicted: str
    probability: float | None
    fold: str | None
    right: bool | None


def slide_cards(slides: Sequence[SlideRow], models: Sequence[ModelSection]) -> list[dict[str, Any]]:
    """One card per slide that has a picture: its pictures and what each model says, models in the order of the page."""
    told = [_predictions(model) for model in models]
    cards = []
    for index, slide in enumerate(slides):
        said = [of(slide) for of in told]
        if slide.overlay_png or slide.heatmaps:
            heats = [
                {
                    "model": i,
                    "name": model.key,
                    "picture": picture_view(slide.heatmaps.get(model.key)),
                    "sheet": picture_view(slide.sheets.get(model.key)),
                    "said": said[i],
                }
                for i, model in enumerate(models)
                if said[i] or model.key in slide.heatmaps
            ]
            overlay, plain = picture_view(slide.overlay_png), picture_view(slide.thumbnail)
            cards.append({"index": index, "slide": slide, "overlay": overlay, "plain": plain, "heats": heats})
    return cards


def picture_view(encoded: bytes | None) -> dict[str, Any] | None:
    """Address and size of a picture, and how wide it may be so that it is not higher than CARD_PX."""
    if encoded is None:
        return None
    width, height = picture_size(encoded)
    return {"uri": data_uri(encoded), "width": width, "height": height, "widest": round(CARD_PX * width / height)}


def _predictions(model: ModelSection) -> Callable[[SlideRow], SlidePrediction | None]:
    """What a model says of a slide (of its patient where bags are patients); the first of several repeats."""
    rows = [] if model.predictions is None else model.predictions.to_dict("records")
    key = "slide_id" if model.predictions is not None and "slide_id" in model.predictions else "patient_id"
    found: dict[str, SlidePrediction] = {}
    for row in rows:
        told = _prediction(row, model.task)
        if told is not None:
            found.setdefault(str(row[key]), told)
    return lambda slide: found.get(str(getattr(slide, key)))


def _prediction(row: Mapping[Hashable, Any], task: str) -> SlidePrediction | None:
    fold = row.get("fold")
    where = None if missing(fold) else f"{fold:g}" if isinstance(fold, float) else str(fold)
    value = row.get("risk" if task == "survival" else "predicted")
    if missing(value):
        return None
    if task not in OF_CLASSES:
        number = as_number(float(value))  # type: ignore[arg-type]
        return None if number is None else SlidePrediction(f"{number:.4g}", None, where, None)
    truth = row.get("label")
    right = None if missing(truth) else str(truth) == str(value)
    return SlidePrediction(str(value), as_number(row.get(f"p_{value}")), where, right)


def missing(value: Any) -> bool:
    """True for None, NaN and NaT."""
    return value is None or bool(pd.isna(value))
