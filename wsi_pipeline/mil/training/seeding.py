"""Seeds for each purpose of a run; the caller's random generators are left as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def sub_seed(seed: int, *path: int) -> int:
    """A 32-bit seed for one purpose of a run: independent for each path, equal on every machine."""
    return int(np.random.SeedSequence([seed, *path]).generate_state(1)[0])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's generators of the CPU and of `device` within a block, then restore them."""
    import torch  # not above: resampling of finished predictions needs seeds, not torch

    accelerator = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=accelerator):
        torch.default_generator.manual_seed(seed)
        if accelerator:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
