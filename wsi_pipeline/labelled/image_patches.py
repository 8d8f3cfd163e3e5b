"""Image files as patches, and crops around points of image files, as `PatchPixels`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.specs import LabelSpec
from wsi_pipeline.errors import LabelError
from wsi_pipeline.images.pixel_cache import PixelCache
from wsi_pipeline.labelled.image_file import ImageFact, content_digests, fit_square, read_image
from wsi_pipeline.labelled.labelled_patches import Rows
from wsi_pipeline.reading.patch_reader import shrink_to
from wsi_pipeline.wording import counted


@dataclass(frozen=True)
class ImageSet:
    """Readable image files and the facts about each."""

    paths: tuple[Path, ...]
    facts: tuple[ImageFact, ...]

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def digests(self) -> list[str]:
        """A digest for each file, shared only by copies."""
        return content_digests(self.paths, [fact.stamp for fact in self.facts])

    def read(self, number: int) -> NDArray[np.uint8]:
        """One image (h, w, 3). Raises LabelError naming it."""
        try:
            return read_image(self.paths[number])
        except LabelError as error:
            raise LabelError(f"{self.paths[number]}: {error.what}", todo="Fix or remove it, then run again") from error


@dataclass(frozen=True, eq=False)
class ImagePatches:
    """Each image file is a patch: its centred square at `patch_px`. Those that fit in memory are decoded once."""

    images: ImageSet
    patch_px: int
    mpp: float | None
    cache: PixelCache = field(default_factory=PixelCache)

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Patches (B, P, P, 3): see `PatchPixels.read`."""
        out = np.empty((len(rows), self.patch_px, self.patch_px, 3), np.uint8)
        for place, row in enumerate(rows.tolist()):
            out[place] = self.cache.get(row, lambda row=row: fit_square(self.images.read(row), self.patch_px))  # type: ignore[misc]
        return out

    def contents(self, rows: Rows) -> list[str]:
        """Digests of the files."""
        return [self.images.digests[row] for row in rows]

    def identity(self, rows: Rows) -> Any:
        """Stamps of the files."""
        return {"kind": "images", "stamps": [self.images.facts[row].stamp for row in rows]}


@dataclass(frozen=True, eq=False)
class PointPatches:
    """Squares of `crop_px` image pixels centred on a point; the image is mirrored past its border.

    image_of   int64 (N,), the image of each point
    corners    int64 (N, 2), x and y of the first pixel of each crop; may lie outside
    """

    images: ImageSet
    image_of: Rows
    corners: Rows
    crop_px: int
    patch_px: int
    mpp: float | None
    cache: PixelCache = field(default_factory=PixelCache)

    def read(self, rows: Rows) -> NDArray[np.uint8]:
        """Patches (B, P, P, 3), every image decoded at most once: see `PatchPixels.read`."""
        out = np.empty((len(rows), self.patch_px, self.patch_px, 3), np.uint8)
        owners = self.image_of[rows]
        for number in np.unique(owners).tolist():
            image = self.cache.get(number, lambda number=number: self.images.read(number))  # type: ignore[misc]
            for place in np.flatnonzero(owners == number).tolist():
                x, y = self.corners[rows[place]].tolist()
                crop = cut(image, x, y, self.crop_px)
                out[place] = crop if self.patch_px == self.crop_px else shrink_to(crop, self.patch_px)
        return out

    def contents(self, rows: Rows) -> list[str]:
        """Digests of the images that the points lie on."""
        return [self.images.digests[number] for number in self.image_of[rows]]

    def identity(self, rows: Rows) -> Any:
        """Stamps of the images, the image of each point, and the crops."""
        return {
            "kind": "points",
            "stamps": [fact.stamp for fact in self.images.facts],
            "image_of": self.image_of[rows].tolist(),
            "corners": self.corners[rows].tolist(),
            "crop_px": self.crop_px,
        }


def cut(image: NDArray[np.uint8], x: int, y: int, side: int) -> NDArray[np.uint8]:
    """The square (side, side, 3) of an image whose first pixel is at column x, row y, mirrored past the border."""
    height, width = image.shape[:2]
    if x >= 0 and y >= 0 and x + side <= width and y + side <= height:
        return np.ascontiguousarray(image[y : y + side, x : x + side])
    return np.ascontiguousarray(image[mirrored(y, side, height)[:, None], mirrored(x, side, width)])


def mirrored(start: int, count: int, length: int) -> Rows:
    """Indices start, start + 1, ... reflected into 0 to length - 1; the border pixel is not repeated."""
    period = max(1, 2 * (length - 1))
    index = np.arange(start, start + count, dtype=np.int64) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros(count, np.int64)


def image_patches(images: ImageSet, spec: LabelSpec, notes: list[str]) -> ImagePatches:
    """Patches of equal size from images of any size; adds to `notes` what was cropped or resized."""
    sizes = Counter(fact.size for fact in images.facts)
    sides = Counter[int]()
    for size, count in sizes.items():
        sides[min(size.width, size.height)] += count
    side = spec.resize_px or max(sides, key=lambda value: (sides[value], value))
    oblong = sum(count for size, count in sizes.items() if size.width != size.height)
    if oblong:
        shape = next(size for size in sizes if size.width != size.height)
        notes.append(
            f"{oblong} of {counted(len(images), 'image')} are not square (such as {shape.width} x {shape.height}): "
            "their centred square is used"
        )
    resized = sum(count for value, count in sides.items() if value != side)
    if resized:
        notes.append(f"{resized} of {counted(len(images), 'image')} are resized to {side} x {side} pixels")
    if resized and len(sides) > 1 and spec.image_mpp:
        notes.append("images of different sizes are resized, so their micrometres per pixel differ and are left unset")
    mpp = _delivered(spec, next(iter(sides)), side) if len(sides) == 1 else None
    return ImagePatches(images, side, mpp)


def point_patches(images: ImageSet, image_of: Rows, points: NDArray[np.float64], spec: LabelSpec) -> PointPatches:
    """Crops around points (N, 2), x and y of pixel centres counted from `point_origin`."""
    middle = (spec.crop_px - 1) / 2
    corners = np.floor(points - spec.point_origin - middle + 0.5).astype(np.int64)
    side = spec.resize_px or spec.crop_px
    return PointPatches(images, image_of, corners, spec.crop_px, side, _delivered(spec, spec.crop_px, side))


def past_border(patches: PointPatches) -> int:
    """How many crops reach past the border of their image."""
    sizes = np.array([(fact.size.width, fact.size.height) for fact in patches.images.facts], np.int64).reshape(-1, 2)
    last = patches.corners + patches.crop_px > sizes[patches.image_of]
    return int(((patches.corners < 0) | last).any(axis=1).sum())


def _delivered(spec: LabelSpec, side: int, patch_px: int) -> float | None:
    return spec.image_mpp * side / patch_px if spec.image_mpp else None
