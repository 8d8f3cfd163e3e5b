"""`similar`: the slides nearest to one, by slide embedding, and how well neighbours predict the labels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.manifest import Cohort
from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.commands.shell.estimate_text import MOST_METRICS, MOST_WARNINGS, cell, facts, left_out_words, number
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.slide_options import SimilarOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.stages.similar_slides import NEIGHBOURS, Similar, find_similar
from wsi_pipeline.statistics.metric_words import metric_words


def similar(request: Request) -> int:
    """List the neighbours of the named slides, and predict the label of every labelled slide from its neighbours."""
    cohort = request.known_cohort()
    _check_names(request, cohort)
    if request.get(SimilarOptions).patch is not None:
        return _patches(request)
    name = _embeddings(request)
    found = find_similar(request.run_dir, cohort.records, name, request.get(SimilarOptions))
    if found.slides.left_out:
        request.console.note(f"without an embedding{left_out_words(found.slides)}")
    for slide in request.sources:
        _list(request, slide, found)
    _print_score(request, name, found)
    if found.sites is not None:
        near, among = (f"{100 * found.sites[key]:.0f} %" for key in ("near", "all"))
        request.console.fact(
            "sites", f"{near} of the neighbours are of the slide's own site, {among} of all slides are"
        )
    after = f"train-mil --model linear --features {name}"
    request.console.say(f"all neighbours: {shown(found.folder / NEIGHBOURS)} · {request.next(after)}")
    return EXIT_DONE


def _patches(request: Request) -> int:
    """List the patches most similar to one."""
    from wsi_pipeline.viewer.library import Library
    from wsi_pipeline.viewer.nearest.similar_patches import SimilarPatches

    options = request.get(SimilarOptions)
    place = re.fullmatch(r"(\d{1,9}),(\d{1,9})", options.patch or "")
    if place is None or len(request.sources) != 1:
        raise UsageError(
            "--patch takes one slide and a level-0 pixel", todo="For example: similar s01 --patch 5120,2048"
        )
    search, (slide,) = SimilarPatches(Library.of_run(request.run_dir)), request.sources
    encoders = search.encoders()
    if not encoders or (options.features is None and len(encoders) > 1):
        known = f"There are: {', '.join(encoders)}" if encoders else "Run first: wsi-pipeline embed"
        raise UsageError("name the patch features to compare with --features", todo=known)
    encoder = options.features or encoders[0]
    row = search.row_at(slide, encoder, *map(int, place.groups()))
    found = search.patches(slide, row, encoder, options.neighbours, others=options.other_slides)
    rows = [[one["id"], *(str(one[key]) for key in ("x", "y", "side")), str(one["label"] or ""),
             f"{one['distance']:.3f}"] for one in found]  # fmt: skip
    request.console.say(f"patches of {encoder} most similar to the one at {options.patch} of {slide}")
    request.console.table(("slide", "x", "y", "side", "label", "distance"), rows, right=(1, 2, 3, 5))
    request.console.say(search.how(encoder))
    return EXIT_DONE


def _check_names(request: Request, cohort: Cohort) -> None:
    known = [record.slide_id for record in cohort.records]
    for slide in request.sources:
        if slide not in known:
            near = difflib.get_close_matches(slide, known, n=3)
            hint = f"Did you mean {', '.join(near)}?" if near else "List them with: wsi-pipeline status"
            raise UsageError(f"no slide {slide} in this run", todo=hint)


def _embeddings(request: Request) -> str:
    wanted, found = request.get(SimilarOptions).features, request.run_dir.slide_embeddings()
    if not found:
        raise UsageError("no slide embeddings in this run", todo="Run first: wsi-pipeline embed-slides")
    if wanted is None and len(found) > 1:
        raise UsageError(f"this run has {len(found)} sets of slide embeddings; choose one with --features",
                         todo=f"There are: {', '.join(found)}")  # fmt: skip
    if wanted is not None and slug(wanted) not in found:
        raise UsageError(f"no slide embeddings {wanted} in this run", todo=f"There are: {', '.join(found)}")
    return slug(wanted) if wanted is not None else found[0]


def _list(request: Request, slide: str, found: Similar) -> None:
    own = found.slides.table[found.slides.table["slide_id"] == slide]
    if own.empty:
        request.console.note(f"no slide embedding of {slide}: {found.slides.left_out.get(slide, 'not embedded')}")
        return
    about = [str(own[column].iloc[0]) for column in ("label", "site") if column in own and own[column].notna().all()]
    request.console.say(f"{slide}{' (' * bool(about)}{', '.join(about)}{')' * bool(about)}: nearest slides")
    columns = [column for column in ("patient_id", "label", "site") if column in found.table]
    rows = []
    for row in found.table[found.table["slide_id"] == slide].to_dict("records"):
        rank = "" if pd.isna(row["rank"]) else str(row["rank"])
        rest = ["" if pd.isna(row[column]) else str(row[column]) for column in columns]
        mark = "same patient, not counted" if row["same_patient"] == "yes" else ""
        rows.append([rank, str(row["neighbour"]), f"{row['similarity']:.3f}", *rest, mark])
    names = {"patient_id": "patient"}
    request.console.table(
        ("", "slide", "similarity", *(names.get(column, column) for column in columns), "note"), rows, right=(0, 2)
    )


def _print_score(request: Request, name: str, found: Similar) -> None:
    score = found.score
    if score is None:
        request.console.note(f"neighbours are not scored: {found.why}")
        return
    shown_metrics = list(score["pooled"])[:MOST_METRICS]
    request.console.table(
        ("embeddings", "model", *(metric_words(metric) for metric in shown_metrics)),
        [
            [name, f"{score['neighbours']} neighbours", *(cell(score, metric) for metric in shown_metrics)],
            ["(chance)", "", *(number(score, _of(score, metric)) for metric in shown_metrics)],
        ],
    )
    for label, text in facts(score):
        request.console.fact(label, text)
    for warning in score["warnings"][:MOST_WARNINGS]:
        request.console.note(warning)
    request.console.say(
        "each slide is predicted by slides of other patients; [95 % intervals] by "
        f"{score['interval']['resamples']} bootstrap resamples of {score['n_patients']} patients"
    )


def _of(score: Mapping[str, Any], metric: str) -> float | None:
    value = score["chance"].get(metric)
    return None if value is None else float(value)
