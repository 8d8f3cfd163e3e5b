"""Heatmaps of real small files through the command: values, places, freshness, a slide that is gone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import openslide
import pandas as pd
import pytest
from PIL import Image
from shapely.geometry import shape

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import SlideRecord, read_cohort
from wsi_pipeline.commands import heatmap as heatmap_command
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.mil.trained.inference import attention
from wsi_pipeline.slides.open import open_slide
from wsi_pipeline.slides.thumbnail import read_whole
from wsi_pipeline.stages.engine import open_once
from wsi_pipeline.stages.outputs.explanation import models_for_slide
from wsi_pipeline.stages.results.trainings import model_numbers, read_training
from wsi_pipeline.store.tables.feature_table import read_feature_table

PATCH = 128


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder, broken=False)
    run = str(folder / "run")
    assert main(["tile", str(folder / "slides.csv"), "--run", run, "--workers", "0", "--patch-px", str(PATCH)]) == 0
    assert main(["embed", "--model", "colour", "--run", run]) == 0
    assert main(["train-mil", "--folds", "2", "--epochs", "3", "--run", run]) == 0
    assert main(["heatmap", "--pyramid-mpp", "2", "--overlay-mpp", "2", "--run", run]) == 0
    return folder


def files(folder: Path) -> Path:
    return folder / "run" / "heatmap" / "colour" / "gated-abmil"


def test_a_model_without_attention_is_said_to_show_none(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(made, tmp_path / "copy")
    run = ["--run", str(tmp_path / "copy" / "run")]
    assert main(["train-mil", "--model", "mean", "--folds", "2", "--epochs", "1", *run]) == 0
    said = capsys.readouterr().out
    assert said.count("counts all patches of a slide the same") == 1
    assert "mean counts all" in said


DRAWN = ["--pyramid-mpp", "2", "--overlay-mpp", "2"]

_HEAVY = """
import sys
from wsi_pipeline.cli import main
assert main({words!r}) == 0
print("IMPORTED", *sorted({{"torch", "timm", "sklearn", "scipy.stats", "matplotlib", "zarr"}} & set(sys.modules)))
print("ARRAYS", *sorted({{"numpy", "pandas"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("words", [["embed", "--model", "colour"], ["heatmap", *DRAWN]], ids=["embed", "heatmap"])
def test_a_command_with_nothing_to_do_imports_no_network(made: Path, words: list[str]) -> None:
    """Each of these takes seconds to import."""
    before = {path: path.stat().st_mtime_ns for path in (made / "run").glob("[eh]*/**/s*.*")}
    code = _HEAVY.format(words=[*words, "--run", str(made / "run")])
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "IMPORTED\n" in out
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_status_needs_neither_numpy_nor_pandas(made: Path) -> None:
    code = _HEAVY.format(words=["status", "--run", str(made / "run")])
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "train-mil/colour/gated-abmil/  predicts label\n" in out
    assert out.endswith("IMPORTED\nARRAYS\n")


def test_workers_write_the_same_files(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    drawn = run / "heatmap" / "colour" / "gated-abmil"
    shutil.rmtree(drawn)
    monkeypatch.setattr(heatmap_command, "WORTH_WORKERS", 1)
    monkeypatch.setattr(heatmap_command, "usable_cores", lambda: 2)
    assert main(["heatmap", *DRAWN, "--run", str(run)]) == 0
    assert sorted(path.name for path in drawn.iterdir()) == sorted(path.name for path in files(made).iterdir())
    for path in files(made).iterdir():
        assert (drawn / path.name).read_bytes() == path.read_bytes(), path.name


def test_all_models_of_a_slide_are_drawn_from_one_reading(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same files as when each is drawn alone; a model that cannot be loaded does not keep the next from drawing."""
    shutil.copytree(made / "run", tmp_path / "run")
    run, drawn = str(tmp_path / "run"), tmp_path / "run" / "heatmap" / "colour"
    assert main(["train-mil", "--model", "mean", "--folds", "2", "--epochs", "2", "--run", run]) == 0
    shutil.rmtree(drawn)
    opened, read = [], []
    monkeypatch.setattr(open_once, "open_slide", lambda path: opened.append(path) or open_slide(path))
    monkeypatch.setattr(open_once, "read_whole", lambda *given: read.append(given) or read_whole(*given))
    assert main(["heatmap", *DRAWN, "--run", run]) == 0
    slides = len(list(drawn.glob("mean/*.png")))
    assert slides > 1
    assert len(opened) == len(read) == slides
    for path in files(made).iterdir():
        assert (drawn / "gated-abmil" / path.name).read_bytes() == path.read_bytes(), path.name
    (tmp_path / "run" / "train-mil" / "colour" / "gated-abmil" / "fold1.safetensors").unlink()
    shutil.rmtree(drawn)
    assert main(["heatmap", *DRAWN, "--run", run]) != 0
    assert len(list(drawn.glob("mean/*.png"))) == slides
    assert not list(drawn.glob("gated-abmil/*.png"))


def test_weights_that_changed_are_noticed_though_they_need_not_be_loaded(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run", tmp_path / "run")
    run = str(tmp_path / "run")
    assert main(["heatmap", *DRAWN, "--run", run]) == 0
    fold = tmp_path / "run" / "train-mil" / "colour" / "gated-abmil" / "fold1.safetensors"
    content = bytearray(fold.read_bytes())
    content[-1] ^= 1
    fold.write_bytes(content)
    assert main(["heatmap", *DRAWN, "--run", run]) != 0
    assert "does not match its checksum in config.json" in (tmp_path / "run" / "status" / "s0.json").read_text()
    fold.unlink()
    assert main(["heatmap", *DRAWN, "--run", run]) != 0


def test_values_are_raw_and_row_for_row_with_the_features(made: Path) -> None:
    values = pd.read_csv(files(made) / "s0.csv")
    table = read_feature_table(made / "run" / "embed" / "colour" / "s0.h5")
    assert list(values) == ["x", "y", "attention", "percentile", "contribution_a", "contribution_b"]
    np.testing.assert_array_equal(values[["x", "y"]], table.coords)
    assert values["attention"].sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_array_equal(values["attention"].rank(), values["percentile"].rank())


def test_heat_lies_under_patches_and_nowhere_else(made: Path) -> None:
    """To the pixel of a patch corner: where there is no patch the picture is the slide."""
    coords = read_feature_table(made / "run" / "embed" / "colour" / "s0.h5").coords
    covered = np.zeros((256, 256), bool)
    for x, y in coords // 4:
        covered[y : y + PATCH // 4, x : x + PATCH // 4] = True
    assert covered.any()
    assert not covered.all()
    with open_slide(made / "s0.svs") as slide:
        plain = read_whole(slide, 0.5, 2.0).astype(int)
    picture = np.asarray(Image.open(files(made) / "s0.png"))[:256, :256].astype(int)
    np.testing.assert_array_equal(picture[~covered], plain[~covered])
    assert (np.abs(picture - plain).max(axis=2) > 20)[covered].mean() > 0.95
    with openslide.OpenSlide(str(files(made) / "s0.tif")) as tiff:
        assert float(tiff.properties["openslide.mpp-x"]) == pytest.approx(2.0, rel=1e-3)
        shown = np.asarray(tiff.read_region((0, 0), 0, tiff.dimensions).convert("RGB")).astype(int)
    assert np.abs(shown - picture).mean() < 6, "the TIFF is that picture, up to JPEG"
    assert np.abs(shown - plain)[covered].mean() > 3 * np.abs(shown - plain)[~covered].mean()


def test_outlines_hold_the_strongest_patches(made: Path) -> None:
    values = pd.read_csv(files(made) / "s1.csv")
    strongest = values.loc[values["attention"].idxmax()]
    features = json.loads((files(made) / "s1.geojson").read_text())["features"]
    top = [f for f in features if "strongest" in f["properties"]["classification"]["name"]]
    assert any(
        shape(f["geometry"]).bounds[0] <= strongest["x"] and shape(f["geometry"]).bounds[1] <= strongest["y"]
        and shape(f["geometry"]).covers(shape({"type": "Point", "coordinates": [strongest["x"], strongest["y"]]}))
        for f in top
    )  # fmt: skip
    for ending in (".png", ".patches.jpg", ".contribution.jpg"):
        assert min(Image.open(files(made) / f"s1{ending}").size) > 100


def test_drawn_again_only_when_asked_for_something_else(made: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(made / "run", tmp_path / "run"))
    picture = work / "heatmap" / "colour" / "gated-abmil" / "s0.png"
    before = picture.stat().st_mtime_ns
    same = ["heatmap", "--pyramid-mpp", "2", "--overlay-mpp", "2", "--run", str(work)]
    assert main(same) == 0
    assert picture.stat().st_mtime_ns == before
    assert main(["train-mil", "--folds", "2", "--epochs", "3", "--run", str(work)]) == 0
    assert picture.stat().st_mtime_ns == before, "training that is up to date leaves the pictures as they are"
    picture.with_suffix(".tif").unlink()
    assert main(same) == 0
    assert picture.with_suffix(".tif").is_file()
    assert main(["heatmap", "--no-pyramid", "--run", str(work)]) == 0
    assert not picture.with_suffix(".tif").is_file()
    assert Image.open(picture).width != 256


def test_a_slide_whose_file_is_gone_is_drawn_from_its_stores(made: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(made / "run", tmp_path / "run"))
    cohort = (work / "cohort.csv").read_text().replace(str(made / "s2.svs"), str(made / "gone.svs"))
    (work / "cohort.csv").write_text(cohort)
    assert main(["heatmap", "--run", str(work)]) == 0
    drawn = work / "heatmap" / "colour" / "gated-abmil"
    assert (drawn / "s2.png").is_file()
    assert not (drawn / "s2.tif").is_file()
    status = json.loads((work / "status" / "s2.json").read_text())["stages"]["heatmap/colour/gated-abmil"]
    assert "drawn without the slide" in status["note"]


def test_only_models_that_never_saw_the_patient_tell() -> None:
    record = SlideRecord(slide_id="s1", path=Path("s1.svs"), patient_id="p1")
    table = pd.DataFrame({"slide_id": ["s1", "s2", "s1"], "repeat": [0, 0, 1], "fold": [1, 0, 0]})
    metrics = {"folds": [{"repeat": r, "fold": k} for r in range(2) for k in range(2)]}
    assert model_numbers(table, metrics, record) == [1, 2]
    assert model_numbers(table.drop(columns="repeat")[:2], {}, record) == [1]
    patients = pd.DataFrame({"patient_id": ["p0", "p1"], "repeat": 0, "fold": [0, 1]})
    assert model_numbers(patients, metrics, record) == [1]
    assert model_numbers(table, metrics, SlideRecord(slide_id="new", path=Path("n.svs"), patient_id="p9")) == []


def test_of_a_training_on_patients_the_model_that_tested_the_patient_tells(made: Path, tmp_path: Path) -> None:
    work = Path(shutil.copytree(made / "run", tmp_path / "run"))
    assert main(["train-mil", "--bag", "patient", "--folds", "2", "--epochs", "2", "--run", str(work)]) == 0
    trained = work / "train-mil" / "colour" / "gated-abmil.patient"
    training, ensemble = read_training(trained), load_ensemble(trained)
    assert training is not None
    assert "slide_id" not in training.predictions
    tested = training.predictions.set_index("patient_id")["fold"]
    for record in read_cohort([work / "cohort.csv"]).records:
        (model,) = models_for_slide(training, ensemble, record)
        assert model is ensemble.models[tested[record.patient_id]]
        values = pd.read_csv(work / "heatmap" / "colour" / "gated-abmil.patient" / f"{record.slide_id}.csv")
        table = read_feature_table(work / "embed" / "colour" / f"{record.slide_id}.h5")
        own = attention(model, Bags.from_arrays([table.features], [record.slide_id]))
        np.testing.assert_allclose(values["attention"], own, atol=1e-4)
