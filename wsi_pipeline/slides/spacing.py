"""Which resolution to trust: the slide's own, then the manifest's, then --default-mpp, else a refusal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.base import SlideInfo
from wsi_pipeline.units import MAX_MPP, MIN_MPP, Mpp, is_plausible_mpp

SpacingSource = Literal["slide", "manifest", "default"]
MANIFEST_TOLERANCE = 0.05
"""Relative difference of manifest and slide above which the note mentions it."""

_TODO = "Add an mpp column to the CSV or pass --default-mpp"
_MICRONS_OF_1X = 10.0
"""Rule of thumb for the hint only: 20x is often about 0.5 mpp, 40x about 0.25."""


@dataclass(frozen=True)
class Spacing:
    """The resolution taken for a slide.

    mpp      micrometres per level-0 pixel
    source   where it came from
    note     what the user should know about it (sources that disagree or were ignored), else empty
    """

    mpp: Mpp
    source: SpacingSource
    note: str = ""


def spacing_of(info: SlideInfo, manifest: float | None, default: float | None) -> Spacing:
    """`resolve_mpp` for an open slide, whose metadata sharpen notes and refusals."""
    return resolve_mpp(info.mpp, manifest, default, objective=info.objective, slide_note=info.mpp_note)


def resolve_mpp(
    own: float | None,
    manifest: float | None,
    default: float | None,
    *,
    objective: float | None = None,
    slide_note: str = "",
) -> Spacing:
    """Choose the resolution, in micrometres per level-0 pixel.

    own          as the slide states it; used where plausible (0.05 to 20)
    manifest     the mpp column of the CSV, or None
    default      --default-mpp, or None
    objective    nominal magnification: only ever a hint in the refusal, never turned into an mpp
    slide_note   why the slide's own statement is unusable (SlideInfo.mpp_note)

    Raises SlideError where nothing usable is left, or where the value to be used is implausible.
    """
    if is_plausible_mpp(own):
        assert own is not None
        return Spacing(Mpp(own), "slide", _disagreement(own, manifest))
    ignored = f"slide's own mpp {own:g} is implausible, ignored" if own is not None else slide_note
    if manifest is not None:
        return Spacing(_given(manifest, "mpp in the manifest"), "manifest", ignored)
    if default is not None:
        return Spacing(_given(default, "--default-mpp"), "default", ignored)
    raise _refusal(own, objective, slide_note)


def _given(value: float, field: str) -> Mpp:
    if not is_plausible_mpp(value):
        raise SlideError(f"{field} must be between {MIN_MPP} and {MAX_MPP}, got {value:g}", todo="Correct it.")
    return Mpp(float(value))


def _disagreement(own: float, manifest: float | None) -> str:
    if manifest is None or abs(manifest - own) <= MANIFEST_TOLERANCE * own:
        return ""
    return f"manifest says {manifest:g} mpp, slide {own:g}: slide taken"


def _refusal(own: float | None, objective: float | None, slide_note: str) -> SlideError:
    hint = f" (the slide says {objective:g}x, often about {_MICRONS_OF_1X / objective:g})" if objective else ""
    if own is not None:
        what = f"implausible mpp {own:g}: the slide's own resolution must be between {MIN_MPP} and {MAX_MPP}"
    else:
        what = slide_note or "no mpp: the slide does not state its resolution"
    return SlideError(what, todo=f"{_TODO}{hint}.")
