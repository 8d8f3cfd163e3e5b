"""Where [CLS] looks before any training, by design: prompts that start at random hide the image.

    python -m benchmarks.tuning.attention              DeiT-Tiny, 64 nuclei of CRC, a minute

Printed for the last four layers: the share of the attention of [CLS] that prompts get, and the image; then the
variation of the final [CLS] between images, relative to the bare backbone's.
"""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.tuning.data import INPUT_PX, classes_of, split
from benchmarks.tuning.job import BACKBONE, WEIGHTS
from benchmarks.tuning.plans import SEARCH_SEED, grid
from benchmarks.tuning.tables import FIRST
from pathotune.adapters import configure
from pathotune.backbone import open_backbone
from pathotune.diagnosis import diagnose
from pathotune.model import PathoTune
from pathotune.tokens import KINDS
from pathotune.training.batches import batches, normalise
from wsi_pipeline.system.machine import prepare_process

DESIGNS = {
    "bare backbone": ("linear", {}),
    "first design, random start": ("pathotune", FIRST),
    "today's, random start": ("pathotune", {"start": "random"}),
    "today's": ("pathotune", {}),
}
LAYERS, IMAGES = 4, 64


def main() -> None:
    """Print the table."""
    prepare_process()
    train, _, test = split("crc", SEARCH_SEED, (128, 1, IMAGES))
    rows, bare = [], 1.0
    for name, (method, fields) in DESIGNS.items():
        torch.manual_seed(SEARCH_SEED)
        vit, card = open_backbone(BACKBONE, WEIGHTS, input_px=INPUT_PX)
        model = PathoTune(configure(method, classes=classes_of("crc"), **fields), vit)
        first, second = (
            next(iter(batches(part.data, np.arange(len(part.groups)), 128, card, torch.device("cpu")))).images
            for part in (train, test)
        )
        model.calibrate(normalise(first, card))
        found = diagnose(model, normalise(second, card))
        prompts = [sum(found.attention[kind][-LAYERS + at] for kind in KINDS) for at in range(LAYERS)]
        bare = found.variation[-1] if method == "linear" else bare
        cells = [
            f"{100 * own:.0f} / {100 * found.attention['image'][-LAYERS + at]:.0f}" for at, own in enumerate(prompts)
        ]
        rows.append([name, *cells, f"{100 * found.variation[-1] / bare:.0f}"])
    head = [f"layer {number}" for number in range(9, 13)]
    print(grid(("design", *head, "variation of [CLS], % of bare"), rows))


if __name__ == "__main__":
    main()
