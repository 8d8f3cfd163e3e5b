"""Distribute slides over several devices: one process per device, each with its own stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.cohort.slide_status import StageStatus
from wsi_pipeline.stages.engine.runner import CohortResult, StageResult, log_results, record_outcome
from wsi_pipeline.stages.streaming.reader_process import Reading
from wsi_pipeline.stages.streaming.stream import RowStage, Survey, Watchers, stream_cohort
from wsi_pipeline.system.isolate import Crash, obey_parent
from wsi_pipeline.system.processes import process_context


class PlacedStage(RowStage, Protocol):
    """A stage that computes on a device; picklable until its network is loaded."""

    device: str


@dataclass(frozen=True)
class _Share:
    """The work of one process."""

    stages: tuple[PlacedStage, ...]
    run: RunDir
    records: tuple[SlideRecord, ...]
    todo: Survey
    reading: Reading
    cpu_threads: int = 0
    """By how many processes the threads of a CPU are shared; 0: it has them all."""


def stream_on(
    devices: Sequence[str],
    stages: Sequence[PlacedStage],
    run: RunDir,
    records: Sequence[SlideRecord],
    todo: Survey,
    reading: Reading,
    watch: Watchers,
) -> CohortResult:
    """`stream_cohort` on several devices, with slides distributed by patch count; on one device, in this process.

    If a process dies, the unfinished slides of its share fail. Running the same command again continues from the rows
    it had saved.
    """
    if len(devices) <= 1:
        return stream_cohort(stages, run, records, todo.jobs, reading, watch)
    whole = _Share(tuple(stages), run, tuple(records), todo, reading)
    shares = [share for share in _divided(whole, devices) if share.records]
    done = _Gathering(run, watch)
    context = process_context([__name__])
    processes: dict[Connection, tuple[Any, _Share]] = {}
    try:
        for share in shares:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_work, args=(sender, share))
            process.start()
            sender.close()
            processes[receiver] = (process, share)
        while processes:
            for ready in wait(list(processes)):
                assert isinstance(ready, Connection)
                if not done.take(ready):
                    process, share = processes.pop(ready)
                    process.join()
                    done.close(share, Crash(process.exitcode))
    finally:
        for process, _ in processes.values():
            process.terminate()
    return CohortResult(tuple(result for record in records for result in done.results[record.slide_id]))


def _divided(whole: _Share, devices: Sequence[str]) -> list[_Share]:
    """One share per device with about equal patch counts: largest slide first, each to the least loaded device."""
    patches = {job.record.slide_id: job.rows - job.start for job in whole.todo.jobs}
    loads, names = [0] * len(devices), [set[str]() for _ in devices]
    for record in sorted(whole.records, key=lambda item: -patches.get(item.slide_id, 0)):
        least = loads.index(min(loads))
        loads[least] += max(1, patches.get(record.slide_id, 0))
        names[least].add(record.slide_id)
    per_device = replace(whole.reading, threads=max(1, whole.reading.threads // len(devices)))
    shares = []
    for device, ids in zip(devices, names, strict=True):
        share = replace(
            whole,
            stages=tuple(_placed(stage, device) for stage in whole.stages),
            records=tuple(record for record in whole.records if record.slide_id in ids),
            todo=Survey(tuple(job for job in whole.todo.jobs if job.record.slide_id in ids), 0),
            reading=replace(per_device, decode_on=device if whole.reading.decode_on else ""),
            cpu_threads=sum(other == device for other in devices) if device == "cpu" else 0,
        )
        shares.append(share)
    return shares


def _placed(stage: PlacedStage, device: str) -> PlacedStage:
    other = copy(stage)
    for loaded in ("encoder", "classifier"):
        vars(other).pop(loaded, None)
    other.device = device
    return other


class _Gathering:
    """Collects results and progress of all processes."""

    def __init__(self, run: RunDir, watch: Watchers) -> None:
        self.results: dict[str, list[StageResult]] = {}
        self._run, self._watch = run, watch

    def take(self, receiver: Connection) -> bool:
        """Handle one message; False after the last."""
        try:
            message = receiver.recv()
        except EOFError:
            return False
        if isinstance(message, int):
            self._watch.on_patches(message)
        else:
            self._add(message)
        return True

    def close(self, share: _Share, crash: Crash) -> None:
        """Mark the unfinished slides of a share as failed after its process has ended."""
        for record in share.records:
            if record.slide_id not in self.results:
                status = StageStatus("failed", crash.reason, "Run the same command again: it resumes")
                self._add([self._failed(record, stage, status) for stage in share.stages])

    def _failed(self, record: SlideRecord, stage: RowStage, status: StageStatus) -> StageResult:
        record_outcome(self._run, record, stage.name, status)
        return StageResult(record.slide_id, stage.name, "failed", status)

    def _add(self, results: list[StageResult]) -> None:
        self.results[results[0].slide_id] = results
        log_results(results)
        self._watch.on_result(results)


def _work(sender: Connection, share: _Share) -> None:
    """Body of one process."""
    obey_parent()
    if share.cpu_threads:
        import torch

        torch.set_num_threads(max(1, torch.get_num_threads() // share.cpu_threads))
    send = _sending(sender)
    stream_cohort(share.stages, share.run, share.records, share.todo.jobs, share.reading, Watchers(send, send))


def _sending(sender: Connection) -> Callable[[Any], None]:
    def send(message: Any) -> None:
        """Send a message to the parent process; exit quietly if it is gone."""
        try:
            sender.send(message)
        except BrokenPipeError:  # the parent is gone; no slide is to blame for that
            raise SystemExit(1) from None

    return send
