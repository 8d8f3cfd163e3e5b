"""The stain of a slide from a sample of its patches, and the colour of its glass from its thumbnail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.cohort.records import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir, existing_store
from wsi_pipeline.reading.patch_sources import PatchSource
from wsi_pipeline.robustness.perturbations import Perturbation, centre
from wsi_pipeline.stains.density import WHITE, measure_glass
from wsi_pipeline.stains.stain_profile import StainProfile, profile_pixels
from wsi_pipeline.store.tables.segment_table import read_segment_table

SAMPLED = 64
"""Patches of a slide, evenly spaced in store order."""
_PIXELS = 1 << 19
"""Pixels of all of them that are used, evenly spaced within each patch."""

Pixels = NDArray[np.uint8]


def sample_rows(count: int) -> list[int]:
    """Rows of the patches that are sampled out of `count`: evenly spaced, at most SAMPLED."""
    return sorted({int(row) for row in np.linspace(0, count - 1, min(count, SAMPLED)).round()}) if count else []


def glass_of(
    run: RunDir, record: SlideRecord, change: Callable[[Pixels], Pixels] = lambda picture: picture
) -> tuple[tuple[float, ...], str]:
    """Colour of a slide's empty glass, 0 to 255, and where it is from: background or white.

    change   applied to the thumbnail (h, w, 3) first; the outline of the tissue stays
    """
    path = existing_store(run.segment_store(record.slide_id))
    if path is None:
        return WHITE, "white"
    table = read_segment_table(path)
    picture, mask = table.thumbnail, table.mask.pixels
    rows = np.arange(picture.shape[0]) * mask.shape[0] // picture.shape[0]
    columns = np.arange(picture.shape[1]) * mask.shape[1] // picture.shape[1]
    return measure_glass(change(picture), mask[np.ix_(rows, columns)])


def sampled_pixels(patch: Pixels, patches: int) -> Pixels:
    """The pixels (n, 3) that are used of one of `patches` sampled patches (P, P, 3), evenly spaced."""
    step = max(1, int(np.ceil((patch[..., 0].size * patches / _PIXELS) ** 0.5)))
    return patch[::step, ::step].reshape(-1, 3)


def profile_patches(patches: list[Pixels], method: str, glass: tuple[float, ...], glass_from: str) -> StainProfile:
    """The profile of sampled patches, each uint8 (P, P, 3)."""
    parts = [sampled_pixels(patch, len(patches)) for patch in patches]
    pixels = np.concatenate(parts) if parts else np.zeros((0, 3), np.uint8)
    return profile_pixels(pixels, method, glass, glass_from, len(patches))


def changed_profiles(
    run: RunDir, record: SlideRecord, method: str, source: PatchSource, side: int, mpp: float,
    changes: Sequence[Perturbation],
) -> list[StainProfile]:  # fmt: skip
    """The stain of a slide as it is, then under each change, as `embed` would measure it there.

    source   the patches that `sample_rows` names, each with its margin, (S, S, 3); `side`, `mpp` of one without

    The glass is that of the thumbnail, which changes of colour change too. Blur, JPEG, shift and rotation leave an
    even surface as it is.
    """
    pixels: list[list[Pixels]] = [[] for _ in range(len(changes) + 1)]
    for row in range(len(source)):
        wide = source.read(row)
        plain = sampled_pixels(centre(wide, side), len(source)).copy()  # a view would keep the whole patch in memory
        pixels[0].append(plain)
        for number, change in enumerate(changes, 1):
            if change.of_colour:
                pixels[number].append(change.recolour(plain))  # the same, of fewer pixels
            else:
                pixels[number].append(sampled_pixels(change.apply(wide, side, mpp), len(source)).copy())
    glasses = [glass_of(run, record), *(glass_of(run, record, change.recolour) for change in changes)]
    return [
        profile_pixels(np.concatenate(parts), method, *glass, len(source))
        for parts, glass in zip(pixels, glasses, strict=True)
    ]
