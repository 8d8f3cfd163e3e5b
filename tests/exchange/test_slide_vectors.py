"""TRIDENT's slide embeddings: imported where the folder's name says what they pool, then searched and trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.exchange import foreign_files as files
from wsi_pipeline.cli import main
from wsi_pipeline.exchange.readers.trident_slide_vectors import embedding_in
from wsi_pipeline.store.tables.feature_table import read_feature_table

N, DIM = 12, 6


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def vector(number: int) -> np.ndarray:
    return files.features_of(1, DIM, number)[0] + np.float32(4 * (number % 2))


def job(slide_encoder: str = "titan") -> str:
    for k in range(N):
        rows = 9 + k
        base = Path("job/20x_512px_0px_overlap")
        files.trident(base / f"slide_features_{slide_encoder}/s{k}.h5", vector(k), files.coords_of(rows), None)
        files.trident_coords(base / f"patches/s{k}_patches.h5", files.coords_of(rows))
    files.labels_csv(Path("labels.csv"), [(f"p{k}", f"s{k}.svs", "ab"[k % 2]) for k in range(N)])
    return "job"


def imported(*words: str) -> int:
    return main(["import", "features", *words, "--labels", "labels.csv"])


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("slide_features_titan", "conch_v15+titan"),
        ("slide_features_prism", "virchow+prism"),
        ("slide_features_mean-uni_v1", "uni_v1+mean"),
        ("slide_features_ours", ""),
        ("slide_features_mean-", ""),
        ("features_titan", ""),
    ],
)
def test_the_folder_names_both_encoders(folder: str, name: str) -> None:
    assert embedding_in(folder) == name


def test_embeddings_are_imported_searched_and_trained_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(job()) == 0
    said = capsys.readouterr().out
    assert "encoder conch_v15+titan (named by the folder), 6 features per slide" in said
    assert "train-mil --model linear --features conch_v15+titan" in said
    table = read_feature_table(Path("wsi-run/embed/conch_v15+titan/s3.h5"))
    np.testing.assert_array_equal(table.features, vector(3)[None])
    assert table.coords.tolist() == [[-1, -1]]
    assert table.header.extra["pooled"] == {"encoder": "conch_v15", "patches": 12}
    assert table.header.extra["imported"]["tool"] == "TRIDENT"
    assert main(["similar", "s3", "--bootstrap", "100", "--permutations", "20"]) == 0
    assert pd.read_csv("wsi-run/embed/conch_v15+titan/neighbours.csv")["slide_id"].nunique() == N
    quick = ("--model", "linear", "--folds", "2", "--bootstrap", "100", "--permutations", "20", "--allow-few")
    assert main(["train-mil", "--features", "conch_v15+titan", "--val-fraction", "0", *quick]) == 0
    found = pd.read_csv("wsi-run/train-mil/conch_v15+titan/linear/predictions.csv")
    assert ((found["p_b"] > 0.5) == (found["label"] == "b")).all()


def test_beside_patch_features_they_are_taken_only_by_name() -> None:
    where = job()
    for k in range(N):
        files.trident(Path(f"job/features_conch_v15/s{k}.h5"), files.features_of(9 + k), files.coords_of(9 + k), None)
    assert imported(where) == 0
    assert [path.name for path in Path("wsi-run/embed").iterdir()] == ["conch_v15"]
    assert imported(where, "--encoder", "conch_v15+titan") == 0
    assert len(read_feature_table(Path("wsi-run/embed/conch_v15+titan/s0.h5")).features) == 1


def test_an_unknown_slide_encoder_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert imported(job("ours")) == 2
    said = capsys.readouterr().err
    assert "is one vector of 6 values" in said
    assert "only from TRIDENT's folders, such as slide_features_titan" in said
