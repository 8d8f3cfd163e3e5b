"""The commands: name, purpose, example, options and handler. Imports nothing heavy, so that --help is quick."""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.config.execution import (
    CheckOptions,
    ClassifyExecution,
    ClinicalOptions,
    CohortOptions,
    CompareOptions,
    EmbedExecution,
    EncodersOptions,
    ExportOptions,
    FeaturesFrom,
    ImportOptions,
    LabelsOptions,
    MilExecution,
    PredictOptions,
    PushOptions,
    QuPathOptions,
    TableOptions,
    TileExecution,
    TrainingOptions,
    TuneExecution,
)
from wsi_pipeline.config.prompt_spec import PromptSpec
from wsi_pipeline.config.robustness_options import RobustnessOptions
from wsi_pipeline.config.slide_options import EmbedSlidesExecution, SimilarOptions, StainOptions, ViewOptions
from wsi_pipeline.config.specs import (
    ClassifySpec,
    EmbedSlidesSpec,
    EmbedSpec,
    HeatmapSpec,
    LabelSpec,
    MilSpec,
    SegmentSpec,
    TileSpec,
    TuneSpec,
)
from wsi_pipeline.config.tissue_weights import TissueNetworks


@dataclass(frozen=True)
class Command:
    """One command of wsi-pipeline.

    options    dataclasses whose fields become options
    sources    metavar and help of positional arguments, or None
    needed     at least one positional argument is required; `single`: at most one is allowed
    handler    `module:function` taking a Request and returning the exit code
    stage      True if the command is a stage with an output folder of the same name
    """

    name: str
    purpose: str
    example: str
    handler: str
    options: tuple[type, ...] = ()
    sources: tuple[str, str] | None = None
    needed: bool = False
    single: bool = False
    stage: bool = True


_COHORT = (
    "SLIDES",
    "a CSV or .xlsx (see manifests/README.md), a folder of slides, or a quoted glob (default: this run's)",
)

COMMANDS = (
    Command(
        "segment",
        "find tissue; write masks, outlines for QuPath and overlay pictures",
        "wsi-pipeline segment slides.csv",
        "wsi_pipeline.commands.tile:segment",
        (CohortOptions, QuPathOptions, TableOptions, SegmentSpec, TissueNetworks, TileExecution),
        _COHORT,
    ),
    Command(
        "tile",
        "segment tissue, tile it into patches, write one patch store per slide",
        "wsi-pipeline tile slides.csv --mpp 0.5 --patch-px 256",
        "wsi_pipeline.commands.tile:tile",
        (CohortOptions, QuPathOptions, TableOptions, SegmentSpec, TissueNetworks, TileSpec, TileExecution),
        _COHORT,
    ),
    Command(
        "tune",
        "tune a vision transformer on labelled patches; write the adapter and its scores on held-out groups",
        "wsi-pipeline tune crops --method pathotune",
        "wsi_pipeline.commands.tune:tune",
        (TuneSpec, LabelSpec, QuPathOptions, TableOptions, TuneExecution),
        ("LABELS", "class folders, a CSV, or a manifest with annotations (default: the labels of this run)"),
        single=True,
    ),
    Command(
        "stain",
        "measure each slide's stain; write a table, and a picture before and after normalisation",
        "wsi-pipeline stain --stain-norm macenko",
        "wsi_pipeline.commands.checks.stain_statistics:stain",
        (StainOptions,),
        stage=False,
    ),
    Command(
        "embed",
        "compute features of the patches with an encoder",
        "wsi-pipeline embed --model vit_small_patch16_224 --weights vit.safetensors",
        "wsi_pipeline.commands.embed:embed",
        (EmbedSpec, EmbedExecution),
    ),
    Command(
        "embed-slides",
        "pool the patch features of each slide into one vector",
        "wsi-pipeline embed-slides --model mean",
        "wsi_pipeline.commands.embed_slides:embed_slides",
        (EmbedSlidesSpec, EmbedSlidesExecution),
        stage=False,
    ),
    Command(
        "classify",
        "classify every patch with a tuned adapter; write class fractions, pictures and polygons",
        "wsi-pipeline classify --model pathotune",
        "wsi_pipeline.commands.classify:classify",
        (ClassifySpec, ClassifyExecution, QuPathOptions),
    ),
    Command(
        "train-mil",
        "train a slide-level model with patient-grouped cross-validation; write the report",
        "wsi-pipeline train-mil --folds 5",
        "wsi_pipeline.commands.train_mil:train_mil",
        (
            MilSpec,
            PromptSpec,
            ClinicalOptions,
            TableOptions,
            MilExecution,
            FeaturesFrom,
            LabelsOptions,
            TrainingOptions,
            QuPathOptions,
        ),
    ),
    Command(
        "predict",
        "apply a trained model to the slides of this run or to new ones",
        "wsi-pipeline predict new.csv --trained wsi-run/train-mil/colour/gated-abmil --run new-run",
        "wsi_pipeline.commands.predict:predict",
        (CohortOptions, QuPathOptions, ClinicalOptions, TableOptions, PredictOptions, FeaturesFrom, TileExecution),
        _COHORT,
    ),
    Command(
        "heatmap",
        "draw each slide's attention: pictures, a pyramidal TIFF, outlines for QuPath, a CSV of the values",
        "wsi-pipeline heatmap",
        "wsi_pipeline.commands.heatmap:heatmap",
        (HeatmapSpec, MilExecution, QuPathOptions),
    ),
    Command(
        "report",
        "write report.html: cohort, overlays, metrics and heatmaps in one file",
        "wsi-pipeline report",
        "wsi_pipeline.commands.report:report",
    ),
    Command(
        "run",
        "run all stages from one YAML file",
        "wsi-pipeline run cohort.yaml",
        "wsi_pipeline.commands.run:run",
        sources=(
            "YAML",
            "stages, options and run folder (its key `run`); see manifests/examples/cohort.yaml",
        ),
        needed=True,
        single=True,
        stage=False,
    ),
    Command(
        "view",
        "look at the slides of the run in a browser, mark them, tune on the marks",
        "wsi-pipeline view",
        "wsi_pipeline.commands.checks.view:view",
        (ViewOptions,),
        stage=False,
    ),
    Command(
        "compare",
        "compare two trained models on the same patients: differences with intervals, DeLong's test",
        "wsi-pipeline compare wsi-run/train-mil/colour/mean wsi-run/train-mil/pathotune/mean",
        "wsi_pipeline.commands.compare:compare",
        (CompareOptions,),
        ("RUN", "two run folders, or two folders from train-mil/ or predict/; one may be a CSV by another program"),
        needed=True,
        stage=False,
    ),
    Command(
        "similar",
        "list the slides nearest to one by slide embedding; score the labels of neighbours",
        "wsi-pipeline similar slide-017",
        "wsi_pipeline.commands.checks.similar:similar",
        (SimilarOptions, TableOptions),
        ("SLIDE_ID", "slides whose neighbours are listed (default: none, only the score)"),
        stage=False,
    ),
    Command(
        "robustness",
        "measure how far features move under blur, JPEG, stain and scanner changes, shifts and rotations",
        "wsi-pipeline robustness --model colour --model pathotune",
        "wsi_pipeline.commands.checks.robustness:robustness",
        (RobustnessOptions,),
        stage=False,
    ),
    Command(
        "export",
        "write patches, features or a trained model in the format of another tool",
        "wsi-pipeline export --to stamp",
        "wsi_pipeline.commands.exchange.export:export",
        (ExportOptions, QuPathOptions),
        stage=False,
    ),
    Command(
        "push",
        "upload a trained model with its model card to a Hugging Face repository",
        "wsi-pipeline push my-org/my-model --model wsi-run/train-mil/colour/gated-abmil",
        "wsi_pipeline.commands.exchange.push:push",
        (PushOptions,),
        ("ORG/NAME", "repository on the hub; created if it does not exist"),
        needed=True,
        single=True,
        stage=False,
    ),
    Command(
        "import",
        "import patch features or patch coordinates made by another tool",
        "wsi-pipeline import features features_uni_v1 --labels labels.csv",
        "wsi_pipeline.commands.exchange.import_files:import_files",
        (ImportOptions, CohortOptions, TableOptions),
        (
            "WHAT",
            "features or patches, then files or folders of TRIDENT, CLAM, STAMP, hs2p, AtlasPatch, LazySlide, ...",
        ),
        needed=True,
        stage=False,
    ),
    Command(
        "status",
        "show the progress of each stage and the slides that failed",
        "wsi-pipeline status",
        "wsi_pipeline.commands.status:status",
        stage=False,
    ),
    Command(
        "check",
        "read the manifest, open every slide, report problems before a long run",
        "wsi-pipeline check slides.csv",
        "wsi_pipeline.commands.check:check",
        (CheckOptions, CohortOptions, QuPathOptions, TableOptions, TileSpec),
        _COHORT,
        stage=False,
    ),
    Command(
        "encoders",
        "list the published patch and slide encoders; with a name, describe it and how to get its weights",
        "wsi-pipeline encoders uni",
        "wsi_pipeline.commands.checks.encoder_list:encoders",
        (EncodersOptions,),
        ("NAME", "encoders to describe (default: list all of them)"),
        stage=False,
    ),
    Command(
        "demo",
        "make a small cohort of synthetic slides to try the commands on",
        "wsi-pipeline demo demo-cohort",
        "wsi_pipeline.commands.demo:demo",
        sources=("FOLDER", "folder for the slides and slides.csv"),
        needed=True,
        single=True,
        stage=False,
    ),
)
"""All commands, in the order of use."""
