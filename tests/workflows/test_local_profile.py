"""The workflow on one machine, for real: good slides done, bad ones named, nothing done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.workflows.small_cohort import CONFIG, CORRUPT, MISSING
from tests.workflows.snakemake_calls import in_turn, jobs_of, snakemake

pytest.importorskip("snakemake", reason="snakemake is not installed: pip install 'wsi-pipeline[workflow]'")

STAGES = {"segment", "tile", "embed", "train-mil", "predict", "heatmap", "report"}
BOOKKEEPING = {"status", "locks", "logs", "workflow"}
COHORT_WIDE = dict.fromkeys(("embed_slides", "train_mil", "predict", "heatmap", "report"), 1)
TRAINED = {name: count for name, count in COHORT_WIDE.items() if name != "embed_slides"}
GOOD = {f"s {i}" for i in range(4)}


def test_a_cohort_with_bad_slides_runs_to_its_report(cohort: Path) -> None:
    _an_impossible_training_says_why(cohort)
    done = snakemake(cohort, "local", "--cores", "2")
    assert done.returncode == 0, done.stdout
    assert jobs_of(done.stdout) == TRAINED, "what was done before is not done again"
    told = done.stdout.split("failed in", 1)[1]
    assert CORRUPT in told
    assert MISSING in told
    _all_is_there(cohort / "run")
    _only_what_changed_is_run_again(cohort)


def _an_impossible_training_says_why(cohort: Path) -> None:
    (cohort / "config.yaml").write_text(CONFIG.replace("folds: 2", "folds: 5"))
    done = snakemake(cohort, "local", "--cores", "2")
    (cohort / "config.yaml").write_text(CONFIG)
    assert done.returncode == 1
    assert jobs_of(done.stdout) == {"segment": 2, "tile": 2, "embed": 2} | COHORT_WIDE
    assert "needs at least 5 patients per class" in done.stdout
    assert CORRUPT in done.stdout.split("failed in", 1)[1]
    assert not (cohort / "run" / "workflow" / "train-mil" / "colour.done").exists()


def _all_is_there(run: Path) -> None:
    assert {path.name for path in run.iterdir() if path.is_dir()} == STAGES | BOOKKEEPING
    assert {path.stem for path in (run / "embed" / "colour").glob("*.h5")} == GOOD
    assert {path.stem for path in (run / "embed" / "colour+mean").glob("*.h5")} == GOOD
    assert len((run / "embed" / "colour+mean" / "embeddings.csv").read_text().splitlines()) == 1 + len(GOOD)
    assert {path.stem for path in (run / "heatmap" / "colour" / "gated-abmil").glob("*.png")} == GOOD
    metrics = json.loads((run / "train-mil" / "colour" / "gated-abmil" / "metrics.json").read_text())
    assert metrics["left_out"] == {CORRUPT: "failed in segment", MISSING: "failed in segment"}
    assert (run / "report" / "report.html").is_file()


def _only_what_changed_is_run_again(cohort: Path) -> None:
    """Nothing as it is; dry runs after a change, each of which is undone."""
    marks = sorted((cohort / "run" / "workflow").rglob("*.done"))
    failed = [path for path in marks if "some slides failed" in path.read_text()]
    assert {path.parent.name for path in failed} == {"segment", "tile", "colour"}
    whole = (cohort / "slides.csv").read_text()
    dry = ["--dry-run"]
    again, *changed = in_turn(
        cohort,
        ({}, ["--cores", "2"]),
        ({}, [*dry, "--forcerun", *(str(path.relative_to(cohort)) for path in failed)]),
        ({"slides.csv": whole.replace("p3,b", "p3,a")}, dry),
        ({"slides.csv": whole + "new,s 0.tif,p7,a\n"}, dry),
        ({"slides.csv": whole, "config.yaml": CONFIG.replace("epochs: 3", "epochs: 4")}, dry),
        ({"config.yaml": CONFIG.replace("mpp: 1.0", "mpp: 2.0")}, dry),
        ({"config.yaml": CONFIG, f"{MISSING}.tif": "now there"}, dry),
    )
    assert again[0] == 0
    assert "Nothing to be done" in again[1]
    assert [code for code, _ in changed] == [0] * 6
    forced, label, slide, training, tiling, file = (jobs_of(output) for _, output in changed)
    assert forced == {"segment": 2, "tile": 2, "embed": 2} | COHORT_WIDE
    assert label == {"segment": 1, "tile": 1, "embed": 1} | COHORT_WIDE
    assert slide == {"segment": 2, "tile": 2, "embed": 2} | COHORT_WIDE
    assert training == TRAINED
    assert tiling == {"tile": 2, "embed": 2} | COHORT_WIDE
    assert file == {"segment": 1, "tile": 1, "embed": 1} | COHORT_WIDE


def test_a_wrong_configuration_starts_no_job(cohort: Path) -> None:
    wrong = {
        "mpp must be between": CONFIG.replace("mpp: 1.0", "mpp: -1"),
        "unknown key epoch": CONFIG.replace("epochs", "epoch"),
        "`slides` is missing": CONFIG.replace("slides: slides.csv", ""),
    }
    on_cuda = CONFIG.replace("model: colour", "model: colour, device: cuda")
    runs = [({"config.yaml": text}, ["--cores", "1"]) for text in wrong.values()]
    *refused, planned = in_turn(cohort, *runs, ({"config.yaml": on_cuda}, ["--dry-run"]))
    for message, (code, output) in zip(wrong, refused, strict=True):
        assert code == 1
        assert message in output
    assert not (cohort / "run").exists()
    _an_encoder_on_cuda_asks_for_a_gpu(planned[1])


def _an_encoder_on_cuda_asks_for_a_gpu(output: str) -> None:
    jobs = output.split("rule ")
    assert {re.search(r"gpu=(\d)", job)[1] for job in jobs if job.startswith("embed:")} == {"1"}
    assert {re.search(r"gpu=(\d)", job)[1] for job in jobs if job.startswith("train_mil")} == {"0"}
