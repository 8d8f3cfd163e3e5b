"""The content of a report: plain frozen dataclasses, filled by the stage `report`, rendered by `page.html`.

Nothing here knows where files are. Pictures are encoded bytes (PNG, JPEG or WebP), already shrunk by
`maps.pictures.shrink_png`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.statistics.metric_words import HEADLINES

if TYPE_CHECKING:
    import pandas as pd

STATES = ("done", "empty", "failed", "pending")
"""State of a slide: finished; no tissue found; stopped by an error; not started."""

BASELINE_ENCODER = "colour"
"""The encoder of stain and texture statistics with which every deep encoder is compared."""


@dataclass(frozen=True)
class Estimate:
    """A metric with its interval; `n_undefined` counts the resamples in which the metric is undefined."""

    value: float
    low: float | None = None
    high: float | None = None
    n_undefined: int = 0

    @classmethod
    def read(cls, raw: Any) -> Estimate | None:
        """From metrics.json (`{"value", "low", "high", "n_undefined"}`, a number, or null); None if undefined."""
        parts: Mapping[str, Any] = raw if isinstance(raw, Mapping) else {"value": raw}
        value = as_number(parts.get("value"))
        if value is None:
            return None
        return cls(value, as_number(parts.get("low")), as_number(parts.get("high")), int(parts.get("n_undefined") or 0))


def with_intervals(row: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics of one class, each joined with its interval if metrics.json has one under `intervals`."""
    intervals = row.get("intervals") or {}
    return {name: {"value": value, **intervals[name]} if name in intervals else value for name, value in row.items()}


def as_number(raw: Any) -> float | None:
    """A finite float, or None for null, NaN and infinity."""
    if raw is None or not math.isfinite(raw):
        return None
    return float(raw)


@dataclass(frozen=True)
class SlideRow:
    """One slide of the cohort as the report shows it.

    stage        the last stage it reached, or the one that failed
    reason       one sentence: why it failed or is empty; `todo`: what the user can do
    note         any other remark (resampled, mask looks wrong)
    tissue_mm2   tissue area in square millimetres; `mpp`: micrometres per pixel of the patches as delivered
    overlay_png  thumbnail with tissue contours, encoded (PNG, JPEG or WebP)
    thumbnail    the thumbnail alone
    heatmaps     `ModelSection.key` -> attention over the thumbnail, encoded
    sheets       `ModelSection.key` -> the patches with highest and lowest attention, encoded
    quality      measure -> its median over the patches; `beyond`: artefact -> fraction of patches beyond its limit
    dropped      reason -> patches left out by `tile --drop-artefacts`
    artefacts    thumbnail with the patches that are artefacts, encoded

    A model's prediction for the slide is taken from `ModelSection.predictions`.
    Raises WsiPipelineError for an unknown state.
    """

    slide_id: str
    state: str
    patient_id: str | None = None
    label: str | None = None
    site: str | None = None
    stage: str | None = None
    reason: str | None = None
    todo: str | None = None
    traceback: str | None = None
    note: str | None = None
    patches: int | None = None
    tissue_mm2: float | None = None
    mpp: float | None = None
    mpp_source: str | None = None
    overlay_png: bytes | None = None
    thumbnail: bytes | None = None
    heatmaps: Mapping[str, bytes] = field(default_factory=dict)
    sheets: Mapping[str, bytes] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)
    beyond: Mapping[str, float] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    artefacts: bytes | None = None

    def __post_init__(self) -> None:
        if self.state not in STATES:
            raise WsiPipelineError(f"state must be one of {', '.join(STATES)}, got {self.state!r}", slide=self.slide_id)


@dataclass(frozen=True, eq=False)
class ModelSection:
    """One slide-level model on one encoder's features.

    metrics      the content of metrics.json; any value may be null, any key absent
    predictions  slide_id (or patient_id alone), patient_id, repeat, fold, outcome and prediction columns
    histories    for each fold the epochs in order: {"epoch", "train_loss", "val_loss"}
    """

    encoder: str
    mil_model: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    predictions: pd.DataFrame | None = None
    histories: Sequence[Sequence[Mapping[str, float | None]]] = ()

    @property
    def key(self) -> str:
        """Name that joins heatmaps to this model: `encoder/mil_model`."""
        return f"{self.encoder}/{self.mil_model}"

    @property
    def is_baseline(self) -> bool:
        """True for the colour baseline."""
        return self.encoder == BASELINE_ENCODER

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        return tuple(self.metrics.get("classes") or ())

    @property
    def task(self) -> str:
        """classification, ordinal, regression or survival."""
        task = self.metrics.get("task") or "classification"
        return str(task.get("name") if isinstance(task, Mapping) else task)

    @property
    def patients_known(self) -> bool:
        """Whether it is known which patient each slide belongs to."""
        return bool(self.metrics.get("patients", "stated") != "not known")

    @property
    def unit(self) -> str:
        """Unit of prediction: slide or patient."""
        return str(self.metrics.get("bag") or "slide")

    @property
    def headline(self) -> str:
        """The main metric for models of this task."""
        return HEADLINES.get(self.task, "auroc")

    @property
    def best(self) -> Estimate | None:
        """The headline metric over all test slides, or None if undefined."""
        return self.pooled(self.headline)

    def pooled(self, name: str) -> Estimate | None:
        """A metric over all test slides (`auroc`, `balanced_accuracy`...), or None if undefined."""
        return Estimate.read((self.metrics.get("pooled") or {}).get(name))


@dataclass(frozen=True, eq=False)
class TuningSection:
    """One tuned adapter: the content of its metrics.json, any value of which may be null, and its pictures, encoded."""

    name: str
    metrics: Mapping[str, Any] = field(default_factory=dict)
    curves: bytes | None = None
    confusion: bytes | None = None
    sheet: bytes | None = None


@dataclass(frozen=True)
class ClassRow:
    """Classes of one slide: number of patches, fraction of each class (empty without patches) and of unclear patches,
    overlay.
    """

    slide_id: str
    patches: int
    fractions: Mapping[str, float] = field(default_factory=dict)
    unclear: float = 0.0
    overlay: bytes | None = None


@dataclass(frozen=True)
class ClassSection:
    """The classes that one adapter assigns to the slides' patches.

    name      as given to --model
    adapter   file of the adapter within the run, `built-in`, or a full path
    notes     how these patches differ from those the adapter was tuned on
    """

    name: str
    adapter: str
    classes: tuple[str, ...]
    slides: tuple[ClassRow, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class PredictionSection:
    """A trained model's predictions for slides outside its cross-validation.

    name      `encoder/mil_model`
    table     slide_id (absent if a row is a patient), patient_id, label, predicted (text for a class, else a number)
              or risk..., spread and, if known, novelty, far_from_training
    metrics   the content of its metrics.json; empty if no outcome is known
    patients  one row per patient, if patients have several slides
    """

    name: str
    table: pd.DataFrame
    metrics: Mapping[str, Any] = field(default_factory=dict)
    patients: pd.DataFrame | None = None

    @property
    def unit(self) -> str:
        """Unit of a row: slide or patient."""
        return "slide" if "slide_id" in self.table else "patient"


@dataclass(frozen=True)
class Provenance:
    """How the results were produced: commands in order, versions, settings by stage, digests by stage or file."""

    commands: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ReportData:
    """Everything a report shows. `created` is the date as displayed; `warnings` are full sentences.

    pictures_note   which pictures were left out to keep the file small; empty if none
    robustness      what `robustness` measured, per encoder: the content of its JSON file
    """

    title: str
    created: str
    slides: tuple[SlideRow, ...]
    models: tuple[ModelSection, ...] = ()
    warnings: tuple[str, ...] = ()
    provenance: Provenance = Provenance()
    tunings: tuple[TuningSection, ...] = ()
    classified: tuple[ClassSection, ...] = ()
    predictions: tuple[PredictionSection, ...] = ()
    pictures_note: str = ""
    robustness: tuple[Mapping[str, Any], ...] = ()

    def count(self, state: str) -> int:
        """Number of slides in `state`."""
        return sum(slide.state == state for slide in self.slides)
