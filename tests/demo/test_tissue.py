"""The painted tissue: seeded, of any size, and with classes that differ in form more than in mean colour."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage.feature import local_binary_pattern
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wsi_pipeline.demo.layout import STEP, TISSUE_CLASSES, Recipe, plan_layout
from wsi_pipeline.demo.noise import Field, blob_radii, polar, scatter, smooth_noise
from wsi_pipeline.demo.nuclei import SHAPES, stamp_of
from wsi_pipeline.demo.stain import SITES
from wsi_pipeline.demo.tissue import synthetic_tissue
from wsi_pipeline.demo.truth import class_fractions
from wsi_pipeline.errors import UsageError
from wsi_pipeline.geometry import Box, Size

PATCH = 256


@settings(max_examples=8, deadline=None)
@given(st.integers(40, 300), st.integers(40, 300), st.integers(0, 2**32 - 1), st.booleans())
def test_any_size_and_seed_gives_stained_tissue(width: int, height: int, seed: int, tumour: bool) -> None:
    picture = synthetic_tissue((width, height), seed, tumour=tumour)
    assert picture.shape == (height, width, 3)
    assert picture.dtype == np.uint8
    red, green, blue = np.median(picture.reshape(-1, 3), axis=0)
    assert green < blue  # pink to purple: haematoxylin and eosin both absorb green most
    assert green < red
    assert np.array_equal(picture, synthetic_tissue((width, height), seed, tumour=tumour))


def features(picture: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean colour, and the histogram of local binary patterns at two radii."""
    grey = picture.mean(axis=2).astype(np.uint8)
    patterns = [local_binary_pattern(grey, 8, radius, "uniform") for radius in (1, 3)]
    texture = [np.bincount(pattern.astype(int).ravel(), minlength=10) / grey.size for pattern in patterns]
    return picture.reshape(-1, 3).mean(axis=0), np.concatenate(texture)


def test_form_tells_the_classes_apart_better_than_mean_colour() -> None:
    rows = []
    for site in range(len(SITES)):
        for seed in range(5):
            for tumour in (False, True):
                picture = synthetic_tissue(2 * PATCH, 100 * site + seed, tumour=tumour, site=site)
                for y, x in ((0, 0), (0, PATCH), (PATCH, 0), (PATCH, PATCH)):
                    rows.append((site, tumour, *features(picture[y : y + PATCH, x : x + PATCH])))
    sites, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    scores = []
    for column in (2, 3):
        known = np.array([row[column] for row in rows])
        per_site = []
        for site in range(len(SITES)):
            model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
            model.fit(known[sites != site], labels[sites != site])
            per_site.append(roc_auc_score(labels[sites == site], model.decision_function(known[sites == site])))
        scores.append(float(np.mean(per_site)))
    colour, form = scores
    assert form > 0.93
    assert form > colour + 0.05


def test_tumour_nuclei_are_larger_and_less_alike() -> None:
    areas = {
        kind: np.array([float((1 - stamp_of(kind, shape, 0).keep).sum()) for shape in range(SHAPES)])
        for kind in ("epithelial", "tumour", "vesicular")
    }
    normal = areas["epithelial"]
    for kind in ("tumour", "vesicular"):
        assert areas[kind].mean() > 1.5 * normal.mean()
        assert areas[kind].std() / areas[kind].mean() > 1.3 * normal.std() / normal.mean()


@pytest.mark.parametrize("wrong", [{"fat": 0.9}, {"gland_density": 2.0}, {"tumour": -1}])
def test_impossible_recipes_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="must be"):
        Recipe(Size(600, 600), **wrong)  # type: ignore[arg-type]


@settings(max_examples=10, deadline=None)
@given(st.integers(700, 1500), st.integers(700, 1500), st.integers(1, 3), st.integers(0, 2), st.integers(0, 10**6))
def test_layout_keeps_glands_apart_and_tumour_in_tissue(w: int, h: int, pieces: int, tumour: int, seed: int) -> None:
    recipe = Recipe(Size(w, h), pieces=pieces, tumour=tumour, tumour_radius=150)
    layout = plan_layout(recipe, np.random.default_rng(seed))
    assert layout.classes.shape == (-(-h // STEP), -(-w // STEP))
    assert np.all(layout.tissue.values[layout.tumour.values > 0] > 0)
    assert bool((layout.classes == TISSUE_CLASSES.index("tumour")).any()) == (tumour > 0)
    centres = np.array([(gland.x, gland.y, gland.radii.min()) for gland in layout.glands]).reshape(-1, 3)
    apart = np.hypot(*(centres[:, None, :2] - centres[None, :, :2]).transpose(2, 0, 1))
    assert np.all(apart + 1e9 * np.eye(len(centres)) > centres[:, 2][:, None] + centres[:, 2][None, :])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 60), st.integers(0, 60), st.integers(2, 16))
def test_a_block_of_a_field_is_a_part_of_the_whole(h: int, w: int, top: int, left: int, step: int) -> None:
    values = smooth_noise((20, 24), 2.0, np.random.default_rng(step))
    field = Field(values, step)
    whole = field.block(slice(0, 160), slice(0, 160))
    part = field.block(slice(top, top + h), slice(left, left + w))
    assert np.allclose(part, whole[top : top + h, left : left + w], atol=1e-5)
    flat = Field(np.full((20, 24), 3.0, np.float32), step)
    assert np.allclose(flat.block(slice(top, top + h), slice(left, left + w)), 3.0, atol=1e-5)


def test_a_circle_knows_how_deep_a_point_lies_in_it() -> None:
    x, y = np.array([0.0, 10.0, 0.0, -25.0]), np.array([0.0, 0.0, -20.0, 0.0])
    depth, angle = polar(np.full(128, 20.0), x, y)
    assert np.allclose(depth, [20, 10, 0, -5], atol=1e-3)
    assert np.allclose(angle[1:], [0, 1.5 * np.pi, np.pi], atol=1e-3)


def test_scattered_points_cover_the_ground_evenly() -> None:
    points = scatter((400, 300), 20, 0.3, np.random.default_rng(0))
    inside = points[(points >= 0).all(1) & (points < (400, 300)).all(1)]
    assert len(inside) == pytest.approx(400 * 300 / (20 * 20 * 0.866), rel=0.1)
    counts = np.histogram2d(inside[:, 0], inside[:, 1], bins=(4, 3))[0]
    assert counts.min() > 0.6 * counts.mean()


def test_blobs_have_the_radius_and_shape_asked_for() -> None:
    radii = blob_radii(50, 2.0, 0.0, np.random.default_rng(0), turn=0.0)
    assert radii[0] / radii[32] == pytest.approx(2.0, rel=0.01)
    assert radii[0] * radii[32] == pytest.approx(50**2, rel=0.01)


def test_class_fractions_of_a_rectangle() -> None:
    classes = np.zeros((10, 10), np.uint8)
    classes[:, 5:] = TISSUE_CLASSES.index("tumour")
    assert class_fractions(classes, Box(0, 0, 10 * STEP, 10 * STEP)).tolist() == [0.5, 0, 0, 0, 0, 0.5]
    assert class_fractions(classes, Box(-80, 0, 40, 40)).sum() == 0
    assert class_fractions(classes, Box(5 * STEP, 0, STEP, STEP))[-1] == 1
