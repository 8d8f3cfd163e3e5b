"""Run the benchmarks and print their tables, one after another; exit code 1 if one of them failed.

    python benchmarks/run_all.py                   the quick form of each, about a quarter of an hour
    python benchmarks/run_all.py --full            as in the documents: 100,000 px slide, a quarter of an hour
    python benchmarks/run_all.py --only encoders peak_memory
    python benchmarks/run_all.py --long            also those that take more than a quarter of an hour each
    python benchmarks/run_all.py --run wsi-run     also the report of a thousand slides, made of this run's

`--only` takes long ones too. `make bench WITH=--long` passes such words on. Benchmarks on real slides and weights are
left out where WSI_PIPELINE_DATA is not there.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("WSI_PIPELINE_DATA", HERE.parents[1] / "shared" / "data"))
SLIDE = DATA / "slides" / "metaplasia-HE.svs"


@dataclass(frozen=True)
class Benchmark:
    """One script: its words in the quick and in the full form (given a folder for its files).

    needs_run   its first word is a run with heatmaps
    long        more than a quarter of an hour: left out unless asked for
    """

    name: str
    quick: Callable[[Path], list[str]]
    full: Callable[[Path], list[str]]
    needs_data: bool = False
    needs_run: bool = False
    long: bool = False


BENCHMARKS = (
    Benchmark("segmentation", lambda folder: [], lambda folder: []),
    Benchmark("encoders", lambda folder: ["--repeats", "5"], lambda folder: [], needs_data=True),
    Benchmark("reading", lambda folder: ["--patches", "96", "--rounds", "3"], lambda folder: [], needs_data=True),
    Benchmark("reading_features", lambda folder: [], lambda folder: [], needs_data=True),
    Benchmark(
        "embedding",
        lambda folder: [str(SLIDE), "--patches", "96", "--rounds", "2"],
        lambda folder: [str(SLIDE), "--patches", "383"],
        needs_data=True,
    ),
    Benchmark(
        "lossless",
        lambda folder: [str(SLIDE), "--side", "2048", "--rounds", "3"],
        lambda folder: [str(SLIDE)],
        needs_data=True,
    ),
    Benchmark("remote", lambda folder: [str(SLIDE)], lambda folder: [str(SLIDE), "--link"], needs_data=True),
    Benchmark("peers", lambda folder: ["--rounds", "1", "--patches", "300"], lambda folder: [], needs_data=True),
    Benchmark("waiting", lambda folder: ["--rounds", "1"], lambda folder: []),
    Benchmark("ten_thousand", lambda folder: ["--slides", "2000"], lambda folder: []),
    Benchmark("growth", lambda folder: ["--most", "100000"], lambda folder: []),
    Benchmark("mil_speed", lambda folder: [], lambda folder: ["--full"]),
    Benchmark("peak_memory", lambda folder: ["--side", "20000"], lambda folder: []),
    Benchmark("store_speed", lambda folder: ["--rounds", "3"], lambda folder: []),
    Benchmark("large_report", lambda folder: ["--slides", "250"], lambda folder: [], needs_run=True),
    Benchmark("nearest_patches", lambda folder: ["--rows", "200000", "--queries", "10"], lambda folder: [], long=True),
    Benchmark("quality", lambda folder: [], lambda folder: [], needs_data=True, long=True),
    Benchmark("cluster", lambda folder: ["--slides", "50"], lambda folder: [], long=True),
)


def run(benchmark: Benchmark, full: bool, made: Path | None) -> bool:
    """Run one benchmark with its output on ours; True if it went well or was left out."""
    print(f"\n== {benchmark.name}", flush=True)
    if benchmark.needs_data and not DATA.is_dir():
        print("left out: set WSI_PIPELINE_DATA to the folder of real slides and weights")
        return True
    if benchmark.needs_run and made is None:
        print("left out: name a run with heatmaps by --run")
        return True
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = (benchmark.full if full else benchmark.quick)(Path(folder))
        words = [str(made), *words] if benchmark.needs_run else words
        call = [sys.executable, "-m", f"benchmarks.{benchmark.name}", *words]
        code = subprocess.run(call, check=False, env={**os.environ, "PYTHONPATH": _python_path()}).returncode
    print(
        f"({time.perf_counter() - started:.0f} s{'' if code == 0 else f', FAILED with exit code {code}'})", flush=True
    )
    return code == 0


def _python_path() -> str:
    """Where the scripts find `benchmarks` and `tests`, and each other without a package."""
    given = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join([str(HERE.parent), str(HERE), *([given] if given else [])])


def machine() -> str:
    """One line about where the numbers come from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    amx = ", AMX" if "amx_bf16" in flags else ""
    memory = psutil.virtual_memory().total / 1e9
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    return (
        f"{platform.machine()}, {cores} cores{amx}, {memory:.0f} GB memory, {load}, Python {platform.python_version()}"
    )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, default=[])
    parser.add_argument("--long", action="store_true", help="also the long ones")
    parser.add_argument("--run", type=Path, help="a run with heatmaps, for large_report")
    parser.add_argument("--full", action="store_true", help="the long form of each")
    args = parser.parse_args()
    print(machine())
    usual = [benchmark.name for benchmark in BENCHMARKS if args.long or not benchmark.long]
    wanted = [benchmark for benchmark in BENCHMARKS if benchmark.name in (args.only or usual)]
    made = args.run.resolve() if args.run else None
    went_well = [run(benchmark, args.full, made) for benchmark in wanted]
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main())
