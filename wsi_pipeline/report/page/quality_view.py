"""The report's section on quality: slides by measure with label and site, and which measures follow the label."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wsi_pipeline.cohort.formulas import safe_cell
from wsi_pipeline.quality.measures import ARTEFACTS, MEASURES, Measure
from wsi_pipeline.report.data import SlideRow
from wsi_pipeline.statistics.group_shift import GroupShift, group_shifts
from wsi_pipeline.wording import counted

UNLIKELY = 0.05
"""A measure follows label or site if its corrected p-value is below this."""
MOST_GROUPS = 12
"""With more groups a label is probably a number."""


@dataclass(frozen=True)
class QualityView:
    """What the template shows.

    columns      the measures that at least one slide has; `artefacts`: those of them with a limit
    slides       positions in the report's slides of those that were measured
    tests        for `label` and `site`: measure -> how it differs between the groups
    notes        sentences on what could not be tested
    """

    columns: tuple[Measure, ...]
    artefacts: tuple[Measure, ...]
    slides: tuple[int, ...]
    tests: dict[str, dict[str, GroupShift]]
    notes: tuple[str, ...]


def quality_view(slides: Sequence[SlideRow]) -> QualityView | None:
    """The section, or None if no slide was measured."""
    measured = tuple(i for i, slide in enumerate(slides) if slide.quality)
    if not measured:
        return None
    columns = tuple(m for m in MEASURES if any(m.name in slides[i].quality for i in measured))
    tests: dict[str, dict[str, GroupShift]] = {}
    notes = []
    for key in ("label", "site"):
        found, note = _tests(slides, columns, key)
        if found:
            tests[key] = found
        if note:
            notes.append(note)
    return QualityView(columns, tuple(m for m in columns if m in ARTEFACTS), measured, tests, tuple(notes))


def quality_cautions(view: QualityView | None) -> list[str]:
    """A sentence for every measure that follows the label; none without the section."""
    if view is None:
        return []
    return [_caution(name, shift, view) for name, shift in view.tests.get("label", {}).items() if follows(shift)]


def follows(shift: GroupShift) -> bool:
    """Whether a measure differs between the groups by more than chance would explain."""
    return bool(shift.p_value < UNLIKELY)


def quality_csv(slides: Sequence[SlideRow]) -> str:
    """Medians of every slide and the fractions beyond the limits, as CSV text."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = [f"{m.name}_{m.unit}" if m.unit else m.name for m in MEASURES]
    writer.writerow(["slide_id", "patient_id", "label", "site", "patches", "dropped", *names,
                     *(f"{m.name}_beyond" for m in ARTEFACTS)])  # fmt: skip
    for slide in slides:
        texts = [safe_cell(text or "") for text in (slide.slide_id, slide.patient_id, slide.label, slide.site)]
        numbers = [slide.quality.get(m.name) for m in MEASURES] + [slide.beyond.get(m.name) for m in ARTEFACTS]
        counts = ["" if slide.patches is None else slide.patches, sum(slide.dropped.values())]
        writer.writerow([*texts, *counts, *("" if value is None else f"{value:.4g}" for value in numbers)])
    return out.getvalue()


def _tests(slides: Sequence[SlideRow], columns: Sequence[Measure], key: str) -> tuple[dict[str, GroupShift], str]:
    """Measures by label or site over patients, whose value is the mean of their slides; and a note if untested."""
    rows: dict[tuple[str, str], list[list[float]]] = {}
    for slide in slides:
        group = getattr(slide, key)
        if slide.quality and group:
            values = [_shown(slide, m) for m in columns]
            rows.setdefault((slide.patient_id or f"slide {slide.slide_id}", group), []).append(values)
    groups = [group for _, group in rows]
    if len(set(groups)) < 2:
        return {}, ""
    if len(set(groups)) > MOST_GROUPS:
        return {}, f"Not tested by {key}: it has {len(set(groups))} values."
    table = np.array([[_mean(column) for column in zip(*values, strict=True)] for values in rows.values()])
    found = group_shifts(table, groups)
    if found is None:
        return {}, f"Not tested by {key}: fewer than two values have two patients."
    shown = {m.name: shift for m, shift in zip(columns, found, strict=True) if np.isfinite(shift.strength)}
    smallest = max((shift.smallest for shift in found), default=0.0)
    if smallest >= UNLIKELY:
        few = counted(len(groups), "patient")
        return shown, (
            f"With {few} a difference between values of {key} cannot be shown: the smallest possible p-value is "
            f"{smallest:.2g}."
        )
    return shown, ""


def _shown(slide: SlideRow, measure: Measure) -> float:
    """The fraction beyond the limit for artefacts that cover parts of a slide, else the median."""
    source = slide.beyond if measure in ARTEFACTS and not measure.sampled else slide.quality
    value = source.get(measure.name)
    return float("nan") if value is None else value


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _caution(name: str, shift: GroupShift, view: QualityView) -> str:
    measure = next(m for m in view.columns if m.name == name)
    medians = ", ".join(f"{group} {value:.2g}" for group, value in shift.medians.items())
    unit = f" {measure.unit}" if measure.unit else ""
    site = view.tests.get("site", {}).get(name)
    also = " It differs between sites as well." if site is not None and follows(site) else ""
    return (
        f"The quality measure {name} follows the label (medians{unit}: {medians}; p = {shift.p_value:.2g} corrected, "
        f"{counted(shift.patients, 'patient')}): models may learn it instead of the disease.{also}"
    )
