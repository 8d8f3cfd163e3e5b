"""Names in a plan that specs cannot check, looked up before its first step: encoders, models to select among."""

from __future__ import annotations

from collections.abc import Iterable

from wsi_pipeline.commands.shell.sections import refuse_twice
from wsi_pipeline.config.specs import EmbedSpec, MilSpec
from wsi_pipeline.encoders.names import HUB_PREFIX, family_of, plan_encoder
from wsi_pipeline.mil.models.zoo import MIL_MODELS
from wsi_pipeline.mil.validation.choices import candidates


def foresee(options: Iterable[object]) -> None:
    """Look up the names in the options of all steps, without contacting a hub or needing results of earlier steps.

    Raises EncoderError or UsageError for an unknown name, UsageError for an encoder given twice.
    """
    encoders = []
    for item in options:
        if isinstance(item, MilSpec):
            for candidate in candidates(item):
                MIL_MODELS.get(candidate.model)
        if isinstance(item, EmbedSpec):
            encoders.append(item.model)
            if family_of(item.model) in ("timm", "zoo") and not item.model.startswith(HUB_PREFIX):
                plan_encoder(item.model)
    refuse_twice(encoders)
