"""`train-mil --tune-prompts`: a training beside that on frozen features, from slide labels and pixels alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from pathotune import read_adapter
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir, existing_store

Out = Callable[[], str]
QUICK = ["--folds", "2", "--val-fraction", "0", "--epochs", "2", "--bootstrap", "100", "--permutations", "0"]
PROMPTS = ["--tune-prompts", "--prompt-epochs", "1", "--prompt-top", "2", "--prompt-random", "1"]


def train(folder: Path, *more: str) -> int:
    run = str(folder / "run")
    return main(["train-mil", "--run", run, "--device", "cpu", "--features", "vit-mini", *QUICK, *more])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four slides, tiled without pixels, embedded by vit-mini and by colour, trained on frozen features and prompts."""
    folder = tmp_path_factory.mktemp("prompts")
    table, run = write_cohort(folder, broken=False), str(folder / "run")
    words = ["tile", str(table), "--run", run, "--patch-px", "256", "--mpp", "0.5", "--workers", "0", "--quiet"]
    assert main(words) == 0
    for model in ("vit-mini", "colour"):
        assert main(["embed", "--model", model, "--run", run, "--device", "cpu", "--quiet"]) == 0
    assert train(folder) == 0
    assert train(folder, *PROMPTS) == 0
    return folder


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    capsys.readouterr()
    return lambda: "".join(capsys.readouterr())


def test_it_is_another_model_with_the_same_folds(made: Path) -> None:
    trained = made / "run" / "train-mil" / "vit-mini"
    frozen, tuned = trained / "gated-abmil", trained / "gated-abmil.prompts"
    assert (frozen / "folds.csv").read_text() == (tuned / "folds.csv").read_text()
    found = pd.read_csv(tuned / "predictions.csv")
    assert sorted(found["slide_id"]) == ["s0", "s1", "s2", "s3"]
    metrics = json.loads((tuned / "metrics.json").read_text())
    assert metrics["model"] == "gated-abmil.prompts"
    assert metrics["prompts"]["prompt_top"] == 2
    for fold in range(2):
        config = read_adapter(tuned / f"prompts{fold}.safetensors").config
        assert (config.classes, config.ttp, config.tvp_tokens, config.ivp_tokens) == ((), False, 10, 2)
    assert (tuned / "prompts0.safetensors").read_bytes() != (tuned / "prompts1.safetensors").read_bytes()
    assert not (tuned / "resume").exists()
    assert json.loads((tuned / "config.json").read_text())["feature_dim"] == 384
    assert "gated-abmil.prompts" in (made / "run" / "report" / "report.html").read_text()


def test_a_second_call_is_up_to_date_and_both_can_be_compared(made: Path, out: Out) -> None:
    assert train(made, *PROMPTS) == 0
    assert "gated-abmil.prompts up to date" in out()
    folders = [str(made / "run" / "train-mil" / "vit-mini" / name) for name in ("gated-abmil", "gated-abmil.prompts")]
    assert main(["compare", *folders]) == 0
    assert main(["heatmap", "--run", str(made / "run")]) == 0


def test_features_that_have_no_prompts_are_refused(made: Path, out: Out) -> None:
    words = ["train-mil", "--run", str(made / "run"), "--device", "cpu", "--features", "colour", *QUICK, *PROMPTS]
    assert main(words) == 2
    assert "prompts cannot be tuned on colour" in out()
    assert train(made, *PROMPTS, "--model", "mean") == 2
    assert "mean has no attention" in out()


def test_slides_without_pixels_are_named(made: Path, out: Out) -> None:
    slide = made / "s2.svs"
    moved = slide.rename(made / "away.svs")
    try:
        assert train(made, *PROMPTS, "--name", "without") == 2
    finally:
        moved.rename(slide)
    said = out()
    assert "s2" in said
    assert "the patch store keeps none" in said
    store = existing_store(RunDir(made / "run").patch_store("s1"))
    assert store is not None
    hidden = store.rename(store.with_suffix(".away"))
    try:
        assert train(made, *PROMPTS, "--name", "without") == 2
    finally:
        hidden.rename(store)
    assert "this slide has no patch store" in out()
