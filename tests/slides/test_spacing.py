"""Order of trust for the resolution."""

from __future__ import annotations

import pytest

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.base import Level, SlideInfo
from wsi_pipeline.slides.metadata import number, one_mpp
from wsi_pipeline.slides.spacing import resolve_mpp, spacing_of


@pytest.mark.parametrize(
    ("own", "manifest", "default", "mpp", "source"),
    [
        (0.25, None, None, 0.25, "slide"),
        (0.25, 0.5, 1.0, 0.25, "slide"),
        (None, 0.5, 1.0, 0.5, "manifest"),
        (None, None, 1.0, 1.0, "default"),
        (352.8, 0.5, 1.0, 0.5, "manifest"),
        (352.8, None, 1.0, 1.0, "default"),
        (0.001, 0.5, None, 0.5, "manifest"),
        (0.05, None, None, 0.05, "slide"),
        (20.0, None, None, 20.0, "slide"),
    ],
)
def test_the_most_trusted_plausible_source_wins(
    own: float | None, manifest: float | None, default: float | None, mpp: float, source: str
) -> None:
    spacing = resolve_mpp(own, manifest, default)
    assert (spacing.mpp, spacing.source) == (mpp, source)


@pytest.mark.parametrize(
    ("own", "manifest", "note"),
    [
        (0.5, 0.5, ""),
        (0.5, 0.524, ""),
        (0.5, 0.476, ""),
        (0.5, 0.53, "manifest says 0.53 mpp, slide 0.5: slide taken"),
        (0.5, 0.25, "manifest says 0.25 mpp, slide 0.5: slide taken"),
        (352.8, 0.25, "slide's own mpp 352.8 is implausible, ignored"),
        (None, 0.25, ""),
    ],
)
def test_the_note_says_what_disagrees_or_was_ignored(own: float | None, manifest: float, note: str) -> None:
    assert resolve_mpp(own, manifest, None).note == note


def test_without_any_source_the_refusal_says_what_to_do() -> None:
    with pytest.raises(SlideError) as caught:
        resolve_mpp(None, None, None)
    assert caught.value.what == "no mpp: the slide does not state its resolution"
    assert caught.value.todo == "Add an mpp column to the CSV or pass --default-mpp."


def test_the_objective_is_a_hint_and_never_an_mpp() -> None:
    with pytest.raises(SlideError) as caught:
        resolve_mpp(None, None, None, objective=20)
    assert "(the slide says 20x, often about 0.5)" in str(caught.value)


def test_an_implausible_value_alone_is_refused_by_its_value() -> None:
    with pytest.raises(SlideError, match=r"implausible mpp 352\.858"):
        resolve_mpp(352.858, None, None)


@pytest.mark.parametrize("wrong", [0.0, -1.0, 25.0, float("nan"), float("inf")])
def test_implausible_given_values_are_refused_where_they_would_be_used(wrong: float) -> None:
    with pytest.raises(SlideError, match="mpp in the manifest must be between"):
        resolve_mpp(None, wrong, 0.5)
    with pytest.raises(SlideError, match="--default-mpp must be between"):
        resolve_mpp(None, None, wrong)
    assert resolve_mpp(0.5, None, wrong).mpp == 0.5


def test_unequal_axes_need_another_source() -> None:
    mpp, note = one_mpp(0.25, 0.5)
    info = SlideInfo((Level(Size(9, 9), 1.0),), mpp, 40, "any", "any", note)
    with pytest.raises(SlideError, match=r"different mpp for x \(0\.25\) and y \(0\.5\)"):
        spacing_of(info, None, None)
    assert spacing_of(info, 0.25, None).note == note


@pytest.mark.parametrize(
    ("x", "y", "mpp"),
    [(0.5, 0.5, 0.5), (28.969, 28.968, 28.9685), (0.5, None, 0.5), (None, 0.5, 0.5), (None, None, None),
     (0.5, 0.506, None)],
)  # fmt: skip
def test_one_mpp_for_both_axes(x: float | None, y: float | None, mpp: float | None) -> None:
    assert one_mpp(x, y)[0] == mpp


@pytest.mark.parametrize(
    ("value", "found"),
    [("0.25", 0.25), (" 40 ", 40), ("40x", None), (None, None), ("nan", None), ("inf", None), ("0", None), (-1, None)],
)
def test_numbers_are_read_without_trust(value: object, found: float | None) -> None:
    assert number(value) == found
