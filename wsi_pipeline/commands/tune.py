"""`tune`: adapt a vision transformer to a task, from labelled patches."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wsi_pipeline.commands.report import report_of
from wsi_pipeline.commands.shell.console import Progress
from wsi_pipeline.commands.shell.estimate_text import estimate
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.execution import QuPathOptions, TableOptions, TuneExecution
from wsi_pipeline.config.specs import LabelSpec, TuneSpec
from wsi_pipeline.errors import LabelError, UsageError
from wsi_pipeline.labelled.labelled_patches import LabelledPatches
from wsi_pipeline.labelled.open_labelled import open_together
from wsi_pipeline.labelled.splits.patch_leaks import check_leaks
from wsi_pipeline.labelled.splits.patch_split import PatchSplit, split_patches
from wsi_pipeline.stages import tune as stage
from wsi_pipeline.stages.outputs.suggestions import model_name, suggest
from wsi_pipeline.stages.outputs.tuning_diagnosis import diagnose_tuning
from wsi_pipeline.stages.results.former import FORMER, check_name
from wsi_pipeline.stages.results.patch_scores import POOLED
from wsi_pipeline.stages.results.tuning_files import CONFUSION, CURVES, SHEET, Tuning
from wsi_pipeline.stages.tune import EpochRow, TuneJob, Watch
from wsi_pipeline.statistics.metric_words import metric_words
from wsi_pipeline.wording import counted, grouped, listed

DEFAULT_NAME = "pathotune"
MOST_CLASSES = 30
_WORDS = {"train": "training", "val": "validation", "test": "test"}


def tune(request: Request) -> int:
    """Tune on labelled patches, test on held-out groups, save the adapter."""
    spec, name = request.get(TuneSpec), _name(request)
    if request.only or request.chunk:
        raise UsageError("tune uses all labelled patches: --only and --chunk do not apply")
    stage.check_text_encoder(spec)
    execution = request.get(TuneExecution)
    opened = stage.open_for_tuning(spec, execution.weights, execution.device)
    patches = _open(request)
    _print_patches(request, patches)
    split = _split(request, patches)
    job = TuneJob(request.run_dir, name, spec, request.get(LabelSpec), patches, split, opened)
    _print_job(request, job)
    tuning = _run(request, job)
    if execution.diagnose:
        request.console.fact("diagnosis", f"{shown(diagnose_tuning(job))}, numbers in diagnosis.json beside it")
    _print_scores(request, tuning)
    _print_end(request, tuning)
    if execution.suggest:
        _suggest(request, job, execution.suggest)
    return EXIT_DONE


def _suggest(request: Request, job: TuneJob, count: int) -> None:
    """Write the patches to label next; print where, and the command that tunes on them."""
    sources = [Path(source) for source in request.sources]
    found = suggest(job, sources, request.known_cohort().records, count)
    if found.left_out:
        request.console.note(
            f"{counted(len(found.left_out), 'slide')} not classified by this adapter, so without suggestions "
            f"({listed(found.left_out, 3)}): wsi-pipeline classify --model {model_name(job.name)}"
        )
    request.console.fact(
        "label next",
        f"{counted(found.patches, 'patch')} of {counted(found.slides, 'slide')} in {shown(found.path)}: fill in the "
        "column label, then name this file to tune after the labels you have",
    )


def _name(request: Request) -> str:
    """The name of the result. Raises UsageError if it is not a plain folder name."""
    return check_name(request.get(TuneExecution).name or request.get(TuneSpec).method)


def _open(request: Request) -> LabelledPatches:
    """Open the labelled patches given, else those of the run: patch stores with labels, or annotated slides.

    After the first source, CSVs of patches add to it.
    """
    run = request.run_dir
    if not request.sources and not run.cohort_csv.is_file():
        raise UsageError(
            f"no labelled patches given, and no run in {run.root}",
            todo="Name a folder of class folders or a CSV: wsi-pipeline tune crops",
        )
    sources = request.sources or (str(run.root),)
    mpp, options = request.get(TuneExecution).default_mpp, request.get(TableOptions)
    no_crop = request.get(QuPathOptions).qupath_no_crop
    return open_together(sources, request.get(LabelSpec), default_mpp=mpp, options=options, no_crop=no_crop)


def _split(request: Request, patches: LabelledPatches) -> PatchSplit:
    spec = request.get(TuneSpec)
    split = split_patches(
        patches.labels,
        patches.groups,
        patches.splits,
        val_fraction=spec.val_fraction,
        test_fraction=spec.test_fraction,
        seed=spec.seed,
        classes=patches.classes,
    )
    check_leaks(patches, split)
    if not len(split.validation):
        raise LabelError("no validation patches to select the best epoch", todo="Set `split` to val in some rows")
    parts = {word: patches.take(rows) for word, rows in split.parts().items() if len(rows)}
    sizes = [f"{_WORDS[word]} {grouped(len(part))} of {_groups(part)}" for word, part in parts.items()]
    given = "as given" if patches.splits else "no group in two parts"
    request.console.fact("split", f"{', '.join(sizes)}; {given}")
    for note in split.notes:
        request.console.note(note)
    return split


def _groups(patches: LabelledPatches) -> str:
    return counted(len(set(patches.groups)), "group")


def _print_patches(request: Request, patches: LabelledPatches) -> None:
    side = f"{patches.patch_px} px" + (f" at {patches.mpp:.4g} micrometres per pixel" if patches.mpp else "")
    measured = f"{counted(len(patches), 'patch')} of {_groups(patches)}, {side}"
    request.console.fact("labels", f"{patches.source}: {measured}")
    counts = [f"{name} {grouped(count)}" for name, count in patches.class_counts().items()]
    request.console.fact("classes", listed(counts, MOST_CLASSES))
    for note in patches.notes:
        request.console.note(note)


def _print_job(request: Request, job: TuneJob) -> None:
    spec, opened = job.spec, job.opened
    where = "built in" if opened.weights is None and spec.model == "vit-mini" else opened.weights or "Hugging Face"
    request.console.fact("method", f"{spec.method} on {spec.model} ({where}), input {opened.card.input_px} px")
    request.console.fact("device", f"{opened.device}, {opened.precision}, batch {spec.batch}")


def _run(request: Request, job: TuneJob) -> Tuning:
    """Tune and show progress, unless the result is up to date."""
    console = request.console
    with stage.held(job):
        known, why = stage.check(job)
        if known is not None:
            console.say(f"{shown(known.folder)} up to date")
            return known
        if why:
            console.say(f"{shown(job.folder)} recomputed: {why}; the previous adapter is kept in tune/{FORMER}/")
        model = stage.build(job)
        console.fact("trained", _share(stage.trained(model)))
        with console.progress(f"tune {job.name}", job.images, "patches") as step:
            epochs = _Epochs(step, job.spec)
            tuning = stage.make(job, model, Watch(epochs.images, epochs.epoch))
            step.total = step.done
        return tuning


class _Epochs:
    """Prints a line per epoch; epochs of an earlier, interrupted process do not count towards the rate."""

    def __init__(self, step: Progress, spec: TuneSpec) -> None:
        self.step, self.spec, self._since, self._kept = step, spec, 0, False

    def images(self, count: int) -> None:
        """`count` more patches are done, by this process or the interrupted one."""
        if self._kept:
            self.step.total -= count
            self._kept = False
            return
        self._since += count
        self.step(count)

    def epoch(self, row: EpochRow) -> None:
        """An epoch is finished."""
        self._kept = self._since == 0
        self._since = 0
        self.step.print_line(
            f"epoch {row.epoch:>3}/{self.spec.epochs}  training loss {row.train_loss:.3f}  validation loss "
            f"{row.val_loss:.3f}, accuracy {row.val_accuracy:.3f}, macro F1 {row.val_macro_f1:.3f}"
            + ("  (from the interrupted run)" if self._kept else "")
        )


def _share(trained: Mapping[str, Any]) -> str:
    return (
        f"{grouped(trained['parameters'])} parameters, {trained['share']:.2%} of the backbone's "
        f"{grouped(trained['backbone'])}"
    )


def _print_scores(request: Request, tuning: Tuning) -> None:
    """Print scores over all classes, then per class, with the unit of resampling and n."""
    console, metrics = request.console, tuning.metrics
    part, interval = metrics["part"], metrics["interval"]
    best = metrics["training"]["best_epoch"]
    console.say(f"epoch {best} of {metrics['training']['epochs']} kept, selected on the validation part")
    measured = f"{counted(metrics['n_patches'], 'patch')} of {counted(metrics['n_groups'], 'group')}"
    if part == "test":
        console.fact("test", f"{measured}, used only for this test")
    else:
        console.note(
            f"no test part: scores are on {measured} of the validation part, which also selected the epoch; "
            "they are optimistic"
        )
    pooled = metrics["pooled"]
    console.table([metric_words(name) for name in POOLED], [[estimate(pooled[name]) for name in POOLED]])
    rows = [[name, *_class_row(row)] for name, row in list(metrics["per_class"].items())[:MOST_CLASSES]]
    console.table(("class", "precision", "recall", "F1", "patches", "groups"), rows, right=(4, 5))
    if metrics["n_groups"] > 1:  # of one group there are no intervals, as a warning says
        console.say(
            f"[{interval['level']:.0%} intervals] by {interval['resamples']} bootstrap resamples over "
            f"{counted(metrics['n_groups'], 'group')}"
        )
    for sentence in metrics["warnings"]:
        console.note(sentence)


def _class_row(row: Mapping[str, Any]) -> list[str]:
    values = [estimate({"value": row[name], **row["intervals"][name]}) for name in ("precision", "recall", "f1")]
    return [*values, grouped(row["n_patches"]), grouped(row["n_groups"])]


def _print_end(request: Request, tuning: Tuning) -> None:
    """Print the outputs and the next step."""
    run, folder = request.run_dir, shown(tuning.folder)
    size = tuning.metrics["adapter"]["bytes"] / 1e6
    request.console.say(
        f"adapter {folder}/adapter.safetensors ({size:.1f} MB); pictures {CURVES}, {CONFUSION}, {SHEET} beside it"
    )
    model = model_name(tuning.name)
    steps = [f"embed --model {model}"] if run.cohort_csv.is_file() else ["tile slides.csv", f"embed --model {model}"]
    request.console.say(f"open the report: {shown(report_of(request))} · {request.next(*steps)}")
