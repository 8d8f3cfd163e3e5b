"""How work is run: options that change speed, location and file format, but not the result; they are in no digest."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import at_least, between, option, validate
from wsi_pipeline.config.registries import EXPORT_FORMATS
from wsi_pipeline.errors import UsageError


@dataclass(frozen=True)
class CohortOptions:
    """How the manifest is read."""

    default_mpp: float | None = shared.default_mpp("cohort")
    mixed_labels: bool = option(False, "allow different labels among the slides of one patient", group="cohort")
    label_column: str | None = option(
        None, "column of the CSV that holds the label (default: label, diagnosis, ...)", group="cohort", metavar="NAME"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TableOptions:
    """Options for what a table leaves open: the patient of each slide, and how labels are read."""

    patient_column: str | None = option(
        None, "column of the CSV that names the patient (default: patient_id, case_id, ...)", group="table",
        metavar="NAME",
    )  # fmt: skip
    each_slide_a_patient: bool = option(
        False, "treat every slide as its own patient: no patient has two slides", group="table"
    )
    fold_labels: bool = option(
        False, "merge labels that differ only in case, spaces or number format (1, 1.0)", group="table", rare=True
    )
    keep_label: str | None = option(
        None, "words read as missing values, such as Unknown, to keep as labels, comma-separated", group="table",
        metavar="A,B", rare=True)  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        if self.patient_column is not None and self.each_slide_a_patient:
            raise UsageError("patient_column and each_slide_a_patient exclude each other")

    @property
    def kept_labels(self) -> frozenset[str]:
        """The words of `keep_label`, in lower case."""
        words = (self.keep_label or "").split(",")
        return frozenset(word.strip().casefold() for word in words if word.strip())


@dataclass(frozen=True)
class ClinicalOptions:
    """The clinical table with the outcomes to predict, and which of its columns to use."""

    clinical: str | None = option(
        None, "clinical table, one row per patient: a CSV, FILE.xlsx or FILE.xlsx#SHEET", group="table",
        metavar="FILE",
    )  # fmt: skip
    target: tuple[str, ...] = option(
        (), "column to predict, or TASK:NAME for another task than --task; repeat it for several", group="table",
        metavar="NAME",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class QuPathOptions:
    """How QuPath opens the slides. Only slides with bounds differ: Leica SCN, MIRAX, TIFFs with missing tiles."""

    qupath_no_crop: bool = option(
        False, "write QuPath outlines for slides opened with --no-crop (origin: the whole slide, not the scanned area)",
        group="cohort", rare=True)  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class CheckOptions:
    """The output of `check`, and the assumptions of its estimate."""

    csv: str | None = option(None, "write the results to this CSV", group="check", metavar="FILE")
    feature_dim: int = option(
        1024, "length of your encoder's feature vectors, for the estimate", group="check", check=at_least(1)
    )
    patches_per_second: float = option(
        100.0, "speed of your encoder, for the estimate", group="check", check=between(0.01, 1e6)
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class EncodersOptions:
    """What `encoders` does apart from listing."""

    convert: str | None = option(
        None, "convert pickled weights that you trust; writes NAME.safetensors beside them", group="weights",
        metavar="FILE")  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TileExecution:
    """How segment and tile are run."""

    workers: int | None = option(
        None, "slides processed in parallel, one process each; 0: no extra process (default: one per core)",
        group="running", check=at_least(0),
    )  # fmt: skip
    store: str = shared.store()

    def __post_init__(self) -> None:
        validate(self)

    @property
    def processes(self) -> int:
        """Worker processes: the number requested, else one per core this process may use, at most 16."""
        return self.workers if self.workers is not None else min(16, usable_cores())


@dataclass(frozen=True)
class EmbedExecution:
    """How embed is run."""

    adapter: str | None = option(
        None, "adapter of --model pathotune: a file, or built-in (default: this run's, else the built-in one); "
        "several models: pathotune=FILE",
        group="encoder", metavar="FILE", repeat=True,
    )  # fmt: skip
    weights: str | None = shared.weights("the network", "encoder", repeat=True)
    device: str = shared.device()
    devices: str | None = option(
        None, "distribute slides over several devices, comma-separated, or over a number of CUDA devices",
        group="running", metavar="A,B",
    )  # fmt: skip
    batch: int | None = option(
        None, "patches per batch (default: measured if there are many patches, else by device)",
        group="running", check=at_least(1),
    )  # fmt: skip
    compile: bool = option(False, "compile the network first (torch.compile; needs a C++ compiler)", group="running")
    gpu_decode: bool = option(
        False,
        "decode the JPEG patches of tile --pixels jpeg on the CUDA device (nvJPEG: rounding differs)",
        group="running",
    )
    readers: int | None = option(
        None, "threads that read patches ahead (default: one per core)", group="running", check=at_least(1)
    )
    store: str = shared.store()

    def __post_init__(self) -> None:
        validate(self)
        if self.devices is not None and self.device != "auto":
            raise UsageError(f"device and devices exclude each other, got {self.device} and {self.devices}")

    @property
    def threads(self) -> int:
        """Reader threads: the number requested, else one per core, at most 16."""
        return self.readers if self.readers is not None else min(16, usable_cores())


@dataclass(frozen=True)
class TuneExecution:
    """How tune is run."""

    weights: str | None = shared.weights("the backbone", "method")
    default_mpp: float | None = shared.default_mpp("labels")
    name: str | None = option(
        None, "name of the result, for embed --model pathotune:NAME (default: the method)", group="running"
    )
    diagnose: bool = option(
        False, "draw where the class token looks before and after tuning (diagnosis.png)", group="running", rare=True
    )
    suggest: int = option(0, "patches to list for labelling next (0: none)", group="running", check=between(0, 10_000))
    device: str = shared.device()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ClassifyExecution(EmbedExecution):
    """How classify is run: the options of embed, and prompts for an image-text model."""

    prompts: str | None = option(
        None, "zero-shot classification: YAML with classes and templates, for an image-text --model",
        group="classifier", metavar="FILE")  # fmt: skip


@dataclass(frozen=True)
class MilExecution:
    """How slide-level training is run."""

    features: str | None = option(
        None, "encoder whose features are used (default: every encoder of the run)", group="model", metavar="NAME"
    )
    device: str = shared.device()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TrainingOptions:
    """Output of slide-level training."""

    name: str | None = option(
        None, "name of the result (default: the model, with task and bag if not the default)", group="running",
        metavar="NAME",
    )  # fmt: skip
    replace: bool = option(
        False, "replace a result that has other settings or labels; the old one is kept under former/", group="running"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class PredictOptions:
    """How a trained model is applied."""

    trained: str | None = option(
        None, "folder of a trained model (default: the one trained in this run)", group="model", metavar="FOLDER"
    )
    weights: str | None = shared.weights("the encoder, to embed new slides", "model")
    adapter: str | None = option(
        None, "adapter of a pathotune encoder (default: the one the model was trained on)", group="model",
        metavar="FILE",
    )  # fmt: skip
    tissue_weights: str | None = option(
        None, "weights of the network that found tissue for the training, to tile new slides", group="model",
        metavar="FILE", rare=True,
    )  # fmt: skip
    artefact_weights: str | None = option(
        None, "weights of the network that found artefacts for the training, to tile new slides", group="model",
        metavar="FILE", rare=True,
    )  # fmt: skip
    device: str = shared.device()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ImportOptions:
    """Which slides the files of another tool belong to."""

    labels: str | None = option(
        None, "CSV of the slides and their labels; ids match with or without suffixes (.svs, .h5)", group="slides",
        metavar="CSV",
    )  # fmt: skip
    slides: str | None = option(
        None, "the slides, a CSV, a folder or a quoted glob: required for patches, else for checks and pictures",
        group="slides", metavar="SLIDES",
    )  # fmt: skip
    encoder: str | None = option(
        None, "encoder of the features, if the files name none or several", group="slides", metavar="NAME"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class FeaturesFrom:
    """Features of another tool, imported before a command begins."""

    features_from: str | None = option(
        None, "import features of TRIDENT, CLAM, STAMP, ... first; give their slides with --labels CSV",
        group="model", metavar="FOLDER",
    )  # fmt: skip
    labels: str | None = option(
        None, "CSV of the slides and labels for --features-from", group="model", metavar="CSV", rare=True
    )
    encoder: str | None = option(
        None, "encoder of --features-from, if the files name none or several", group="model", metavar="NAME",
        rare=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        if self.features_from is None and (self.labels or self.encoder):
            raise UsageError("labels and encoder belong to features_from, which is missing")


@dataclass(frozen=True)
class LabelsOptions(CohortOptions):
    """How the table of --features-from is read: the options of a manifest, shown only by --help-all here."""

    default_mpp: float | None = shared.default_mpp("table", rare=True)
    mixed_labels: bool = option(
        False, "allow different labels among the slides of one patient in --labels", group="table", rare=True
    )
    label_column: str | None = option(
        None, "column of --labels that holds the label (default: label, diagnosis, ...)", group="table",
        metavar="NAME", rare=True,
    )  # fmt: skip


@dataclass(frozen=True)
class CompareOptions:
    """Which trained models are compared, and how."""

    features: str | None = option(
        None, "compare models on this encoder's features (default: all encoders in both)", group="what",
        metavar="NAME",
    )  # fmt: skip
    model: str | None = option(
        None, "compare models of this name (default: all names in both)", group="what", metavar="NAME"
    )
    bootstrap: int = shared.bootstrap("patients, paired", default=2000, group="how")
    seed: int = shared.seed("the bootstrap", group="how")
    json: str | None = option(None, "write all results to this JSON file", group="running", metavar="FILE")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ExportOptions:
    """What is exported, in which tool's format, and where to."""

    to: str | None = option(
        None, f"format: {', '.join(EXPORT_FORMATS.names())}, or onnx", group="what", metavar="FORMAT"
    )
    features: str | None = option(
        None, "encoder whose features are exported (default: the one of the run)", group="what", metavar="NAME"
    )
    model: str | None = option(
        None, "onnx: folder of a trained model (default: the one trained in this run)", group="what", metavar="FOLDER"
    )
    dtype: str = option("float32", "precision of the features", group="what", choices=("float32", "float16"))
    max_patches: int = option(
        0, "png: maximum patches per slide, evenly spread (0: all)", group="what", check=at_least(0), metavar="N"
    )
    out: str | None = option(
        None, "folder to write to (default, in the run folder: export/FORMAT/ENCODER; without features export/FORMAT)",
        group="running", metavar="FOLDER",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        known = (*EXPORT_FORMATS.names(), "onnx")
        if self.to is not None and self.to not in known:
            raise UsageError(f"unknown export format {self.to!r}", todo=f"Known: {', '.join(known)}")


@dataclass(frozen=True)
class PushOptions:
    """Which model is uploaded to a hub, and which files go with it."""

    model: str | None = option(
        None, "folder of a trained model (default: the one trained in this run)", group="what", metavar="FOLDER"
    )
    with_predictions: bool = option(
        False, "also upload predictions, folds and all warnings, which name slides and patients", group="what"
    )
    onnx: bool = option(False, "also upload the model as ONNX", group="what")
    public: bool = option(False, "make a new repository public (default: private)", group="where")
    revision: str | None = option(None, "branch to commit to (default: main)", group="where", metavar="NAME")
    dry_run: bool = option(False, "list the files and upload nothing", group="where")

    def __post_init__(self) -> None:
        validate(self)


def usable_cores() -> int:
    """Cores this process may run on (a Slurm job sees its share, not the node)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
