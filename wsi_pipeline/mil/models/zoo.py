"""The models there are. Import from here: it is what fills the registry; a new model is one file and one line."""

from wsi_pipeline.mil.models import abmil, clam, dsmil, transmil
from wsi_pipeline.mil.models import max_pooling as max
from wsi_pipeline.mil.models import mean_pooling as mean
from wsi_pipeline.mil.models.mil_model import MIL_MODELS, MilModel, MilOutput, build_model

__all__ = ["MIL_MODELS", "MilModel", "MilOutput", "abmil", "build_model", "clam", "dsmil", "max", "mean", "transmil"]
