"""Stage `similar`: finds slides with similar embeddings and writes files beside the embeddings.

embed/<encoder>+<slide encoder>/
  neighbours.csv   the nearest slides of each slide, see mil.validation.neighbours
  neighbours.json  how well labels of neighbours from other patients predict a slide's label; only if there are labels
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.slide_options import SimilarOptions
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.validation.neighbours import Neighbours, same_site, score_neighbours
from wsi_pipeline.stages.inputs.slide_bags import SlideBags, gather, tuned_on_warnings
from wsi_pipeline.system.atomic import remove, write_text
from wsi_pipeline.system.locks import locked

NEIGHBOURS, SCORE = "neighbours.csv", "neighbours.json"


@dataclass(frozen=True, eq=False)
class Similar:
    """Neighbours of slides.

    table   neighbours of all slides, see `Neighbours.table`
    sites   see `same_site`; None with fewer than two sites
    score   how well the labels of neighbours predict, as in neighbours.json; if None, `why` gives the reason
    """

    folder: Path
    slides: SlideBags
    table: pd.DataFrame
    score: dict[str, Any] | None
    why: str = ""
    sites: dict[str, Any] | None = None


def find_similar(run: RunDir, records: Sequence[SlideRecord], name: str, options: SimilarOptions) -> Similar:
    """Search the slide embeddings `name` of a run and write the results beside them.

    Raises MilError if there are fewer than two embeddings, or several rows per slide.
    """
    slides = gather(run, records, name)
    table = neighbours_of(slides, options.neighbours)
    score, why = None, ""
    try:
        score = score_of(slides, options)
    except MilError as error:
        why = error.what
    sites = same_site(np.asarray(slides.bags.features), slides.table, options.neighbours)
    if score is not None and sites is not None:
        score["sites"] = sites
    folder = run.embeddings_csv(name).parent
    with locked(run.lock("similar", name), math.inf):
        write_text(folder / NEIGHBOURS, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
        if score is None:
            remove(folder / SCORE)
        else:
            write_text(folder / SCORE, json.dumps(score, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    return Similar(folder, slides, table, score, why, sites)


def neighbours_of(slides: SlideBags, most: int, slide_ids: Sequence[str] | None = None) -> pd.DataFrame:
    """The nearest slides of all slides, or of the named ones; see `Neighbours.table`.

    Raises MilError for a slide without an embedding, or if slides have more than one vector.
    """
    if (slides.bags.lengths != 1).any():
        raise MilError(
            "these are patch features, neighbours are found by slide embeddings",
            todo="Run first: wsi-pipeline embed-slides, or wp.embed_slides in Python",
        )
    rows = None
    if slide_ids is not None:
        known = {slide: row for row, slide in enumerate(slides.table["slide_id"])}
        for slide in slide_ids:
            if slide not in known:
                why = slides.left_out.get(slide, "it is not in this run")
                raise MilError(f"no slide embedding of {slide}: {why}")
        rows = np.array([known[slide] for slide in slide_ids], np.int64)
    found = Neighbours.of(np.asarray(slides.bags.features), slides.table["patient_id"])
    return found.table(slides.table, most, rows)


def score_of(slides: SlideBags, options: SimilarOptions) -> dict[str, Any]:
    """How well the labels of neighbours predict. Raises MilError without labels to score."""
    labelled = slides.labelled()
    if not len(labelled.table):
        raise MilError("no slide has a label")
    spec = MilSpec(
        task=options.task, positive=options.positive, bootstrap=options.bootstrap,
        permutations=options.permutations, seed=options.seed,
    )  # fmt: skip
    features = np.asarray(labelled.bags.features)
    found = score_neighbours(features, labelled.table, options.neighbours, spec)
    return {**found, "warnings": [*tuned_on_warnings(labelled), *found["warnings"]]}
