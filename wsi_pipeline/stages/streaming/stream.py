"""Run stages that apply networks to patches: all slides in one stream, so that the device never waits.

Three things happen in parallel: a process reads the next patches (`reader_client`), this thread computes, and another
thread writes what is finished. Several stages (one per encoder) share one pass over the pixels. Locks, freshness,
status files and isolation are those of the runner.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.errors import SlideError
from wsi_pipeline.remote.traffic import Traffic
from wsi_pipeline.stages.engine.guards import check_unchanged
from wsi_pipeline.stages.engine.known_files import known_files
from wsi_pipeline.stages.engine.runner import (
    Action,
    CheckedStage,
    CohortResult,
    StageResult,
    catch_failure,
    log_results,
    note_files,
    record_outcome,
    up_to_date,
    with_traffic,
)
from wsi_pipeline.stages.streaming.jpegblocks import jpeg_blocks
from wsi_pipeline.stages.streaming.reader_client import PixelFeed
from wsi_pipeline.stages.streaming.reader_process import Reading, SlideJob
from wsi_pipeline.stages.streaming.slide_rows import OutputRows, RowsPlan, SlideRows, Submit, kept_rows
from wsi_pipeline.store.tables.patch_table import PatchFacts, PatchTable, read_patch_table
from wsi_pipeline.system.locks import LockedError, locked

_UNWRITTEN = 2
"""Slides whose rows may wait to be written."""


class RowStage(CheckedStage, Protocol):
    """A stage that computes one row per patch with a network."""

    def patch_store(self, record: SlideRecord) -> Path:
        """The slide's patch store. Raises StoreError if there is none."""

    def wanted(self, record: SlideRecord, table: PatchTable) -> RowsPlan | OutputRows:
        """Plan of a slide's rows, or the rows themselves if known. Raises if the slide does not fit the network."""

    @property
    def submit(self) -> Submit:
        """The network, loaded on first use."""

    def finish(self, record: SlideRecord, table: PatchTable, rows: OutputRows) -> StageStatus:
        """Write the output; called from another thread."""


@dataclass(frozen=True)
class Watchers:
    """Callbacks: for each patch computed by one network, and for the results of each slide."""

    on_patches: Callable[[int], None] = lambda count: None
    on_result: Callable[[list[StageResult]], None] = lambda results: None


@dataclass(frozen=True)
class Survey:
    """The work ahead: slides with patches to read, in order, and the number of patches to compute.

    patches   over all stages: a patch that two encoders need counts twice
    """

    jobs: tuple[SlideJob, ...]
    patches: int


def survey(stages: Sequence[RowStage], run: RunDir, slides: Sequence[tuple[SlideRecord, PatchFacts]]) -> Survey:
    """Find out, without locks, what `stages` have to do on `slides`; slides with unreadable stores count as nothing."""
    jobs, patches = [], 0
    for record, facts in slides:
        with known_files(run.known(record.slide_id)):
            left = [_left(stage, record) for stage in stages]
        patches += sum(left)
        if any(left):
            start = facts.count - max(left)
            jobs.append(SlideJob(record, stages[0].patch_store(record), facts.count, start, facts.pixels))
    return Survey(tuple(jobs), patches)


def _left(stage: RowStage, record: SlideRecord) -> int:
    """Number of patches of a slide that a stage has to compute; 0 also if it will fail before reading one."""

    def look() -> int:
        """Number of rows neither written nor saved by an interrupted run."""
        if stage.check(record).fresh:
            return 0
        plan = stage.wanted(record, read_patch_table(stage.patch_store(record)))
        return plan.key.rows - kept_rows(plan) if isinstance(plan, RowsPlan) else 0

    found = catch_failure(look)
    return found if isinstance(found, int) else 0


def stream_cohort(
    stages: Sequence[RowStage],
    run: RunDir,
    records: Sequence[SlideRecord],
    jobs: Sequence[SlideJob],
    reading: Reading,
    watch: Watchers,
) -> CohortResult:
    """Run `stages` on slides, all stages in one pass over each slide's pixels.

    jobs   the patches to read, from `survey`, so that the next slide is read ahead

    Slides that another process holds are tried again until they are done. Never raises for a slide.
    """
    done: dict[str, list[StageResult]] = {}
    waiting = list(records)
    while waiting:
        for results in _Stream(stages, run, reading, watch).through(waiting, jobs):
            slide_id = results[0].slide_id
            done[slide_id] = _merge(done.get(slide_id, []), results)
            if all(item.action != "busy" for item in results):
                log_results(done[slide_id])
                watch.on_result(done[slide_id])
        waiting = [record for record in waiting if any(item.action == "busy" for item in done[record.slide_id])]
        if waiting:
            time.sleep(1.0)
    return CohortResult(tuple(result for record in records for result in done[record.slide_id]))


def _merge(old: Sequence[StageResult], new: Sequence[StageResult]) -> list[StageResult]:
    """Merge results of a slide tried twice: a stage made the first time is fresh the second, but counts as made."""
    before = {result.stage: result for result in old if result.action != "busy"}
    return [before.get(result.stage, result) for result in new]


@dataclass
class _Work:
    """One stage of one slide in progress.

    rows      rows being computed
    known     all rows, if known
    outcome   set if the stage has already ended: fresh or busy (a result), failed (a status)
    """

    stage: RowStage
    why: str = ""
    rows: SlideRows | None = None
    known: OutputRows | None = None
    outcome: StageResult | StageStatus | None = None


@dataclass
class _Slide:
    """A slide in progress, with the locks held for it."""

    record: SlideRecord
    work: list[_Work] = field(default_factory=list)
    table: PatchTable | None = None
    locks: ExitStack = field(default_factory=ExitStack)
    started: float = field(default_factory=time.monotonic)
    read: Traffic = field(default_factory=Traffic)

    @property
    def open(self) -> list[tuple[_Work, SlideRows]]:
        """Work that still needs patches."""
        return [(work, work.rows) for work in self.work if work.rows is not None and work.outcome is None]


class _Stream:
    """One pass over some slides."""

    def __init__(self, stages: Sequence[RowStage], run: RunDir, reading: Reading, watch: Watchers) -> None:
        self._stages, self._run, self._reading, self._watch = stages, run, reading, watch

    def through(self, records: Sequence[SlideRecord], jobs: Sequence[SlideJob]) -> Iterator[list[StageResult]]:
        """Iterate over the results of each slide, in order."""
        with ExitStack() as locks, ThreadPoolExecutor(1, "writer") as writer, PixelFeed(jobs, self._reading) as feed:
            unwritten: deque[Future[list[StageResult]]] = deque()
            for record in records:
                slide = _Slide(record)
                locks.callback(slide.locks.close)
                with known_files(self._run.known(record.slide_id)):
                    slide.work = [self._enter(stage, slide, writer) for stage in self._stages]
                self._compute(slide, feed)
                slide.read = feed.read.get(record.slide_id, Traffic())
                unwritten.append(writer.submit(self._finish, slide))
                if len(unwritten) > _UNWRITTEN:
                    yield unwritten.popleft().result()
            while unwritten:
                yield unwritten.popleft().result()

    def _enter(self, stage: RowStage, slide: _Slide, writer: Executor) -> _Work:
        """Lock one stage of a slide and find out what has to be done."""
        entered = catch_failure(lambda: self._locked(stage, slide) and self._planned(stage, slide, writer))
        if isinstance(entered, StageStatus):
            return _Work(stage, outcome=entered)
        if entered is False:
            status = StageStatus("failed", "another process is working on it")
            return _Work(stage, outcome=StageResult(slide.record.slide_id, stage.name, "busy", status))
        return entered

    def _locked(self, stage: RowStage, slide: _Slide) -> bool:
        try:
            slide.locks.enter_context(locked(self._run.lock(stage.name, slide.record.slide_id)))
        except LockedError:
            return False
        return True

    def _planned(self, stage: RowStage, slide: _Slide, writer: Executor) -> _Work:
        state = stage.check(slide.record)
        if state.fresh and state.status:
            return _Work(stage, outcome=up_to_date(stage, self._run, slide.record, state.status))
        if slide.table is None:
            slide.table = read_patch_table(stage.patch_store(slide.record))
        plan = stage.wanted(slide.record, slide.table)
        if not isinstance(plan, RowsPlan):
            return _Work(stage, state.reason, known=plan)
        # The network is loaded by the first batch, so that slides without patches need none.
        return _Work(stage, state.reason, rows=SlideRows(plan, lambda batch: stage.submit(batch), writer))

    def _compute(self, slide: _Slide, feed: PixelFeed) -> None:
        """Run the slide's patches through every network that needs them."""
        if slide.open and slide.table is not None:
            first = min(rows.start for _, rows in slide.open)
            path = slide.open[0][0].stage.patch_store(slide.record)
            job = SlideJob(slide.record, path, len(slide.table.grid), first, slide.table.pixels)
            stopped = catch_failure(lambda: self._pump(slide, feed, job))
            for work, rows in slide.open:
                self._end(work, rows, stopped)

    def _pump(self, slide: _Slide, feed: PixelFeed, job: SlideJob) -> None:
        here = self._reading.by_device(job)
        for first, block in jpeg_blocks(job, self._reading.rows, self._reading.decode_on) if here else feed.blocks(job):
            for work, rows in slide.open:
                count = catch_failure(partial(rows.take, first, block))
                if isinstance(count, StageStatus):
                    work.outcome = count
                else:
                    self._watch.on_patches(count)
            if not slide.open:
                return

    def _end(self, work: _Work, rows: SlideRows, stopped: StageStatus | None) -> None:
        before = rows.done
        known: OutputRows | StageStatus = stopped if stopped is not None else catch_failure(rows.end)
        if isinstance(known, StageStatus):
            work.outcome = known
        else:
            self._watch.on_patches(rows.done - before)
            work.known = known

    def _finish(self, slide: _Slide) -> list[StageResult]:
        """Write the output for a slide and report the outcome; runs in the writer's thread."""
        with known_files(self._run.known(slide.record.slide_id)):
            results = [self._settle(slide, work) for work in slide.work]
            for work, result in zip(slide.work, results, strict=True):
                if result.action == "made":
                    note_files(work.stage, slide.record)
        slide.locks.close()
        return results

    def _settle(self, slide: _Slide, work: _Work) -> StageResult:
        if isinstance(work.outcome, StageResult):
            return work.outcome
        ended = work.outcome if work.outcome is not None else catch_failure(lambda: self._write(slide, work))
        status = with_traffic(replace(ended, seconds=round(time.monotonic() - slide.started, 3)), slide.read)
        record_outcome(self._run, slide.record, work.stage.name, status)
        action: Action = "failed" if status.state == "failed" else "made"
        return StageResult(slide.record.slide_id, work.stage.name, action, status, work.why)

    def _write(self, slide: _Slide, work: _Work) -> StageStatus:
        assert slide.table is not None
        assert work.known is not None
        if work.rows is not None and slide.table.pixels == "none":
            try:
                check_unchanged(slide.record.path, slide.table.header.slide)
            except SlideError:
                work.rows.discard()  # saved rows may be of another image
                raise
        status = work.stage.finish(slide.record, slide.table, work.known)
        if work.rows is not None:
            work.rows.discard()
        return status
