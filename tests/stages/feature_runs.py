"""Runs that have features and no slides: what training, prediction and comparison read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from wsi_pipeline.cohort.manifest import SlideRecord
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.stages.inputs.slide_bags import gather
from wsi_pipeline.stages.results.trainings import Training
from wsi_pipeline.stages.train_mil import train
from wsi_pipeline.store.schema import FEATURE_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import write_features
from wsi_pipeline.tiling.resolve import PatchGeometry

GEOMETRY = PatchGeometry(64, 64, 64, 0, 64, 0.5, False)
ENCODER = {"name": "colour", "fingerprint": "f", "dim": 4}
SPECS: dict[str, dict[str, Any]] = {
    "segment": {},
    "tile": {"patch_px": 64, "mpp": 0.5, "overlap_px": 0},
    "embed": {"model": "colour"},
}
QUICK = MilSpec(
    model="mean", hidden_dim=8, epochs=25, folds=2, allow_few=True, bootstrap=100, permutations=20, batch_bags=4
)


def slide(run: RunDir, slide_id: str, signal: float, seed: int) -> None:
    """Features of one slide; the first value tells the signal, with noise."""
    features = np.random.default_rng(seed).normal(size=(6, 4)).astype(np.float32)
    features[:, 0] += signal
    identity = SlideIdentity(slide_id, slide_id, 640, 640, "v", "openslide", 20.0, 0.5, 0.5, "slide", f"f {slide_id}")
    header = Header(FEATURE_FORMAT, f"digest of {slide_id}", "p", identity, SPECS, {"encoder": ENCODER})
    path = run.feature_store("colour", slide_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    coords = np.stack([np.arange(6) * 64, np.zeros(6)], axis=1).astype(np.int64)
    write_features(path, header, GEOMETRY, coords, features)


def cohort(
    run: RunDir, name: str, patients: int, *, slides: Sequence[int] = (1,), seed: int = 0, **columns: Any
) -> tuple[SlideRecord, ...]:
    """Patients `<name>0`, ... with `slides` slides by turns; outcomes by number of the patient from `columns`.

    Every second patient has the signal. Written to cohort.csv, too.
    """
    records = []
    for i in range(patients):
        for k in range(slides[i % len(slides)]):
            slide_id = f"{name}{i}-{k}"
            slide(run, slide_id, 1.5 * (i % 2), 1000 * seed + 10 * i + k)
            given = {column: values[i] for column, values in columns.items()}
            records.append(SlideRecord(slide_id, Path(f"{slide_id}.svs"), f"{name}{i}", **given))
    table = pd.DataFrame([vars(record) for record in records])
    run.root.mkdir(parents=True, exist_ok=True)
    table.to_csv(run.cohort_csv, index=False)
    return tuple(records)


def trained(run: RunDir, records: Sequence[SlideRecord], spec: MilSpec = QUICK, **more: Any) -> Training:
    """A training on these slides."""
    return train(run, "colour", gather(run, records, "colour").for_training(spec), spec, device="cpu", **more)
