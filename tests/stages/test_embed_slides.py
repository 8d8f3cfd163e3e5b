"""`embed-slides`: one vector per slide from stored patch features, done again only where it must be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from safetensors.torch import save_file
from scipy.special import softmax

from tests.encoders.test_slide_zoo import feather_file, feather_reference
from tests.exchange import foreign_files as files
from tests.stages.feature_runs import GEOMETRY, QUICK, cohort, slide, trained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.mil.trained.inference import attention
from wsi_pipeline.stages.inputs.slide_bags import gather
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.schema import FEATURE_FORMAT, Header
from wsi_pipeline.store.tables.feature_table import read_feature_table, write_features

LABELS = {"label": ["n", "t"] * 4, "site": ["x", "y"] * 4}


def embed(run: RunDir, *words: str) -> int:
    return main(["embed-slides", "--run", str(run.root), *words])


def rows_of(run: RunDir, name: str, slide_id: str) -> Any:
    return read_feature_table(run.feature_store(name, slide_id))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    cohort(made, "a", 8, **LABELS)
    return made


def test_mean_of_the_patches_and_the_table(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(run) == 0
    assert "next: wsi-pipeline train-mil --model linear --features colour+mean" in capsys.readouterr().out
    table = pd.read_csv(run.embeddings_csv("colour+mean"))
    assert list(table) == ["slide_id", "patient_id", "label", "site", "e0", "e1", "e2", "e3"]
    assert list(table["label"]) == LABELS["label"]
    for k in range(8):
        features = rows_of(run, "colour", f"a{k}-0").features
        found = rows_of(run, "colour+mean", f"a{k}-0")
        np.testing.assert_allclose(found.features[0], features.astype(np.float64).mean(0), rtol=1e-6)
        np.testing.assert_allclose(table.loc[k, ["e0", "e1", "e2", "e3"]].astype(float), found.features[0], rtol=1e-6)
        assert found.coords.tolist() == [[-1, -1]]


def test_only_what_changed_is_done_again(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    embed(run)
    before = {path.name: path.stat().st_mtime_ns for path in (run.root / "embed/colour+mean").glob("*.h5")}
    slide(run, "a3-0", 9.0, 77)
    with open_store(run.feature_store("colour", "a3-0")) as store:
        header = Header.parse(store.attrs, FEATURE_FORMAT, "x")
    table = read_feature_table(run.feature_store("colour", "a3-0"))
    write_features(
        run.feature_store("colour", "a3-0"), replace(header, digest="new"), GEOMETRY, table.coords, table.features
    )
    with pytest.raises(Exception, match="older than the slide's features of colour"):
        gather(run, cohort_records(run), "colour+mean")
    capsys.readouterr()
    assert embed(run) == 0
    assert "7 up to date" in capsys.readouterr().out
    after = {path.name: path.stat().st_mtime_ns for path in (run.root / "embed/colour+mean").glob("*.h5")}
    assert {name for name in before if before[name] != after[name]} == {"a3-0.h5"}
    np.testing.assert_allclose(rows_of(run, "colour+mean", "a3-0").features[0], table.features.mean(0), rtol=1e-6)


def cohort_records(run: RunDir) -> Any:
    from wsi_pipeline.cohort.manifest import read_cohort

    return read_cohort([str(run.cohort_csv)], mixed_labels=True).records


def test_a_failed_slide_is_named_and_the_others_go_on(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with h5py.File(run.feature_store("colour", "a2-0"), "r+") as file:
        file["features"][3, 1] = 5.0  # no longer what its checksum says
    empty = read_feature_table(run.feature_store("colour", "a5-0"))
    write_features(run.feature_store("colour", "a5-0"), empty.header, GEOMETRY, empty.coords[:0], empty.features[:0])
    run.feature_store("colour", "a6-0").unlink()
    assert embed(run) == 3
    told = capsys.readouterr()
    assert "a2-0" in told.out
    assert "1 slide without features of colour, not embedded: a6-0" in told.err + told.out
    status = json.loads(run.status("a2-0").read_text())
    assert status["stages"]["embed-slides/colour+mean"]["state"] == "failed"
    assert json.loads(run.status("a5-0").read_text())["state"] == "empty"
    assert rows_of(run, "colour+mean", "a5-0").features.shape == (0, 4)
    table = pd.read_csv(run.embeddings_csv("colour+mean"))
    assert list(table["slide_id"]) == ["a0-0", "a1-0", "a3-0", "a4-0", "a7-0"]


@pytest.mark.parametrize("bag", ["slide", "patient"])
def test_attention_is_that_of_models_that_never_saw_the_patient(tmp_path: Path, bag: str) -> None:
    run = RunDir(tmp_path / "run")
    records = cohort(run, "a", 8, slides=(1, 2), **LABELS)
    spec = replace(QUICK, model="gated-abmil", attention_dim=4, bag=bag, learning_rate=0.05, repeats=2)
    training = trained(run, records, spec)
    new = slide_of_a_new_patient(run, records)
    assert embed(run, "--trained", str(training.folder)) == 0
    name, ensemble = f"colour+trained.{training.folder.name}", load_ensemble(training.folder)
    folds, listed = pd.read_csv(training.folder / "folds.csv"), training.metrics["folds"]
    for record in (*records, new):
        unseen = [
            model
            for model, fold in zip(ensemble.models, listed, strict=True)
            if record.patient_id
            not in set(
                folds.query(f"repeat == {fold['repeat']} and fold == {fold['fold']} and part != 'test'")["patient_id"]
            )
        ]
        assert len(unseen) == (4 if record is new else 2)
        features = rows_of(run, "colour", record.slide_id).features
        bags = Bags.from_arrays([features], ["x"])
        weights = np.mean([attention(model, bags) for model in unseen], axis=0, dtype=np.float64)
        assert record is new or np.ptp(weights) > 1e-3
        found = rows_of(run, name, record.slide_id)
        np.testing.assert_allclose(found.features[0], weights @ features.astype(np.float64), rtol=1e-5, atol=1e-6)
        assert bool(found.header.extra.get("tuned_on")) == (record is not new)


def slide_of_a_new_patient(run: RunDir, records: Any) -> Any:
    new = replace(records[0], slide_id="new", patient_id="new")
    slide(run, "new", 0.5, 4711)
    pd.DataFrame([vars(record) for record in (*records, new)]).to_csv(run.cohort_csv, index=False)
    return new


def test_training_slides_of_a_fixed_split_have_no_model_of_their_own(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    records = cohort(run, "a", 8, **LABELS, split=["train"] * 4 + ["test"] * 4)
    training = trained(run, records)
    assert embed(run, "--trained", str(training.folder)) == 3
    table = pd.read_csv(run.embeddings_csv("colour+trained.mean"))
    assert list(table["slide_id"]) == ["a4-0", "a5-0", "a6-0", "a7-0"]
    status = json.loads(run.status("a0-0").read_text())
    assert status["reason"] == "every model of this training has seen the slide's patient"


def test_training_on_embeddings_warns_where_labels_are_in_them(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    training = trained(run, cohort_records(run))
    embed(run, "--trained", str(training.folder))
    embed(run)
    quick = ["--folds", "2", "--epochs", "3", "--allow-few", "--bootstrap", "100", "--permutations", "0"]
    for name in ("colour+mean", "colour+trained.mean"):
        assert main(["train-mil", "--features", name, "--model", "mean", "--run", str(run.root), *quick]) == 0
    told = capsys.readouterr()
    assert "no heatmap: colour+mean has one vector per slide" in told.out + told.err
    for name, tuned in (("colour+mean", False), ("colour+trained.mean", True)):
        metrics = json.loads((run.mil(name, "mean") / "metrics.json").read_text())
        assert any("tuned on labels of patients of 8 of these 8" in text for text in metrics["warnings"]) == tuned


def test_a_linear_model_predicts_embeddings_and_asks_for_them(
    run: RunDir, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embed(run)
    quick = ["--folds", "2", "--allow-few", "--bootstrap", "100", "--permutations", "0", "--model", "linear"]
    assert main(["train-mil", "--features", "colour+mean", "--run", str(run.root), *quick]) == 0
    model, other = str(run.mil("colour+mean", "linear")), RunDir(tmp_path / "other")
    cohort(other, "b", 4, seed=1)
    assert main(["predict", "--trained", model, "--run", str(other.root)]) == 2
    assert "Run first: wsi-pipeline embed-slides" in capsys.readouterr().err
    assert embed(other) == 0
    assert main(["predict", "--trained", model, "--run", str(other.root)]) == 0
    table = pd.read_csv(other.predict("colour+mean", "linear") / "predictions.csv")
    rows = np.stack([rows_of(other, "colour+mean", f"b{k}-0").features[0] for k in range(4)])
    each = []
    for one in load_ensemble(model).models:
        state = {name: value.numpy() for name, value in one.state_dict().items()}
        scaled = (rows - state["feature_mean"]) / state["feature_std"]
        each.append(softmax(scaled @ state["network.head.weight"].T + state["network.head.bias"], axis=1))
    np.testing.assert_allclose(table[["p_n", "p_t"]], np.mean(each, axis=0), atol=1e-5)
    assert main(["predict", "slides.csv", "--trained", model, "--run", str(other.root)]) == 2
    assert "the model takes slide embeddings (colour+mean)" in capsys.readouterr().err


def test_plain_train_mil_takes_patch_features_only(run: RunDir) -> None:
    embed(run)
    quick = ["--folds", "2", "--epochs", "2", "--allow-few", "--bootstrap", "100", "--permutations", "0"]
    assert main(["train-mil", "--model", "mean", "--run", str(run.root), *quick]) == 0
    assert {path.name for path in (run.root / "train-mil").iterdir()} == {"colour"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--model", "care"], "CARE is not built here: its network"),
        (["--model", "feather"], "takes features of conch-v1.5; those here are of colour"),
        (["--features", "uni"], "no features of uni in this run"),
        (["--model", "feather", "--trained", "x"], "--model and trained exclude each other"),
        (["--trained", "nowhere"], "no trained model in nowhere"),
        (["--weights", "w"], "the mean of patch features has no weights"),
    ],
)
def test_refused_in_one_sentence(run: RunDir, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(run, *words) == 2
    assert said in capsys.readouterr().err
    assert [path.name for path in (run.root / "embed").iterdir()] == ["colour"]


def test_published_encoder_on_imported_features(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job, run = tmp_path / "job/20x_512px_0px_overlap", RunDir(tmp_path / "run")
    attrs = {"patch_size": 512, "patch_size_level0": 512, "target_magnification": 20}
    rows = {name: files.features_of(9, 768, seed) for seed, name in enumerate(("s0", "s1"))}
    for name, features in rows.items():
        files.trident(
            job / f"features_conch_v15/{name}.h5", features[None], files.coords_of(9)[None], "conch_v15", **attrs
        )
    labels = files.labels_csv(tmp_path / "labels.csv", [("p0", "s0", "a"), ("p1", "s1", "b")])
    words = ["--labels", str(labels), "--run", str(run.root)]
    assert main(["import", "features", str(tmp_path / "job"), *words]) == 0
    tensors = feather_file(768)
    save_file(tensors, tmp_path / "w.safetensors")
    assert embed(run, "--model", "feather", "--weights", str(tmp_path / "w.safetensors")) == 0
    state = {key: value.double().numpy() for key, value in tensors.items()}
    for name, features in rows.items():
        found = rows_of(run, "conch_v15+feather", name)
        assert found.header.extra["encoder"]["fingerprint"] == ""
        np.testing.assert_allclose(
            found.features[0], feather_reference(state, features.astype(np.float64)), rtol=1e-3, atol=1e-3
        )
    other = feather_file(768)
    other["model.patch_embed.0.bias"] += 1
    save_file(other, tmp_path / "other.safetensors")
    assert embed(run, "--model", "feather", "--weights", str(tmp_path / "other.safetensors"), "--only", "s1") == 0
    assert "embeddings.csv is not written: slides s0 and s1" in "".join(capsys.readouterr())
    with pytest.raises(Exception, match="s0 and s1 were embedded by different slide encoders"):
        gather(run, cohort_records(run), "conch_v15+feather")
