"""Survival losses: likelihood of hazards in intervals of time, and Cox's partial likelihood; both with censoring.

A bag has a time and an event: 1 if the event was observed at that time, 0 if the bag was censored then.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


class DiscreteSurvival:
    """Negative log-likelihood of hazards h_k = sigmoid(output k): the chance of an event in interval k if none before.

    times, events   of each bag, (B,); events 0 or 1
    edges           ends of the K intervals (0, e_1], (e_1, e_2], ..., rising, (K,)

    An event in interval k costs -log h_k - sum_{j<k} log(1 - h_j), a censored bag -sum log(1 - h_j) over the
    intervals it survived. Censoring in the second half of an interval counts as surviving it (Gensheimer and
    Narasimhan 2019, PeerJ 7:e6257, eq. 4). An event beyond the last edge counts as surviving all intervals.
    """

    def __init__(self, times: Tensor, events: Tensor, edges: Tensor) -> None:
        self.n_outputs = len(edges)
        self.survived, self.died = intervals(times, events, edges)

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag, (b,), from the logits of its hazards (b, K)."""
        survived, died = self.survived[indices].to(outputs), self.died[indices].to(outputs)
        # softplus(x) = -log(1 - sigmoid(x)), softplus(-x) = -log(sigmoid(x)), without overflow.
        return (survived * functional.softplus(outputs) + died * functional.softplus(-outputs)).sum(1)

    def bag_weights(self, train: Tensor) -> Tensor:
        """Every bag counts 1, (B,)."""
        return torch.ones(len(self.survived))

    def targets(self, indices: Tensor) -> None:
        """None: there are no classes."""


class CoxSurvival:
    """Negative log partial likelihood (Cox 1972), ties as by Breslow 1974, over the risk sets within a batch.

    times, events   of each bag, (B,); events 0 or 1

    A bag i with an event costs log sum_{j: t_j >= t_i} exp(r_j) - r_i over the bags j of the same batch. A censored bag
    costs nothing itself but is in the risk sets of others. Batches must be large enough to hold risk sets: from one bag
    per step nothing is learned.
    """

    n_outputs = 1

    def __init__(self, times: Tensor, events: Tensor) -> None:
        self.times, self.events = times, events.bool()

    def losses(self, outputs: Tensor, indices: Tensor) -> Tensor:
        """Loss of each bag, (b,), within its batch, from log risks (b, 1)."""
        times, events = self.times[indices].to(outputs.device), self.events[indices].to(outputs.device)
        return cox_losses(outputs[:, 0], times, events)

    def bag_weights(self, train: Tensor) -> Tensor:
        """Every bag counts 1, (B,)."""
        return torch.ones(len(self.times))

    def targets(self, indices: Tensor) -> None:
        """None: there are no classes."""


def intervals(times: Tensor, events: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """The intervals that each bag survived, and the one of its event: two masks (B, K) of 0 and 1.

    Interval k is (edges[k - 1], edges[k]], the first from 0; an event beyond the last edge is in none.
    """
    start = torch.cat([edges.new_zeros(1), edges[:-1]])
    time, event = times[:, None], events.bool()[:, None]
    died = event & (time > start) & (time <= edges)
    survived = torch.where(event, time > edges, time >= (start + edges) / 2)
    return survived.float(), died.float()


def cox_losses(risks: Tensor, times: Tensor, events: Tensor) -> Tensor:
    """Negative log partial likelihood by bag, (b,), from log risks (b,), times (b,) and events bool (b,)."""
    order = torch.argsort(times, descending=True)
    at_risk = torch.logcumsumexp(risks[order], 0)
    _, counts = torch.unique_consecutive(times[order], return_counts=True)
    last_of_tie = counts.cumsum(0) - 1
    log_sums = torch.empty_like(risks)
    log_sums[order] = at_risk[torch.repeat_interleave(last_of_tie, counts)]
    return torch.where(events, log_sums - risks, torch.zeros_like(risks))
