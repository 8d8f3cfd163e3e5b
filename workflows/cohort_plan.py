"""From the workflow's configuration to what its rules need: chunks of slides and options of each command.

The configuration has the keys of `wsi-pipeline run` and a few more. All of it is checked before the first job
starts. Nothing here touches a slide; the rules do all work through the command line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cohort_chunks import Chunk, make_chunks, present
from cohort_options import Call, read_section

from wsi_pipeline.cohort.clinical.clinical_table import split_sheet
from wsi_pipeline.cohort.discover import at_home
from wsi_pipeline.cohort.manifest import read_cohort
from wsi_pipeline.cohort.run_dir import DEFAULT_RUN, RunDir, pooled_name, slug
from wsi_pipeline.config.execution import (
    ClinicalOptions,
    CohortOptions,
    EmbedExecution,
    MilExecution,
    PredictOptions,
    TuneExecution,
)
from wsi_pipeline.config.fields import digest_of, keys_of
from wsi_pipeline.config.slide_options import EmbedSlidesExecution
from wsi_pipeline.config.specs import ClassifySpec, EmbedSlidesSpec, EmbedSpec, TuneSpec
from wsi_pipeline.errors import UsageError

KEYS = (
    *("slides", "run", "labels", "chunk"),
    *("tile", "tune", "embed", "classify", "embed-slides", "train-mil", "predict"),
)


@dataclass(frozen=True)
class Plan:
    """A workflow's jobs. A stage that the configuration does not name is None (embed: empty) and left out.

    sources   as the command line takes them: a CSV, or folders and globs
    chunks    the slides of one job, by name
    labels    labelled patches for tune, as its command line takes them; none: the labels of these slides
    embed     one call per encoder, by its folder name
    pooled    one call of embed-slides per slide encoder, by its name
    """

    sources: tuple[str, ...]
    run: RunDir
    chunks: dict[str, Chunk]
    tile: Call
    tune: Call | None
    labels: tuple[str, ...]
    embed: dict[str, Call]
    classify: Call | None
    pooled: dict[str, Call]
    train_mil: Call | None
    predict: Call | None

    @property
    def trained(self) -> tuple[str, ...]:
        """Folder names of the encoders on whose features a model is trained."""
        if self.train_mil is None:
            return ()
        wanted = self.train_mil.get(MilExecution).features
        return (slug(wanted),) if wanted else tuple(self.embed)

    def pooled_of(self, slide_encoder: str) -> tuple[str, ...]:
        """Folder names of the encoders whose features a slide encoder pools."""
        wanted = self.pooled[slide_encoder].get(EmbedSlidesExecution).features
        return (slug(wanted),) if wanted else tuple(self.embed)

    def embeddings_for(self, trained: str) -> tuple[str, ...]:
        """The slide encoder behind the folder name of features, if these are slide embeddings."""
        return tuple(name for name in self.pooled if trained in self._embeddings(name))

    def _embeddings(self, slide_encoder: str) -> tuple[str, ...]:
        return tuple(pooled_name(encoder, slide_encoder) for encoder in self.pooled_of(slide_encoder))

    def pooling_files(self, slide_encoder: str) -> tuple[str, ...]:
        """Weights of a slide encoder, or the trained model whose attention it uses, where they are named and there."""
        call = self.pooled[slide_encoder]
        return present([call.get(EmbedSlidesExecution).weights, call.get(EmbedSlidesSpec).trained])

    @property
    def clinical(self) -> tuple[str, ...]:
        """The clinical table of train-mil, if one is named and there: models are trained again when it changes."""
        named = self.train_mil.get(ClinicalOptions).clinical if self.train_mil else None
        return present([str(split_sheet(named)[0])]) if named else ()

    def weights(self, encoder: str) -> tuple[str, ...]:
        """The encoder's local weights and adapter, where they are named and there."""
        return _network_files(self.embed[encoder])

    @property
    def classify_weights(self) -> tuple[str, ...]:
        """The classifier's adapter and its backbone's weights, where they are named and there."""
        return _network_files(self.classify) if self.classify else ()

    @property
    def labels_watched(self) -> str:
        """Digest of the names and times of the labels' CSV, or of their folder and those in it: `tune` runs again when
        it changes. A folder's time tells of files that came or went; class names need not suit snakemake.
        """
        found = [Path(name) for name in self.labels]
        inside = [item for path in found if path.is_dir() for item in sorted(path.rglob("*/"))]
        times = {str(path): path.stat().st_mtime_ns for path in (*found, *inside) if path.exists()}
        return digest_of(labels=self.labels, times=times)

    @property
    def tune_weights(self) -> tuple[str, ...]:
        """The weights that are tuned, where they are named and there."""
        return present([self.tune.get(TuneExecution).weights]) if self.tune else ()

    def needs_cohort(self, encoder: str) -> bool:
        """Whether an encoder's patches are given the stain of a slide of the cohort, which may be in any chunk."""
        spec = self.embed[encoder].get(EmbedSpec)
        return spec.stain_norm != "none" and not Path(spec.stain_target).is_file()

    def waits_for_tune(self, encoder: str) -> bool:
        """Whether an encoder is made by the tuning of this workflow."""
        return self._tunes(self.embed[encoder].get(EmbedSpec).model)

    @property
    def classify_waits_for_tune(self) -> bool:
        """Whether the classifier is made by the tuning of this workflow."""
        return self.classify is not None and self._tunes(self.classify.get(ClassifySpec).model)

    def _tunes(self, model: str) -> bool:
        if self.tune is None:
            return False
        name = self.tune.get(TuneExecution).name or self.tune.get(TuneSpec).method
        return model == f"pathotune:{name}" or (model == "pathotune" and name == "pathotune")

    @property
    def foreign_model(self) -> str | None:
        """The folder of the trained model that `predict` is told to apply."""
        return self.predict.get(PredictOptions).trained if self.predict else None


def make_plan(config: Mapping[str, Any]) -> Plan:
    """Check a configuration and read its manifest.

    Raises UsageError for unknown keys and impossible values, ManifestError with every fault of the CSV.
    """
    config = {name: config[key] for name, key in keys_of(config, KEYS, "configuration").items()}
    _check_keys(config)
    tile = read_section("tile", config.get("tile"))
    sources = tuple(at_home(str(item)) for item in _as_list(config["slides"]))
    given = tile.get(CohortOptions)
    cohort = read_cohort(sources, mixed_labels=given.mixed_labels, label_column=given.label_column)
    plan = Plan(
        sources=sources,
        run=RunDir(Path(at_home(str(config.get("run") or DEFAULT_RUN)))),
        chunks=make_chunks(cohort, config.get("chunk", 1)),
        tile=tile,
        tune=read_section("tune", config["tune"]) if "tune" in config else None,
        labels=tuple(str(item) for item in _as_list(config.get("labels") or [])),
        embed=_encoders(config["embed"]) if "embed" in config else {},
        classify=read_section("classify", config["classify"]) if "classify" in config else None,
        pooled=_slide_encoders(config["embed-slides"]) if "embed-slides" in config else {},
        train_mil=read_section("train-mil", config["train-mil"]) if "train-mil" in config else None,
        predict=read_section("predict", config["predict"]) if "predict" in config else None,
    )
    _check_order(plan)
    return plan


def _network_files(call: Call) -> tuple[str, ...]:
    execution = call.get(EmbedExecution)
    return present([execution.weights, execution.adapter])


def _check_keys(config: Mapping[str, Any]) -> None:
    if not config.get("slides"):
        raise UsageError(
            "configuration: the key `slides` is missing",
            todo="Name a configuration with --configfile; workflows/config/config.yaml is one to start from",
        )


def _check_order(plan: Plan) -> None:
    if plan.labels and not plan.tune:
        raise UsageError("configuration: `labels` needs a section `tune`", todo="Add a section `tune`")
    if (plan.train_mil or plan.predict or plan.pooled) and not plan.embed:
        raise UsageError(
            "configuration: embed-slides, train-mil and predict need features", todo="Add a section `embed`"
        )
    computed = (*plan.embed, *(name for key in plan.pooled for name in plan._embeddings(key)))
    pooled = {name for key in plan.pooled for name in plan.pooled_of(key)}
    for command, wanted, known in (("embed-slides", pooled, plan.embed), ("train-mil", plan.trained, computed)):
        strange = sorted(set(wanted) - set(known))
        if strange:
            raise UsageError(
                f"configuration, {command}: no features of {strange[0]} are computed",
                todo=f"Features exist for: {', '.join(known)}",
            )
    if plan.predict and not plan.train_mil and not plan.foreign_model:
        raise UsageError("configuration, predict: no model is trained here", todo="Name one with `trained: FOLDER`")


def _encoders(sections: Any) -> dict[str, Call]:
    calls = [read_section("embed", section) for section in _as_list(sections)]
    named = {slug(call.get(EmbedSpec).model): call for call in calls}
    if len(named) < len(calls):
        raise UsageError("configuration, embed: an encoder is given twice", todo="Give each encoder one section")
    return named


def _slide_encoders(sections: Any) -> dict[str, Call]:
    calls = [read_section("embed-slides", section) for section in _as_list(sections)]
    named = {_slide_encoder(call.get(EmbedSlidesSpec)): call for call in calls}
    if len(named) < len(calls):
        raise UsageError("configuration, embed-slides: a slide encoder is given twice", todo="Give each one section")
    return named


def _slide_encoder(spec: EmbedSlidesSpec) -> str:
    """The name of a slide encoder in those of its embeddings."""
    return slug(spec.model if spec.trained is None else f"trained.{Path(spec.trained).name}")


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
