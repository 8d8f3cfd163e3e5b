"""U-Net and U-Net++ on EfficientNet-B0, the layouts of GrandQC's networks, with the tensor names of their weights.

Sources: U-Net (Ronneberger et al. 2015), U-Net++ (Zhou et al. 2018), EfficientNet (Tan and Le 2019). Tensors are named
as `segmentation_models_pytorch` names them (`UnetPlusPlus` and `Unet` with the encoder `timm-efficientnet-b0`).
"""

from __future__ import annotations

from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

SKIPS = (32, 24, 40, 112)
"""Channels of the encoder at a half, a quarter, an eighth and a sixteenth of the input's resolution."""
DEEPEST = 320
"""Channels at a thirty-second."""
WIDTHS = (256, 128, 64, 32, 16)
"""Channels of the decoder, from a sixteenth of the resolution to the whole."""
_STAGES = ((0, 2), (2, 3), (3, 5), (5, 7))
"""Blocks of EfficientNet-B0 after which features are taken: at a quarter, an eighth, a sixteenth, a thirty-second."""


class EfficientEncoder(nn.Module):
    """EfficientNet-B0 of timm, up to its last block.

    The layers behind it (`conv_head`, `bn2`) are not run, but published weights contain their tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        network: Any = timm.create_model("efficientnet_b0", pretrained=False)
        self.conv_stem, self.bn1 = network.conv_stem, network.bn1
        self.blocks: nn.Sequential = network.blocks
        self.conv_head, self.bn2 = network.conv_head, network.bn2

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features at five resolutions, the finest first: images (B, 3, h, w) to (B, C, h / 2, w / 2) and so on."""
        found = [self.bn1(self.conv_stem(images))]
        for first, last in _STAGES:
            found.append(self.blocks[first:last](found[-1]))
        return found


class UpBlock(nn.Module):
    """Doubles the resolution, joins features of that resolution, and convolves twice."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _convolution(channels, width), _convolution(width, width)

    def forward(self, coarse: Tensor, *same: Tensor) -> Tensor:
        """coarse (B, C, h, w) and any number of maps (B, ., 2 h, 2 w), which are joined, to (B, width, 2 h, 2 w)."""
        larger = functional.interpolate(coarse, scale_factor=2.0, mode="nearest")
        found: Tensor = self.conv2(self.conv1(torch.cat((larger, *same), dim=1)))
        return found


class UnetDecoder(nn.Module):
    """Five blocks upwards, each joined with the encoder's features of its resolution, the last with none."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (DEEPEST, *WIDTHS[:-1])
        joined = (*SKIPS[::-1], 0)
        widths = zip(inputs, joined, WIDTHS, strict=True)
        self.blocks = nn.ModuleList(UpBlock(channels + more, width) for channels, more, width in widths)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features of the encoder, the finest first, to (B, 16, h, w)."""
        found, same = features[-1], features[-2::-1]
        for number, block in enumerate(self.blocks):
            found = block(found, *same[number : number + 1])
        return found


class NestedDecoder(nn.Module):
    """U-Net++: every resolution is decoded from every coarser one, and later maps join all earlier ones.

    Block `x_i_j` makes the map of column i and row j; row 0 is a sixteenth of the input's resolution, row 3 a half.
    Column j of row j comes from the encoder alone, lower columns from the map above and all columns to the right.
    """

    def __init__(self) -> None:
        super().__init__()
        rows, skips = len(SKIPS), SKIPS[::-1]
        blocks = {}
        for row in range(rows):
            above = (DEEPEST, *WIDTHS)[row]
            blocks[f"x_0_{row}"] = UpBlock(above + skips[row] * (row + 1), WIDTHS[row])
            for column in range(1, row + 1):
                joined = skips[row] * (row + 1 - column)
                blocks[f"x_{column}_{row}"] = UpBlock(skips[row - 1] + joined, skips[row])
        blocks[f"x_0_{rows}"] = UpBlock(WIDTHS[rows - 1], WIDTHS[rows])
        self.blocks = nn.ModuleDict(blocks)

    def forward(self, features: list[Tensor]) -> Tensor:
        """Features of the encoder, the finest first, to (B, 16, h, w)."""
        encoded = features[::-1]
        above: dict[int, Tensor] = {}
        for row in range(len(SKIPS)):
            here: dict[int, Tensor] = {}
            for column in range(row, -1, -1):
                coarse = encoded[row] if column == row else above[column]
                to_the_right = [here[other] for other in range(column + 1, row + 1)]
                here[column] = self.blocks[f"x_{column}_{row}"](coarse, *to_the_right, encoded[row + 1])
            above = here
        found: Tensor = self.blocks[f"x_0_{len(SKIPS)}"](above[0])
        return found


class SegmentationUnet(nn.Module):
    """Encoder, decoder and a last convolution: images (B, 3, h, w) to logits (B, classes, h, w).

    Height and width must be multiples of 32. `nested`: U-Net++ instead of U-Net.
    """

    def __init__(self, classes: int, *, nested: bool) -> None:
        super().__init__()
        self.encoder = EfficientEncoder()
        self.decoder = NestedDecoder() if nested else UnetDecoder()
        self.segmentation_head = nn.Sequential(nn.Conv2d(WIDTHS[-1], classes, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, h, w) to logits (B, classes, h, w)."""
        found: Tensor = self.segmentation_head(self.decoder(self.encoder(images)))
        return found


def _convolution(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
