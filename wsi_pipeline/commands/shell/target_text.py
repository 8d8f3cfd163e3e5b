"""Print results for several targets side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wsi_pipeline.commands.shell.estimate_text import cell
from wsi_pipeline.commands.shell.request import Request
from wsi_pipeline.report.data import ModelSection
from wsi_pipeline.report.page.target_view import TargetGroup, side_by_side
from wsi_pipeline.stages.results.trainings import Training, trainings
from wsi_pipeline.statistics.metric_words import p_words


def print_targets(request: Request, done: Sequence[Training]) -> None:
    """Print one table per encoder; p-values are corrected over all targets of the run in that table."""
    every = {training.folder.resolve(): training for training in trainings(request.run_dir)}
    every |= {training.folder.resolve(): training for training in done}
    sections = {folder: _section(training) for folder, training in every.items()}
    now = {(*training.folder.parts[-2:],) for training in done}
    for group in side_by_side(list(sections.values())):
        if any((group.encoder, row.model) in now for row in group.rows):
            _print_group(request, group, {s.key: s for s in sections.values()})


def _print_group(request: Request, group: TargetGroup, sections: dict[str, ModelSection]) -> None:
    rows = []
    for row in group.rows:
        metrics = sections[f"{group.encoder}/{row.model}"].metrics
        name = sections[f"{group.encoder}/{row.model}"].headline
        rows.append(
            [
                row.target,
                row.model,
                str(row.slides or ""),
                str(row.patients or ""),
                row.metric,
                cell(metrics, name),
                *("" if p is None else _number(p) for p in (row.p_value, row.p_holm)),
            ]
        )
    names = ("target", f"training ({group.encoder})", "slides", "patients", "metric", "value", "p", "Holm")
    request.console.table(names, rows, right=(2, 3))
    request.console.say(group.words)


def _number(p: float) -> str:
    return p_words(p).removeprefix("p ").removeprefix("= ")


def _section(training: Training) -> ModelSection:
    encoder, model = Path(training.folder).parts[-2:]
    return ModelSection(encoder, model, training.metrics)
