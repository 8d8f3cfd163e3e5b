"""Ranges joined into requests: all are covered, and little is read that nobody asked for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from wsi_pipeline.remote.coalesce import GAPS, coalesce, runs_in_order
from wsi_pipeline.remote.fetch_ahead import FetchAhead

RANGES = st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 400)).map(lambda r: (r[0], r[0] + r[1])), max_size=40)


def union(ranges: list[tuple[int, int]]) -> set[int]:
    return {byte for start, stop in ranges for byte in range(start, stop)}


@settings(deadline=None)
@given(RANGES)
def test_everything_is_covered_at_little_more_than_its_bytes(ranges: list[tuple[int, int]]) -> None:
    runs = coalesce(ranges, most=1000)
    asked = union(ranges)
    read = [(run.start, run.stop) for run in runs]
    assert asked <= union(read)
    assert sum(stop - start for start, stop in read) == len(union(read))  # no byte twice
    assert len(union(read)) <= len(asked) * (1 + GAPS)
    assert sorted(item for run in runs for item in run.ranges) == sorted(set(ranges))
    for run in runs:
        assert all(run.start <= start and stop <= run.stop for start, stop in run.ranges)


def test_neighbours_share_a_request_up_to_its_size() -> None:
    runs = coalesce([(number * 100, number * 100 + 100) for number in range(25)], most=1000)
    assert [(run.start, run.stop) for run in runs] == [(0, 1000), (1000, 2000), (2000, 2500)]


def test_a_small_gap_is_read_along_and_a_large_one_is_not() -> None:
    assert [(run.start, run.stop) for run in coalesce([(0, 1000), (1040, 2000), (2500, 3000)])] == [
        (0, 2000), (2500, 3000),
    ]  # fmt: skip


def test_the_earliest_needed_comes_first() -> None:
    runs = runs_in_order([(5000, 5100), (0, 100), (5100, 5200), (100, 200), (5000, 5100)])
    assert [(run.start, run.stop) for run in runs] == [(5000, 5200), (0, 200)]


def ahead_of(count: int, window: int) -> tuple[FetchAhead, list[int]]:
    begun: list[int] = []
    ranges = [(number * 2000, number * 2000 + 500) for number in range(count)]
    ahead = FetchAhead(ranges, lambda run: begun.append(run.start // 2000), window)
    ahead.begin()
    return ahead, begun


def test_no_more_is_unread_than_the_window() -> None:
    ahead, begun = ahead_of(20, 1500)
    assert begun == [0, 1, 2]
    ahead.reached(0)
    assert begun == [0, 1, 2, 3]
    ahead.reached(0)
    assert begun == [0, 1, 2, 3]
    ahead.reached(4000)
    assert begun == [0, 1, 2, 3, 4, 5]


def test_a_reader_that_jumps_takes_it_along() -> None:
    ahead, begun = ahead_of(20, 1500)
    ahead.reached(20_000)
    assert begun == [0, 1, 2, 10, 11, 12]
    ahead.reached(999)  # nothing that was announced
    ahead.stop()
    ahead.reached(22_000)
    assert begun == [0, 1, 2, 10, 11, 12]
