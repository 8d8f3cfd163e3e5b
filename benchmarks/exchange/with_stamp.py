"""STAMP's own cross-validation on our export: `python with_stamp.py EXPORT`, where `stamp` is installed.

Two folds of a few epochs on the CPU, by the config.yaml of the export; prints the AUROC over all test patients.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score


def train(export: Path) -> None:
    """Cross-validate; prints the AUROC."""
    config = yaml.safe_load((export / "config.yaml").read_text())
    with tempfile.TemporaryDirectory() as place:
        config["crossval"] |= {"output_dir": place, "n_splits": 2}
        config["advanced_config"] = {
            "max_epochs": 12, "batch_size": 4, "bag_size": 8, "num_workers": 0, "accelerator": "cpu", "max_lr": 1e-3,
            "model_name": "mlp", "model_params": {"mlp": {"dim_hidden": 32}}, "patience": 12,
        }  # fmt: skip
        path = Path(place) / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        subprocess.run([sys.executable, "-m", "stamp", "--config", str(path), "crossval"], check=True)
        tables = [pd.read_csv(found, dtype={"PATIENT": str}) for found in Path(place).rglob("patient-preds.csv")]
    found = pd.concat(tables)
    auroc = roc_auc_score(found["label"] == "b", found["label_b"])
    print(f"STAMP {version('stamp')} on {export}: {len(found)} patients tested, AUROC {auroc:.3f}")


if __name__ == "__main__":
    train(Path(sys.argv[1]).absolute())
