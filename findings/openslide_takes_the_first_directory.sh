#!/usr/bin/env bash
# OpenSlide and tiffslide take the first directory of a plain TIFF for the slide, though it says that it is a reduced
# image (NewSubfileType 1). OpenSlide also turns each tile in place where the file has an orientation tag, and shows 12
# bits in 16 as nearly black. This program reads the directories first: the largest full image is the slide, it is turned
# as a whole, and more than 8 bits need a display range.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check openslide-python==1.4.7 openslide-bin==4.0.1.2 tiffslide==3.0.1 tifffile==2026.3.3 imagecodecs==2026.3.6 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import openslide
import tifffile
import tiffslide

SIDE = 1024
ramp = (np.arange(SIDE) // 4).astype(np.uint8)
image = np.stack(np.broadcast_arrays(ramp[None], ramp[:, None], np.uint8(60)), -1).copy()
tiled = {"photometric": "rgb", "tile": (256, 256), "metadata": None}
as_known = []


def tell(what, expected, seen, known):
    print(f"{what}: expected {expected}, seen {seen}")
    as_known.append(seen == known)


print("OpenSlide", openslide.__library_version__, "tiffslide", tiffslide.__version__, "tifffile", tifffile.__version__)
with tifffile.TiffWriter("order.tif") as writer:
    for step in (4, 1):
        writer.write(image[::step, ::step], subfiletype=int(step > 1), **tiled)
with openslide.OpenSlide("order.tif") as slide:
    tell("OpenSlide, size of a slide whose reduced image comes first", (SIDE, SIDE), slide.dimensions, (256, 256))
with tiffslide.TiffSlide("order.tif") as slide:
    tell("tiffslide, the same", (SIDE, SIDE), slide.dimensions, (256, 256))

tifffile.imwrite("turned.tif", image, extratags=[(274, "H", 1, 3, True)], **tiled)
with openslide.OpenSlide("turned.tif") as slide:
    corner = slide.read_region((0, 0), 0, (1, 1)).getpixel((0, 0))[:3]
tell("OpenSlide, corner under orientation 3", "(255, 255, 60) turned, or (0, 0, 60) as stored", corner, (63, 63, 60))

tifffile.imwrite("twelve.tif", image.astype(np.uint16) << 4, **tiled)
with openslide.OpenSlide("twelve.tif") as slide:
    largest = int(np.asarray(slide.read_region((0, 0), 0, (SIDE, SIDE)).convert("RGB")).max())
tell("OpenSlide, largest grey value of a 12-bit image in 16 bits", 255, largest, 16)
raise SystemExit(0 if all(as_known) else 1)
PYTHON
