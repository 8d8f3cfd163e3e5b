"""Device and precision of a pass, and what makes training fast on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pathotune.checks import check_choice
from pathotune.hardware import fast_bf16
from pathotune.model import PathoTune
from pathotune.prompts import InstanceVisualPrompts


@dataclass(frozen=True)
class Compute:
    """Device of a pass in torch's notation (cpu, cuda:0), and precision: bf16 (sums and norms in fp32), fp32, or auto.

    precision  auto: bf16 where the device is fast at it, else fp32
    cache_mb   most memory in training for what frozen layers give, MB; 0: compute it in every epoch
    """

    device: str = "cpu"
    precision: str = "auto"
    cache_mb: int = 1024

    @property
    def place(self) -> torch.device:
        """The device as a torch.device."""
        return torch.device(self.device)

    @property
    def arithmetic(self) -> str:
        """The precision in use, bf16 or fp32. Raises ConfigError for an unknown one."""
        check_choice("precision", self.precision, ("auto", "bf16", "fp32"))
        if self.precision == "auto":
            return "bf16" if fast_bf16(self.place) else "fp32"
        return self.precision

    def lowered(self) -> torch.autocast:
        """Context manager for a forward pass in this precision. Raises ConfigError for an unknown precision."""
        return torch.autocast(self.place.type, torch.bfloat16, enabled=self.arithmetic == "bf16")


ON_CPU = Compute()
"""The default: the processor, in bf16 if it is fast at it."""


@contextmanager
def quick_backward(model: PathoTune, device: torch.device) -> Iterator[None]:
    """Avoid two operations whose backward pass in bf16 is slow on a CPU.

    The backward pass of fused attention takes ten times as long as its forward pass, and depthwise convolutions are
    slower than in float32: together more than half of a step with DeiT-Tiny at 112 px (benchmarks/tuning_speed.py).
    """
    head_alone = not model.layout.prompts and model.config.backbone == "frozen"
    if device.type != "cpu" or head_alone:  # with only a head, no gradient passes the backbone
        yield
        return
    attentions = [block.attn for block in model.backbone.blocks if getattr(block.attn, "fused_attn", False)]
    refine = model.ivp.refine if isinstance(model.ivp, InstanceVisualPrompts) else None
    for attention in attentions:
        attention.fused_attn = False
    if refine is not None:
        refine.__dict__["forward"] = _in_float32(refine.forward)
    try:
        yield
    finally:
        for attention in attentions:
            attention.fused_attn = True
        if refine is not None:
            del refine.__dict__["forward"]


def _in_float32(inner: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            return inner(images.float())

    return forward
