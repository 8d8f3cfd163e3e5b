"""No measurement: takes the pictures of a report that README.md shows, light and dark, with headless Chromium.

    python benchmarks/report_picture.py demo/wsi-run/report/report.html --out docs/pictures/report.png

The page is opened at two places in frames side by side, as a reader would scroll to them, and kept with few colours.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT, SCALES = 1180, 1000, (0.8, 0.7, 0.6, 0.5)
MOST_BYTES = 300_000


def main() -> None:
    """Write the picture and say how large it is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures/report.png"))
    args = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit("needs chromium or google-chrome")
    shots = [shot(browser, args.report, place, dark) for place, dark in (("summary", False), ("slides", True))]
    sheet = Image.new("RGB", (sum(s.width for s in shots) + 24, shots[0].height), (255, 255, 255))
    left = 0
    for picture in shots:
        sheet.paste(picture, (left, 0))
        left += picture.width + 24
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for scale in SCALES:
        size = (round(sheet.width * scale), round(sheet.height * scale))
        # Clusters, so that the few bright colours of attention keep a place in the palette.
        small = sheet.resize(size, Image.Resampling.LANCZOS)
        small.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE).save(
            args.out, optimize=True
        )
        if args.out.stat().st_size < MOST_BYTES:
            break
    print(f"{args.out}: {size[0]} x {size[1]}, {args.out.stat().st_size / 1000:.0f} kB")


def shot(browser: str, report: Path, place: str, dark: bool) -> Image.Image:
    """The page at one of its sections."""
    with tempfile.TemporaryDirectory() as folder:
        # A frame scrolls to its fragment by itself; the page around it has nothing else.
        page = Path(folder) / "page.html"
        frame = f'<iframe src="{report.resolve().as_uri()}#{place}" style="border:0;width:100vw;height:100vh"></iframe>'
        page.write_text(f'<meta name="color-scheme" content="light dark"><body style="margin:0">{frame}', "utf-8")
        out = Path(folder) / "shot.png"
        # Without motion the frame is where it was sent at once.
        theme = ["--force-prefers-reduced-motion"]
        theme += ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
        command = [browser, *flags, *theme, f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{HEIGHT}"]
        command += ["--virtual-time-budget=6000", f"--screenshot={out}", page.as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=180)
        return Image.open(out).convert("RGB")


if __name__ == "__main__":
    main()
