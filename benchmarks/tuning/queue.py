"""Jobs through worker processes, each with its share of the cores; results are lines of a file: nothing runs twice."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.tuning.job import Job
from wsi_pipeline.system.machine import prepare_process

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
RESULTS = Path(os.environ.get("TUNING_RESULTS", Path(__file__).with_name("results.jsonl")))


class Results:
    """Finished jobs by key, kept in a file of one JSON object a line that only grows."""

    def __init__(self, path: Path = RESULTS) -> None:
        self.path = path
        self._lock = threading.Lock()
        lines = path.read_text().splitlines() if path.is_file() else []
        self._found = {row["key"]: row for row in map(json.loads, lines)}

    def get(self, job: Job) -> Json | None:
        """The result of a job, or None."""
        row = self._found.get(job.key)
        return None if row is None else dict(row["result"])

    def put(self, job: Job, result: Json) -> None:
        """Keep a result."""
        row = {"key": job.key, "job": dataclasses.asdict(job), "result": result}
        with self._lock, self.path.open("a") as file:
            self._found[job.key] = row
            file.write(json.dumps(row, sort_keys=True) + "\n")


def work_off(jobs: Iterable[Job], results: Results, workers: int) -> None:
    """Run every job that has no result yet, `workers` at a time; one that fails is told and left for the next call."""
    prepare_process()  # its part in the environment is for the processes of the jobs
    waiting = list({job.key: job for job in jobs if results.get(job) is None}.values())
    threads = max(1, (os.cpu_count() or 1) // workers)
    print(f"{len(waiting)} trainings to do, {workers} at a time with {threads} threads each", flush=True)
    with ThreadPoolExecutor(workers) as pool:
        for job, fault in zip(waiting, pool.map(lambda job: _one(job, results, threads), waiting), strict=True):
            if fault:
                print(f"FAILED {job}\n{fault}", flush=True)


def _one(job: Job, results: Results, threads: int) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    words = [sys.executable, "-m", "benchmarks.tuning.run_job", json.dumps(dataclasses.asdict(job))]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    if done.returncode:
        return done.stderr[-2000:]
    result = json.loads(done.stdout.splitlines()[-1])
    results.put(job, result)
    print(_told(job, result), flush=True)
    return ""


def _told(job: Job, result: Json) -> str:
    what = f"{job.dataset} {job.method} seed {job.seed} {job.fields} {job.variant} lr {job.learning_rate:g}"
    if "bags" in result:
        return f"{what}, fold {job.fold}: {len(result['bags'])} images classified"
    if job.method == "suggest":
        return f"{what}: macro F1 with {result['counts'][-1]} labels {result['macro_f1']['suggested'][-1]:.3f}"
    return f"{what}: macro F1 {result['macro_f1']:.3f}, {result['seconds_per_epoch']:.0f} s per epoch"
