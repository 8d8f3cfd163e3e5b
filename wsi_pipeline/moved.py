"""Modules that scripts written before version 0.2 import, under the names they had then.

docs/adr/0013-the-layout.md says why modules moved. An old name still works, with a warning that gives the new one.
Only what scripts had a reason to import is here. Nothing in this package imports an old name.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES: dict[str, tuple[str, ...]] = {
    "atomic": ("system.atomic",),
    "cohort.locks": ("system.locks",),
    "cohort.rundir": ("cohort.run_dir",),
    "cohort.splits": ("splits.assign",),
    "cohort.status": ("cohort.slide_status",),
    "cohort.wording": ("wording",),
    "encoders.base": ("encoders.encoder",),
    "encoders.device": ("system.device",),
    "encoders.huggingface": ("encoders.hf_models.plan_hf", "encoders.hf_models.hf_network"),
    "encoders.pathology": ("encoders.zoo.facts",),
    "encoders.registry": ("encoders.names",),
    "encoders.timm": ("encoders.timm_models.plan_timm", "encoders.timm_models.timm_network"),
    "execution": ("config.execution",),
    "fields": ("config.fields",),
    "labelled.annotation": ("labelled.sources.annotation_files",),
    "labelled.open": ("labelled.open_labelled",),
    "labelled.patches": ("labelled.labelled_patches",),
    "labelled.split": ("labelled.splits.patch_split",),
    "machine": ("system.machine",),
    "mil.bootstrap": ("statistics.bootstrap",),
    "mil.calibration": ("statistics.calibration",),
    "mil.checkpoint": ("mil.trained.checkpoint",),
    "mil.compare": ("mil.validation.paired",),
    "mil.crossval": ("mil.validation.crossval",),
    "mil.delong": ("statistics.delong",),
    "mil.metrics": ("statistics.class_metrics", "statistics.estimates"),
    "mil.predict": ("mil.trained.inference",),
    "mil.tasks.cox": ("mil.tasks.survival",),
    "mil.tasks.discrete": ("mil.tasks.survival",),
    "mil.tasks.outcome": ("mil.tasks.survival",),
    "mil.trained.ensemble": ("mil.trained.inference",),
    "reading.cohort": ("reading.read_ahead",),
    "reading.patches": ("reading.patch_reader",),
    "reading.sources": ("reading.patch_sources",),
    "report.html": ("report.page.html",),
    "slides.array": ("slides.backends.array",),
    "slides.base": ("slides.slide", "slides.slide_info", "images.white"),
    "slides.identity": ("slides.inspect.identity",),
    "slides.openslide": ("slides.backends.openslide", "slides.inspect.vendor"),
    "slides.shrink": ("images.shrink",),
    "slides.sniff": ("slides.inspect.sniff",),
    "slides.tiffslide": ("slides.backends.tiffslide",),
    "specs": ("config.specs",),
    "stages.bags": ("stages.inputs.slide_bags",),
    "stages.runner": ("stages.engine.runner",),
    "store.base": ("store.store",),
    "store.classes": ("store.tables.class_table",),
    "store.cohort_features": ("store.tables.cohort_features",),
    "store.features": ("store.tables.feature_table",),
    "store.labels": ("store.tables.patch_labels",),
    "store.patches": ("store.tables.patch_table",),
    "store.segments": ("store.tables.segment_table",),
    "tissue.segment": ("tissue.segmentation",),
    "units": ("config.units",),
}
"""Old module -> where its names are now, looked through in this order."""

NAMES = {
    "cross_validate": "cross_validate_bags",
    "read_classes": "read_class_table",
    "read_features": "read_feature_table",
    "read_patches": "read_patch_table",
    "read_segment": "read_segment_table",
}
"""Names that changed with their module."""

_PACKAGE = __package__


class _Finder(MetaPathFinder):
    """Finds the modules of `MODULES`; Python asks it last, for what it finds nowhere else."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        """Of an old module name of ours; None for any other."""
        old = name.removeprefix(f"{_PACKAGE}.")
        return ModuleSpec(name, _Loader()) if name != old and old in MODULES else None


class _Loader(Loader):
    """Makes a module that hands on every name from where it is now."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The module, with a warning that says the new name."""
        places = [f"{_PACKAGE}.{place}" for place in MODULES[spec.name.removeprefix(f"{_PACKAGE}.")]]
        warnings.warn(f"{spec.name} has moved: import {places[0]}", DeprecationWarning, stacklevel=2)
        return _OldModule(spec.name, places)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is left to run."""


class _OldModule(ModuleType):
    def __init__(self, name: str, places: Sequence[str]) -> None:
        super().__init__(name)
        self._places = places

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for place in self._places:
            module = importlib.import_module(place)
            for known in (name, NAMES.get(name, name), name.removeprefix("_")):
                if hasattr(module, known):
                    return getattr(module, known)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}; it is now {self._places[0]}")


def install() -> None:
    """Let old module names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
