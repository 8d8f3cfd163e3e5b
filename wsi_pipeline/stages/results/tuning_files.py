"""The files of a tuning in the run folder, and whether they are up to date. Works without torch, for reports.

tune/<name>/
  adapter.safetensors     the trained weights, with configuration, scores and the backbone's fingerprint
  history.csv             one row per epoch
  predictions.csv         name, group, part, label, predicted, p_<class>...; validation and test patches
  curves.png confusion.png patches.png
  diagnosis.json diagnosis.png     where [CLS] looks, with --diagnose
  metrics.json            scores with intervals; written last, so it marks the tuning as complete
  resume/                 the state after the last epoch, while training
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.config.specs import LabelSpec, TuneSpec
from wsi_pipeline.stages.engine.freshness import REVISIONS
from wsi_pipeline.stages.results.finished import METRICS
from wsi_pipeline.stages.results.former import keep_former
from wsi_pipeline.system.atomic import make_folder

NAME = "tune"
HISTORY, PREDICTIONS = "history.csv", "predictions.csv"
CURVES, CONFUSION, SHEET = "curves.png", "confusion.png", "patches.png"
DIAGNOSIS, DIAGNOSIS_PICTURE = "diagnosis.json", "diagnosis.png"
RESUME = "resume"

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Tuning:
    """A finished tuning: its folder, the content of metrics.json and history.csv; `fresh` if it was up to date."""

    folder: Path
    metrics: Json
    history: pd.DataFrame
    fresh: bool

    @property
    def name(self) -> str:
        """Folder name under tune/."""
        return self.folder.name


@dataclass(frozen=True)
class TuneInputs:
    """Everything that determines a result.

    data          digest of the labelled patches
    fingerprint   fingerprint of the backbone's weights
    resolved      the method's effective settings, including defaults of the library, as plain values
    """

    spec: TuneSpec
    labels: LabelSpec
    data: str
    fingerprint: str
    resolved: Json

    @property
    def digest(self) -> str:
        """Digest of settings, patches, weights and code. The patches' digest covers the label settings."""
        return digest_of(
            stage=NAME,
            revision=REVISIONS[NAME],
            spec=asdict(self.spec),
            resolved=self.resolved,
            data=self.data,
            model=self.fingerprint,
        )

    def record(self) -> Json:
        """For metrics.json."""
        return {
            "digest": self.digest,
            "revision": REVISIONS[NAME],
            "specs": {"labels": asdict(self.labels), NAME: asdict(self.spec)},
            "resolved": self.resolved,
            "data_digest": self.data,
            "fingerprint": self.fingerprint,
        }


def read_tuning(folder: Path) -> Tuning | None:
    """The tuning in `folder`; None if it is missing or incomplete."""
    try:
        metrics = json.loads((folder / METRICS).read_text(encoding="utf-8"))
        history = pd.read_csv(folder / HISTORY)
    except (OSError, ValueError):
        return None
    return Tuning(folder, metrics, history, fresh=True) if isinstance(metrics, dict) else None


def tunings(run: RunDir) -> list[Tuning]:
    """All complete tunings of a run, by name."""
    root = run.root / NAME
    folders = sorted(root.iterdir()) if root.is_dir() else []
    return [found for folder in folders if (found := read_tuning(folder)) is not None]


def keep_former_tuning(folder: Path) -> Path | None:
    """Move a finished tuning to tune/former/, without the state of training in progress; None if there is none."""
    if not (folder / METRICS).exists():
        return None
    known = read_tuning(folder)
    former = keep_former(folder, str(known.metrics.get("digest", "")) if known else "")
    if former is not None and (former / RESUME).is_dir():
        make_folder(folder)
        (former / RESUME).rename(folder / RESUME)
    return former


def why_retune(known: Tuning | None, inputs: TuneInputs, adapter: Path) -> str | None:
    """Why the adapter must be tuned again; "" if there is none yet, None if it is up to date."""
    if known is None:
        return ""
    changes = [*_changed_settings(known.metrics, inputs), *_changed_sources(known.metrics, inputs)]
    if changes:
        return ", ".join(changes)
    if not adapter.is_file():
        return f"{adapter.name} is missing"
    wanted = (known.metrics.get("adapter") or {}).get("sha256")
    return None if file_digest(adapter) == wanted else f"{adapter.name} has changed since it was measured"


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _changed_settings(metrics: Mapping[str, Any], inputs: TuneInputs) -> list[str]:
    before = (metrics.get("specs") or {}).get(NAME) or {}
    return [
        f"{key} {before.get(key)} -> {value}" for key, value in asdict(inputs.spec).items() if before.get(key) != value
    ]


def _changed_sources(metrics: Mapping[str, Any], inputs: TuneInputs) -> list[str]:
    changes = []
    if metrics.get("data_digest") != inputs.data:
        before = (metrics.get("specs") or {}).get("labels") or {}
        options = [key for key, value in asdict(inputs.labels).items() if before.get(key) != value]
        changes.append("labelled patches have changed" + (f" ({', '.join(options)})" if options else ""))
    if not changes and not _changed_settings(metrics, inputs):
        changes += _changed_choices(metrics.get("resolved") or {}, inputs.resolved)
    if metrics.get("fingerprint") != inputs.fingerprint:
        changes.append(f"backbone weights {str(metrics.get('fingerprint'))[:12]} -> {inputs.fingerprint[:12]}")
    if metrics.get("revision") != REVISIONS[NAME]:
        changes.append(f"tune code revision {metrics.get('revision')} -> {REVISIONS[NAME]}")
    return changes


def _changed_choices(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Changed values that are not settings of tune, such as a default learning rate of another library version."""
    return [
        f"{part} {key} {(before.get(part) or {}).get(key)} -> {value}"
        for part, values in now.items()
        for key, value in values.items()
        if (before.get(part) or {}).get(key) != value
    ]
