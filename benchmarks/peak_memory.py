"""Memory and time of tile, embed and classify on a slide of 100,000 x 100,000 pixels, sparse tissue; fails at 2 GB.

    python benchmarks/peak_memory.py                     pyramid and single level, --pixels none and jpeg
    python benchmarks/peak_memory.py --slides FOLDER     keep the slides there (0.5 GB each) for the next time
    python benchmarks/peak_memory.py --side 20000        a smaller slide, in well under a minute
    python benchmarks/peak_memory.py --then embed classify   these, too, with the built-in network and adapter

Each row is one command: `tile --workers 1` from nothing (segment and tile, in one worker process), `embed`,
`classify`. `all processes` is the highest sum of resident memory over the process tree, looked at every 20 ms; pages
that processes share count for each of them, so the truth is below. `largest` is the high-water mark that the kernel
kept of the largest one. `CPU s` are seconds of processor time of all of them, which other work on the machine does
not stretch.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import psutil
from big_slide import LEVELS, make_big_slide

GB = 1e9
INTERVAL_SECONDS = 0.02


@dataclass(frozen=True)
class Measured:
    """What one command took: seconds, processor seconds, peak resident bytes of all processes and of the largest."""

    seconds: float
    cpu: float
    tree: int
    largest: int


def measure(command: Sequence[str]) -> Measured:
    """Run a command and watch its process tree. Raises SystemExit if it fails."""
    started, tree = time.perf_counter(), 0
    seen: dict[int, tuple[int, float]] = {}
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    root = psutil.Process(child.pid)
    while child.poll() is None:
        tree = max(tree, _look(root, seen))
        time.sleep(INTERVAL_SECONDS)
    if child.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit code {child.returncode}")
    largest = max(peak for peak, _ in seen.values())
    return Measured(time.perf_counter() - started, sum(cpu for _, cpu in seen.values()), max(tree, largest), largest)


def _look(root: psutil.Process, seen: dict[int, tuple[int, float]]) -> int:
    """Resident bytes of a process and all below it; notes the high-water mark and processor time of each in `seen`."""
    resident = 0
    try:
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in family:
        try:
            times, memory = process.cpu_times(), process.memory_info().rss
            status = Path(f"/proc/{process.pid}/status")
            lines = status.read_text().splitlines() if status.is_file() else []
        except (psutil.Error, OSError):  # it ended between two looks
            continue
        peak = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), memory)
        before = seen.get(process.pid, (0, 0.0))  # a process at its end tells of no memory any more
        seen[process.pid] = (max(peak, before[0]), max(times.user + times.system, before[1]))
        resident += memory
    return resident


def slide(folder: Path, side: int, kind: str) -> Path:
    """The slide of that kind in `folder`, made where it is not there yet."""
    path = folder / f"{kind}-{side}.svs"
    if not path.is_file():
        started = time.perf_counter()
        temporary = path.with_suffix(".part.svs")
        make_big_slide(temporary, width=side, height=side, levels=LEVELS if kind == "pyramid" else (1,))
        temporary.rename(path)
        print(
            f"made {path.name}: {path.stat().st_size / GB:.2f} GB in {time.perf_counter() - started:.0f} s", flush=True
        )
    return path


def steps(path: Path, pixels: str, then: Sequence[str]) -> Iterator[tuple[str, Measured, int]]:
    """Tile one slide from nothing, then what else is asked for: each command, what it took, and how many patches."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = {
            "tile": [str(path), "--workers", "1", "--pixels", pixels],
            **{name: ["--model", "pathotune", "--adapter", "built-in"] for name in then},
        }
        for name, own in words.items():
            found = measure([sys.executable, "-m", "wsi_pipeline", name, *own, "--run", str(run)])
            with h5py.File(run / "tile" / f"{path.stem}.h5") as store:
                yield name, found, len(store["coords"])


@contextmanager
def _folder(named: Path | None) -> Iterator[Path]:
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def main() -> int:
    """Command line; 1 where a run reached the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=100_000, help="width and height of the slide, pixels")
    parser.add_argument("--slides", type=Path, help="folder to keep the slides in; default: a temporary one")
    parser.add_argument("--kinds", nargs="+", default=["pyramid", "single-level"], choices=("pyramid", "single-level"))
    parser.add_argument("--pixels", nargs="+", default=["none", "jpeg"], choices=("none", "jpeg", "raw"))
    parser.add_argument("--then", nargs="+", default=[], choices=("embed", "classify"), help="commands after tile")
    parser.add_argument("--limit", type=float, default=2.0, help="GB (10^9 bytes) that may not be reached")
    args = parser.parse_args()
    most = 0
    head = f"{'slide':14}{'command':>9}{'--pixels':>9}{'patches':>9}{'seconds':>9}{'CPU s':>8}"
    head += f"{'all processes':>15}{'largest':>10}"
    print(f"{args.side} x {args.side} px at 0.25 mpp, tiled at 0.5 mpp", head, sep="\n", flush=True)
    with _folder(args.slides) as folder:
        for kind in args.kinds:
            path = slide(folder, args.side, kind)
            for pixels in args.pixels:
                for name, found, patches in steps(path, pixels, args.then):
                    most = max(most, found.tree)
                    memory = f"{found.tree / GB:12.2f} GB{found.largest / GB:7.2f} GB"
                    took = f"{patches:9}{found.seconds:9.1f}{found.cpu:8.1f}"
                    print(f"{kind:14}{name:>9}{pixels:>9}{took}{memory}", flush=True)
    verdict = "below" if most < args.limit * GB else "NOT below"
    print(f"peak {most / GB:.2f} GB: {verdict} the limit of {args.limit:g} GB")
    return 0 if most < args.limit * GB else 1


if __name__ == "__main__":
    sys.exit(main())
