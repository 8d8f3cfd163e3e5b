"""`colour`: an encoder without weights, a baseline for deep encoders. See colour_statistics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.config.execution import usable_cores
from wsi_pipeline.config.fields import digest_of
from wsi_pipeline.encoders import colour_statistics
from wsi_pipeline.encoders.colour_statistics import describe_patch, feature_names
from wsi_pipeline.encoders.encoder import Encoder, EncoderInfo, EncoderPlan

if TYPE_CHECKING:
    from wsi_pipeline.encoders.encoder import Batch

_MAX_THREADS = 16
_BATCH = 64
_SUMMARY = "cpu, fp32"


def colour_info() -> EncoderInfo:
    """Facts about the colour encoder: any patch size, any spacing."""
    return EncoderInfo(
        name="colour",
        family="colour",
        input_px=None,
        mpp=None,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        dim=len(feature_names()),
        precision="fp32",
        licence="part of wsi-pipeline (Apache-2.0); no weights",
    )


class ColourEncoder(Encoder):
    """Stain and texture statistics on the CPU, one thread per core; every row depends on its own patch only."""

    def __init__(self, fingerprint: str, threads: int | None = None) -> None:
        self.info = colour_info()
        self.fingerprint = fingerprint
        self.device = "cpu"
        self._pool = ThreadPoolExecutor(min(threads or usable_cores(), _MAX_THREADS), thread_name_prefix="colour")
        self.summary = _SUMMARY
        self.batch = _BATCH

    def _encode(self, batch: Batch) -> NDArray[np.float32]:
        patches = np.asarray(batch if isinstance(batch, np.ndarray) else batch.cpu().numpy())
        return np.stack(list(self._pool.map(describe_patch, patches)))


class ColourPlan(EncoderPlan):
    """The colour encoder before it is opened."""

    def __init__(self) -> None:
        self.info = colour_info()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over every constant that the statistics depend on, their names and their version."""
        return digest_of(
            encoder="colour",
            version=colour_statistics.VERSION,
            names=feature_names(),
            hed_top=colour_statistics.HED_TOP,
            lbp=colour_statistics.LBP_KINDS,
            texture_px=colour_statistics.TEXTURE_PX,
        )

    def open(self, device: str = "auto", precision: str = "auto") -> ColourEncoder:
        """The encoder; it always computes on the CPU in fp32, whatever device and precision are requested."""
        return ColourEncoder(self.fingerprint)

    def suggest_batch(self, device: str = "auto") -> int:
        """Enough patches to keep every core busy."""
        return _BATCH

    def describe(self, device: str = "auto", precision: str = "auto", batch: int | None = None) -> str:
        """`cpu, fp32, batch 64`, whatever is requested."""
        return f"{_SUMMARY}, batch {batch or _BATCH}"
