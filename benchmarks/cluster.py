"""The workflow on a real Slurm of one node, with trouble: are all results those of one plain command?

    python -m benchmarks.cluster [--slides 200] [--chunk 25]

Small slides, a fifth of them on a web server of the loopback. During the run all processes of one job are killed, one
job is cancelled, and the node dies: its daemon and all it runs. The training asks for less memory than it needs the
first time, so that Slurm ends it. `wsi-pipeline run` then does the same without Slurm, and all stores, models,
predictions and pictures of the two run folders are compared byte by byte. Fails if anything differs, or if one of the
troubles did not happen. Needs root, Debian's packages slurm-wlm and munge, and the extras `workflow` and `remote`.
"""

from __future__ import annotations

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from benchmarks.range_server import serving
from benchmarks.torture.cohort import write_cohort
from benchmarks.torture.compare import differences
from tests.workflows.slurm_node import SlurmNode, why_not
from tests.workflows.snakemake_calls import snakemake

SIDE = 384
REMOTE_EACH = 5
"""Every fifth slide is at an address."""
TOO_LITTLE_MB, ENOUGH_MB = 300, 4000
CONFIG = """
slides: slides.csv
run: run
chunk: {chunk}
tile: {{patch-px: 64}}
embed: [{{model: colour}}]
train-mil: {{folds: 2, epochs: 3, bootstrap: 100}}
"""
PLAIN = """
slides: slides.csv
run: plain
tile: {patch-px: 64}
embed: {model: colour}
train-mil: {folds: 2, epochs: 3, bootstrap: 100}
"""
HERE = (
    *("--slurm-no-account", "--slurm-status-command=squeue", "--slurm-init-seconds-before-status-checks=2"),
    *("--seconds-between-status-checks=3", "--latency-wait=10", "--retries=2"),
    *("--set-threads", "segment=2", "tile=2", "embed=2", "train_mil=1", "--set-resources"),
    *("segment:mem_mb=4000", "tile:mem_mb=4000", "embed:mem_mb=4000"),
    f"train_mil:mem_mb={TOO_LITTLE_MB} if attempt == 1 else {ENOUGH_MB}",
)
KINDS = ("tissue", "embed", "train_mil", "heatmap", "report")
ENDED_WELL = (0, 3)


@dataclass
class Trouble:
    """What was done to jobs while the workflow ran, with the job's id."""

    node: SlurmNode
    run: Path
    done: dict[str, str] = field(default_factory=dict)

    def make(self, is_over: Callable[[], bool]) -> None:
        """Wait for a job of the right kind three times, and end it."""
        for name, kind, stage, end in (
            ("killed", "tissue", "segment/*.h5", self._kill),
            ("cancelled", "embed", "embed/colour/*.h5", lambda job: self.node.call("scancel", job)),
            ("node died", "embed", "embed/colour/*.h5", lambda job: self.node.die()),
        ):
            before = len(list(self.run.glob(stage)))
            while not is_over() and name not in self.done:
                job = self._running(kind) if len(list(self.run.glob(stage))) > before + 1 else None
                if job:  # in the middle of its slides: some were made since
                    end(job)
                    self.done[name] = job
                    print(f"{time.strftime('%X')} {name}: job {job} ({kind})", flush=True)
                time.sleep(0.05)

    def _running(self, kind: str) -> str | None:
        ids = [job["JobId"] for job in self.node.jobs() if job["JobState"] == "RUNNING" and _kind(job) == kind]
        return next((job for job in ids if job not in self.done.values()), None)

    def _kill(self, job: str) -> None:
        for process in processes_of(job):
            process.kill()


def processes_of(job: str) -> list[psutil.Process]:
    """All processes of a job, by the variable that Slurm sets."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("SLURM_JOB_ID") == job:
                found.append(process)
        except psutil.Error:
            continue
    return found


def make_cohort(folder: Path, slides: int, chunk: int, address: str) -> None:
    """The slides, their table with addresses, and both configurations."""
    write_cohort(folder, slides, SIDE, distinct=min(slides - slides % 2, 40))
    with (folder / "slides.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        if number % REMOTE_EACH == 0:
            row["path"] = f"{address}/{row['path']}"
    with (folder / "slides.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "config.yaml").write_text(CONFIG.format(chunk=chunk))
    (folder / "plain.yaml").write_text(PLAIN)


def on_slurm(folder: Path, node: SlurmNode) -> tuple[float, dict[str, str], str]:
    """Run the workflow with trouble. Returns its seconds, what was done to which job, and what snakemake printed."""
    started = time.monotonic()
    trouble = Trouble(node, folder / "run")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(snakemake, folder, "slurm", *HERE, path=node.bin, timeout=3600)
        trouble.make(running.done)
        done = running.result()
    if done.returncode != 0:
        raise SystemExit(f"snakemake ended with {done.returncode}:\n{done.stdout[-6000:]}")
    return time.monotonic() - started, trouble.done, done.stdout


def plainly(folder: Path) -> float:
    """`wsi-pipeline run` on the same slides, then `heatmap`; returns their seconds."""
    started = time.monotonic()
    # As snakemake sets them for the training: sums in another order give other last digits.
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    # The workflow also draws pyramids of attention, which `run` leaves to `heatmap`.
    for words in (("run", "plain.yaml"), ("heatmap", "--run", "plain"), ("report", "--run", "plain")):
        command = [sys.executable, "-m", "wsi_pipeline", *words]
        done = subprocess.run(command, cwd=folder, env={**os.environ, **threads}, capture_output=True, text=True)
        if done.returncode not in ENDED_WELL:
            raise SystemExit(f"{done.stdout}\n{done.stderr}")
    return time.monotonic() - started


def _kind(job: dict[str, str]) -> str:
    return next((name for name in KINDS if name in job.get("Comment", "")), "?")


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=200)
    parser.add_argument("--chunk", type=int, default=25)
    parser.add_argument(
        "--keep", type=Path, help="an empty folder for the slides and both run folders, which stay there"
    )
    args = parser.parse_args()
    reason = why_not()
    if reason:
        raise SystemExit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the daemons are ended
    with tempfile.TemporaryDirectory() as name:
        folder = (args.keep or Path(name) / "cohort").absolute()
        folder.mkdir(exist_ok=True)
        os.environ["WSI_PIPELINE_CACHE"] = str(Path(name) / "cache")
        with serving(folder) as server, SlurmNode(Path(name) / "node") as node:
            make_cohort(folder, args.slides, args.chunk, server.address)
            seconds, trouble, _ = on_slurm(folder, node)
            jobs = node.jobs()
            ended = Counter(f"{_kind(job)} {job['JobState']}" for job in jobs)
            told = ", ".join(f"{count} {what}" for what, count in sorted(ended.items()))
            print(f"Slurm: {seconds:.0f} s, {len(jobs)} jobs: {told}", flush=True)
            asked = server.requests
            print(f"plain: {plainly(folder):.0f} s; requests to the web server {asked} and {server.requests - asked}")
        found = [name for name in differences(folder / "run", folder / "plain") if not name.startswith("status/")]
        run = folder / "run"
        made = {stage: len(list(run.glob(f"{stage}/*.h5"))) for stage in ("segment", "tile", "embed/colour")}
    print(f"stores: {made}; files that differ or were left over: {len(found)}")
    for line in found[:20]:
        print(f"  {line}")
    missing = {"killed", "cancelled", "node died"} - set(trouble)
    if missing:
        print(f"did not happen: {', '.join(sorted(missing))}")
    starved = any(_kind(job) == "train_mil" and job["JobState"] != "COMPLETED" for job in jobs)
    print(f"train_mil with {TOO_LITTLE_MB} MB was ended: {starved}")
    return 1 if found or missing or not starved or set(made.values()) != {args.slides} else 0


if __name__ == "__main__":
    sys.exit(main())
