"""`embed --stain-norm` and `stain` on a small cohort of known stain, through the command line."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.slide_files import write_pyramid_tiff
from tests.stains.stained_slides import DAB, HAEMATOXYLIN, tissue_patch, write_stained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import MilError
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.nearest.similar_patches import SimilarPatches

SLIDES = {
    "pale": {"amounts": (0.7, 0.7)},
    "middle": {"amounts": (1.0, 1.0)},
    "dark": {"amounts": (1.5, 1.3)},
    "also": {"amounts": (0.9, 1.2)},
    "ihc": {"vectors": (HAEMATOXYLIN, DAB)},
}


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with slides.csv and a tiled run `run`."""
    folder = tmp_path_factory.mktemp("stain")
    rows = []
    for seed, (name, how) in enumerate(SLIDES.items()):
        write_stained(folder / f"{name}.svs", seed, **how)
        rows.append({"slide_id": name, "path": f"{name}.svs", "patient_id": f"p{seed}", "label": "ab"[seed % 2]})
    with (folder / "slides.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    words = ["tile", str(folder / "slides.csv"), "--run", str(folder / "run"), "--patch-px", "256", "--workers", "0"]
    assert main([*words, "--quiet"]) == 0
    return folder


@pytest.fixture
def run(tiled: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiled / "run", tmp_path / "run")
    return tmp_path / "run"


def embed(run: Path, *words: str) -> int:
    return main(["embed", "--run", str(run), *words])


def features(run: Path, name: str) -> np.ndarray:
    return np.asarray(read_feature_table(run / "embed" / "colour" / f"{name}.h5").features, np.float64)


def header(run: Path, name: str) -> object:
    return read_feature_table(run / "embed" / "colour" / f"{name}.h5").header


def test_slides_are_given_one_stain_and_ihc_keeps_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(run) == 0
    before = {name: features(run, name) for name in SLIDES}
    assert embed(run, "--stain-norm", "macenko") == 0
    out = capsys.readouterr().out
    assert "stain_norm none -> macenko" in out
    assert "ihc keeps its own stain: its stain is brown (as DAB), the target's H&E" in out
    target = json.loads((run / "stain" / "macenko" / "target.json").read_text())
    chosen = target["source"].split(",")[0].removeprefix("slide ")
    assert chosen in ("middle", "also")
    assert target["source"] == f"slide {chosen}, the most typical with two stains well apart, of 5 slides"
    after = {name: features(run, name) for name in SLIDES}
    assert np.array_equal(after["ihc"], before["ihc"])
    assert np.array_equal(after[chosen], before[chosen])
    means = {name: (before[name].mean(axis=0), after[name].mean(axis=0)) for name in ("pale", "dark")}
    apart = [np.linalg.norm(means["pale"][k][:2] - means["dark"][k][:2]) for k in (0, 1)]
    assert apart[1] < 0.35 * apart[0]
    found = header(run, "pale")
    assert found.extra["stain"]["normalised"] is True
    assert found.specs["embed"]["stain_target"] == target["key"]
    assert found.specs["stain"]["target"] == target["profile"]
    assert header(run, "ihc").extra["stain"]["reason"].startswith("its stain is brown")


def test_table_and_picture_name_every_slide(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stain", "--run", str(run), "--stain-norm", "vahadane", "--stain-target", "middle"]) == 0
    assert "target: slide middle (H&E)" in capsys.readouterr().out
    table = pd.read_csv(run / "stain" / "vahadane" / "stains.csv", keep_default_na=False).set_index("slide_id")
    assert list(table.index) == list(SLIDES)
    assert list(table["normalised"]) == ["yes", "yes", "yes", "yes", "no"]
    assert table.loc["dark", "concentration1"] > 1.3 * table.loc["middle", "concentration1"]
    assert table.loc["pale", "glass_from"] == "background"
    assert abs(table.loc["pale", "glass_r"] - 244) < 2
    assert np.hypot(*table.loc["pale", ["stain1_r", "stain1_g"]].astype(float)) < 1
    with Image.open(run / "stain" / "vahadane" / "cohort.png") as picture:
        assert picture.height > 5 * 160


def test_again_changes_nothing_and_another_target_is_another_thing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(run, "--stain-norm", "macenko", "--stain-target", "middle") == 0
    bytes_of = {name: (run / "embed" / "colour" / f"{name}.h5").read_bytes() for name in SLIDES}
    capsys.readouterr()
    assert embed(run, "--stain-norm", "macenko", "--stain-target", "middle") == 0
    assert "5 up to date" in capsys.readouterr().out
    assert embed(run, "--stain-norm", "macenko", "--stain-target", "dark") == 0
    assert "recomputed, embed/colour: stain_target" in capsys.readouterr().out
    assert embed(run) == 0
    assert "stain_norm macenko -> none" in capsys.readouterr().out
    assert embed(run, "--stain-norm", "macenko", "--stain-target", "middle") == 0
    assert bytes_of == {name: (run / "embed" / "colour" / f"{name}.h5").read_bytes() for name in SLIDES}


def test_auto_keeps_its_choice_when_slides_are_worked_on_one_by_one(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "parts")
    assert embed(run, "--stain-norm", "reinhard", "--quiet") == 0
    for name in SLIDES:
        assert embed(tmp_path / "parts", "--stain-norm", "reinhard", "--only", name, "--quiet", "--batch", "7") == 0
    for name in SLIDES:
        assert np.array_equal(features(run, name), features(tmp_path / "parts", name))


def test_pictures_as_targets(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Image.fromarray(tissue_patch(9, amounts=(0.8, 1.2))).save(tmp_path / "target.png")
    assert embed(run, "--stain-norm", "macenko", "--stain-target", str(tmp_path / "target.png")) == 0
    assert "target: picture target.png (H&E)" in capsys.readouterr().out
    recorded = run / "stain" / "macenko" / "target.json"
    shutil.copy(recorded, tmp_path / "kept.json")
    assert embed(run, "--stain-norm", "macenko", "--stain-target", str(tmp_path / "kept.json")) == 0
    assert "5 up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("blank", "stain target {path}: too little tissue: 0 stained pixels"),
        ("one", "stain target {path}: one stain only"),
        ("text", "stain target {path}: "),
        ("none", "is neither a tiled slide of this run nor a file"),
    ],
)
def test_unusable_targets_are_refused_in_one_sentence(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str, words: str
) -> None:
    path = tmp_path / "target.png"
    if what == "blank":
        Image.new("RGB", (300, 300), (243, 243, 243)).save(path)
    elif what == "one":
        Image.fromarray(tissue_patch(1, vectors=(HAEMATOXYLIN, HAEMATOXYLIN))).save(path)
    elif what == "text":
        path.write_text("no picture")
    assert embed(run, "--stain-norm", "macenko", "--stain-target", str(path)) == 2
    errors = capsys.readouterr().err
    assert words.format(path=path) in errors
    assert not (run / "embed").exists()
    assert not list(run.glob("stain/**/*.json"))  # no slide was measured in vain


def test_features_of_two_normalisations_are_not_mixed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert embed(run, "--stain-norm", "macenko", "--quiet") == 0
    assert embed(run, "--only", "dark", "--quiet") == 0
    words = ["train-mil", "--run", str(run), "--folds", "2", "--allow-few", "--model", "mean"]
    assert main(words) == 2
    assert "other settings: stain_norm none, not macenko" in capsys.readouterr().err
    # Nearest patches and slides, in the viewer too, are not those of the same stain.
    assert main(["similar", "pale", "--patch", "400,400", "--run", str(run)]) == 2
    assert "other settings: stain_norm none, not macenko" in capsys.readouterr().err
    found = SimilarPatches(Library.of_run(RunDir(run)))
    with pytest.raises(MilError, match="were embedded with other settings: stain_norm none, not macenko"):
        found.slides("pale", "colour", 2)
    with pytest.raises(MilError, match="were embedded with other settings: stain_norm none, not macenko"):
        SimilarPatches(Library.of_run(RunDir(run))).slides("dark", "colour", 2)  # by the means that were kept
    assert embed(run, "--stain-norm", "macenko", "--quiet") == 0
    assert len(found.slides("pale", "colour", 2)) == 2


def test_predict_gives_new_slides_the_stain_of_the_training(
    tiled: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed(run, "--stain-norm", "macenko", "--quiet") == 0
    words = ["--folds", "2", "--allow-few", "--model", "mean", "--epochs", "1", "--permutations", "0"]
    assert main(["train-mil", "--run", str(run), "--quiet", *words]) == 0
    model = run / "train-mil" / "colour" / "mean"
    metrics = json.loads((model / "metrics.json").read_text())
    key = json.loads((run / "stain" / "macenko" / "target.json").read_text())["key"]
    assert metrics["stain"] == {"stain_norm": "macenko", "stain_target": key}
    assert any("keeps the stain of the scan" in text and "ihc" in text for text in metrics["warnings"])
    new = tmp_path / "new"
    capsys.readouterr()
    assert main(["predict", str(tiled / "slides.csv"), "--trained", str(model), "--run", str(new)]) == 0
    for name in SLIDES:
        assert np.array_equal(features(new, name), features(run, name))
    assert embed(new, "--quiet") == 0
    assert main(["predict", "--trained", str(model), "--run", str(new)]) == 2
    assert "stain_norm none, not macenko" in capsys.readouterr().err


def test_slides_without_patches_or_profile_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stained(tmp_path / "good.svs", 1)
    write_pyramid_tiff(tmp_path / "blank.svs", np.full((512, 512, 3), 243, np.uint8), mpp=0.5)
    (tmp_path / "bad.svs").write_bytes(b"no slide")
    (tmp_path / "slides.csv").write_text("slide_id,path\ngood,good.svs\nblank,blank.svs\nbad,bad.svs\n")
    run = tmp_path / "run"
    words = ["tile", str(tmp_path / "slides.csv"), "--run", str(run), "--patch-px", "256", "--workers", "0"]
    assert main([*words, "--quiet"]) == 3
    assert main(["stain", "--run", str(run)]) == 0
    assert "1 slide without patches or stain profile, not in the table: bad" in capsys.readouterr().out
    table = pd.read_csv(run / "stain" / "macenko" / "stains.csv", keep_default_na=False).set_index("slide_id")
    assert list(table.loc["blank", ["kind", "normalised", "reason"]]) == ["", "no", "no patches"]
    assert main(["stain", "--run", str(run), "--stain-target", "blank"]) == 2
    assert "stain target blank: no patches" in capsys.readouterr().err


def test_without_normalisation_nothing_is_written_or_recorded(run: Path) -> None:
    assert embed(run, "--quiet") == 0
    assert not (run / "stain").exists()
    found = header(run, "pale")
    assert "stain" not in found.extra
    assert "stain" not in found.specs
    assert "stain_norm" not in found.specs["embed"]


def test_a_yaml_with_stain_norm_runs_from_slides_to_a_report(tiled: Path, tmp_path: Path) -> None:
    """Each command of the file gets the key, and the features are those of the single commands."""
    (tiled / "cohort.yaml").write_text(
        f"slides: slides.csv\nrun: {tmp_path / 'whole'}\ntile: {{patch_px: 256, workers: 0}}\n"
        "embed: {model: colour, stain_norm: macenko, stain_target: middle}\n"
        "train-mil: {model: mean, folds: 2, allow_few: true, epochs: 1, permutations: 0}\n"
    )
    assert main(["run", str(tiled / "cohort.yaml"), "--quiet"]) == 0
    whole = tmp_path / "whole"
    shutil.copytree(tiled / "run", tmp_path / "single")
    assert embed(tmp_path / "single", "--stain-norm", "macenko", "--stain-target", "middle", "--quiet") == 0
    for name in SLIDES:
        assert np.array_equal(features(whole, name), features(tmp_path / "single", name))
    assert header(whole, "dark").extra["stain"]["normalised"] is True
    assert header(whole, "ihc").extra["stain"]["normalised"] is False
    metrics = json.loads((whole / "train-mil/colour/mean/metrics.json").read_text())
    assert metrics["stain"]["stain_norm"] == "macenko"
    assert "ihc" in (whole / "report/report.html").read_text()
    assert main(["run", str(tiled / "cohort.yaml"), "--quiet"]) == 0, "a second run has nothing to do"
