"""The content of one slide that an export can write, and the interface of an export format."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from shapely.geometry import Polygon

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import slug
from wsi_pipeline.config import registries
from wsi_pipeline.errors import StoreError
from wsi_pipeline.registry import Registry
from wsi_pipeline.store.schema import Header
from wsi_pipeline.store.tables.feature_table import FeatureTable
from wsi_pipeline.store.tables.patch_table import PatchTable
from wsi_pipeline.store.tables.segment_table import SegmentTable
from wsi_pipeline.tiling.resolve import PatchGeometry
from wsi_pipeline.tissue.contours import tissue_polygons


@dataclass(frozen=True, eq=False)
class SlideContent:
    """One slide of a run. What the run lacks is None; a format that needs it is then not called.

    features   of one encoder
    patches    the patch store that the features were computed from
    store      path of the patch store
    segment    tissue mask and thumbnail
    code       number of the slide's class, from 0; None without a label
    precision  of the written features: float32 or float16
    origin     level-0 pixel that QuPath calls (0, 0) on this slide; None: (0, 0)
    most       number of patches written as pictures, evenly spaced; 0: all
    """

    record: SlideRecord
    features: FeatureTable | None = None
    patches: PatchTable | None = None
    store: Path | None = None
    segment: SegmentTable | None = None
    code: int | None = None
    precision: str = "float32"
    origin: tuple[int, int] | None = None
    most: int = 0

    @property
    def slide_id(self) -> str:
        """Name of the slide in the cohort."""
        return self.record.slide_id

    @property
    def table(self) -> FeatureTable | PatchTable:
        """The table whose coordinates are exported: features if there are any, else patches."""
        found = self.features or self.patches
        if found is None:
            raise StoreError("there are neither features nor patches", slide=self.slide_id)
        return found

    @property
    def header(self) -> Header:
        """Root attributes of that table."""
        return self.table.header

    @property
    def geometry(self) -> PatchGeometry:
        """Geometry of the patches."""
        return self.table.geometry

    @property
    def coords(self) -> NDArray[np.int64]:
        """Level-0 top-left corners (N, 2)."""
        return self.table.coords if isinstance(self.table, FeatureTable) else self.table.grid.coords

    @property
    def matrix(self) -> NDArray[Any]:
        """Features (N, D) in `precision`. Raises StoreError if float16 cannot hold them."""
        if self.features is None:
            raise StoreError("there are no features", slide=self.slide_id)
        values = self.features.features
        found = values.astype(self.precision)
        if not np.isfinite(found).all():
            raise StoreError(
                f"features are beyond the range of {self.precision}", slide=self.slide_id, todo="Use --dtype float32"
            )
        return found

    @property
    def encoder(self) -> dict[str, Any]:
        """Identity of the encoder, as in the feature store."""
        return dict(self.header.extra.get("encoder", {}))

    @property
    def encoder_name(self) -> str:
        """Name of the encoder as a file name."""
        return slug(str(self.encoder.get("name", "features")))

    @property
    def mpp(self) -> float | None:
        """Micrometres per level-0 pixel; None if not known."""
        found = self.header.slide.mpp
        return float(found) if found and found > 0 else None

    @property
    def side(self) -> int:
        """Side of a patch in level-0 pixels.

        Raises StoreError if the position or size of the patches is not known.
        """
        unit = self.header.extra.get("imported", {}).get("coords", "level0")
        if unit != "level0" or self.geometry.patch_level0 <= 0:
            what = "how large patches are" if unit == "level0" else "where patches lie in the slide"
            raise StoreError(f"{what} is not known, but this format needs it", slide=self.slide_id)
        return self.geometry.patch_level0

    @cached_property
    def coverage(self) -> NDArray[np.float32] | None:
        """Tissue fraction of each patch (N,); None without a patch store."""
        return None if self.patches is None else self.patches.grid.coverage

    @cached_property
    def patch_labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        """Label of each patch (N,), -1 for none, and the names of the classes; None if patches are not labelled."""
        if self.patches is None or self.patches.labels is None:
            return None
        found = self.patches.labels
        return found.values.astype(np.int64), found.classes

    @cached_property
    def tissue(self) -> list[Polygon]:
        """Outlines of tissue in level-0 pixels; empty without a mask."""
        return [] if self.segment is None else tissue_polygons(self.segment.mask)


@dataclass(frozen=True, eq=False)
class CohortContent:
    """All slides of an export, for the tables beside them.

    table     slide_id, patient_id, label, code, time, event, split; one row per slide
    classes   names of the classes in the order of `code`
    encoder   folder name of the encoder; "" if no features are exported
    dim       features per patch; 0 if none are exported
    notes     sentences that `finish` adds for the user
    """

    table: pd.DataFrame
    classes: tuple[str, ...]
    encoder: str
    notes: list[str]
    dim: int = 0


@dataclass(frozen=True)
class ExportFormat:
    """How one tool's files are written.

    needs    `features`, or `patches` if coordinates and pixels suffice
    layout   tool and version whose layout is written
    write    writes one slide into a folder; returns the files
    finish   writes the tables of the cohort; returns one line on what to do next
    empty    whether slides without patches are written too
    labels   whether the files of a slide depend on its label
    """

    name: str
    needs: str
    layout: str
    write: Callable[[SlideContent, Path], Sequence[Path]]
    finish: Callable[[CohortContent, Path], str]
    empty: bool = False
    labels: bool = False


EXPORT_FORMATS: Registry[ExportFormat] = registries.EXPORT_FORMATS
