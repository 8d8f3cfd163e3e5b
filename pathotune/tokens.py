"""TokenLayout: the positions of class, register, prompt and image tokens in the sequence, defined only here.

    [CLS] | registers of the backbone | TVP | TTP | IVP | image patches

Sources: Lu et al. 2024, arXiv 2403.16497 (order); Jia et al. 2022 (VPT), arXiv 2203.12119 (prompts follow the class
token).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pathotune.errors import ConfigError

KINDS = ("tvp", "ttp", "ivp")
"""The kinds of prompts, in sequence order."""


@dataclass(frozen=True)
class TokenLayout:
    """Token counts: `registers` after the class token, then the three kinds of prompts. 0 for none."""

    registers: int = 0
    tvp: int = 0
    ttp: int = 0
    ivp: int = 0

    def __post_init__(self) -> None:
        for name in ("registers", *KINDS):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must be >= 0, got {getattr(self, name)}")

    @property
    def prefix(self) -> int:
        """Number of tokens before the prompts: the class token and the registers."""
        return 1 + self.registers

    @property
    def prompts(self) -> int:
        """Number of prompts of all kinds."""
        return self.tvp + self.ttp + self.ivp

    def place(self, part: str) -> slice:
        """Slice of `cls`, `registers`, `tvp`, `ttp`, `ivp` or `image` in the sequence with prompts."""
        sizes = {"cls": 1, "registers": self.registers, **{kind: getattr(self, kind) for kind in KINDS}}
        start = 0
        for name, size in sizes.items():
            if name == part:
                return slice(start, start + size)
            start += size
        if part != "image":
            raise ConfigError(f"part must be one of {', '.join([*sizes, 'image'])}, got {part!r}")
        return slice(start, None)

    def insert(self, sequence: Tensor, prompts: Mapping[str, Tensor]) -> Tensor:
        """Insert prompts, (B, n, D) for each kind that is on, into the backbone's sequence (B, prefix + N, D).

        Returns (B, prefix + prompts + N, D). The backbone's tokens keep their values and order.
        """
        ordered = self._ordered(prompts)
        if not ordered:
            return sequence
        return torch.cat([sequence[:, : self.prefix], *ordered, sequence[:, self.prefix :]], dim=1)

    def take_out(self, sequence: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The inverse of `insert`: the backbone's tokens (B, prefix + N, D), and the prompts of each kind."""
        return self.remove(sequence), {kind: sequence[:, self.place(kind)] for kind in KINDS if getattr(self, kind)}

    def remove(self, sequence: Tensor) -> Tensor:
        """Remove the prompts."""
        if not self.prompts:
            return sequence
        return torch.cat([sequence[:, : self.prefix], sequence[:, self.place("image")]], dim=1)

    def _ordered(self, prompts: Mapping[str, Tensor]) -> list[Tensor]:
        wanted = {kind: getattr(self, kind) for kind in KINDS if getattr(self, kind)}
        found = {kind: tokens.shape[1] for kind, tokens in prompts.items()}
        if found != wanted:
            raise ConfigError(f"prompts must be {wanted} tokens, got {found}")
        return [prompts[kind] for kind in wanted]
