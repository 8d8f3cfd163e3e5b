#!/usr/bin/env bash
# A patch with little tissue is made dark, without an error: the concentration that the patch is scaled by is the 99th
# percentile over all its pixels, and with under 1 % tissue that is glass. And a picture that is normalised to itself is
# not itself, as what two stains do not explain is lost. This
# program takes percentiles over stained pixels of the whole slide, and keeps glass as it is.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${PYTHON:-python3}" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check torchstain==1.4.1 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
from torchstain.numpy.normalizers import NumpyMacenkoNormalizer

rng = np.random.default_rng(0)
stains = np.array([[0.60, 0.72, 0.35], [0.16, 0.88, 0.45]])


def tissue(rows):
    """Haematoxylin and eosin by the Beer-Lambert law, on glass of (234, 230, 233) with sensor noise."""
    amounts = rng.gamma(2.0, 0.4, (rows * 256, 2))
    light = np.array([234, 230, 233]) * np.exp(-amounts @ stains)
    return (light + rng.normal(0, 1.5, light.shape)).clip(0, 255).round().astype(np.uint8).reshape(rows, 256, 3)


target = tissue(256)
glass = (np.array([234, 230, 233]) + rng.normal(0, 1.5, (254, 256, 3))).clip(0, 255).round().astype(np.uint8)
patch = np.concatenate([tissue(2), glass])
normalizer = NumpyMacenkoNormalizer()
normalizer.fit(target)
changed = np.asarray(normalizer.normalize(I=patch, stains=False)[0], float)
itself = np.asarray(normalizer.normalize(I=target, stains=False)[0], float)
before, after = patch[2:].mean(axis=(0, 1)), changed[2:].mean(axis=(0, 1))
apart = np.abs(itself - target).mean()
print("torchstain 1.4.1, numpy", np.__version__)
print("256 x 256 pixels of which 0.8 % are tissue; expected: its glass stays", before.round())
print("seen: the glass of that patch is", after.round())
print(f"a picture normalised to itself; expected: 0 grey levels apart; seen: {apart:.1f} on average")
assert after.max() < before.min() - 20
assert apart > 0.5
PYTHON
