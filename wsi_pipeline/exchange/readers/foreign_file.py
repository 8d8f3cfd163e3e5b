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

REMAKE = "Copy the file again from where it was made, or make it again; or take it out of the folder."
"""What to do about a file that is damaged or cut short."""
NOT_FEATURES = "Name the folder of patch features, or take this file out of it."
"""What to do about a sound file that holds something else."""


@dataclass(frozen=True)
class Stated:
    """What a file says. None or "" where it says nothing: nothing is filled in.

    tool             who wrote it, as far as the layout shows
    version          of the tool
    encoder          name of the encoder
    patch_px         side of a patch as the encoder saw it, pixels
    patch_level0     the same in level-0 pixels
    overlap_px       of neighbouring patches, pixels at the patches' resolution
    mpp              of the patches, micrometres per pixel
    magnification    of the patches, nominal
    slide_mpp, slide_magnification, slide_width, slide_height   of level 0
    unit             of the coordinates: level-0 pixels or micrometres; of the top left corner
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
        """The fields that say something."""
        return {key: value for key, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True, eq=False)
class ForeignFile:
    """One slide in a file of another tool. Nothing large is read before it is asked for.

    name       what the file calls the slide, mostly its own name without the suffix
    rows       patches; dim: features of each, None where the file has coordinates only
    dtype      of the features, "" without
    features   reads them, (N, D) as they are stored
    coords     reads them, (N, 2) in `stated.unit`; None where the file has none
    coverage   reads the part of each patch that is tissue, (N,); None where it is not stated
    note       what people should know of the file
    named_by   whether the `file` or the `folder` it lies in states the encoder
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


def feature_shape(shape: tuple[int, ...], what: str) -> tuple[int, int]:
    """Rows and width of an array of features: (N, D), (1, N, D), or nothing at all.

    Raises ExchangeError for one vector (a slide embedding) and for other shapes.
    """
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if shape == (0,):
        return 0, 0
    if len(shape) == 1:
        raise ExchangeError(
            f"{what} is one vector of {shape[0]} values: an embedding of the whole slide, not of its patches",
            todo="Name the folder of patch features.",
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
    """Coordinates as (N, 2): (1, N, 2) and more columns behind x and y are understood. Raises ExchangeError else."""
    if rows.ndim == 3 and rows.shape[0] == 1:
        rows = rows[0]
    if rows.size == 0:
        return np.zeros((0, 2), np.int64)
    if rows.ndim != 2 or rows.shape[1] < 2 or rows.dtype.kind not in "iuf":
        raise ExchangeError(
            f"{what} is {rows.dtype} {rows.shape}: expected numbers, (patches, 2)",
            todo="Write x and y of each patch in level-0 pixels, one row a patch.",
        )
    return rows[:, :2]


def grid_spacing(coords: Rows) -> float:
    """The most common distance between neighbouring columns or rows of (N, 2); 0 where there is none."""
    steps = [np.diff(np.unique(np.asarray(coords[:, axis], np.float64))) for axis in (0, 1)]
    values, counts = np.unique(np.round(np.concatenate(steps)), return_counts=True)
    return float(values[np.argmax(counts)]) if len(values) else 0.0


def as_rows(features: Rows) -> Rows:
    """(1, N, D) as (N, D); float64 as float32, which must hold its values."""
    if features.ndim == 3:
        features = features[0]
    if features.ndim == 1:
        features = features.reshape(0, 0)
    if features.dtype == np.float64:
        with np.errstate(over="ignore"):
            return features.astype(np.float32)
    return features
