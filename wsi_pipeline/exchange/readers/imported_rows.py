"""From a file of another tool to the rows and the header of one of our stores. Only stated values are written.

Unknown numbers (sizes, mpp) are 0, unknown texts "", unknown coordinates -1. `extra["imported"]` names the tool that
made the rows; its key `coords` is the unit of their coordinates: `level0` pixels, `micrometres`, or `none`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import ExchangeError
from wsi_pipeline.exchange.readers.foreign_file import REMAKE, ForeignFile, Rows, Stated, as_rows, grid_spacing
from wsi_pipeline.slides.slide_info import SlideInfo
from wsi_pipeline.store.schema import SlideIdentity
from wsi_pipeline.tiling.resolve import PatchGeometry, geometry_of_given
from wsi_pipeline.wording import counted

NOT_KNOWN = "not known"
_FAR = 1 << 40

OTHER_WIDTH = "Take it out of the folder, or recompute the features of this slide with the encoder of the others."
SAME_PATCHES = "Name features and coordinates from the same run of the tool."


@dataclass(frozen=True, eq=False)
class Placed:
    """Where the patches of one slide lie.

    coords   int64 (N, 2): top left corners in `frame`, or -1 where that is "none"
    frame    level0, micrometres or none
    note     anything unusual
    """

    coords: NDArray[np.int64]
    frame: str
    geometry: PatchGeometry
    note: str = ""


def check_features(file: ForeignFile, dim: int | None = None, others: str = "") -> Rows:
    """The features of a file, (N, D), finite, as float16 or float32.

    dim      expected features per patch
    others   words for the error: where `dim` comes from

    Raises ExchangeError naming the first invalid row.
    """
    if dim is not None and file.dim not in (dim, 0):
        raise ExchangeError(f"{file.path.name} has {file.dim} features per patch, not {dim}{others}", todo=OTHER_WIDTH)
    assert file.features is not None
    given = file.features()
    features = as_rows(given)
    bad = ~np.isfinite(features).all(axis=1)
    if bad.any():
        first = int(np.argmax(bad))
        where = f"{int(bad.sum())} of {counted(len(features), 'row')} of {file.path.name}"
        infinite = not np.isnan(features[first]).any()
        if infinite and given.dtype in (np.float16, np.float64):
            limit = "65504" if given.dtype == np.float16 else "3.4e38"
            raise ExchangeError(
                f"{where} hold infinity, the first is row {first}: the largest "
                f"{'float16' if limit == '65504' else 'float32'} is {limit}",
                todo="Recompute the features of this slide in float32.",
            )
        raise ExchangeError(
            f"{where} hold {'infinity' if infinite else 'NaN'}, the first is row {first}",
            todo="Recompute the features of this slide.",
        )
    return features


def place(
    file: ForeignFile, beside: ForeignFile | None, info: SlideInfo | None = None, slide_mpp: float | None = None
) -> Placed:
    """Where the rows of a file lie, by its own coordinates or those of the file `beside` it.

    info, slide_mpp   of the slide, if its file exists

    Raises ExchangeError if coordinates do not match the rows, each other, or the slide.
    """
    stated = joined_statement(file, beside)
    slide_mpp = slide_mpp or stated.slide_mpp
    coords, frame = _coords(file, beside, stated, slide_mpp)
    if len(coords) != file.rows:
        raise ExchangeError(
            f"{file.path.name} has {counted(file.rows, 'row')} of features, but {counted(len(coords), 'coordinate')}",
            todo=SAME_PATCHES,
        )
    geometry = _geometry(stated, coords, frame, info, slide_mpp)
    width, height = (info.size.width, info.size.height) if info else (stated.slide_width, stated.slide_height)
    if info and stated.slide_width and (stated.slide_width, stated.slide_height) != (width, height):
        raise ExchangeError(
            f"{file.path.name} belongs to a slide of {stated.slide_width} x {stated.slide_height} pixels, "
            f"this slide has {width} x {height}",
            todo="Check which slide these rows belong to.",
        )
    if frame == "level0" and width and height:
        _check_inside(coords, geometry.patch_level0, width, height, file.path.name)
    return Placed(coords, frame, geometry, _repeated(coords) if frame != "none" else "")


def settings_of(stated: Stated) -> dict[str, Any]:
    """Settings that all slides of one set share: the tool, and the requested size and resolution of patches."""
    return {
        "tool": stated.tool,
        "patch_px": stated.patch_px,
        "mpp": None if stated.mpp is None else round(float(stated.mpp), 6),
        "magnification": stated.magnification,
        "overlap_px": stated.overlap_px,
    }


def unknown_slide(slide_id: str, stated: Stated) -> SlideIdentity:
    """The identity of a slide whose file does not exist, as far as the imported file states it."""
    mpp = stated.slide_mpp or 0.0
    return SlideIdentity(
        slide_id, "", stated.slide_width or 0, stated.slide_height or 0, "", "", stated.slide_magnification, None, mpp,
        stated.tool if mpp else NOT_KNOWN, "",
    )  # fmt: skip


def joined_statement(file: ForeignFile, beside: ForeignFile | None) -> Stated:
    """What a file of features states, completed by the file of coordinates beside it."""
    own, other = file.stated, beside.stated if beside else None
    if other is None:
        return own
    unit = own.unit if file.coords is not None else other.unit
    return Stated(**{**other.known(), **own.known(), "unit": unit})


def _coords(
    file: ForeignFile, beside: ForeignFile | None, stated: Stated, slide_mpp: float | None
) -> tuple[NDArray[np.int64], str]:
    source = file if file.coords is not None else beside
    if source is None or source.coords is None:
        return np.full((file.rows, 2), -1, np.int64), "none"
    coords = np.asarray(source.coords(), np.float64)
    if file.coords is not None and beside is not None and beside.coords is not None:
        _check_same(coords, np.asarray(beside.coords(), np.float64), file, beside)
    bad = ~(np.abs(coords) < _FAR).all(axis=1) if len(coords) else np.zeros(0, bool)
    if bad.any():
        raise ExchangeError(
            f"{int(bad.sum())} of {len(coords)} coordinates of {source.path.name} are not valid numbers, "
            f"the first is row {int(np.argmax(bad))}",
            todo=REMAKE,
        )
    frame = "level0"
    if source.stated.unit == "micrometres":
        frame, coords = ("level0", coords / slide_mpp) if slide_mpp else ("micrometres", coords)
    return np.rint(coords).astype(np.int64), frame


def _check_same(own: Rows, other: Rows, file: ForeignFile, beside: ForeignFile) -> None:
    if file.stated.unit != beside.stated.unit:
        return
    if own.shape != other.shape:
        raise ExchangeError(
            f"{file.path.name} has {counted(len(own), 'row')}, {beside.path.name} has {len(other)}: "
            "not the same patches",
            todo=SAME_PATCHES,
        )
    if not np.array_equal(own, other):
        row = int(np.argmax((own != other).any(axis=1)))
        raise ExchangeError(
            f"the coordinates of {file.path.name} and {beside.path.name} differ, first in row {row}: "
            "not the same patches",
            todo=SAME_PATCHES,
        )


def _geometry(
    stated: Stated, coords: NDArray[np.int64], frame: str, info: SlideInfo | None, slide_mpp: float | None
) -> PatchGeometry:
    patch_px, side = stated.patch_px or 0, stated.patch_level0 or 0
    if frame == "micrometres":
        side = round(stated.patch_um or 0)
    elif stated.patch_um and slide_mpp:
        side = round(stated.patch_um / slide_mpp)
    elif not side and patch_px and stated.mpp and slide_mpp:
        side = round(patch_px * stated.mpp / slide_mpp)
    if side and patch_px and stated.overlap_px is not None:
        stride = round((patch_px - stated.overlap_px) * side / patch_px)
    else:
        stride = int(grid_spacing(coords)) if frame != "none" and len(coords) > 1 else 0
    if info is not None and slide_mpp and side and patch_px and frame == "level0":
        return geometry_of_given(patch_px, side, stride, info, slide_mpp)
    mpp = side * slide_mpp / patch_px if side and slide_mpp and patch_px and frame == "level0" else stated.mpp or 0.0
    return PatchGeometry(patch_px, side, stride, 0, side, float(mpp), bool(side and side != patch_px))


def _check_inside(coords: NDArray[np.int64], side: int, width: int, height: int, name: str) -> None:
    """Refuse patches that do not touch the slide; reaching past its edge is normal."""
    low = -max(side, 1)
    off = (coords <= low).any(axis=1) | (coords[:, 0] >= width) | (coords[:, 1] >= height)
    if not side:
        off |= (coords < 0).any(axis=1)
    if off.any():
        row = int(np.argmax(off))
        x, y = (int(value) for value in coords[row])
        raise ExchangeError(
            f"{int(off.sum())} of {counted(len(coords), 'patch')} of {name} lie off the slide of {width} x {height} "
            f"pixels, the first is row {row} at ({x}, {y})",
            todo="Check which slide these rows belong to, and that coordinates are in level-0 pixels.",
        )


def _repeated(coords: NDArray[np.int64]) -> str:
    twice = len(coords) - len(np.unique(coords, axis=0))
    return f"{twice} of {counted(len(coords), 'patch')} have the same coordinates as another" if twice else ""
