"""A tissue mask supplied by the user, as GeoJSON outlines or a picture, used instead of a detector.

GeoJSON of QuPath, TRIDENT, LazySlide or this program, plain or gzipped: every area is tissue, except
QuPath's ignored classes (`Ignore*`) and detected objects. A picture is a mask of the whole slide, or of its bounds, in
any scale that keeps their shape.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from shapely.affinity import scale as scaled
from shapely.affinity import translate
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry
from skimage.draw import polygon as inside_polygon

from wsi_pipeline.errors import SlideError, UsageError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.slide_info import SlideInfo, check_upright
from wsi_pipeline.tissue.detectors.methods import SEGMENTERS
from wsi_pipeline.tissue.geojson import enclosed_area, from_geojson, is_of_qupath, origin_in
from wsi_pipeline.tissue.mask import TissueMask
from wsi_pipeline.tissue.own.mask_picture import place_picture, read_mask_picture
from wsi_pipeline.tissue.own.plain_file import read_plain
from wsi_pipeline.tissue.own.scaled_picture import place_scaled
from wsi_pipeline.tissue.segmentation import Segmentation

MAX_BYTES = 256 << 20
MOST_OFF, NOTED_OFF = 0.5, 0.02
"""Fraction of the outlines outside the slide above which they are refused, and above which it is noted."""
MOSTLY_GLASS = 0.1
"""A note is made if the detector finds less than this fraction of the given tissue."""
BAD_OVERLAP, GOOD_OVERLAP, _SAME_UNIT = 0.3, 0.7, 0.1
"""Outlines are refused as micrometres if their intersection over union with the detected tissue is below the first as
pixels, and above the second as micrometres; not within `_SAME_UNIT` of one micrometre per pixel."""
_OUTLINES = (".geojson", ".json")
_OBJECTS = ("annotation", "tile", "root")


def tissue_digest(path: Path, no_crop: bool, own_mpp: float | None = None) -> str:
    """SHA-256 (hex) of a tissue file, the origin of its coordinates and its scale, if stated.

    Raises SlideError if it is not there.
    """
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256")
    except OSError as error:
        raise _missing(path, error) from None
    found.update(b"no crop" if no_crop else b"")
    found.update(b"" if own_mpp is None else f"mpp {own_mpp}".encode())
    return found.hexdigest()


def given_tissue(
    path: Path,
    info: SlideInfo,
    mpp: float,
    mask_mpp: float,
    picture: NDArray[np.uint8],
    *,
    no_crop: bool = False,
    own_mpp: float | None = None,
) -> Segmentation:
    """The tissue described by a file, as a mask of the slide.

    mpp        micrometres per level-0 pixel; mask_mpp: of the mask's pixels
    picture    uint8 (h, w, 3) of the whole slide, to check that the mask belongs to it
    no_crop    outlines of QuPath count from the corner of the whole slide, not of its bounds
    own_mpp    micrometres per pixel of a mask picture, if stated; else it must span the slide

    Raises SlideError if the file cannot be read or does not fit the slide.
    """
    check_upright(info, "tissue file")
    try:
        raw = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise _missing(path, error) from None
    except UsageError as error:
        raise SlideError(f"tissue file {path.name}: {error.what}", todo=_TODO) from None
    if raw.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] in (b"{", b"["):
        if own_mpp is not None:
            raise SlideError(
                f"tissue_mpp is for masks, and {path.name} is GeoJSON, whose coordinates are level-0 pixels",
                todo="Leave tissue_mpp empty for outlines.",
            )
        area, note = _outlines(raw, path, info, no_crop)
        pixels = _filled(area, info.size, _mask_size(info.size, mpp, mask_mpp))
        _refuse_micrometres(area, info.size, mpp, picture, path.name)
        note = note or ("" if pixels.any() else f"the outlines of {path.name} are smaller than a pixel of the mask")
    else:
        marked = read_mask_picture(path)
        bounds = None if no_crop else info.bounds
        size, note = _mask_size(info.size, mpp, mask_mpp), ""
        if own_mpp is None:
            pixels = place_picture(marked, path.name, info.size, bounds, size)
        else:
            pixels, off = place_scaled(marked, path.name, info.size, bounds, size, own_mpp / mpp)
            note = _off_note(off, path.name, own_mpp)
        note = note or ("" if pixels.any() else f"the mask {path.name} is empty")
    mask = TissueMask(pixels, info.size, mpp)
    return Segmentation(mask, note or _glass_note(mask, picture, path.name))


def _off_note(off: float, name: str, own_mpp: float) -> str:
    """A sentence if much of a mask lies off the slide; raises SlideError if most of it does."""
    if off > MOST_OFF:
        raise SlideError(
            f"{off:.0%} of the marked area of mask {name} lies off the slide at {own_mpp:g} micrometres per pixel",
            todo="Check the column tissue_mpp, and that the mask belongs to this slide.",
        )
    return f"{off:.0%} of the marked area of mask {name} lies off the slide" if off > NOTED_OFF else ""


_TODO = "Give a GeoJSON file of outlines, or a PNG mask of the whole slide."


def _missing(path: Path, error: OSError) -> SlideError:
    return SlideError(
        f"tissue file {path}: {error.strerror or error}", todo="Check the column tissue, or leave it empty."
    )


def _outlines(raw: bytes, path: Path, info: SlideInfo, no_crop: bool) -> tuple[BaseGeometry, str]:
    """The area of all outlines on the slide, and a note if part of it lies outside."""
    try:
        document = json.loads(raw.decode("utf-8-sig"))
        polygons = from_geojson(_areal(document))
    except (ValueError, RecursionError, UsageError) as error:
        what = error.what if isinstance(error, UsageError) else str(error)
        raise SlideError(f"tissue file {path.name} is not a readable GeoJSON: {what}", todo=_TODO) from None
    stated = origin_in(document)
    bounds = info.origin if is_of_qupath(document) and not no_crop else (0, 0)
    x, y = bounds if stated is None else stated
    area = translate(shapely.union_all([enclosed_area(polygon) for polygon in polygons]), x, y)
    if not polygons or area.is_empty or not np.isfinite(area.bounds).all():
        raise SlideError(f"tissue file {path.name} contains no area", todo=_TODO)
    slide = shapely.box(0, 0, info.size.width, info.size.height)
    inner = shapely.intersection(area, slide)
    off = 1 - inner.area / area.area if area.area else 1.0
    if off > MOST_OFF:
        left, top, right, bottom = area.bounds
        raise SlideError(
            f"the outlines of {path.name} lie outside the slide: x {left:.0f} to {right:.0f}, y {top:.0f} to "
            f"{bottom:.0f} of {info.size.width} x {info.size.height} pixels",
            todo="Coordinates are level-0 pixels; give the file that belongs to this slide.",
        )
    return inner, f"{off:.0%} of the outlines of {path.name} lie outside the slide" if off > NOTED_OFF else ""


def _areal(document: Any) -> Any:
    """The document without QuPath's detections and ignored classes."""
    inner = document.get("features") if isinstance(document, Mapping) else document
    return [item for item in inner if _counts(item)] if isinstance(inner, list) else document


def _counts(feature: Any) -> bool:
    properties = feature.get("properties") if isinstance(feature, Mapping) else None
    if not isinstance(properties, Mapping):
        return True
    kind = properties.get("objectType", properties.get("object_type", "annotation"))
    classification = properties.get("classification")
    name = classification.get("name") if isinstance(classification, Mapping) else classification
    return kind in _OBJECTS and not str(name or "").strip().endswith("*")


def _mask_size(size: Size, mpp: float, mask_mpp: float) -> Size:
    """Size of a mask of the whole slide; never finer than the slide."""
    shrink = max(1.0, mask_mpp / mpp)
    return Size(max(1, round(size.width / shrink)), max(1, round(size.height / shrink)))


def _filled(area: BaseGeometry, size: Size, mask: Size) -> NDArray[np.bool_]:
    """Mask pixels (h, w) whose centres lie in a valid area of level-0 pixels."""
    small = scaled(area, mask.width / size.width, mask.height / size.height, origin=(0, 0))
    pixels = np.zeros((mask.height, mask.width), np.bool_)
    for part in shapely.get_parts(small):
        if isinstance(part, Polygon):
            for ring in (part.exterior, *part.interiors):  # even-odd rule: a hole clears its pixels
                x, y = np.asarray(ring.coords).T
                rows, columns = _inside(y - 0.5, x - 0.5, pixels.shape)
                pixels[rows, columns] ^= True
    return pixels


def _inside(rows: Any, columns: Any, shape: Sequence[int]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    found: tuple[NDArray[np.intp], NDArray[np.intp]] = inside_polygon(rows, columns, shape)  # type: ignore[no-untyped-call]
    return found


def _refuse_micrometres(area: BaseGeometry, size: Size, mpp: float, picture: NDArray[np.uint8], name: str) -> None:
    """Raise SlideError if outlines miss the tissue as pixels, and cover it exactly if they are micrometres."""
    moved = scaled(area, 1 / mpp, 1 / mpp, origin=(0, 0))
    outside = area.is_empty or moved.bounds[2] > size.width or moved.bounds[3] > size.height
    if outside or abs(mpp - 1) < _SAME_UNIT:
        return  # the usual case costs no detection
    found = SEGMENTERS.get("hybrid")(picture, mpp * float(np.sqrt(size.pixels / (picture.size / 3))))
    shape = Size(picture.shape[1], picture.shape[0])
    here, there = (_overlap(_filled(each, size, shape), found) for each in (area, moved))
    if here < BAD_OVERLAP and there > GOOD_OVERLAP:
        raise SlideError(
            f"the coordinates of {name} seem to be micrometres, not level-0 pixels: as such they fit the tissue",
            todo=f"Divide them by the slide's {mpp:g} micrometres per pixel.",
        )


def _overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Intersection over union."""
    return float((one & other).sum() / max(1, (one | other).sum()))


def _glass_note(mask: TissueMask, picture: NDArray[np.uint8], name: str) -> str:
    """A note if hardly any of the given tissue looks like tissue: an inverted mask, or one of another slide."""
    height, width = picture.shape[:2]
    picture_mpp = mask.mpp * float(np.sqrt(mask.slide_size.pixels / (height * width)))
    rows = (np.arange(height) * mask.pixels.shape[0] // height)[:, None]
    columns = np.arange(width) * mask.pixels.shape[1] // width
    given = mask.pixels[rows, columns]
    found = SEGMENTERS.get("hybrid")(picture, picture_mpp)
    if not given.any() or not found.any():
        return ""
    share = float(found[given].mean())
    if share >= MOSTLY_GLASS:
        return ""
    return f"only {share:.0%} of the tissue in {name} looks like tissue: it may be inverted or belong to another slide"
