"""The best batch size of an encoder on this machine, found by timing a few sizes on random patches.

A row of features depends on its batch only through rounding: two runs with different batch sizes may differ in the
last bits. Set the size with `--batch` for identical bits.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.encoders.encoder import Encoder
from wsi_pipeline.errors import EncoderError

logger = logging.getLogger(__name__)

MIN_GAIN = 1.05
"""Speed-up from which another size is preferred; smaller gains may be noise."""
MAX_SECONDS = 10.0
"""Time limit of a probe; networks too slow for it keep the suggested size."""
WORTH_PATCHES = 4096
"""With fewer patches than this, a probe does not pay off."""

_ROUNDS = 2
_known: dict[tuple[str, str, int], Probe] = {}


@dataclass(frozen=True)
class Probe:
    """The size chosen, and patches per second of each size that was tried."""

    batch: int
    rates: dict[int, float]

    def __str__(self) -> str:
        tried = ", ".join(f"{size}: {rate:.3g}/s" for size, rate in sorted(self.rates.items()))
        return f"{self.batch} (tried {tried})" if tried else str(self.batch)


def probe_batch(encoder: Encoder, patch_px: int, clock: Callable[[], float] = time.perf_counter) -> Probe:
    """The batch size at which `encoder` is fastest on patches of `patch_px`; remembered within this process.

    Goes from `encoder.batch` to larger sizes of `encoder.batches` while they gain, else to smaller ones. A size for
    which memory is too small ends the search upwards.
    """
    key = (encoder.fingerprint, encoder.summary, patch_px)
    if key not in _known:
        _known[key] = _probe(encoder, patch_px, clock)
        logger.info("%s on %s: batch %s", encoder.info.name, encoder.summary, _known[key])
    return _known[key]


def _probe(encoder: Encoder, patch_px: int, clock: Callable[[], float]) -> Probe:
    sizes = sorted({*encoder.batches, encoder.batch})
    middle = sizes.index(encoder.batch)
    if len(sizes) == 1:
        return Probe(encoder.batch, {})
    patches = np.random.default_rng(0).integers(0, 256, (sizes[-1], patch_px, patch_px, 3), np.uint8)
    started = clock()
    encoder.encode(patches[: encoder.batch])
    if (clock() - started) * 8 > MAX_SECONDS:
        return Probe(encoder.batch, {})
    rates = {encoder.batch: _rate(encoder, patches[: encoder.batch], clock)}
    best = encoder.batch
    for way in (sizes[middle + 1 :], sizes[:middle][::-1]):
        for size in way:
            try:
                rates[size] = _rate(encoder, patches[:size], clock)
            except EncoderError as error:  # out of memory
                logger.info("batch %d is too large: %s", size, error.what)
                break
            if rates[size] < MIN_GAIN * rates[best]:
                break
            best = size
        if best != encoder.batch or clock() - started > MAX_SECONDS:
            break
    return Probe(best, rates)


def _rate(encoder: Encoder, patches: NDArray[np.uint8], clock: Callable[[], float]) -> float:
    """Patches per second, the best of a few batches after one to warm up; two are in flight, as in the real work."""
    encoder.encode(patches)
    best = 0.0
    for _ in range(_ROUNDS):
        started = clock()
        waits = [encoder.submit(patches), encoder.submit(patches)]
        for wait in waits:
            wait()
        best = max(best, 2 * len(patches) / max(1e-9, clock() - started))
    return best
