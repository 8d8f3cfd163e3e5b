"""Outlined regions: they say what the class map says, they do not overlap, and tuning can take its labels from them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image
from shapely.geometry import shape

from tests.demo.conftest import SEED, SIDES, MadeCohort
from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.demo.demo_cohort import ANNOTATED, COLUMNS
from wsi_pipeline.demo.layout import TISSUE_CLASSES
from wsi_pipeline.demo.plan import plan_annotated, plan_cohort
from wsi_pipeline.demo.truth import class_fractions, region_map
from wsi_pipeline.geometry import Box
from wsi_pipeline.labelled.open_labelled import open_labelled

LEAST = {"tumour": 0.4, "gland": 0.1, "stroma": 0.5, "lymphoid": 0.2, "fat": 0.3}
"""Smallest part of a patch that its own class covers: at the rim of a region less than in its middle."""


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_annotated_slides_are_of_other_patients_and_drawn_anew(cohort: MadeCohort) -> None:
    rows = rows_of(cohort.folder / ANNOTATED)
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 2
    assert not {row["patient_id"] for row in rows} & {row["patient_id"] for row in cohort.rows}
    assert not {row["slide_id"] for row in rows} & {row["slide_id"] for row in cohort.rows}
    seeds = [plan.seed for plan in (*plan_cohort(24, SEED, SIDES), *plan_annotated(40, SEED, SIDES))]
    assert len(set(seeds)) == len(seeds)


def test_regions_do_not_overlap_and_carry_names_of_tissue(cohort: MadeCohort) -> None:
    for row in rows_of(cohort.folder / ANNOTATED):
        features = json.loads((cohort.folder / row["annotation"]).read_text())["features"]
        names = {feature["properties"]["classification"]["name"] for feature in features}
        assert len(names) >= 2
        assert names <= set(TISSUE_CLASSES) - {"background"}
        assert (row["label"] == "tumour") == ("tumour" in names)
        shapes = [shape(feature["geometry"]) for feature in features]
        for number, region in enumerate(shapes):
            assert region.is_valid
            for other in shapes[number + 1 :]:
                # Outlines of neighbours run through the same cells and are simplified each for itself.
                assert region.intersection(other).area < 0.02 * min(region.area, other.area)


def test_labelled_patches_show_their_class(cohort: MadeCohort) -> None:
    patches = open_labelled(cohort.folder / ANNOTATED, LabelSpec(overlap_px=128, min_inside=0.6))
    assert set(patches.groups) == {"A01", "A02"}
    counts = patches.class_counts()
    assert sum(counts.values()) >= 8
    maps = {
        path.name.split(".")[0]: np.asarray(Image.open(path))
        for path in (cohort.folder / "truth").glob("annotated*.png")
    }
    for name, label in zip(patches.names, patches.labels, strict=True):
        slide, _, place = name.partition(" ")
        x, y = (int(value) for value in place.strip("()").split(","))
        shares = class_fractions(maps[slide], Box(x, y, 256, 256))
        kind = patches.classes[label]
        assert shares[TISSUE_CLASSES.index(kind)] >= LEAST[kind], (name, kind, shares)


def test_region_map_leaves_out_glass_and_what_is_mixed() -> None:
    stroma, tumour = TISSUE_CLASSES.index("stroma"), TISSUE_CLASSES.index("tumour")
    classes = np.zeros((120, 240), np.uint8)
    classes[:, 120:] = stroma
    classes[:, 180:] = tumour
    regions = region_map(classes)
    assert (regions[:, :100] == 0).all()
    assert (regions[:, 140:170] == stroma).all()
    assert (regions[:, 190:] == tumour).all()
    assert (regions[:, 174:178] == 0).all()
