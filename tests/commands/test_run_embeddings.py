"""Slide embeddings as a step of `run cohort.yaml`: after embed, before train-mil, which may name them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.store.tables.feature_table import read_feature_table

START = "slides: slides.csv\ntile: {patch_px: 128, workers: 0}\nembed: {model: colour}\n"


def yaml_of(folder: Path, text: str) -> Path:
    path = folder / "cohort.yaml"
    path.write_text(START + text)
    return path


def test_run_pools_slides_and_trains_on_the_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_cohort(tmp_path, per_class=3, broken=False)
    train = "train-mil: {model: linear, features: colour+mean, folds: 2, bootstrap: 100, permutations: 0}\n"
    path = yaml_of(tmp_path, "embed-slides: [{model: mean}]\n" + train)
    assert main(["run", str(path)]) == 0
    said = capsys.readouterr().out
    assert said.index("-- embed\n") < said.index("-- embed-slides") < said.index("-- train-mil")
    run = RunDir(tmp_path / "wsi-run")
    table = pd.read_csv(run.embeddings_csv("colour+mean"))
    assert len(table) == 6
    for slide, first in zip(table["slide_id"], table["e0"], strict=True):
        patches = read_feature_table(run.feature_store("colour", slide)).features
        np.testing.assert_allclose(first, patches[:, 0].astype(np.float64).mean(), rtol=1e-6)
    metrics = json.loads((run.mil("colour+mean", "linear") / "metrics.json").read_text())
    assert metrics["n_patients"] == 6
    assert not run.mil("colour", "linear").exists()
    assert main(["run", str(path)]) == 0
    assert "6 up to date" in capsys.readouterr().out.split("-- embed-slides")[1].split("-- train-mil")[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("embed-slides: {modle: mean}\n", "embed-slides: unknown key modle"),
        ("embed-slides: {model: meen}\n", "no slide encoder is called 'meen'"),
        ("embed-slides: {model: care}\n", "is not built here"),
        ("embed-slides: [{model: mean}, {}]\n", "embed-slides: mean is given twice"),
        ("embed-slides:\ntrain-mil: {features_from: x}\n", "`embed-slides` comes before train-mil"),
    ],
)
def test_faults_are_found_before_the_first_slide(
    tmp_path: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    assert main(["run", str(yaml_of(tmp_path, text))]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "wsi-run").exists()
