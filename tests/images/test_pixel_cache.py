"""The cache of decoded pixels."""

from __future__ import annotations

import pickle
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from wsi_pipeline.images.pixel_cache import PixelCache

Pixels = NDArray[np.uint8]


def _segment(size: int) -> Pixels:
    return np.zeros((size, 1, 1), np.uint8)


def test_the_least_recently_used_are_dropped_at_the_limit() -> None:
    made: Counter[str] = Counter()
    cache = PixelCache(limit=30)

    def get(key: str) -> None:
        cache.get(key, lambda: made.update([key]) or _segment(10))

    for key in "abcabcdaeb":
        get(key)
    # d drops a, a drops b, e drops c, b drops d
    assert made == {"a": 2, "b": 2, "c": 1, "d": 1, "e": 1}


def test_one_segment_beyond_the_limit_is_kept_while_it_is_the_newest() -> None:
    made: list[str] = []
    cache = PixelCache(limit=5)
    for _ in range(3):
        cache.get("large", lambda: made.append("large") or _segment(100))
    assert made == ["large"]


def test_threads_that_ask_together_decode_once() -> None:
    made: list[int] = []
    cache, start = PixelCache(1000), threading.Barrier(8)

    def make() -> Pixels:
        made.append(1)
        time.sleep(0.05)
        return _segment(3)

    def ask(_: int) -> int:
        start.wait()
        found = cache.get("a", make)
        assert found is not None
        return found.size

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [3] * 8
    assert len(made) == 1


def test_a_failure_is_passed_on_and_not_remembered() -> None:
    cache = PixelCache(1000)

    def fail() -> Pixels:
        raise ValueError("bad")

    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            cache.get("a", fail)
    found = cache.get("a", lambda: _segment(4))
    assert found is not None
    assert found.size == 4


def test_threads_that_wait_for_a_failure_meet_it_too() -> None:
    cache, start, tries = PixelCache(1000), threading.Barrier(6), []

    def fail() -> Pixels:
        tries.append(1)
        time.sleep(0.02)
        raise ValueError("bad")

    def ask(_: int) -> str:
        start.wait()
        with pytest.raises(ValueError, match="bad") as caught:
            cache.get("a", fail)
        return str(caught.value)

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, range(6))) == ["bad"] * 6
    assert len(tries) == 6


def test_missing_segments_are_remembered() -> None:
    made: list[int] = []
    cache = PixelCache(1000)
    for _ in range(2):
        assert cache.get("a", lambda: made.append(1)) is None
    assert made == [1]


def test_it_pickles_as_an_empty_cache_of_the_same_limit() -> None:
    cache = PixelCache(10)
    cache.get("a", lambda: _segment(3))
    again = pickle.loads(pickle.dumps(cache))
    made: list[int] = []
    again.get("a", lambda: made.append(1))
    assert (again.limit, made) == (10, [1])
