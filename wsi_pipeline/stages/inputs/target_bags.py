"""The same bags for several targets, with the outcome of one at a time and, if possible, shared folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.records import OUTCOME
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.make_task import make_task
from wsi_pipeline.mil.tasks.task import numbers_of
from wsi_pipeline.mil.validation.crossval import strata_of_task
from wsi_pipeline.splits.assign import Strata
from wsi_pipeline.splits.fold import SHARED
from wsi_pipeline.splits.shared_folds import share_folds
from wsi_pipeline.stages.inputs.outcome_source import OutcomeSource
from wsi_pipeline.stages.inputs.slide_bags import SlideBags


def with_outcomes(slides: SlideBags, records: Sequence[SlideRecord]) -> SlideBags:
    """The same bags with label, time and event from `records`, which must include all slides of the bags."""
    of_slide = {record.slide_id: record for record in records}
    found = [of_slide[slide] for slide in slides.table["slide_id"]]
    table = slides.table.drop(columns=[name for name in OUTCOME if name in slides.table])
    table = table.assign(label=pd.Series([record.label for record in found], dtype=object, index=table.index))
    for name in OUTCOME:
        values = [getattr(record, name) for record in found]
        if any(value is not None for value in values):
            table[name] = pd.Series(values, dtype=object, index=table.index)
    return replace(slides, table=table)


@dataclass(frozen=True, eq=False)
class TargetBags:
    """Bags for several targets, one at a time. The features are held in memory only once.

    folds   name of a target -> fold of each of its rows, one number per repeat; only targets with shared folds
    """

    slides: SlideBags
    folds: Mapping[str, list[list[int]]]

    def division(self, name: str) -> str:
        """Name of the folds that a target shares, equal for all targets that share them; "" if it shares none."""
        return digest_of(folds=self.folds)[:12] if name in self.folds else ""

    def of(
        self, name: str, records: Sequence[SlideRecord], spec: MilSpec, source: OutcomeSource | None = None
    ) -> SlideBags:
        """The bags of one target, whose outcome is known. Raises MilError as `SlideBags.for_training` does.

        source   where the target's outcomes come from; this method sets its `division`
        """
        slides = replace(self.slides, source=replace(source or OutcomeSource(), division=self.division(name)))
        found = with_outcomes(slides, records).for_training(spec)
        if name not in self.folds:
            return found
        folds = pd.Series(self.folds[name], index=found.table.index, dtype=object)
        return replace(found, table=found.table.assign(**{SHARED: folds}))


def target_bags(slides: SlideBags, targets: Mapping[str, tuple[Sequence[SlideRecord], MilSpec]]) -> TargetBags:
    """The bags of several targets, and the folds that the targets share.

    targets   name -> the slides with its outcome, and settings, which may differ between targets only in the task

    A target that cannot be trained, or is better served by folds of its own, shares none.
    """
    tables: dict[str, tuple[pd.DataFrame, Strata]] = {}
    for name, (records, spec) in targets.items() if len(targets) > 1 else ():
        try:
            table = with_outcomes(slides, records).for_training(spec).table
            tables[name] = (table, _strata(table, spec))
        except MilError:  # the same error is raised when this target is trained
            continue
    first = next((spec for _, spec in targets.values()), MilSpec())
    return TargetBags(slides, share_folds(tables, first))


def _strata(table: pd.DataFrame, spec: MilSpec) -> Strata:
    if spec.task == "regression":
        table = table.assign(label=numbers_of(table, "label"))
    return strata_of_task(make_task(table, spec), table)
