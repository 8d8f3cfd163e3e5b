"""Nearest patches: all compared, beside the index that the viewer uses beyond a million patches.

    python benchmarks/nearest_patches.py [--rows 1200000] [--dim 384] [--queries 50]

Features are made up: 300 groups on a curved surface of 24 dimensions in `dim` values, with noise, as float16. Printed:
seconds of processor time to make the index, seconds per search (median) by both, and recall: how many of the 24 nearest
patches the index finds. With --noise 1 the features are without structure, the worst case for any index.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from wsi_pipeline.viewer.nearest.patch_index import make_index
from wsi_pipeline.viewer.nearest.similar_patches import nearest_of_all, squared_lengths, weights_of

COUNT, GROUPS, INNER = 24, 300, 24
NOBODY = (0, 0, np.zeros(0, np.bool_))


def features_of(rows: int, dim: int, noise: float, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float16]]:
    """Features (rows, dim) float16, made in blocks."""
    rng = np.random.default_rng(seed)
    middles = 1.5 * rng.normal(size=(GROUPS, INNER)).astype(np.float32)
    ways = rng.normal(size=(INNER, dim)).astype(np.float32) / np.float32(np.sqrt(INNER))
    out = np.empty((rows, dim), np.float16)
    for first in range(0, rows, 50_000):
        part = out[first : first + 50_000]
        hidden = middles[rng.integers(GROUPS, size=len(part))] + rng.standard_normal((len(part), INNER), np.float32)
        part[:] = (1 - noise) * np.tanh(hidden @ ways) + max(noise, 0.1) * rng.standard_normal(part.shape, np.float32)
    return out


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """(result, seconds, seconds of processor time)."""
    start, used = time.perf_counter(), time.process_time()
    return work(), time.perf_counter() - start, time.process_time() - used


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_200_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--noise", type=float, default=0.1)
    args = parser.parse_args()
    features = features_of(args.rows, args.dim, args.noise)
    weights = weights_of(features)
    squares, _, prepared = timed(lambda: squared_lengths(features, weights))
    index, whole, made = timed(lambda: make_index(features, weights))
    times: dict[str, list[float]] = {"all": [], "index": []}
    hits = 0
    for query in np.random.default_rng(1).integers(args.rows, size=args.queries):
        (truth, _), _, used = timed(lambda q=int(query): nearest_of_all(features, q, COUNT, NOBODY, weights, squares))
        times["all"].append(used)
        (found, _), _, used = timed(lambda q=int(query): index.nearest(features, q, COUNT, NOBODY))
        times["index"].append(used)
        hits += int(np.isin(found, truth).sum())
    print(f"{args.rows} rows of {args.dim}, {len(index.centres)} lists, {index.searched} searched")
    print("| patches compared | CPU s to prepare | CPU s per search | recall of 24 |\n|---|--:|--:|--:|")
    print(f"| all | {prepared:.1f} | {statistics.median(times['all']):.2f} | 1 |")
    recall = hits / (COUNT * args.queries)
    print(
        f"| those of the index | {made:.0f} ({whole:.0f} s) | {statistics.median(times['index']):.2f} | {recall:.3f} |"
    )


if __name__ == "__main__":
    main()
