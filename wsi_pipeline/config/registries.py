"""Names that can be chosen on the command line and in YAML, listed without importing their implementations."""

from __future__ import annotations

from typing import Any

from wsi_pipeline.registry import JoinedRegistry, Registry

TISSUE_DETECTORS: Registry[Any] = Registry(
    "tissue detector", ("hybrid", "density", "otsu", "none"), home="wsi_pipeline.tissue.detectors.methods"
)
TISSUE_NETWORKS: Registry[Any] = Registry(
    "tissue network", ("grandqc", "hest"), home="wsi_pipeline.tissue_networks.published"
)
TISSUE_METHODS = JoinedRegistry(TISSUE_DETECTORS, TISSUE_NETWORKS)
MIL_MODELS: Registry[Any] = Registry(
    "MIL model",
    ("gated-abmil", "abmil", "clam-sb", "dsmil", "transmil", "mean", "max", "linear"),
    home="wsi_pipeline.mil.models.zoo",
)
EVEN_MODELS = ("mean", "linear")
"""MIL models in which all patches of a slide count the same: there is no attention to show."""
EXPORT_FORMATS: Registry[Any] = Registry(
    "export format",
    ("trident", "clam", "stamp", "torchmil", "spatialdata", "anndata", "qupath", "png", "csv"),
    home="wsi_pipeline.exchange.writers.export_formats",
)
