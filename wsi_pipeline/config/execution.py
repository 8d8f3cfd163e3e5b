"""How work is run: what changes speed, place and file format, but not the result; none of it is in a digest."""

from __future__ import annotations

import os
from dataclasses import dataclass

from wsi_pipeline.config.fields import at_least, between, option, validate
from wsi_pipeline.config.units import MAX_MPP, MIN_MPP
from wsi_pipeline.errors import UsageError

_STORES = ("hdf5", "zarr")


@dataclass(frozen=True)
class CohortOptions:
    """How the manifest is understood."""

    default_mpp: float | None = option(
        None,
        "micrometres per pixel of slides that state none, in the file or the CSV",
        group="cohort",
        check=between(MIN_MPP, MAX_MPP),
    )
    mixed_labels: bool = option(False, "let slides of one patient carry different labels", group="cohort")
    label_column: str | None = option(
        None, "column of the CSV with the labels (default: label, diagnosis, ...)", group="cohort", metavar="NAME"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TableOptions:
    """What a table of slides leaves open: whose slides they are, and which labels are meant."""

    patient_column: str | None = option(
        None, "column of the CSV that says whose slide it is (default: patient_id, case_id, ...)", group="table",
        metavar="NAME",
    )  # fmt: skip
    each_slide_a_patient: bool = option(
        False, "no patient has two slides: every slide counts as a patient of its own", group="table"
    )
    fold_labels: bool = option(
        False, "join labels that differ only in case, in spaces, or as 1 and 1.0 do", group="table"
    )
    keep_label: str | None = option(
        None, "words for no value, such as Unknown, that are labels here, separated by commas", group="table",
        metavar="A,B",
    )  # fmt: skip

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
class QuPathOptions:
    """How QuPath opens the slides. Only slides with bounds differ: Leica SCN, MIRAX, TIFFs with missing tiles."""

    qupath_no_crop: bool = option(
        False, "outlines of QuPath count from the corner of the whole slide (it was opened with --no-crop), not of "
        "the scanned part", group="cohort",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class CheckOptions:
    """What `check` writes, and what its estimate of a run supposes."""

    csv: str | None = option(None, "write what was found to this CSV", group="check", metavar="FILE")
    feature_dim: int = option(
        1024, "numbers in a feature vector of your encoder, for the estimate", group="check", check=at_least(1)
    )
    patches_per_second: float = option(
        100.0, "speed of your encoder, for the estimate", group="check", check=between(0.01, 1e6)
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TileExecution:
    """How segment and tile are run."""

    workers: int | None = option(
        None, "slides at a time, each in its own process; 0: in this one (default: one per core)", group="running",
        check=at_least(0),
    )  # fmt: skip
    store: str = option("hdf5", "file format of the stores", group="running", choices=_STORES)

    def __post_init__(self) -> None:
        validate(self)

    @property
    def processes(self) -> int:
        """Worker processes: as asked, else one per core this process may use, at most 16."""
        return self.workers if self.workers is not None else min(16, usable_cores())


@dataclass(frozen=True)
class EmbedExecution:
    """How embed is run."""

    adapter: str | None = option(
        None, "adapter for --model pathotune: a file, or built-in (default: this run's, else the built-in); "
        "of several models, pathotune=FILE",
        group="encoder", metavar="FILE", repeat=True,
    )  # fmt: skip
    weights: str | None = option(
        None, "local weights: a .safetensors file (fp16 accepted) or a Hugging Face folder; of several models, "
        "MODEL=FILE for each", group="encoder", metavar="FILE", repeat=True,
    )  # fmt: skip
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group="running", metavar="NAME")
    devices: str | None = option(
        None, "share slides out over several: names with commas, or a number of CUDA devices", group="running",
        metavar="A,B",
    )  # fmt: skip
    batch: int | None = option(
        None, "patches in one batch (default: tried out on many patches, else what suits the device)", group="running",
        check=at_least(1),
    )  # fmt: skip
    compile: bool = option(False, "compile the network first (torch.compile; needs a C++ compiler)", group="running")
    gpu_decode: bool = option(
        False, "decode JPEG patches kept by tile on the CUDA device (nvJPEG); it rounds a little differently",
        group="running",
    )  # fmt: skip
    readers: int | None = option(
        None, "threads that read patches ahead (default: one per core)", group="running", check=at_least(1)
    )
    store: str = option("hdf5", "file format of the stores", group="running", choices=_STORES)

    def __post_init__(self) -> None:
        validate(self)
        if self.devices is not None and self.device != "auto":
            raise UsageError(f"device and devices exclude each other, got {self.device} and {self.devices}")

    @property
    def threads(self) -> int:
        """Reader threads: as asked, else one per core, at most 16."""
        return self.readers if self.readers is not None else min(16, usable_cores())


@dataclass(frozen=True)
class TuneExecution:
    """How tune is run."""

    weights: str | None = option(
        None, "the backbone's weights: a .safetensors file or a Hugging Face folder", group="method", metavar="FILE"
    )
    default_mpp: float | None = option(
        None, "micrometres per pixel of annotated slides that state none", group="labels",
        check=between(MIN_MPP, MAX_MPP),
    )  # fmt: skip
    name: str | None = option(
        None, "name of the result, for embed --model pathotune:NAME (default: the method)", group="running"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group="running", metavar="NAME")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class ClassifyExecution(EmbedExecution):
    """How classify is run: with the choices of embed."""


@dataclass(frozen=True)
class MilExecution:
    """How slide-level training is run."""

    features: str | None = option(
        None, "encoder whose features to use (default: every encoder of the run)", group="model", metavar="NAME"
    )
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group="running", metavar="NAME")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TrainingOptions:
    """Where a slide-level training goes."""

    name: str | None = option(
        None, "name of the result (default: the model, and task and bag where they are not the usual ones)",
        group="running", metavar="NAME",
    )  # fmt: skip
    replace: bool = option(
        False, "take the place of a result with other settings or labels, which is kept under former/", group="running"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class PredictOptions:
    """How a trained model is applied."""

    trained: str | None = option(
        None, "folder of a trained model (default: the one trained in this run)", group="model", metavar="FOLDER"
    )
    weights: str | None = option(
        None, "local weights of the encoder, where new slides must be embedded", group="model", metavar="FILE"
    )
    adapter: str | None = option(
        None, "adapter of the encoder, where it is pathotune (default: the one the model was trained on)",
        group="model", metavar="FILE",
    )  # fmt: skip
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps", group="running", metavar="NAME")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class CompareOptions:
    """Which trainings are compared, and how."""

    features: str | None = option(
        None, "compare models on this encoder's features (default: all that both have)", group="what", metavar="NAME"
    )
    model: str | None = option(
        None, "compare models of this name (default: all that both have)", group="what", metavar="NAME"
    )
    bootstrap: int = option(2000, "paired bootstrap resamples over patients", group="how", check=between(100, 100_000))
    seed: int = option(0, "seed of the bootstrap", group="how", check=at_least(0))
    json: str | None = option(None, "write everything to this file as JSON", group="running", metavar="FILE")

    def __post_init__(self) -> None:
        validate(self)


def usable_cores() -> int:
    """Cores this process may run on (a Slurm job sees its share, not the node)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
