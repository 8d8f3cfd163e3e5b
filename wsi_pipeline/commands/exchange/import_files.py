"""`import`: import features or coordinates of another tool into a run."""

from __future__ import annotations

from dataclasses import replace

from wsi_pipeline.cohort.run_dir import POOLED_MARK, slug
from wsi_pipeline.commands.exchange.bring_in import BroughtIn, bring_in_features, bring_in_patches, given_by
from wsi_pipeline.commands.shell.logfile import log_to
from wsi_pipeline.commands.shell.request import EXIT_DONE, EXIT_SOME_FAILED, Request, shown
from wsi_pipeline.commands.tile import print_end
from wsi_pipeline.config.execution import ImportOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.wording import counted

KINDS = ("features", "patches")


def import_files(request: Request) -> int:
    """Import `features` or `patches` from the files and folders named after that word."""
    kind, *sources = request.sources
    if kind not in KINDS or not sources:
        raise UsageError(
            f"import takes {' or '.join(KINDS)} and files or folders, got {' '.join(request.sources)!r}",
            todo="For example: wsi-pipeline import features features_uni_v1 --labels labels.csv",
        )
    options, run = request.get(ImportOptions), request.run_dir
    if kind == "patches" and options.encoder is not None:
        raise UsageError("encoder is for features: patches have none")
    given = given_by(request, *sources, labels=options.labels, slides=options.slides, encoder=options.encoder)
    # Sources of this command are not slides: the cohort comes from the options.
    request = replace(request, sources=())
    with log_to(run.log, request.command, request.console.note, json_path=run.log_json if request.log_json else None):
        made = bring_in_features(request, given) if kind == "features" else bring_in_patches(request, given)
        _print_end(request, made, kind)
    return EXIT_SOME_FAILED if made.result.failed else EXIT_DONE


def _print_end(request: Request, made: BroughtIn, kind: str) -> None:
    run = request.run_dir
    if kind == "features":
        folder, then = run.feature_store(made.plan.encoder, "x").parent, "train-mil"
        if POOLED_MARK in made.plan.encoder:
            then += f" --model linear --features {slug(made.plan.encoder)}"
    else:
        folder, then = run.patch_store("x").parent, "embed --model pathotune"
    where = f"{counted(made.done, 'slide')} in {shown(folder)}/"
    print_end(request, made.result, f"{where} · {request.next(then)}" if made.done else where)
