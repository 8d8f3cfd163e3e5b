"""Robustness of encoders on labelled images of several sites: python benchmarks/robustness.py [--sets ucsb crc].

Each image of a set is a slide of its own, cut into patches of 224 px at the image's own resolution, which the sets do
not state: it is taken for 0.5 mpp, so a blur of 1 um is one of 2 px. `wsi-pipeline robustness` then measures each
encoder without and with stain normalisation on the same patches. What was measured before is not measured again, so the
script can be stopped and started.

ucsb   58 images of breast, benign or malignant; site: the tissue array
crc    100 images of colon, any epithelial nucleus or none; no sites, so the indices are not scored
"""

from __future__ import annotations

import argparse
import csv
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.mil.sets import DATA, WEIGHTS
from wsi_pipeline.cli import main as wsi_pipeline
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.stages.results.robustness_files import read_results

DEIT = "deit_tiny_patch16_224"
ENCODERS = ("colour", "vit-mini", "pathotune", DEIT)
MPP, PATCH_PX = 0.5, 224


def main() -> None:
    """Measure what is missing; print one table per set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="*", default=["ucsb"], choices=("ucsb", "crc"))
    parser.add_argument("--encoders", nargs="*", default=list(ENCODERS))
    parser.add_argument("--adapters", nargs="*", default=[], metavar="FILE", help="adapters of pathotune, each a row")
    parser.add_argument("--methods", nargs="*", default=["none", "macenko"])
    parser.add_argument("--n-patches", type=int, default=232, help="patches, spread evenly over the images")
    parser.add_argument("--work", type=Path, default=Path("robustness-benchmark"), help="folder of the runs")
    asked = parser.parse_args()
    for name in asked.sets:
        run = _tiled(name, asked.work)
        for method in asked.methods:
            # In one command, a slide's stain is measured once for all encoders.
            _measured(run, asked.encoders, method, asked.n_patches)
            for adapter in asked.adapters:
                _measured(run, ["pathotune"], method, asked.n_patches, "--adapter", adapter)
        results = read_results(RunDir(run))
        print(f"\n{name}\n")
        print(_table([_moves(result) for result in results]))
        print(_table([_near(result) for result in results]))


def _tiled(name: str, work: Path) -> Path:
    work.mkdir(parents=True, exist_ok=True)
    manifest, run = work / f"{name}.csv", work / name
    with manifest.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(("slide_id", "path", "patient_id", "label", "site", "mpp"))
        writer.writerows((path.stem, path, path.stem, label, site, MPP) for path, label, site in _images(name))
    words = ["tile", str(manifest), "--run", str(run), "--patch-px", str(PATCH_PX), "--mpp", str(MPP)]
    # 8 mpp would leave 60 pixels of an image for the mask.
    _done(wsi_pipeline([*words, "--mask-mpp", "4", "--min-coverage", "0.5", "--workers", "1"]))
    return run


def _images(name: str) -> list[tuple[Path, str, str]]:
    folder = DATA / "patches" / ("ucsb_breast" if name == "ucsb" else "crc_nuclei")
    table = folder / ("labels.csv" if name == "ucsb" else "images.csv")
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if name == "ucsb":
        return [(folder / row["path"], row["label"], row["group"]) for row in rows]
    return [
        (folder / row["path"], "epithelial" if row["bag_label_any_epithelial"] == "1" else "none", "") for row in rows
    ]


def _measured(run: Path, encoders: list[str], method: str, count: int, *more: str) -> None:
    words = ["robustness", "--run", str(run), "--n-patches", str(count), "--device", "cpu", "--stain-norm", method]
    words += [word for encoder in encoders for word in ("--model", encoder)]
    if DEIT in encoders:
        words += ["--weights", f"{DEIT}={WEIGHTS}" if len(encoders) > 1 else str(WEIGHTS)]
    _done(wsi_pipeline([*words, *more]))


def _done(code: int) -> None:
    if code not in (0, 3):  # 3: single images failed, which are named
        raise SystemExit(code)


def _moves(result: dict[str, Any]) -> dict[str, str]:
    """Distance moved and patches lost by the change of each kind that moved features furthest."""
    worst: dict[str, dict[str, Any]] = {}
    for move in result["movements"]:
        if move["kind"] not in worst or move["median"] > worst[move["kind"]]["median"]:
            worst[move["kind"]] = move
    cells = {kind: f"{move['relative']:.2f} ({100 * move['lost']:.0f} %)" for kind, move in worst.items()}
    return {"encoder": result["row"], **cells}


def _near(result: dict[str, Any]) -> dict[str, str]:
    near = result["neighbours"]
    cells = {
        key.replace("_", " "): f"{near[key]['value']:.3f} ({near[key]['patches']})"
        for key in ("nearest_own_slide", "nearest_other_slide", "nearest_same_site", "nearest_other_site")
        if near[key]["value"] is not None
    }
    scored = result["confounding"] or {}
    cells |= {name: f"{scored[name]['value']:.3f} ({scored[name]['scored']})" for name in ("ri", "mari", "croma")
              if name in scored and scored[name]["value"] is not None}  # fmt: skip
    return {"encoder": result["row"], **cells, "slides": str(len(result["slides"]))}


def _table(rows: list[dict[str, str]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---", *["--:"] * (len(names) - 1)], *([row.get(name, "") for name in names] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    main()
