"""The whole way on small real files: what comes out, what is skipped, what is redone, in both store formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import openslide
import pandas as pd
import pytest
import zarr
from PIL import Image

from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table

GOOD = ("s0", "s1", "s2", "s3")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slides.csv and a finished wsi-run/ (the three commands)."""
    folder = tmp_path_factory.mktemp("cohort")
    write_cohort(folder)
    run = str(folder / "wsi-run")
    assert main(["tile", str(folder / "slides.csv"), "--run", run, "--workers", "0", "--patch-px", "128"]) == 3
    assert main(["embed", "--model", "colour", "--run", run]) == 3
    assert main(["train-mil", "--folds", "2", "--epochs", "4", "--run", run]) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


def test_good_slides_are_done_and_bad_ones_named(made: Path) -> None:
    run = made / "wsi-run"
    assert {path.stem for path in (run / "embed" / "colour").glob("*.h5")} == {*GOOD, "blank"}
    torn = json.loads((run / "status" / "torn.json").read_text())
    assert (torn["state"], torn["stage"]) == ("failed", "segment")
    assert "truncated" in torn["reason"]
    assert "Traceback" in torn["traceback"]
    blank = json.loads((run / "status" / "blank.json").read_text())
    assert blank["stages"]["tile"]["state"] == "empty"
    assert blank["stages"]["tile"]["note"] == "no tissue found"
    for name in (*GOOD, "blank"):
        assert Image.open(run / "segment" / f"{name}.png").size[0] > 100
        assert json.loads((run / "segment" / f"{name}.geojson").read_text())["type"] == "FeatureCollection"


def test_patch_store_is_as_the_format_says(made: Path) -> None:
    with h5py.File(made / "wsi-run" / "tile" / "s0.h5") as file:
        coords = file["coords"]
        assert coords.dtype == np.int64
        assert coords.shape[1] == 2
        assert len(coords) > 8
        assert file["coverage"].shape == (len(coords),)
        attrs = dict(coords.attrs)
        wanted = {"patch_size": 128, "patch_size_level0": 128, "overlap": 0, "name": "s0"}
        wanted |= {"level0_magnification": 20, "target_magnification": 20, "level0_width": 1024, "level0_height": 1024}
        assert {key: attrs[key] for key in wanted} == wanted
        assert file.attrs["format"] == "wsi-pipeline/patches"
        assert file.attrs["version"] == 2
        assert json.loads(file.attrs["specs"])["tile"]["patch_px"] == 128


def test_row_i_is_the_same_patch_everywhere(made: Path) -> None:
    patches = read_patch_table(made / "wsi-run" / "tile" / "s1.h5")
    features = read_feature_table(made / "wsi-run" / "embed" / "colour" / "s1.h5")
    np.testing.assert_array_equal(patches.grid.coords, features.coords)
    assert features.features.dtype == np.float16
    assert features.header.parent_digest == patches.header.digest


def test_training_leaves_models_predictions_metrics_and_a_report(made: Path) -> None:
    folder = made / "wsi-run" / "train-mil" / "colour" / "gated-abmil"
    predictions = pd.read_csv(folder / "predictions.csv")
    columns = ["slide_id", "patient_id", "repeat", "fold", "label", "predicted", "p_a", "p_b"]
    assert list(predictions.columns) == columns
    assert list(predictions.slide_id) == list(GOOD)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n_patients"] == 4
    assert metrics["interval"]["unit"] == "patient"
    assert metrics["left_out"] == {"blank": "empty", "torn": "failed in segment"}
    assert (folder / "fold1.safetensors").is_file()
    assert (made / "wsi-run" / "heatmap" / "colour" / "gated-abmil" / "s0.png").is_file()
    html = (made / "wsi-run" / "report" / "report.html").read_text()
    for name in (*GOOD, "blank", "torn"):
        assert name in html


def contents(run: Path) -> dict[str, bytes]:
    """Every result file of a run; what tells of times (status, logs, locks) is left out."""
    files = (
        path for stage in ("segment", "tile", "embed", "train-mil", "heatmap") for path in (run / stage).rglob("*")
    )
    return {str(path.relative_to(run)): path.read_bytes() for path in files if path.is_file()}


def test_running_again_changes_nothing_and_says_so(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = work / "wsi-run"
    stamps = {path: path.stat().st_mtime_ns for path in run.rglob("*.h5")}
    before = contents(run)
    main(["tile", str(work / "slides.csv"), "--run", str(run), "--patch-px", "128"])
    assert "5 up to date" in capsys.readouterr().out
    main(["embed", "--model", "colour", "--run", str(run)])
    assert "5 up to date" in capsys.readouterr().out
    main(["train-mil", "--folds", "2", "--epochs", "4", "--run", str(run)])
    assert "gated-abmil up to date" in capsys.readouterr().out
    assert contents(run) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_only_what_changed_is_redone(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = work / "wsi-run"
    shutil.copy(work / "s1.svs", work / "s0.svs")
    (run / "tile" / "s3.h5").unlink()
    main(["tile", str(work / "slides.csv"), "--run", str(run), "--patch-px", "128"])
    out = capsys.readouterr().out
    assert "3 up to date" in out
    assert "1 slide recomputed, segment: its input has changed" in out
    main(["embed", "--model", "colour", "--run", str(run)])
    assert "4 up to date" in capsys.readouterr().out  # s3's patches came back the same, so its features hold


def test_a_changed_setting_is_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["tile", str(work / "slides.csv"), "--run", str(work / "wsi-run"), "--patch-px", "64"])
    assert "5 slides recomputed, tile: patch_px 128 -> 64" in capsys.readouterr().out


def test_features_older_than_their_patches_are_not_trained_on(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(work / "wsi-run")
    main(["tile", str(work / "slides.csv"), "--run", run, "--patch-px", "64"])
    assert main(["train-mil", "--folds", "2", "--run", run]) == 2
    assert "older than the slide's patches" in capsys.readouterr().err


def test_a_damaged_store_is_made_again(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = work / "wsi-run" / "tile" / "s2.h5"
    whole = store.read_bytes()
    store.write_bytes(whole[: len(whole) // 2])
    main(["tile", str(work / "slides.csv"), "--run", str(work / "wsi-run"), "--patch-px", "128"])
    assert "1 slide recomputed, tile: damaged, kept as s2.h5.damaged-1" in capsys.readouterr().out
    assert store.read_bytes() == whole
    assert store.with_name("s2.h5.damaged-1").read_bytes() == whole[: len(whole) // 2]


def test_predict_on_new_slides_uses_the_training_settings(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = write_cohort(work / "new", per_class=1, broken=False)
    trained = work / "wsi-run" / "train-mil" / "colour" / "gated-abmil"
    assert main(["predict", str(new), "--trained", str(trained), "--run", str(work / "p")]) == 0
    table = pd.read_csv(work / "p" / "predict" / "colour" / "gated-abmil" / "predictions.csv")
    assert list(table.slide_id) == ["s0", "s1"]
    assert np.allclose(table.p_a + table.p_b, 1, atol=1e-5)
    assert read_patch_table(work / "p" / "tile" / "s0.h5").geometry.patch_px == 128
    assert "2 of 2 slides belong to patients the model was trained on" in capsys.readouterr().out
    pd.read_csv(new).assign(patient_id=["p0", "new"]).to_csv(new, index=False)
    assert main(["predict", str(new), "--trained", str(trained), "--run", str(work / "p")]) == 0
    assert "1 of 2 slides belong to patients" in capsys.readouterr().out
    (trained / "folds.csv").unlink()
    assert main(["predict", str(new), "--trained", str(trained), "--run", str(work / "p")]) == 0
    assert "trained on" not in capsys.readouterr().out


def test_zarr_holds_the_same_as_hdf5(made: Path, tmp_path: Path) -> None:
    run = str(tmp_path / "z")
    common = ["--run", run, "--store", "zarr"]
    assert main(["tile", str(made / "slides.csv"), "--workers", "0", "--patch-px", "128", *common]) == 3
    assert main(["embed", "--model", "colour", *common]) == 3
    assert main(["train-mil", "--folds", "2", "--epochs", "4", "--run", run]) == 0
    for stage in ("segment", "tile", "embed/colour"):
        ours, theirs = made / "wsi-run" / stage / "s0.h5", tmp_path / "z" / stage / "s0.zarr"
        assert not (tmp_path / "z" / stage / "s0.h5").exists()
        assert zarr.open_group(str(theirs), mode="r").metadata.zarr_format == 3
        with open_store(ours) as a, open_store(theirs) as b:
            assert a.attrs == b.attrs
            assert a.names() == b.names()
            for name in a.names():
                np.testing.assert_array_equal(a.read(name), b.read(name))
                assert a.array_attrs(name) == b.array_attrs(name)
    one, other = (
        (root / "train-mil" / "colour" / "gated-abmil" / "predictions.csv").read_text()
        for root in (made / "wsi-run", tmp_path / "z")
    )
    assert one == other


@pytest.mark.parametrize("store", ["hdf5", "zarr"])
def test_kept_pixels_are_the_slides_and_are_embedded_alike(made: Path, tmp_path: Path, store: str) -> None:
    for pixels in ("raw", "jpeg"):
        run = tmp_path / pixels
        options = ["--run", str(run), "--store", store, "--only", "s0"]
        args = ["tile", str(made / "slides.csv"), "--workers", "0", "--patch-px", "128", "--pixels", pixels]
        assert main([*args, *options]) == 0
        suffix = {"hdf5": ".h5", "zarr": ".zarr"}[store]
        table = read_patch_table(run / "tile" / f"s0{suffix}")
        assert table.pixels == {"raw": "images", "jpeg": "jpeg"}[pixels]
        with open_store(run / "tile" / f"s0{suffix}") as patches, openslide.OpenSlide(made / "s0.svs") as slide:
            rows = range(0, len(table.grid), 7)
            for row in rows:
                region = slide.read_region(tuple(table.grid.coords[row]), 0, (128, 128)).convert("RGB")
                if pixels == "raw":
                    np.testing.assert_array_equal(patches.read("images", row, row + 1)[0], region)
                else:
                    data = patches.read_bytes("jpeg", row, row + 1)[0]
                    assert data[:2] == b"\xff\xd8"
        # Features come from the store, so the slide may be gone.
        (record_csv := run / "cohort.csv").write_text(record_csv.read_text().replace(str(made), str(tmp_path / "gone")))
        assert main(["embed", "--model", "colour", *options]) == 0
        if pixels == "raw":
            ours = read_feature_table(run / "embed" / "colour" / f"s0{suffix}").features
            np.testing.assert_array_equal(ours, read_feature_table(made / "wsi-run" / "embed/colour/s0.h5").features)


def test_segment_store_is_enough_to_draw(made: Path) -> None:
    segment = read_segment_table(made / "wsi-run" / "segment" / "s0.h5")
    assert segment.mask.slide_size.width == 1024
    assert 0.1 < segment.mask.fraction < 0.6
    assert segment.thumbnail.dtype == np.uint8
