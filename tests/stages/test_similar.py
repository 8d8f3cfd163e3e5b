"""`similar`: neighbours of slides, listed and scored, in files beside the embeddings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.stages.feature_runs import cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    made = RunDir(tmp_path_factory.mktemp("similar") / "run")
    cohort(made, "a", 8, slides=(1, 2), label=["n", "t"] * 4, site=["x", "y"] * 4)
    assert main(["embed-slides", "--run", str(made.root)]) == 0
    return made


def similar(run: RunDir, *words: str) -> int:
    return main(["similar", *words, "--run", str(run.root)])


def test_neighbours_of_one_slide(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert similar(run, "a1-0", "--neighbours", "3", "--bootstrap", "100") == 0
    told = capsys.readouterr().out
    assert "a1-0 (t, y): nearest slides" in told
    folder = run.embeddings_csv("colour+mean").parent
    table = pd.read_csv(folder / "neighbours.csv", dtype={"rank": "Int64"})
    assert table["slide_id"].nunique() == 12
    assert list(table) == [
        "slide_id", "rank", "neighbour", "similarity", "same_patient", "patient_id", "label", "site"
    ]  # fmt: skip
    own = table[table["slide_id"] == "a1-0"]
    assert list(own["rank"].dropna()) == [1, 2, 3]
    assert set(own["patient_id"][own["same_patient"] == "yes"]) <= {"a1"}
    embedded = pd.read_csv(run.embeddings_csv("colour+mean"))
    values = embedded.filter(regex=r"^e\d").to_numpy()
    values = (values - values.mean(0)) / values.std(0)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    here = embedded.index[embedded["slide_id"] == "a1-0"][0]
    likeness = dict(zip(embedded["slide_id"], values @ values[here], strict=True))
    np.testing.assert_allclose(own["similarity"], [likeness[name] for name in own["neighbour"]], atol=2e-6)
    score = json.loads((folder / "neighbours.json").read_text())
    assert (score["n_slides"], score["n_patients"], score["neighbours"]) == (12, 8, 3)
    assert "a1-0" in told.split("3 neighbours")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a1-9"], "no slide a1-9 in this run"),
        (["--features", "colour"], "no slide embeddings colour in this run"),
        (["--neighbours", "0"], "--neighbours must be between 1 and 1000"),
    ],
)
def test_refusals(run: RunDir, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert similar(run, *words) == 2
    assert said in capsys.readouterr().err


def test_without_labels_there_is_a_list_and_no_score(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tmp_path / "run")
    cohort(run, "a", 3)
    main(["embed-slides", "--run", str(run.root)])
    assert similar(run, "a0-0") == 0
    told = "".join(capsys.readouterr())
    assert "neighbours are not scored: no slide has a label" in told
    assert not (run.embeddings_csv("colour+mean").parent / "neighbours.json").exists()


def test_without_embeddings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDir(tmp_path / "run")
    cohort(run, "a", 3)
    assert similar(run) == 2
    assert "no slide embeddings in this run" in capsys.readouterr().err
