"""The viewer's page in headless Chromium: seconds to the first picture of a slide, and memory while it is panned.

    python benchmarks/viewer_page.py SLIDE [--rounds 5]
    python benchmarks/viewer_page.py SLIDE --minutes 20 [--pace 2]

Needs chromium. The server is a process of its own, the browser has no GPU. Times are from the start of the navigation:

first picture   something of the slide is drawn
whole view      every tile of the view is drawn at its resolution
new             the server has just started and has not opened the slide; known: the page is opened again

--minutes N   instead, pan and zoom the page at random, --pace steps per second, and print every minute the memory of
              the page's JavaScript, of the browser's processes and of the server
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.browser import Browser

_WATCH = """new Promise(done => {
  const first = {};
  const look = () => {
    const pane = document.querySelector('.pane')?.pane;
    const item = pane?.viewer?.world.getItemAt(0);
    const canvas = pane?.viewer?.drawer?.canvas;
    if (item && canvas && canvas.width && !first.picture) {
      const at = canvas.getContext('2d').getImageData(canvas.width >> 1, canvas.height >> 1, 1, 1).data;
      if (at[3]) first.picture = performance.now();
    }
    if (first.picture && item.getFullyLoaded()) done([first.picture / 1000, performance.now() / 1000]);
    else setTimeout(look, 10);
  };
  look();
})"""
_STEP = """(([x, y, zoom]) => {
  const viewport = document.querySelector('.pane').pane.viewer.viewport;
  if (zoom) viewport.zoomTo(viewport.imageToViewportZoom(zoom));
  const b = viewport.getBounds();
  const clip = v => Math.min(0.95, Math.max(0.05, v));
  const c = viewport.getCenter();
  viewport.panTo(new OpenSeadragon.Point(clip(c.x + x * b.width), clip(c.y + y * b.width)));
})"""


class Served:
    """The viewer of one slide in a process of its own."""

    def __init__(self, slide: Path) -> None:
        code = (
            "import sys, time; from pathlib import Path;"
            "from wsi_pipeline.viewer.library import Library;"
            "from wsi_pipeline.viewer.web.serve import serve_in_thread;"
            "from wsi_pipeline.viewer.web.viewer import Viewer;"
            "print(serve_in_thread(Viewer(Library.of_files([Path(sys.argv[1])])))[1].url, flush=True); time.sleep(1e9)"
        )
        self.process = subprocess.Popen([sys.executable, "-c", code, str(slide)], stdout=subprocess.PIPE, text=True)
        assert self.process.stdout
        self.page = f"{self.process.stdout.readline().strip()}#/slides/{slide.stem}"

    def close(self) -> None:
        """End the server."""
        self.process.kill()
        self.process.wait()


def first_view(slide: Path, rounds: int) -> None:
    """Print the times of first pictures."""
    found: dict[str, list[list[float]]] = {"new": [], "known": []}
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        browser.send("Network.setCacheDisabled", cacheDisabled=True)
        for _ in range(rounds):
            served = Served(slide)
            try:
                for kind in found:
                    browser.open("about:blank")
                    browser.open(served.page, height=800)
                    found[kind].append(browser.run(_WATCH))
            finally:
                served.close()
    print("| slide in the server | first picture, s | whole view, s |\n|---|--:|--:|")
    for kind, times in found.items():
        cells = (
            f"{statistics.median(part):.2f} ({min(part):.2f} to {max(part):.2f})" for part in zip(*times, strict=True)
        )
        print(f"| {kind} | {' | '.join(cells)} |")


def memory(slide: Path, minutes: int, pace: float) -> None:
    """Print memory every minute of a walk."""
    served, rng = Served(slide), random.Random(0)
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        browser.send("Network.disable")  # else the inspector keeps a copy of what the page has loaded
        browser.open(served.page, height=800)
        browser.run(_WATCH)
        total = 0
        for minute in range(minutes):
            end = time.monotonic() + 60
            while time.monotonic() < end:
                zoom = rng.choice((1, 1, 0.5, 0.25, 0.06)) if rng.random() < 0.1 else 0
                browser.run(f"{_STEP}([{rng.uniform(-0.6, 0.6)}, {rng.uniform(-0.6, 0.6)}, {zoom}])")
                total += 1
                time.sleep(1 / pace)
            parts = {**memory_of(browser), "server": psutil.Process(served.process.pid).memory_info().rss}
            facts = ", ".join(f"{name} {value / 1e6:.1f} MB" for name, value in parts.items())
            print(f"minute {minute + 1}: {facts}, {total} steps", flush=True)
    served.close()


def memory_of(browser: Browser) -> dict[str, int]:
    """Bytes of the page's JavaScript after a collection, and of the browser's processes by kind (not shared, USS)."""
    browser.send("HeapProfiler.collectGarbage")
    found = {"page": int(browser.send("Runtime.getHeapUsage")["usedSize"]), "browser": 0}
    whole = psutil.Process(browser._process.pid)
    for one in [whole, *whole.children(recursive=True)]:
        words = one.cmdline()
        kind = next((word.partition("=")[2] for word in words if word.startswith("--type=")), "main")
        size = int(one.memory_full_info().uss)
        found[kind] = found.get(kind, 0) + size
        found["browser"] += size
    return found


def main() -> None:
    """Measure one slide."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("slide", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--pace", type=float, default=2)
    args = parser.parse_args()
    if args.minutes:
        memory(args.slide, args.minutes, args.pace)
    else:
        first_view(args.slide, args.rounds)


if __name__ == "__main__":
    main()
