"""The probe of batch sizes: goes where it gains, stays where it does not, ends where memory does."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
import pytest

from wsi_pipeline.encoders import probe
from wsi_pipeline.encoders.colour import ColourPlan
from wsi_pipeline.encoders.encoder import Encoder, EncoderInfo
from wsi_pipeline.encoders.probe import probe_batch
from wsi_pipeline.errors import EncoderError

_numbers = count()


class Timed(Encoder):
    """An encoder that takes a known time for each size of batch, by a clock of its own."""

    def __init__(self, seconds: Mapping[int, float], most: int = 10**6) -> None:
        self.info = EncoderInfo("timed", "test", None, None, (0, 0, 0), (1, 1, 1), 2)
        self.fingerprint, self.device, self.summary = f"{next(_numbers)}", "cpu", "cpu"
        self.batch, self.batches = 16, tuple(seconds)
        self.seconds, self.most, self.now, self.seen = seconds, most, 0.0, list[int]()

    def _encode(self, batch: Any) -> np.ndarray:
        if len(batch) > self.most:
            raise EncoderError("out of memory")
        self.seen.append(len(batch))
        self.now += self.seconds[len(batch)]
        return np.zeros((len(batch), 2), np.float32)


@pytest.mark.parametrize(
    ("per_patch", "best"),
    [
        ({8: 1.0, 16: 1.0, 32: 1.0, 64: 1.0}, 16),
        ({8: 1.0, 16: 1.0, 32: 0.97, 64: 0.5}, 16),  # a gain within the noise is no reason to go on
        ({8: 1.0, 16: 1.0, 32: 0.8, 64: 0.79}, 32),
        ({8: 1.0, 16: 1.0, 32: 0.8, 64: 0.6}, 64),
        ({8: 0.7, 16: 1.0, 32: 1.2, 64: 0.1}, 8),
    ],
)
def test_it_goes_where_it_gains(per_patch: Mapping[int, float], best: int) -> None:
    encoder = Timed({size: size * each * 1e-3 for size, each in per_patch.items()})
    found = probe_batch(encoder, 16, lambda: encoder.now)
    assert found.batch == best
    assert found.rates[16] == pytest.approx(1e3 / per_patch[16])


def test_it_is_asked_once_for_each_encoder_and_size() -> None:
    encoder = Timed({16: 0.01, 32: 0.02})
    first = probe_batch(encoder, 16, lambda: encoder.now)
    done = len(encoder.seen)
    assert probe_batch(encoder, 16, lambda: encoder.now) is first
    assert len(encoder.seen) == done
    probe_batch(encoder, 24, lambda: encoder.now)
    assert len(encoder.seen) > done


def test_memory_ends_the_way_up() -> None:
    encoder = Timed({16: 0.016, 32: 0.016, 64: 0.016}, most=32)
    assert probe_batch(encoder, 16, lambda: encoder.now).batch == 32


def test_a_slow_network_keeps_what_was_suggested() -> None:
    encoder = Timed({16: probe.MAX_SECONDS, 32: 0.1})
    assert probe_batch(encoder, 16, lambda: encoder.now).batch == 16
    assert encoder.seen == [16]


def test_an_encoder_without_other_sizes_is_not_tried_out() -> None:
    found = probe_batch(ColourPlan().open(), 32)
    assert (found.batch, found.rates) == (64, {})
    assert str(found) == "64"
