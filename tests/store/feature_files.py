"""Feature stores with given rows, as real files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from wsi_pipeline.store.schema import FEATURE_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import write_features
from wsi_pipeline.tiling.resolve import PatchGeometry

GEOMETRY = PatchGeometry(patch_px=64, patch_level0=64, stride_level0=64, level=0, level_px=64, mpp=0.5, resampled=False)


def write_feature_store(path: Path, features: np.ndarray) -> None:
    """A store of one slide named after the file."""
    slide = SlideIdentity(path.stem, path.name, 640, 640, "v", "openslide", 20.0, 0.5, 0.5, "slide", "d")
    header = Header(FEATURE_FORMAT, "digest", "parent", slide, {"tile": {"overlap_px": 0, "mpp": 0.5}}, {})
    coords = np.stack([np.arange(len(features)) * 64, np.zeros(len(features))], axis=1).astype(np.int64)
    write_features(path, header, GEOMETRY, coords, features)
