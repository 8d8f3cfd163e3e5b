"""What a cohort costs where nothing is computed: tables, freshness, locks, the plan of the workflow.

    python benchmarks/ten_thousand.py --slides 10000 [--only tile] [--profile tile]

A run of four real slides is copied until it has so many: slides and pictures by hard links, stores and status files as
files of their own. Then each command of the table runs on it with nothing to do, and again on a tenth of the slides.
Wall-clock and processor seconds of the command with all processes it starts, and the most memory it has had.
`growth` is how much more processor time than on the tenth, without what a command costs on the four slides: 10 is
linear. The command fails if all of them together take more than a minute, or `tile` more than 20 s. A run folder that
was copied counts apart: nothing is known of its files, so the first command reads and checks all of them once.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DISTINCT, SIDE = 4, 512
MOST_SECONDS, MOST_TILE_SECONDS = 60.0, 20.0
CHUNK = 20
"""Slides in one job of the workflow."""
ENDED_WELL = (0, 3)
CONFIG = f"""
slides: slides.csv
run: run
chunk: {CHUNK}
embed: [{{model: colour}}]
"""
MARKERS = ("segment", "tile", "embed/colour")


def nothing(folder: Path) -> None:
    """No preparation."""


def leave_locks(folder: Path) -> None:
    """A lock for every slide and stage, held by a process of this machine that is gone."""
    from dataclasses import asdict

    from wsi_pipeline.cohort.run_dir import RunDir
    from wsi_pipeline.system.process_identity import this_process

    facts = {**asdict(this_process()), "started": 1, "time": "", "token": "x"}
    run = RunDir(folder / "run")
    for path in (folder / "run" / "status").glob("*.json"):
        for stage in ("segment", "tile"):
            lock = run.lock(stage, path.stem)
            lock.parent.mkdir(parents=True, exist_ok=True)
            lock.write_text(json.dumps(facts))


def mark_all(folder: Path) -> None:
    """The markers of a workflow that is done."""
    sys.path.insert(0, str(ROOT / "workflows"))
    from cohort_chunks import make_chunks

    from wsi_pipeline.cohort.manifest import read_cohort

    for name in make_chunks(read_cohort(folder / "slides.csv"), CHUNK):
        for stage in MARKERS:
            marker = folder / "run" / "workflow" / stage / f"{name}.done"
            marker.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text("all slides done\n")
    report = folder / "run" / "workflow" / "report" / "report.done"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("all slides done\n")


@dataclass(frozen=True)
class Work:
    """A command, and what is done to the run beforehand.

    counted   whether it is part of the sum: reading all files of a run that was copied is what happens once
    """

    name: str
    words: tuple[str, ...]
    prepare: Callable[[Path], None] = nothing
    module: str = "wsi_pipeline"
    counted: bool = True


def works() -> tuple[Work, ...]:
    """All that is measured, in order; `{ids}` stands for the ids of the slides of one job."""
    run = ("--run", "run")
    plan = ("--snakefile", str(ROOT / "workflows" / "Snakefile"), "--configfile", "config.yaml", "--cores", "1")
    return (
        Work("status", ("status", *run)),
        Work("tile, copied run", ("tile", "slides.csv", *run), counted=False),
        Work("embed, copied run", ("embed", "--model", "colour", *run), counted=False),
        Work("tile", ("tile", "slides.csv", *run)),
        Work("embed", ("embed", "--model", "colour", *run)),
        Work("a job of tile", ("tile", "slides.csv", *run, "--only", "{ids}")),
        Work("a job of embed", ("embed", "--model", "colour", *run, "--only", "{ids}")),
        Work("tile, with stale locks", ("tile", "slides.csv", *run), leave_locks),
        Work("plan, all to do", (*plan, "--dry-run", "--quiet", "all"), module="snakemake"),
        Work("plan, nothing to do", (*plan, "--dry-run", "--rerun-triggers", "mtime"), mark_all, module="snakemake"),
    )


@dataclass(frozen=True)
class Cost:
    """Seconds on the clock, seconds of the processor, bytes of the largest process."""

    wall: float
    computed: float
    memory: int


def make_first(folder: Path) -> Path:
    """Four slides, tiled and embedded: the folder that is copied."""
    from benchmarks.torture.cohort import write_cohort
    from wsi_pipeline.cli import main as command

    write_cohort(folder, DISTINCT, SIDE)
    run = str(folder / "run")
    for words in (("tile", str(folder / "slides.csv"), "--workers", "1"), ("embed", "--model", "colour")):
        if command([*words, "--run", run]) != 0:
            raise SystemExit(f"{' '.join(words)} did not end well")
    return folder


def make_cohort(first: Path, folder: Path, slides: int) -> Path:
    """A cohort of so many slides with a finished run, made of copies of `first`; returns its folder."""
    rows = [("slide_id", "path", "patient_id", "label")]
    copied = [path for path in (first / "run").rglob("s000?.*") if path.suffix != ".lock"]
    for path in {item.parent.relative_to(first) for item in copied}:
        (folder / path).mkdir(parents=True, exist_ok=True)
    for number in range(slides):
        old, new = f"s{number % DISTINCT:04d}", f"c{number:05d}"
        os.link(first / f"{old}.tif", folder / f"{new}.tif")
        for path in copied:
            if path.stem == old:
                _copy(path, folder / path.parent.relative_to(first) / f"{new}{path.suffix}", old, new)
        rows.append((new, f"{new}.tif", f"p{number // 2}", "ab"[number // 2 % 2]))
    with (folder / "slides.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    (folder / "config.yaml").write_text(CONFIG)
    from wsi_pipeline.cohort.manifest import read_cohort, to_csv

    (folder / "run" / "cohort.csv").write_text(to_csv(read_cohort(folder / "slides.csv")))
    return folder


def _copy(source: Path, target: Path, old: str, new: str) -> None:
    if source.suffix == ".json":
        target.write_text(source.read_text().replace(f'"{old}"', f'"{new}"'))
    elif source.suffix == ".h5":
        shutil.copyfile(source, target)
    else:
        os.link(source, target)


def measured(work: Work, folder: Path, profile: Path | None = None) -> Cost:
    """Run a command in `folder` and see what it costs. Raises SystemExit with its output if it does not end well."""
    work.prepare(folder)
    ids = ",".join(sorted(path.stem for path in folder.glob("*.tif"))[:CHUNK])
    words = [word.replace("{ids}", ids) for word in work.words]
    watched = ["-m", "cProfile", "-o", str(profile)] if profile else []
    command = [sys.executable, *watched, "-m", work.module, *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    started, memory = time.perf_counter(), 0
    with tempfile.TemporaryFile("w+") as out:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
        while (found := os.wait4(child.pid, os.WNOHANG))[0] == 0:
            memory = max(memory, _peak(child.pid))
            time.sleep(0.02)
        wall, child.returncode = time.perf_counter() - started, os.waitstatus_to_exitcode(found[1])
        out.seek(0)
        if child.returncode not in ENDED_WELL:
            raise SystemExit(f"{' '.join(words)}: exit code {child.returncode}\n{out.read()[-3000:]}")
    return Cost(wall, found[2].ru_utime + found[2].ru_stime, memory)


def _peak(pid: int) -> int:
    """The most memory that a process has had, in bytes. (What `wait4` tells begins with that of this process.)"""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM")), 0)


def table(folder: Path, slides: int, only: str) -> dict[str, Cost]:
    """Print a line for each command; returns what each costs on all slides."""
    first = make_first(folder / "first")
    folders = {number: folder / str(number) for number in (DISTINCT, slides // 10, slides)}
    for number, place in folders.items():
        make_cohort(first, place, number)
    print(f"\n| command | {slides // 10:,} slides: s | processor s | MB | {slides:,}: s | processor s | MB | growth |")
    print("|---|" + "--:|" * 7, flush=True)
    found = {}
    for work in works():
        if only and only != work.name:
            continue
        least, tenth, whole = (measured(work, place) for place in folders.values())
        cells = [f"{c.wall:.1f} | {c.computed:.1f} | {c.memory / 1e6:.0f}" for c in (tenth, whole)]
        more = (whole.computed - least.computed) / max(tenth.computed - least.computed, 0.01)
        print(f"| {work.name} | {' | '.join(cells)} | {more:.1f} |", flush=True)
        if work.counted:
            found[work.name] = whole
    return found


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=10_000)
    parser.add_argument("--only", default="", help="name of one command of the table")
    parser.add_argument("--profile", default="", help="show where the time of this command of the table goes, instead")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.profile:
            import pstats

            work = next(item for item in works() if item.name == args.profile)
            place = make_cohort(make_first(folder / "first"), folder / "all", args.slides)
            measured(work, place)
            measured(work, place, folder / "profile")
            pstats.Stats(str(folder / "profile")).sort_stats("cumulative").print_stats(70)
            return 0
        found = table(folder, args.slides, args.only)
    total = sum(cost.wall for cost in found.values())
    print(f"in all {total:.1f} s")
    too_slow = total > MOST_SECONDS or ("tile" in found and found["tile"].wall > MOST_TILE_SECONDS)
    return 1 if too_slow else 0


if __name__ == "__main__":
    sys.exit(main())
