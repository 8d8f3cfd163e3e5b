"""The run folder: the paths of all files of a cohort. No other module spells these paths.

wsi-run/
  cohort.csv                        the manifest as understood, absolute paths
  segment/<slide_id>.h5 .png .geojson
  tile/<slide_id>.h5
  tune/<name>/                      adapter.safetensors, metrics.json, history.csv, predictions.csv, pictures
  embed/<encoder>/<slide_id>.h5
  embed/<encoder>+<slide encoder>/  <slide_id>.h5 with one row, embeddings.csv, neighbours.csv
  stain/<method>/                   <slide_id>.json .png, stains.csv, cohort.png, target.json
  classify/<adapter>/               <slide_id>.h5 .png .geojson, fractions.csv
  train-mil/<encoder>/<training>/   config.json, fold*.safetensors, predictions.csv, metrics.json
  predict/<encoder>/<training>/     predictions.csv, patients.csv, metrics.json, model.json
  heatmap/<encoder>/<training>/     <slide_id>.png .csv .geojson .tif .patches.jpg .contribution.jpg
  report/report.html
  robustness/                       <row>.json, robustness.csv, neighbours.csv, robustness.svg
  annotations/<slide_id>.geojson    marks made in the viewer; patches.csv has the labelled patches for tune
  view/                             token, jobs and caches of the viewer
  export/<format>/<encoder>/        files of other tools; not read again
  status/<slide_id>.json
  locks/  logs/

<training> is the MIL model, with task and bag if not the default: gated-abmil, gated-abmil.survival.patient.
Superseded results are in former/ next to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from wsi_pipeline.errors import StoreError, UsageError
from wsi_pipeline.files.addresses import is_address, named_address

DEFAULT_RUN = "wsi-run"
POOLED_MARK = "+"
"""Between patch encoder and slide encoder in the name of slide embeddings."""
STORE_SUFFIXES = {"hdf5": ".h5", "zarr": ".zarr"}
"""Store format -> suffix; the choices of `--store`."""


@dataclass(frozen=True)
class RunDir:
    """The folder of one run; makes no folders by itself."""

    root: Path

    @classmethod
    def existing(cls, root: str | PathLike[str]) -> RunDir:
        """The run at `root`; raises UsageError if no cohort was tiled there, or for an address."""
        if is_address(root):
            raise UsageError(
                f"a run must be a folder of this machine, got {named_address(root)}",
                todo="Copy the run here.",
            )
        root = Path(root)
        run = cls(root)
        if not run.cohort_csv.is_file():
            raise UsageError(
                f"no run in {root}: {run.cohort_csv} is missing",
                todo="Start one with: wsi-pipeline tile slides.csv   (or name another with --run FOLDER)",
            )
        return run

    @property
    def cohort_csv(self) -> Path:
        """The manifest as it was understood by `tile`."""
        return self.root / "cohort.csv"

    @property
    def log(self) -> Path:
        """The readable log of all commands on this run."""
        return self.root / "logs" / "run.log"

    @property
    def log_json(self) -> Path:
        """The machine-readable log, one JSON object per line; written with --log-json."""
        return self.root / "logs" / "run.jsonl"

    @property
    def report_html(self) -> Path:
        """The report, one self-contained file."""
        return self.root / "report" / "report.html"

    @property
    def targets_csv(self) -> Path:
        """Trained targets side by side, with corrected p-values."""
        return self.root / "report" / "targets.csv"

    @property
    def quality_csv(self) -> Path:
        """Quality of every slide, with label and site."""
        return self.root / "report" / "quality.csv"

    def status(self, slide_id: str) -> Path:
        """Status file of one slide: JSON with the state of each stage."""
        return self.root / "status" / f"{slide_id}.json"

    def known(self, slide_id: str) -> Path:
        """What was read of one slide's files, so that unchanged ones are not read again to see if they are fresh."""
        return self.root / "status" / "known" / f"{slide_id}.json"

    @property
    def locks(self) -> Path:
        """Folder of all locks."""
        return self.root / "locks"

    def lock(self, stage: str, slide_id: str) -> Path:
        """The lock that one process holds while it writes one stage of one slide."""
        return self.locks / slug(stage) / f"{slide_id}.lock"

    def overlay(self, slide_id: str) -> Path:
        """Thumbnail with tissue contours and, once tiled, the patch grid."""
        return self.root / "segment" / f"{slide_id}.png"

    def contours(self, slide_id: str) -> Path:
        """Tissue contours as GeoJSON in level-0 pixels."""
        return self.root / "segment" / f"{slide_id}.geojson"

    def segment_store(self, slide_id: str, kind: str = "hdf5") -> Path:
        """Tissue mask and thumbnail."""
        return self.root / "segment" / f"{slide_id}{STORE_SUFFIXES[kind]}"

    def patch_store(self, slide_id: str, kind: str = "hdf5") -> Path:
        """Patch coordinates, coverage, optional pixels."""
        return self.root / "tile" / f"{slide_id}{STORE_SUFFIXES[kind]}"

    def feature_store(self, encoder: str, slide_id: str, kind: str = "hdf5") -> Path:
        """Features of one slide by one encoder."""
        return self.root / "embed" / slug(encoder) / f"{slide_id}{STORE_SUFFIXES[kind]}"

    def stain(self, method: str) -> Path:
        """Folder of what is known about the slides' stain by one method of normalisation."""
        return self.root / "stain" / slug(method)

    def classify(self, model: str) -> Path:
        """Folder of an adapter's patch classifications; `model` is pathotune or pathotune:NAME."""
        return self.root / "classify" / slug(model)

    def class_store(self, model: str, slide_id: str, kind: str = "hdf5") -> Path:
        """Class probabilities of one slide's patches."""
        return self.classify(model) / f"{slide_id}{STORE_SUFFIXES[kind]}"

    def class_overlay(self, model: str, slide_id: str) -> Path:
        """Classes in colour over the thumbnail of one slide."""
        return self.classify(model) / f"{slide_id}.png"

    def class_polygons(self, model: str, slide_id: str) -> Path:
        """Areas of each class as GeoJSON in level-0 pixels."""
        return self.classify(model) / f"{slide_id}.geojson"

    def fractions(self, model: str) -> Path:
        """Fraction of each class in each slide, as CSV."""
        return self.classify(model) / "fractions.csv"

    def tune(self, name: str) -> Path:
        """Folder of a tuned adapter and its metrics; `name` defaults to its method."""
        return self.root / "tune" / slug(name)

    def adapter(self, name: str) -> Path:
        """The adapter file of a tuning."""
        return self.tune(name) / "adapter.safetensors"

    def mil(self, encoder: str, training: str) -> Path:
        """Folder of a trained slide-level model."""
        return self.root / "train-mil" / slug(encoder) / slug(training)

    def predict(self, encoder: str, training: str) -> Path:
        """Folder of a trained model's predictions for this run's slides."""
        return self.root / "predict" / slug(encoder) / slug(training)

    def heatmap(self, encoder: str, training: str, slide_id: str) -> Path:
        """Attention over the thumbnail of one slide."""
        return self.heatmap_file(encoder, training, slide_id, ".png")

    def heatmap_file(self, encoder: str, training: str, slide_id: str, ending: str) -> Path:
        """A file next to that picture: `.csv`, `.geojson`, `.tif`, `.patches.jpg`, `.contribution.jpg`."""
        return self.root / "heatmap" / slug(encoder) / slug(training) / f"{slide_id}{ending}"

    def require_encoders(self) -> tuple[str, ...]:
        """Folder names of the encoders with features in this run. Raises UsageError if there are none."""
        if found := self.encoders():
            return found
        raise UsageError(f"no features in {self.root}", todo="Run first: wsi-pipeline embed --model pathotune")

    def require_encoder(self, name: str) -> str:
        """Folder name of an encoder. Raises UsageError, naming the others, if the run has no features of it."""
        found = self.require_encoders()
        if slug(name) in found:
            return slug(name)
        raise UsageError(f"no features of {name} in {self.root}", todo=f"Features exist for: {', '.join(found)}")

    @property
    def robustness(self) -> Path:
        """Folder of what `robustness` measured: a JSON file per row, and all of them as tables and a figure."""
        return self.root / "robustness"

    def robustness_file(self, name: str) -> Path:
        """What was measured for one encoder, as it was used."""
        return self.robustness / f"{slug(name)}.json"

    def export(self, to: str, encoder: str = "") -> Path:
        """Folder of an export in another tool's format; `encoder` if it contains features."""
        return self.root / "export" / slug(to) / slug(encoder)

    def embeddings_csv(self, name: str) -> Path:
        """Slide embeddings of the cohort, one row per slide."""
        return self.root / "embed" / slug(name) / "embeddings.csv"

    def patch_encoders(self) -> tuple[str, ...]:
        """Those of `encoders` that have a row per patch."""
        return tuple(name for name in self.encoders() if POOLED_MARK not in name)

    def slide_embeddings(self) -> tuple[str, ...]:
        """Those of `encoders` that have one row per slide."""
        return tuple(name for name in self.encoders() if POOLED_MARK in name)

    @property
    def annotations(self) -> Path:
        """Folder of the marks made in the viewer."""
        return self.root / "annotations"

    def annotation(self, slide_id: str) -> Path:
        """Marks on one slide, as GeoJSON for QuPath."""
        return self.annotations / f"{slide_id}.geojson"

    @property
    def view(self) -> Path:
        """Folder of the viewer: its token, its jobs and their logs, caches."""
        return self.root / "view"

    def encoders(self) -> tuple[str, ...]:
        """Folder names under embed/, sorted: the encoders this run has features of."""
        folder = self.root / "embed"
        return tuple(sorted(path.name for path in folder.iterdir() if path.is_dir())) if folder.is_dir() else ()


def pooled_name(encoder: str, slide_encoder: str) -> str:
    """Folder name under embed/ of slide embeddings: patch encoder, then slide encoder, as in `uni+mean`."""
    return f"{slug(encoder)}{POOLED_MARK}{slug(slide_encoder)}"


def existing_store(path: Path) -> Path | None:
    """The store at `path` in either format (.h5 or .zarr), the newer if both exist, or None."""
    found = [path.with_name(path.name.removesuffix(path.suffix) + suffix) for suffix in STORE_SUFFIXES.values()]
    found = [candidate for candidate in found if candidate.exists()]
    return max(found, key=lambda candidate: candidate.stat().st_mtime_ns, default=None)


def require_store(path: Path, made_by: str) -> Path:
    """Like `existing_store`, but raises StoreError naming the command that writes it."""
    found = existing_store(path)
    if found is None:
        raise StoreError(f"{path} is missing", todo=f"Make it with: wsi-pipeline {made_by}")
    return found


def slug(name: str) -> str:
    """A folder name for an encoder or model name: `org/name` -> `org--name`, other odd characters -> `_`."""
    return re.sub(r"[^A-Za-z0-9._+-]", "_", name.replace("/", "--").replace(":", "-"))
