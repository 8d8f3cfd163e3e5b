"""What shrinking in the DCT domain does to features: their cosine with those after whole decoding and area mean.

    python benchmarks/reading_features.py [--data FOLDER] [--patches N]

224 px patches over real slides of the data folder, read by the patch reader and by OpenSlide, embedded in float32 by
the colour statistics and by DeiT-Tiny (weights of the data folder). Prints the mean and the lowest cosine of the same
patch read in the two ways and, to compare, the mean cosine with the next patch.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.reading.patch_reader import PatchReader, SlidePatches
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.tiling.resolve import PatchGeometry

PATCH = 224
CASES = (("metaplasia-HE.svs", 2), ("metaplasia-HE.svs", 4), ("lung-SCC-HE3.svs", 2), ("CMU-1-Small-Region.svs", 2),
         ("TCGA-CR-7395-01A-01-TS1.svs", 4))  # fmt: skip
WEIGHTS = "weights/deit_tiny_patch16_224.fp16.safetensors"


def patches(path: Path, backend: str, shrink: int, most: int) -> NDArray[np.uint8]:
    """`most` neighbouring patches from the middle of the slide, read from level 0 and shrunk by `shrink`."""
    side = PATCH * shrink
    with open_slide(path, backend) as slide:
        width, height = slide.info.size.width, slide.info.size.height
        grid = [(x, y) for y in range(0, height - side, side) for x in range(0, width - side, side)]
        place = PatchGeometry(PATCH, side, side, 0, side, 0.5, False)
        first = max(0, (len(grid) - most) // 2)
        source = SlidePatches(slide, np.array(grid[first : first + most], np.int64), place)
        return np.concatenate([batch for _, batch in PatchReader(source, 16)])


def cosines(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Cosine row by row."""
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other))
    return (one * other).sum(1, dtype=np.float64)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("WSI_PIPELINE_DATA", "../shared/data")))
    parser.add_argument("--patches", type=int, default=48)
    asked = parser.parse_args()
    for name, weights in (("colour", None), ("deit_tiny_patch16_224", asked.data / WEIGHTS)):
        encoder = plan_encoder(name, weights=weights).open("cpu", "fp32")
        for file, shrink in CASES:
            read = [patches(asked.data / "slides" / file, way, shrink, asked.patches) for way in ("auto", "openslide")]
            ours, theirs = (encoder.encode(batch) for batch in read)
            same, next_one = cosines(ours, theirs), cosines(theirs[:-1], theirs[1:])
            print(f"{name:24}{file:30}1/{shrink}  n {len(ours):3}  mean {same.mean():.5f}  lowest {same.min():.5f}"
                  f"  (next patch {next_one.mean():.3f})", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
