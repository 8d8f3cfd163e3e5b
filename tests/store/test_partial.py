"""Unfinished rows: what was appended comes back; a torn or damaged tail is cut off, never read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wsi_pipeline.store.tables.partial import PartialRows, RowsKey, partial_path, read_partial

KEY = RowsKey("digest", rows=100, dim=3, dtype="float32", batch=8)
NONE = np.zeros((0, 3), np.float32)
quick = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)


def written(path: Path, counts: list[int]) -> np.ndarray:
    parts = [rows(count, seed) for seed, count in enumerate(counts)]
    partial = PartialRows(path, KEY, NONE)
    for part in parts:
        partial.append(part)
    return np.concatenate([NONE, *parts])


@quick
@given(counts=st.lists(st.integers(0, 12), max_size=8))
def test_what_was_appended_comes_back(tmp_path: Path, counts: list[int]) -> None:
    expected = written(tmp_path / "p", counts)
    key, found = read_partial(tmp_path / "p") or (None, None)
    assert key == KEY
    np.testing.assert_array_equal(found, expected)


@quick
@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=8), data=st.data())
def test_cut_anywhere_the_whole_blocks_are_left(tmp_path: Path, counts: list[int], data: st.DataObject) -> None:
    path = tmp_path / "p"
    expected = written(path, counts)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut])
    found = read_partial(path)
    if found is None:
        assert cut < whole.index(b"\n") + 1
        return
    ends = np.cumsum([0, *counts])
    assert len(found[1]) in ends[:-1]
    np.testing.assert_array_equal(found[1], expected[: len(found[1])])


@quick
@given(counts=st.lists(st.integers(1, 12), min_size=1, max_size=8), data=st.data())
def test_a_changed_byte_is_never_read_as_a_feature(tmp_path: Path, counts: list[int], data: st.DataObject) -> None:
    path = tmp_path / "p"
    expected = written(path, counts)
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(whole.index(b"\n") + 1, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    found = read_partial(path)
    assert found is not None
    assert len(found[1]) < len(expected)
    np.testing.assert_array_equal(found[1], expected[: len(found[1])])


def test_it_goes_on_after_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "p"
    expected = written(path, [4, 5])
    path.write_bytes(path.read_bytes()[:-1])
    key, kept = read_partial(path) or (KEY, NONE)
    assert len(kept) == 4
    partial = PartialRows(path, key, kept)
    assert partial.done == 4
    partial.append(expected[4:])
    np.testing.assert_array_equal((read_partial(path) or (KEY, NONE))[1], expected)


@pytest.mark.parametrize("text", [b"", b"{}\n", b"no json\n", b'{"format": "wsi-pipeline/partial"}\n', b"[1]\n"])
def test_other_files_hold_no_rows(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "p").write_bytes(text)
    assert read_partial(tmp_path / "p") is None
    assert read_partial(tmp_path / "absent") is None


def test_a_dtype_that_is_no_feature_dtype_is_refused(tmp_path: Path) -> None:
    PartialRows(tmp_path / "p", replace(KEY, dtype="float64"), NONE)
    assert read_partial(tmp_path / "p") is None


def test_it_lies_hidden_beside_its_store(tmp_path: Path) -> None:
    assert partial_path(tmp_path / "slide.a.h5") == tmp_path / ".slide.a.partial"
