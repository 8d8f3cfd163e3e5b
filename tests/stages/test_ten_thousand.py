"""The work of commands with nothing to do grows linearly with the slides; it is counted, not timed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.ten_thousand import make_cohort, make_first
from tests.workflows.snakemake_calls import WORKFLOWS
from wsi_pipeline.cli import main

SIZES = (50, 100, 200)
WORDS = {
    "status": ("status", "--run", "run"),
    "tile": ("tile", "slides.csv", "--run", "run"),
    "embed": ("embed", "--model", "colour", "--run", "run"),
}
MOST = {"status": {"open": 1, "stat": 4}, "tile": {"open": 4, "stat": 20}, "embed": {"open": 8, "stat": 22}}
"""Files opened and looked at for each slide, at most."""


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Cohorts of each size with a finished run, whose files have been seen once."""
    folder = tmp_path_factory.mktemp("cohorts")
    first = make_first(folder / "first")
    found = {size: make_cohort(first, folder / str(size), size) for size in SIZES}
    for place in found.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            # A slide that was changed just now may change again, so it would be read once more.
            patch.setattr("wsi_pipeline.stages.segment.SETTLED_SECONDS", 0.0)
            assert [main(list(WORDS[name])) for name in ("tile", "embed")] == [0, 0]
    return found


def counted(work: Callable[[], Any]) -> Counter[str]:
    """Calls made meanwhile, by the name of what was called, with () behind functions of Python; `all`: of any."""
    calls: Counter[str] = Counter()

    def count(frame: Any, event: str, what: Any) -> None:
        if event in ("call", "c_call"):
            calls["all"] += 1
            calls[what.__name__ if event == "c_call" else f"{frame.f_code.co_name}()"] += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@pytest.mark.parametrize("name", WORDS)
def test_a_command_with_nothing_to_do_is_linear(
    name: str, cohorts: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    for size, place in cohorts.items():
        monkeypatch.chdir(place)
        main(list(WORDS[name]))  # what is imported or cached once is not counted
        found[size] = counted(lambda: main(list(WORDS[name])))
    _is_linear({size: calls["all"] for size, calls in found.items()})
    more = found[SIZES[-1]] - found[SIZES[0]]
    slides = SIZES[-1] - SIZES[0]
    for call, most in MOST[name].items():
        assert more[call] <= most * slides, f"{call}: {more[call] / slides} a slide"
    assert more["open_store()"] == 0, "stores are not opened again while they stay the same"


def test_the_plan_of_the_workflow_is_linear(cohorts: dict[int, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(WORKFLOWS))
    from cohort_plan import make_plan

    found = {}
    for size, place in cohorts.items():
        monkeypatch.chdir(place)
        config = {"slides": "slides.csv", "run": "run", "chunk": 20, "embed": [{"model": "colour"}]}
        make_plan(config)
        found[size] = counted(lambda config=config: make_plan(config))["all"]
    _is_linear(found)


def _is_linear(work: dict[int, int]) -> None:
    """From 100 to 200 slides twice as much is added as from 50 to 100; if it grew by the square, four times."""
    small, middle, large = (work[size] for size in SIZES)
    assert large - middle < 2.2 * (middle - small), work


def test_the_counting_finds_squares() -> None:
    def squares(size: int) -> None:
        for _ in range(size):
            [abs(number) for number in range(size)]

    with pytest.raises(AssertionError):
        _is_linear({size: counted(lambda size=size: squares(size))["all"] for size in SIZES})
