"""A wrong encoder, adapter, weights file or stain target is told before slides are looked for, tiled or measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from tests.stages.cohorts import write_cohort
from tests.stains.stained_slides import tissue_patch, write_stained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.stages.inputs.stain_files import StainTarget
from wsi_pipeline.stages.inputs.stain_target import profile_picture

STAIN = ["--stain-norm", "macenko", "--stain-target"]


@pytest.fixture
def untiled(tmp_path: Path) -> Path:
    """A run that knows its cohort, slide `s`, and has tiled nothing."""
    run = RunDir(tmp_path / "run")
    run.root.mkdir()
    run.cohort_csv.write_text("slide_id,path\ns,s.tif\n", encoding="utf-8")
    Image.new("RGB", (300, 300), (243, 243, 243)).save(tmp_path / "glass.png")
    return tmp_path


WRONG = [
    (["embed", "--model", "NONSENSE"], "unknown encoder 'NONSENSE'"),
    (["embed", "--model", "colour", "--model", "NONSENSE"], "unknown encoder 'NONSENSE'"),
    (["embed", "--model", "pathotune:foo"], "no adapter foo in this run"),
    (["embed", "--model", "colour", "--adapter", "a.safetensors"], "--adapter is for --model pathotune"),
    (["embed", "--model", "resnet18", "--weights", "gone.safetensors"], "gone.safetensors does not exist"),
    (["embed", *STAIN, "gone.png"], "gone.png is neither a tiled slide of this run nor a file"),
    (["embed", *STAIN, "glass.png"], "stain target glass.png: too little tissue"),
    (
        ["stain", *STAIN[:1], "vahadane", "--stain-target", "gone.png"],
        "is neither a tiled slide of this run nor a file",
    ),
    (["classify", "--model", "NONSENSE"], "unknown encoder 'NONSENSE'"),
    (["embed-slides", "--model", "NONSENSE"], "no slide encoder is called 'NONSENSE'"),
    (["tune", "gone", "--model", "NONSENSE"], "NONSENSE"),
    (["tune", "gone", "--weights", "gone.safetensors"], "gone.safetensors"),
    (["tune", "gone", "--device", "cuda:99"], "cuda:99"),
    (["robustness", "--model", "NONSENSE"], "unknown encoder 'NONSENSE'"),
    (["robustness", "--model", "colour", *STAIN, "glass.png"], "stain target glass.png: too little tissue"),
]


@pytest.mark.parametrize(("words", "told"), WRONG, ids=[" ".join(words) for words, _ in WRONG])
def test_a_wrong_name_is_told_before_missing_slides(
    untiled: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(untiled)
    assert main([*words, "--run", "run"]) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert "tiled slide" not in errors.replace(told, "")


@pytest.mark.parametrize("words", [["embed"], ["embed", *STAIN, "s"], ["stain", "--stain-target", "s"], ["classify"]])
def test_right_names_are_told_that_nothing_is_tiled(
    untiled: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "--run", str(untiled / "run")]) == 2
    assert "no slide of this run has been tiled" in capsys.readouterr().err


def test_a_wrong_name_is_told_beside_slides_that_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    (tmp_path / "slides.csv").write_text("slide_id,path\nbad,bad.svs\n")
    run = ["--run", str(tmp_path / "run")]
    assert main(["tile", str(tmp_path / "slides.csv"), "--workers", "0", *run]) == 3
    capsys.readouterr()
    assert main(["embed", "--model", "NONSENSE", *run]) == 2
    assert "unknown encoder 'NONSENSE'" in capsys.readouterr().err
    assert main(["embed", "--model", "colour", *run]) == 3


def test_robustness_measures_no_encoder_if_a_later_one_is_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_stained(tmp_path / "a.svs", 1)
    (tmp_path / "slides.csv").write_text("slide_id,path\na,a.svs\n")
    run = ["--run", str(tmp_path / "run")]
    assert main(["tile", str(tmp_path / "slides.csv"), "--workers", "0", "--patch-px", "128", *run]) == 0
    assert main(["robustness", "--model", "colour", "--model", "NONSENSE", *run]) == 2
    assert "unknown encoder 'NONSENSE'" in capsys.readouterr().err
    assert not list(tmp_path.glob("run/robustness/*.json"))


@pytest.mark.parametrize(
    ("embed", "told"),
    [
        ("{model: colour, stain_norm: macenko, stain_target: gone.png}", "gone.png is neither a tiled slide"),
        ("{model: colour, stain_norm: macenko, stain_target: glass.png}", "glass.png: too little tissue"),
        ("{model: colour, stain_norm: reinhard, stain_target: kept.json}", "is for stain_norm macenko, not reinhard"),
        ("{model: resnet18, weights: gone.safetensors}", "weights gone.safetensors does not exist"),
    ],
)
def test_run_finds_missing_files_before_the_first_slide(
    tmp_path: Path, embed: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cohort(tmp_path, per_class=1, broken=False)
    Image.new("RGB", (300, 300), (243, 243, 243)).save(tmp_path / "glass.png")
    write_target(tmp_path)
    (tmp_path / "cohort.yaml").write_text(f"slides: slides.csv\ntile: {{workers: 0}}\nembed: {embed}\n")
    assert main(["run", str(tmp_path / "cohort.yaml")]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "wsi-run").exists()


def write_target(folder: Path) -> None:
    """kept.json, a target for macenko as `embed` records it."""
    Image.fromarray(tissue_patch(1)).save(folder / "tissue.png")
    target = StainTarget(profile_picture(folder / "tissue.png", "macenko"), "auto", "a picture", {})
    (folder / "kept.json").write_text(json.dumps(target.to_json()))
