"""What is known of one slide when it is exported, and what an export format is."""

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
    """One slide of a run. What the run does not have is None; a format that needs it is not called then.

    features   of one encoder
    patches    the patch store that the features were computed from
    store      path of the patch store
    segment    tissue mask and thumbnail
    code       number of the slide's class, from 0; None without a label
    precision  float32 or float16: of the features that are written
    origin     level-0 pixel from which QuPath counts on this slide; None: (0, 0)
    most       patches that are written as pictures, evenly spread; 0: all
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
        """The table whose coordinates are exported: that of the features, where there are any."""
        found = self.features or self.patches
        if found is None:
            raise StoreError("neither features nor patches are there", slide=self.slide_id)
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
        """Features (N, D) in the precision asked for. Raises StoreError where float16 cannot hold them."""
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
        """Micrometres per level-0 pixel; None where they are not known."""
        found = self.header.slide.mpp
        return float(found) if found and found > 0 else None

    @property
    def side(self) -> int:
        """Level-0 pixels of a patch along each side.

        Raises StoreError where the store does not know where its patches lie, or how large they are.
        """
        unit = self.header.extra.get("imported", {}).get("coords", "level0")
        if unit != "level0" or self.geometry.patch_level0 <= 0:
            what = "how large patches are" if unit == "level0" else "where patches lie in the slide"
            raise StoreError(f"{what} is not known, and this format needs it", slide=self.slide_id)
        return self.geometry.patch_level0

    @cached_property
    def coverage(self) -> NDArray[np.float32] | None:
        """Part of each patch that is tissue (N,), where the patch store is there."""
        return None if self.patches is None else self.patches.grid.coverage

    @cached_property
    def patch_labels(self) -> tuple[NDArray[np.int64], tuple[str, ...]] | None:
        """Label of each patch (N,), -1 for none, and the names of the classes; None where nobody labelled them."""
        if self.patches is None or self.patches.labels is None:
            return None
        found = self.patches.labels
        return found.values.astype(np.int64), found.classes

    @cached_property
    def tissue(self) -> list[Polygon]:
        """Outlines of tissue in level-0 pixels; none where there is no mask."""
        return [] if self.segment is None else tissue_polygons(self.segment.mask)


@dataclass(frozen=True, eq=False)
class CohortContent:
    """All slides that are in an export, for the tables beside them.

    table     slide_id, patient_id, label, code, time, event, split; one row a slide
    classes   names of the classes in the order of `code`
    encoder   folder name of the encoder; "" where no features are exported
    dim       features of a patch; 0 where none are exported
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

    needs    `features`, or `patches` where coordinates and pixels suffice
    layout   the tool and its version whose layout is written
    write    writes one slide below a folder; returns the files
    finish   writes the tables of the cohort; returns what to do next, one line
    empty    whether slides without patches are written, too
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
