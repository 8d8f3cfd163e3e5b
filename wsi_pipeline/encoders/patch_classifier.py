"""A patch classifier: a network that runs like an encoder, and a small head that turns its features into classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from wsi_pipeline.encoders.encoder import EncoderInfo
from wsi_pipeline.encoders.torch_encoder import TorchEncoder

if TYPE_CHECKING:
    from wsi_pipeline.encoders.encoder import Batch, Pending


class PatchClassifier:
    """A network with a head. The network runs like an encoder, the small head in fp32 on the CPU."""

    def __init__(self, encoder: TorchEncoder, head: torch.nn.Module, classes: tuple[str, ...]) -> None:
        self.encoder, self.classes = encoder, classes
        self._head = head.float().cpu().eval().requires_grad_(False)

    def probabilities(self, batch: Batch) -> NDArray[np.float32]:
        """Class probabilities float32 (B, C), rows summing to 1, of patches uint8 (B, P, P, 3); B may be 0.

        Raises EncoderError as `Encoder.encode` does.
        """
        return self.submit(batch)()

    def submit(self, batch: Batch) -> Pending:
        """Start classifying a batch, which may change once this returns; calling the result waits for it."""
        wait = self.encoder.submit(batch)
        return lambda: self._chances(wait())

    def _chances(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            chances: NDArray[np.float32] = self._head(torch.from_numpy(features)).softmax(dim=1).numpy()
        return chances


class ClassifierPlan(Protocol):
    """A classifier ready to be opened: an adapter with a head, or an image-text model with prompts.

    adapter   file of the adapter, `built-in`, or "" without one
    """

    adapter: str
    info: EncoderInfo

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything that the probabilities depend on except the patches."""

    def open_classifier(self, device: str = "auto", precision: str = "auto") -> PatchClassifier:
        """Load the network. Raises EncoderError when weights are missing or do not fit."""

    def fit_note(self, patch_px: int, mpp: float) -> str:
        """A warning if patches of this size and resolution do not suit the network, else ""."""

    def remember(self) -> dict[str, Any]:
        """Values that a store of its probabilities keeps besides classes and fingerprint."""
