"""Find the trainings to compare, by run or folder, and read them with their task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.tasks.make_task import task_from_json
from wsi_pipeline.mil.tasks.task import Task
from wsi_pipeline.mil.trained.model_config import CONFIG, read_config
from wsi_pipeline.mil.validation.paired import Validated
from wsi_pipeline.stages.outputs.foreign_side import FOREIGN, beside, is_table
from wsi_pipeline.stages.outputs.predicted_side import aligned, is_prediction, read_side, task_of_prediction
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.stages.results.trainings import NAME, Training, require_training

Pair = tuple[Training, Training]


def pairs(first: Path, second: Path, *, features: str | None = None, model: str | None = None) -> list[Pair]:
    """Pairs of trainings to compare: one pair, or for two runs all pairs with the same encoder and model.

    first, second     a run folder, or the folder of a training or of predictions; for a run without trainings, its
                      predictions are used. One of them may be a table of another program's predictions
    features, model   restrict the pairs to these names

    Raises UsageError if there is no pair, or if the choice is ambiguous.
    """
    if is_table(first) or is_table(second):
        return [_with_table(first, second, features, model)]
    left, right = (_folders(path, features, model) for path in (first, second))
    if len(left) == len(right) == 1:
        chosen = [(left[0], right[0])]
    else:
        names = {path.parts[-2:]: path for path in right}
        chosen = [(path, names[path.parts[-2:]]) for path in left if path.parts[-2:] in names]
    if not chosen:
        raise UsageError(
            f"{first} has {_names(left)}, {second} has {_names(right)}: which of them to compare is ambiguous",
            todo="Name two folders of train-mil/ or predict/, or narrow the choice with --features and --model",
        )
    same = [a for a, b in chosen if a.resolve() == b.resolve()]
    if same:
        raise UsageError(
            f"{same[0]} cannot be compared with itself", todo="Name two runs, or two folders of train-mil/"
        )
    return [_read(a, b) for a, b in chosen]


def _with_table(first: Path, second: Path, features: str | None, model: str | None) -> Pair:
    """Predictions of another program paired with ours, in the order given by the user."""
    if is_table(first) and is_table(second):
        raise UsageError(
            f"{first} and {second} are both tables of predictions: neither has the true outcomes of the run",
            todo="Name a folder of train-mil/ or predict/ as one side",
        )
    table, folder = (first, second) if is_table(first) else (second, first)
    found = _folders(folder, features, model)
    if len(found) > 1:
        raise UsageError(
            f"{folder} has {_names(found)}: which of them to compare is ambiguous",
            todo="Name one folder of train-mil/ or predict/, or narrow the choice with --features and --model",
        )
    ours = read_side(found[0]) if is_prediction(found[0]) else require_training(found[0])
    mine = validated(ours)
    one, other = beside(replace(ours, predictions=mine.predictions), mine.task, str(table))
    return (other, one) if table == first else (one, other)


def _read(a: Path, b: Path) -> Pair:
    if not (is_prediction(a) or is_prediction(b)):
        return require_training(a), require_training(b)
    one, other = (read_side(path) if is_prediction(path) else require_training(path) for path in (a, b))
    return aligned(one, other, (read_task(a), read_task(b)))


def validated(training: Training) -> Validated:
    """A training as one side of a comparison."""
    rows, known = training.predictions, training.metrics.get(FOREIGN)
    task = task_from_json(known) if known is not None else read_task(training.folder)
    if training.metrics.get("untrained"):  # classes that only the test part has are in no metric
        rows = rows[rows["label"].isin(task.to_json()["classes"])].reset_index(drop=True)
    return Validated(task, rows)


def read_task(folder: Path) -> Task:
    """The task of a trained model, from its config alone. Raises StoreError if it cannot be read."""
    return task_of_prediction(folder) if is_prediction(folder) else read_config(folder / CONFIG).task


def _folders(path: Path, features: str | None, model: str | None) -> list[Path]:
    """Folders of trainings at or under `path`; of predictions if it has no training."""
    if (path / METRICS).is_file() or is_prediction(path):
        return [path]
    found = sorted(folder.parent for folder in (path / NAME).glob(f"*/*/{METRICS}"))
    found = found or sorted(folder.parent for folder in (path / "predict").glob("*/*/model.json"))
    if not found:
        raise UsageError(
            f"no trained model in {path}, and no predictions",
            todo="Name a run folder, or a folder such as wsi-run/train-mil/ENCODER/MODEL",
        )
    kept = [
        folder
        for folder in found
        if (features is None or folder.parts[-2] == slug(features)) and (model is None or folder.parts[-1] == model)
    ]
    if not kept:
        raise UsageError(f"no such trained model in {path}", todo=f"There are: {_names(found)}")
    return kept


def _names(folders: list[Path]) -> str:
    return ", ".join("/".join(folder.parts[-2:]) for folder in folders)
