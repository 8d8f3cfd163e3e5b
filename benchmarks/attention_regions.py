"""Does attention find the tumour? AUROC of each patch's attention against the demo's true tumour regions.

    wsi-pipeline demo demo/cohort; ...; wsi-pipeline train-mil --run demo/wsi-run     (or: make demo)
    python benchmarks/attention_regions.py --cohort demo/cohort --run demo/wsi-run

A patch is tumour where at least half of it is, by the class map its slide was painted from. Slides without patches of
both kinds tell nothing and are left out. Each slide is seen by the fold model that never saw its patient. Printed for
each model: mean AUROC over slides of attention and of the contribution to the class `tumour`, with 95 % bootstrap
intervals over patients, beside the part of tumour among the strongest twentieth of the patches.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from sklearn.metrics import roc_auc_score

from wsi_pipeline.demo.layout import TUMOUR
from wsi_pipeline.demo.truth import class_fractions
from wsi_pipeline.geometry import Box
from wsi_pipeline.store.tables.feature_table import read_feature_table

CLASS, RESAMPLES = "tumour", 2000


def main() -> None:
    """Print one row a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cohort", type=Path, default=Path("demo/cohort"), help="folder of the demo cohort")
    parser.add_argument("--run", type=Path, default=Path("demo/wsi-run"), help="its run, with heatmaps drawn")
    args = parser.parse_args()
    patients = pd.read_csv(args.run / "cohort.csv", dtype=str).set_index("slide_id")["patient_id"]
    folders = sorted(path for path in (args.run / "heatmap").glob("*/*") if path.is_dir())
    if not folders:
        raise SystemExit(f"no heatmaps in {args.run}: run wsi-pipeline train-mil first")
    print("| encoder | model | slides (patients) | AUROC, attention | AUROC, contribution | tumour in strongest 5 % |")
    print("|---|---|---|---|---|---|")
    for folder in folders:
        rows = measured(folder, args.cohort, args.run)
        owners = np.array([patients[slide] for slide in rows["slide_id"]])
        cells = [interval(rows[name].to_numpy(float), owners) for name in ("attention", "contribution", "top")]
        count = f"{len(rows)} ({len(set(owners))})"
        print(f"| {folder.parent.name} | {folder.name} | {count} | {' | '.join(cells)} |")


def measured(folder: Path, cohort: Path, run: Path) -> pd.DataFrame:
    """One row a slide that has patches with and without tumour."""
    rows = []
    for path in sorted(folder.glob("*.csv")):
        values = pd.read_csv(path)
        truth = tumour_patches(path.stem, values, cohort, run / "embed" / folder.parent.name)
        if 0 < truth.sum() < len(truth):
            evidence = values[f"contribution_{CLASS}"] - values.filter(like="contribution_").mean(axis=1)
            rows.append(
                {
                    "slide_id": path.stem,
                    "attention": roc_auc_score(truth, values["attention"]),
                    "contribution": roc_auc_score(truth, evidence),
                    "top": truth[(values["percentile"] >= 95).to_numpy()].mean(),
                }
            )
    return pd.DataFrame(rows)


def tumour_patches(slide: str, values: pd.DataFrame, cohort: Path, features: Path) -> NDArray[np.bool_]:
    """Whether at least half of each patch (N,) is tumour."""
    classes = np.asarray(Image.open(cohort / "truth" / f"{slide}.classes.png"))
    side = read_feature_table(features / f"{slide}.h5").geometry.patch_level0
    boxes = [Box(int(x), int(y), side, side) for x, y in values[["x", "y"]].to_numpy()]
    return np.array([class_fractions(classes, box)[TUMOUR] for box in boxes]) >= 0.5


def interval(values: NDArray[np.float64], patients: NDArray[np.str_]) -> str:
    """`mean [low, high]` by a percentile bootstrap over patients."""
    groups, member = np.unique(patients, return_inverse=True)
    draws = np.random.default_rng(0).multinomial(len(groups), np.full(len(groups), 1 / len(groups)), RESAMPLES)
    weights = draws[:, member]
    low, high = np.quantile((weights @ values) / weights.sum(axis=1), [0.025, 0.975])
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
