"""A model whose slides were tiled with networks: `predict` takes the same weights, refuses others, and tells when the
features it is given were made from tissue that was found otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.slide_files import write_pyramid_tiff
from tests.tissue import tissue_scenes
from tests.tissue_networks.network_files import fill, save, train_stand_in
from wsi_pipeline.cli import main
from wsi_pipeline.store.tables.segment_table import read_segment_table
from wsi_pipeline.tissue_networks.open_network import build
from wsi_pipeline.tissue_networks.published import GRANDQC, HEST, artefact_network

PEN = (20, 120, 60)
QUICK = ["--folds", "2", "--allow-few", "--model", "mean", "--epochs", "1", "--permutations", "0", "--bootstrap", "100"]
GRID = ["--patch-px", "32", "--workers", "0", "--quiet"]


def scene(seed: int, side: int = 512) -> tissue_scenes.Scene:
    return tissue_scenes.stained("H&E", tissue_scenes.blob(seed, side, side), seed=seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of three stand-ins, four labelled slides with a stroke of pen at 1 mpp, the same at 10 mpp."""
    folder = tmp_path_factory.mktemp("networks")
    taught = scene(1)
    train_stand_in(GRANDQC, taught.rgb, (~taught.tissue).astype(np.uint8), folder / "grandqc.onnx")
    train_stand_in(HEST, taught.rgb, taught.tissue.astype(np.uint8), folder / "hest.onnx")
    marked, classes = taught.rgb.copy(), np.where(taught.tissue, 1, 7).astype(np.uint8)
    marked[230:280, 100:400], classes[230:280, 100:400] = PEN, 4
    train_stand_in(artefact_network(2.0), marked, classes, folder / "artefacts.onnx")
    for name, mpp in (("fine", 1.0), ("coarse", 10.0)):
        rows = ["slide_id,path,patient_id,label"]
        for number in range(4):
            rgb = scene(20 + number).rgb.copy()
            rgb[230:280, 100:400] = PEN
            write_pyramid_tiff(folder / f"{name}{number}.svs", rgb, mpp=mpp, compression="none")
            rows.append(f"s{number},{name}{number}.svs,p{number},{'ab'[number % 2]}")
        (folder / f"{name}.csv").write_text("\n".join(rows) + "\n")
    return folder


def embedded(folder: Path, slides: str, run: Path, words: list[str]) -> None:
    """Tile and embed the four slides into a run."""
    assert main(["tile", str(folder / f"{slides}.csv"), "--run", str(run), *words, *GRID]) == 0
    assert main(["embed", "--run", str(run), "--quiet"]) == 0


def networks(folder: Path) -> list[str]:
    """HEST for tissue and GrandQC for artefacts, on the fine slides."""
    found = ["--method", "hest", "--weights", str(folder / "hest.onnx"), "--mask-mpp", "4", "--mpp", "2"]
    return [*found, "--artefact-weights", str(folder / "artefacts.onnx"), "--artefact-mpp", "2"]


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """A model on the tissue of both networks."""
    embedded(folder, "fine", folder / "run", networks(folder))
    assert main(["train-mil", "--run", str(folder / "run"), *QUICK, "--quiet"]) == 0
    return folder / "run/train-mil/colour/mean"


def test_the_same_weights_tile_new_slides_as_those_of_the_training(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["predict", str(folder / "fine.csv"), "--trained", str(model), "--run", str(tmp_path / "new")]
    words += ["--tissue-weights", str(folder / "hest.onnx"), "--artefact-weights", str(folder / "artefacts.onnx")]
    assert main([*words, "--workers", "0"]) == 0
    mine, its = (read_segment_table(run / "segment/s0.h5") for run in (tmp_path / "new", folder / "run"))
    assert mine.header.specs["networks"] == its.header.specs["networks"]
    assert mine.header.digest == its.header.digest
    assert "otherwise than for the training" not in "".join(capsys.readouterr())
    old, new = (run / "predict/colour/mean/predictions.csv" for run in (folder / "run", tmp_path / "new"))
    assert main(["predict", "--run", str(folder / "run"), "--quiet"]) == 0
    assert old.read_text() == new.read_text(), "copied weights at another place give the same predictions"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "tissue of HEST's tissue network (weights"),
        ({"--tissue-weights": "hest.onnx"}, "GrandQC's artefact network for 2 mpp (weights"),
        ({"--tissue-weights": "other.safetensors", "--artefact-weights": "artefacts.onnx"}, "has other weights ("),
        ({"--tissue-weights": "nowhere.onnx", "--artefact-weights": "artefacts.onnx"}, "does not exist"),
    ],
)
def test_missing_and_other_weights_are_refused_by_name_before_a_slide_is_tiled(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: dict[str, str], said: str
) -> None:
    if not (folder / "other.safetensors").exists():
        save(fill(build(HEST)), folder / "other.safetensors")
    words = [part for option, file in given.items() for part in (option, str(folder / file))]
    run = tmp_path / "new"
    assert main(["predict", str(folder / "fine.csv"), "--trained", str(model), "--run", str(run), *words]) == 2
    assert said in capsys.readouterr().err
    assert not list(run.glob("segment/*"))


def test_weights_of_a_network_that_the_training_did_not_use_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tissue = ["--method", "grandqc", "--weights", str(folder / "grandqc.onnx"), "--mask-mpp", "20", "--mpp", "10"]
    embedded(folder, "coarse", tmp_path / "run", tissue)
    assert main(["train-mil", "--run", str(tmp_path / "run"), *QUICK, "--quiet"]) == 0
    words = ["predict", str(folder / "coarse.csv"), "--trained", str(tmp_path / "run/train-mil/colour/mean")]
    words += ["--run", str(tmp_path / "new"), "--tissue-weights", str(folder / "grandqc.onnx"), "--workers", "0"]
    assert main([*words, "--artefact-weights", str(folder / "artefacts.onnx")]) == 2
    assert "sought no artefacts with a network, but --artefact-weights" in capsys.readouterr().err
    assert main(words) == 0
    assert len((tmp_path / "new/predict/colour/mean/predictions.csv").read_text().splitlines()) == 1 + 4


def test_stored_features_of_tissue_found_otherwise_are_predicted_with_a_warning_that_names_both(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embedded(folder, "fine", tmp_path, ["--method", "otsu", "--mask-mpp", "4", "--mpp", "2", "--overlap-px", "8"])
    capsys.readouterr()
    assert main(["predict", "--trained", str(model), "--run", str(tmp_path)]) == 0
    (told,) = [
        text
        for text in json.loads((tmp_path / "predict/colour/mean/metrics.json").read_text())["warnings"]
        if "otherwise than for the training" in text
    ]
    assert "method otsu, not hest" in told
    assert "network for tissue: none, not HEST's tissue network (weights" in told
    assert "network for artefacts: none, not GrandQC's artefact network for 2 mpp (weights" in told
    assert "overlap_px 8, not 0" in told
    assert "mask_mpp" not in told
    assert "otherwise than for the training" in " ".join("".join(capsys.readouterr()).split())


def test_without_labels_the_warning_is_printed_too(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line.rpartition(",")[0] for line in (folder / "fine.csv").read_text().splitlines()]
    (folder / "unlabelled.csv").write_text("\n".join(lines) + "\n")
    embedded(folder, "unlabelled", tmp_path, ["--method", "otsu", "--mask-mpp", "4", "--mpp", "2"])
    capsys.readouterr()
    assert main(["predict", "--trained", str(model), "--run", str(tmp_path)]) == 0
    assert "method otsu, not hest" in " ".join("".join(capsys.readouterr()).split())
    assert not (tmp_path / "predict/colour/mean/metrics.json").exists()
