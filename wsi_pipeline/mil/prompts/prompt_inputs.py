"""What the prompt tuning of all folds shares: stored features, pixels, the network, settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pathotune.adapters import configure
from pathotune.backbone import Backbone, BackboneCard
from pathotune.model import PathoTune
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import batches, normalise
from wsi_pipeline.config.prompt_spec import PromptSpec
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.labelled.labelled_patches import PatchPixels
from wsi_pipeline.mil.bags import Bags

CHUNK = 32
"""Patches that pass the network with gradients at once: what bounds the memory, whatever the size of a bag."""
SAME = 0.98
"""Least cosine similarity of stored features and those computed here from the pixels."""
_CHECKED = 4
WITH_ATTENTION = ("abmil", "gated-abmil", "clam-sb", "dsmil", "transmil")


@dataclass(frozen=True, eq=False)
class InstancePixels:
    """The pixels of all instances, row for row as `Bags.features`, as images without labels."""

    pixels: PatchPixels
    count: int

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Zeros (N,): there are no patch labels."""
        return np.zeros(self.count, np.int64)

    @property
    def tasks(self) -> None:
        """None: there is one task."""
        return None

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Patches (B, P, P, 3), RGB."""
        return self.pixels.read(rows)


@dataclass(frozen=True, eq=False)
class PromptInputs:
    """Stored features `bags` of a network, the pixels that they were made from, and how to tune.

    network   the plain vision transformer; prompts are added to it, its weights stay as they are
    on_line   called with a line about each finished epoch
    """

    bags: Bags
    pixels: InstancePixels
    network: Backbone
    card: BackboneCard
    prompts: PromptSpec
    spec: MilSpec
    compute: Compute
    on_line: Callable[[str], None] = lambda line: None

    def check(self) -> None:
        """Raise MilError for settings that cannot be used together, or features that are not of this network."""
        if self.spec.model not in WITH_ATTENTION:
            raise MilError(
                f"{self.spec.model} has no attention to choose patches by",
                todo=f"Use --tune-prompts with --model {', '.join(WITH_ATTENTION)}",
            )
        if self.spec.choose.strip() or self.spec.committee > 1:
            raise MilError("--tune-prompts tunes one model per fold", todo="Leave out --choose and --committee")
        if self.spec.task == "survival" and self.spec.survival_loss == "cox":
            raise MilError(
                "Cox's partial likelihood compares patients, and prompts are tuned slide by slide",
                todo="Use --tune-prompts with --survival-loss discrete",
            )
        rows = np.linspace(0, self.pixels.count - 1, min(_CHECKED, self.pixels.count)).astype(np.int64)
        own = self.features(PathoTune(configure("linear"), self.network), rows)
        stored = torch.as_tensor(np.asarray(self.bags.features[rows])).float()
        if own.shape != stored.shape:
            raise MilError(
                f"the stored features have {stored.shape[1]} values, the network's have {own.shape[1]}",
                todo="Embed the slides with this encoder again.",
            )
        likeness = torch.nn.functional.cosine_similarity(own, stored, dim=1)
        if (worst := int(likeness.argmin())) >= 0 and float(likeness[worst]) < SAME:
            slide = self.bags.slide_ids[int(np.searchsorted(self.bags.offsets, rows[worst], side="right")) - 1]
            raise MilError(
                f"stored features are not those of this network on the slide's patches (cosine similarity "
                f"{float(likeness[worst]):.3f})",
                slide=slide,
                todo="Embed the slides again with the same encoder, weights and preprocessing.",
            )

    def model(self) -> PathoTune:
        """A new model with visual prompts (TVP and IVP) on the network; initial values from torch's generator."""
        return PathoTune(configure("pathotune", ttp=False), self.network)

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Patches (B, 3, S, S) in 0..255, resized for the network, on its device."""
        found = [part.images for part in batches(self.pixels, rows, len(rows), self.card, self.compute.place)]
        return torch.cat(found)

    def features(self, model: PathoTune, rows: NDArray[np.int64]) -> Tensor:
        """Features float32 (B, F) on the CPU, without gradients, in batches of CHUNK."""
        model.to(self.compute.device).eval()
        found = []
        for part in batches(self.pixels, rows, CHUNK, self.card, self.compute.place):
            with torch.no_grad(), self.compute.lowered():
                found.append(model.features(normalise(part.images, self.card)).float().cpu())
        return torch.cat(found) if found else torch.zeros(0, model.feature_dim)

    def rows(self, bag: int) -> NDArray[np.int64]:
        """Rows of a bag's instances."""
        return np.arange(self.bags.offsets[bag], self.bags.offsets[bag + 1])


def bags_through(inputs: PromptInputs, model: PathoTune, folder: Path) -> Bags:
    """All bags with the features of a tuned model, float16, in a file of `folder` that is written bag by bag.

    After an interruption the bags that are complete are not computed again.
    """
    bags, path, mark = inputs.bags, folder / "features.npy", folder / "features-done.txt"
    shape = (len(bags.features), model.feature_dim)
    done = int(mark.read_text()) if mark.is_file() and path.is_file() else 0
    values = (
        np.load(path, mmap_mode="r+")
        if done
        else np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
    )
    for bag in range(done, len(bags)):
        values[bags.rows(bag)] = inputs.features(model, inputs.rows(bag)).numpy().astype(np.float16)
        values.flush()
        mark.write_text(str(bag + 1))
    return Bags(values, bags.offsets, bags.slide_ids)


def chosen_rows(ranked: NDArray[np.int64], top: int, more: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """The first `top` of some rows in order of attention, and `more` of the others drawn at random; ascending."""
    rest = ranked[top:]
    return np.sort(np.concatenate([ranked[:top], rng.permutation(rest)[:more]]))


def offsets_of(counts: Sequence[int]) -> Tensor:
    """Offsets int64 (b + 1) of bags with these numbers of instances."""
    return torch.tensor([0, *np.cumsum(counts).tolist()], dtype=torch.int64)
