"""Which slide of a cohort all others are given the stain of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from wsi_pipeline.stains.density import Floats
from wsi_pipeline.stains.stain_profile import HE, StainProfile


def medoid(profiles: Mapping[str, StainProfile]) -> str | None:
    """Id of the slide with the smallest sum of distances to all others of its kind; None if no slide is usable.

    Slides with a fault are left out. Of several kinds of stain the most common is taken, H&E if two are as common. Of
    equal sums the first id in sorted order wins, so that the order of the cohort makes no difference.
    """
    usable = {name: profiles[name] for name in sorted(profiles) if not profiles[name].fault}
    if not usable:
        return None
    counts = Counter(profile.kind for profile in usable.values())
    kind = max(sorted(counts), key=lambda name: (counts[name], name == HE))
    names = [name for name, profile in usable.items() if profile.kind == kind]
    places = np.stack([_place(usable[name]) for name in names])
    sums = [float(np.linalg.norm(places - place, axis=1).sum()) for place in places]
    return names[int(np.argmin(np.round(sums, 9)))]


def _place(profile: StainProfile) -> Floats:
    """Position of a stain in the space where distances are taken: the densities of both stains at full strength, or
    the moments of the colour axes.
    """
    if profile.method == "reinhard":
        return np.array([*profile.mean, *profile.spread])
    densities: Floats = np.array(profile.vectors) * np.array(profile.strength)[:, None]
    return densities.ravel()
