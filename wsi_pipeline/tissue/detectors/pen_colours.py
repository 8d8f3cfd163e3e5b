"""Marker inks: their hues as shares of the optical density, and the stroke widths to look for."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]
Hue = tuple[Range, Range, Range]
"""Ranges of the shares of optical density in red, green and blue."""

DENSE = 0.25
"""Mean optical density of ink; stained tissue is rarely as dense over a whole 24 um pixel."""
BLACK, NEUTRAL = 0.60, 0.083
"""The same for black ink, which has no hue: its shares lie no further apart than the second value."""
OPAQUE = 0.85
"""Even matter as dense as this is ink in hues that tissue has when it is paler: blue-black and dark red."""
BLOOD_ON_GLASS = 0.12
"""Least part of a red stroke's rim that is glass: blood, as red and as even, lies within tissue."""


@dataclass(frozen=True)
class Ink:
    """One colour of ink.

    sure, maybe   hues that are ink, and hues that are ink next to ink
    dense         least mean optical density of its core
    faint         the same for the rest of a stroke
    on_glass      least part of a stroke's rim that is glass
    """

    name: str
    sure: Hue
    maybe: Hue
    dense: float = DENSE
    faint: float = 0.06
    on_glass: float = 0.0


INKS = (
    Ink(
        "red",
        ((0.0, 0.11), (0.4, 0.6), (0.34, 0.6)),
        ((0.0, 0.13), (0.4, 0.6), (0.34, 0.6)),
        on_glass=BLOOD_ON_GLASS,
    ),
    Ink(
        "dark red",
        ((0.08, 0.20), (0.4, 0.6), (0.34, 0.45)),
        ((0.05, 0.20), (0.4, 0.6), (0.34, 0.45)),
        dense=OPAQUE,
        on_glass=BLOOD_ON_GLASS,
    ),
    Ink("blue", ((0.42, 1.0), (0.0, 0.5), (0.0, 0.20)), ((0.38, 1.0), (0.0, 0.55), (0.0, 0.24))),
    Ink("violet", ((0.35, 0.46), (0.3, 0.53), (0.0, 0.155)), ((0.33, 0.50), (0.3, 0.55), (0.0, 0.17))),
    Ink("green", ((0.38, 1.0), (0.0, 0.31), (0.15, 0.40)), ((0.36, 1.0), (0.0, 0.33), (0.10, 0.42))),
    Ink(
        "blue-black",
        ((0.355, 0.45), (0.3, 0.40), (0.18, 0.32)),
        ((0.355, 0.45), (0.3, 0.40), (0.18, 0.32)),
        dense=OPAQUE,
        faint=0.5,
    ),
)
"""Measured on marked slides and from the colours of felt pens; haematoxylin is near (0.35, 0.37, 0.27), at its bluest
(0.40, 0.43, 0.18), eosin (0.12, 0.56, 0.30)."""


@dataclass(frozen=True)
class Stroke:
    """A stroke width to look for.

    work_um         pixel size that shows it at little cost
    half_width_um   half the core width of the finest such stroke
    reach_um        how far its thin, streaky rim may reach from the dense core
    peak            least optical density of the core in the channel that it absorbs most
    on_glass        least part of its rim that is glass
    """

    work_um: float
    half_width_um: float
    reach_um: float
    peak: float = 0.0
    on_glass: float = 0.0


BROAD = Stroke(24.0, 50.0, 250.0)
"""Most strokes are at least half a millimetre wide; clumps of blood are mostly narrower than this core."""
NARROW = Stroke(8.0, 8.0, 60.0, peak=0.9, on_glass=0.25)
"""Hairlines and the edges of small scans. Three pixels cannot show that they are even as ink is, so ink must there be
denser than a dye in a 4 um section gets, and lie partly beside the tissue."""
