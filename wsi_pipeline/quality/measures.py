"""The table of measures: name, unit, meaning and, for artefacts, the limit and the words for what lies beyond it."""

from __future__ import annotations

from dataclasses import dataclass

REVISION = 2
"""Raised when a measure gives other values or has another limit: stores then get new ones."""

LEAST_BLUR_PX = 0.55
"""A patch is out of focus only if its edges are also wider than this many of its own pixels. Shrinking sharpens: sharp
patches of 1 and 2 mpp, shrunk from finer pixels, have edges of width 0."""
LEAST_SCAN_BLUR_PX = 1.0
"""The same in pixels of the scan, which optics and sensor blur: sharp patches of unshrunk pixels have edges of up to
0.89 pixels, in some scans of 0.6 on average."""


@dataclass(frozen=True)
class Measure:
    """One column of a patch store.

    unit      of the values; "" for fractions from 0 to 1
    sampled   measured on the pixels of patches, and so perhaps only on a sample of them; the others are measured on a
              small picture of the whole slide
    limit     values above it are an artefact; None for qualities that have no bad values
    artefact  what such a patch is, for messages: `out of focus`
    """

    name: str
    unit: str
    meaning: str
    sampled: bool = False
    limit: float | None = None
    artefact: str = ""


FOCUS, BLOCKS, CLIPPED = "focus", "blocks", "clipped"
PEN, FOLD, EDGE = "pen", "fold", "edge"
SATURATION, HAEMATOXYLIN, EOSIN, DAB = "saturation", "haematoxylin", "eosin", "dab"

MEASURES = (
    Measure(
        FOCUS, "um", "width of the sharpest edges: standard deviation of the Gaussian that blurs them", True, 0.5,
        "out of focus",
    ),
    Measure(BLOCKS, "", "excess of steps at the borders of JPEG blocks over steps elsewhere", True),
    Measure(CLIPPED, "", "fraction of pixels with a channel at 0", True),
    Measure(PEN, "", "fraction of the patch under pen ink", False, 0.1, "pen"),
    Measure(FOLD, "", "fraction of the tissue that is folded: twice as dense as around it in all colours", False, 0.2,
            "fold"),
    Measure(EDGE, "", "fraction of the patch on the dark rim of a bubble or of the cover glass", False, 0.05,
            "bubble or glass edge"),
    Measure(SATURATION, "", "mean colour saturation of the tissue"),
    Measure(HAEMATOXYLIN, "OD", "mean optical density of haematoxylin in the tissue"),
    Measure(EOSIN, "OD", "the same of eosin, on slides that show no brown"),
    Measure(DAB, "OD", "the same of DAB, on slides where more of the stain is brown than pink"),
)  # fmt: skip
NAMES = tuple(measure.name for measure in MEASURES)
UNITS = tuple(measure.unit for measure in MEASURES)
ARTEFACTS = tuple(measure for measure in MEASURES if measure.limit is not None)


def limit_of(measure: Measure, mpp: float, scan_mpp: float) -> float:
    """The limit of an artefact for patches of `mpp` micrometres per pixel of a slide scanned at `scan_mpp`.

    Only that of focus depends on them: narrower edges look sharp at this resolution.
    """
    assert measure.limit is not None
    if measure.name != FOCUS:
        return measure.limit
    return max(measure.limit, LEAST_BLUR_PX * mpp, LEAST_SCAN_BLUR_PX * scan_mpp)
