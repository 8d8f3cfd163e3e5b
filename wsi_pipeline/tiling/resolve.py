"""From a requested resolution to the pyramid level, patch size and stride that are read.

Every stage takes these sizes from a `PatchGeometry`; none chooses a level or scales a patch by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from wsi_pipeline.config.specs import TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.slide import SlideInfo


@dataclass(frozen=True)
class PatchGeometry:
    """How the patches of one slide are read.

    patch_px        side of a delivered patch, pixels
    patch_level0    side of a patch, level-0 pixels
    stride_level0   distance between neighbouring patches, level-0 pixels
    level           pyramid level that is read
    level_px        side that is read at that level, in its pixels; shrunk to patch_px with an area filter
    mpp             micrometres per pixel actually delivered: patch_level0 * slide mpp / patch_px
    resampled       False if level_px is a whole multiple of patch_px
    """

    patch_px: int
    patch_level0: int
    stride_level0: int
    level: int
    level_px: int
    mpp: float
    resampled: bool

    @property
    def scan_mpp(self) -> float:
        """Micrometres per pixel of the slide's level 0."""
        return self.mpp * self.patch_px / self.patch_level0


def resolve_geometry(spec: TileSpec, info: SlideInfo, slide_mpp: float) -> PatchGeometry:
    """Decide which level to read and how large a patch is there.

    The coarsest level that is at least as fine as the target is read. If a whole-number shrink of it lies within
    `mpp_tolerance` of the target, that shrink is used; otherwise the patch is round(patch_px * mpp / slide_mpp)
    level-0 pixels and is resampled. Raises SlideError for a slide coarser than the target unless
    `allow_upsample`.
    """
    target = spec.mpp
    if slide_mpp > target * (1 + spec.mpp_tolerance) and not spec.allow_upsample:
        raise SlideError(
            f"the slide has {slide_mpp:.4g} micrometres per pixel, coarser than the {target:.4g} asked for",
            todo=f"Ask for a coarser --mpp (at least {slide_mpp:.4g}), or enlarge it with --allow-upsample",
        )
    level = _coarsest_fine_enough(spec, info, slide_mpp)
    downsample = info.levels[level].downsample
    level_mpp = slide_mpp * downsample
    shrink = max(1, round(target / level_mpp))
    is_whole = abs(shrink * level_mpp / target - 1) <= max(spec.mpp_tolerance, 1e-9)
    level_px = spec.patch_px * shrink if is_whole else round(spec.patch_px * target / level_mpp)
    patch_level0 = round(level_px * downsample) if is_whole else round(spec.patch_px * target / slide_mpp)
    patch_level0, level_px = max(1, patch_level0), max(1, level_px)
    stride = max(1, round((spec.patch_px - spec.overlap_px) * patch_level0 / spec.patch_px))
    delivered = patch_level0 * slide_mpp / spec.patch_px
    return PatchGeometry(spec.patch_px, patch_level0, stride, level, level_px, delivered, not is_whole)


def geometry_of_given(
    patch_px: int, patch_level0: int, stride_level0: int, info: SlideInfo, slide_mpp: float
) -> PatchGeometry:
    """How to read patches whose size another tool chose: from the coarsest level that is fine enough.

    A patch covers patch_level0 pixels of level 0 and is delivered at patch_px, enlarged if patch_level0 is smaller.
    """
    fine = [
        (number, round(patch_level0 / level.downsample))
        for number, level in enumerate(info.levels)
        if patch_level0 / level.downsample >= patch_px * (1 - 1e-3)
    ]
    number, level_px = fine[-1] if fine else (0, patch_level0)
    delivered = patch_level0 * slide_mpp / patch_px
    return PatchGeometry(
        patch_px, patch_level0, stride_level0, number, max(1, level_px), delivered, level_px % patch_px != 0
    )


def _coarsest_fine_enough(spec: TileSpec, info: SlideInfo, slide_mpp: float) -> int:
    limit = spec.mpp * (1 + spec.mpp_tolerance) * (1 + 1e-9)
    fine = [i for i, level in enumerate(info.levels) if slide_mpp * level.downsample <= limit]
    return fine[-1] if fine else 0
