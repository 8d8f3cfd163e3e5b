"""`compare`: differences between two validations on the same patients, with intervals and p-values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.execution import CompareOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.trained.model_config import CONFIG, read_config
from wsi_pipeline.mil.validation.paired import compare as compare_validations
from wsi_pipeline.mil.validation.paired import sentence
from wsi_pipeline.stages.inputs.alike import differing_patches, differing_stain, differing_tissue
from wsi_pipeline.stages.outputs.comparison_inputs import Pair, pairs, validated
from wsi_pipeline.stages.outputs.foreign_side import FOREIGN
from wsi_pipeline.stages.outputs.predicted_side import NOTES, is_prediction
from wsi_pipeline.statistics.metric_words import metric_words, p_words
from wsi_pipeline.system.atomic import write_text
from wsi_pipeline.wording import counted


def compare(request: Request) -> int:
    """Compare two trainings, or every training that two runs have in common."""
    if len(request.sources) != 2:
        raise UsageError(
            f"compare needs two runs or training folders, got {len(request.sources)}",
            todo="For example: wsi-pipeline compare wsi-run/train-mil/colour/mean other-run",
        )
    options = request.get(CompareOptions)
    first, second = (Path(source) for source in request.sources)
    results = [_one(request, pair) for pair in pairs(first, second, features=options.features, model=options.model)]
    if options.json:
        write_text(Path(options.json), json.dumps(results, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        request.console.say(f"all results as JSON: {shown(Path(options.json))}")
    return EXIT_DONE


def _one(request: Request, pair: Pair) -> dict[str, Any]:
    options, console = request.get(CompareOptions), request.console
    a, b = (shown(training.folder) for training in pair)
    sides = [validated(training) for training in pair]
    found = compare_validations(sides[0], sides[1], resamples=options.bootstrap, seed=options.seed)
    console.fact("A", a)
    console.fact("B", b)
    console.table(("metric", "A", "B", "B - A", "p"), [_row(name, one) for name, one in found["metrics"].items()])
    if found.get("delong"):
        row = _row("", found["delong"])
        console.fact("DeLong", f"AUROC of {found['delong']['class']}: B - A {row[3]}, p {row[4] or 'undefined'}")
    for text in _notes(found, pair):
        console.note(text)
    console.say(sentence(found))
    return {"a": a, "b": b, **found, "sentence": sentence(found)}


def _row(name: str, entry: Mapping[str, Any]) -> list[str]:
    values = ["undefined" if entry[side] is None else f"{entry[side]:.3f}" for side in ("a", "b")]
    difference = "" if entry["difference"] is None else f"{entry['difference']:+.3f}"
    if entry["low"] is not None:
        difference += f" [{entry['low']:+.3f}, {entry['high']:+.3f}]"
    chance = "" if entry["p_value"] is None else p_words(entry["p_value"]).removeprefix("p ").removeprefix("= ")
    return [metric_words(name), *values, difference, chance]


def _notes(found: Mapping[str, Any], pair: Pair) -> list[str]:
    interval = found["interval"]
    notes = [
        f"differences with {100 * interval['level']:.0f} % intervals by {interval['resamples']} paired bootstrap "
        f"resamples of {counted(found['n_patients'], 'patient')}; p-values are not corrected for multiple comparisons"
    ]
    notes += _stain_note(pair) + _patches_note(pair)
    notes += [text for training in pair for text in training.metrics.get(NOTES) or ()]
    predicted = [name for name, side in zip("AB", pair, strict=True) if is_prediction(side.folder)]
    if predicted:
        notes.append(f"{' and '.join(predicted)}: predictions of finished models on patients they were not trained on")
    elif not found["same_folds"] and not any(FOREIGN in side.metrics for side in pair):
        notes.append("the two were tested in different folds: part of the difference may come from the folds")
    return notes


def _stain_note(pair: Pair) -> list[str]:
    """A note if the features of the two were normalised differently."""
    trained = [side.metrics for side in pair if not is_prediction(side.folder) and FOREIGN not in side.metrics]
    stains = [metrics.get("stain") or {} for metrics in trained]
    if len(stains) < 2 or stains[0] == stains[1]:
        return []
    words = [f"{one['stain_norm']} to {one['stain_target']}" if one else "none" for one in stains]
    return [f"their features differ in stain normalisation: A {words[0]}, B {words[1]}"]


def _patches_note(pair: Pair) -> list[str]:
    """A note if the patches of the two differ in size or resolution, or in how tissue was found."""
    if any(is_prediction(side.folder) or FOREIGN in side.metrics for side in pair):
        return []
    a, b = (read_config(side.folder / CONFIG).provenance.get("specs") or {} for side in pair)
    stain = differing_stain(b, a)  # has a note of its own
    differing = [text for text in differing_patches(b, a) + differing_tissue(b, a) if text not in stain]
    return [f"their patches differ: B has {'; '.join(differing)}"] if differing else []
