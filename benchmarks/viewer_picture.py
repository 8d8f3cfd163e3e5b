"""No measurement: takes the picture of the viewer that README.md shows, with headless Chromium.

    python benchmarks/viewer_picture.py demo/cohort demo/wsi-run --out docs/img/viewer.jpg

Works on a copy of the demo's run. Marks the tumours that the demo knows on three slides and a rectangle on three slides
without any, presses "Tune on these marks", waits for the class map and for what to mark next, and shows another slide.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.browser import Browser
from tests.viewer.pages import READY, Own
from wsi_pipeline.cohort.run_dir import RunDir

TUMOUR, OTHER, SHOWN = ("demo-01", "demo-03", "demo-05"), ("demo-02", "demo-04", "demo-06"), "demo-07"
COLOURS = {"other": [0, 114, 178], "tumour": [213, 94, 0]}
LONGEST = 900.0
"""Seconds that tuning and classifying may take."""


def marks_on(slide: str, cohort: Path, facts: dict[str, Any]) -> list[dict[str, Any]]:
    """GeoJSON features of one slide."""
    if slide in OTHER:
        left, right = facts["width"] // 8, facts["width"] * 7 // 8
        upper, lower = facts["height"] // 8, facts["height"] * 7 // 8
        ring = [[left, upper], [right, upper], [right, lower], [left, lower], [left, upper]]
        name, shapes = "other", [{"type": "Polygon", "coordinates": [ring]}]
    else:
        known = json.loads((cohort / "truth" / f"{slide}.geojson").read_text())["features"]
        name, shapes = "tumour", [feature["geometry"] for feature in known]
    return [
        {"type": "Feature", "id": f"{slide}-{k}", "geometry": shape,
         "properties": {"objectType": "annotation", "classification": {"name": name, "color": COLOURS[name]}}}
        for k, shape in enumerate(shapes)
    ]  # fmt: skip


def take(browser: Browser, server: Own, cohort: Path) -> bytes:
    """Mark, tune, and return the picture as PNG."""
    browser.open(server.url, height=900)
    for slide in (*OTHER, *TUMOUR):
        facts = browser.run(f"fetch('slides/{slide}').then(r => r.json())")
        changes = [{"op": "put", "feature": feature} for feature in marks_on(slide, cohort, facts)]
        words = json.dumps({"method": "POST", "body": json.dumps({"changes": changes})})
        send = f"fetch('slides/{slide}/marks', {{...{words}, headers: {{'Content-Type': 'application/json'}}}})"
        if not browser.run(f"{send}.then(r => r.ok)"):
            raise SystemExit(f"the marks on {slide} were refused")
    browser.open("about:blank")
    browser.open(f"{server.url}#/slides/{SHOWN}?tab=teach&layers=", height=900)
    browser.wait(READY)
    panel = "document.querySelector('#panel-teach')"
    tune = f"[...{panel}.querySelectorAll('button.main')].find(b => b.innerText.startsWith('Tune'))"
    browser.wait(f"Boolean({tune}) && !{tune}.disabled")
    browser.run(f"{tune}.click()")
    browser.wait(f"{panel}.innerText.includes('finished') || {panel}.innerText.includes('failed')", LONGEST)
    browser.wait(f"{panel}.querySelectorAll('.sheet img').length > 5")
    browser.wait("[...document.querySelectorAll('.sheet img')].slice(0, 6).every(i => i.complete && i.naturalWidth)")
    browser.wait("document.querySelector('.pane').pane.viewer.world.getItemAt(0).getFullyLoaded()")
    browser.run("new Promise(done => setTimeout(done, 5000))")  # until the notice is gone
    return browser.picture()


def main() -> None:
    """Write the picture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/img/viewer.jpg"))
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Browser(Path(folder) / "profile") as browser:
        shutil.copytree(args.run, run := Path(folder) / "wsi-run")
        server = Own(RunDir(run))
        picture = Image.open(io.BytesIO(take(browser, server, args.cohort))).convert("RGB")
        server.kill()
    picture.save(args.out, quality=88, optimize=True)
    print(f"{args.out}  {picture.width} x {picture.height} px, {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
