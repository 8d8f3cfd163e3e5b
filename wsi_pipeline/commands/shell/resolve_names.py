"""Names that specs cannot check, looked up before the first step: encoders, models to select among, stain targets."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from wsi_pipeline.commands.shell.sections import refuse_twice
from wsi_pipeline.config.execution import EmbedExecution
from wsi_pipeline.config.slide_options import EmbedSlidesExecution
from wsi_pipeline.config.specs import EmbedSlidesSpec, EmbedSpec, MilSpec
from wsi_pipeline.encoders.names import HUB_PREFIX, family_of, plan_encoder
from wsi_pipeline.encoders.slide_zoo.slide_facts import MEAN, find_slide_preset
from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.validation.choices import candidates
from wsi_pipeline.stages.inputs.stain_target import foresee_target


def foresee(options: Iterable[object]) -> None:
    """Look up the names in the options of all steps, without contacting a hub or needing results of earlier steps.

    Raises EncoderError or UsageError for an unknown name or a missing file, UsageError for an encoder given twice.
    """
    encoders, pooled, features = [], [], []
    for item in options:
        if isinstance(item, MilSpec):
            for candidate in candidates(item):
                MIL_MODELS.get(candidate.model)
        if isinstance(item, EmbedSpec):
            encoders.append(item.model)
            if family_of(item.model) in ("timm", "zoo") and not item.model.startswith(HUB_PREFIX):
                plan_encoder(item.model)
            if item.stain_norm != "none":
                foresee_target(item.stain_norm, item.stain_target)
        if isinstance(item, EmbedExecution) and item.weights and not Path(item.weights).exists():
            raise EncoderError(f"weights {item.weights} does not exist")
        if isinstance(item, EmbedSlidesSpec):
            pooled.append(item.trained or item.model)
            if item.trained is None and item.model != MEAN:
                find_slide_preset(item.model)
        if isinstance(item, EmbedSlidesExecution):
            features.append(item.features)
    refuse_twice(encoders)
    for pair in (pairs := list(zip(pooled, features, strict=True))):
        if pairs.count(pair) > 1:
            raise UsageError(f"embed-slides: {pair[0]} is given twice", todo="Give each slide encoder one section")
