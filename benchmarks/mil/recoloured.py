"""Bags of images with the stain of one of them: each image is a slide of its own, measured on its patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.stages.inputs.slide_stain import profile_patches
from wsi_pipeline.stains.choose_target import medoid
from wsi_pipeline.stains.density import measure_glass
from wsi_pipeline.stains.recolour import Recolouring, misfit


@dataclass(frozen=True, eq=False)
class Recoloured:
    """Patches (N, P, P, 3) of each image after normalisation, the number of the target, why images keep their stain."""

    cuts: list[NDArray[np.uint8]]
    target: int
    kept: dict[int, str]


def recolour(cuts: Sequence[NDArray[np.uint8]], method: str) -> Recoloured:
    """Give all images the stain of the most typical one; labels play no part in the choice."""
    profiles = {}
    for number, cut in enumerate(cuts):
        glass = measure_glass(cut.reshape(-1, cut.shape[2], 3))
        profiles[f"{number:06d}"] = profile_patches(list(cut), method, *glass)
    name = medoid(profiles)
    if name is None:
        raise ValueError("no image can be the target")
    fits = {int(key): misfit(profile, profiles[name]) for key, profile in profiles.items()}
    changed = [
        cut if fits[number] else Recolouring(profiles[f"{number:06d}"], profiles[name])(cut).numpy()
        for number, cut in enumerate(cuts)
    ]
    return Recoloured(changed, int(name), {number: why for number, why in fits.items() if why})
