"""Choosing the resolution: the slide's own, then the manifest's, then --default-mpp, else an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsi_pipeline.config.units import MAX_MPP, MIN_MPP, Mpp, is_plausible_mpp
from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.slide_info import SlideInfo

SpacingSource = Literal["slide", "manifest", "default"]
MANIFEST_TOLERANCE = 0.05
"""Relative difference of manifest and slide above which the note mentions it."""

USUAL_MPP = (0.12, 2.4)
"""Bright-field scans have mpp from about 0.16 (60x) to 2 (5x). Beyond these, a note says what they imply."""

GLASS_MM = 80.0
"""A standard glass slide is 76 mm long: a longer image must have a different mpp than stated."""

FAR = 4.0
"""If two mpp of one slide differ by more than this factor, one of them is in another unit."""

_TODO = "Add an mpp column to the CSV or pass --default-mpp"
_MICRONS_OF_1X = 10.0
"""Rule of thumb for the hint only: 20x is often about 0.5 mpp, 40x about 0.25."""


@dataclass(frozen=True)
class Spacing:
    """The resolution used for a slide.

    mpp      micrometres per level-0 pixel
    source   where it came from
    note     what the user should know about it (sources that disagree or were ignored), else empty
    """

    mpp: Mpp
    source: SpacingSource
    note: str = ""


def spacing_of(info: SlideInfo, manifest: float | None, default: float | None) -> Spacing:
    """`resolve_mpp` for an open slide; its metadata make notes and errors more specific."""
    return resolve_mpp(info.mpp, manifest, default, objective=info.objective, slide_note=info.mpp_note, size=info.size)


def resolve_mpp(
    own: float | None,
    manifest: float | None,
    default: float | None,
    *,
    objective: float | None = None,
    slide_note: str = "",
    size: Size | None = None,
) -> Spacing:
    """Choose the resolution, in micrometres per level-0 pixel.

    own          as the slide states it; used if plausible (0.05 to 20), unless it is doubtful and the manifest says
                 something else
    manifest     the mpp column of the CSV, or None
    default      --default-mpp, or None
    objective    nominal magnification: only a hint in error messages, never converted to an mpp
    slide_note   why the slide's own statement is unusable (SlideInfo.mpp_note)
    size         of level 0, to say how wide a doubtful mpp would make the slide

    Raises SlideError if nothing usable is left, or if the value to be used is implausible.
    """
    if is_plausible_mpp(own):
        assert own is not None
        doubt = _doubt(own, objective, size)
        if doubt and manifest is not None and _disagreement(own, manifest):
            given = _given(manifest, "mpp in the manifest")
            note = _joined(f"{doubt}: using the manifest's {manifest:g}", _doubt(given, objective, size))
            return Spacing(given, "manifest", note)
        return Spacing(Mpp(own), "slide", _joined(doubt, _disagreement(own, manifest), _far_from(own, default)))
    ignored = f"slide's own mpp {own:g} is implausible, ignored" if own is not None else slide_note
    if manifest is not None:
        given = _given(manifest, "mpp in the manifest")
        return Spacing(given, "manifest", _joined(ignored, _doubt(given, objective, size)))
    if default is not None:
        given = _given(default, "--default-mpp")
        return Spacing(given, "default", _joined(ignored, _doubt(given, objective, size)))
    raise _refusal(own, objective, slide_note)


def _doubt(mpp: float, objective: float | None, size: Size | None) -> str:
    """Why a plausible mpp is probably in another unit; empty if it is ordinary."""
    usual = _MICRONS_OF_1X / objective if objective else None
    against = usual is not None and not 1 / FAR <= mpp / usual <= FAR
    longest = max(size.width, size.height) * mpp / 1000 if size else 0.0
    if USUAL_MPP[0] <= mpp <= USUAL_MPP[1] and longest <= GLASS_MM and not against:
        return ""
    width = f" makes this slide {size.width * mpp / 1000:.3g} mm wide" if size else ""
    why = f"the slide says {objective:g}x, often about {usual:g}" if against else "wrong unit?"
    return f"stated mpp {mpp:g}{width or ' is unusual'} ({why})"


def _far_from(own: float, default: float | None) -> str:
    if default is None or 1 / FAR <= default / own <= FAR:
        return ""
    return f"--default-mpp says {default:g}, slide {own:g}: using the slide's"


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)


def _given(value: float, field: str) -> Mpp:
    if not is_plausible_mpp(value):
        raise SlideError(f"{field} must be between {MIN_MPP} and {MAX_MPP}, got {value:g}", todo="Correct it.")
    return Mpp(float(value))


def _disagreement(own: float, manifest: float | None) -> str:
    if manifest is None or abs(manifest - own) <= MANIFEST_TOLERANCE * own:
        return ""
    return f"manifest says {manifest:g} mpp, slide {own:g}: using the slide's"


def _refusal(own: float | None, objective: float | None, slide_note: str) -> SlideError:
    hint = f" (the slide says {objective:g}x, often about {_MICRONS_OF_1X / objective:g})" if objective else ""
    if own is not None:
        what = f"implausible mpp {own:g}: the slide's own resolution must be between {MIN_MPP} and {MAX_MPP}"
    else:
        what = slide_note or "no mpp: the slide does not state its resolution"
    return SlideError(what, todo=f"{_TODO}{hint}.")
