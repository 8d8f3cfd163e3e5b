"""Slide-level results with and without stain normalisation: python benchmarks/stain.py [--sets ucsb crc].

Images are bags of frozen DeiT-Tiny features (benchmarks/mil/sets.py), each image a slide of its own. Every method is
compared with no normalisation on the same folds: difference of the AUROC with a 95 % interval by paired bootstrap of
images. `ucsb, arrays held out` keeps whole tissue arrays in one fold.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks.mil.sets import load_set
from benchmarks.tuning.plans import grid
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.validation.crossval import cross_validate_bags
from wsi_pipeline.mil.validation.paired import Validated, compare
from wsi_pipeline.system.machine import prepare_process

METHODS = ("none", "reinhard", "macenko", "vahadane")


def main() -> None:
    """Print the table, row by row as it is known."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="*", default=["ucsb", "crc"])
    parser.add_argument("--models", nargs="*", default=["mean", "gated-abmil"])
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=5, help="repetitions of the cross-validation with new folds")
    parser.add_argument("--work", type=Path, default=Path("stain-benchmark"), help="where features are kept")
    asked = parser.parse_args()
    prepare_process()
    rows = []
    for name in asked.sets:
        for held_out in (False, True) if name == "ucsb" else (False,):
            for model in asked.models:
                rows += _rows(name, model, held_out, asked)
    print(grid(("set", "model", "stain", "AUROC (spread over repeats)", "difference to none [95 %]"), rows))


def _rows(name: str, model: str, held_out: bool, asked: argparse.Namespace) -> list[list[str]]:
    spec = MilSpec(
        model=model, folds=5 if held_out else 10, repeats=asked.repeats, site_folds=held_out, allow_few=True,
        val_fraction=0, epochs=15, bootstrap=100, permutations=0,
    )  # fmt: skip
    rows, plain = [], None
    for method in asked.methods:
        started = time.monotonic()
        found = load_set(name, asked.work, method)
        result = cross_validate_bags(found.bags, found.table, spec)
        side = Validated(result.task, result.predictions)
        auroc = [_auroc(rows_of) for _, rows_of in result.predictions.groupby("repeat")]
        plain = plain or side
        one = compare(plain, side, resamples=1000, seed=0)["metrics"]["auroc"] if method != "none" else None
        difference = f"{one['difference']:+.3f} [{one['low']:+.3f}, {one['high']:+.3f}]" if one else ""
        where = f"{name}, arrays held out" if held_out else name
        rows.append([where, model, method, f"{np.mean(auroc):.3f} ({np.std(auroc):.3f})", difference])
        print(*rows[-1], f"{time.monotonic() - started:.0f} s", sep=" | ", flush=True)
    return rows


def _auroc(rows: object) -> float:
    from sklearn.metrics import roc_auc_score

    positive = sorted(rows["label"].unique())[-1]
    return float(roc_auc_score(rows["label"] == positive, rows[f"p_{positive}"]))


if __name__ == "__main__":
    main()
