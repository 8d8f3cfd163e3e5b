"""The runner: one bad slide stops nothing, crashes cost one slide, work is not done twice."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide
from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus, read_status
from wsi_pipeline.config.specs import SegmentSpec, TileSpec
from wsi_pipeline.errors import SlideError
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.slide import Slide
from wsi_pipeline.stages.engine import open_once
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.stages.engine.runner import Freshness, run_cohort
from wsi_pipeline.stages.segment import SegmentStage
from wsi_pipeline.stages.tile import TileStage
from wsi_pipeline.system.isolate import Crash, run_isolated
from wsi_pipeline.system.locks import locked


@dataclass(frozen=True)
class Scripted:
    """A real stage that does to each slide what its id says, and leaves a file when it is done."""

    folder: Path
    name: str = "scripted"

    def check(self, record: SlideRecord) -> Freshness:
        done = (self.folder / record.slide_id).exists()
        return Freshness(done, "" if done else "not there", StageStatus("done", digest="d") if done else None)

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        word = record.slide_id.split("-")[0]
        if word == "refuse":
            raise SlideError("it is torn", todo="copy it again")
        if word == "bug":
            raise ZeroDivisionError("oops")
        if word == "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        if word == "exit":
            os._exit(7)
        (self.folder / record.slide_id).write_text("done")
        return StageStatus("done", digest="d")


def records(*names: str) -> list[SlideRecord]:
    return [SlideRecord(name, Path("/nowhere"), name) for name in names]


@pytest.mark.parametrize("workers", [0, 2])
def test_one_bad_slide_stops_nothing(tmp_path: Path, workers: int) -> None:
    run = RunDir(tmp_path)
    result = run_cohort([Scripted(tmp_path)], run, records("ok-1", "refuse-2", "bug-3", "ok-4"), workers=workers)
    assert [item.action for item in result.results] == ["made", "failed", "failed", "made"]
    refused = read_status(run.status("refuse-2"), "refuse-2").stages["scripted"]
    assert (refused.reason, refused.todo) == ("it is torn", "copy it again")
    bug = read_status(run.status("bug-3"), "bug-3").stages["scripted"]
    assert bug.reason == "unexpected ZeroDivisionError: oops"
    assert "Traceback" in bug.traceback
    assert "test_runner.py" in bug.traceback


def test_a_crash_costs_that_slide_only(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    result = run_cohort([Scripted(tmp_path)], run, records("ok-1", "segfault-2", "exit-3", "ok-4", "ok-5"), workers=2)
    assert [item.action for item in result.results] == ["made", "failed", "failed", "made", "made"]
    assert "SIGSEGV" in read_status(run.status("segfault-2"), "segfault-2").stages["scripted"].reason
    assert "exit code 7" in read_status(run.status("exit-3"), "exit-3").stages["scripted"].reason


def test_what_is_done_is_not_done_again_and_lost_status_is_mended(tmp_path: Path) -> None:
    run, stage = RunDir(tmp_path), Scripted(tmp_path)
    run_cohort([stage], run, records("ok-1"), workers=0)
    run.status("ok-1").unlink()
    before = (tmp_path / "ok-1").stat().st_mtime_ns
    result = run_cohort([stage], run, records("ok-1"), workers=0)
    assert [item.action for item in result.results] == ["fresh"]
    assert (tmp_path / "ok-1").stat().st_mtime_ns == before
    assert read_status(run.status("ok-1"), "ok-1").stages["scripted"].state == "done"


def test_later_stages_do_not_run_on_a_slide_that_failed(tmp_path: Path) -> None:
    stages = [Scripted(tmp_path), Scripted(tmp_path, "second")]
    result = run_cohort(stages, RunDir(tmp_path), records("refuse-1"), workers=0)
    assert [item.stage for item in result.results] == ["scripted"]


def test_a_slide_in_another_hand_is_waited_for(tmp_path: Path) -> None:
    run, stage = RunDir(tmp_path), Scripted(tmp_path)
    entered = threading.Event()

    def other() -> None:
        with locked(run.lock("scripted", "ok-1")):
            entered.set()
            time.sleep(0.5)
            (tmp_path / "ok-1").write_text("done by the other")

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    result = run_cohort([stage], run, records("ok-1", "ok-2"), workers=0)
    thread.join()
    assert [item.action for item in result.results] == ["fresh", "made"]
    assert (tmp_path / "ok-1").read_text() == "done by the other"


def _square(number: int) -> int:
    if number == 3:
        os._exit(5)
    return number * number


def test_isolated_jobs_give_their_result_or_their_crash() -> None:
    found = dict(run_isolated(_square, ((k,) for k in range(6)), 2, preload=[]))
    assert found == {(k,): k * k for k in range(6) if k != 3} | {(3,): Crash(5)}


def test_stages_that_follow_each_other_share_one_open_slide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = tmp_path / "s.svs", []
    write_pyramid_tiff(path, blob_slide(1, side=512), mpp=0.5)

    def open_and_note(path: Path) -> Slide:
        opened.append(open_slide(path))
        return opened[-1]

    monkeypatch.setattr(open_once, "open_slide", open_and_note)
    stages = [SegmentStage(RunDir(tmp_path), SegmentSpec()), TileStage(RunDir(tmp_path), TileSpec(pixels="raw"))]
    result = run_cohort(stages, RunDir(tmp_path), [SlideRecord("s", path, "s")], workers=0)
    assert [(r.stage, r.action) for r in result.results] == [("segment", "made"), ("tile", "made")]
    (slide,) = opened
    with pytest.raises(SlideError, match="closed"):
        slide.read_region(0, 0, 0, 8, 8)


@dataclass(frozen=True)
class Grouped(Scripted):
    """The same, several slides a process; it leaves the id of the process."""

    slides_a_worker: ClassVar[int] = 8

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        status = super().run(record, slide)
        (self.folder / record.slide_id).write_text(str(os.getpid()))
        return status


def test_slides_that_share_a_worker_with_one_that_crashes_are_done(tmp_path: Path) -> None:
    names = ["a", "b", "segfault-c", "d", "refuse-e", "f", "g", "h"]
    result = run_cohort([Grouped(tmp_path)], RunDir(tmp_path / "run"), records(*names), workers=2)
    assert [item.slide_id for item in result.results] == names
    assert {item.slide_id for item in result.failed} == {"segfault-c", "refuse-e"}
    assert "SIGSEGV" in result.last["segfault-c"].status.reason
    left = {name: int((tmp_path / name).read_text()) for name in names if (tmp_path / name).exists()}
    assert set(left) == set(names) - {"segfault-c", "refuse-e"}
    assert os.getpid() not in left.values()
    assert left["g"] == left["h"], "two of a group of one process"
