"""What is known about the stain of a slide or a target: measured once, from its tissue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.stains.density import Floats, density, stained
from wsi_pipeline.stains.estimate import angle, macenko, moments, strength, vahadane

VERSION = 2
"""Goes into the fingerprint: raise it whenever the same pixels give another profile or another picture."""

HE, BROWN, ONE, UNKNOWN = "H&E", "brown (as DAB)", "one stain", "not H&E"

LEAST_PIXELS = 2_000
"""Fewer stained pixels give no stable percentiles."""
LEAST_DENSITY = 0.25
"""Median density of the stained pixels, in the densest channel, below which a slide counts as nearly unstained."""
LEAST_ANGLE = 9.0
"""Degrees between the two vectors: closer, they are one stain and its noise."""
_BROWN = 1.05
"""Blue density of the second stain relative to its green one, above which it is brown rather than pink."""
_GREY = 0.7
"""Least density of a stain relative to its greatest, over the channels, above which it is grey or black: at most 0.56
for eosin on 156 H&E images of two laboratories, 0.83 for DAB so dense that it lets no light through."""
_PINK = 0.6
"""Red density of the second stain relative to its green one, below which it is pink whatever the first is."""
_BLUE = 0.25
"""Red density of the first stain relative to its green one, below which it is no haematoxylin."""


@dataclass(frozen=True)
class StainProfile:
    """Stain of one slide, from its tissue.

    method         macenko, vahadane or reinhard: how `vectors` were estimated (reinhard: as macenko, to name the stain)
    glass          colour of empty glass, 0 to 255; glass_from: background or white
    vectors        optical density of the two stains in R, G, B, of length 1; haematoxylin first
    strength       concentration of each that 99 % of the stained pixels do not exceed
    mean, spread   mean and standard deviation of l, alpha, beta over the stained pixels
    kind           H&E, brown (as DAB), one stain, or not H&E
    median_density median optical density of the stained pixels, in the densest channel
    stained        fraction of the sampled pixels that is stained
    pixels         stained pixels that were used; patches: sampled patches
    """

    method: str
    glass: tuple[float, ...]
    glass_from: str
    vectors: tuple[tuple[float, ...], ...]
    strength: tuple[float, ...]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    kind: str
    median_density: float
    stained: float
    pixels: int
    patches: int

    @property
    def fault(self) -> str:
        """Why this stain can be neither normalised nor a target; "" if it can."""
        if not self.patches:
            return "no patches"
        if self.pixels < LEAST_PIXELS:
            return f"too little tissue: {self.pixels} stained pixels, at least {LEAST_PIXELS} are needed"
        if self.median_density < LEAST_DENSITY:
            return f"nearly unstained: median density {self.median_density:.2f}, at least {LEAST_DENSITY} is needed"
        if self.kind == ONE:
            return "one stain only"
        if self.kind == UNKNOWN:
            return "its stains are not recognised as haematoxylin with eosin or DAB"
        return ""

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the values that determine a normalisation to this profile."""
        known = self.to_json()
        used = ("method", "mean", "spread") if self.method == "reinhard" else ("method", "vectors", "strength")
        return digest_of(stain=VERSION, kind=self.kind, **{name: known[name] for name in used})

    def to_json(self) -> dict[str, Any]:
        """As JSON; `from_json` reads it back."""
        found: dict[str, Any] = asdict(self)
        return {name: _plain(value) for name, value in found.items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> StainProfile:
        """Read back what `to_json` gave. Raises KeyError, TypeError or ValueError for anything else."""
        found = {field.name: values[field.name] for field in fields(cls)}
        for name in ("glass", "strength", "mean", "spread"):
            found[name] = tuple(float(value) for value in found[name])
        found["vectors"] = tuple(tuple(float(value) for value in vector) for vector in found["vectors"])
        shape = [len(found[name]) for name in ("glass", "vectors", "strength", "mean", "spread")]
        if shape != [3, 2, 2, 3, 3] or any(len(vector) != 3 for vector in found["vectors"]):
            raise ValueError(f"a stain profile of shape {shape}")
        return cls(**found)


def profile_pixels(
    pixels: NDArray[np.uint8], method: str, glass: tuple[float, ...], glass_from: str, patches: int
) -> StainProfile:
    """The profile of sampled pixels uint8 (N, 3); what is not stained among them is left out of every statistic."""
    densities = density(pixels, glass)
    tissue = stained(densities)
    used, colours = densities[tissue], pixels[tissue]
    common: dict[str, Any] = {
        "method": method,
        "glass": glass,
        "glass_from": glass_from,
        "patches": patches,
        "pixels": len(used),
    }
    part = float(tissue.mean()) if len(tissue) else 0.0
    if len(used) < LEAST_PIXELS:
        nothing: dict[str, Any] = {
            "vectors": ((0.0,) * 3,) * 2,
            "strength": (0.0,) * 2,
            "mean": (0.0,) * 3,
            "spread": (0.0,) * 3,
        }
        return StainProfile(**common, **nothing, kind=UNKNOWN, median_density=0.0, stained=_rounded(part))
    seen = macenko(used)
    vectors = vahadane(used) if method == "vahadane" else seen
    mean, spread = moments(colours)
    return StainProfile(
        **common,
        vectors=tuple(_tuple(vector) for vector in vectors),
        strength=_tuple(strength(used, vectors)),
        mean=_tuple(mean),
        spread=_tuple(spread),
        kind=kind_of(seen),
        median_density=_rounded(float(np.median(used.max(axis=1)))),
        stained=_rounded(part),
    )


def kind_of(vectors: Floats) -> str:
    """Which stains two vectors (2, 3) are, haematoxylin first."""
    first, second = vectors
    if angle(first, second) < LEAST_ANGLE:
        return ONE
    if first[0] < _BLUE * first[1]:
        return UNKNOWN
    if second[2] > _BROWN * second[1]:
        return BROWN
    # Beside haematoxylin, black may come first: then the second is blue.
    black_first = _grey(first) and second[0] > _PINK * second[1]
    return HE if second[1] >= second[0] and not _grey(second) and not black_first else UNKNOWN


def _grey(vector: Floats) -> bool:
    """Whether it absorbs all colours about alike."""
    return bool(vector.min() > _GREY * vector.max())


def _rounded(value: float) -> float:
    """To seven significant digits, so that a file holds exactly the values that were used."""
    return float(f"{value:.7g}")


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(_rounded(float(value)) for value in values)


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
