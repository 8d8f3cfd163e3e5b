"""All MIL models. Import from here, so that the registry is filled; a new model is one file and one line here."""

from wsi_pipeline.mil.models import abmil, clam, dsmil, linear, pooling, transmil
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilModel, MilOutput, build_model

__all__ = [
    "MIL_MODELS",
    "MilModel",
    "MilOutput",
    "abmil",
    "build_model",
    "clam",
    "dsmil",
    "linear",
    "pooling",
    "transmil",
]
