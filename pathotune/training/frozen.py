"""What frozen layers give, computed once and kept in memory for all epochs.

Images come in eight symmetries at most, so what lies below the first trained part repeats: the patch embeddings, the
layers below `entry`, or for a linear head all features. Computed in a fixed order before the first epoch, so a resumed
training finds the same numbers; they differ from those of an uncached training by rounding alone, because images are in
other batches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pathotune.backbone import BackboneCard
from pathotune.model import PathoTune
from pathotune.training.arithmetic import Compute
from pathotune.training.augment import turned
from pathotune.training.batches import LabelledImages, batches, normalise

_BATCH = 64


class FrozenStates:
    """States (ways, N, ...) of the images of a source, for some of the symmetries of the square."""

    def __init__(self, states: Tensor, ways: Sequence[int]) -> None:
        self._states = states
        self._place = torch.full((max(ways) + 1,), -1, dtype=torch.int64)
        self._place[torch.tensor(list(ways))] = torch.arange(len(ways))

    @property
    def nbytes(self) -> int:
        """Memory in bytes."""
        return self._states.numel() * self._states.element_size()

    def take(self, rows: Tensor, ways: Tensor) -> Tensor:
        """The states of images at `rows` (B,) in the symmetries `ways` (B,), on the device they were computed on."""
        device = self._states.device
        return self._states[self._place[ways].to(device), rows.to(device)]


def freeze(
    model: PathoTune,
    card: BackboneCard,
    source: LabelledImages,
    ways: Sequence[int],
    compute: Compute,
    room: int,
) -> FrozenStates | None:
    """The states of all images in these symmetries; None if nothing is frozen or they need more than `room` bytes."""
    count = len(source.labels)
    if not count:
        return None
    model.eval()
    first = _states(model, card, next(batches(source, np.arange(1), 1, card, compute.place)).images, ways[:1], compute)
    if first is None or len(ways) * count * first.numel() * first.element_size() > room:
        return None
    states = torch.empty((len(ways), count, *first.shape[2:]), dtype=first.dtype, device=first.device)
    done = 0
    for part in batches(source, np.arange(count), _BATCH, card, compute.place):
        found = _states(model, card, part.images, ways, compute)
        assert found is not None
        states[:, done : done + len(part.labels)] = found
        done += len(part.labels)
    return FrozenStates(states, ways)


def _states(
    model: PathoTune, card: BackboneCard, images: Tensor, ways: Sequence[int], compute: Compute
) -> Tensor | None:
    """States (ways, B, ...) of images in 0..255; None if the model has none."""
    found = []
    for way in ways:
        shown = turned(images, torch.full((len(images),), way))
        with torch.no_grad(), compute.lowered():
            states = model.frozen_states(normalise(shown, card))
        if states is None:
            return None
        found.append(states)
    return torch.stack(found)
