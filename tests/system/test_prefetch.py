"""Results computed ahead: all of them, in order, no more at a time than asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from wsi_pipeline.system.prefetch import prefetch


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
@pytest.mark.parametrize("ahead", [0, 1, 2, 7])
def test_every_result_comes_once_and_in_order_whatever_takes_longest(count: int, ahead: int) -> None:
    def square(number: int) -> int:
        time.sleep(0.001 * (number % 3 == 0))
        return number**2

    with ThreadPoolExecutor(4) as pool:
        assert list(prefetch(pool, square, range(count), ahead)) == [number**2 for number in range(count)]


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_items_are_taken_no_further_ahead_than_asked_for(ahead: int) -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 20:
            taken += 1
            yield taken

    with ThreadPoolExecutor(2) as pool:
        for used in prefetch(pool, lambda item: item, items(), ahead):
            assert taken == min(used + ahead, 20)


def test_results_are_computed_while_an_earlier_one_is_in_use() -> None:
    begun = threading.Event()

    def work(item: int) -> int:
        if item == 2:
            begun.set()
        return item

    with ThreadPoolExecutor(1) as pool, closing(prefetch(pool, work, range(10), ahead=2)) as results:
        assert next(results) == 0
        assert begun.wait(10)


def test_an_error_comes_in_its_turn_and_ends_the_work() -> None:
    done: list[int] = []

    def work(item: int) -> int:
        if item == 2:
            raise ValueError("item 2")
        done.append(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = prefetch(pool, work, range(100), ahead=3)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="item 2"):
            next(results)
    assert set(done) <= {0, 1, 3, 4, 5}


def test_calls_that_have_not_begun_are_cancelled_when_the_caller_stops_early() -> None:
    go, done = threading.Event(), []

    def work(item: int) -> int:
        if item:
            go.wait(10)
        done.append(item)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = prefetch(pool, work, range(100), ahead=5)
        assert next(results) == 0
        results.close()
        go.set()
    assert done in ([0], [0, 1])
