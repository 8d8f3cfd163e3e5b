"""Give the pixels of one slide the stain of another: one function of the colour, the same for the whole slide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from wsi_pipeline.stains.density import STAINED, Floats
from wsi_pipeline.stains.estimate import to_lab
from wsi_pipeline.stains.stain_profile import BROWN, StainProfile

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLEAR = STAINED / 3
"""Density in the densest channel up to which a pixel is background and keeps its value; from STAINED on it is changed
in full, and in between in part, so that no edge appears."""

MOST_CHANGE = 5.0
"""Most that a stain's strength, or the spread of a colour axis, may have to grow or shrink: more amplifies noise."""

_PIXELS = 1 << 16
"""Pixels changed at a time on a CPU: their floats stay in its cache."""


def misfit(slide: StainProfile, target: StainProfile) -> str:
    """Why a slide cannot be given the stain of a target; "" if it can."""
    if slide.fault:
        return slide.fault
    if slide.kind != target.kind:
        return f"its stain is {slide.kind}, the target's {target.kind}"
    names = ("haematoxylin", "DAB" if slide.kind == BROWN else "eosin")
    pairs = list(zip(names, slide.strength, target.strength, strict=True))
    if slide.method == "reinhard":
        pairs = list(zip(("l", "alpha", "beta"), slide.spread, target.spread, strict=True))
    for name, own, wanted in pairs:
        factor = wanted / max(own, 1e-9)
        if not 1 / MOST_CHANGE <= factor <= MOST_CHANGE:
            return f"{name} would have to change {factor:.2g} times, at most {MOST_CHANGE:g} is allowed"
    return ""


class Recolouring:
    """Changes batches of patches of one slide. Each pixel depends on itself alone, so batches make no difference.

    Background keeps its value exactly. A slide given its own stain keeps every value.
    """

    def __init__(self, slide: StainProfile, target: StainProfile) -> None:
        """Profiles of one method, which fit each other (`misfit`)."""
        self._glass = torch.tensor([[value + 1.0] for value in slide.glass], dtype=torch.float32)
        self._steps = _lab_steps(slide, target) if slide.method == "reinhard" else _density_steps(slide, target)
        self._placed: dict[str, Any] = {}

    def __call__(self, batch: NDArray[np.uint8] | torch.Tensor, device: str = "cpu") -> torch.Tensor:
        """uint8 (B, P, P, 3), numpy or torch, to uint8 of the same shape on `device`."""
        if isinstance(batch, np.ndarray):
            batch = torch.from_numpy(batch if batch.flags.writeable and batch.flags.c_contiguous else batch.copy())
        with torch.inference_mode():
            pixels = batch.to(device).reshape(-1, 3).T.contiguous()  # one row per channel: each step runs along it
            step = _PIXELS if pixels.device.type == "cpu" else max(1, pixels.shape[1])
            for part in torch.split(pixels, step, dim=1):
                part.copy_(self._change(part))
            return pixels.T.contiguous().reshape(batch.shape)

    def _change(self, pixels: torch.Tensor) -> torch.Tensor:
        """Values 0 to 255, rounded, of pixels uint8 (3, N)."""
        glass, steps = self._on(pixels.device)
        values = pixels.float().add_(1.0)
        if len(steps) == 1:
            density = torch.log(values).neg_().add_(torch.log(glass))
            changed = (steps[0] @ density).neg_().exp_().mul_(glass)
            densest = density.amax(dim=0)
        else:
            lms, scale, shift, back = steps
            changed = back @ (scale @ (lms @ values).log_()).add_(shift).exp_()
            densest = (glass / values).amax(dim=0).log_()
        amount = densest.sub_(CLEAR).mul_(1 / (STAINED - CLEAR)).clamp_(0.0, 1.0)
        return values.lerp_(changed, amount).sub_(1.0).round_().clamp_(0.0, 255.0)

    def _on(self, device: torch.device) -> Any:
        key = str(device)
        if key not in self._placed:
            self._placed[key] = self._glass.to(device), [step.to(device) for step in self._steps]
        return self._placed[key]


def _density_steps(slide: StainProfile, target: StainProfile) -> list[torch.Tensor]:
    """The matrix (3, 3) that densities (3, N) are multiplied by.

    Concentrations of the two stains are scaled to the target's and mixed with its vectors. What neither stain explains
    goes along the normal of both vectors and keeps its size: it is what two stains alone would lose.
    """
    own, wanted = _frame(slide), _frame(target)
    factors = np.ones(3)
    factors[:2] = np.array(target.strength) / np.array(slide.strength)
    return [_tensor((np.linalg.inv(own) @ np.diag(factors) @ wanted).T)]


def _lab_steps(slide: StainProfile, target: StainProfile) -> list[torch.Tensor]:
    """To cone responses; their logarithms to l-alpha-beta, scaled, shifted and back to logarithms; back to RGB."""
    lms, axes = to_lab()
    factors = np.array(target.spread) / np.array(slide.spread)
    moved = np.array(target.mean) - factors * np.array(slide.mean)
    back = np.linalg.inv(axes)
    scaled = back @ np.diag(factors) @ axes
    shift: Floats = np.log(10.0) * (back @ moved)[:, None]  # the moments are those of decimal logarithms
    return [_tensor(part) for part in (lms, scaled, shift, np.linalg.inv(lms))]


def _frame(profile: StainProfile) -> Floats:
    """The two stain vectors and their normal, as rows (3, 3)."""
    vectors = np.array(profile.vectors)
    normal = np.cross(vectors[0], vectors[1])
    return np.vstack([vectors, normal / np.linalg.norm(normal)])


def _tensor(values: NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
