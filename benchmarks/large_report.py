"""`report` at the size of a large cohort: seconds, memory, size of the page, and how long a browser takes to open it.

    python benchmarks/large_report.py RUN [--slides 250 1000]

Slides of a run with heatmaps are repeated under new names by links to their stores and pictures, until there are as
many as asked for; their predictions are repeated too. Processor seconds and peak memory are those of the command with
its processes. The page opens in headless Chromium from a local file: seconds until the page and its pictures are
loaded, and until it is scrolled to its end.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.browser import CHROMIUM, Browser


def repeated(run: Path, target: Path, slides: int) -> None:
    """A run of `slides` slides at `target`."""
    cohort = pd.read_csv(run / "cohort.csv", dtype=str, keep_default_na=False)
    kept = list(cohort["slide_id"])
    names = {kept[i % len(kept)] + f"-{i:05d}": kept[i % len(kept)] for i in range(slides)}
    for path in sorted(run.rglob("*")):
        where = path.relative_to(run)
        if path.is_dir() or where.parts[0] in ("locks", "logs", "report"):
            continue
        old = next((name for name in kept if re.fullmatch(re.escape(name) + r"\..*", path.name)), None)
        if path.name in ("cohort.csv", "predictions.csv", "folds.csv"):
            _rows(path, target / where, names)
        elif old is None:
            _link(path, target / where)
        else:
            for new in (name for name, source in names.items() if source == old):
                _slide_file(path, target / where.parent / (new + path.name[len(old) :]), old, new)


def _rows(path: Path, target: Path, names: dict[str, str]) -> None:
    """Rows of each slide under its new names, each of a patient of its own."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    if "slide_id" not in table:
        return _link(path, target)
    place = {name: row for row, name in enumerate(table["slide_id"])}
    rows = table.iloc[[place[old] for old in names.values() if old in place]].copy()
    rows["slide_id"] = [new for new, old in names.items() if old in place]
    if "patient_id" in rows:
        rows["patient_id"] = rows["slide_id"]
    target.parent.mkdir(parents=True, exist_ok=True)
    rows.to_csv(target, index=False)
    return None


def _slide_file(path: Path, target: Path, old: str, new: str) -> None:
    if path.suffix == ".json":
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(path.read_text("utf-8").replace(old, new), "utf-8")
    else:
        _link(path, target)


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.symlink_to(path.resolve())


def measured(run: Path) -> tuple[float, float, float]:
    """Processor seconds, peak memory in MB, and size of the page in MB."""
    code = "import sys; from wsi_pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, "report", "--run", str(run)], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"report: exit code {status}")
    page = (run / "report" / "report.html").stat().st_size
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, page / 1e6


def opened(page: Path) -> tuple[float, float]:
    """Seconds until the page is loaded, and until its end is shown."""
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        started = time.perf_counter()
        browser.open(page)
        loaded = time.perf_counter() - started
        browser.run("window.scrollTo(0, document.body.scrollHeight)")
        browser.picture()
        return loaded, time.perf_counter() - started


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--slides", type=int, nargs="+", default=[250, 1000])
    args = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f}")
    print("| slides | processor s | peak MB | page MB | open s | shown to its end s |")
    print("|--:|--:|--:|--:|--:|--:|", flush=True)
    for slides in args.slides:
        with tempfile.TemporaryDirectory() as name:
            run = Path(name) / "run"
            repeated(args.run, run, slides)
            numbers = measured(run)
            times = opened(run / "report" / "report.html") if CHROMIUM else (float("nan"),) * 2
            print(f"| {slides} | " + " | ".join(f"{value:.1f}" for value in (*numbers, *times)) + " |", flush=True)


if __name__ == "__main__":
    main()
