"""`stain`: what each slide is stained with and how strongly, and what normalisation would make of it."""

from __future__ import annotations

import shlex

import pandas as pd

from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.shell.stain_step import prepare_stain, stain_failures
from wsi_pipeline.config.slide_options import StainOptions
from wsi_pipeline.stages.outputs.stain_outputs import SHEET, TABLE
from wsi_pipeline.wording import counted, listed


def stain(request: Request) -> int:
    """Measure the stain of every tiled slide, choose the target, write the table and the picture."""
    options = request.get(StainOptions)
    target = prepare_stain(request, options.stain_norm, options.stain_target)
    folder = request.run_dir.stain(options.stain_norm)
    table = pd.read_csv(folder / TABLE, dtype={"slide_id": str}, keep_default_na=False)
    rows = [_row(row) for _, row in table.iterrows()]
    columns = ("slide", "stain", "glass", "concentrations", "stained", "normalised")
    request.console.table(columns, rows[:MOST_ROWS], right=(4,))
    if len(rows) > MOST_ROWS:
        request.console.say(f"... of {counted(len(rows), 'slide')}, the first {MOST_ROWS} are shown")
    measured = set(table["slide_id"])
    missing = [one.slide_id for one in request.known_cohort().records if one.slide_id not in measured]
    if missing:
        slides = counted(len(missing), "slide")
        request.console.note(f"{slides} without patches or stain profile, not in the table: {listed(missing)}")
    request.console.say(f"vectors, concentrations, glass: {shown(folder / TABLE)} · before and after: "
                        f"{shown(folder / SHEET)}")  # fmt: skip
    asked = shlex.quote(target.asked)
    request.console.say(request.next(f"embed --stain-norm {options.stain_norm} --stain-target {asked}"))
    return EXIT_SOME_FAILED if stain_failures(request, options.stain_norm) else EXIT_DONE


def _row(row: pd.Series) -> tuple[str, ...]:
    glass = " ".join(f"{float(row[f'glass_{colour}']):.0f}" for colour in "rgb")
    amounts = " ".join(f"{float(row[f'concentration{number}']):.2f}" for number in (1, 2))
    stained = f"{100 * float(row['stained_fraction']):.0f} %"
    return str(row["slide_id"]), str(row["kind"]) or "-", glass, amounts, stained, str(row["reason"] or "yes")
