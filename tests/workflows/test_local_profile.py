"""The workflow on one machine, for real: good slides done, bad ones named, nothing done twice."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.workflows.small_cohort import CONFIG, CORRUPT, MISSING
from tests.workflows.snakemake_calls import jobs_of, snakemake

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
    again = snakemake(cohort, "local", "--cores", "2")
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout
    failed = [
        path for path in (cohort / "run" / "workflow").rglob("*.done") if "some slides failed" in path.read_text()
    ]
    assert {path.parent.name for path in failed} == {"segment", "tile", "colour"}
    forced = _dry(cohort, "--forcerun", *(str(path.relative_to(cohort)) for path in failed))
    assert jobs_of(forced) == {"segment": 2, "tile": 2, "embed": 2} | COHORT_WIDE
    _changes_run_what_they_touch(cohort)


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


def _changes_run_what_they_touch(cohort: Path) -> None:
    """Dry runs after a change; each change is undone."""
    csv, config = cohort / "slides.csv", cohort / "config.yaml"
    whole = csv.read_text()

    csv.write_text(whole.replace("p3,b", "p3,a"))
    assert jobs_of(_dry(cohort)) == {"segment": 1, "tile": 1, "embed": 1} | COHORT_WIDE, "a label changed"
    csv.write_text(whole + "new,s 0.tif,p7,a\n")
    assert jobs_of(_dry(cohort)) == {"segment": 2, "tile": 2, "embed": 2} | COHORT_WIDE, "a slide was added"
    csv.write_text(whole)

    config.write_text(CONFIG.replace("epochs: 3", "epochs: 4"))
    assert jobs_of(_dry(cohort)) == TRAINED, "a training option changed"
    config.write_text(CONFIG.replace("mpp: 1.0", "mpp: 2.0"))
    assert jobs_of(_dry(cohort)) == {"tile": 2, "embed": 2} | COHORT_WIDE, "a tiling option changed"
    config.write_text(CONFIG)

    (cohort / f"{MISSING}.tif").write_bytes((cohort / "s 0.tif").read_bytes())
    assert jobs_of(_dry(cohort)) == {"segment": 1, "tile": 1, "embed": 1} | COHORT_WIDE, "a file came"


def _dry(cohort: Path, *words: str) -> str:
    done = snakemake(cohort, "local", "--dry-run", *words)
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mpp: 1.0", "mpp: -1", "mpp must be between"),
        ("epochs", "epoch", "unknown key epoch"),
        ("slides: slides.csv", "", "`slides` is missing"),
    ],
)
def test_a_wrong_configuration_starts_no_job(cohort: Path, old: str, new: str, message: str) -> None:
    (cohort / "config.yaml").write_text(CONFIG.replace(old, new))
    done = snakemake(cohort, "local", "--cores", "1")
    assert done.returncode == 1
    assert message in done.stdout
    assert not (cohort / "run").exists()


def test_an_encoder_on_cuda_asks_for_a_gpu(cohort: Path) -> None:
    (cohort / "config.yaml").write_text(CONFIG.replace("model: colour", "model: colour, device: cuda"))
    jobs = _dry(cohort).split("rule ")
    assert {re.search(r"gpu=(\d)", job)[1] for job in jobs if job.startswith("embed:")} == {"1"}
    assert {re.search(r"gpu=(\d)", job)[1] for job in jobs if job.startswith("train_mil")} == {"0"}
