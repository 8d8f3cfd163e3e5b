"""Self-attention in memory linear in the number of tokens: Xiong et al., "Nystromformer", 2021."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

PSEUDO_INVERSE_STEPS = 6


class NystromAttention(nn.Module):
    """softmax(Q K~^T) softmax(Q~ K~^T)^+ softmax(Q~ K^T) V (eq. 13), over landmarks Q~, K~.

    Landmarks are the means of consecutive tokens, in parts whose sizes differ by at most one, the longer ones first.
    With no more tokens than landmarks it is plain attention. No matrix of tokens by landmarks is ever stored.
    """

    def __init__(self, dim: int, heads: int, landmarks: int) -> None:
        super().__init__()
        self.heads, self.landmarks = heads, landmarks
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.out = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (n, dim) -> (n, dim)."""
        q, k, v = self._heads(tokens)
        if len(tokens) <= self.landmarks:
            mixed = functional.scaled_dot_product_attention(q, k, v)
        else:
            q_marks, k_marks = self._marks(q), self._marks(k)
            inner = functional.scaled_dot_product_attention(q_marks, k, v)
            core = _core(q_marks, k_marks)
            inner = core @ inner.to(core)
            mixed = functional.scaled_dot_product_attention(q, k_marks, inner.to(q))
        return self.out(mixed[0].transpose(0, 1).flatten(1))  # type: ignore[no-any-return]

    def attention_of_first(self, tokens: Tensor) -> Tensor:
        """Attention (n,) of the first token to all: the mean over heads; the pseudo-inverse can make it negative."""
        q, k, _ = (part.float() for part in self._heads(tokens))
        scale = 1 / math.sqrt(q.shape[-1])
        if len(tokens) <= self.landmarks:
            return (q[0, :, :1] @ k[0].mT * scale).softmax(-1).mean(0)[0]
        q_marks, k_marks = self._marks(q), self._marks(k)
        first = (q[:, :, :1] @ k_marks.mT * scale).softmax(-1) @ _core(q_marks, k_marks)  # (1, heads, 1, landmarks)
        total = tokens.new_zeros(len(tokens), dtype=torch.float32)
        for head in range(self.heads):  # one at a time: landmarks x tokens is large for a large bag
            total += (first[0, head] @ (q_marks[0, head] @ k[0, head].mT * scale).softmax(-1))[0]
        return total / self.heads

    def _heads(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(tokens).unflatten(1, (3, self.heads, -1)).permute(1, 2, 0, 3)[:, None]
        return q, k, v

    def _marks(self, values: Tensor) -> Tensor:
        """Landmarks (1, heads, landmarks, d) of values (1, heads, n, d)."""
        size, longer = divmod(values.shape[2], self.landmarks)
        head, tail = torch.split(values, [longer * (size + 1), (self.landmarks - longer) * size], 2)
        filled = [(part, n) for part, n in ((head, size + 1), (tail, size)) if part.shape[2]]
        parts = [part.reshape(1, self.heads, -1, n, part.shape[3]).mean(3) for part, n in filled]
        return torch.cat(parts, 2)


def _core(q_marks: Tensor, k_marks: Tensor) -> Tensor:
    """softmax(Q~ K~^T)^+ in float32 or wider, (1, heads, m, m), by the iteration of eq. 11 (Razavi et al.)."""
    with torch.autocast(q_marks.device.type, enabled=False):
        wide = torch.promote_types(q_marks.dtype, torch.float32)
        q, k = q_marks.to(wide), k_marks.to(wide)
        a = (q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1)
        norms = a.abs().sum(-1).amax(-1) * a.abs().sum(-2).amax(-1)
        z = a.mT / norms[..., None, None]
        eye = torch.eye(a.shape[-1]).to(a)
        for _ in range(PSEUDO_INVERSE_STEPS):
            az = a @ z
            z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
        return z
