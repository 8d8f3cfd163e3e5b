"""Reading across slides: every row once and in order, errors of one slide kept to it, files closed."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest

from wsi_pipeline.errors import SlideError
from wsi_pipeline.reading.read_ahead import AHEAD, read_ahead


class Patches:
    """A source of `count` patches of which each pixel is (slide, row, 7); reading row `bad` fails."""

    def __init__(self, slide: int, count: int, bad: int | None = None, error: Exception | None = None) -> None:
        self.slide, self.count, self.bad = slide, count, bad
        self.error = error or SlideError("it does not decode")
        self.closed = False
        self.rows_read: list[int] = []

    def __len__(self) -> int:
        return self.count

    def read(self, row: int) -> np.ndarray:
        assert not self.closed
        self.rows_read.append(row)
        if row == self.bad:
            raise self.error
        return np.full((4, 4, 3), (self.slide, row, 7), np.uint8)

    def close(self) -> None:
        self.closed = True


def openers(sources: list[Patches]) -> list[Callable[[], Patches]]:
    return [lambda source=source: source for source in sources]


@pytest.mark.parametrize(("batch", "threads"), [(1, 1), (3, 2), (100, 4)])
def test_every_row_of_every_slide_once_and_in_order(batch: int, threads: int) -> None:
    counts = [5, 0, 1, 7, 0, 12]
    sources = [Patches(number, count) for number, count in enumerate(counts)]
    seen = []
    for number, first, patches in read_ahead(openers(sources), batch, threads):
        assert len(patches) <= batch
        for k, patch in enumerate(patches):
            assert (patch == (number, first + k, 7)).all()
            seen.append((number, first + k))
    assert seen == [(number, row) for number, count in enumerate(counts) for row in range(count)]
    assert all(source.closed for source in sources)


@pytest.mark.parametrize("error", [SlideError("it does not decode"), ZeroDivisionError("a fault of ours")])
def test_an_error_ends_its_slide_and_no_other(error: Exception) -> None:
    sources = [Patches(0, 4), Patches(1, 50, bad=30, error=error), Patches(2, 3)]
    found = list(read_ahead(openers(sources), 2, 2))
    failures = [item for item in found if len(item) == 2]
    assert failures == [(1, error)]
    assert [item[:2] for item in found if item[0] != 1] == [(0, 0), (0, 2), (2, 0), (2, 2)]
    assert all(item[1] < 30 for item in found if item[0] == 1 and len(item) == 3)
    assert all(source.closed for source in sources)


def test_a_slide_that_does_not_open_is_yielded_as_its_error() -> None:
    def broken() -> Patches:
        raise SlideError("not a slide")

    good = Patches(1, 2)
    (failed, error), batch = list(read_ahead([broken, lambda: good], 8, 1))
    assert failed == 0
    assert isinstance(error, SlideError)
    assert batch[:2] == (1, 0)


def test_rows_begin_where_they_are_told() -> None:
    sources = [Patches(0, 6), Patches(1, 6)]
    found = [(number, first) for number, first, _ in read_ahead(openers(sources), 2, 1, start=lambda n: [4, 6][n])]
    assert found == [(0, 4)]


def test_no_more_is_opened_than_is_needed_soon() -> None:
    """An endless cohort is read only as far as the batches that are kept ready."""
    opened = itertools.count()
    count = 0

    def endless() -> Patches:
        nonlocal count
        count = next(opened) + 1
        return Patches(0, 2)

    reading = read_ahead(itertools.repeat(endless), 2, 1)
    for _ in range(10):
        next(reading)
    reading.close()
    assert count <= 10 + AHEAD + 2


def test_leaving_early_closes_the_slide_and_its_threads() -> None:
    before = threading.active_count()
    source = Patches(0, 1000)
    reading = read_ahead(openers([source]), 2, 2)
    next(reading)
    reading.close()
    assert source.closed
    assert len(source.rows_read) < 40
    assert threading.active_count() == before
