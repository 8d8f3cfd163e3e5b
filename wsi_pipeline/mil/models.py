"""The models there are. Import from here: it is what fills the registry; a new model is one file and one line."""

from wsi_pipeline.mil.abmil import GatedAbmil
from wsi_pipeline.mil.contract import MIL_MODELS, MilModel, MilOutput, build_model
from wsi_pipeline.mil.mean import MeanPooling

__all__ = ["MIL_MODELS", "GatedAbmil", "MeanPooling", "MilModel", "MilOutput", "build_model"]
