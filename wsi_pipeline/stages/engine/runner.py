"""The runner: runs stages on slides, skips what is up to date, and never lets one slide stop the others.

`except Exception` is used only here, twice: around a stage, and in `catch_failure` around a part of one. Whatever is
caught goes into the slide's status file and the log. (`except BaseException`, which cleans up and re-raises, is used
in `system` only.)
"""

from __future__ import annotations

import errno
import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeVar

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus, read_status, record_status
from wsi_pipeline.errors import DamagedStoreError, WsiPipelineError
from wsi_pipeline.files.addresses import is_address
from wsi_pipeline.remote.traffic import Traffic, traffic
from wsi_pipeline.stages.engine.known_files import known_files
from wsi_pipeline.stages.engine.open_once import OpenOnce
from wsi_pipeline.store.quarantine import set_aside
from wsi_pipeline.system.isolate import Crash, run_isolated
from wsi_pipeline.system.locks import LockedError, locked

logger = logging.getLogger(__name__)
T = TypeVar("T")

READ = "read_from_address"
"""Key of a stage's summary: bytes and requests that it took to read a slide at an address."""

Action = Literal["made", "fresh", "failed", "blocked", "busy"]


@dataclass(frozen=True)
class Freshness:
    """Whether a stage's output exists and is up to date; if not, `reason` says why."""

    fresh: bool
    reason: str = ""
    status: StageStatus | None = None


class CheckedStage(Protocol):
    """A stage that can check which slides are up to date. Picklable if it runs in worker processes."""

    @property
    def name(self) -> str:
        """Name in status files and locks: `tile`, `embed/colour`."""

    def check(self, record: SlideRecord) -> Freshness:
        """Compare digests; reads only headers. May raise as the stage does."""


class SlideStage(CheckedStage, Protocol):
    """A stage that works slide by slide.

    Optional attributes: `preload`, names of modules that `run` imports; `slides_a_worker`, the most slides that one
    process handles (default 1). Use more if starting a process takes as long as a slide. If a slide crashes such a
    process, all its slides are run again, each in a process of its own. `needed` (default True): whether later stages
    use what it writes, so that they are not run on a slide that failed here.
    """

    def run(self, record: SlideRecord, slide: OpenOnce) -> StageStatus:
        """Write the output. All stages of a record share `slide`. Raises WsiPipelineError on failure."""


@dataclass(frozen=True)
class StageResult:
    """Outcome of one stage for one slide: made, fresh (skipped), failed, busy (another process)."""

    slide_id: str
    stage: str
    action: Action
    status: StageStatus
    why: str = ""


@dataclass(frozen=True)
class CohortResult:
    """All results of one command, in manifest order; `last` holds one result per slide."""

    results: tuple[StageResult, ...] = field(default=())

    @property
    def last(self) -> dict[str, StageResult]:
        """Slide id -> result of the last stage it reached."""
        return {result.slide_id: result for result in self.results}

    @property
    def failed(self) -> tuple[StageResult, ...]:
        """The first failure of each slide that failed, or that was not run because an earlier stage failed."""
        found = [result for result in self.results if result.action in ("failed", "blocked")]
        return tuple({result.slide_id: result for result in reversed(found)}.values())[::-1]


def process_slide(stages: Sequence[SlideStage], run: RunDir, record: SlideRecord) -> list[StageResult]:
    """Run `stages` on one slide in order, up to the first needed one that fails. Never raises because of a slide."""
    results = []
    with known_files(run.known(record.slide_id)):
        with OpenOnce(record.path) as slide:
            for stage in stages:
                result = _process_stage(stage, run, record, slide)
                results.append(result)
                if result.action in ("failed", "busy") and getattr(stage, "needed", True):
                    break
        for stage, result in zip(stages, results, strict=False):
            if result.action == "made":
                note_files(stage, record)
    return results


def note_files(stage: CheckedStage, record: SlideRecord) -> None:
    """Check a stage that was just made, so that the next command need not read its files to see that it is fresh.

    Not of a slide at an address, of which the check may read a part once more.
    """
    if is_address(record.path):
        return
    with suppress(WsiPipelineError, OSError):
        stage.check(record)


def _process_stage(stage: SlideStage, run: RunDir, record: SlideRecord, slide: OpenOnce) -> StageResult:
    started, before = time.monotonic(), traffic(record.path)
    try:
        with locked(run.lock(stage.name, record.slide_id)):
            state = stage.check(record)
            if state.fresh and state.status:
                return up_to_date(stage, run, record, state.status)
            status = replace(stage.run(record, slide), seconds=round(time.monotonic() - started, 3))
            status = with_traffic(status, traffic(record.path) - before)
            record_outcome(run, record, stage.name, status)
            logger.info("%s: %s %s%s", record.slide_id, stage.name, status.state, _in_brackets(status))
            return StageResult(record.slide_id, stage.name, "made", status, state.reason)
    except LockedError:
        return StageResult(
            record.slide_id, stage.name, "busy", StageStatus("failed", "another process is working on it")
        )
    except Exception as error:  # noqa: BLE001 - one slide must not stop the cohort
        status = failure(error, time.monotonic() - started)
        record_outcome(run, record, stage.name, status)
        return StageResult(record.slide_id, stage.name, "failed", status)


def catch_failure(function: Callable[[], T]) -> T | StageStatus:
    """The result of `function`, or a failed status for the exception it raised; for part of a stage."""
    try:
        return function()
    except Exception as error:  # noqa: BLE001 - one slide must not stop the cohort
        return failure(error)


_ONCE_MORE = "run the same command again: finished slides are kept"
_TODO = {
    errno.ENOSPC: f"Free space on that disk, then {_ONCE_MORE}",
    errno.EDQUOT: f"Free some of your quota, then {_ONCE_MORE}",
    errno.EFBIG: f"Raise the limit on the size of files (ulimit -f), then {_ONCE_MORE}",
    errno.EROFS: "Choose a folder that can be written: --run FOLDER",
    errno.EACCES: "Check who may read and write it",
    errno.EPERM: "Check who may read and write it",
    errno.ENAMETOOLONG: "Choose a shorter --run FOLDER or slide_id",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or use fewer --workers",
    errno.EIO: f"Check the disk, then {_ONCE_MORE}",
    errno.ESTALE: f"The file server has lost the file; {_ONCE_MORE}",
}
"""What to do about errors of the operating system."""


def failure(error: Exception, seconds: float = 0.0) -> StageStatus:
    """The status for an exception: our own errors keep their message, others are given with their type.

    A damaged store is set aside.
    """
    trace = "".join(traceback.format_exception(error))
    if isinstance(error, DamagedStoreError):
        error = set_aside(error)
    if isinstance(error, WsiPipelineError):
        return StageStatus("failed", error.what, error.todo or "", traceback=trace, seconds=round(seconds, 3))
    if isinstance(error, MemoryError):
        return StageStatus("failed", "out of memory", "Use fewer --workers or a machine with more memory", "", trace)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        todo = _TODO.get(error.errno or 0, "")
        return StageStatus("failed", f"{error.strerror}{where}", todo, traceback=trace, seconds=round(seconds, 3))
    reason = f"unexpected {type(error).__name__}: {error}"
    return StageStatus(
        "failed", reason, "Please report it with the traceback", traceback=trace, seconds=round(seconds, 3)
    )


def up_to_date(stage: CheckedStage, run: RunDir, record: SlideRecord, status: StageStatus) -> StageResult:
    """Result of a stage that is up to date. Writes the status if a process was killed between store and status file."""
    known = read_status(run.status(record.slide_id), record.slide_id).stages.get(stage.name)
    if known is None or known.digest != status.digest or known.state == "failed":
        record_outcome(run, record, stage.name, status)
    return StageResult(record.slide_id, stage.name, "fresh", status)


def record_outcome(run: RunDir, record: SlideRecord, stage: str, status: StageStatus) -> None:
    """Write the outcome of a stage to the slide's status file.

    A failure to write it (full disk) is only logged; the next run restores the status from the stores.
    """
    slide_id = record.slide_id
    try:
        record_status(run.status(slide_id), slide_id, stage, status, run.lock("status", slide_id))
    except (OSError, LockedError) as error:
        logger.error("%s: %s: its status cannot be written: %s", slide_id, stage, error)


def run_cohort(
    stages: Sequence[SlideStage],
    run: RunDir,
    records: Sequence[SlideRecord],
    *,
    workers: int,
    on_result: Callable[[list[StageResult]], None] = lambda results: None,
) -> CohortResult:
    """Run stages on all slides.

    workers     slides processed at a time, each in a process of its own, so that a crash or a leak in an image codec
                costs only that slide; 0: one after the other in this process
    on_result   called with the results of each slide as it finishes

    Slides that another process holds are tried again until they are done.
    """
    done: dict[str, list[StageResult]] = {}
    waiting = list(records)
    while waiting:
        busy = []
        for record, results in _pass(stages, run, waiting, workers):
            if any(result.action == "busy" for result in results):
                busy.append(record)
                continue
            done[record.slide_id] = results
            log_results(results)
            on_result(results)
        waiting = busy
        if busy:
            time.sleep(1.0)
    return CohortResult(tuple(result for record in records for result in done[record.slide_id]))


def log_results(results: Sequence[StageResult]) -> None:
    """Log the results of workers, which have no log file of their own."""
    for result in results:
        status = result.status
        if result.action == "failed":
            logger.error("%s: %s failed: %s\n%s", result.slide_id, result.stage, status.reason, status.traceback)
        else:
            logger.info(
                "%s: %s %s, %s%s", result.slide_id, result.stage, result.action, status.state, _in_brackets(status)
            )


def with_traffic(status: StageStatus, read: Traffic) -> StageStatus:
    """A status with what was read from the slide's address, if it has one."""
    return replace(status, summary={**status.summary, READ: read.as_facts()}) if read else status


def _in_brackets(status: StageStatus) -> str:
    parts = [status.note, str(Traffic.parse(status.summary[READ])) if READ in status.summary else ""]
    text = "; ".join(part for part in parts if part)
    return f" ({text})" if text else ""


def _pass(
    stages: Sequence[SlideStage], run: RunDir, records: Sequence[SlideRecord], workers: int
) -> Iterator[tuple[SlideRecord, list[StageResult]]]:
    stale = []
    for record in records:
        quick = _all_fresh(stages, run, record)
        if quick is not None:
            yield record, quick
        else:
            stale.append(record)
    if workers == 0:
        yield from ((record, process_slide(stages, run, record)) for record in stale)
        return
    most = min(getattr(stage, "slides_a_worker", 1) for stage in stages)
    size = max(1, min(most, -(-len(stale) // (2 * workers))))
    groups = [stale[first : first + size] for first in range(0, len(stale), size)]
    again = []
    for group, outcome in _isolated(stages, run, groups, workers):
        if not isinstance(outcome, Crash):
            yield from zip(group, outcome, strict=True)
        elif len(group) > 1:
            again += [[record] for record in group]
        else:
            yield group[0], _crashed(stages, run, group[0], outcome)
    for (record,), outcome in _isolated(stages, run, again, workers):
        yield record, _crashed(stages, run, record, outcome) if isinstance(outcome, Crash) else outcome[0]


def _isolated(
    stages: Sequence[SlideStage], run: RunDir, groups: Sequence[list[SlideRecord]], workers: int
) -> Iterator[tuple[list[SlideRecord], list[list[StageResult]] | Crash]]:
    """Run each group of slides in a process of its own."""
    jobs: Iterable[tuple[Any, ...]] = ((tuple(stages), run, group) for group in groups)
    for (_, _, group), outcome in run_isolated(_process_slides, jobs, workers, preload=_preload(stages)):
        yield group, outcome


def _process_slides(
    stages: Sequence[SlideStage], run: RunDir, records: Sequence[SlideRecord]
) -> list[list[StageResult]]:
    return [process_slide(stages, run, record) for record in records]


def _preload(stages: Sequence[SlideStage]) -> list[str]:
    """Modules that the worker server imports once: stages, stores, and late imports of stages (`preload`)."""
    late = {name for stage in stages for name in getattr(stage, "preload", ())}
    return sorted({type(stage).__module__ for stage in stages} | late | {"wsi_pipeline.store.backends.hdf5"})


def _all_fresh(stages: Sequence[SlideStage], run: RunDir, record: SlideRecord) -> list[StageResult] | None:
    """The results if every stage is up to date, else None. Starts no worker."""
    results = []
    with known_files(run.known(record.slide_id)):
        for stage in stages:
            try:
                state = stage.check(record)
            except (WsiPipelineError, OSError):
                return None
            if not state.fresh or state.status is None:
                return None
            results.append(up_to_date(stage, run, record, state.status))
    return results


def _crashed(stages: Sequence[SlideStage], run: RunDir, record: SlideRecord, crash: Crash) -> list[StageResult]:
    """Results after a worker died: the first stage that is not up to date has failed."""
    results: list[StageResult] = []
    for stage in stages:
        quick = _all_fresh([stage], run, record)
        if quick is None:
            status = StageStatus("failed", crash.reason, "The file may be damaged in a way its codec does not survive")
            record_outcome(run, record, stage.name, status)
            return [*results, StageResult(record.slide_id, stage.name, "failed", status)]
        results += quick
    return results


def blocked(record: SlideRecord, run: RunDir, stage: str, needs: Sequence[str]) -> StageResult | None:
    """The result for a slide that failed in a stage that `stage` depends on; None if it failed in none."""
    stages = read_status(run.status(record.slide_id), record.slide_id).stages
    for name in needs:
        if name in stages and stages[name].state == "failed":
            status = replace(stages[name], note=f"failed in {name}")
            return StageResult(record.slide_id, stage, "blocked", status)
    return None
