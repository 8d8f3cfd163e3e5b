"""Which slide of a cohort all others are given the stain of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from wsi_pipeline.stains.density import Floats
from wsi_pipeline.stains.estimate import angle
from wsi_pipeline.stains.stain_profile import HE, StainProfile

BLUE_ENOUGH = 0.6
"""Red density of the target's haematoxylin relative to its green one, at least: a pinker one turns the nuclei of the
other slides pink. Haematoxylin has 0.92 by Ruifrok and Johnston (2001)."""
APART_ENOUGH = 0.8
"""Angle between the target's two vectors relative to the cohort's median angle, at least: a slide where it is smaller
would make the stains of all others hard to tell from each other. Less than 1, as angles are estimates."""


def medoid(profiles: Mapping[str, StainProfile]) -> str | None:
    """Id of the most typical slide with two stains well apart; None if no slide is usable.

    Slides with a fault are left out. Of several kinds of stain the most common is taken, H&E if two are as common. Of
    its slides, those `well_apart` may be chosen: the one with the smallest sum of distances to all others of the kind.
    Of equal sums the first id in sorted order wins, so that the order of the cohort makes no difference.
    """
    usable = {name: profiles[name] for name in sorted(profiles) if not profiles[name].fault}
    if not usable:
        return None
    counts = Counter(profile.kind for profile in usable.values())
    kind = max(sorted(counts), key=lambda name: (counts[name], name == HE))
    of_kind = {name: profile for name, profile in usable.items() if profile.kind == kind}
    places = np.stack([_place(profile) for profile in of_kind.values()])
    choice = well_apart(of_kind)
    sums = {name: float(np.linalg.norm(places - _place(of_kind[name]), axis=1).sum()) for name in choice}
    return min(choice, key=lambda name: (round(sums[name], 9), name))


def well_apart(profiles: Mapping[str, StainProfile]) -> list[str]:
    """Ids of the slides whose haematoxylin is blue enough and whose two vectors lie far enough apart: BLUE_ENOUGH,
    APART_ENOUGH. If no slide has blue enough a haematoxylin, all count as blue.
    """
    blue = [name for name, profile in profiles.items() if blueness(profile) >= BLUE_ENOUGH] or list(profiles)
    angles = {name: angle(*np.array(profiles[name].vectors)) for name in blue}
    least = APART_ENOUGH * float(np.median(list(angles.values())))
    return [name for name in blue if angles[name] >= least]


def blueness(profile: StainProfile) -> float:
    """Red density of the first stain relative to its green one."""
    red, green, _ = profile.vectors[0]
    return red / max(green, 1e-9)


def _place(profile: StainProfile) -> Floats:
    """Position of a stain in the space where distances are taken: the densities of both stains at full strength, or
    the moments of the colour axes.
    """
    if profile.method == "reinhard":
        return np.array([*profile.mean, *profile.spread])
    densities: Floats = np.array(profile.vectors) * np.array(profile.strength)[:, None]
    return densities.ravel()
