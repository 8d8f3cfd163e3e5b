"""`robustness` on a small run: values, support, what is told, and what is not done twice."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import read_csv
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.stages.measure_robustness import choose_sample, sample_digest


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("robust")
    lines = ["slide_id,path,patient_id,label,site"]
    for number in range(4):
        write_pyramid_tiff(folder / f"s{number}.svs", blob_slide(number, side=768, red=number % 2 == 0), mpp=0.5)
        lines.append(f"s{number},s{number}.svs,p{number},{'ab'[number % 2]},{'xy'[number // 2]}")
    (folder / "slides.csv").write_text("\n".join(lines) + "\n")
    words = ["tile", str(folder / "slides.csv"), "--run", str(folder / "run"), "--patch-px", "64", "--workers", "0"]
    assert main(words) == 0
    return folder / "run"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as lines:
        return list(csv.DictReader(lines))


def test_a_small_run_is_measured_once(run, capsys):
    words = ["robustness", "--run", str(run), "--n-patches", "42", "--device", "cpu"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "42 patches of 4 slides, seed 0" in out
    moved = rows_of(run / "robustness/robustness.csv")
    assert {row["patches"] for row in moved} == {"42"}
    assert {row["slides"] for row in moved} == {"4"}
    values = {(row["kind"], float(row["strength"])): float(row["median"]) for row in moved}
    assert values["rotation", 90] < 1e-4  # statistics of colours do not know how a patch lies
    assert values["gamma", 1.3] > values["gamma", 1.1] > 0
    assert values["jpeg", 30] > values["jpeg", 90]
    near = {row["measure"]: row for row in rows_of(run / "robustness/neighbours.csv")}
    assert near["nearest_other_slide"]["patches"] == "42"
    assert 0 < float(near["nearest_other_slide"]["value"]) <= float(near["nearest_other_site"]["value"])
    assert near["ri"]["patches"] == "42"
    assert (run / "robustness/robustness.svg").read_text().startswith("<svg ")
    before = {path: path.stat().st_mtime_ns for path in (run / "robustness").iterdir()}
    assert main(words) == 0
    assert "colour: up to date" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (run / "robustness").iterdir()} == before


def test_the_sample_is_even_the_same_each_time_and_another_for_another_seed(run):
    records = read_csv(run.parent / "slides.csv").records
    first, again, other = (choose_sample(RunDir(run), records, 18, seed) for seed in (0, 0, 1))
    assert sorted(len(slide.coords) for slide in first) == [4, 4, 5, 5]
    assert all(np.array_equal(a.coords, b.coords) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a.coords, b.coords) for a, b in zip(first, other, strict=True))
    assert sample_digest(first, 0) == sample_digest(again, 0) != sample_digest(other, 1)
    assert sum(len(slide.coords) for slide in choose_sample(RunDir(run), records, 3, 0)) == 3
    most = choose_sample(RunDir(run), records, 10_000, 0)
    assert sum(len(slide.coords) for slide in most) < 10_000


def test_a_slide_that_is_damaged_is_named_and_the_others_are_measured(run, capsys):
    slide = run.parent / "s3.svs"
    whole = slide.read_bytes()
    try:
        slide.write_bytes(whole[:2000])
        assert main(["robustness", "--run", str(run), "--n-patches", "20", "--seed", "5", "--device", "cpu"]) == 3
    finally:
        slide.write_bytes(whole)
    assert "s3 left out: " in "".join(capsys.readouterr())
    result = json.loads((run / "robustness/colour.json").read_text())
    assert sorted(result["slides"]) == ["s0", "s1", "s2"]
    assert {move["patches"] for move in result["movements"]} == {15}


def test_without_sites_the_indices_are_not_made_up(run, tmp_path, capsys):
    text = "\n".join(line.rpartition(",")[0] for line in (run.parent / "slides.csv").read_text().splitlines())
    (run.parent / "plain.csv").write_text(text + "\n")
    words = ["tile", str(run.parent / "plain.csv"), "--run", str(tmp_path / "r"), "--patch-px", "64", "--workers", "0"]
    assert main(words) == 0
    assert main(["robustness", "--run", str(tmp_path / "r"), "--n-patches", "12", "--device", "cpu"]) == 0
    shown = "".join(capsys.readouterr())
    assert "RI, MaRI and CRoMa are not scored: needs two labels and two sites, this sample has 0 and 0" in shown
    near = {row["measure"]: row for row in rows_of(tmp_path / "r/robustness/neighbours.csv")}
    assert (near["ri"]["value"], near["ri"]["patches"]) == ("", "0")


def test_the_report_has_a_section(run):
    words = ["robustness", "--run", str(run), "--n-patches", "42", "--device", "cpu"]
    assert main(words) == 0
    assert main(["report", "--run", str(run)]) == 0
    page = (run / "report/report.html").read_text()
    assert '<section id="robustness">' in page
    assert "nearest patch of another slide" in page


def test_a_run_without_patches_is_refused(tmp_path, capsys):
    write_pyramid_tiff(tmp_path / "blank.svs", np.full((512, 512, 3), 243, np.uint8), mpp=0.5)
    (tmp_path / "slides.csv").write_text("slide_id,path\nblank,blank.svs\n")
    assert main(["tile", str(tmp_path / "slides.csv"), "--run", str(tmp_path / "r"), "--workers", "0"]) == 0
    assert main(["robustness", "--run", str(tmp_path / "r")]) == 2
    told = "".join(capsys.readouterr())
    assert "no slide of this run has patches and can be read" in told
    assert "says why slides are empty" in told
    assert main(["embed", "--run", str(tmp_path / "r")]) == 0
    assert "next: wsi-pipeline train-mil" not in "".join(capsys.readouterr())
    assert main(["train-mil", "--run", str(tmp_path / "r")]) == 2
    told = "".join(capsys.readouterr())
    assert "no slide has patches: blank empty" in told
    assert "Run first: wsi-pipeline embed" not in told
