"""AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101) without the three seconds that torch's class takes to start."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.adamw import adamw


class AdamW:
    """`torch.optim.AdamW(..., fused=True)` to the bit.

    That class imports torch's compiler when it is first made; the function that computes its steps does not.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], learning_rate: float, weight_decay: float) -> None:
        self._rate, self._decay = learning_rate, weight_decay
        self._state = [
            (one, torch.zeros_like(one), torch.zeros_like(one), torch.zeros((), device=one.device))
            for one in parameters
        ]  # with mean gradient, mean squared gradient and number of steps

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter, *_ in self._state:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter that has a gradient."""
        moved = [state for state in self._state if state[0].grad is not None]
        adamw(
            [parameter for parameter, *_ in moved],
            [parameter.grad for parameter, *_ in moved if parameter.grad is not None],
            [mean for _, mean, _, _ in moved],
            [square for _, _, square, _ in moved],
            [],
            [steps for *_, steps in moved],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._rate,
            weight_decay=self._decay,
            eps=1e-8,
            maximize=False,
        )
