"""Features of TRIDENT and a table of labels, no slide file anywhere: trained, predicted, compared, drawn, reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.exchange import foreign_files as files
from wsi_pipeline.cli import main

QUICK = (
    "--model",
    "abmil",
    "--folds",
    "2",
    "--epochs",
    "20",
    "--learning-rate",
    "0.02",
    "--allow-few",
    "--bootstrap",
    "100",
    "--permutations",
    "20",
)


def cohort(folder: Path, name: str, patients: int, seed: int) -> tuple[str, str]:
    """TRIDENT's folder, and a CSV whose ids have the suffix of the slides."""
    job = folder / name / "10x_64px_0px_overlap"
    for number in range(patients):
        rows = files.features_of(9 + number, 8, seed + number, signal=4.0 * (number % 2))
        files.trident(job / "features_uni_v1" / f"{name}{number}.h5", rows[None], files.coords_of(9 + number)[None])
        files.trident_coords(job / "patches" / f"{name}{number}_patches.h5", files.coords_of(9 + number))
    (job / "_logs_coords.txt").write_text("done")
    table = files.labels_csv(
        folder / f"{name}.csv", [(f"{name}p{k}", f"{name}{k}.svs", "ab"[k % 2]) for k in range(patients)]
    )
    return str(folder / name), str(table)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on one cohort; a run of its own for the predictions of another; both without slides."""
    folder = tmp_path_factory.mktemp("features-from")
    given, table = cohort(folder, "s", 8, 0)
    assert main(["train-mil", "--features-from", given, "--labels", table, "--run", str(folder / "run"), *QUICK]) == 0
    new, labels = cohort(folder, "n", 4, 100)
    trained = str(folder / "run/train-mil/uni_v1/abmil")
    words = ["predict", "--features-from", new, "--labels", labels, "--trained", trained, "--run", str(folder / "new")]
    assert main(words) == 0
    return folder


def test_training(run: Path) -> None:
    metrics = json.loads((run / "run/train-mil/uni_v1/abmil/metrics.json").read_text())
    assert metrics["n_patients"] == 8
    assert metrics["left_out"] == {}
    table = pd.read_csv(run / "run/train-mil/uni_v1/abmil/predictions.csv")
    assert sorted(table["slide_id"]) == [f"s{k}" for k in range(8)]
    config = json.loads((run / "run/train-mil/uni_v1/abmil/config.json").read_text())
    assert config["encoder"] == {"name": "uni_v1", "dim": 8, "fingerprint": ""}
    assert config["provenance"]["specs"] == {
        "import": {"tool": "TRIDENT", "patch_px": 64, "mpp": None, "magnification": 10.0, "overlap_px": 0}
    }


def metrics_of(folder: Path, name: str) -> Any:
    return json.loads((folder / "run/train-mil/uni_v1" / name / "metrics.json").read_text())


def test_labels_of_a_column_that_is_named(tmp_path: Path) -> None:
    given, table = cohort(tmp_path, "s", 6, 0)
    labels = pd.read_csv(table).rename(columns={"label": "KRAS"})
    labels.to_csv(table, index=False)
    words = ["train-mil", "--features-from", given, "--labels", table, "--run", str(tmp_path / "run"), *QUICK]
    assert main([*words, "--label-column", "KRAS"]) == 0
    found = metrics_of(tmp_path, "abmil.KRAS")
    assert (found["label_column"], found["n_patients"]) == ("KRAS", 6)


def test_options_of_a_table_that_is_not_given_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train-mil", "--run", str(run / "run"), "--label-column", "KRAS", *QUICK]) == 2
    said = capsys.readouterr().err
    assert "--features-from, which is missing" in said
    assert "--clinical TABLE --target COLUMN" in said


@pytest.mark.parametrize("with_labels", [True, False])
def test_a_clinical_table_beside_foreign_features(
    tmp_path: Path, with_labels: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row a patient, beside a table that says whose slides they are; or one row a slide, and no other table."""
    given, table = cohort(tmp_path, "s", 6, 0)
    slides = pd.read_csv(table)
    slides.drop(columns="label").to_csv(table, index=False)
    ids = slides["case_id"] if with_labels else slides["slide_id"].str.removesuffix(".svs")
    clinical = tmp_path / "clini.xlsx"
    pd.DataFrame({"PATIENT" if with_labels else "slide": ids, "KRAS": slides["label"], "MSI": list("xxyyxy")}).to_excel(
        clinical, index=False
    )
    words = ["train-mil", "--features-from", given, "--clinical", str(clinical), "--run", str(tmp_path / "run"), *QUICK]
    more = ["--labels", table] if with_labels else []
    assert main([*words, *more, "--target", "KRAS", "--target", "MSI"]) == 0
    found = metrics_of(tmp_path, "abmil.KRAS")
    assert found["clinical"]["columns"] == {"label": "KRAS"}
    assert (found["n_slides"], found["left_out"]) == (6, {})
    assert metrics_of(tmp_path, "abmil.MSI")["classes"] == ["x", "y"]


@pytest.mark.parametrize("column", ["PATIENT", "Fall"])
def test_patients_of_a_clinical_table_of_slides_stay_whole(
    tmp_path: Path, column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given, _ = cohort(tmp_path, "s", 12, 0)
    rows = {"slide": [f"s{k}.svs" for k in range(12)], column: [f"P{k % 6}" for k in range(12)]}
    pd.DataFrame({**rows, "KRAS": list("ab") * 6}).to_csv(tmp_path / "clini.csv", index=False)
    words = ["train-mil", "--features-from", given, "--clinical", str(tmp_path / "clini.csv"), "--target", "KRAS"]
    words += ["--run", str(tmp_path / "run"), *QUICK, "--model", "linear"]
    if column == "Fall":
        assert main(words) == 2
        assert "column 'Fall' looks like patients (6 values over 12 slides" in capsys.readouterr().err
        words += ["--patient-column", "Fall"]
    assert main(words) == 0
    assert f"6 patients of 12 slides, by {column!r}" in capsys.readouterr().out
    found = metrics_of(tmp_path, "linear.KRAS")
    assert (found["n_patients"], found["n_slides"]) == (6, 12)
    tested = pd.read_csv(tmp_path / "run/train-mil/uni_v1/linear.KRAS/predictions.csv")
    assert list(tested.groupby("patient_id")["fold"].nunique()) == [1] * 6
    assert pd.read_csv(tmp_path / "run/cohort.csv")["patient_id"].nunique() == 6, "later commands know them, too"


def test_a_slide_that_cannot_be_imported_is_told_by_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, table = cohort(tmp_path, "s", 6, 0)
    files.trident(
        Path(given, "10x_64px_0px_overlap/features_uni_v1/s5.h5"), files.features_of(9, 5), files.coords_of(9)
    )
    words = ["train-mil", "--features-from", given, "--labels", table, "--run", str(tmp_path / "run"), *QUICK]
    assert main(words) == 3
    said = capsys.readouterr().out
    assert "s5.h5 has 5 features per patch" in said
    assert "s5: Take it out of the folder" in said
    assert metrics_of(tmp_path, "abmil")["n_patients"] == 5


def test_prediction_of_another_cohort(run: Path) -> None:
    folder = run / "new/predict/uni_v1/abmil"
    table = pd.read_csv(folder / "predictions.csv")
    assert list(table["slide_id"]) == ["n0", "n1", "n2", "n3"]
    assert list(table["label"]) == list("abab")
    assert np.allclose(table["p_a"] + table["p_b"], 1, atol=1e-5)
    assert set(table["patient_in_training"]) == {"no"}
    assert json.loads((folder / "metrics.json").read_text())["external"]


def test_heatmaps_follow_the_coordinates_and_outlines_have_no_areas_where_the_resolution_is_not_known(
    run: Path,
) -> None:
    stem = run / "run/heatmap/uni_v1/abmil/s1"
    table = pd.read_csv(f"{stem}.csv")
    assert np.array_equal(table[["x", "y"]], files.coords_of(10))
    picture = np.asarray(Image.open(f"{stem}.png").convert("RGB"))
    columns = int(np.flatnonzero((picture[:700] < 240).any(axis=(0, 2))).max()) + 1
    assert picture.shape[1] == files.WIDTH
    assert columns == 2 * 128  # ten patches, six in a column
    outlines = json.loads(Path(f"{stem}.geojson").read_text())
    assert outlines["features"]
    corners = {tuple(np.asarray(f["geometry"]["coordinates"][0]).min(axis=0)) for f in outlines["features"]}
    strongest = table.loc[table["attention"].idxmax()]
    assert (strongest["x"], strongest["y"]) in corners
    assert corners <= set(map(tuple, files.coords_of(10).astype(float)))
    assert all("area_um2" not in feature["properties"] for feature in outlines["features"])
    assert not Path(f"{stem}.patches.jpg").exists()


def test_the_report_says_whose_features_they_are(run: Path) -> None:
    page = (run / "run/report/report.html").read_text()
    assert "TRIDENT" in page
    assert "train-mil --features-from" in page
    assert "file not found" not in page


def test_comparison(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--run", str(run / "run"), *QUICK]
    assert main(["train-mil", *words, "--name", "again", "--seed", "1"]) == 0
    both = [str(run / "run/train-mil/uni_v1" / name) for name in ("abmil", "again")]
    capsys.readouterr()
    assert main(["compare", *both, "--bootstrap", "100"]) == 0
    assert "of 8 patients" in capsys.readouterr().out


def test_a_model_of_imported_features_is_not_used_on_slides(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = str(run / "run/train-mil/uni_v1/abmil")
    assert main(["predict", "slides.csv", "--trained", trained, "--run", str(run / "other")]) == 2
    said = capsys.readouterr().err
    assert "trained on patches of TRIDENT" in said
    assert "predict --features-from FOLDER" in said


def test_other_patches_than_those_of_training_are_refused(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run / "coarse" / "features_uni_v1"
    files.trident(folder / "c1.h5", files.features_of(9), files.coords_of(9), target_magnification=5)
    trained = str(run / "run/train-mil/uni_v1/abmil")
    words = ["predict", "--features-from", str(folder), "--trained", trained, "--run", str(run / "coarse-run")]
    assert main(words) == 2
    assert "magnification 5.0, not 10.0" in capsys.readouterr().err


def test_training_without_labels_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given, _ = cohort(tmp_path, "s", 2, 0)
    assert main(["train-mil", "--features-from", given, "--run", str(tmp_path / "run")]) == 2
    assert "--features-from needs labels to train on" in capsys.readouterr().err
    assert main(["train-mil", "--labels", "x.csv", "--run", str(tmp_path / "run")]) == 2
    assert "labels and encoder belong to features_from" in capsys.readouterr().err.replace("--", "").replace("-", "_")


def test_a_plan_without_slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are taken from the folder of the YAML file; nothing is tiled."""
    cohort(tmp_path, "s", 8, 0)
    plan = {"model": "abmil", "folds": 2, "epochs": 1, "allow_few": True, "bootstrap": 100, "permutations": 0}
    section = {"features_from": "s", "labels": "s.csv", **plan}
    (tmp_path / "plan.yaml").write_text(json.dumps({"run": "run", "train-mil": section}))
    monkeypatch.chdir("/")
    assert main(["run", str(tmp_path / "plan.yaml")]) == 0
    assert (tmp_path / "run/train-mil/uni_v1/abmil/metrics.json").is_file()
    assert not (tmp_path / "run/tile").exists()
