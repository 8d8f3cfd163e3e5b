"""Patches from the reading process: every row once and in order, and only the slide at fault is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence

import numpy as np
import psutil
import pytest

from tests.stages.pixel_sources import READING, job, pixels
from wsi_pipeline.errors import SlideError
from wsi_pipeline.stages.streaming.reader_client import PixelFeed
from wsi_pipeline.stages.streaming.reader_process import SlideJob


def collect(feed: PixelFeed, wanted: SlideJob) -> list[int]:
    """The rows that came, after comparing their pixels."""
    rows = []
    for first, block in feed.blocks(wanted):
        for row, patch in enumerate(block, start=first):
            np.testing.assert_array_equal(patch, pixels(wanted.record.slide_id, row))
            rows.append(row)
    return rows


def read(jobs: Sequence[SlideJob]) -> dict[str, list[int] | str]:
    """All slides: the rows of each, or why it was given up."""
    found: dict[str, list[int] | str] = {}
    with PixelFeed(jobs, READING) as feed:
        for item in jobs:
            try:
                found[item.record.slide_id] = collect(feed, item)
            except SlideError as error:
                found[item.record.slide_id] = error.what
    return found


def test_every_row_comes_once_and_in_order() -> None:
    jobs = [job("a", 10), job("b", 0), job("c", 1), job("d", 8), job("e", 9, start=5)]
    expected = {"a": [*range(10)], "b": [], "c": [0], "d": [*range(8)], "e": [5, 6, 7, 8]}
    assert read(jobs) == expected


@pytest.mark.parametrize("row", [0, 3, 4, 17])
def test_a_crash_costs_one_slide(row: int) -> None:
    name = f"crash@{row}"
    found = read([job("a", 6), job(name, 18), job("b", 6), job("c", 6)])
    assert {key: found[key] for key in "abc"} == {key: [*range(6)] for key in "abc"}
    assert found[name] == "its patches cannot be read: the reading process was terminated by SIGSEGV"


def test_slides_that_crash_one_after_the_other_are_told_apart() -> None:
    found = read([job("crash@1", 9), job("torn", 3), job("a", 9), job("crash@8", 9)])
    assert found["a"] == [*range(9)]
    assert "SIGSEGV" in found["crash@1"]
    assert "SIGABRT" in found["torn"]
    assert "SIGSEGV" in found["crash@8"]


def test_errors_of_a_slide_are_its_own() -> None:
    found = read([job("bad@5", 9), job("shut", 4), job("odd@2", 4), job("a", 3)])
    assert found["bad@5"] == "row 5 is damaged"
    assert found["shut"] == "does not open"
    assert found["odd@2"] == "unexpected ZeroDivisionError while reading: by zero"
    assert found["a"] == [0, 1, 2]


def test_slides_may_be_passed_over_and_begun_elsewhere() -> None:
    jobs = [job("a", 6), job("b", 6), job("c", 6), job("d", 6)]
    with PixelFeed(jobs, READING) as feed:
        assert collect(feed, jobs[1]) == [*range(6)]
        assert collect(feed, job("d", 6, start=4)) == [4, 5]
        assert collect(feed, jobs[0]) == [*range(6)]


def test_a_slide_that_is_broken_off_does_not_hold_up_the_next() -> None:
    jobs = [job("a", 100), job("b", 6)]
    with PixelFeed(jobs, READING) as feed:
        blocks = feed.blocks(jobs[0])
        next(blocks)
        blocks.close()
        assert collect(feed, jobs[1]) == [*range(6)]


def test_a_process_that_was_killed_from_outside_costs_nothing() -> None:
    jobs = [job("a", 60), job("b", 6)]
    with PixelFeed(jobs, READING) as feed:
        rows = []
        for first, block in feed.blocks(jobs[0]):
            rows += range(first, first + len(block))
            if first == 8:
                os.kill(_reader(), signal.SIGKILL)
        assert rows == [*range(60)]
        assert collect(feed, jobs[1]) == [*range(6)]


def test_no_process_is_left_behind() -> None:
    jobs = [job("a", 100)]
    with PixelFeed(jobs, READING) as feed:
        next(feed.blocks(jobs[0]))
        pid = _reader()
    for _ in range(2000):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail("the reading process is still there")


def _reader() -> int:
    """The reading process: the youngest one below this with a thread that reads patches."""
    below = [item for item in psutil.Process().children(recursive=True) if "forkserver" in " ".join(item.cmdline())]
    return int(max(below, key=lambda item: item.create_time()).pid)
