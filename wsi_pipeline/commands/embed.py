"""`embed`: features of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from wsi_pipeline.commands.shell.console import MOST_ROWS
from wsi_pipeline.commands.shell.over_patches import over_patches, print_network
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.shell.sections import refuse_twice
from wsi_pipeline.commands.tile import print_end, print_redone
from wsi_pipeline.config.execution import EmbedExecution
from wsi_pipeline.config.shared import refuse_target_alone
from wsi_pipeline.config.specs import EmbedSpec
from wsi_pipeline.stages.embed import EmbedStage
from wsi_pipeline.stages.engine.runner import CohortResult
from wsi_pipeline.stages.inputs.find_adapter import check_encoder, plan_in_run
from wsi_pipeline.stages.inputs.stain_files import StainTarget
from wsi_pipeline.store.tables.patch_table import PatchFacts
from wsi_pipeline.wording import counted


def embed(request: Request) -> int:
    """Embed every tiled slide of the run with one encoder, or with several in one pass over the pixels."""
    results = [
        over_patches(part, "embed", "embedded", partial(_stages, part), partial(_check, part))
        for part in _passes(request)
    ]
    result = CohortResult(tuple(item for part in results for item in part.results))
    _print_result(request, result)
    return EXIT_SOME_FAILED if result.failed else EXIT_DONE


def _passes(request: Request) -> tuple[Request, ...]:
    """Group the encoders by device: those of a group share one pass over the pixels."""
    each = request.each()
    refuse_twice(part.get(EmbedSpec).model for part in each)
    groups: dict[tuple[str, str | None], list[tuple[Any, ...]]] = {}
    for part in each:
        execution = part.get(EmbedExecution)
        groups.setdefault((execution.device, execution.devices), []).append(part.options)
    return tuple(replace(request, options=options[0], sections=tuple(options)) for options in groups.values())


def _stages(request: Request, tables: Sequence[PatchFacts]) -> list[EmbedStage]:
    targets: dict[tuple[str, str], StainTarget | None] = {}
    for part in request.each():
        asked = _asked(part)
        if asked not in targets:
            targets[asked] = _prepare_stain(request, *asked) if asked[0] != "none" else None
    return [_stage(part, tables, targets[_asked(part)]) for part in request.each()]


def _check(request: Request) -> None:
    """Look up encoders and stain targets, while no slide has patches."""
    for part in request.each():
        spec, execution = part.get(EmbedSpec), part.get(EmbedExecution)
        given = (execution.adapter, execution.weights)
        check_encoder(request.run_dir, spec.model, *given, input_px=spec.input_px, whole_patch=spec.whole_patch)
        method, target = _asked(part)
        if method != "none":
            from wsi_pipeline.commands.shell.stain_step import check_stain

            check_stain(request, method, target)


def _asked(request: Request) -> tuple[str, str]:
    spec = request.get(EmbedSpec)
    refuse_target_alone(spec.stain_norm, spec.stain_target)
    return spec.stain_norm, spec.stain_target


def _prepare_stain(request: Request, method: str, target: str) -> StainTarget:
    from wsi_pipeline.commands.shell.stain_step import prepare_stain  # only this option needs to read slides here

    return prepare_stain(request, method, target)


def _stage(request: Request, tables: Sequence[PatchFacts], stain: StainTarget | None) -> EmbedStage:
    """Return the stage of one encoder; print the device and precision chosen."""
    spec, execution = request.get(EmbedSpec), request.get(EmbedExecution)
    plan, remark = plan_in_run(
        request.run_dir,
        spec.model,
        adapter=execution.adapter,
        weights=execution.weights,
        patch_px=tables[0].geometry.patch_px,
        input_px=spec.input_px or None,
        whole_patch=spec.whole_patch,
    )
    batch = print_network(request, "encoder", plan, spec.precision, remark)
    note = plan.fit_note(tables[0].geometry.patch_px, tables[0].geometry.mpp)
    if note:
        request.console.note(note)
    return EmbedStage(request.run_dir, spec, plan, execution.device, batch, execution.store, execution.compile, stain)


def _print_result(request: Request, result: CohortResult) -> None:
    request.console.table(
        ("slide", "note"),
        [(item.slide_id, f"FAILED {item.status.reason}") for item in result.failed][:MOST_ROWS],
    )
    print_redone(request, result)
    done = [item for item in result.last.values() if item.action in ("made", "fresh")]
    models = [part.get(EmbedSpec).model for part in request.each()]
    folders = ", ".join(f"{shown(request.run_dir.feature_store(model, 'x').parent)}/" for model in models)
    where = f"{counted(len(done), 'slide')} in {folders}"
    filled = any(item.status.state == "done" for item in done)
    print_end(request, result, f"{where} · {request.next('train-mil')}" if filled else where)
