"""The report as one self-contained HTML file: no network access, no other files, all text from outside escaped."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from wsi_pipeline.report.data import Estimate, ReportData, SlideRow
from wsi_pipeline.report.figures import charts as figures
from wsi_pipeline.report.maps.artefact_overlay import COLOURS
from wsi_pipeline.report.page import findings
from wsi_pipeline.report.page.class_view import class_views
from wsi_pipeline.report.page.model_view import axis_low, model_views
from wsi_pipeline.report.page.prediction_view import prediction_views
from wsi_pipeline.report.page.quality_view import quality_cautions, quality_view
from wsi_pipeline.report.page.robustness_view import robustness_view
from wsi_pipeline.report.page.slide_view import missing, picture_view, slide_cards
from wsi_pipeline.report.page.target_view import side_by_side
from wsi_pipeline.report.page.tuning_view import measured_alike, tuning_cautions, tuning_findings, tuning_views
from wsi_pipeline.statistics.metric_words import metric_words
from wsi_pipeline.wording import plural_of

_THIN_SPACE = "\u202f"


def render_report(data: ReportData) -> str:
    """The whole report as HTML text, to be written as UTF-8.

    Any part may be missing: models, labels, pictures; metrics may be null. Raises WsiPipelineError if a picture is
    not PNG, JPEG or WebP.
    """
    style, script = _asset("style.css"), _asset("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    models = findings.ranked(data.models)
    quality = quality_view(data.slides)
    page = _environment().get_template("report.html.j2")
    return page.render(
        data=data,
        style=Markup(style),
        script=Markup(script),
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'",
        tally=_tally(data),
        findings=[*findings.findings(data), *findings.external_findings(data), *tuning_findings(data.tunings)],
        cautions=[*findings.cautions(data), *quality_cautions(quality), *tuning_cautions(data.tunings)],
        quality=quality,
        colours=["#{:02x}{:02x}{:02x}".format(*colour) for colour in COLOURS],
        axis_low=axis_low(models),
        models=model_views(models, data.models),
        targets=side_by_side(data.models),
        predicted=prediction_views(data.predictions),
        tunings=tuning_views(data.tunings),
        tunings_alike=measured_alike(data.tunings),
        classified=class_views(data.classified),
        robustness=robustness_view(data.robustness),
        columns=_columns(data.slides),
        outliers=set(findings.outliers(data.slides)),
        counts=figures.patch_count_figure([s.patches or 0 for s in data.slides], [s.slide_id for s in data.slides]),
        cards=slide_cards(data.slides, models),
        failures=[(i, slide) for i, slide in enumerate(data.slides) if slide.state == "failed"],
    )


@cache
def _environment() -> Environment:
    """One for the process: compiling the templates takes longer than filling them in."""
    env = Environment(
        loader=PackageLoader("wsi_pipeline.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.filters.update(thousands=_thousands, fixed=_fixed, estimate=_estimate, plain=_plain, dash=_dash, signed=_signed)
    env.filters.update(picture=lambda encoded: (picture_view(encoded) or {})["uri"])
    env.filters.update(metric=metric_words, figure_words=findings.estimate_words)
    env.globals.update(interval_axis=figures.interval_axis)
    return env


def _asset(name: str) -> str:
    return files("wsi_pipeline.report").joinpath("templates", name).read_text(encoding="utf-8")


def _tally(data: ReportData) -> list[tuple[str, str, str]]:
    """(number, unit or state, CSS class) of each figure at the top of the page; unknown ones are left out."""
    patients = {slide.patient_id for slide in data.slides if slide.patient_id}
    known = _columns(data.slides)
    entries = [_counted(len(data.slides), "slide")]
    if patients:
        entries.append(_counted(len(patients), "patient"))
    words = {"done": "done", "empty": "without tissue", "failed": "failed", "pending": "pending"}
    entries += [(_thousands(data.count(s)), word, s) for s, word in words.items() if s == "done" or data.count(s)]
    if "patches" in known:
        entries.append(_counted(sum(slide.patches or 0 for slide in data.slides), "patch"))
    if "tissue_mm2" in known:
        area = sum(slide.tissue_mm2 or 0.0 for slide in data.slides)
        entries.append((_thousands(round(area)) if area >= 10 else f"{area:.1f}", "mm² tissue", ""))
    return entries


def _counted(count: int, word: str) -> tuple[str, str, str]:
    return _thousands(count), word if count == 1 else plural_of(word), ""


def _columns(slides: tuple[SlideRow, ...]) -> set[str]:
    """The optional columns in which at least one slide has a value."""
    optional = ("patient_id", "label", "site", "patches", "tissue_mm2", "mpp")
    return {name for name in optional if any(getattr(slide, name) is not None for slide in slides)}


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
    """The value as text, or an en dash if missing."""
    return "–" if missing(value) else str(value)


def _plain(value: Any) -> str:
    """A setting as it would be written in YAML."""
    return value if isinstance(value, str) else json.dumps(value, default=str)
