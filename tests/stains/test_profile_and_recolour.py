"""Stain of pixels whose stain is known: vectors, concentrations, what fits what, and what recolouring gives."""

from __future__ import annotations

import numpy as np
import pytest

from tests.stains.stained_slides import DAB, EOSIN, GLASS, HAEMATOXYLIN, tissue_patch, unit
from wsi_pipeline.stains.choose_target import BLUE_ENOUGH, blueness, medoid, well_apart
from wsi_pipeline.stains.density import WHITE, measure_glass
from wsi_pipeline.stains.estimate import angle, sparse_codes
from wsi_pipeline.stains.recolour import MOST_CHANGE, Recolouring, misfit
from wsi_pipeline.stains.stain_profile import BROWN, HE, ONE, UNKNOWN, StainProfile, profile_pixels

METHODS = ("macenko", "vahadane", "reinhard")


def profile(patch: np.ndarray, method: str = "macenko", glass: tuple[float, ...] = GLASS) -> StainProfile:
    return profile_pixels(patch.reshape(-1, 3), method, glass, "background", 1)


@pytest.mark.parametrize("method", ["macenko", "vahadane"])
def test_vectors_and_strength_of_a_known_stain_are_found(method: str) -> None:
    weak, strong = (profile(tissue_patch(amounts=amounts), method) for amounts in ((1.0, 1.0), (1.5, 0.8)))
    for found in (weak, strong):
        assert found.kind == HE
        assert found.fault == ""
        assert angle(np.array(found.vectors[0]), unit(HAEMATOXYLIN)) < 6
        assert angle(np.array(found.vectors[1]), unit(EOSIN)) < 6
    close = 0.08 if method == "macenko" else 0.12
    assert strong.strength[0] / weak.strength[0] == pytest.approx(1.5, rel=close)
    assert strong.strength[1] / weak.strength[1] == pytest.approx(0.8, rel=close)


@pytest.mark.parametrize("method", METHODS)
def test_glass_in_the_sample_changes_nothing(method: str) -> None:
    full = tissue_patch(3)
    rows = np.concatenate([full.reshape(-1, 3), np.full((9 * 65536, 3), np.round(GLASS), np.uint8)])
    alone, diluted = profile(full, method), profile_pixels(rows, method, GLASS, "background", 1)
    assert diluted.stained < 0.11
    for name in ("vectors", "strength", "mean", "spread", "kind", "median_density", "pixels"):
        assert getattr(diluted, name) == getattr(alone, name), name


@pytest.mark.parametrize("method", METHODS)
def test_a_stain_given_to_itself_changes_no_pixel(method: str) -> None:
    own = profile(tissue_patch(1), method)
    colours = np.random.default_rng(0).integers(0, 256, (4, 128, 128, 3), dtype=np.uint8)
    extreme = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8)
    colours[0, 0, :5] = extreme
    assert np.array_equal(Recolouring(own, own)(colours).numpy(), colours)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("part", [0.0, 0.01, 0.05])
def test_white_stays_white_at_0_to_5_percent_tissue(method: str, part: float) -> None:
    slide, target = profile(tissue_patch(1), method), profile(tissue_patch(2, amounts=(0.6, 1.6)), method)
    change = Recolouring(slide, target)
    for glass in (GLASS, WHITE):
        patch = tissue_patch(5, part=part, glass=glass, noise=0)
        changed = change(patch[None])[0].numpy()
        edge = round(part * patch.shape[1])
        assert np.array_equal(changed[:, edge:], patch[:, edge:])
        if edge:
            assert not np.array_equal(changed[:, :edge], patch[:, :edge])


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_equals_one_by_one(method: str) -> None:
    change = Recolouring(profile(tissue_patch(1), method), profile(tissue_patch(2, amounts=(0.6, 1.6)), method))
    batch = np.stack([tissue_patch(7), np.full((256, 256, 3), 255, np.uint8), tissue_patch(8, part=0.02)])
    whole = change(batch).numpy()
    assert all(np.array_equal(change(patch[None])[0].numpy(), own) for patch, own in zip(batch, whole, strict=True))
    assert np.array_equal(whole[1], batch[1])


@pytest.mark.parametrize("method", METHODS)
def test_the_changed_slide_has_the_stain_of_the_target(method: str) -> None:
    slide = tissue_patch(1, amounts=(1.0, 1.0))
    target = profile(tissue_patch(2, amounts=(0.7, 1.4), vectors=((0.66, 0.68, 0.30), (0.10, 0.93, 0.35))), method)
    before = profile(slide, method)
    after = profile(Recolouring(before, target)(slide[None])[0].numpy(), method)
    if method == "reinhard":
        assert np.allclose(after.mean, target.mean, atol=0.01)
        assert np.allclose(after.spread, target.spread, rtol=0.1)
        return
    for own, wanted in zip(after.vectors, target.vectors, strict=True):
        assert angle(np.array(own), np.array(wanted)) < 4
    assert np.allclose(after.strength, target.strength, rtol=0.06)
    assert not np.allclose(before.strength, target.strength, rtol=0.2)


def test_what_neither_stain_explains_is_kept() -> None:
    """Green ink on an H&E slide stays green: two stains alone would repaint it in their own colours."""
    change = Recolouring(profile(tissue_patch(1)), profile(tissue_patch(2, amounts=(0.7, 1.4))))
    red, green, blue = (int(value) for value in change(np.array([[[[40, 150, 70]]]], np.uint8)).numpy()[0, 0, 0])
    assert green > red + 60
    assert green > blue + 40


def test_kinds_of_stain_are_told_apart_and_not_given_to_each_other() -> None:
    he, brown = profile(tissue_patch(1)), profile(tissue_patch(1, vectors=(HAEMATOXYLIN, DAB)))
    one = profile(tissue_patch(1, vectors=(HAEMATOXYLIN, HAEMATOXYLIN)))
    assert [he.kind, brown.kind, one.kind] == [HE, BROWN, ONE]
    assert misfit(he, he) == ""
    assert misfit(brown, brown) == ""
    assert misfit(brown, he) == "its stain is brown (as DAB), the target's H&E"
    assert misfit(one, he) == one.fault == "one stain only"


def test_black_beside_haematoxylin_is_no_eosin() -> None:
    """DAB that lets no light through, and soot: Macenko's second vector is grey, and was repainted in pink."""
    he = profile(tissue_patch(1))
    for grey in ((0.513, 0.599, 0.615), (0.577, 0.577, 0.577)):
        dark = profile(tissue_patch(1, vectors=(HAEMATOXYLIN, grey), amounts=(1.0, 2.0)))
        assert dark.kind == UNKNOWN
        assert misfit(dark, he) == "its stains are not recognised as haematoxylin with eosin or DAB"
        assert medoid({"dark": dark}) is None


def test_nearly_unstained_and_empty_slides_are_named() -> None:
    faint = profile(tissue_patch(1, amounts=(0.22, 0.26)))
    assert faint.fault.startswith("nearly unstained: median density 0.")
    nothing = profile(np.full((64, 64, 3), 243, np.uint8))
    assert nothing.fault == "too little tissue: 0 stained pixels, at least 2000 are needed"
    target = profile(tissue_patch(2, amounts=(1.0, 2.0)))
    weak = profile(tissue_patch(1, amounts=(1.0, 1.0)))
    values = {**weak.to_json(), "strength": [weak.strength[0] / (2 * MOST_CHANGE), weak.strength[1]]}
    assert "haematoxylin would have to change" in misfit(StainProfile.from_json(values), target)


def test_a_profile_survives_its_file_exactly() -> None:
    own = profile(tissue_patch(1), "vahadane")
    assert StainProfile.from_json(own.to_json()) == own
    other = profile(tissue_patch(2), "vahadane")
    assert own.fingerprint != other.fingerprint
    with pytest.raises(ValueError, match="shape"):
        StainProfile.from_json({**own.to_json(), "mean": [1.0]})


def test_the_medoid_is_the_middle_slide_of_the_most_common_kind_in_any_order() -> None:
    amounts = {"weak": (0.6, 0.6), "middle": (1.0, 1.0), "strong": (1.7, 1.7), "near": (1.1, 1.1)}
    known = {name: profile(tissue_patch(4, amounts=pair)) for name, pair in amounts.items()}
    known["ihc"] = profile(tissue_patch(4, vectors=(HAEMATOXYLIN, DAB)))
    known["blank"] = profile(np.full((64, 64, 3), 243, np.uint8))
    chosen = medoid(known)
    assert chosen in ("middle", "near")
    assert medoid(dict(reversed(known.items()))) == chosen
    assert medoid({"blank": known["blank"]}) is None


PINK_HAEMATOXYLIN = (0.37, 0.77, 0.52)


def test_a_slide_with_pink_haematoxylin_is_no_target_however_typical_it_is() -> None:
    """The most typical of seven real slides had it, and the nuclei of the others became pink."""
    known = {
        f"blue{i}": profile(tissue_patch(i, amounts=(1.0 + 0.5 * i, 1.0 + 0.3 * i), vectors=(vector, EOSIN)))
        for i, vector in enumerate([(0.60, 0.72, 0.35), (0.78, 0.54, 0.31), (0.54, 0.73, 0.42)])
    }
    pink = profile(tissue_patch(5, amounts=(1.4, 1.3), vectors=(PINK_HAEMATOXYLIN, (0.07, 0.90, 0.42))))
    pinks = {f"pink{i}": pink for i in range(3)}
    assert pink.kind == HE
    assert blueness(pink) < BLUE_ENOUGH
    assert medoid({**known, **pinks}).startswith("blue")
    assert medoid(pinks) == "pink0", "where no slide is better, one of them is chosen"


def test_of_two_blue_slides_the_one_with_stains_further_apart_is_the_target() -> None:
    far = profile(tissue_patch(1))
    near = profile(tissue_patch(1, vectors=(HAEMATOXYLIN, (0.42, 0.80, 0.42))))
    names = {"a-near": near, "b-far": far}
    assert well_apart(names) == ["b-far"]
    assert medoid(names) == medoid(dict(reversed(names.items()))) == "b-far"
    assert medoid({"a-near": near}) == "a-near"


def test_sparse_codes_are_the_minimum() -> None:
    """Against a search over a fine grid of concentrations."""
    rng = np.random.default_rng(2)
    vectors = np.stack([unit(HAEMATOXYLIN), unit(EOSIN)])
    densities = rng.gamma(1.0, 0.4, (40, 3))
    found = sparse_codes(densities, vectors)
    grid = np.stack(np.meshgrid(*[np.linspace(0, 4, 401)] * 2, indexing="ij"), -1).reshape(-1, 2)

    def cost(codes: np.ndarray, density: np.ndarray) -> np.ndarray:
        return ((density - codes @ vectors) ** 2).sum(axis=1) / 2 + 0.1 * codes.sum(axis=1)

    for density, code in zip(densities, found, strict=True):
        assert (code >= 0).all()
        assert cost(code[None], density)[0] <= cost(grid, density).min() + 1e-4


def test_glass_is_measured_outside_the_tissue_or_white() -> None:
    patch = tissue_patch(1, part=0.5)
    glass, source = measure_glass(patch)
    assert source == "background"
    assert np.allclose(glass, GLASS, atol=1.5)
    assert measure_glass(tissue_patch(1)) == (WHITE, "white")
    assert measure_glass(patch, np.ones(patch.shape[:2], bool)) == (WHITE, "white")
