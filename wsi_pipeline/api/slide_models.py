"""`wp.cross_validate`, `wp.load_model`: validate slide-level models, and apply trained ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from wsi_pipeline.config.fields import from_mapping
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, UsageError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained import novelty
from wsi_pipeline.mil.trained.checkpoint import Ensemble, load_ensemble
from wsi_pipeline.mil.trained.inference import mean_attention
from wsi_pipeline.mil.validation.crossval import CrossValidation, TrainingProgress, cross_validate_bags
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.stages.predict import check_patches, cut_of, predicted_columns, predicted_table
from wsi_pipeline.stages.results.trainings import read_training
from wsi_pipeline.store.tables.feature_table import FeatureTable
from wsi_pipeline.system.device import choose_device
from wsi_pipeline.wording import counted

Features = NDArray[np.floating[Any]] | FeatureTable | Bags | SlideBags
"""Features of one slide: an array (N, D) or a FeatureTable. Features of several: Bags, or the SlideBags of a run."""


def cross_validate(
    bags: Bags | SlideBags,
    table: pd.DataFrame | None = None,
    *,
    device: str = "auto",
    progress: Callable[[TrainingProgress], None] | None = None,
    **settings: Any,
) -> CrossValidation:
    """Cross-validate a slide-level model; no patient is in two folds, and no choice depends on the test fold.

    bags       from `read_features(run, encoder)`, whose own table is used; or Bags, with a table
    table      columns slide_id, patient_id and the outcome (label; time, event); optionally split, site
    settings   the options of `wsi-pipeline train-mil` for model, task, validation and training: folds=5, epochs=60

    Nothing is written. Raises MilError if no sound validation is possible, UsageError for an unknown setting.
    """
    spec = from_mapping(MilSpec, settings, "cross_validate")
    if isinstance(bags, SlideBags) and table is None:
        slides = bags.for_training(spec)
        bags, table = slides.bags, slides.table
    if table is None:
        raise UsageError("cross_validate needs a table of outcomes beside Bags", todo="Pass it as the second argument")
    plain = bags.bags if isinstance(bags, SlideBags) else bags
    return cross_validate_bags(plain, table, spec, device=choose_device(device), progress=progress)


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A slide-level model trained by `wsi-pipeline train-mil`: the models of all folds together.

    folder     the folder of the model
    ensemble   the models of the folds, and the settings they were trained with
    """

    folder: Path
    ensemble: Ensemble
    known: novelty.Novelty | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes; empty if a number or survival is predicted."""
        return self.ensemble.classes

    @property
    def metrics(self) -> dict[str, Any]:
        """The cross-validated metrics, as in metrics.json; empty without that file."""
        training = read_training(self.folder)
        return training.metrics if training else {}

    def predict(self, features: Features, *, device: str = "auto") -> pd.DataFrame:
        """One row per slide (or patient, if the model was trained on patients), as `wsi-pipeline predict` writes it.

        Raises MilError if the features come from another encoder or from other patches than the model was trained on.
        An array and Bags do not name their encoder: only their width is checked.
        """
        cut = cut_of(self.folder, self.ensemble)
        if isinstance(features, SlideBags):
            slides = self._bags_of(features)
            return predicted_table(slides, self.ensemble, device, self.known, cut, self.folder)
        return predicted_columns(self._plain(features), self.ensemble, device, self.known, cut)

    @overload
    def attention(
        self, features: NDArray[np.floating[Any]] | FeatureTable, *, device: str = "auto"
    ) -> NDArray[np.float32]: ...

    @overload
    def attention(self, features: Bags | SlideBags, *, device: str = "auto") -> dict[str, NDArray[np.float32]]: ...

    def attention(
        self, features: Features, *, device: str = "auto"
    ) -> NDArray[np.float32] | dict[str, NDArray[np.float32]]:
        """Attention of each patch, float32 (N,): the mean over the folds; it sums to 1 within a bag.

        For several slides: slide_id -> attention. If bags are patients, the sum over all slides of a patient is 1.
        Raises MilError as `predict` does.
        """
        if not isinstance(features, SlideBags):
            values = self._attention(self._plain(features), device)
            return values if isinstance(features, Bags) else next(iter(values.values()))
        slides = self._bags_of(features)
        self.ensemble.check_encoder(slides.encoder)
        check_patches(slides.specs, self.ensemble)
        values = self._attention(slides.bags, device)
        if not slides.parts:
            return values
        bags = zip(slides.bags.slide_ids, slides.parts, strict=True)
        return {part.slide_id: values[bag][part.start : part.stop] for bag, parts in bags for part in parts}

    def _attention(self, bags: Bags, device: str) -> dict[str, NDArray[np.float32]]:
        values = mean_attention(self.ensemble, bags, device=choose_device(device))
        return {name: values[bags.rows(index)] for index, name in enumerate(bags.slide_ids)}

    def _bags_of(self, slides: SlideBags) -> SlideBags:
        return slides.by_patient(refuse=False) if self.ensemble.spec.bag == "patient" else slides

    def _plain(self, features: NDArray[np.floating[Any]] | FeatureTable | Bags) -> Bags:
        if isinstance(features, FeatureTable):
            self.ensemble.check_encoder(features.header.extra["encoder"])
            check_patches(features.header.specs, self.ensemble)
            bags = Bags.from_arrays([features.features], [features.header.slide.slide_id])
        else:
            bags = features if isinstance(features, Bags) else Bags.from_arrays([np.asarray(features)], ["slide"])
        if bags.dim != self.ensemble.feature_dim:
            raise MilError(
                f"the model takes {self.ensemble.feature_dim} features per patch, got {bags.dim}",
                todo=f"Embed with {self.ensemble.encoder['name']}.",
            )
        if (bags.lengths == 0).any():
            raise MilError("a slide without patches cannot be predicted", todo="Leave slides without tissue out.")
        return bags

    def __repr__(self) -> str:
        ensemble = self.ensemble
        classes = f" of {', '.join(self.classes)}" if self.classes else ""
        what = f"{ensemble.spec.model} on {ensemble.encoder['name']}, {ensemble.task.name}{classes}"
        return f"<TrainedModel {self.folder.name}: {what}; {counted(len(ensemble.models), 'fold')}>"


def load_model(folder: str | PathLike[str]) -> TrainedModel:
    """The model in a folder such as `wsi-run/train-mil/colour/gated-abmil`.

    Raises StoreError for files that are missing or damaged.
    """
    return TrainedModel(Path(folder), load_ensemble(folder), novelty.load(folder))
