"""A slide is flagged when it is far from training slides: about as often as promised when it is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained import novelty


def cohort(n: int, *, dim: int = 24, seed: int = 0, shift: float = 0.0, patches: int = 30) -> Bags:
    """n slides whose means differ much in three directions (sites, stains) and little in the others."""
    rng = np.random.default_rng(seed)
    wide = np.random.default_rng(99).normal(size=(3, dim))
    means = rng.normal(size=(n, 3)) @ wide + rng.normal(0, 0.15, (n, dim))
    means[:, -1] += shift
    arrays = [(mean + rng.normal(size=(patches, dim))).astype(np.float32) for mean in means]
    return Bags.from_arrays(arrays, [f"s{seed}-{i}" for i in range(n)])


@settings(max_examples=25, deadline=None)
@given(n=st.integers(3, 30), dim=st.integers(2, 40), seed=st.integers(0, 1000))
def test_shrinkage_and_distance_equal_scikit_learns(n: int, dim: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, dim)) * np.linspace(0.3, 2, dim)
    centred = rows - rows.mean(0)
    assert novelty.ledoit_wolf(centred @ centred.T, dim) == pytest.approx(ledoit_wolf_shrinkage(rows), abs=1e-9)
    new = np.random.default_rng(seed + 1).normal(size=(5, dim))
    expected = np.sqrt(LedoitWolf().fit(rows).mahalanobis(new))
    np.testing.assert_allclose(novelty.Ellipsoid.of(rows, dim).distance(new), expected, rtol=1e-6)


def test_held_out_distances_are_those_of_fits_without_the_patient() -> None:
    bags = cohort(9, dim=40)
    patients = ["a", "a", "b", "c", "d", "e", "e", "f", "g"]
    fitted = novelty.fit(bags, patients=patients)
    rows = np.stack([bags.bag(i).numpy().mean(0, dtype=np.float64) for i in range(9)]) / fitted.scale
    found = []
    for i, patient in enumerate(patients):
        others = rows[[p != patient for p in patients]]
        found.append(float(np.sqrt(LedoitWolf().fit(others).mahalanobis(rows[i : i + 1]))[0]))
    np.testing.assert_allclose(fitted.held_out, np.sort(found), rtol=1e-5)


@pytest.mark.parametrize("dim", [12, 200])
def test_slides_like_the_training_slides_are_flagged_about_as_often_as_promised(dim: int) -> None:
    flagged = []
    for seed in range(12):
        fitted = novelty.fit(cohort(40, dim=dim, seed=seed, patches=8))
        table = fitted.columns(cohort(60, dim=dim, seed=1000 + seed, patches=8))
        flagged.append(float((table["far_from_training"] == novelty.YES).mean()))
    assert 0.01 <= np.mean(flagged) <= 0.09


def test_a_slide_that_goes_where_no_training_slide_went_is_flagged() -> None:
    fitted = novelty.fit(cohort(40))
    assert set(fitted.columns(cohort(20, seed=5, shift=4.0))["far_from_training"]) == {novelty.YES}
    # As far, but in a direction in which training slides differ anyway.
    wide = np.random.default_rng(99).normal(size=(3, 24))
    along = wide[0] / np.linalg.norm(wide[0]) * 4.0
    typical = cohort(20, seed=6)
    moved = [typical.bag(i).numpy() + along.astype(np.float32) for i in range(20)]
    flags = fitted.columns(Bags.from_arrays(moved, typical.slide_ids))["far_from_training"]
    assert (flags == novelty.YES).mean() < 0.5


def test_a_typical_slide_has_a_novelty_of_about_one() -> None:
    table = novelty.fit(cohort(60)).columns(cohort(60, seed=3))
    assert 0.85 < float(table["novelty"].median()) < 1.15


def test_few_patients_cannot_tell() -> None:
    bags = cohort(40)
    fitted = novelty.fit(bags, patients=[f"p{i % 10}" for i in range(40)])
    assert fitted.limit() is None
    table = fitted.columns(cohort(5, seed=1, shift=50.0))
    assert set(table["far_from_training"]) == {novelty.UNKNOWN}
    assert (table["novelty"] > 5).all(), "the distance is told all the same"


def test_empty_bags_are_passed_over_and_unknown() -> None:
    full = cohort(25)
    arrays = [full.bag(i).numpy() for i in range(25)] + [np.zeros((0, 24), np.float32)]
    bags = Bags.from_arrays(arrays, [*full.slide_ids, "empty"])
    table = novelty.fit(bags).columns(bags)
    assert table["far_from_training"].iloc[-1] == novelty.UNKNOWN
    assert np.isnan(table["novelty"].iloc[-1])
    assert table["novelty"].iloc[:-1].notna().all()


def test_slides_all_alike_make_any_other_far() -> None:
    same = Bags.from_arrays([np.ones((4, 3), np.float32)] * 25, [f"s{i}" for i in range(25)])
    other = Bags.from_arrays([np.full((4, 3), 1.2, np.float32)], ["other"])
    assert novelty.fit(same).columns(other)["far_from_training"].tolist() == [novelty.YES]


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    assert novelty.load(tmp_path) is None
    fitted, new = novelty.fit(cohort(30)), cohort(10, seed=2)
    path = novelty.save(tmp_path, fitted)
    again = novelty.load(tmp_path)
    assert again is not None
    np.testing.assert_allclose(again.distance(new), fitted.distance(new), rtol=1e-4)
    assert again.limit() == pytest.approx(fitted.limit(), rel=1e-5)
    first = path.read_bytes()
    novelty.save(tmp_path, fitted)
    assert path.read_bytes() == first


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = novelty.save(tmp_path, novelty.fit(cohort(30)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StoreError, match="damaged"):
        novelty.load(tmp_path)
    save_file({name: np.zeros((2, 2), np.float32) for name in ("mean", "scale", "basis", "variances", "rest",
                                                               "held_out")}, path)  # fmt: skip
    with pytest.raises(StoreError, match="fit together"):
        novelty.load(tmp_path)


def test_too_few_slides_and_other_features_are_refused() -> None:
    with pytest.raises(MilError, match="at least 3"):
        novelty.fit(cohort(2))
    with pytest.raises(MilError, match="24 values, got 12"):
        novelty.fit(cohort(5)).distance(cohort(2, dim=12))
