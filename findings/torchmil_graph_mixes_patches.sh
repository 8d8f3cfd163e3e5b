#!/usr/bin/env bash
# A graph model of a slide should not care in which order its patches are stored, nor how far a bag is padded behind its
# mask. torchmil's DeepGraphSurv cares about both: its Chebyshev convolution stacks the polynomials as (polynomial,
# patch, value) and reads the memory as (patch, polynomial x value) without exchanging the axes, so that a "patch"
# afterwards is a run of several patches' values. Nothing fails; the model trains on neighbours in the file instead of
# neighbours in the tissue, and a slide's prediction depends on the largest slide of its batch. This program's models
# take bags as they are, without padding, and have no graph.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torchmil==1.0.2
cd "$work"
"$work/venv/bin/python" -W ignore - <<'PYTHON'
from importlib.metadata import version

import torch
from torchmil.models import DeepGraphSurv
from torchmil.nn.gnns.chebconv import ChebConv

torch.manual_seed(0)
N, DIM, MORE = 37, 16, 27
patches = torch.randn(1, N, DIM)
row = torch.zeros(1, N, N)  # patches in a row, each a neighbour of the next
steps = torch.arange(N - 1)
row[0, steps, steps + 1] = row[0, steps + 1, steps] = 1
order = torch.randperm(N)
model, layer = DeepGraphSurv((DIM,)).eval(), ChebConv(DIM, 4)


def padded(values: torch.Tensor, *shape: int) -> torch.Tensor:
    larger = torch.zeros(shape)
    larger[tuple(slice(0, size) for size in values.shape)] = values
    return larger


with torch.no_grad():
    plain = model(patches, row, torch.ones(1, N)).item()
    shuffled = model(patches[:, order], row[:, order][:, :, order], torch.ones(1, N)).item()
    longer = N + MORE
    behind_mask = model(
        padded(patches, 1, longer, DIM), padded(row, 1, longer, longer), padded(torch.ones(1, N), 1, longer)
    ).item()
    changed = patches.clone()
    changed[0, 1] += 1
    moved = (layer(changed, row) - layer(patches, row)).abs().amax((0, 2)) > 1e-4
print("torchmil", version("torchmil"))
print("expected: one prediction in any order and with any padding; patch 1 of a row reaches patches 0 to 3")
print(f"seen: {plain:.2f}; in another order {shuffled:.2f}; padded behind its mask {behind_mask:.2f}")
print(f"patch 1 reaches the places {torch.nonzero(moved).flatten().tolist()}")
assert abs(plain - shuffled) > 1
assert abs(plain - behind_mask) > 1
assert set(torch.nonzero(moved).flatten().tolist()) - {0, 1, 2, 3}
PYTHON
