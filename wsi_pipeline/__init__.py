"""wsi-pipeline: from a CSV of whole-slide images to a trained slide-level model.

    import wsi_pipeline as wp

    slide = wp.open_slide("slide.svs")
    patches = wp.lay_patches(wp.find_tissue(slide), mpp=0.5, patch_px=256)
    features = wp.embed(slide, patches, wp.open_encoder("colour"))

    slides = wp.read_features("wsi-run", "colour")     # what the commands have written
    result = wp.cross_validate(slides, folds=5)
    model = wp.load_model("wsi-run/train-mil/colour/gated-abmil")
    model.predict(slides)

docs/python.md shows all of it. Names are looked up on first use, so that importing the package costs no import of
numpy or torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from wsi_pipeline import moved
from wsi_pipeline.version import __version__

if TYPE_CHECKING:
    from wsi_pipeline.api.find_tissue import Tissue, find_tissue
    from wsi_pipeline.api.foreign_files import import_features, import_patches
    from wsi_pipeline.api.measure_quality import measure_quality
    from wsi_pipeline.api.open_run import Run, open_run, read_features
    from wsi_pipeline.api.patches import Patches, embed, lay_patches, read_patches
    from wsi_pipeline.api.show_slides import view
    from wsi_pipeline.api.slide_models import TrainedModel, cross_validate, load_model
    from wsi_pipeline.api.slide_vectors import embed_slides, similar
    from wsi_pipeline.cohort.manifest import read_cohort
    from wsi_pipeline.encoders.encoder import Encoder
    from wsi_pipeline.encoders.names import open_encoder
    from wsi_pipeline.encoders.zoo.facts import Preset, list_encoders
    from wsi_pipeline.errors import WsiPipelineError
    from wsi_pipeline.mil.bags import Bags
    from wsi_pipeline.mil.validation.crossval import CrossValidation
    from wsi_pipeline.quality.patch_quality import PatchQuality
    from wsi_pipeline.slides.open import open_slide
    from wsi_pipeline.slides.slide import Slide
    from wsi_pipeline.stages.inputs.slide_bags import SlideBags
    from wsi_pipeline.store.tables.feature_table import FeatureTable

__all__ = [
    "Bags",
    "CrossValidation",
    "Encoder",
    "FeatureTable",
    "PatchQuality",
    "Patches",
    "Preset",
    "Run",
    "Slide",
    "SlideBags",
    "Tissue",
    "TrainedModel",
    "WsiPipelineError",
    "__version__",
    "cross_validate",
    "embed",
    "embed_slides",
    "find_tissue",
    "import_features",
    "import_patches",
    "lay_patches",
    "list_encoders",
    "load_model",
    "measure_quality",
    "open_encoder",
    "open_run",
    "open_slide",
    "read_cohort",
    "read_features",
    "read_patches",
    "similar",
    "view",
]

_PLACES = {
    "api.find_tissue": ("Tissue", "find_tissue"),
    "api.foreign_files": ("import_features", "import_patches"),
    "api.measure_quality": ("measure_quality",),
    "api.open_run": ("Run", "open_run", "read_features"),
    "api.patches": ("Patches", "embed", "lay_patches", "read_patches"),
    "api.show_slides": ("view",),
    "api.slide_models": ("TrainedModel", "cross_validate", "load_model"),
    "api.slide_vectors": ("embed_slides", "similar"),
    "cohort.manifest": ("read_cohort",),
    "encoders.encoder": ("Encoder",),
    "encoders.names": ("open_encoder",),
    "encoders.zoo.facts": ("Preset", "list_encoders"),
    "errors": ("WsiPipelineError",),
    "mil.bags": ("Bags",),
    "mil.validation.crossval": ("CrossValidation",),
    "quality.patch_quality": ("PatchQuality",),
    "slides.open": ("open_slide",),
    "slides.slide": ("Slide",),
    "stages.inputs.slide_bags": ("SlideBags",),
    "store.tables.feature_table": ("FeatureTable",),
}

moved.install()


def __getattr__(name: str) -> Any:
    for module, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"wsi_pipeline.{module}"), name)
    raise AttributeError(f"module 'wsi_pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
