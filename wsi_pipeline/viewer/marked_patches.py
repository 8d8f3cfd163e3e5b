"""Turn marks into labelled patches, and into the command that tunes on them.

A mark labels every patch of the run of which it covers at least half. A smaller mark labels the patch that it covers
most, a point the patch that it lies in. Patches with marks of two classes are left out.

annotations/patches.csv                      path, label, group, slide_id, level0_x, level0_y, mark: what tune reads
annotations/patches/<slide_id>/<...>.png     the pixels, as embed reads them
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.errors import ShapelyError
from shapely.geometry import shape

from wsi_pipeline.cohort.run_dir import existing_store
from wsi_pipeline.errors import LabelError, UsageError, WsiPipelineError
from wsi_pipeline.stages.outputs.patch_images import write_patch_images
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.tissue.geojson import enclosed_area
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.marks import Marks
from wsi_pipeline.wording import counted

LEAST_COVER = 0.5
NAME = "marks"
"""The tuned adapter is pathotune:marks."""
_OPTIONS = ("--epochs", "12", "--batch", "16")


@dataclass(frozen=True)
class MarkedPatch:
    """One labelled patch: row in the slide's patch store, class, and the mark that the class comes from."""

    slide_id: str
    row: int
    label: str
    mark: str
    patient: str


@dataclass(frozen=True)
class Teaching:
    """The labelled patches of a run, and how to tune on them.

    group     unit of the split: `patient`, or `mark` if too few patients are marked
    mpp       micrometres per pixel of the patches; None without patches
    missing   one sentence on why tune cannot be run yet; empty if it can
    notes     limitations of the score
    """

    patches: tuple[MarkedPatch, ...] = ()
    twice: int = 0
    outside: int = 0
    group: str = "patient"
    options: tuple[str, ...] = ()
    missing: str = ""
    notes: tuple[str, ...] = ()
    mpp: float | None = None
    classes: dict[str, dict[str, int]] = field(default_factory=dict)


def teaching(library: Library, marks: Marks) -> Teaching:
    """The labelled patches from all marks of a run, and the plan for tuning."""
    found: list[MarkedPatch] = []
    twice = outside = 0
    spacings: list[float] = []
    for slide_id, record in library.records.items():
        if not marks.run.annotation(slide_id).is_file():
            continue
        store = existing_store(marks.run.patch_store(slide_id))
        if store is None:
            continue
        try:
            features = marks.read(slide_id)["features"]
            table = read_patch_table(store)
        except WsiPipelineError:
            continue
        labels, both, none = marked_rows(features, table.grid.coords, table.geometry.patch_level0)
        twice, outside = twice + both, outside + none
        spacings += [round(table.geometry.mpp, 4)] if labels else []
        found += [MarkedPatch(slide_id, row, *labels[row], record.patient_id) for row in sorted(labels)]
    return _with(_planned(tuple(found), twice, outside), mpp=min(spacings, default=None))


def marked_rows(
    features: Sequence[dict[str, Any]], coords: NDArray[np.int64], side: int
) -> tuple[dict[int, tuple[str, str]], int, int]:
    """row -> (class, id of the mark); number of patches with two classes; number of marks that touch no patch."""
    owners: dict[int, dict[str, str]] = defaultdict(dict)
    outside = 0
    for feature in features:
        name = ((feature.get("properties") or {}).get("classification") or {}).get("name")
        if not isinstance(name, str) or not name or name.endswith("*"):  # QuPath ignores classes that end in *
            continue
        rows = _rows_of(feature["geometry"], coords, side)
        outside += not len(rows)
        for row in rows:
            owners[int(row)].setdefault(name, str(feature["id"]))
    labels = {row: next(iter(names.items())) for row, names in owners.items() if len(names) == 1}
    return labels, len(owners) - len(labels), outside


def _rows_of(geometry: dict[str, Any], coords: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The patches that a mark labels."""
    if not len(coords):
        return np.zeros(0, np.int64)
    try:
        drawn = shape(geometry)
    except (ShapelyError, ValueError, TypeError, KeyError, AttributeError, IndexError):
        return np.zeros(0, np.int64)
    if drawn.geom_type in ("Point", "MultiPoint"):
        return _of_points(shapely.get_coordinates(drawn), coords, side)
    if drawn.geom_type not in ("Polygon", "MultiPolygon"):
        return np.zeros(0, np.int64)
    area = enclosed_area(drawn)
    left, top, right, bottom = area.bounds
    near = np.flatnonzero(
        (coords[:, 0] < right) & (coords[:, 0] + side > left) & (coords[:, 1] < bottom) & (coords[:, 1] + side > top)
    )
    corners = coords[near].astype(np.float64)
    boxes = shapely.box(corners[:, 0], corners[:, 1], corners[:, 0] + side, corners[:, 1] + side)
    shapely.prepare(area)
    cover = shapely.area(shapely.intersection(boxes, area)) / side**2
    enough = cover >= LEAST_COVER
    if not enough.any():
        enough = (cover > 0) & (np.arange(len(near)) == (cover.argmax() if len(near) else 0))
    return np.asarray(near[enough], dtype=np.int64)


def _of_points(points: NDArray[np.float64], coords: NDArray[np.int64], side: int) -> NDArray[np.int64]:
    """The patch that each point lies in; if patches overlap, the one with the nearest centre."""
    rows = []
    for point in points:
        away = np.abs(coords + side / 2 - point).max(axis=1)
        row = int(away.argmin())
        if away[row] <= side / 2:
            rows.append(row)
    return np.unique(np.array(rows, np.int64))


def _planned(patches: tuple[MarkedPatch, ...], twice: int, outside: int) -> Teaching:
    """How to split: by patient if each class has enough patients, else by mark, with a note."""
    classes: dict[str, dict[str, int]] = {}
    for name in dict.fromkeys(patch.label for patch in patches):
        own = [patch for patch in patches if patch.label == name]
        classes[name] = {
            "patches": len(own), "slides": len({patch.slide_id for patch in own}),
            "patients": len({patch.patient for patch in own}), "marks": len({patch.mark for patch in own}),
        }  # fmt: skip
    base = Teaching(patches, twice, outside, classes=classes)
    if len(classes) < 2:
        named = f"only {next(iter(classes))}" if classes else "nothing"
        return _with(base, missing=f"Mark at least two classes; {named} is marked so far.")
    patients = min(count["patients"] for count in classes.values())
    if patients >= 3:
        return _with(base, options=(*_OPTIONS,))
    if patients == 2:
        note = (
            "A class is marked on two patients only: one of them trains, the other selects the best epoch, and no "
            "patient is left for an independent test. The score is optimistic."
        )
        return _with(base, options=(*_OPTIONS, "--test-fraction", "0"), notes=(note,))
    everyone = {patch.patient for patch in patches}
    where = (
        f"All marks lie on one patient ({everyone.pop()})"
        if len(everyone) == 1
        else "A class is marked on one patient only"
    )
    note = (
        f"{where}. The score is then measured on other marks of the same patient: it says how well the model tells "
        "this tissue apart, not how well it will do on a new patient. Mark a second patient for that."
    )
    few = [name for name, count in classes.items() if count["marks"] < 2]
    missing = f"Mark a second place of {few[0]}: one trains the model, the other selects the best epoch." if few else ""
    return _with(base, group="mark", options=(*_OPTIONS, "--test-fraction", "0"), notes=(note,), missing=missing)


def _with(base: Teaching, **values: Any) -> Teaching:
    return Teaching(**{**vars(base), **values})


def write_patches_csv(library: Library, marks: Marks, plan: Teaching) -> Path:
    """Write the images of the labelled patches and patches.csv; returns the path of patches.csv.

    Raises UsageError if there is too little to tune on, LabelError for patches of different resolutions.
    """
    if plan.missing:
        raise UsageError(plan.missing)
    run, spacings = marks.run, set()
    lines: list[tuple[object, ...]] = [("path", "label", "group", "slide_id", "level0_x", "level0_y", "mark")]
    for slide_id in dict.fromkeys(patch.slide_id for patch in plan.patches):
        own = [patch for patch in plan.patches if patch.slide_id == slide_id]
        path = library.record(slide_id).path
        table, names = write_patch_images(run, slide_id, path, [patch.row for patch in own])
        spacings.add(round(table.geometry.mpp, 4))
        for patch, name in zip(own, names, strict=True):
            x, y = (int(value) for value in table.grid.coords[patch.row])
            group = patch.patient if plan.group == "patient" else f"{slide_id} {patch.mark}"
            lines.append((name, patch.label, group, slide_id, x, y, patch.mark))
    if max(spacings) > 1.1 * min(spacings):
        raise LabelError(f"the marked patches have different resolutions, {min(spacings)} to {max(spacings)} mpp")
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    target = run.annotations / "patches.csv"
    write_text(target, text.getvalue())
    return target


def told(plan: Teaching) -> dict[str, Any]:
    """The plan as JSON for the page."""
    said = [f"{counted(plan.twice, 'patch')} marked as two classes, left out"] if plan.twice else []
    said += [f"{counted(plan.outside, 'mark')} outside all patches, not used"] if plan.outside else []
    return {
        "classes": plan.classes, "patches": len(plan.patches), "group": plan.group, "missing": plan.missing,
        "notes": [*plan.notes, *said],
    }  # fmt: skip
