"""classify, and embed with adapters, as a user meets them: what they say, refuse, and which adapter they take."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest

from pathotune.builtin import default_adapter_path
from tests.adapter_files import write_adapter, write_backbone
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.errors import EncoderError, UsageError
from wsi_pipeline.stages.inputs.find_adapter import find_adapter, remembered
from wsi_pipeline.store.tables.feature_table import read_feature_table

TILE = ("--workers", "0", "--patch-px", "128")
has_built_in = pytest.mark.skipif(not default_adapter_path().is_file(), reason="the built-in adapter is not made yet")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four slides, a run that was tiled, and the weights of a backbone."""
    folder = tmp_path_factory.mktemp("adapters")
    write_cohort(folder, broken=False)
    write_backbone(folder / "weights.safetensors")
    assert main(["tile", str(folder / "slides.csv"), "--run", str(folder / "run"), *TILE]) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to change, as the working folder."""
    copy = Path(shutil.copytree(made, tmp_path / "copy"))
    monkeypatch.chdir(copy)
    return copy


def tune(work: Path, name: str = "pathotune", seed: int = 0, **fields: object) -> Path:
    """An adapter where tune leaves it."""
    path = RunDir(work / "run").adapter(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_adapter(path, work / "weights.safetensors", seed=seed, **fields)  # type: ignore[arg-type]


def told(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    return captured.out + captured.err


def test_the_adapter_of_the_run_is_taken_and_named(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(work)
    assert main(["embed", "--model", "pathotune", "--run", "run"]) == 0
    out = told(capsys)
    assert "encoder pathotune: adapter run/tune/pathotune/adapter.safetensors on test_vit\n" in out
    for line in (
        "classes: stroma, tumour, fat; tuned at 0.5 um/px on patches of 128 px",
        "named in the adapter",
        "licence",
    ):
        assert line in out
    store = read_feature_table(work / "run" / "embed" / "pathotune" / "s0.h5")
    assert store.header.extra["adapter"] == "tune/pathotune/adapter.safetensors"
    assert store.features.shape[1] == 2 * 64  # the class token, and the mean of the instance prompts


def test_features_are_made_again_with_another_adapter(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(work)
    assert main(["embed", "--model", "pathotune", "--run", "run"]) == 0
    assert main(["embed", "--model", "pathotune", "--run", "run"]) == 0
    assert "4 up to date" in told(capsys)
    tune(work, seed=1)
    assert main(["embed", "--model", "pathotune", "--run", "run"]) == 0
    assert "4 slides recomputed, embed/pathotune: other weights" in told(capsys)


@has_built_in
def test_without_a_tuning_the_built_in_adapter_is_taken_and_that_is_said(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["embed", "--model", "pathotune", "--run", "run"])
    line = (
        "encoder pathotune: built-in adapter on vit-mini "
        "(no adapter tuned in this run; tune one with: wsi-pipeline tune ...)"
    )
    assert line in told(capsys)


def test_find_adapter(work: Path) -> None:
    run = RunDir(work / "run")
    assert find_adapter(run, "colour") is None
    default = find_adapter(run, "pathotune")
    assert default is not None
    assert default.path is None
    assert "tune one with: wsi-pipeline tune ..." in default.remark
    lora = tune(work, "lora")
    found = find_adapter(run, "pathotune:lora")
    assert found is not None
    assert (found.path, found.remark) == (lora, "")
    default = find_adapter(run, "pathotune")
    assert default is not None
    assert "this run has lora" in default.remark
    own = tune(work)
    for given, path in ((None, own), ("built-in", None), ("elsewhere.safetensors", Path("elsewhere.safetensors"))):
        choice = find_adapter(run, "pathotune", given)
        assert choice is not None
        assert choice.path == path
    with pytest.raises(EncoderError, match="no adapter full in this run") as caught:
        find_adapter(run, "pathotune:full")
    assert caught.value.todo == "There are: lora, pathotune"
    with pytest.raises(UsageError, match="--adapter is for --model pathotune, got --model colour"):
        find_adapter(run, "colour", "x")


def test_what_stores_remember_of_an_adapter(work: Path) -> None:
    run = RunDir(Path("run"))
    assert remembered(run, "") == ""
    assert remembered(run, "built-in") == "built-in"
    assert remembered(run, str(work / "run" / "tune" / "a" / "adapter.safetensors")) == "tune/a/adapter.safetensors"
    assert remembered(run, "other.safetensors") == str((work / "other.safetensors").resolve())


@pytest.mark.parametrize(
    ("words", "what", "todo"),
    [
        (["classify", "--model", "colour"], "--model must be pathotune or pathotune:NAME", ""),
        (["classify", "--model", "pathotune:lora"], "no adapter lora in this run", "Tune one with: wsi-pipeline tune"),
        (["classify", "--adapter", "none"], "adapter none is missing", "--adapter FILE"),
        (["classify", "--adapter", "slides.csv"], "slides.csv is not an adapter file", ""),
        (["embed", "--adapter", "none"], "--adapter is for --model pathotune", "Leave --adapter out"),
        (["classify", "--min-probability", "1.5"], "--min-probability must be between 0 and 1", ""),
    ],
)
def test_what_is_refused_before_any_slide(
    work: Path, words: list[str], what: str, todo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--run", "run"]) == 2
    out = told(capsys)
    assert what in out
    assert todo in out
    assert "Traceback" not in out
    assert not (work / "run" / "classify").exists()


def test_wrong_weights_are_refused_once(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(work)
    write_backbone(work / "other.safetensors", seed=4)
    assert main(["classify", "--weights", "other.safetensors", "--run", "run"]) == 2
    assert told(capsys).count("with other weights") == 1


def test_another_resolution_is_refused_with_the_one_to_use(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(work, patches={"mpp": 0.25})
    assert main(["classify", "--run", "run"]) == 3
    out = told(capsys)
    assert "pathotune was trained at 0.25 micrometres per pixel, these patches have 0.5" in out
    assert "--mpp 0.25" in out
    # A slide refused here is not lost for others.
    assert main(["embed", "--model", "colour", "--run", "run"]) == 0


def test_patches_of_another_size_are_pointed_out(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(work, patches={"patch_px": 32})
    assert main(["classify", "--run", "run"]) == 0
    assert "patches of 64 um, but the adapter was tuned on 16 um" in told(capsys)


def test_it_ends_with_a_table_what_was_made_and_the_next_step(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tune(work)
    assert main(["classify", "--run", "run", "--only", "s0,s1"]) == 0
    out = told(capsys)
    assert re.search(r"^s0 +\d+ +\w+ \d+(\.\d)? %", out, re.M)
    assert "2 slides in run/classify/pathotune/ · fractions of all 2: run/classify/pathotune/fractions.csv" in out
    assert "next: wsi-pipeline report" in out
    assert main(["classify", "--run", "run", "--chunk", "2/2", "--quiet"]) == 0
    assert told(capsys) == ""
    assert main(["report", "--run", "run"]) == 0
    html = (work / "run" / "report" / "report.html").read_text()
    assert 'id="classes"' in html
    assert "tune/pathotune/adapter.safetensors" in html
    assert html.count("Predicted classes on the thumbnail of") == 3
    assert main(["status", "--run", "run"]) == 0
    assert re.search(r"^classify/pathotune +3 +0 +0 +1$", told(capsys), re.M)


def test_nothing_tiled_is_told(tmp_path: Path, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(work / "run" / "tile")
    assert main(["classify", "--run", "run"]) == 2
    assert "no slide of this run has been tiled" in told(capsys)


def test_run_classifies_only_where_the_file_says_so(work: Path) -> None:
    tune(work)
    text = "slides: slides.csv\nrun: run\ntile: {patch_px: 128, workers: 0}\n"
    (work / "c.yaml").write_text(text)
    assert main(["run", "c.yaml"]) == 0
    assert not (work / "run" / "classify").exists()
    (work / "c.yaml").write_text(text + "classify: {min_probability: 0.4}\n")
    assert main(["run", "c.yaml"]) == 0
    assert len(pd.read_csv(work / "run" / "classify" / "pathotune" / "fractions.csv")) == 4


@pytest.fixture(scope="module")
def model(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder with a slide-level model on features of tune/lora."""
    folder = Path(shutil.copytree(made, tmp_path_factory.mktemp("model") / "copy"))
    tune(folder, "lora", method="lora")
    run = ["--run", str(folder / "run")]
    assert main(["embed", "--model", "pathotune:lora", *run]) == 0
    assert main(["train-mil", "--folds", "2", "--epochs", "2", "--bootstrap", "100", *run]) == 0
    return folder


@pytest.fixture
def trained(model: Path, work: Path) -> Path:
    """The folder of that model, in a run to change."""
    shutil.rmtree(work / "run")
    shutil.copytree(model / "run", work / "run")
    return work / "run" / "train-mil" / "pathotune-lora" / "gated-abmil"


def predict(trained: Path, *words: str) -> int:
    return main(
        ["predict", "slides.csv", "--trained", str(trained), "--run", "new", "--workers", "0", "--only", "s0", *words]
    )


def test_predict_finds_the_adapter_the_model_was_trained_on(trained: Path, work: Path) -> None:
    assert json.loads((trained / "config.json").read_text())["provenance"]["adapter"] == "tune/lora/adapter.safetensors"
    assert predict(trained) == 0
    assert len(pd.read_csv(work / "new" / "predict" / "pathotune-lora" / "gated-abmil" / "predictions.csv")) == 1
    moved = shutil.move(work / "run", work / "moved run")
    assert predict(Path(moved) / trained.relative_to(work / "run")) == 0


def test_predict_refuses_another_adapter_before_any_slide(
    trained: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = shutil.copy(RunDir(work / "run").adapter("lora"), work / "kept.safetensors")
    tune(work, "lora", seed=3, method="lora")
    assert predict(trained) == 2
    out = told(capsys)
    wanted = plan_encoder("pathotune", adapter=Path(kept)).fingerprint
    assert f"features of an adapter with the fingerprint {wanted[:12]}" in out
    assert "--adapter FILE" in out
    assert not (work / "new" / "tile").exists()
    assert predict(trained, "--adapter", str(RunDir(work / "run").adapter("lora"))) == 2
    assert predict(trained, "--adapter", "missing.safetensors") == 2
    assert predict(trained, "--adapter", str(kept)) == 0


def test_predict_with_features_of_another_adapter_is_refused(
    trained: Path, work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tune(work, "lora", seed=3, method="lora")
    assert main(["embed", "--model", "pathotune:lora", "--run", "run"]) == 0
    assert main(["predict", "--trained", str(trained), "--run", "run"]) == 2
    assert "another encoder than" in told(capsys)
