"""The models there are. Import from here: it is what fills the registry; a new model is one file and one line."""

from wsi_pipeline.mil import abmil, clam, dsmil, max, mean, transmil
from wsi_pipeline.mil.contract import MIL_MODELS, MilModel, MilOutput, build_model

__all__ = ["MIL_MODELS", "MilModel", "MilOutput", "abmil", "build_model", "clam", "dsmil", "max", "mean", "transmil"]
