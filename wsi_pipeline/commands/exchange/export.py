"""`export`: patches, features or a trained model in the format of another tool."""

from __future__ import annotations

from pathlib import Path

from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.config.execution import ExportOptions, QuPathOptions
from wsi_pipeline.config.registries import EXPORT_FORMATS
from wsi_pipeline.errors import UsageError
from wsi_pipeline.stages.export_slides import Exported, ExportSettings, export_slides
from wsi_pipeline.stages.results.trainings import require_training, trainings
from wsi_pipeline.wording import agreed, counted, listed

_MAKES = {
    "features": "Run embed, or name slides that have features with --only",
    "patches": "Lay patches with wsi-pipeline tile SLIDES, or bring them in: wsi-pipeline import patches FOLDER "
    "--slides SLIDES",
}
"""The commands that write the stores an export needs."""


def export(request: Request) -> int:
    """Write the slides of the run, or a trained model, for another tool."""
    options = request.get(ExportOptions)
    if options.to is None:
        raise UsageError(
            "which format to export to is not stated",
            todo=f"Use --to {', --to '.join((*EXPORT_FORMATS.names()[:3], 'onnx'))}, ...: wsi-pipeline export --help",
        )
    return _export_model(request) if options.to == "onnx" else _export_slides(request, options.to)


def chosen_model(request: Request, named: str | None) -> Path:
    """Folder of a trained model: the named one, else the only one of the run."""
    if named is not None:
        return require_training(named).folder
    found = trainings(request.run_dir)
    if not found:
        raise UsageError("no trained model in this run", todo="Name one with --model FOLDER, or run train-mil first")
    if len(found) > 1:
        folders = "\n".join(f"  --model {shown(training.folder)}" for training in found)
        raise UsageError(f"this run has {len(found)} trained models; choose one:\n{folders}")
    return found[0].folder


def _export_model(request: Request) -> int:
    from wsi_pipeline.mil.deployed.onnx_export import ONNX, export_onnx
    from wsi_pipeline.mil.trained.checkpoint import load_ensemble

    options = request.get(ExportOptions)
    folder = chosen_model(request, options.model)
    encoder, training = folder.absolute().parts[-2:]
    place = Path(options.out) if options.out else request.run_dir.export("onnx", encoder) / training
    found = export_onnx(load_ensemble(folder), place)
    request.console.fact("model", shown(folder))
    for name, facts in {**found.inputs, **found.outputs}.items():
        request.console.fact("input" if name in found.inputs else "output", f"{name} {facts['dtype']} {facts['shape']}")
    if found.difference is None:
        request.console.note("not compared: onnxruntime is not installed")
    else:
        request.console.say(f"compared with ONNX Runtime: at most {found.difference:.1e} apart")
    path = shown(place / ONNX)
    request.console.say(f"{path}, described in model.json beside it")
    request.console.say(f"next: onnxruntime.InferenceSession('{path}').run(None, {{'features': float32 (n, D)}})")
    return EXIT_DONE


def _export_slides(request: Request, to: str) -> int:
    options, cohort = request.get(ExportOptions), request.known_cohort()
    needs_features = EXPORT_FORMATS.get(to).needs == "features"
    encoder = _encoder(request, to) if needs_features else ""
    settings = ExportSettings(
        to, encoder, options.dtype, options.max_patches, no_crop=request.get(QuPathOptions).qupath_no_crop
    )
    records = request.select(cohort)
    with request.console.progress(f"export {to}", len(records), "slides") as step:
        found = export_slides(
            request.run_dir,
            records,
            cohort.records,
            settings,
            folder=Path(options.out) if options.out else None,
            on_result=lambda results: step(1),
        )
    what = "features" if needs_features else "patches"
    _refuse_empty(found, what)
    _print_result(request, found, what)
    return EXIT_SOME_FAILED if found.result.failed else EXIT_DONE


def _encoder(request: Request, to: str) -> str:
    wanted = request.get(ExportOptions).features
    if wanted is not None:
        return request.run_dir.require_encoder(wanted)
    found = request.run_dir.require_encoders()
    if len(found) > 1:
        raise UsageError(
            f"this run has features of {len(found)} encoders: {', '.join(found)}",
            todo=f"Choose one: wsi-pipeline export --to {to} --features {found[0]}",
        )
    return found[0]


def _refuse_empty(found: Exported, what: str) -> None:
    """Raise UsageError if the export has no slides; it says what is missing and which command writes it."""
    if found.written:
        return
    if found.result.failed:
        status = found.result.failed[0].status
        raise UsageError(
            f"no slide was exported: {found.result.failed[0].slide_id}: {status.reason}", todo=status.todo or None
        )
    if found.missing:
        raise UsageError(
            f"no slide was exported: {counted(len(found.missing), 'slide')} without {what} ({listed(found.missing)})",
            todo=_MAKES[what],
        )
    raise UsageError(
        f"no slide was exported: {counted(len(found.empty), 'slide')} without tissue ({listed(found.empty)})"
    )


def _print_result(request: Request, found: Exported, what: str) -> None:
    console, actions = request.console, [item.action for item in found.result.results]
    fresh = f", {actions.count('fresh')} of them up to date" if "fresh" in actions else ""
    by_reason: dict[tuple[str, str], list[str]] = {}
    for item in found.result.failed:
        by_reason.setdefault((item.status.reason, item.status.todo), []).append(item.slide_id)
    for (reason, todo), slides in by_reason.items():
        console.note(f"{listed(slides)} {agreed(len(slides), 'is')} not exported: {reason}")
        if todo:
            console.say(f"        {todo}")
    if found.missing:
        console.note(f"{counted(len(found.missing), 'slide')} without {what}, not exported: {listed(found.missing)}")
    if found.empty:
        console.note(f"{counted(len(found.empty), 'slide')} without patches, not exported: {listed(found.empty)}")
    for text in found.notes:
        console.note(text)
    console.say(f"{counted(len(found.written), 'slide')} in {shown(found.folder)}/{fresh}")
    if found.next:
        console.say(f"next: {found.next}")
