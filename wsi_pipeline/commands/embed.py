"""`embed`: patches to features."""

from __future__ import annotations

from collections.abc import Sequence

from wsi_pipeline.commands.console import MOST_ROWS
from wsi_pipeline.commands.patches import over_patches, tell_network
from wsi_pipeline.commands.request import EXIT_DONE, EXIT_SOME_FAILED, Request, plural, shown
from wsi_pipeline.commands.tile import tell_end, tell_redone
from wsi_pipeline.execution import EmbedExecution
from wsi_pipeline.specs import EmbedSpec
from wsi_pipeline.stages.adapters import plan_in_run
from wsi_pipeline.stages.embed import EmbedStage
from wsi_pipeline.stages.runner import CohortResult
from wsi_pipeline.store.patches import PatchTable


def embed(request: Request) -> int:
    """Embed every tiled slide of the run with one encoder."""
    result = over_patches(request, "embed", "embedded", lambda tables: _stage(request, tables))
    _tell(request, result)
    return EXIT_SOME_FAILED if result.failed else EXIT_DONE


def _stage(request: Request, tables: Sequence[PatchTable]) -> EmbedStage:
    """The stage, with encoder, device and arithmetic chosen and told."""
    spec, execution = request.get(EmbedSpec), request.get(EmbedExecution)
    plan, remark = plan_in_run(
        request.run_dir,
        spec.model,
        adapter=execution.adapter,
        weights=execution.weights,
        patch_px=tables[0].geometry.patch_px,
    )
    batch = tell_network(request, "encoder", plan, spec.precision, remark)
    note = plan.fit_note(tables[0].geometry.patch_px, tables[0].geometry.mpp)
    if note:
        request.console.note(note)
    return EmbedStage(request.run_dir, spec, plan, execution.device, batch, execution.threads, execution.store)


def _tell(request: Request, result: CohortResult) -> None:
    request.console.table(
        ("slide", "note"),
        [(item.slide_id, f"FAILED {item.status.reason}") for item in result.failed][:MOST_ROWS],
    )
    tell_redone(request, result)
    done = [item for item in result.last.values() if item.action in ("made", "fresh")]
    folder = request.run_dir.feature_store(request.get(EmbedSpec).model, "x").parent
    told = f"{plural(len(done), 'slide')} in {shown(folder)}/ · next: wsi-pipeline train-mil"
    tell_end(request, result, told)
