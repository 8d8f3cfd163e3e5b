"""The published attention network itself on a classical set: python -m benchmarks.mil.published [tiger] [--repeats 5].

Gated attention of Ilse, Tomczak and Welling 2018 (arXiv 1802.04712) as we recall what they did with the five classical
sets: layers of 256, 128 and 64 with ReLU and dropout, attention of 64, SGD with momentum, one bag a step, 100 epochs.
Written apart from `wsi_pipeline.mil`, to tell whether a gap to the published figure is the model's. Ours: features
standardised by the training bags, stratified folds, one rate and decay for all sets.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold
from torch import nn

from benchmarks.mil.sets import CLASSICAL, load_set

EPOCHS = 100
RATE, DECAY = 1e-4, 5e-3


class GatedAttention(nn.Module):
    """One bag (N, D) to one logit (1,)."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((width, 256, 128), (256, 128, 64), strict=True):
            layers += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(dropout)]
        self.instances = nn.Sequential(*layers)
        self.values, self.gates, self.weights = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 1)
        self.head = nn.Linear(64, 1)

    def forward(self, bag: torch.Tensor) -> torch.Tensor:
        """The logit of a bag."""
        seen = self.instances(bag)
        attention = torch.softmax(self.weights(self.values(seen).tanh() * self.gates(seen).sigmoid()), dim=0)
        found: torch.Tensor = self.head((attention * seen).sum(0))
        return found


def main() -> None:
    """Cross-validate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=CLASSICAL, default="tiger")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = load_set(asked.name, Path())
    bags = [found.bags.bag(number).float().numpy() for number in range(len(found.bags))]
    truth = (found.table["label"] == "yes").to_numpy()
    each = []
    for repeat in range(asked.repeats):
        scores = validate(bags, truth, repeat, asked.dropout)
        each.append(((scores > 0) == truth).mean())
        print(f"repeat {repeat}: accuracy {each[-1]:.3f}, AUC {roc_auc_score(truth, scores):.3f}", flush=True)
    error = f" ± {np.std(each, ddof=1) / np.sqrt(len(each)):.3f} (standard error)" if len(each) > 1 else ""
    print(f"{asked.name}: accuracy {np.mean(each):.3f}{error} over {len(each)} repeats")


def validate(
    bags: list[NDArray[np.float32]], truth: NDArray[np.bool_], seed: int, dropout: float
) -> NDArray[np.float64]:
    """Logit of every bag by the network of the fold that did not see it."""
    scores = np.zeros(len(bags))
    for train, test in StratifiedKFold(10, shuffle=True, random_state=seed).split(truth, truth):
        seen = np.concatenate([bags[number] for number in train])
        mean, spread = seen.mean(0), seen.std(0) + 1e-6
        tensors = [torch.from_numpy((bag - mean) / spread) for bag in bags]
        network = _fit(tensors, truth, train, seed, dropout)
        with torch.inference_mode():
            scores[test] = [float(network(tensors[number])) for number in test]
    return scores


def _fit(
    bags: list[torch.Tensor], truth: NDArray[np.bool_], train: NDArray[np.int64], seed: int, dropout: float
) -> GatedAttention:
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    network = GatedAttention(bags[0].shape[1], dropout)
    optimiser = torch.optim.SGD(network.parameters(), RATE, momentum=0.9, nesterov=True, weight_decay=DECAY)
    targets = torch.from_numpy(truth.astype(np.float32))
    for _ in range(EPOCHS):
        for number in order.permutation(train):
            loss = nn.functional.binary_cross_entropy_with_logits(network(bags[number]), targets[number : number + 1])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return network.eval()


if __name__ == "__main__":
    main()
