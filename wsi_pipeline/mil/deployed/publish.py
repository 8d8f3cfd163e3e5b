"""A trained model as a repository of a model hub: which files, cleaned of names, and their upload.

Uploaded are README.md (the model card), config.json, the fold files, novelty.safetensors and a metrics.json without
slides; model.onnx with model.json on request. Predictions, folds and the whole metrics.json name slides and patients:
they are uploaded only on request.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wsi_pipeline.errors import UsageError, WsiPipelineError
from wsi_pipeline.mil.deployed.model_card import CARD, names_one
from wsi_pipeline.mil.trained import novelty
from wsi_pipeline.mil.trained.checkpoint import Ensemble
from wsi_pipeline.mil.trained.model_config import CONFIG
from wsi_pipeline.system.atomic import write_text

README, METRICS = "README.md", "metrics.json"
NAMING = ("predictions.csv", "folds.csv", "history.json")
"""Files of a training that name slides and patients, or belong to such files."""
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_MOST_IDS = 20


@dataclass(frozen=True)
class HubTarget:
    """Where to upload: `ORG/NAME` at `endpoint`, on a branch; `private` applies if the repository is created."""

    repo: str
    endpoint: str
    private: bool = True
    revision: str | None = None
    message: str = "Upload a model trained with wsi-pipeline"

    def __post_init__(self) -> None:
        if not _REPO.fullmatch(self.repo):
            raise UsageError(
                f"a repository is named ORG/NAME, got {self.repo!r}",
                todo="Write for example: wsi-pipeline push org/model",
            )

    @property
    def url(self) -> str:
        """Address of the repository."""
        return f"{self.endpoint}/{self.repo}"


def endpoint_of_hub() -> str:
    """Address of the hub: HF_ENDPOINT, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def stage_files(folder: Path, ensemble: Ensemble, staging: Path, names: Sequence[str], *, predictions: bool) -> None:
    """Copy the files to publish of the training in `folder` into the empty folder `staging`.

    names        ids of slides and patients of the training
    predictions  include the files that name them

    Raises UsageError if the training has no model card, or if any other file names a slide or patient.
    """
    if not (folder / CARD).is_file():
        raise UsageError(f"{folder} has no {CARD}", todo="Run train-mil again: it writes the missing card")
    shutil.copyfile(folder / CARD, staging / README)
    shutil.copyfile(folder / CONFIG, staging / CONFIG)
    for number in range(len(ensemble.models)):
        shutil.copyfile(folder / f"fold{number}.safetensors", staging / f"fold{number}.safetensors")
    if (folder / novelty.FILE).is_file():
        shutil.copyfile(folder / novelty.FILE, staging / novelty.FILE)
    if predictions:
        for name in (METRICS, *NAMING):
            if (folder / name).is_file():
                shutil.copyfile(folder / name, staging / name)
        return
    metrics = nameless(json.loads((folder / METRICS).read_text(encoding="utf-8")), names)
    write_text(staging / METRICS, json.dumps(metrics, indent=2, ensure_ascii=False) + "\n")
    for path in (staging / README, staging / METRICS, staging / CONFIG):
        _check_nameless(path, names)


def nameless(metrics: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """metrics.json without slides: `left_out` is a number, warnings that name a slide or patient are counted."""
    warnings = metrics.get("warnings") or []
    kept = [text for text in warnings if not names_one(text, names)]
    if len(kept) < len(warnings):
        kept.append(f"{len(warnings) - len(kept)} warnings about single slides are not published.")
    return {**metrics, "left_out": len(metrics.get("left_out") or ()), "warnings": kept}


def _check_nameless(path: Path, names: Sequence[str]) -> None:
    """Raise UsageError if a file names a slide or patient; ids of up to three characters are too common to look for."""
    text = path.read_text(encoding="utf-8")
    found = [name for name in names if len(name) > 3 and names_one(text, [name])]
    if found:
        raise UsageError(
            f"{path.name} names slides or patients ({', '.join(found[:_MOST_IDS])})",
            todo="Rename them, or publish names too with --with-predictions",
        )


def upload(target: HubTarget, staging: Path) -> str:
    """Create the repository if it does not exist, upload the folder in one commit; returns the commit's address.

    Uses the token of `hf auth login` or HF_TOKEN. Raises UsageError without one, WsiPipelineError if the hub refuses
    or does not answer.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if not get_token():
        raise UsageError(
            f"no token for {target.endpoint}",
            todo="Log in with: hf auth login   (or set HF_TOKEN to a token that may write)",
        )
    api = HfApi(endpoint=target.endpoint)
    try:
        api.create_repo(target.repo, private=target.private, exist_ok=True)
        done = api.upload_folder(
            repo_id=target.repo, folder_path=staging, commit_message=target.message, revision=target.revision
        )
    except OfflineModeIsEnabled as error:
        raise UsageError("the hub is switched off", todo="Unset HF_HUB_OFFLINE") from error
    except (HfHubHTTPError, OSError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        why = f"answered {status}" if status else f"cannot be reached: {type(error).__name__}"
        todo = (
            "Check the name of the repository and what the token may do" if status else "Check HF_ENDPOINT and network"
        )
        raise WsiPipelineError(f"{target.url} {why}", todo=todo) from error
    return str(getattr(done, "commit_url", target.url))
