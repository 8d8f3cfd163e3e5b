"""CLAM's own training on our export: `python with_clam.py EXPORT CLAM_CHECKOUT`, where CLAM's packages are installed.

Puts task.py into a copy of main.py, as the export says, trains CLAM-SB on two folds, prints the test AUC.
Needs torch, pandas < 3 (CLAM writes numbers into a column of text), scikit-learn, h5py, tensorboardX.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

BEFORE = "else:\n    raise NotImplementedError\n    \nif not os.path.isdir(args.results_dir)"


def train(export: Path, clam: Path) -> None:
    """Train on two folds; prints what CLAM measured."""
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place) / "CLAM"
        shutil.copytree(clam, copy)
        main, task = copy / "main.py", (export / "task.py").read_text()
        text = main.read_text()
        assert BEFORE in text
        text = text.replace(BEFORE, task + BEFORE).replace(
            "'task_2_tumor_subtyping']", "'task_2_tumor_subtyping', 'wsi_pipeline']"
        )
        main.write_text(text)
        shutil.copytree(export / "splits", copy / "splits" / "wsi", dirs_exist_ok=True)
        width = torch.load(export / "features" / "pt_files" / "s0.pt").shape[1]
        words = f"--task wsi_pipeline --split_dir wsi --k 5 --k_end 2 --embed_dim {width} --exp_code wsi"
        words += " --max_epochs 10 --lr 1e-3 --model_type clam_sb --B 4 --inst_loss ce"
        subprocess.run([sys.executable, "main.py", *words.split()], cwd=copy, check=True, stdout=subprocess.DEVNULL)
        result = pd.read_csv(copy / "results" / "wsi_s1" / "summary_partial_0_2.csv")
        print(f"CLAM trained on {export}: test AUC by fold {result['test_auc'].round(3).tolist()}")


if __name__ == "__main__":
    train(Path(sys.argv[1]).absolute(), Path(sys.argv[2]).absolute())
