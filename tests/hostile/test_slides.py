"""Spoilt slides, a sample of the corpus: each ends as pixels or as a named refusal.

The whole corpus: `python -m benchmarks.torture_slides`.
"""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import pytest

from tests.hostile.slide_bases import synthetic_bases
from tests.hostile.slide_cases import TIFF_SPOILERS, Case, cases, make
from tests.hostile.tiff_parts import WIDTH, layout_of
from tests.hostile.trial import ALLOWED, Outcome, attempt_all
from tests.slide_files import write_ome_tiff, write_pyramid_tiff, write_stripped_tiff
from tests.stages.cohorts import blob_slide
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.tiff.tiff_check import _check_chain, _Layout, check_complete

OF_EACH_KIND = 6
DICOM = "slides/multiframe_camelyon_challenge_image.dcm"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return list(synthetic_bases(tmp_path_factory.mktemp("bases")).values())


@pytest.fixture(scope="module")
def outcomes(bases: list[Path], tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Case, Outcome]]:
    every = list(cases(bases, 5))
    random.Random(0).shuffle(every)
    kinds = {case.kind: [other for other in every if other.kind == case.kind] for case in every}
    spoilt = [case for found in kinds.values() for case in found[:OF_EACH_KIND]]
    sound = [Case("sound", base, 0) for base in bases]
    mixed = itertools.chain(*itertools.zip_longest(spoilt, sound))
    return list(attempt_all((case for case in mixed if case), tmp_path_factory.mktemp("work")))


def test_spoilt_slides_are_done_or_refused_with_a_reason(outcomes: list[tuple[Case, Outcome]]) -> None:
    odd = [f"{case.name}: {found.outcome}, {found.reason}" for case, found in outcomes if found.outcome not in ALLOWED]
    assert not odd, "\n".join(odd)
    for case, found in outcomes:
        assert (found.reason == "") == (found.outcome == "done"), case
        assert "\n" not in found.reason
        assert "Traceback" not in found.reason


def test_the_sound_slides_among_them_are_done(outcomes: list[tuple[Case, Outcome]]) -> None:
    sound = [found for case, found in outcomes if case.kind == "sound"]
    assert len(sound) == 8
    assert {(found.outcome, found.patches, found.checked) for found in sound} == {("done", sound[0].patches, "")}
    assert sound[0].patches > 5


def test_no_truncated_copy_passes_for_whole(bases: list[Path], tmp_path: Path) -> None:
    for base in bases:
        for seed in range(0, 50, 7):
            path = make(Case("truncated", base, seed), tmp_path)
            with pytest.raises(SlideError, match=r"^(truncated|damaged) TIFF|the file ends before it"):
                _read_whole(path)


def _read_whole(path: Path) -> None:
    check_complete(path)
    with open_slide(path) as slide:  # strips may be longer than they say, so the last shows only when it is read
        slide.read_region(0, 0, 0, slide.info.size.width, slide.info.size.height)


def test_dicom_that_is_cut_is_refused(data_dir: Path, tmp_path: Path) -> None:
    spoilt = [Case("truncated", data_dir / DICOM, seed) for seed in range(0, 50, 9)]
    assert {outcome.outcome for _, outcome in attempt_all(spoilt, tmp_path)} == {"refused"}


def test_cases_are_the_same_every_time_and_differ_from_their_base(bases: list[Path], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    for kind in TIFF_SPOILERS:
        case = Case(kind, bases[0], 3)
        content = make(case, tmp_path / "one").read_bytes()
        assert content == make(case, tmp_path / "two").read_bytes()
        assert content != bases[0].read_bytes()


def test_directories_that_form_a_circle_are_refused_and_shared_ones_are_not(tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", blob_slide(0, side=256), mpp=0.5, tile=64)
    layout, raw = layout_of(path), bytearray(path.read_bytes())
    raw[layout.next_at[-1] : layout.next_at[-1] + 4] = layout.directories[0].to_bytes(4, "little")
    file = io.BytesIO(raw)  # in memory, for our guard alone: no reader is given such a file
    with pytest.raises(SlideError, match="directories form a loop"):
        _check_chain(file, _Layout("<", False, len(raw)), layout.directories[0], set(), [])
    # SubIFDs: each is named by the parent and follows another, which is no circle
    check_complete(write_ome_tiff(tmp_path / "b.ome.tif", blob_slide(0, side=256), mpp=0.5))


def test_a_slide_whose_width_does_not_fit_its_tiles_is_refused(tmp_path: Path) -> None:

    path = write_pyramid_tiff(tmp_path / "a.svs", blob_slide(0, side=256), mpp=0.5, tile=64)
    entry, raw = layout_of(path).of(WIDTH)[0], bytearray(path.read_bytes())
    raw[entry.values_at : entry.values_at + 2] = (100).to_bytes(2, "little")
    path.write_bytes(raw)
    with pytest.raises(SlideError, match=r"100 x 256 pixels\) needs 8 tiles but lists 16"):
        check_complete(path)


@pytest.mark.parametrize(("kind", "words"), [(11, "does not hold integers"), (2, "does not hold integers")])
def test_lengths_that_are_no_whole_numbers_are_refused(kind: int, words: str, tmp_path: Path) -> None:
    path = write_pyramid_tiff(tmp_path / "a.svs", blob_slide(0, side=256), mpp=0.5, tile=64)
    entry, raw = layout_of(path).of(325)[0], bytearray(path.read_bytes())
    raw[entry.entry_at + 2 : entry.entry_at + 4] = kind.to_bytes(2, "little")
    path.write_bytes(raw)
    with pytest.raises(SlideError, match=words):
        check_complete(path)


def test_jpeg_strips_narrower_than_their_image_are_refused_at_once(tmp_path: Path) -> None:
    path = write_stripped_tiff(tmp_path / "a.tif", blob_slide(0, side=256), mpp=0.5)
    entry, raw = layout_of(path).of(WIDTH)[0], bytearray(path.read_bytes())
    raw[entry.entry_at + 2 : entry.entry_at + 4] = (4).to_bytes(2, "little")
    raw[entry.values_at : entry.values_at + 4] = (272).to_bytes(4, "little")
    path.write_bytes(raw)
    with open_slide(path) as slide, pytest.raises(SlideError, match="strip of 256 pixels width in an image of 272"):
        slide.read_region(0, 0, 0, 64, 64)
