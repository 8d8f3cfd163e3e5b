"""Tune as a step of `run cohort.yaml`, and how its progress talks."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from tests.stages.cohorts import write_cohort
from tests.stages.tune_files import BACKBONE, SIDE, write_backbone, write_class_folders
from wsi_pipeline.cli import main
from wsi_pipeline.commands.shell.console import BarProgress, Console, LineProgress, Progress

QUICK = f"""
tune:
  model: {BACKBONE}
  weights: WEIGHTS
  input_px: {SIDE}
  ttp: false
  epochs: 1
  bootstrap: 100
  device: cpu
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, labelled crops and a backbone."""
    place = tmp_path_factory.mktemp("tune-run")
    write_cohort(place, per_class=1, broken=False)
    write_class_folders(place / "crops", groups=4, each=2)
    write_backbone(place / "vit.safetensors")
    return place


def yaml_of(folder: Path, text: str) -> Path:
    path = folder / "cohort.yaml"
    path.write_text("slides: slides.csv\ntile: {patch_px: 128, workers: 0}\n" + text)
    return path


def test_run_tunes_where_its_file_says_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = "vit.safetensors"  # beside the YAML file, wherever we are
    text = "run: with\nlabels: crops\n" + QUICK.replace("WEIGHTS", weights)
    assert main(["run", str(yaml_of(folder, text))]) == 0
    said = capsys.readouterr().out
    assert said.index("-- tile") < said.index("-- tune")
    assert "next: wsi-pipeline embed --model pathotune" in said
    assert "All test patches come from one group: no intervals are reported" in said
    assert "bootstrap resamples over" not in said
    assert (folder / "with" / "tune" / "pathotune" / "adapter.safetensors").is_file()
    html = (folder / "with" / "report" / "report.html").read_text()
    assert 'id="tuning"' in html
    assert 'id="cohort"' in html
    assert main(["status", "--run", str(folder / "with")]) == 0
    assert "tune/pathotune/" in capsys.readouterr().out


def test_run_does_not_tune_where_its_file_does_not_say_so(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", str(yaml_of(folder, "run: without\n"))]) == 0
    assert "-- tune" not in capsys.readouterr().out
    assert not (folder / "without" / "tune").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("labels: crops\n", "`labels` needs a section `tune`"),
        ("tune: {method: magic}\n", "method must be one of pathotune, linear"),
        ("tune: {epoch: 3}\n", "tune: unknown key epoch"),
        ("tune: {crop_px: 5}\n", "crop_px must be 0 or between"),
    ],
)
def test_faults_are_found_before_the_first_slide(
    folder: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", str(yaml_of(folder, "run: never\n" + text))]) == 2
    assert told in capsys.readouterr().err
    assert not (folder / "never").exists()


def test_labels_of_a_run_without_any_are_asked_for(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(folder / "bare")
    assert main(["tile", str(folder / "slides.csv"), "--run", run, "--workers", "0", "--quiet"]) == 0
    assert main(["tune", "--no-ttp", "--run", run]) == 2
    assert "no labelled patches" in capsys.readouterr().err


def test_lines_between_stand_by_themselves_in_a_file_and_are_kept_back_when_quiet() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for out, quiet, kind in (
        (io.StringIO(), False, LineProgress),
        (Terminal(), False, BarProgress),
        (io.StringIO(), True, Progress),
    ):
        with Console(out, quiet=quiet).progress("tune", 3, "patches") as step:
            assert type(step) is kind
            step(1)
            step.print_line("epoch 1: [bold]not markup[/bold], loss 0.5")
        assert ("epoch 1: [bold]not markup[/bold], loss 0.5\n" in out.getvalue()) == (not quiet)


@pytest.mark.parametrize("done", [0, 1])
def test_work_refused_before_its_first_step_leaves_no_progress_line(done: int) -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="refused"), Console(out).progress("train", 3, "epochs") as step:
        for _ in range(done):
            step(1)
        raise ValueError("refused")
    assert out.getvalue().count("epochs") == done
