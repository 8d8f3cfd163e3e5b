"""What is published about each network: resolution, classes, preparation of its input, and where its weights are.

Sources: GrandQC (Weng et al., Nature Communications 2024, doi 10.1038/s41467-024-54769-y) and its public scripts; the
card of MahmoodLab/hest-tissue-seg and its use in TRIDENT (https://github.com/mahmoodlab/TRIDENT). Their licences
forbid commercial use; this package contains no weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.registries import TISSUE_NETWORKS

Labels = NDArray[np.uint8]
Network = Callable[[NDArray[np.uint8]], Labels]
"""From windows uint8 (B, 512, 512, 3) to the number of each pixel's class, uint8 (B, 512, 512)."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, for values of 0 to 1: all of these networks were trained on pictures scaled by them."""
WINDOW = 512
"""Width and height of the windows that all of these networks were trained on, pixels."""


@dataclass(frozen=True)
class PublishedNetwork:
    """One published network that gives every pixel of a picture a class.

    name      for messages
    layout    unet++, unet or deeplabv3
    mpp       resolution of its input, micrometres per pixel
    classes   in the order of its outputs
    tissue    numbers of the classes that are tissue
    jpeg      quality at which its input is compressed before it is used, or 0: it was trained on such pictures
    prefix    of the names of tensors in the published file
    ignore    beginnings, after the prefix, of names in that file that the network does not need
    where     where its weights are published
    """

    name: str
    layout: str
    mpp: float
    classes: tuple[str, ...]
    tissue: tuple[int, ...]
    where: str
    jpeg: int = 0
    prefix: str = ""
    ignore: tuple[str, ...] = ()

    def ignores(self, name: str) -> bool:
        """Whether a tensor of that name (after the prefix) is not needed: see `ignore`, or a counter of training."""
        return name.startswith(self.ignore) or name.endswith("num_batches_tracked")


GRANDQC = PublishedNetwork(
    name="GrandQC's tissue network",
    layout="unet++",
    mpp=10.0,
    classes=("tissue", "background"),
    tissue=(0,),
    where="Tissue_Detection_MPP10.pth at https://zenodo.org/records/14507273",
    jpeg=80,
)
HEST = PublishedNetwork(
    name="HEST's tissue network",
    layout="deeplabv3",
    mpp=1.0,
    classes=("background", "tissue"),
    tissue=(1,),
    where="deeplabv3_seg_v4.ckpt at https://huggingface.co/MahmoodLab/hest-tissue-seg",
    prefix="model.",
    ignore=("aux",),
)
ARTEFACTS = ("fold", "dark spot or foreign object", "pen", "bubble or slide edge", "out of focus", "background")
"""What GrandQC's artefact networks tell from tissue: their classes 2 to 7."""

TISSUE_NETWORKS.register("grandqc")(GRANDQC)
TISSUE_NETWORKS.register("hest")(HEST)


def artefact_network(mpp: float) -> PublishedNetwork:
    """GrandQC's artefact network for 1, 1.5 or 2 micrometres per pixel."""
    file = f"GrandQC_MPP{f'{mpp:g}'.replace('.', '')}"
    return PublishedNetwork(
        name=f"GrandQC's artefact network for {mpp:g} mpp",
        layout="unet",
        mpp=mpp,
        classes=("not annotated", "tissue", *ARTEFACTS),
        tissue=(0, 1),
        where=f"{file}.pth at https://zenodo.org/records/14041538 (for 1 mpp also GrandQC_MPP1_state_dict.pth at "
        "https://huggingface.co/MahmoodLab/hest-tissue-seg)",
    )
