"""`train-mil --tune-prompts`: a training whose features are tuned inside each fold, from the slide labels alone.

train-mil/<encoder>/<training>.prompts/     the files of other trainings (see `stages.train_mil`), and
  prompts<k>.safetensors                    the adapter of fold k: prompts that never saw the fold's test slides
  resume/                                   while training: the state of each fold
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pathotune.checkpoint import load_adapter, save_adapter
from pathotune.model import PathoTune
from pathotune.training.arithmetic import Compute
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.prompt_spec import PromptSpec
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.prompts.prompt_inputs import PromptInputs, bags_through
from wsi_pipeline.mil.prompts.tune_fold import tune_fold
from wsi_pipeline.mil.training.objectives import Objective
from wsi_pipeline.mil.training.training_run import FoldRows
from wsi_pipeline.mil.validation.crossval import CrossValidation, TrainingProgress, cross_validate_bags
from wsi_pipeline.stages.inputs.prompt_source import open_network, open_pixels
from wsi_pipeline.stages.inputs.retraining import check_replaceable
from wsi_pipeline.stages.inputs.slide_bags import SlideBags, tuned_on_warnings
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.stages.results.former import keep_former
from wsi_pipeline.stages.results.trainings import (
    FOLDS,
    HISTORY,
    NAME,
    PREDICTIONS,
    Training,
    read_training,
    training_name,
)
from wsi_pipeline.stages.train_mil import training_digest
from wsi_pipeline.system.atomic import make_folder, remove, write_text
from wsi_pipeline.system.device import choose_device, choose_precision
from wsi_pipeline.system.locks import locked
from wsi_pipeline.wording import counted

SUFFIX = ".prompts"
RESUME = "resume"
_REVISION = 1


@dataclass(frozen=True, eq=False)
class PromptRun:
    """Where and how prompts are tuned.

    name       folder name of the training, without SUFFIX; None: as given by `training_name`
    replace    allow replacing a training with other settings or labels
    on_line    called with a line about each finished epoch
    """

    run: RunDir
    encoder: str
    records: Sequence[SlideRecord]
    prompts: PromptSpec
    name: str | None = None
    replace: bool = False
    device: str = "auto"
    on_line: Callable[[str], None] = lambda line: None


def train_with_prompts(
    job: PromptRun, slides: SlideBags, spec: MilSpec, progress: Callable[[TrainingProgress], None] | None = None
) -> Training:
    """Cross-validate with prompts tuned in each fold, or read the existing training if it is up to date.

    After an interruption the same call continues with the last finished epoch. Raises MilError for features that are
    not of a plain vision transformer here, slides without pixels, and models without attention; UsageError if another
    training would be replaced.
    """
    folder = job.run.mil(job.encoder, (job.name or training_name(spec, slides.source.column)) + SUFFIX)
    with locked(job.run.lock(NAME, slug(f"{job.encoder}/{folder.name}")), math.inf):
        digest = _digest(job.prompts, slides, spec)
        known = read_training(folder)
        if known is not None and known.metrics.get("digest") == digest:
            return known
        if known is not None and not job.replace:
            check_replaceable(folder, known.predictions, slides.table, spec)
        place = choose_device(job.device)
        network, card = open_network(job.run, slides, job.prompts.weights)
        pixels = open_pixels(job.run, slides, job.records)
        compute = Compute(str(place), choose_precision(spec.precision, place).name)
        inputs = PromptInputs(slides.bags, pixels, network, card, job.prompts, spec, compute, job.on_line)
        inputs.check()
        former = keep_former(folder, str(known.metrics.get("digest", ""))) if known is not None else None
        folds = _Folds(inputs, _resume_folder(folder, digest))
        result = cross_validate_bags(
            slides.bags, slides.table, spec, device=place, progress=progress, fold_bags=folds.bags
        )
        metrics = _metrics(job, slides, spec, result, digest)
        _write(folder, folds, slides, (spec, result), metrics)
    predictions = result.predictions.drop(columns="slide_id") if spec.bag == "patient" else result.predictions
    return Training(folder, metrics, predictions, result.histories, fresh=False, former=former)


class _Folds:
    """Prompts of each fold, tuned or read back."""

    def __init__(self, inputs: PromptInputs, folder: Path) -> None:
        self.inputs, self.folder = inputs, folder

    def bags(self, number: int, objective: Objective, fold: FoldRows, bags: Bags) -> Bags:
        """The bags with the features of fold `number`. Only `fold`'s training and validation rows are learned from."""
        own = self.folder / f"fold{number}"
        make_folder(own)
        assert bags.slide_ids == self.inputs.bags.slide_ids
        if self.adapter(number).is_file():
            model: PathoTune = load_adapter(self.adapter(number), self.inputs.network)
        else:
            self.inputs.on_line(f"fold {number + 1}: tuning prompts on {counted(len(fold.train), 'slide')}")
            model = tune_fold(self.inputs, objective, fold, own)
            save_adapter(self.adapter(number), model, self.inputs.card, provenance={"method": "pathotune", "mil": True})
        return bags_through(self.inputs, model, own)

    def adapter(self, number: int) -> Path:
        """The adapter file of a fold while the training is not finished."""
        return self.folder / f"prompts{number}.safetensors"


def _digest(prompts: PromptSpec, slides: SlideBags, spec: MilSpec) -> str:
    settings = {name: value for name, value in asdict(prompts).items() if name != "weights"}
    return digest_of(training=training_digest(slides, spec), prompts=settings, revision=_REVISION)


def _resume_folder(folder: Path, digest: str) -> Path:
    """The folder of the state; emptied first if it belongs to another training."""
    resume = folder / RESUME
    mark = resume / "digest.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8").strip() != digest:
        remove(resume)
        make_folder(resume)
        write_text(mark, digest + "\n")
    return resume


def _metrics(job: PromptRun, slides: SlideBags, spec: MilSpec, result: CrossValidation, digest: str) -> dict[str, Any]:
    return {
        "digest": digest,
        "encoder": job.run.mil(job.encoder, "x").parent.name,
        "model": spec.model + SUFFIX,
        "prompts": {**asdict(job.prompts), "weights": None},
        **slides.source.to_json(spec.task),
        **result.metrics,
        "warnings": [*tuned_on_warnings(slides), *result.metrics["warnings"]],
        "left_out": slides.left_out,
    }


def _write(
    folder: Path,
    folds: _Folds,
    slides: SlideBags,
    found: tuple[MilSpec, CrossValidation],
    metrics: dict[str, Any],
) -> None:
    (spec, result), digest = found, metrics["digest"]
    for number in range(len(result.fitted)):
        target = folder / f"prompts{number}.safetensors"
        target.write_bytes(folds.adapter(number).read_bytes())
    name = f"{slides.encoder['name']} with prompts of each fold"
    encoder = {**slides.encoder, "name": name, "fingerprint": digest, "dim": result.fitted[0].model.in_dim}
    provenance = {"specs": slides.specs, "digest": digest, "slides": len(slides.table)}
    result.save_models(folder, spec, encoder, provenance)
    tables = [(PREDICTIONS, result.predictions), (FOLDS, result.assignment)]
    for name, table in tables:
        table = table.drop(columns="slide_id") if spec.bag == "patient" else table
        write_text(folder / name, table.to_csv(index=False, float_format="%.8g", lineterminator="\n"))
    write_text(folder / HISTORY, json.dumps(result.histories) + "\n")
    write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    remove(folder / RESUME)
