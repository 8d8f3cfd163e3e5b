"""What each stage is asked to do, as frozen facts.

Every field is in the digest of what the stage writes: change one and the slide is redone. What changes only
how the work is run (workers, device, batch size, file format) is in `wsi_pipeline.config.execution` and is not.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from wsi_pipeline.config.fields import at_least, between, option, validate
from wsi_pipeline.config.units import MAX_MPP, MIN_MPP
from wsi_pipeline.errors import UsageError

_MPP = between(MIN_MPP, MAX_MPP)
_ZERO_OR_SIDE = ("0 or between 16 and 4096", lambda value: value == 0 or 16 <= value <= 4096)


@dataclass(frozen=True)
class SegmentSpec:
    """How tissue is found on a slide."""

    method: str = option("hybrid", "tissue detector: hybrid, density, otsu, or none", group="tissue", metavar="NAME")
    mask_mpp: float = option(8.0, "resolution of the tissue mask, micrometres per pixel", group="tissue", check=_MPP)
    min_tissue_um2: float = option(
        16_000.0, "drop tissue fragments smaller than this, square micrometres", group="tissue", check=at_least(0)
    )
    max_hole_um2: float = option(
        50_000.0, "fill holes smaller than this, square micrometres", group="tissue", check=at_least(0)
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class TileSpec:
    """How patches are laid over tissue."""

    patch_px: int = option(256, "patch width and height, pixels at --mpp", group="patches", check=between(16, 8192))
    mpp: float = option(0.5, "patch resolution, micrometres per pixel", group="patches", check=_MPP)
    overlap_px: int = option(0, "overlap of neighbouring patches, pixels at --mpp", group="patches", check=at_least(0))
    min_coverage: float = option(
        0.25, "keep a patch when at least this fraction of it is tissue", group="patches", check=between(0, 1)
    )
    mpp_tolerance: float = option(
        0.03,
        "take a whole-number shrink within this fraction of --mpp (0: exact)",
        group="patches",
        check=between(0, 0.2),
    )
    allow_upsample: bool = option(False, "enlarge slides coarser than --mpp instead of refusing them", group="patches")
    pixels: str = option("none", "keep pixels in the patch store", group="patches", choices=("none", "jpeg", "raw"))
    jpeg_quality: int = option(90, "quality for --pixels jpeg", group="patches", check=between(1, 100))

    def __post_init__(self) -> None:
        validate(self)
        if self.overlap_px >= self.patch_px:
            raise UsageError(f"overlap_px must be smaller than patch_px ({self.patch_px}), got {self.overlap_px}")


@dataclass(frozen=True)
class EmbedSpec:
    """How patches become features. Weights enter the digest by their fingerprint, not by their path."""

    model: str = option(
        "colour",
        "encoder: colour, pathotune, pathotune:NAME, vit-mini, a timm name, hf-hub:ORG/NAME, or a Hugging Face id; "
        "several share one pass over the pixels",
        group="encoder",
        metavar="NAME",
        repeat=True,
    )
    precision: str = option(
        "auto",
        "arithmetic: bf16 where the device is fast at it, else fp32",
        group="encoder",
        choices=("auto", "bf16", "fp32"),
    )
    dtype: str = option("float16", "how features are stored", group="encoder", choices=("float16", "float32"))
    input_px: int = option(
        0, "side of the images a timm network sees, pixels (0: the model's own)", group="encoder", check=_ZERO_OR_SIDE
    )
    whole_patch: bool = option(
        False, "show a timm network the whole patch where the model's own preparation crops it", group="encoder"
    )

    def __post_init__(self) -> None:
        validate(self)
        if not self.model.strip():
            raise UsageError("model must name an encoder, got an empty name")

    def facts(self) -> dict[str, Any]:
        """The fields for digests and stores; later ones only where they are set, as old stores lack them."""
        later = {"input_px", "whole_patch"}
        return {key: value for key, value in asdict(self).items() if value or key not in later}


@dataclass(frozen=True)
class TuneSpec:
    """How a vision transformer is tuned on labelled patches. Its weights enter the digest by their fingerprint.

    Prompts, text and rank are for the methods that have them; the others leave them aside.
    """

    method: str = option(
        "pathotune",
        "what trains: prompts, the head alone, low-rank updates, or everything",
        group="method",
        choices=("pathotune", "linear", "vpt-shallow", "vpt-deep", "lora", "full"),
    )
    model: str = option(
        "vit-mini", "backbone: vit-mini (built in) or a plain ViT of timm", group="method", metavar="NAME"
    )
    input_px: int = option(
        0, "side of the images it sees, pixels (0: the backbone's own)", group="method", check=_ZERO_OR_SIDE
    )
    feature: str = option("cls", "what embed will store", group="method", choices=("cls", "cls_mean"))
    precision: str = option(
        "auto", "arithmetic: bf16 where the device is fast at it, else fp32", group="method",
        choices=("auto", "bf16", "fp32"),
    )  # fmt: skip
    tvp_tokens: int = option(10, "task visual prompts of each layer", group="prompts", check=between(0, 1024))
    ttp: bool = option(True, "textual prompts from the template", group="prompts")
    ivp_tokens: int = option(2, "visual prompts made from each image", group="prompts", check=between(0, 256))
    template: str = option(
        "{stain} stained histology image of {organ}. The task is {task}. The classes are {classes}.",
        "text of the textual prompts",
        group="prompts",
    )
    stain: str = option("H&E", "fills the template", group="prompts")
    organ: str = option("human tissue", "fills the template", group="prompts")
    task: str = option("patch classification", "fills the template", group="prompts")
    text_encoder: str = option(
        "minilm", "minilm (extra `text`), a BERT folder, or a Hugging Face id", group="prompts", metavar="NAME"
    )
    lora_rank: int = option(8, "rank of --method lora", group="prompts", check=between(1, 512))
    epochs: int = option(20, "most passes over the training patches", group="training", check=at_least(1))
    batch: int = option(64, "patches in one step", group="training", check=at_least(1))
    learning_rate: float = option(
        0.0, "RAdam learning rate (0: the method's own)", group="training", check=between(0, 1)
    )
    network_rate: float = option(
        1.0,
        "learning rate of refine module and text projection, as a part of it",
        group="training",
        check=between(0, 1),
    )
    weight_decay: float = option(0.01, "RAdam weight decay", group="training", check=at_least(0))
    class_weights: bool = option(True, "weigh classes by the inverse of their frequency", group="training")
    label_smoothing: float = option(
        0.0, "part of each label spread over the classes", group="training", check=between(0, 0.9)
    )
    flips: bool = option(True, "mirror patches at random", group="training")
    rotations: bool = option(True, "turn patches by quarter turns at random", group="training")
    stain_jitter: float = option(
        0.0, "vary the strength of the stains by this fraction", group="training", check=between(0, 1)
    )
    patience: int = option(5, "stop after this many epochs without improvement", group="training", check=at_least(1))
    monitor: str = option(
        "macro_f1", "what of the validation chooses the best epoch", group="training", choices=("macro_f1", "loss")
    )
    val_fraction: float = option(
        0.15, "part of the groups that chooses the best epoch", group="validation", check=between(0.02, 0.5)
    )
    test_fraction: float = option(
        0.2, "part of the groups that tests the result (0: none)", group="validation", check=between(0, 0.8)
    )
    bootstrap: int = option(
        1000, "bootstrap resamples over groups for each interval", group="validation", check=between(100, 100_000)
    )
    seed: int = option(0, "seed of split, initial weights, order and bootstrap", group="validation", check=at_least(0))

    def __post_init__(self) -> None:
        validate(self)
        if not self.model.strip():
            raise UsageError("model must name a backbone, got an empty name")
        if self.val_fraction + self.test_fraction > 0.9:
            raise UsageError(
                "val_fraction and test_fraction must leave at least a tenth of the groups to train on, got "
                f"{self.val_fraction} and {self.test_fraction}"
            )


@dataclass(frozen=True)
class LabelSpec:
    """Which labelled patches there are, and how they are cut.

    Class folders and CSVs of images use resize_px and image_mpp; points use crop_px and point_origin besides; slides
    with annotations use patch_px to rest_class. The others are for all.
    """

    classes: str | None = option(
        None, "classes to keep, separated by commas (default: all)", group="labels", metavar="A,B"
    )
    drop_classes: str | None = option(None, "classes to leave out, separated by commas", group="labels", metavar="A,B")
    max_per_class: int = option(
        0, "most patches of a class, a random sample of those there are (0: all)", group="labels", check=at_least(0)
    )
    sample_seed: int = option(0, "seed of that sample", group="labels", check=at_least(0))
    label_column: str | None = option(
        None, "column of the class in the CSV (default: label, class, ...)", group="labels", metavar="NAME"
    )
    group_column: str | None = option(
        None, "column of what is never split (default: group, patient_id, ...)", group="labels", metavar="NAME"
    )
    group_pattern: str | None = option(
        None, "regular expression whose bracket finds the group in a file's name", group="labels", metavar="REGEX"
    )
    resize_px: int = option(
        0, "side that images or crops are brought to, pixels (0: their most common side)", group="labels",
        check=_ZERO_OR_SIDE,
    )  # fmt: skip
    image_mpp: float | None = option(
        None, "micrometres per pixel of images as they are (default: not known)", group="labels", check=_MPP
    )
    crop_px: int = option(
        0, "side of the crop round each point, pixels of its image", group="labels",
        check=("0 or between 8 and 4096", lambda value: value == 0 or 8 <= value <= 4096),
    )  # fmt: skip
    point_origin: int = option(
        0, "coordinates of the first pixel of an image: 0 or 1", group="labels", check=between(0, 1)
    )
    patch_px: int = option(
        256, "side of patches cut from annotated slides, pixels at --mpp", group="labels", check=between(16, 4096)
    )
    mpp: float = option(0.5, "their resolution, micrometres per pixel", group="labels", check=_MPP)
    overlap_px: int = option(0, "their overlap, pixels at --mpp", group="labels", check=at_least(0))
    mpp_tolerance: float = option(
        0.03, "take a whole-number shrink within this fraction of --mpp (0: exact)", group="labels",
        check=between(0, 0.2),
    )  # fmt: skip
    allow_upsample: bool = option(False, "enlarge slides coarser than --mpp instead of refusing them", group="labels")
    min_inside: float = option(
        0.75, "least part of a patch inside the regions of its class", group="labels", check=between(0.01, 1)
    )
    rest_class: str | None = option(
        None, "class of tissue outside all regions (default: not used)", group="labels", metavar="NAME"
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.overlap_px >= self.patch_px:
            raise UsageError(f"overlap_px must be smaller than patch_px ({self.patch_px}), got {self.overlap_px}")
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise UsageError(f"group_pattern is no regular expression: {error}") from None


@dataclass(frozen=True)
class ClassifySpec:
    """How patches become classes. The adapter enters the digest by its fingerprint, not by its path."""

    model: str = option(
        "pathotune",
        "pathotune (this run's adapter, else the built-in) or pathotune:NAME (a tuning of this run)",
        group="classifier",
        metavar="NAME",
    )
    precision: str = option(
        "auto",
        "arithmetic: bf16 where the device is fast at it, else fp32",
        group="classifier",
        choices=("auto", "bf16", "fp32"),
    )
    min_probability: float = option(
        0.0,
        "call an area unclear where its likeliest class has less than this probability",
        group="classifier",
        check=between(0, 1),
    )

    def __post_init__(self) -> None:
        validate(self)
        if not re.fullmatch("pathotune(:.+)?", self.model):
            raise UsageError(f"model must be pathotune or pathotune:NAME, got {self.model!r}")


@dataclass(frozen=True)
class MilSpec:
    """How a slide-level model is trained and validated."""

    model: str = option(
        "gated-abmil",
        "MIL model: abmil, gated-abmil, clam-sb, dsmil, transmil, mean or max",
        group="model",
        metavar="NAME",
    )
    hidden_dim: int = option(256, "width of the instance projection", group="model", check=between(1, 8192))
    attention_dim: int = option(128, "width of the attention layer", group="model", check=between(1, 8192))
    dropout: float = option(0.25, "dropout in the head", group="model", check=between(0, 0.95))
    task: str = option(
        "classification",
        "what is predicted: the class or the number in `label`, or survival from `time` and `event`",
        group="task",
        choices=("classification", "regression", "survival"),
    )
    bag: str = option(
        "slide", "what a prediction is for: a slide, or a patient by all slides", group="task",
        choices=("slide", "patient"),
    )  # fmt: skip
    positive: str | None = option(
        None, "positive class of two (default: the last in the order of their names)", group="task", metavar="NAME"
    )
    survival_loss: str = option(
        "discrete", "survival: hazards of a few intervals of time, or Cox's partial likelihood", group="task",
        choices=("discrete", "cox"),
    )  # fmt: skip
    time_bins: int = option(
        4, "intervals of --survival-loss discrete, with equal numbers of events", group="task", check=between(1, 100)
    )
    folds: int = option(5, "outer folds; patients are never split", group="validation", check=between(2, 100))
    repeats: int = option(1, "times the folds are dealt anew", group="validation", check=between(1, 100))
    site_folds: bool = option(
        False, "hold out whole sites (column `site`), so that recognising a site does not help", group="validation"
    )
    choose: str = option(
        "", "models and settings the validation part chooses from: 'abmil,mean learning_rate=1e-3,1e-4'",
        group="validation", metavar="GRID",
    )  # fmt: skip
    allow_few: bool = option(False, "train although a class has fewer patients than folds", group="validation")
    val_fraction: float = option(
        0.2,
        "part of the training patients that chooses when to stop, and what to keep (0: none, all epochs are run)",
        group="validation",
        check=between(0, 0.5),
    )
    committee: int = option(
        1, "models a fold whose mean predicts: each is stopped by another part of the training patients, or, with "
        "--val-fraction 0, starts from another seed (1: one model)",
        group="validation", check=between(1, 20),
    )  # fmt: skip
    bootstrap: int = option(
        1000, "bootstrap resamples over patients for each interval", group="validation", check=between(100, 100_000)
    )
    permutations: int = option(
        1000, "shuffles of the outcomes for the test against chance (0: none)", group="validation",
        check=between(0, 100_000),
    )  # fmt: skip
    seed: int = option(0, "seed of splits, initial weights, order and bootstrap", group="validation", check=at_least(0))
    epochs: int = option(60, "most passes over the training bags", group="training", check=at_least(1))
    patience: int = option(
        12, "stop after this many epochs without a better validation loss", group="training", check=at_least(1)
    )
    batch_bags: int = option(8, "bags in one step", group="training", check=at_least(1))
    learning_rate: float = option(1e-3, "AdamW learning rate", group="training", check=between(1e-8, 1))
    weight_decay: float = option(1e-3, "AdamW weight decay", group="training", check=at_least(0))
    class_weights: bool = option(True, "weigh classes by the inverse of their frequency", group="training")
    label_smoothing: float = option(
        0.0, "part of each label spread over the classes", group="training", check=between(0, 0.9)
    )
    max_instances: int = option(
        0, "patches drawn anew from each larger bag for a training step (0: all), for memory", group="training",
        check=at_least(0),
    )  # fmt: skip
    precision: str = option(
        "auto", "arithmetic of training: bf16 where the device is fast at it, else fp32", group="training",
        choices=("auto", "bf16", "fp32"),
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class HeatmapSpec:
    """What is drawn of a trained model's attention."""

    overlay_mpp: float | None = option(
        None, "micrometres per pixel of the overlay picture (default: as coarse as the thumbnail)", group="pictures",
        check=between(1, 100),
    )  # fmt: skip
    pyramid: bool = option(True, "write the pyramidal TIFF overlay for QuPath and OpenSlide", group="pictures")
    pyramid_mpp: float = option(
        4.0, "micrometres per pixel of that TIFF; coarser where it would pass 32 megapixels", group="pictures",
        check=between(0.5, 100),
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
