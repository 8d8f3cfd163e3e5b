"""The Python face gives what the commands write, takes any path, says what its objects are, and imports little."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import wsi_pipeline as wp
from pathotune import open_backbone, read_adapter
from tests.api.pages import ROOT
from wsi_pipeline.cli import main
from wsi_pipeline.config.specs import EmbedSpec, SegmentSpec, TileSpec
from wsi_pipeline.config.tissue_weights import TissueNetworks
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.errors import EncoderError, MilError, SlideError, UsageError
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.tables.patch_table import read_patch_table
from wsi_pipeline.store.tables.segment_table import read_segment_table

MODEL = "wsi-run/train-mil/colour/gated-abmil"
SLIDE = "demo/slides/demo-01.svs"


class Named(os.PathLike[str]):
    """A path that is neither str nor Path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return self.path


@pytest.fixture(autouse=True)
def here(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(demo)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, wsi_pipeline; print(sorted({'numpy', 'pandas', 'torch', 'PIL', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_public_name_is_there() -> None:
    assert set(wp.__all__) <= set(dir(wp))
    assert all(getattr(wp, name).__name__ == name for name in wp.__all__ if name != "__version__")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = wp.nothing


def test_defaults_are_those_of_the_command_line() -> None:
    for function, *specs in ((wp.find_tissue, SegmentSpec, TissueNetworks), (wp.lay_patches, TileSpec)):
        given = {
            name: p.default for name, p in inspect.signature(function).parameters.items() if p.default is not p.empty
        }
        known = {field.name: field.default for spec in specs for field in fields(spec)}
        assert given == {name: known[name] for name in given}
        assert len(given) >= 4
    assert inspect.signature(wp.embed).parameters["encoder"].default == EmbedSpec.model
    assert inspect.signature(wp.embed).parameters["dtype"].default == EmbedSpec.dtype


@pytest.mark.parametrize("number", ["01", "04"])  # 04 states no resolution
def test_one_slide_is_as_the_commands_have_it(number: str) -> None:
    record = next(r for r in wp.open_run("wsi-run").cohort.records if r.slide_id == f"demo-{number}")
    segment = read_segment_table(f"wsi-run/segment/demo-{number}.h5")
    stored = read_patch_table(f"wsi-run/tile/demo-{number}.h5")
    features = wp.read_features(f"wsi-run/embed/colour/demo-{number}.h5")
    with wp.open_slide(record.path, mpp=record.mpp) as slide:
        tissue = wp.find_tissue(slide)
        np.testing.assert_array_equal(tissue.mask.pixels, segment.mask.pixels)
        assert (tissue.mpp, tissue.warning) == (segment.mask.mpp, segment.warning)
        patches = wp.lay_patches(tissue)
        np.testing.assert_array_equal(patches.coords, stored.grid.coords)
        np.testing.assert_array_equal(patches.coverage, stored.grid.coverage)
        assert patches.geometry == stored.geometry
        np.testing.assert_array_equal(wp.embed(slide, patches, wp.open_encoder("colour")), features.features)
        assert features.features.dtype == np.float16
        batches = list(wp.read_patches(slide, patches, batch=3))
        assert {batch.shape[1:] for batch in batches} == {(256, 256, 3)}
        assert sum(len(batch) for batch in batches) == len(patches) > 0
        again = wp.open_encoder("colour").encode(np.concatenate(batches)).astype(np.float16)
        np.testing.assert_array_equal(again, features.features)


def test_cross_validation_is_that_of_train_mil() -> None:
    slides = wp.read_features("wsi-run", "colour")
    result = wp.cross_validate(slides, folds=3, epochs=20)
    kept = json.loads(Path(MODEL, "metrics.json").read_text())
    assert result.metrics == {name: kept[name] for name in result.metrics}
    table = pd.read_csv(Path(MODEL, "predictions.csv"))
    np.testing.assert_allclose(result.predictions["p_tumour"], table["p_tumour"], atol=1e-7)
    by_hand = wp.cross_validate(slides.bags, slides.table, folds=3, epochs=20)
    assert by_hand.metrics == result.metrics


def test_a_loaded_model_predicts_as_the_command_does(monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["predict", "--trained", MODEL, "--quiet"]) == 0
    written = pd.read_csv("wsi-run/predict/colour/gated-abmil/predictions.csv")
    model, slides = wp.load_model(MODEL), wp.read_features("wsi-run", "colour")
    found = model.predict(slides)
    assert list(found.columns) == list(written.columns)
    assert list(found["predicted"]) == list(written["predicted"])
    np.testing.assert_allclose(found["p_tumour"], written["p_tumour"], atol=1e-6)
    one = wp.read_features("wsi-run/embed/colour/demo-01.h5")
    np.testing.assert_allclose(model.predict(one)["p_tumour"], found["p_tumour"][:1], atol=1e-6)
    np.testing.assert_allclose(model.predict(one.features)["p_tumour"], found["p_tumour"][:1], atol=1e-6)
    attention = model.attention(slides)["demo-01"]
    np.testing.assert_allclose(model.attention(one), attention, atol=1e-6)
    assert attention.sum() == pytest.approx(1, abs=1e-5)
    assert model.metrics["encoder"] == "colour"


@pytest.mark.parametrize("door", [str, Path, Named])
def test_every_door_takes_any_path(door: Any, tmp_path: Path) -> None:
    slide = door(SLIDE)
    patches = wp.lay_patches(slide)
    assert len(wp.embed(slide, patches)) == sum(len(batch) for batch in wp.read_patches(slide, patches)) == len(patches)
    assert len(wp.read_cohort(door("demo/slides.csv")).records) == len(
        wp.read_cohort([door("demo/slides.csv")]).records
    )
    assert len(wp.read_features(door("wsi-run"), "colour").bags) == 6
    assert len(wp.read_features(door("wsi-run/embed/colour/demo-01.h5")).features) == len(patches)
    assert load_ensemble(door(MODEL)).classes == wp.load_model(door(MODEL)).classes == ("normal", "tumour")
    with open_store(door("wsi-run/tile/demo-01.h5")) as store:
        assert "coords" in store.names()
    built_in = ROOT / "pathotune" / "builtin"
    adapter, weights = (door(str(next(built_in.glob(f"*{kind}*.safetensors")))) for kind in ("adapter", "vit"))
    assert plan_encoder("pathotune", adapter=adapter).info.dim > 0
    assert plan_encoder("vit-mini", weights=weights).info.dim == wp.open_encoder("vit-mini", weights=weights).info.dim
    assert read_adapter(adapter).config.classes
    assert open_backbone("vit-mini", weights)[1].name == "vit-mini"


def test_objects_say_what_they_are() -> None:
    slide = wp.open_slide(SLIDE)
    size = slide.info.size
    assert repr(slide).startswith(f"<Slide demo-01.svs: {size.width} x {size.height} px, 0.5 mpp, ")
    tissue = wp.find_tissue(slide)
    assert repr(tissue).startswith(f"<Tissue of demo-01.svs: {tissue.mm2:.2f} mm2, ")
    patches = wp.lay_patches(tissue)
    assert repr(patches) == f"<Patches of demo-01.svs: {len(patches)} of 256 px at 0.5 mpp>"
    assert repr(wp.open_encoder("colour")) == "<Encoder colour: 133 features, cpu, fp32>"
    run = wp.open_run("wsi-run")
    assert repr(run) == (
        "<Run wsi-run: 8 slides (6 done, 1 empty, 1 failed); features: colour; models: colour/gated-abmil>"
    )
    assert repr(wp.load_model(MODEL)) == (
        "<TrainedModel gated-abmil: gated-abmil on colour, classification of normal, tumour; 3 folds>"
    )
    slides = run.features("colour")
    assert repr(slides.bags) == f"<Bags: 6 with {len(slides.bags.features)} instances x 133>"
    slide.close()
    assert slide._repr_png_() is None


def test_tables_in_a_notebook_are_escaped() -> None:
    run = wp.open_run("wsi-run")
    run.table.loc[0, "note"] = "<script>alert(1)</script>"
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()


def test_a_slide_without_resolution_is_refused_with_what_to_write() -> None:
    record = next(r for r in wp.open_run("wsi-run").cohort.records if r.slide_id == "demo-04")
    with pytest.raises(SlideError, match=r"open_slide\(path, mpp=\.\.\.\)"):
        wp.find_tissue(record.path)


def test_what_does_not_belong_together_is_refused() -> None:
    patches = wp.lay_patches(SLIDE)
    with pytest.raises(SlideError, match=r"demo-02.svs is not the slide these patches were laid on: demo-01.svs"):
        list(wp.read_patches("demo/slides/demo-02.svs", patches))
    with pytest.raises(UsageError, match=r"Features exist for: colour"):
        wp.read_features("wsi-run", "resnet50")
    with pytest.raises(UsageError, match="name the encoder"):
        wp.read_features("wsi-run")
    with pytest.raises(UsageError, match="unknown key fold"):
        wp.cross_validate(wp.read_features("wsi-run", "colour"), fold=3)
    with pytest.raises(MilError, match="takes 133 features per patch, got 16"):
        wp.load_model(MODEL).predict(np.zeros((3, 16), np.float32))
    encoder = wp.open_encoder("colour")
    encoder.patch_px, encoder.info = 128, type(encoder.info)(**{**vars(encoder.info), "input_px": 128})
    with pytest.raises(EncoderError, match="opened for patches of 128 px, these have 256"):
        wp.embed(SLIDE, patches, encoder)


def test_a_script_passes_mypy_strict(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from typing import assert_type\n\nimport wsi_pipeline as wp\n\n"
        'with wp.open_slide("a.svs", mpp=0.5) as slide:\n'
        "    patches = wp.lay_patches(wp.find_tissue(slide), mpp=0.5, patch_px=256)\n"
        '    features = wp.embed(slide, patches, wp.open_encoder("colour"))\n'
        'slides = wp.read_features("wsi-run", "colour")\n'
        "assert_type(slides, wp.SlideBags)\n"
        'assert_type(wp.read_features("a.h5"), wp.FeatureTable)\n'
        "assert_type(wp.cross_validate(slides, folds=3), wp.CrossValidation)\n"
        'model = wp.load_model("m")\n'
        "assert_type(model, wp.TrainedModel)\n"
        "print(len(features), model.attention(features).sum(), wp.Bags.from_arrays([features], ['a']).dim)\n"
        'print(wp.open_run("r").table, patches.coords)\n'
    )
    wrong = tmp_path / "wrong.py"
    wrong.write_text('import wsi_pipeline as wp\n\nwp.lay_patches("a.svs", patch_px="256")\n')
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(script), str(wrong)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "MYPYPATH": str(ROOT)})
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(found) == 1, done.stdout + done.stderr
    assert "wrong.py:3: " in found[0]
    assert 'incompatible type "str"' in found[0]
