"""Run the benchmarks and print their tables, one after another; exit code 1 if one of them failed.

    python benchmarks/run_all.py                   the quick form of each, about a quarter of an hour
    python benchmarks/run_all.py --full            as in the documents: 100,000 px slide, a quarter of an hour
    python benchmarks/run_all.py --only encoders peak_memory

Benchmarks on real slides and weights are left out where WSI_PIPELINE_DATA is not there.
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


@dataclass(frozen=True)
class Benchmark:
    """One script: its words in the quick and in the full form (given a folder for its files)."""

    name: str
    quick: Callable[[Path], list[str]]
    full: Callable[[Path], list[str]]
    needs_data: bool = False


BENCHMARKS = (
    Benchmark("segmentation", lambda folder: [], lambda folder: []),
    Benchmark("encoders", lambda folder: ["--repeats", "5"], lambda folder: [], needs_data=True),
    Benchmark("reading", lambda folder: ["--patches", "96", "--rounds", "3"], lambda folder: [], needs_data=True),
    Benchmark("reading_features", lambda folder: [], lambda folder: [], needs_data=True),
    Benchmark(
        "embedding",
        lambda folder: [str(DATA / "slides" / "metaplasia-HE.svs"), "--patches", "96", "--rounds", "2"],
        lambda folder: [str(DATA / "slides" / "metaplasia-HE.svs"), "--patches", "383"],
        needs_data=True,
    ),
    Benchmark("peers", lambda folder: ["--rounds", "1", "--patches", "300"], lambda folder: [], needs_data=True),
    Benchmark("waiting", lambda folder: ["--rounds", "1"], lambda folder: []),
    Benchmark("ten_thousand", lambda folder: ["--slides", "2000"], lambda folder: []),
    Benchmark("growth", lambda folder: ["--most", "100000"], lambda folder: []),
    Benchmark("mil_speed", lambda folder: [], lambda folder: ["--full"]),
    Benchmark("peak_memory", lambda folder: ["--side", "20000"], lambda folder: []),
)


def run(benchmark: Benchmark, full: bool) -> bool:
    """Run one benchmark with its output on ours; True if it went well or was left out."""
    print(f"\n== {benchmark.name}", flush=True)
    if benchmark.needs_data and not DATA.is_dir():
        print("left out: set WSI_PIPELINE_DATA to the folder of real slides and weights")
        return True
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        words = (benchmark.full if full else benchmark.quick)(Path(folder))
        code = subprocess.run([sys.executable, HERE / f"{benchmark.name}.py", *words], check=False).returncode
    print(
        f"({time.perf_counter() - started:.0f} s{'' if code == 0 else f', FAILED with exit code {code}'})", flush=True
    )
    return code == 0


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
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--full", action="store_true", help="the long form of each")
    args = parser.parse_args()
    print(machine())
    wanted = [benchmark for benchmark in BENCHMARKS if benchmark.name in args.only]
    went_well = [run(benchmark, args.full) for benchmark in wanted]
    return 0 if all(went_well) else 1


if __name__ == "__main__":
    sys.exit(main())
