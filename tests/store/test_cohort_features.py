"""The features of a cohort in one array: the same rows in memory and mapped, and what is refused."""

from __future__ import annotations

import gc
import resource
from pathlib import Path

import numpy as np
import pytest

from tests.store.feature_files import write_feature_store
from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.files import amend_store
from wsi_pipeline.store.store import ArraySpec
from wsi_pipeline.store.tables.cohort_features import read_cohort_features

LENGTHS = (5, 0, 300, 1)


@pytest.fixture(params=[".h5", ".zarr"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[Path], list[np.ndarray]]:
    rng = np.random.default_rng(1)
    arrays = [rng.normal(size=(n, 7)).astype(np.float16) for n in LENGTHS]
    paths = [tmp_path / f"s{k}{request.param}" for k in range(len(LENGTHS))]
    for path, array in zip(paths, arrays, strict=True):
        write_feature_store(path, array)
    return paths, arrays


@pytest.mark.parametrize("limit", [0, None, 10**9])
def test_rows_are_those_of_the_stores(stores: tuple[list[Path], list[np.ndarray]], limit: int | None) -> None:
    paths, arrays = stores
    found = read_cohort_features(paths, limit)
    assert found.mapped == (limit == 0)
    assert found.features.dtype == np.float16
    np.testing.assert_array_equal(found.features, np.concatenate(arrays))
    assert found.offsets.tolist() == [0, 5, 5, 305, 306]
    assert [header.slide.slide_id for header in found.headers] == ["s0", "s1", "s2", "s3"]


def test_a_mapped_cohort_leaves_no_file_behind(stores: tuple[list[Path], list[np.ndarray]]) -> None:
    paths, arrays = stores
    before = sorted(paths[0].parent.iterdir())
    found = read_cohort_features(paths, 0)
    assert sorted(paths[0].parent.iterdir()) == before  # it has no name even while it is in use
    np.testing.assert_array_equal(found.features[5:305], arrays[2])
    del found
    gc.collect()
    assert sorted(paths[0].parent.iterdir()) == before


def test_a_disk_without_room_for_them_is_an_error_before_anything_is_mapped(tmp_path: Path) -> None:
    write_feature_store(tmp_path / "a.h5", np.ones((3000, 64), np.float16))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StoreError, match=r"no room for the features of all slides \(0\.00038 GB\)"):
            read_cohort_features([tmp_path / "a.h5"], 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_float32_anywhere_makes_the_whole_float32(tmp_path: Path) -> None:
    write_feature_store(tmp_path / "a.h5", np.ones((2, 3), np.float16))
    write_feature_store(tmp_path / "b.h5", np.full((2, 3), 1e6, np.float32))
    found = read_cohort_features([tmp_path / "a.h5", tmp_path / "b.h5"])
    assert found.features.dtype == np.float32
    assert found.features[2:].min() == 1e6


def test_only_empty_slides_are_an_empty_array(tmp_path: Path) -> None:
    write_feature_store(tmp_path / "a.h5", np.ones((0, 3), np.float16))
    found = read_cohort_features([tmp_path / "a.h5"], 0)
    assert found.features.shape == (0, 3)
    assert found.offsets.tolist() == [0, 0]


def test_another_width_is_refused_naming_the_store(tmp_path: Path) -> None:
    write_feature_store(tmp_path / "a.h5", np.ones((2, 3), np.float16))
    write_feature_store(tmp_path / "b.h5", np.ones((2, 4), np.float16))
    with pytest.raises(StoreError, match=r"b\.h5 has 4 features per patch, .*a\.h5 has 3"):
        read_cohort_features([tmp_path / "a.h5", tmp_path / "b.h5"])


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    write_feature_store(tmp_path / "a.h5", np.ones((2, 3), np.float16))
    with amend_store(tmp_path / "a.h5") as writer:
        writer.remove("features")
        writer.create(ArraySpec("features", (2, 3), "float16", 2))
        writer.write("features", 0, np.array([[1, 1, 1], [1, 1, np.nan]], np.float16))
    with pytest.raises(StoreError, match="not finite"):
        read_cohort_features([tmp_path / "a.h5"])


def test_no_store_is_refused() -> None:
    with pytest.raises(StoreError, match="no feature store"):
        read_cohort_features([])
