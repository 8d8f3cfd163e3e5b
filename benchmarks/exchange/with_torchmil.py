"""torchmil's own data sets and trainer on our exports: `python with_torchmil.py TORCHMIL_EXPORT TRIDENT_EXPORT`.

Also run by tests/exchange, for fewer epochs.
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torchmil.data import collate_fn
from torchmil.datasets import ProcessedMILDataset, TridentWSIDataset
from torchmil.models import ABMIL
from torchmil.utils import Trainer


def train(export: Path, epochs: int = 15) -> tuple[int, int]:
    """Train ABMIL on `ProcessedMILDataset`, and count the training bags that it then classifies right.

    Returns right and all bags. Raises AssertionError unless bags are float32 with the labels of bags.csv, patches have
    neighbours as torchmil sees them (at most 8), and training changes weights and keeps them finite.
    """
    data = ProcessedMILDataset(
        str(export / "features"), str(export / "labels"), coords_path=str(export / "coords"),
        bag_keys=["X", "Y", "adj", "coords"], verbose=False,
    )  # fmt: skip
    codes = pd.read_csv(export / "bags.csv").set_index("slide_id")["code"]
    assert [int(bag["Y"].item()) for bag in data] == [codes[name] for name in data.get_bag_names()]
    assert {bag["X"].dtype for bag in data} == {torch.float32}
    neighbours = torch.cat([(bag["adj"].to_dense() > 0).sum(1) for bag in data])
    assert 1 <= int(neighbours.min()) <= int(neighbours.max()) <= 8
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, collate_fn=collate_fn)
    model = ABMIL(in_shape=data[0]["X"].shape[1:], criterion=torch.nn.BCEWithLogitsLoss())
    before = [weight.detach().clone() for weight in model.parameters()]
    trainer = Trainer(model, torch.optim.Adam(model.parameters(), lr=1e-2), verbose=False, device="cpu")
    trainer.train(max_epochs=epochs, train_dataloader=loader)
    assert all(bool(torch.isfinite(weight).all()) for weight in model.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    with torch.no_grad():
        scores = [float(model.predict(bag["X"][None])[0]) for bag in data]
    right = sum((score > 0) == bool(bag["Y"].item()) for score, bag in zip(scores, data, strict=True))
    print(
        f"torchmil {version('torchmil')} trained on {export}: {right} of {len(data)} bags right, X {data[0]['X'].dtype}"
    )
    print(f"    neighbours of a patch {int(neighbours.min())} to {int(neighbours.max())}")
    return right, len(data)


def read_trident(export: Path) -> TridentWSIDataset:
    """Read the TRIDENT layout with `TridentWSIDataset`; returns the data set."""
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
    return data


if __name__ == "__main__":
    train(Path(sys.argv[1]))
    read_trident(Path(sys.argv[2]))
