"""train-mil asks whose slides these are where the table may hold patients, and claims no more than it was told."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import read_cohort, to_csv
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.store.schema import FEATURE_FORMAT, Header, SlideIdentity
from wsi_pipeline.store.tables.feature_table import write_features
from wsi_pipeline.tiling.resolve import PatchGeometry

GEOMETRY = PatchGeometry(
    patch_px=256, patch_level0=256, stride_level0=256, level=0, level_px=256, mpp=0.5, resampled=False
)
SPECS = {"segment": {}, "tile": {"patch_px": 256, "mpp": 0.5, "overlap_px": 0}, "embed": {"model": "colour"}}
CLAIM = "never saw its patient"


def run_of(folder: Path, column: str, slide: str = "x{n}", patients: int = 10) -> RunDir:
    """A run with features of `patients` patients with two slides each, who are named in a column."""
    run = RunDir(folder / "run")
    rng = np.random.default_rng(0)
    rows = [f"{column},slide_id,label"]
    for n in range(2 * patients):
        name = slide.format(n=n, p=n // 2, k=n % 2)
        rows.append(f"Q{n // 2},{name},{'ab'[n // 2 % 2]}")
        digest = hashlib.sha256(name.encode()).hexdigest()
        identity = SlideIdentity(name, f"{name}.svs", 512, 512, "aperio", "openslide", 20.0, 0.5, 0.5, "slide", digest)
        header = Header(FEATURE_FORMAT, "d", "p", identity, SPECS, {"encoder": {"name": "colour", "fingerprint": "f"}})
        path = run.feature_store("colour", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        coords = np.array([[0, 0], [256, 0]], np.int64)
        write_features(path, header, GEOMETRY, coords, rng.normal(size=(2, 4)).astype(np.float16))
    (folder / "slides.csv").write_text("\n".join(rows) + "\n")
    run.cohort_csv.write_text(to_csv(read_cohort([folder / "slides.csv"])))
    return run


def train(run: RunDir, capsys: pytest.CaptureFixture[str], *more: str) -> tuple[int, str]:
    quick = ["--model", "mean", "--epochs", "1", "--folds", "2", "--permutations", "0", "--bootstrap", "100"]
    code = main(["train-mil", "--run", str(run.root), *quick, *more])
    said = capsys.readouterr()
    return code, said.out + said.err


def metrics(run: RunDir) -> dict[str, object]:
    return dict(json.loads((run.mil("colour", "mean") / "metrics.json").read_text()))


@pytest.mark.parametrize(
    ("column", "slide", "answer"),
    [("Zuordnung", "x{n}", "--patient-column Zuordnung"), ("scanner", "P{p:02d}_{k}", "Add a column patient_id")],
)
def test_refused_until_it_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], column: str, slide: str, answer: str
) -> None:
    run = run_of(tmp_path, column, slide)
    code, said = train(run, capsys)
    assert code != 0
    assert "the patients of these slides are not known" in said
    assert answer in said
    assert not run.mil("colour", "mean").exists()
    code, said = train(run, capsys, "--each-slide-a-patient")
    assert code == 0
    assert CLAIM not in said
    assert "one slide per patient, as stated" in said
    assert metrics(run)["n_patients"] == 20
    assert "up to date" in train(run, capsys)[1], "said once, the run knows"


def test_the_column_that_is_named_gives_the_patients(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "Zuordnung")
    code, said = train(run, capsys, "--patient-column", "Zuordnung")
    assert code == 0
    assert CLAIM in said
    assert metrics(run)["n_patients"] == 10
    assert "patients" not in metrics(run)
    assert "up to date" in train(run, capsys)[1]
    assert "up to date" in train(run, capsys, "--patient-column", "zuordnung")[1]
    folds = (run.mil("colour", "mean") / "folds.csv").read_text().splitlines()[1:]
    tested = [line.split(",")[4] for line in folds if line.split(",")[2] == "test"]
    assert sorted(tested) == sorted(f"Q{n // 2}" for n in range(20))


def test_where_nothing_looks_like_patients_nothing_is_claimed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(tmp_path, "scanner")
    code, said = train(run, capsys)
    assert code == 0
    assert CLAIM not in said
    assert "Patients are not known: each slide counts as one" in " ".join(said.split())
    assert "bootstrap resamples of 20 slides" in " ".join(said.split())
    assert metrics(run)["patients"] == "not known"
    report = run.report_html.read_text()
    assert "Patients are not known: each slide counts as one" in report
    assert "20 patients" not in report
    assert "resamples of patients" not in report
    assert "over patients" not in report


def test_positive_is_chosen_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "pid")
    assert train(run, capsys, "--positive", "a")[0] == 0
    assert metrics(run)["classes"] == ["b", "a"]
