"""Make the built-in adapter: PathoTune on vit-mini, tuned on synthetic slides outlined by kind of tissue.

python benchmarks/builtin/adapter.py --work /tmp/adapter              a few minutes on two cores
python benchmarks/builtin/adapter.py --work /tmp/adapter --install    and put the adapter into the package

It is `wsi-pipeline tune` on slides of `wsi-pipeline demo` with a seed of their own; what is written into the package
is its adapter file, with words in place of the path of this machine. Needs the extra `text`, and no network.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pathotune.builtin import default_adapter_path, vit_mini  # noqa: E402
from pathotune.checkpoint import load_adapter, read_adapter, save_adapter  # noqa: E402
from wsi_pipeline.cli import main as wsi_pipeline  # noqa: E402
from wsi_pipeline.demo.demo_cohort import ANNOTATED, make_cohort  # noqa: E402

SEED = 2002
"""`make demo` uses 0 and vit-mini was taught on 1001."""
SLIDES, SIDES = 24, (2600, 3600)
SOURCE = "24 synthetic slides of wsi-pipeline demo (seed 2002), outlined by kind of tissue; no real tissue"
TUNE = {
    "--model": "vit-mini",
    "--overlap-px": "128",
    "--min-inside": "0.6",
    "--max-per-class": "400",
    "--stain-jitter": "0.1",
    "--epochs": "8",
    "--organ": "synthetic tissue",
    "--task": "kind of tissue",
    "--test-fraction": "0.25",
}


def main() -> int:
    """Paint the slides that are missing, tune, and install where asked."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, required=True, help="folder for slides and the run")
    options.add_argument("--install", action="store_true", help="put the adapter into the package")
    given = options.parse_args()
    labels = make_cohort(given.work / "slides", slides=4, annotated=SLIDES, seed=SEED, sides=SIDES, workers=1)
    words = [word for pair in TUNE.items() for word in pair]
    run = given.work / "wsi-run"
    code = wsi_pipeline(["tune", str(labels.with_name(ANNOTATED)), "--run", str(run), *words])
    if code == 0 and given.install:
        install(run / "tune" / "pathotune")
    return code


def install(folder: Path) -> None:
    """The adapter of a tuning into the package, with its scores and without the paths of this machine."""
    tuned = folder / "adapter.safetensors"
    info, (backbone, card) = read_adapter(tuned), vit_mini()
    provenance = {**info.provenance, "source": SOURCE, "made_by": "benchmarks/builtin/adapter.py"}
    # Marks of these patients would warn owners of a cohort whose patients happen to have the same names.
    provenance.pop("groups", None)
    save_adapter(
        default_adapter_path(),
        load_adapter(tuned, backbone),
        card,
        metrics=info.metrics,
        provenance=provenance,
    )
    size = default_adapter_path().stat().st_size / 1e6
    print(f"written: {default_adapter_path()} ({size:.2f} MB)")
    print(json.dumps({"metrics": dict(info.metrics), "provenance": provenance}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
