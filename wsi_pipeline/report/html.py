"""The report as one self-contained HTML file: no network, no other file, every outside word escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsi_pipeline.report import figures, findings
from wsi_pipeline.report.class_section import class_views
from wsi_pipeline.report.data import Estimate, ModelSection, ReportData, SlideRow, as_number
from wsi_pipeline.report.pictures import data_uri, picture_size
from wsi_pipeline.report.roc import roc_figure
from wsi_pipeline.report.tuning_section import measured_alike, tuning_cautions, tuning_findings, tuning_views

_THIN_SPACE = "\u202f"
_CARD_PX = 360


@dataclass(frozen=True)
class SlidePrediction:
    """What one model says of one slide; `right` is None where the true label is unknown."""

    predicted: str
    probability: float | None
    fold: str | None
    right: bool | None


def render_report(data: ReportData) -> str:
    """The whole report as HTML text, to be written as UTF-8.

    Works with any part missing: no models, no labels, no pictures, metrics that are null. Raises
    WsiPipelineError when a picture is no PNG, JPEG or WebP.
    """
    style, script = _asset("style.css"), _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    models = findings.ranked(data.models)
    page = _environment().get_template("report.html.j2")
    return page.render(
        data=data,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        tally=_tally(data),
        said=[*findings.findings(data), *tuning_findings(data.tunings)],
        cautions=[*findings.cautions(data), *tuning_cautions(data.tunings)],
        axis_low=_axis_low(models),
        models=[_model_view(model, data.models, _axis_low(models)) for model in models],
        tunings=tuning_views(data.tunings),
        tunings_alike=measured_alike(data.tunings),
        classified=class_views(data.classified),
        columns=_columns(data.slides),
        outliers=set(findings.outliers(data.slides)),
        counts=figures.patch_count_figure([s.patches or 0 for s in data.slides], [s.slide_id for s in data.slides]),
        cards=_cards(data.slides, models),
        failures=[(i, slide) for i, slide in enumerate(data.slides) if slide.state == "failed"],
    )


def _environment() -> Environment:
    env = Environment(
        loader=PackageLoader("wsi_pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(thousands=_thousands, fixed=_fixed, estimate=_estimate, plain=_plain, dash=_dash, signed=_signed)
    env.globals.update(interval_axis=figures.interval_axis)
    return env


def _asset(name: str) -> str:
    return files("wsi_pipeline.report").joinpath("templates", name).read_text(encoding="utf-8")


def _tally(data: ReportData) -> list[tuple[str, str, str]]:
    """(number, unit or state, css) of the figures at the top; what nothing is known of is left out."""
    patients = {slide.patient_id for slide in data.slides if slide.patient_id}
    known = _columns(data.slides)
    entries = [_counted(len(data.slides), "slide")]
    if patients:
        entries.append(_counted(len(patients), "patient"))
    words = {"done": "done", "empty": "without tissue", "failed": "failed", "pending": "pending"}
    entries += [(_thousands(data.count(s)), word, s) for s, word in words.items() if s == "done" or data.count(s)]
    if "patches" in known:
        entries.append(_counted(sum(slide.patches or 0 for slide in data.slides), "patch", "es"))
    if "tissue_mm2" in known:
        area = sum(slide.tissue_mm2 or 0.0 for slide in data.slides)
        entries.append((_thousands(round(area)) if area >= 10 else f"{area:.1f}", "mm² tissue", ""))
    return entries


def _counted(count: int, word: str, plural: str = "s") -> tuple[str, str, str]:
    return _thousands(count), word if count == 1 else word + plural, ""


def _columns(slides: tuple[SlideRow, ...]) -> set[str]:
    """Which of the optional columns hold anything at all."""
    optional = ("patient_id", "label", "site", "patches", "tissue_mm2", "mpp")
    return {name for name in optional if any(getattr(slide, name) is not None for slide in slides)}


def _axis_low(models: list[ModelSection]) -> float:
    """Lower end of the AUROC axis: 0.4, or as much lower as the intervals reach."""
    ends = [auroc.low if auroc.low is not None else auroc.value for m in models if (auroc := m.pooled("auroc"))]
    return max(0.0, min([0.4, *((end * 10 // 1) / 10 for end in ends)]))


def _model_view(model: ModelSection, models: tuple[ModelSection, ...], axis_low: float) -> dict[str, Any]:
    reference = findings.baseline_of(model, models)
    floor = reference.pooled("auroc") if reference else None
    auroc, rows = model.pooled("auroc"), model.predictions
    return {
        "section": model,
        "auroc": auroc,
        "bar": figures.interval_bar(auroc, axis_low, floor.value if floor else None, _css(model)),
        "gain": auroc.value - floor.value if auroc and floor else None,
        "interval": findings.interval_words(model),
        "roc": None if rows is None else roc_figure(rows, model.classes, _level(model)),
        "confusion": figures.confusion_figure(model.metrics.get("confusion") or [], model.classes),
        "training": figures.training_figure(model.histories),
        "per_class": {name: _with_intervals(row) for name, row in (model.metrics.get("per_class") or {}).items()},
        "per_fold": model.metrics.get("per_fold") or [],
    }


def _with_intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    """One class's metrics, each joined with its interval where metrics.json has one under `intervals`."""
    intervals = row.get("intervals") or {}
    return {name: {"value": value, **intervals[name]} if name in intervals else value for name, value in row.items()}


def _css(model: ModelSection) -> str:
    return "base" if model.is_baseline else ""


def _level(model: ModelSection) -> float:
    return float((model.metrics.get("interval") or {}).get("level") or 0.95)


def _cards(slides: tuple[SlideRow, ...], models: list[ModelSection]) -> list[dict[str, Any]]:
    """One card per slide that has a picture: its pictures and what each model says, models in the order of the page."""
    said = [_predictions(model) for model in models]
    cards = []
    for index, slide in enumerate(slides):
        if slide.overlay_png or slide.heatmaps:
            overlay = _picture(slide.overlay_png)
            heats = [
                {
                    "model": i,
                    "name": model.key,
                    "picture": _picture(slide.heatmaps.get(model.key), beside=overlay),
                    "said": said[i].get(slide.slide_id),
                }
                for i, model in enumerate(models)
                if slide.slide_id in said[i] or model.key in slide.heatmaps
            ]
            cards.append({"index": index, "slide": slide, "overlay": overlay, "heats": heats})
    return cards


def _picture(encoded: bytes | None, beside: dict[str, Any] | None = None) -> dict[str, Any] | None:
    """Address, size and greatest height on the page: such that a picture has the scale of the one beside it."""
    if encoded is None:
        return None
    width, height = picture_size(encoded)
    stretch = (height / width) / (beside["height"] / beside["width"]) if beside else 1.0
    return {"uri": data_uri(encoded), "width": width, "height": height, "most": round(_CARD_PX * stretch)}


def _predictions(model: ModelSection) -> dict[str, SlidePrediction]:
    """What a model says, by slide_id; slides it made no prediction for are left out."""
    rows = [] if model.predictions is None else model.predictions.to_dict("records")
    return {str(row["slide_id"]): _prediction(row) for row in rows if not _missing(row.get("predicted"))}


def _prediction(row: Mapping[Hashable, Any]) -> SlidePrediction:
    predicted, fold, truth = str(row["predicted"]), row.get("fold"), row.get("label")
    return SlidePrediction(
        predicted,
        as_number(row.get(f"p_{predicted}")),
        None if _missing(fold) else f"{fold:g}" if isinstance(fold, float) else str(fold),
        None if _missing(truth) else str(truth) == predicted,
    )


def _missing(value: Any) -> bool:
    return value is None or bool(pd.isna(value))


def _thousands(value: int | None) -> str:
    return "–" if value is None else f"{value:,}".replace(",", _THIN_SPACE)


def _fixed(value: Any, digits: int = 3) -> str:
    estimate = Estimate.read(value)
    return "–" if estimate is None else f"{estimate.value:.{digits}f}"


def _estimate(value: Any) -> str:
    return "–" if Estimate.read(value) is None else findings.estimate_words(Estimate.read(value))


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}".replace("-", "\u2212")


def _dash(value: Any) -> str:
    """The value in words, an en dash where there is none."""
    return "–" if _missing(value) else str(value)


def _plain(value: Any) -> str:
    """A spec value as it would stand in YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
