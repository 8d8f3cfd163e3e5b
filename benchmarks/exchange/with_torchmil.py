"""torchmil's own data sets and trainer on our exports: `python with_torchmil.py TORCHMIL_EXPORT TRIDENT_EXPORT`."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torchmil.data import collate_fn
from torchmil.datasets import ProcessedMILDataset, TridentWSIDataset
from torchmil.models import ABMIL
from torchmil.utils import Trainer


def train(export: Path) -> None:
    """Train ABMIL on `ProcessedMILDataset`; prints loss at both ends, and how many neighbours patches have."""
    data = ProcessedMILDataset(
        str(export / "features"), str(export / "labels"), coords_path=str(export / "coords"),
        bag_keys=["X", "Y", "adj", "coords"], verbose=False,
    )  # fmt: skip
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, collate_fn=collate_fn)
    model = ABMIL(in_shape=data[0]["X"].shape[1:], criterion=torch.nn.BCEWithLogitsLoss())
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-2), verbose=False, device="cpu")
    trainer.train(max_epochs=15, train_dataloader=loader)
    right = 0
    with torch.no_grad():
        for bag in data:
            right += int((model.predict(bag["X"][None].float())[0] > 0).item() == bool(bag["Y"].item()))
    neighbours = (data[0]["adj"].to_dense() > 0).sum(1)
    print(
        f"torchmil {version('torchmil')} trained on {export}: {right} of {len(data)} bags right, X {data[0]['X'].dtype}"
    )
    print(f"    neighbours of a patch {int(neighbours.min())} to {int(neighbours.max())}")


def read_trident(export: Path) -> None:
    """Read the TRIDENT layout with `TridentWSIDataset`."""
    base = next(path for path in export.iterdir() if path.name.endswith("overlap"))
    data = TridentWSIDataset(
        f"{base}/", str(export / "slides.csv"), "colour", bag_keys=["X", "Y", "adj", "coords"], patch_size=48,
        wsi_name_col="slide_id", wsi_label_col="code", load_at_init=False,
    )  # fmt: skip
    bag = data[0]
    assert bag["X"].dtype == torch.float32
    assert len(np.unique(bag["coords"].numpy(), axis=0)) == len(bag["coords"])
    print(
        f"torchmil's TridentWSIDataset on {export}: {len(data)} bags, X {tuple(bag['X'].shape)}, Y {bag['Y'].tolist()}"
    )


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    read_trident(Path(sys.argv[2]))
