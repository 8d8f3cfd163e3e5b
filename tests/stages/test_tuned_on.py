"""A slide-level model on features that were tuned on the same patients says so."""

from __future__ import annotations

import json
from pathlib import Path

from tests.adapter_files import write_adapter, write_backbone
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main


def test_training_warns_of_patients_whose_labels_the_encoder_has_seen(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    slides = write_cohort(tmp_path, broken=False)
    assert main(["tile", str(slides), "--run", run, "--workers", "0", "--patch-px", "128"]) == 0
    weights = write_backbone(tmp_path / "vit.safetensors")
    warnings = {}
    for groups in (("p1", "s2", "somebody else"), ("somebody else",)):
        adapter = write_adapter(tmp_path / "a.safetensors", weights, groups=groups, seed=len(groups))
        assert b"somebody" not in adapter.read_bytes()
        assert main(["embed", "--model", "pathotune", "--adapter", str(adapter), "--run", run]) == 0
        assert main(["train-mil", "--folds", "2", "--epochs", "2", "--run", run]) == 0
        metrics = Path(run) / "train-mil" / "pathotune" / "gated-abmil" / "metrics.json"
        warnings[groups] = " ".join(json.loads(metrics.read_text())["warnings"])
    told, silent = warnings.values()
    assert "tuned on labels of patients of 2 of these 4 slides (s1, s2)" in told
    assert "tuned on labels" not in silent
    assert "tuned on labels" not in (Path(run) / "report" / "report.html").read_text()
