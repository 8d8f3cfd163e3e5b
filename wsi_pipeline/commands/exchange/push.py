"""`push`: upload a trained model to a repository of a model hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from wsi_pipeline.commands.exchange.export import chosen_model
from wsi_pipeline.commands.shell.request import EXIT_DONE, Request, shown
from wsi_pipeline.config.execution import PushOptions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.deployed.onnx_export import export_onnx
from wsi_pipeline.mil.deployed.publish import HubTarget, endpoint_of_hub, stage_files, upload
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.stages.results.trainings import names_in, require_training
from wsi_pipeline.wording import counted


def push(request: Request) -> int:
    """List the files to upload, upload them, print the address."""
    options = request.get(PushOptions)
    if len(request.sources) != 1:
        raise UsageError(f"push takes one repository, got {len(request.sources)}")
    target = HubTarget(request.sources[0], endpoint_of_hub(), private=not options.public, revision=options.revision)
    folder = chosen_model(request, options.model)
    training, ensemble = require_training(folder), load_ensemble(folder)
    request.console.fact("model", shown(folder))
    request.console.fact("to", f"{target.url}, {'public' if options.public else 'private'} if it is new")
    with tempfile.TemporaryDirectory() as place:
        staging = Path(place)
        stage_files(folder, ensemble, staging, names_in(training), predictions=options.with_predictions)
        if options.onnx:
            export_onnx(ensemble, staging)
        files = sorted(staging.iterdir())
        request.console.table(("file", "bytes"), [(path.name, str(path.stat().st_size)) for path in files], right=(1,))
        if options.with_predictions:
            request.console.note(
                f"predictions and folds are among them: they name {counted(training.metrics['n_patients'], 'patient')}"
            )
        else:
            request.console.say("no file names a slide or a patient (--with-predictions uploads those that do)")
        if options.dry_run:
            request.console.say("nothing was uploaded: --dry-run")
            return EXIT_DONE
        commit = upload(target, staging)
    request.console.say(f"{counted(len(files), 'file')} in {commit}")
    request.console.say(f"next: hf download {target.repo} --local-dir model, then wsi-pipeline predict --trained model")
    return EXIT_DONE
