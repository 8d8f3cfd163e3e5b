"""What each change does to pixels: nothing at strength nought, more at larger strengths, and what it says."""

from __future__ import annotations

import numpy as np
import pytest

from tests.slide_files import tissue_like
from wsi_pipeline.robustness.perturbations import (
    EOSIN,
    HAEMATOXYLIN,
    KINDS,
    Perturbation,
    all_perturbations,
    centre,
    margin_px,
)

SIDE, MPP = 128, 0.5
WIDE = tissue_like(640, 640, seed=4)[200 : 200 + SIDE + 2 * margin_px(SIDE), 160 : 160 + SIDE + 2 * margin_px(SIDE)]
PATCH = centre(WIDE, SIDE)


def changed(kind, strength):
    return Perturbation(kind, strength, KINDS[kind].unit).apply(WIDE, SIDE, MPP)


def moved(kind, strength):
    return np.abs(changed(kind, strength).astype(int) - PATCH).mean()


@pytest.mark.parametrize("kind", [name for name, kind in KINDS.items() if kind.none is not None])
def test_the_strength_that_changes_nothing_changes_nothing(kind):
    assert np.array_equal(changed(kind, KINDS[kind].none), PATCH)


@pytest.mark.parametrize("change", all_perturbations(), ids=str)
def test_every_change_gives_a_patch_and_changes_it(change):
    found = change.apply(WIDE, SIDE, MPP)
    assert found.shape == (SIDE, SIDE, 3)
    assert found.dtype == np.uint8
    assert not np.array_equal(found, PATCH)


@pytest.mark.parametrize(
    ("kind", "weak_to_strong"),
    [
        ("blur", (0.25, 0.5, 1, 2)), ("jpeg", (90, 70, 50, 30)), ("haematoxylin", (1.1, 1.3)), ("eosin", (0.9, 0.7)),
        ("white balance", (0.05, 0.1)), ("gamma", (1.1, 1.3)), ("shift", (1, 4, 16)),
    ],
)  # fmt: skip
def test_stronger_changes_move_pixels_further(kind, weak_to_strong):
    values = [moved(kind, strength) for strength in weak_to_strong]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_a_shift_shows_the_real_pixels_beside_the_patch():
    margin = margin_px(SIDE)
    assert np.array_equal(changed("shift", 4), WIDE[margin + 4 : margin + 4 + SIDE, margin + 4 : margin + 4 + SIDE])
    with pytest.raises(ValueError, match="needs a margin that large, got 16"):
        changed("shift", margin + 1)


def test_quarter_turns_are_exact_and_small_turns_show_no_corner():
    assert np.array_equal(changed("rotation", 90), np.rot90(PATCH))
    assert np.array_equal(changed("rotation", 180), PATCH[::-1, ::-1])
    white = np.full_like(WIDE, 250)
    assert (Perturbation("rotation", 10, "").apply(white, SIDE, MPP) == 250).all()


@pytest.mark.parametrize(
    ("kind", "stain", "other"), [("haematoxylin", HAEMATOXYLIN, EOSIN), ("eosin", EOSIN, HAEMATOXYLIN)]
)
def test_a_stain_is_made_stronger_and_the_other_and_glass_are_left(kind, stain, other):
    def patch(density):
        return np.broadcast_to(np.rint(255 * 10 ** -np.asarray(density)), WIDE.shape).astype(np.uint8)

    pure, rest, glass = patch(0.4 * np.array(stain)), patch(0.4 * np.array(other)), np.full_like(WIDE, 255)
    change = Perturbation(kind, 1.3, "times")
    assert np.abs(change.apply(pure, SIDE, MPP).astype(int) - patch(0.52 * np.array(stain))[0, 0]).max() <= 1
    assert np.abs(change.apply(rest, SIDE, MPP).astype(int) - rest[0, 0]).max() <= 1
    assert (change.apply(glass, SIDE, MPP) == 255).all()


def test_blur_is_a_length_on_the_slide():
    finer = Perturbation("blur", 1.0, "um").apply(WIDE, SIDE, 0.25)
    assert np.array_equal(finer, changed("blur", 2.0))
