"""Order of trust for the resolution."""

from __future__ import annotations

import pytest

from wsi_pipeline.errors import SlideError
from wsi_pipeline.geometry import Size
from wsi_pipeline.slides.metadata import number, one_mpp
from wsi_pipeline.slides.slide import Level, SlideInfo
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
        (0.5, 0.53, "manifest says 0.53 mpp, slide 0.5: using the slide's"),
        (0.5, 0.25, "manifest says 0.25 mpp, slide 0.5: using the slide's"),
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


WIDE = Size(8192, 6144)


@pytest.mark.parametrize(
    ("own", "objective", "size", "words"),
    [
        (0.05, None, WIDE, "stated mpp 0.05 makes this slide 0.41 mm wide (wrong unit?)"),
        (0.05, 20, WIDE, "makes this slide 0.41 mm wide (the slide says 20x, often about 0.5)"),
        (0.1, None, Size(13_000, 9_000), "stated mpp 0.1 makes this slide 1.3 mm wide"),
        (5.0, None, Size(40_000, 9_000), "stated mpp 5 makes this slide 200 mm wide"),
        (2.0, None, Size(9_000, 60_000), "stated mpp 2 makes this slide 18 mm wide"),  # and 120 mm long
        (2.0, 40, WIDE, "the slide says 40x, often about 0.25"),
    ],
)
def test_a_resolution_ten_times_off_is_noted_with_what_follows(
    own: float, objective: float | None, size: Size, words: str
) -> None:
    info = SlideInfo((Level(size, 1.0),), own, objective, "any", "any")
    spacing = spacing_of(info, None, None)
    assert (spacing.mpp, spacing.source) == (own, "slide")
    assert words in spacing.note


@pytest.mark.parametrize(("own", "objective"), [(0.25, 40), (0.25, 20), (0.5, 20), (0.17, 60), (1.0, 10), (2.0, 5)])
def test_usual_resolutions_are_not_noted(own: float, objective: float) -> None:
    info = SlideInfo((Level(Size(30_000, 20_000), 1.0),), own, objective, "any", "any")
    assert spacing_of(info, None, 0.5).note == ""


def test_the_manifest_corrects_a_doubtful_resolution_but_not_a_usual_one() -> None:
    doubtful = spacing_of(SlideInfo((Level(WIDE, 1.0),), 0.05, 20, "any", "any"), 0.5, None)
    assert (doubtful.mpp, doubtful.source) == (0.5, "manifest")
    assert doubtful.note.endswith("using the manifest's 0.5")
    usual = spacing_of(SlideInfo((Level(WIDE, 1.0),), 0.5, 20, "any", "any"), 0.05, None)
    assert (usual.mpp, usual.note) == (0.5, "manifest says 0.05 mpp, slide 0.5: using the slide's")


def test_a_given_resolution_that_the_objective_contradicts_is_noted() -> None:
    info = SlideInfo((Level(WIDE, 1.0),), None, 20, "any", "any")
    for manifest, default in ((0.05, None), (None, 0.05)):
        assert "makes this slide 0.41 mm wide (the slide says 20x" in spacing_of(info, manifest, default).note
    assert spacing_of(info, 0.5, None).note == ""
    assert "--default-mpp says 5, slide 0.5" in resolve_mpp(0.5, None, 5.0).note


def test_below_the_bound_a_resolution_is_refused() -> None:
    for own in (0.025, 0.0499):
        with pytest.raises(SlideError, match=r"must be between 0\.05 and 20"):
            spacing_of(SlideInfo((Level(WIDE, 1.0),), own, None, "any", "any"), None, None)
