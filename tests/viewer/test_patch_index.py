"""The index of very many patches finds nearly what comparing all of them finds, and is kept up to date by slide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.nearest import patch_index
from wsi_pipeline.viewer.nearest.patch_index import PatchIndex, kept_index, make_index
from wsi_pipeline.viewer.nearest.similar_patches import SimilarPatches, nearest_of_all, squared_lengths, weights_of

NOBODY = (0, 0, np.zeros(0, np.bool_))
STATED_RECALL = 0.95


def features_of(rows: int, seed: int = 0, dim: int = 64, inner: int = 12) -> np.ndarray:
    """Rows near a curved surface of `inner` dimensions, as features of an encoder are."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(60, inner))[rng.integers(60, size=rows)] * 2 + rng.normal(size=(rows, inner))
    ways = np.random.default_rng(99).normal(size=(inner, dim)) / np.sqrt(inner)
    return (np.tanh(hidden @ ways) + 0.05 * rng.normal(size=(rows, dim))).astype(np.float16)


@pytest.fixture
def small_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patch_index, "ROWS_PER_LIST", 50)


def recall(index: PatchIndex, features: np.ndarray, queries: int = 60, count: int = 24) -> float:
    weights = index.weights
    squares, hits = squared_lengths(features, weights), 0
    for query in np.random.default_rng(1).integers(len(features), size=queries):
        truth, away = nearest_of_all(features, int(query), count, NOBODY, weights, squares)
        found, theirs = index.nearest(features, int(query), count, NOBODY)
        assert found[0] == query
        assert (np.diff(theirs) >= 0).all()
        same = np.isin(found, truth)
        at = {int(row): value for row, value in zip(truth, away, strict=True)}
        np.testing.assert_allclose(theirs[same], [at[int(row)] for row in found[same]], atol=2e-2, rtol=2e-2)
        hits += int(same.sum())
    return hits / (queries * count)


@pytest.mark.usefixtures("small_lists")
def test_it_finds_nearly_all_of_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    features = features_of(40_000)
    index = make_index(features, weights_of(features))
    assert len(index.centres) == 800
    assert index.searched == 50
    assert sorted(index.rows.tolist()) == list(range(40_000))
    assert recall(index, features) >= STATED_RECALL
    monkeypatch.setattr(patch_index, "LEAST_LISTS", 1)
    monkeypatch.setattr(patch_index, "PART_SEARCHED", 800)
    assert index.searched == 1
    assert recall(index, features) < 0.8, "with one list the test sees that neighbours are missed"


@pytest.mark.usefixtures("small_lists")
def test_rows_left_out_are_never_found_and_others_take_their_place() -> None:
    features = features_of(4000)
    index = make_index(features, weights_of(features))
    own = np.ones(3000, np.bool_)
    rows, _ = index.nearest(features, 7, 30, (0, 3000, own))
    assert len(rows) == 30
    assert rows.min() >= 3000


@pytest.mark.usefixtures("small_lists")
def test_only_changed_slides_are_assigned_again(tmp_path: Path) -> None:
    path, features = tmp_path / "index.npz", features_of(6000)
    weights, offsets = weights_of(features), np.array([0, 1000, 3000, 5000, 6000])
    names = ["a 1", "b 1", "c 1", "d 1"]
    first, assigned = kept_index(path, names, features, offsets, weights)
    assert assigned == 4
    again, assigned = kept_index(path, names, features, offsets, weights)
    assert assigned == 0
    np.testing.assert_array_equal(first.lists, again.lists)
    other = features_of(1000, seed=5)
    changed = np.concatenate((features[:5000], other))
    after, assigned = kept_index(path, [*names[:3], "d 2"], changed, offsets, weights_of(changed))
    assert assigned == 1
    np.testing.assert_array_equal(after.centres, first.centres)
    np.testing.assert_array_equal(after.lists[:5000], first.lists[:5000])
    assert recall(after, changed, queries=20) >= STATED_RECALL
    less, assigned = kept_index(path, ["a 1", "c 1"], features[np.r_[0:1000, 3000:5000]], offsets[:3], weights)
    assert assigned == 0
    np.testing.assert_array_equal(less.lists[1000:], first.lists[3000:5000])
    most = np.concatenate((features[:1000], features_of(2000, seed=6)))
    anew, assigned = kept_index(path, ["a 1", "c 9"], most, offsets[:3], weights)
    assert assigned == 2
    assert not np.array_equal(anew.centres[:10], first.centres[:10])


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x93NUMPY"])
def test_a_damaged_file_is_replaced(tmp_path: Path, data: bytes) -> None:
    path, features = tmp_path / "index.npz", features_of(500)
    path.write_bytes(data)
    index, assigned = kept_index(path, ["a 1"], features, np.array([0, 500]), weights_of(features))
    assert (assigned, len(index.lists)) == (1, 500)
    narrow = features[:, :10]
    index, _ = kept_index(path, ["a 1"], narrow, np.array([0, 500]), weights_of(narrow))
    assert index.centres.shape[1] == 10, "an index of other features is not used"


def test_the_viewer_uses_it_beyond_the_limit(run: RunDir) -> None:
    exact, by_index = SimilarPatches(Library.of_run(run)), SimilarPatches(Library.of_run(run), exact_rows=10)
    for others in (False, True):
        found = by_index.patches("s1", 3, "colour", 10, others=others)
        truth = exact.patches("s1", 3, "colour", 10, others=others)
        assert [(one["id"], one["row"]) for one in found] == [(one["id"], one["row"]) for one in truth]
        assert [one["distance"] for one in found] == pytest.approx([one["distance"] for one in truth], abs=0.02)
    assert "groups compared" in by_index.how("colour")
    assert (run.view / "index-colour.npz").is_file()
