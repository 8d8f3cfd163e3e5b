"""classify --prompts on small slides: the files of classify, up to date when it is repeated."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml

from tests.clip_files import PROMPTS, write_clip
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.store.tables.class_table import read_class_table


def test_prompts_classify_patches(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path, per_class=1)
    model, file, run = write_clip(tmp_path / "clip"), tmp_path / "prompts.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(PROMPTS, sort_keys=False))
    assert main(["tile", str(tmp_path / "slides.csv"), "--run", str(run), "--workers", "0", "--patch-px", "128"]) == 3
    words = ["classify", "--run", str(run), "--model", str(model), "--precision", "fp32"]
    capsys.readouterr()
    assert main([*words, "--prompts", str(file)]) == 3
    assert "sentences per class: tumour 4, normal 2" in capsys.readouterr().out
    folder = next((run / "classify").iterdir())
    stores = [store for store in sorted(folder.glob("*.h5")) if len(read_class_table(store).probabilities)]
    table = read_class_table(stores[0])
    assert table.probabilities.shape[1] == 2
    assert table.header.extra["prompts"]["classes"]["normal"] == ["normal mucosa"]
    assert {"fraction_tumour", "fraction_normal"} <= set(pd.read_csv(folder / "fractions.csv").columns)
    assert json.loads((folder / f"{stores[0].stem}.geojson").read_text())["features"]
    before = stores[0].stat().st_mtime_ns
    assert main([*words, "--prompts", str(file)]) == 3
    assert stores[0].stat().st_mtime_ns == before
    capsys.readouterr()
    assert main(words) == 2
    assert "or --prompts FILE with an image-text model" in capsys.readouterr().err
    assert main(["classify", "--run", str(run), "--prompts", str(file)]) == 2
    assert "--prompts is for image-text models" in capsys.readouterr().err
