"""`tune --suggest`: which patches of the run to label next, as a list that `tune` reads once it is filled in.

annotations/suggestions-<k>.csv              path, label (empty), group, slide_id, level0_x, level0_y, level0_width,
                                             mpp, uncertainty, predicted, model; the most uncertain patch first
annotations/patches/<slide_id>/<...>.png     the pixels, as embed reads them
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.encoders.names import TUNED
from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.labelled.joined_patches import JoinedPixels
from wsi_pipeline.labelled.labelled_patches import PatchPixels, Rows
from wsi_pipeline.labelled.slide_patches import PatchesOfSlides
from wsi_pipeline.labelled.sources.label_table import TABLE_SUFFIXES, read_label_table
from wsi_pipeline.stages.inputs.find_adapter import plan_in_run
from wsi_pipeline.stages.outputs.patch_images import write_patch_images
from wsi_pipeline.stages.results.fractions import current_header
from wsi_pipeline.stages.results.least_sure import SlidePatchClasses, UnsurePatch, least_sure
from wsi_pipeline.stages.tune import TuneJob
from wsi_pipeline.store.tables.class_table import ClassTable, read_class_table
from wsi_pipeline.system.atomic import write_text

_PLACE = ["slide_id", "level0_x", "level0_y"]

Boxes = Mapping[str, Sequence[tuple[int, int, int]]]
"""Slide -> level-0 x, y and width of patches."""


@dataclass(frozen=True)
class Suggestions:
    """The list written: its file, its patches, of how many slides; slides not classified by this adapter."""

    path: Path
    patches: int
    slides: int
    left_out: tuple[str, ...]


def suggest(job: TuneJob, sources: Sequence[Path], records: Sequence[SlideRecord], count: int) -> Suggestions:
    """Write the `count` patches of the run that the tuned model is least sure of, spread over slides.

    sources   the labels given to tune; patches that have a label, there or in an earlier list, are left out
    records   the slides of the run

    Needs the slides classified by this adapter. The last list is replaced unless it has labels. Raises UsageError if no
    slide is classified, or all patches are labelled; LabelError and SlideError for a slide without patches.
    """
    run, model = job.run, model_name(job.name)
    tables, left_out = _classified(run, model, records)
    if not tables:
        raise UsageError(
            f"no slide of this run is classified by the adapter {job.name}",
            todo=f"Run: wsi-pipeline classify --model {model}, then this command again",
        )
    known = _labelled_boxes(job, [*sources, *_lists(run)])
    slides = [
        SlidePatchClasses(
            table.probabilities, table.coords, table.geometry.patch_level0, _inside(table, known.get(slide_id, ()))
        )
        for slide_id, table in ((record.slide_id, table) for record, table in tables)
    ]
    chosen = least_sure(slides, count)
    if not chosen:
        raise UsageError("every patch of the classified slides has a label", todo="Tile and classify more slides")
    path = _next_list(run)
    write_text(path, _table(run, model, tables, chosen).to_csv(index=False, lineterminator="\n"))
    return Suggestions(path, len(chosen), len({patch.slide for patch in chosen}), left_out)


def model_name(name: str) -> str:
    """What `--model` calls a tuning of the run."""
    return TUNED if name == TUNED else f"{TUNED}:{name}"


def _classified(
    run: RunDir, model: str, records: Sequence[SlideRecord]
) -> tuple[list[tuple[SlideRecord, ClassTable]], tuple[str, ...]]:
    """Slides with the class probabilities of this very adapter, and the names of those without."""
    wanted, found, left_out = plan_in_run(run, model)[0].fingerprint, [], []
    for record in records:
        header = current_header(run, model, record)
        store = existing_store(run.class_store(model, record.slide_id))
        if header is None or store is None or header.extra.get("encoder", {}).get("fingerprint") != wanted:
            left_out.append(record.slide_id)
        else:
            found.append((record, read_class_table(store)))
    return found, tuple(left_out)


def _labelled_boxes(job: TuneJob, lists: Sequence[Path]) -> Boxes:
    """Patches with a label: those that the model was tuned on, and those of lists with slides and places."""
    boxes: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    _add_boxes(job.patches.pixels, job.patches.index, boxes)
    for path in lists:
        table = _places_in(path)
        for row in table.itertuples() if table is not None else ():
            boxes[str(row.slide_id)].append((int(row.level0_x), int(row.level0_y), int(row.level0_width)))  # type: ignore[arg-type]
    return boxes


def _add_boxes(pixels: PatchPixels, rows: Rows, boxes: dict[str, list[tuple[int, int, int]]]) -> None:
    """Add the patches at `rows` of a source, if it is one of slides."""
    if isinstance(pixels, JoinedPixels):
        for number, part in enumerate(pixels.parts):
            _add_boxes(part, pixels.index_of[rows[pixels.part_of[rows] == number]], boxes)
    if isinstance(pixels, PatchesOfSlides):
        for part, row in zip(pixels.part_of[rows].tolist(), pixels.patch_of[rows].tolist(), strict=True):
            source = pixels.parts[part]
            x, y = (int(value) for value in source.coords[row])
            boxes[source.slide_id].append((x, y, source.geometry.patch_level0))


def _places_in(path: Path) -> pd.DataFrame | None:
    """The labelled rows of a list that states places on slides; None for other files."""
    if path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        return None
    try:
        found = read_label_table(path, LabelSpec())
    except LabelError:
        return None
    table = pd.DataFrame(list(found.rows), columns=list(found.header), dtype=str)
    if not {*_PLACE, "label"} <= set(table.columns):
        return None
    places = table[["level0_x", "level0_y"]].apply(pd.to_numeric, errors="coerce")
    widths = pd.to_numeric(table.get("level0_width", pd.Series(1, table.index)), errors="coerce").fillna(1)
    rows = (table["label"].str.strip() != "") & places.notna().all(axis=1)
    labelled: pd.DataFrame = table[["slide_id"]].assign(**places, level0_width=widths)[rows]
    return labelled


def _inside(table: ClassTable, boxes: Sequence[tuple[int, int, int]]) -> list[int]:
    """Rows of the patches that share their corner with a labelled patch, or whose centre lies in one."""
    if not boxes:
        return []
    found = np.array(boxes, np.int64)
    centres: NDArray[np.int64] = table.coords + table.geometry.patch_level0 // 2
    inside = np.zeros(len(centres), np.bool_)
    for x, y, width in found.tolist():
        inside |= (table.coords == (x, y)).all(axis=1)
        inside |= ((centres >= (x, y)) & (centres < (x + width, y + width))).all(axis=1)
    return np.flatnonzero(inside).tolist()


def _lists(run: RunDir) -> list[Path]:
    """Earlier lists, oldest first."""
    found = [(path.stem.rpartition("-")[2], path) for path in run.annotations.glob("suggestions-*.csv")]
    return [path for number, path in sorted((int(k), path) for k, path in found if k.isdecimal())]


def _next_list(run: RunDir) -> Path:
    """The file of the next list: a new number, or the last one if nothing in it is labelled yet."""
    known = _lists(run)
    if not known:
        return run.annotations / "suggestions-1.csv"
    table = _places_in(known[-1])
    if table is not None and table.empty:
        return known[-1]
    return run.annotations / f"suggestions-{int(known[-1].stem.rpartition('-')[2]) + 1}.csv"


def _table(
    run: RunDir, model: str, tables: Sequence[tuple[SlideRecord, ClassTable]], chosen: Sequence[UnsurePatch]
) -> pd.DataFrame:
    """The list, after writing its images."""
    names: dict[tuple[int, int], str] = {}
    for number in sorted({patch.slide for patch in chosen}):
        record, rows = tables[number][0], [patch.row for patch in chosen if patch.slide == number]
        _, written = write_patch_images(run, record.slide_id, record.path, rows)
        names |= {(number, row): name for row, name in zip(rows, written, strict=True)}
    lines = []
    for patch in chosen:
        record, table = tables[patch.slide]
        x, y = (int(value) for value in table.coords[patch.row])
        predicted = table.classes[int(table.probabilities[patch.row].argmax())]
        lines.append(
            {"path": names[patch.slide, patch.row], "label": "", "group": record.patient_id}
            | {"slide_id": record.slide_id, "level0_x": x, "level0_y": y, "level0_width": table.geometry.patch_level0}
            | {"mpp": round(table.geometry.mpp, 4), "uncertainty": round(patch.doubt, 4)}
            | {"predicted": predicted, "model": model}
        )
    return pd.DataFrame(lines)
