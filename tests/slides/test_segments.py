"""The cache of decoded segments."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.slide_files import tissue_like, write_stripped_tiff
from wsi_pipeline.slides.backends import tiffslide
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.tiff.tiff_segments import Pixels, SegmentCache


def _segment(size: int) -> Pixels:
    return np.zeros((size, 1, 1), np.uint8)


def test_the_least_recently_used_are_dropped_at_the_limit() -> None:
    made: Counter[str] = Counter()
    cache = SegmentCache(limit_bytes=30)

    def get(key: str) -> None:
        cache.get(key, lambda: made.update([key]) or _segment(10))

    for key in "abcabcdaeb":
        get(key)
    # d drops a, a drops b, e drops c, b drops d
    assert made == {"a": 2, "b": 2, "c": 1, "d": 1, "e": 1}


def test_one_segment_beyond_the_limit_is_kept_while_it_is_the_newest() -> None:
    made: list[str] = []
    cache = SegmentCache(limit_bytes=5)
    for _ in range(3):
        cache.get("large", lambda: made.append("large") or _segment(100))
    assert made == ["large"]


def test_threads_that_ask_together_decode_once() -> None:
    made: list[int] = []
    cache, start = SegmentCache(1000), threading.Barrier(8)

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
    cache = SegmentCache(1000)

    def fail() -> Pixels:
        raise ValueError("bad")

    for _ in range(2):
        with pytest.raises(ValueError, match="bad"):
            cache.get("a", fail)
    found = cache.get("a", lambda: _segment(4))
    assert found is not None
    assert found.size == 4


def test_threads_that_wait_for_a_failure_meet_it_too() -> None:
    cache, start, tries = SegmentCache(1000), threading.Barrier(6), []

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
    cache = SegmentCache(1000)
    for _ in range(2):
        assert cache.get("a", lambda: made.append(1)) is None
    assert made == [1]


def test_reading_patches_row_by_row_decodes_each_strip_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgb = tissue_like(1000, 512)
    path = write_stripped_tiff(tmp_path / "a.tif", rgb, rows=64)
    monkeypatch.setattr(tiffslide, "STRIP_CACHE_BYTES", 4 * 64 * 1000 * 3)  # four strips: one row of patches
    decoded: Counter[int] = Counter()
    with open_slide(path) as slide:
        inner = slide._images[0]._decode  # type: ignore[attr-defined]
        slide._images[0]._decode = lambda data, index: decoded.update([index]) or inner(data, index)  # type: ignore[attr-defined]
        for y in range(0, 512, 256):
            for x in range(0, 1000, 100):
                slide.read_region(x, y, 0, 256, 256)
    assert decoded == dict.fromkeys(range(8), 1)
