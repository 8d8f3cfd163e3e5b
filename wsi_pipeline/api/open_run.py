"""`wp.open_run`, `wp.read_features`: read the results that the commands have written."""

from __future__ import annotations

import html
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, overload

import pandas as pd

from wsi_pipeline.cohort.manifest import read_run
from wsi_pipeline.cohort.records import Cohort, SlideRecord
from wsi_pipeline.cohort.run_dir import STORE_SUFFIXES, RunDir
from wsi_pipeline.cohort.slide_status import read_status
from wsi_pipeline.cohort.tables.patient_doubts import doubt_words
from wsi_pipeline.config.execution import TableOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.files.addresses import slide_path
from wsi_pipeline.stages.inputs.slide_bags import SlideBags, gather
from wsi_pipeline.stages.results.trainings import trainings
from wsi_pipeline.store.tables.feature_table import FeatureTable, read_feature_table
from wsi_pipeline.wording import counted

_MOST_ROWS = 40


@dataclass(frozen=True, eq=False)
class Run:
    """A run folder, read only, with its slides as of when it was opened."""

    folder: Path
    cohort: Cohort

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row per slide: patient, label, state (done, empty, failed or pending), tissue, patches, notes."""
        return pd.DataFrame([_row(self._dir, record) for record in self.cohort.records])

    @property
    def encoders(self) -> tuple[str, ...]:
        """Encoders whose features this run has."""
        return self._dir.encoders()

    @property
    def models(self) -> dict[str, Path]:
        """Trained slide-level models: `encoder/name` -> the folder for `load_model`."""
        return {"/".join(training.folder.parts[-2:]): training.folder for training in trainings(self._dir)}

    def features(self, encoder: str) -> SlideBags:
        """Features of all slides by one encoder, with the table of slides.

        Raises UsageError if the run has no features of that encoder.
        """
        slides = gather(self._dir, self.cohort.records, self._dir.require_encoder(encoder))
        return replace(slides, doubts=tuple(doubt_words(self.cohort)))

    @property
    def _dir(self) -> RunDir:
        return RunDir(self.folder)

    def __repr__(self) -> str:
        counts = self.table["state"].value_counts()
        states = ", ".join(f"{count} {state}" for state, count in counts.items())
        parts = [f"{counted(len(self.table), 'slide')} ({states})"]
        parts += [f"features: {', '.join(self.encoders)}"] if self.encoders else []
        parts += [f"models: {', '.join(self.models)}"] if self.models else []
        return f"<Run {self.folder}: {'; '.join(parts)}>"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{self.table.to_html(max_rows=_MOST_ROWS, index=False)}"


def open_run(
    folder: str | PathLike[str],
    *,
    patient_column: str | None = None,
    each_slide_a_patient: bool = False,
    fold_labels: bool = False,
    keep_label: str | None = None,
) -> Run:
    """Open the run in a folder such as `wsi-run`. The options assign slides to patients, as on the command line.

    Raises UsageError if there is no run.
    """
    run = RunDir.existing(folder)
    options = TableOptions(patient_column, each_slide_a_patient, fold_labels, keep_label)
    return Run(run.root, read_run(run.cohort_csv, options))


@overload
def read_features(source: str | PathLike[str]) -> FeatureTable: ...


@overload
def read_features(source: str | PathLike[str] | Run, encoder: str) -> SlideBags: ...


def read_features(source: str | PathLike[str] | Run, encoder: str | None = None) -> FeatureTable | SlideBags:
    """Features of one slide, from its store; or, with `encoder`, those of all slides of a run.

    Raises StoreError for a damaged store, MilError if the features of a run do not belong together.
    """
    if encoder is not None:
        return (source if isinstance(source, Run) else open_run(source)).features(encoder)
    if isinstance(source, Run) or slide_path(source).suffix not in STORE_SUFFIXES.values():
        run = source if isinstance(source, Run) else open_run(source)
        raise UsageError(f"{run.folder} is a run: name the encoder too", todo=_there_are(run.encoders))
    return read_feature_table(source)


def _there_are(encoders: tuple[str, ...]) -> str:
    return f"There are: {', '.join(encoders)}" if encoders else "Run first: wsi-pipeline embed --model pathotune"


def _row(run: RunDir, record: SlideRecord) -> dict[str, Any]:
    status = read_status(run.status(record.slide_id), record.slide_id)
    stages = list(status.stages.values())
    measured = {key: value for stage in stages for key, value in stage.summary.items()}
    state = "failed" if status.failed else stages[-1].state if stages else "pending"
    notes = [stage.reason or stage.note for stage in stages if stage.reason or stage.note]
    return {
        "slide_id": record.slide_id,
        "patient_id": record.patient_id,
        "label": record.label,
        "state": state,
        "tissue_mm2": measured.get("tissue_mm2"),
        "patches": measured.get("patches"),
        "mpp": measured.get("mpp"),
        "note": "; ".join(dict.fromkeys(notes)),
    }
