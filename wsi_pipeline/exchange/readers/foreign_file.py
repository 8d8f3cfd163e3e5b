"""One slide's features or coordinates in a file of another tool, and what that file states about them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ExchangeError

Unit = Literal["level0", "micrometres"]
Rows = NDArray[Any]

REMAKE = "Copy the file again from its source, recreate it, or take it out of the folder."
"""What to do about a file that is damaged or cut short."""
NOT_FEATURES = "Name the folder of patch features, or take this file out of it."
"""What to do about an intact file that holds something else."""


@dataclass(frozen=True)
class Stated:
    """What a file states. None or "" for what it does not state; nothing is guessed.

    tool             that wrote it, as far as the layout shows
    version          of the tool
    encoder          name of the encoder
    patch_px         side of a patch as the encoder saw it, pixels
    patch_level0     the same in level-0 pixels
    overlap_px       of neighbouring patches, pixels at the patches' resolution
    mpp              of the patches, micrometres per pixel
    magnification    of the patches, nominal
    slide_mpp, slide_magnification, slide_width, slide_height   of level 0
    unit             of the coordinates (top left corners): level-0 pixels or micrometres
    patch_um         side of a patch, micrometres
    """

    tool: str
    version: str = ""
    encoder: str = ""
    patch_px: int | None = None
    patch_level0: int | None = None
    overlap_px: int | None = None
    mpp: float | None = None
    magnification: float | None = None
    slide_mpp: float | None = None
    slide_magnification: float | None = None
    slide_width: int | None = None
    slide_height: int | None = None
    unit: Unit = "level0"
    patch_um: float | None = None

    def known(self) -> dict[str, Any]:
        """The fields that the file states."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True, eq=False)
class ForeignFile:
    """One slide in a file of another tool. Large arrays are read only on request.

    name       of the slide according to the file, mostly the file's own name without the suffix
    rows       number of patches
    dim        features per patch, None if the file has coordinates only
    dtype      of the features, "" if there are none
    features   reads the features, (N, D) as stored
    coords     reads the coordinates, (N, 2) in `stated.unit`; None if the file has none
    coverage   reads the tissue fraction of each patch, (N,); None if not stated
    note       what the user should know about the file
    named_by   whether the `file` or the `folder` it lies in states the encoder
    pools      of a slide embedding (one row), the number of patches it pools, 0 if not stated; None: rows are patches
    """

    path: Path
    name: str
    stated: Stated
    rows: int
    dim: int | None = None
    dtype: str = ""
    features: Callable[[], Rows] | None = None
    coords: Callable[[], Rows] | None = None
    coverage: Callable[[], Rows] | None = None
    note: str = ""
    named_by: str = "file"
    pools: int | None = None


def feature_shape(shape: tuple[int, ...], what: str) -> tuple[int, int]:
    """Rows and width of an array of features of shape (N, D), (1, N, D), or (0,).

    Raises ExchangeError for one vector (a slide embedding) and for other shapes.
    """
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if shape == (0,):
        return 0, 0
    if len(shape) == 1:
        raise ExchangeError(
            f"{what} is one vector of {shape[0]} values: an embedding of the whole slide, not of its patches",
            todo="Import the patch features, then pool them here: wsi-pipeline embed-slides. "
            "Slide embeddings are imported only from TRIDENT's folders, such as slide_features_titan: others do not "
            "state which patch features they pool.",
        )
    if len(shape) != 2:
        raise ExchangeError(f"{what} is of shape {shape}: expected (patches, features)", todo=NOT_FEATURES)
    return shape[0], shape[1]


def check_floating(dtype: np.dtype[Any] | str, what: str) -> str:
    """Name of a floating point type. Raises ExchangeError for another."""
    name = str(dtype)
    if name not in ("float16", "float32", "float64", "bfloat16"):
        raise ExchangeError(f"{what} is {name}: expected floating point features", todo=NOT_FEATURES)
    return name


def two_columns(rows: Rows, what: str) -> Rows:
    """Coordinates as (N, 2); also accepts (1, N, 2) and more columns after x and y. Raises ExchangeError otherwise."""
    if rows.ndim == 3 and rows.shape[0] == 1:
        rows = rows[0]
    if rows.size == 0:
        return np.zeros((0, 2), np.int64)
    if rows.ndim != 2 or rows.shape[1] < 2 or rows.dtype.kind not in "iuf":
        raise ExchangeError(
            f"{what} is {rows.dtype} {rows.shape}: expected numbers, (patches, 2)",
            todo="Write x and y of each patch in level-0 pixels, one row per patch.",
        )
    return rows[:, :2]


def grid_spacing(coords: Rows) -> float:
    """The most common distance between neighbouring columns or rows of (N, 2); 0 if there are no neighbours."""
    steps = [np.diff(np.unique(np.asarray(coords[:, axis], np.float64))) for axis in (0, 1)]
    values, counts = np.unique(np.round(np.concatenate(steps)), return_counts=True)
    return float(values[np.argmax(counts)]) if len(values) else 0.0


def as_rows(features: Rows) -> Rows:
    """(1, N, D) as (N, D); float64 as float32, which must be able to hold the values."""
    if features.ndim == 3:
        features = features[0]
    if features.ndim == 1:
        features = features.reshape(0, 0)
    if features.dtype == np.float64:
        with np.errstate(over="ignore"):
            return features.astype(np.float32)
    return features
