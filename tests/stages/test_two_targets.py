"""Two columns of labels in one run: a training each, and no model is measured on the labels of the other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.stages.cohorts import write_cohort
from tests.stages.test_patients_asked import run_of, train
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.manifest import read_cohort, to_csv
from wsi_pipeline.cohort.run_dir import RunDir


def read_table(run: RunDir, column: str) -> None:
    run.cohort_csv.write_text(to_csv(read_cohort([run.root.parent / "slides.csv"], label_column=column)))


def test_each_target_has_its_training_and_its_predictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "case_id")
    table = tmp_path / "slides.csv"
    header, *rows = table.read_text().splitlines()
    lines = [f"{row},{'mw'[k // 4 % 2]},{'wm'[k // 2 % 2]}" for k, row in enumerate(rows)]
    table.write_text("\n".join([f"{header},kras,msi", *lines]) + "\n")
    for column in ("kras", "msi"):
        read_table(run, column)
        code, said = train(run, capsys)
        assert code == 0, said
        folder = run.mil("colour", f"mean.{column}")
        assert json.loads((folder / "metrics.json").read_text())["label_column"] == column
        assert column in (run.root / "report" / "report.html").read_text()
    predict = ["predict", "--run", str(run.root), "--trained"]
    assert main([*predict, str(run.mil("colour", "mean.msi"))]) == 0
    assert "not compared" not in "".join(capsys.readouterr())
    assert (run.predict("colour", "mean.msi") / "metrics.json").is_file()
    assert main([*predict, str(run.mil("colour", "mean.kras"))]) == 0
    assert "from the column msi, the model predicts kras" in "".join(capsys.readouterr())
    assert not (run.predict("colour", "mean.kras") / "metrics.json").exists()


def test_two_survival_outcomes_stand_side_by_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, "case_id")
    table = tmp_path / "slides.csv"
    header, *rows = table.read_text().splitlines()

    def survival(names: str, shift: int) -> None:
        lines = [f"{row},{3 + shift * (k // 2) % 17},{k // 2 % 3 % 2}" for k, row in enumerate(rows)]
        table.write_text("\n".join([f"{header},{names}", *lines]) + "\n")
        run.cohort_csv.write_text(to_csv(read_cohort([table])))

    for names, shift, name in (("OS.time,OS", 2, ".os"), ("PFS.time,PFS", 6, ".pfs"), ("time,event", 10, "")):
        survival(names, shift)
        code, said = train(run, capsys, "--task", "survival")
        assert code == 0, said
        found = json.loads((run.mil("colour", f"mean.survival{name}") / "metrics.json").read_text())
        assert found.get("endpoint", "") == name.removeprefix(".")
    survival("PFS.time,PFS", 6)
    capsys.readouterr()
    for endpoint, measured in (("os", False), ("pfs", True)):
        trained = run.mil("colour", f"mean.survival.{endpoint}")
        assert main(["predict", "--run", str(run.root), "--trained", str(trained)]) == 0
        said = "".join(capsys.readouterr())
        assert ("are PFS, the model predicts OS" in said) is not measured
        assert (run.predict("colour", f"mean.survival.{endpoint}") / "metrics.json").exists() is measured


def test_a_changed_label_redoes_no_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write_cohort(tmp_path / "slides", per_class=1, broken=False)
    words = ["tile", str(table), "--run", str(tmp_path / "run"), "--workers", "0"]
    assert main(words) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "tile").iterdir()}
    table.write_text(table.read_text().replace(",a,", ",changed,"))
    capsys.readouterr()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "2 up to date" in said
    assert "recomputed" not in said
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "tile").iterdir()} == before
    labels = {record.label for record in read_cohort([tmp_path / "run" / "cohort.csv"]).records}
    assert labels == {"changed", "b"}
