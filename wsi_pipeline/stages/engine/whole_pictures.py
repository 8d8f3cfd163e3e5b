"""The whole slide as small pictures: at the resolution of the tissue mask, and as thumbnail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.geometry import Size
from wsi_pipeline.images.shrink import area_resize
from wsi_pipeline.slides.slide import Slide, SlideInfo
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.store.tables.segment_table import THUMBNAIL_LEAST_PX, THUMBNAIL_PX


def read_pictures(slide: Slide, mpp: float, mask_mpp: float) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The whole slide, read once, at `mask_mpp` and as thumbnail. `mpp`: micrometres per pixel of level 0."""
    picture = read_whole(slide, mpp, _picture_mpp(mask_mpp, slide.info, mpp), mask_mpp)
    return _at_mpp(picture, slide.info.size, mpp, mask_mpp), shrink_thumbnail(picture)


def shrink_thumbnail(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """At most THUMBNAIL_PX on the longer side, by area averaging."""
    height, width = rgb.shape[:2]
    scale = min(1.0, THUMBNAIL_PX / max(height, width))
    return area_resize(rgb, Size(max(1, round(width * scale)), max(1, round(height * scale))))


def _picture_mpp(mask_mpp: float, info: SlideInfo, mpp: float) -> float:
    """Resolution to read the whole slide at, once for mask and thumbnail: the finer of the two, but never finer
    than the slide. A pyramid level of nearly the thumbnail's size is used as it is."""
    longest = max(info.size.width, info.size.height)
    sides = [max(level.size.width, level.size.height) for level in info.levels]
    near = max((side for side in sides if THUMBNAIL_LEAST_PX <= side <= THUMBNAIL_PX), default=THUMBNAIL_PX)
    return max(mpp, min(mask_mpp, longest * mpp / near))


def _at_mpp(picture: NDArray[np.uint8], size: Size, mpp: float, target_mpp: float) -> NDArray[np.uint8]:
    """The picture of a whole slide resampled to `target_mpp`, or unchanged if it is coarser."""
    width, height = (max(1, round(side * mpp / target_mpp)) for side in (size.width, size.height))
    return area_resize(picture, Size(min(width, picture.shape[1]), min(height, picture.shape[0])))
