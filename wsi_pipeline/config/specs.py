"""The settings of each stage, as frozen dataclasses.

Every field enters the digest of the stage's output: a slide is recomputed if one changes. Options that change only
how the work is run (workers, device, batch size, file format) are in `wsi_pipeline.config.execution`, in no digest.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from wsi_pipeline.config import shared
from wsi_pipeline.config.fields import at_least, between, option, validate
from wsi_pipeline.config.patch_specs import SegmentSpec as SegmentSpec
from wsi_pipeline.config.patch_specs import TileSpec as TileSpec
from wsi_pipeline.config.registries import MIL_MODELS
from wsi_pipeline.config.shared import PLAUSIBLE_MPP, ZERO_OR_SIDE
from wsi_pipeline.errors import UsageError


@dataclass(frozen=True)
class EmbedSpec:
    """How patches become features. Weights enter the digest by their fingerprint, not by their path."""

    model: str = option(
        "colour",
        "encoder: colour, pathotune, pathotune:NAME, vit-mini, a timm name, hf-hub:ORG/NAME or a Hugging Face id; "
        "repeat it for several encoders in one pass over the pixels",
        group="encoder",
        metavar="NAME",
        repeat=True,
    )
    precision: str = shared.precision("encoder")
    dtype: str = option("float16", "data type of the stored features", group="encoder", choices=("float16", "float32"))
    input_px: int = option(
        0, "input width and height of a timm network, pixels (0: the model's own)", group="encoder",
        check=ZERO_OR_SIDE,
    )  # fmt: skip
    whole_patch: bool = option(
        False, "resize the whole patch where the model's own preprocessing would crop it", group="encoder"
    )
    stain_norm: str = shared.stain_norm()
    stain_target: str = shared.stain_target()

    def __post_init__(self) -> None:
        validate(self)
        if not self.model.strip():
            raise UsageError("model must name an encoder, got an empty name")

    def facts(self) -> dict[str, Any]:
        """The fields for digests and stores. Those added later are included only if set, as old stores lack them."""
        unset: dict[str, Any] = {"input_px": 0, "whole_patch": False}
        unset |= {"stain_norm": "none", "stain_target": self.stain_target} if self.stain_norm == "none" else {}
        return {key: value for key, value in asdict(self).items() if key not in unset or unset[key] != value}


@dataclass(frozen=True)
class EmbedSlidesSpec:
    """How patch features become one vector per slide. Weights enter the digest by their fingerprint."""

    model: str = option(
        "mean", "slide encoder: mean, or a published one: wsi-pipeline encoders", group="slide encoder", metavar="NAME"
    )
    trained: str | None = option(
        None, "pool by the attention of a model trained here, out of fold, instead of --model", group="slide encoder",
        metavar="FOLDER",
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        if self.trained is not None and self.model != "mean":
            raise UsageError("model and trained exclude each other")


@dataclass(frozen=True)
class TuneSpec:
    """How a vision transformer is tuned on labelled patches. Its weights enter the digest by their fingerprint.

    Prompts, text and rank apply to the methods that have them; the other methods ignore them.
    """

    method: str = option(
        "pathotune",
        "what is trained: prompts, the head, low-rank updates or all weights",
        group="method",
        choices=("pathotune", "linear", "vpt-shallow", "vpt-deep", "lora", "full"),
    )
    model: str = option("vit-mini", "backbone: vit-mini (built in) or a plain timm ViT", group="method", metavar="NAME")
    input_px: int = option(
        0, "input width and height of the network, pixels (0: the backbone's own)", group="method",
        check=ZERO_OR_SIDE, rare=True,
    )  # fmt: skip
    feature: str = option(
        "cls", "feature that embed will store", group="method", choices=("cls", "cls_mean"), rare=True
    )
    precision: str = shared.precision("method")
    tvp_tokens: int = option(10, "task visual prompts per layer", group="prompts", check=between(0, 1024), rare=True)
    ttp: bool = option(True, "textual prompts made from the template", group="prompts", rare=True)
    ivp_tokens: int = option(
        2, "visual prompts computed from each image", group="prompts", check=between(0, 256), rare=True
    )
    entry: float = option(
        0.0, "where prompts enter, as a fraction of the backbone's layers: 0.33 takes a fifth less time",
        group="prompts", check=between(0, 0.95), rare=True,
    )  # fmt: skip
    template: str = option(
        "{stain} stained histology image of {organ}. The task is {task}. The classes are {classes}.",
        "text of the textual prompts",
        group="prompts",
        rare=True,
    )
    stain: str = option("H&E", "{stain} of the template", group="prompts", rare=True)
    organ: str = option("human tissue", "{organ} of the template", group="prompts", rare=True)
    task: str = option("patch classification", "{task} of the template", group="prompts", rare=True)
    text_encoder: str = option(
        "minilm", "text encoder: minilm (extra `text`), a BERT folder, or a Hugging Face id", group="prompts",
        metavar="NAME", rare=True,
    )  # fmt: skip
    lora_rank: int = option(8, "rank of --method lora", group="prompts", check=between(1, 512), rare=True)
    epochs: int = shared.epochs(20, "patches")
    batch: int = option(64, "patches per step", group="training", check=at_least(1))
    learning_rate: float = option(
        0.0, "peak learning rate (0: the method's own)", group="training", check=between(0, 1)
    )
    network_rate: float = option(
        0.0,
        "learning rate of refine module and head, relative to --learning-rate (0: the method's own)",
        group="training",
        check=between(0, 1),
        rare=True,
    )
    weight_decay: float = option(0.01, "weight decay", group="training", check=at_least(0), rare=True)
    class_weights: bool = shared.class_weights()
    label_smoothing: float = shared.label_smoothing()
    flips: bool = option(True, "random flips of the training patches", group="training", rare=True)
    rotations: bool = option(True, "random rotations by multiples of 90 degrees", group="training", rare=True)
    stain_jitter: float = option(
        0.0, "random variation of stain strength, as a fraction", group="training", check=between(0, 1), rare=True
    )
    patience: int = shared.patience(5, "validation score")
    monitor: str = option(
        "macro_f1", "validation score that selects the best epoch", group="training", choices=("macro_f1", "loss"),
        rare=True,
    )  # fmt: skip
    val_fraction: float = option(
        0.15, "fraction of groups used for early stopping and model selection", group="validation",
        check=between(0.02, 0.5),
    )  # fmt: skip
    test_fraction: float = option(
        0.2, "fraction of groups held out for the test (0: none)", group="validation", check=between(0, 0.8)
    )
    bootstrap: int = shared.bootstrap("groups")
    seed: int = shared.seed("split, initial weights, order and bootstrap")

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
    """Which labelled patches are used, and how they are cut.

    Class folders and CSVs of images use resize_px and image_mpp; points also use crop_px and point_origin; slides
    with annotations use patch_px to rest_class. The other fields apply to all sources.
    """

    classes: str | None = option(None, "classes to use, comma-separated (default: all)", group="labels", metavar="A,B")
    drop_classes: str | None = option(
        None, "classes to leave out, comma-separated", group="labels", metavar="A,B", rare=True
    )
    max_per_class: int = option(
        0, "maximum patches per class, a random sample of them (0: all)", group="labels", check=at_least(0), rare=True
    )
    sample_seed: int = option(0, "random seed of that sample", group="labels", check=at_least(0), rare=True)
    label_column: str | None = option(
        None, "column of the CSV that holds the class (default: label, class, ...)", group="labels", metavar="NAME"
    )
    group_column: str | None = option(
        None, "column that names groups (e.g. patients) that must stay on one side of a split", group="labels",
        metavar="NAME",
    )  # fmt: skip
    group_pattern: str | None = option(
        None, "regular expression for file names; its parenthesised part is the group", group="labels",
        metavar="REGEX", rare=True)  # fmt: skip
    resize_px: int = option(
        0, "width and height images or crops are resized to, pixels (0: the most common size)", group="labels",
        check=ZERO_OR_SIDE, rare=True,
    )  # fmt: skip
    image_mpp: float | None = option(
        None, "micrometres per pixel of the images before resizing (default: unknown)", group="labels",
        check=PLAUSIBLE_MPP, rare=True,
    )  # fmt: skip
    crop_px: int = option(
        0, "width and height of the crop around each point, pixels of its image", group="labels",
        check=("0 or between 8 and 4096", lambda value: value == 0 or 8 <= value <= 4096), rare=True,
    )  # fmt: skip
    point_origin: int = option(
        0, "coordinate of the first pixel of an image: 0 or 1", group="labels", check=between(0, 1), rare=True
    )
    patch_px: int = shared.patch_px("annotated slides: patch", "labels", most=4096)
    mpp: float = shared.mpp("labels")
    overlap_px: int = shared.overlap_px("labels")
    mpp_tolerance: float = shared.mpp_tolerance("labels")
    allow_upsample: bool = shared.allow_upsample("labels")
    min_inside: float = option(
        0.75, "annotated slides: minimum fraction of a patch inside regions of its class", group="labels",
        check=between(0.01, 1), rare=True,
    )  # fmt: skip
    rest_class: str | None = option(
        None, "annotated slides: class of tissue outside all regions (default: not used)", group="labels",
        metavar="NAME", rare=True)  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
        if self.overlap_px >= self.patch_px:
            raise UsageError(f"overlap_px must be smaller than patch_px ({self.patch_px}), got {self.overlap_px}")
        try:
            re.compile(self.group_pattern or "")
        except re.error as error:
            raise UsageError(f"group_pattern is not a regular expression: {error}") from None


@dataclass(frozen=True)
class ClassifySpec:
    """How patches are classified. The adapter enters the digest by its fingerprint, not by its path."""

    model: str = option(
        "pathotune",
        "pathotune (this run's adapter, else the built-in one) or pathotune:NAME (tuned in this run as NAME); with "
        "--prompts an image-text model: plip, a folder, ORG/NAME",
        group="classifier",
        metavar="NAME",
    )
    precision: str = shared.precision("classifier")
    min_probability: float = option(
        0.0,
        "mark areas as unclear where the most likely class has a lower probability than this",
        group="classifier",
        check=between(0, 1),
    )

    def __post_init__(self) -> None:
        validate(self)
        if self.model in ("colour", "vit-mini", "pathotune:"):
            raise UsageError(f"model must be pathotune or pathotune:NAME, got {self.model!r}")


@dataclass(frozen=True)
class MilSpec:
    """How a slide-level model is trained and validated."""

    model: str = option("gated-abmil", "MIL model", group="model", choices=MIL_MODELS)
    hidden_dim: int = option(256, "width of the instance projection", group="model", check=between(1, 8192), rare=True)
    attention_dim: int = option(128, "width of the attention layer", group="model", check=between(1, 8192), rare=True)
    dropout: float = option(0.25, "dropout in the head", group="model", check=between(0, 0.95), rare=True)
    task: str = option(
        "classification",
        "target: label (class, grade, number), or time and event",
        group="task",
        choices=("classification", "ordinal", "regression", "survival"),
    )
    bag: str = option(
        "slide", "unit of prediction: one slide, or all slides of a patient", group="task",
        choices=("slide", "patient"),
    )  # fmt: skip
    positive: str | None = option(
        None, "positive class of a two-class task (default: the last in sorted order)", group="task", metavar="NAME"
    )
    grades: str | None = option(
        None, "--task ordinal: grades from lowest to highest, comma-separated (default: by the number in their names)",
        group="task", metavar="A,B,C", rare=True,
    )  # fmt: skip
    survival_loss: str = option(
        "discrete", "discrete-time hazards, or Cox's partial likelihood", group="task",
        choices=("discrete", "cox"), rare=True,
    )  # fmt: skip
    time_bins: int = option(
        4, "time intervals of --survival-loss discrete, with equal numbers of events", group="task",
        check=between(1, 100), rare=True,
    )  # fmt: skip
    folds: int = option(5, "outer folds; no patient is in two folds", group="validation", check=between(2, 100))
    repeats: int = option(
        1, "repetitions of the cross-validation with new folds", group="validation", check=between(1, 100), rare=True
    )
    site_folds: bool = option(
        False,
        "keep every site (column `site`) in one fold, so that recognising a site does not help",
        group="validation",
    )
    choose: str = option(
        "", "models and settings to select among, e.g. 'abmil,mean learning_rate=1e-3,1e-4'",
        group="validation", metavar="GRID",
    )  # fmt: skip
    allow_few: bool = option(False, "allow classes with fewer patients than folds", group="validation", rare=True)
    val_fraction: float = option(
        0.2,
        "fraction of training patients for early stopping (0: run all epochs)",
        group="validation",
        check=between(0, 0.5),
    )
    committee: int = option(
        1, "models per fold, averaged at prediction; each uses a different part of the training patients for early "
        "stopping or, with --val-fraction 0, a different seed",
        group="validation", check=between(1, 20), rare=True,
    )  # fmt: skip
    bootstrap: int = shared.bootstrap("patients")
    permutations: int = option(
        1000, "label permutations for the test against chance (0: no test)", group="validation",
        check=between(0, 100_000), rare=True,
    )  # fmt: skip
    seed: int = shared.seed("splits, initial weights, order and bootstrap")
    epochs: int = shared.epochs(60, "bags")
    patience: int = shared.patience(12, "validation loss")
    batch_bags: int = option(8, "bags per step", group="training", check=at_least(1), rare=True)
    learning_rate: float = option(1e-3, "AdamW learning rate", group="training", check=between(1e-8, 1), rare=True)
    weight_decay: float = option(1e-3, "AdamW weight decay", group="training", check=at_least(0), rare=True)
    class_weights: bool = shared.class_weights()
    label_smoothing: float = shared.label_smoothing()
    max_instances: int = option(
        0, "patches sampled per step from each larger bag, to save memory (0: all)", group="training",
        check=at_least(0), rare=True,
    )  # fmt: skip
    precision: str = shared.precision("training")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True)
class HeatmapSpec:
    """How a trained model's attention is drawn."""

    overlay_mpp: float | None = option(
        None, "micrometres per pixel of the overlay picture (default: as the thumbnail)", group="pictures",
        check=between(1, 100),
    )  # fmt: skip
    pyramid: bool = option(True, "pyramidal TIFF of the overlay for QuPath and OpenSlide", group="pictures")
    pyramid_mpp: float = option(
        4.0, "micrometres per pixel of that TIFF; coarser if it would exceed 32 megapixels", group="pictures",
        check=between(0.5, 100),
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate(self)
