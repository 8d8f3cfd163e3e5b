"""The contract of every encoder: image batch in, feature vectors out, and the facts known before weights load.

Three steps, from cheap to expensive: an `EncoderPlan` knows what the encoder is (`info`), which weights it will use
(`fingerprint`), and loads it (`open`). A stage whose outputs are all up to date never opens an encoder.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from wsi_pipeline.errors import EncoderError
from wsi_pipeline.wording import counted

if TYPE_CHECKING:
    import torch

    Batch = NDArray[np.uint8] | torch.Tensor
    """Patches as uint8 of shape (B, P, P, 3), numpy or torch."""

Pending = Callable[[], NDArray[np.float32]]
"""Features being computed: calling it waits for them and returns float32 (B, D)."""

BUILT_IN = "built-in"
"""Name of the packaged adapter, used instead of a file."""

SPACING_TOLERANCE = 0.10
"""Largest relative difference between a patch's mpp and the one an encoder was made for."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class EncoderInfo:
    """Facts about an encoder, known without its weights.

    name           as the user writes it after --model; names the feature folder
    family         registered family: colour, timm, huggingface, ...
    input_px       side of the square the network sees; other patch sizes are resized to it. None: any size as it is
    resize_px      side that patches are resized to before the central input_px are cut out; if smaller than input_px,
                   a black frame fills the rest; None: input_px, no crop
    corner_px      first row and column of what is cut out; None: the middle, rounded as timm does
    mpp            micrometres per pixel it was trained at, or None if any spacing is acceptable
    mean, std      normalisation of RGB scaled to 0..1
    dim            length D of a feature vector
    feature        which tokens or positions a feature is made of, for messages; "" if unknown
    interpolation  how patches are resized: bilinear or bicubic, antialiased; rarely nearest, box, hamming, lanczos
    precision      note on arithmetic, for messages
    licence        note on the licence of the weights, for messages
    """

    name: str
    family: str
    input_px: int | None
    mpp: float | None
    mean: Triple
    std: Triple
    dim: int
    interpolation: str = "bicubic"
    precision: str = "fp32 or bf16"
    licence: str = "not stated"
    resize_px: int | None = None
    corner_px: int | None = None
    feature: str = ""

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise EncoderError(f"{self.name}: dim must be >= 1, got {self.dim}")
        if self.input_px is not None and self.input_px < 8:
            raise EncoderError(f"{self.name}: input_px must be >= 8, got {self.input_px}")
        if self.resize_px is not None and (self.input_px is None or self.resize_px < 8):
            raise EncoderError(f"{self.name}: resize_px must be >= 8 and needs input_px, got {self.resize_px}")
        if min(self.std) <= 0 or not all(map(math.isfinite, self.mean)):
            raise EncoderError(f"{self.name}: mean {self.mean} and std {self.std} do not normalise an image")

    def facts(self) -> dict[str, Any]:
        """The fields for a store; newer ones only if set, as old stores lack them."""
        later = {"resize_px", "corner_px", "feature"}
        return {key: value for key, value in asdict(self).items() if value or key not in later}

    def cut_note(self) -> tuple[str, ...]:
        """A line on how much of a patch the network sees, unless it sees all of it."""
        if self.resize_px is None or self.input_px is None:
            return ()
        if self.resize_px < self.input_px:
            return (
                f"patches are resized to {self.resize_px} px and framed in black, as the model's configuration says",
            )
        seen = 100 * self.input_px**2 / self.resize_px**2
        return (
            f"patches are resized to {self.resize_px} px and the central {self.input_px} px are seen ({seen:.0f} % of "
            "the area), as the model's configuration says; --whole-patch shows all of it",
        )

    def check_spacing(self, mpp: float) -> None:
        """Refuse patches whose mpp differs by more than 10 % from the one the encoder was trained for.

        Raises EncoderError saying which --mpp to tile with. Does nothing if `self.mpp` is None.
        """
        if self.mpp is None or abs(mpp - self.mpp) <= SPACING_TOLERANCE * self.mpp + 1e-9:
            return
        raise EncoderError(
            f"encoder {self.name} was trained at {self.mpp:g} micrometres per pixel, these patches have {mpp:g}",
            todo=f"Tile again with --mpp {self.mpp:g}, or choose an encoder made for {mpp:g}.",
        )


class Encoder(ABC):
    """A loaded encoder on one device.

    info         facts, see EncoderInfo
    fingerprint  SHA-256 (hex) of weights and preprocessing: equal fingerprints give equal features up to rounding
    device       torch's name of the device: cpu, cuda:0, mps
    summary      device and arithmetic, for messages: `cpu, bf16 (AMX)`
    batch        default patches per batch, suited to the device
    patch_px     side of the patches it was opened for; None if unknown
    batches      other sizes worth trying, see `probe.py`; empty if the size makes no difference
    """

    info: EncoderInfo
    fingerprint: str
    device: str
    summary: str
    batch: int
    batches: tuple[int, ...] = ()
    patch_px: int | None = None

    def __repr__(self) -> str:
        return f"<Encoder {self.info.name}: {self.info.dim} features, {self.summary}>"

    @abstractmethod
    def _encode(self, batch: Batch) -> NDArray[np.float32]:
        """Features of a batch that was already checked and is not empty."""

    def _begin(self, batch: Batch) -> Pending:
        """Start encoding a checked batch. Asynchronous devices override it; others compute at once."""
        features = self._encode(batch)
        return lambda: features

    def encode(self, batch: Batch) -> NDArray[np.float32]:
        """Features float32 (B, D) of patches uint8 (B, P, P, 3), RGB, numpy or torch; B may be 0.

        A row does not depend on the other patches of its batch beyond rounding. Raises EncoderError for another
        shape or type, and for features that are not finite.
        """
        return self.submit(batch)()

    def submit(self, batch: Batch) -> Pending:
        """Start encoding a batch, which may change once this returns; calling the result waits for the features.

        Raises EncoderError as `encode` does: at once for a wrong batch, on the later call for bad features.
        """
        _check_batch(batch)
        count = int(batch.shape[0])
        if count == 0:
            return lambda: np.zeros((0, self.info.dim), np.float32)
        wait = self._begin(batch)
        return lambda: self._checked(wait(), count)

    def _checked(self, features: NDArray[np.float32], count: int) -> NDArray[np.float32]:
        if features.shape != (count, self.info.dim):
            raise EncoderError(f"encoder {self.info.name} gave {features.shape}, expected ({count}, {self.info.dim})")
        if not np.isfinite(features).all():
            rows = int((~np.isfinite(features)).any(axis=1).sum())
            raise EncoderError(
                f"encoder {self.info.name} gave features that are not finite for {rows} of "
                f"{counted(len(features), 'patch')}",
                todo="Try --precision fp32; if that does not help, the weights are damaged.",
            )
        return features

    def compile(self) -> bool:
        """Compile the network at its first batch; False if there is nothing to compile."""
        return False

    def describe(self, batch: int | None = None) -> str:
        """One line for the user, such as `cpu, bf16 (AMX), batch 16`."""
        return f"{self.summary}, batch {batch or self.batch}"

    def check_spacing(self, mpp: float) -> None:
        """Refuse patches of the wrong mpp: `EncoderInfo.check_spacing`."""
        self.info.check_spacing(mpp)


class EncoderPlan(ABC):
    """An encoder ready to be opened: `info` needs no weights, `fingerprint` needs their file, `open` loads them.

    adapter   the file of a tuned encoder's adapter, or `built-in`; "" for encoders without one
    groups    hashes (`cohort.patient_hashes`) of the patients or slides whose labels a tuned encoder was trained on
    """

    info: EncoderInfo
    adapter: str = ""
    groups: frozenset[str] = frozenset()

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """What `Encoder.fingerprint` will be. Finds the weights (or downloads them, logging it) and hashes the file.

        Raises EncoderError, saying which file is needed, if they are not available.
        """

    @abstractmethod
    def open(self, device: str = "auto", precision: str = "auto") -> Encoder:
        """Load the weights onto `device`. Raises EncoderError when they are missing or do not fit."""

    def about(self) -> tuple[str, ...]:
        """A few lines for the user, including which tokens the feature is made of."""
        info = self.info
        size = f"input {info.input_px} px" if info.input_px else "any patch size"
        first = f"{info.family}, {size}, {info.dim} features; licence: {info.licence}"
        feature = (f"feature: {info.feature}",) if info.feature else ()
        return (first, *feature, *info.cut_note())

    def fit_note(self, patch_px: int, mpp: float) -> str:
        """A warning if patches of this size and resolution do not suit this encoder, else ""."""
        return ""

    def suggest_batch(self, device: str = "auto") -> int:
        """What `Encoder.batch` will be. Raises UsageError for a device this machine does not have."""
        from wsi_pipeline.system.device import choose_device, suggest_batch

        return suggest_batch(choose_device(device))

    def describe(self, device: str = "auto", precision: str = "auto", batch: int | None = None) -> str:
        """What `Encoder.describe` will be: `cpu, bf16 (AMX), batch 16`. Raises UsageError as `suggest_batch` does."""
        from wsi_pipeline.system.device import choose_device, choose_precision

        chosen = choose_device(device)
        return f"{chosen}, {choose_precision(precision, chosen)}, batch {batch or self.suggest_batch(device)}"


class PublishedPlan(EncoderPlan):
    """A plan that can tell whether tensors are its weights, without loading them."""

    @abstractmethod
    def check_tensors(self, tensors: Mapping[str, torch.Tensor], source: Path) -> None:
        """Raise EncoderError, naming the first that do not fit, unless these tensors of `source` are its weights."""


def _check_batch(batch: Batch) -> None:
    shape, kind = tuple(batch.shape), str(batch.dtype).removeprefix("torch.")
    if kind != "uint8":
        raise EncoderError(f"a batch must be uint8 (pixels 0 to 255, not normalised), got {kind}")
    if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or shape[1] < 1:
        raise EncoderError(f"a batch must have the shape (B, P, P, 3), got {shape}")
