"""Tables of the cohort that go with an export: slides with their labels, and splits by patient."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.exchange.writers.export_files import write_csv
from wsi_pipeline.exchange.writers.slide_content import CohortContent
from wsi_pipeline.splits.assign import make_splits
from wsi_pipeline.wording import counted


def labelled(cohort: CohortContent) -> pd.DataFrame:
    """The slides that have a label; a note counts those without."""
    table = cohort.table
    without = int(table["label"].isna().sum())
    if without:
        cohort.notes.append(f"{without} of {counted(len(table), 'slide')} have no label and are in no table of labels")
    return table[table["label"].notna()].reset_index(drop=True)


def write_slide_table(cohort: CohortContent, path: Path) -> None:
    """All slides with patient, label and its number, time and event; empty columns are left out."""
    table = cohort.table
    kept = [name for name in table if name in ("slide_id", "patient_id") or table[name].notna().any()]
    write_csv(path, table[kept])


def split_parts(table: pd.DataFrame) -> list[dict[str, list[str]]]:
    """Folds as `train-mil` makes them by default, by patient: for each the slide ids of train, val and test.

    Raises SplitError if no honest folds can be made.
    """
    kept = table.drop(columns=[name for name in ("split", "site") if name in table and table[name].isna().all()])
    splits = make_splits(kept.fillna({"split": ""}) if "split" in kept else kept, MilSpec())
    names = table["slide_id"].astype(str).to_numpy()
    return [{name: list(names[rows]) for name, rows in fold.parts()} for fold in splits.folds]
