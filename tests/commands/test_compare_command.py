"""`compare` on trainings of two runs: table, sentence, JSON, and refusals in words."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.mil.synthetic import QUICK, planted
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import EmbedSpec, MilSpec, SegmentSpec, TileSpec
from wsi_pipeline.stages.inputs.slide_bags import SlideBags
from wsi_pipeline.stages.results.trainings import Training, read_training
from wsi_pipeline.stages.train_mil import train

TINY = replace(QUICK, model="mean", epochs=6, bootstrap=100, folds=3, permutations=20)


def trained(
    folder: Path, spec: MilSpec = TINY, *, encoder: str = "colour", n: int = 36, specs: Mapping[str, Any] | None = None
) -> Training:
    bags, table = planted(n, slides_per_patient=2)
    digests = dict.fromkeys(table["slide_id"], "d")
    slides = SlideBags(table, bags, {"name": encoder}, specs or {}, digests, {})
    return train(RunDir(folder), encoder, slides.for_training(spec), spec, device="cpu")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    trained(root / "one")
    trained(root / "two", replace(TINY, choose="mean,max learning_rate=1e-2,1e-3"))
    trained(root / "two", replace(TINY, learning_rate=1e-6))
    trained(root / "fewer", n=30)
    return root


def test_two_trainings_are_compared_in_a_table_a_sentence_and_json(
    runs: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    a, b = runs / "one" / "train-mil" / "colour" / "mean", runs / "two" / "train-mil" / "colour" / "chosen"
    assert main(["compare", str(a), str(b), "--json", str(tmp_path / "out.json"), "--bootstrap", "200"]) == 0
    out = capsys.readouterr().out
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert found["sentence"] in out
    assert found["sentence"].endswith("18 patients")
    assert "AUROC of tumour: B - A" in out
    metrics = [json.loads((folder / "metrics.json").read_text())["pooled"] for folder in (a, b)]
    for side, pooled in zip("ab", metrics, strict=True):
        for name, entry in found["metrics"].items():
            assert entry[side] == pytest.approx(pooled[name]["value"], abs=1e-6), name


def test_of_two_runs_the_models_both_have_are_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(runs / "one"), str(runs / "two"), "--model", "mean", "--bootstrap", "100"]) == 0
    out = capsys.readouterr().out
    assert out.count("B's AUROC") == 1
    assert "B's AUROC is lower by" in out


def test_patches_that_were_found_or_laid_otherwise_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As `predict` tells it; a training that does not say how its patches were made is said to differ in nothing."""
    network = {"tissue": {"network": "HEST's network", "mpp": 1.0, "sha256": "ab" * 32}}
    plain = {"segment": vars(SegmentSpec()), "tile": TileSpec().facts(), "embed": EmbedSpec().facts()}
    other = {
        "segment": vars(SegmentSpec(method="hest")),
        "tile": TileSpec(min_coverage=0.5, patch_px=512).facts(),
        "embed": EmbedSpec(stain_norm="macenko").facts(),
        "networks": network,
    }
    for name, specs in (("plain", plain), ("same", plain), ("other", other), ("silent", {})):
        trained(tmp_path / name, specs=specs)
    told = {}
    for name in ("same", "other", "silent"):
        assert main(["compare", str(tmp_path / "plain"), str(tmp_path / name), "--bootstrap", "100"]) == 0
        told[name] = " ".join(capsys.readouterr().out.split())
    assert (
        "their patches differ: B has patch_px 512, not 256; method hest, not hybrid; network for tissue: HEST's "
        "network (weights abababababab), not none; min_coverage 0.5, not 0.25" in told["other"]
    )
    assert "patches differ" not in told["same"] + told["silent"]
    assert told["other"].count("macenko") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["one"], "compare needs two runs"),
        (["one", "one"], "cannot be compared with itself"),
        (["one", "nowhere"], "no trained model in"),
        (["one", "two", "--model", "clam-sb"], "no such trained model"),
        (["one", "fewer"], "only A has s030, s031, s032, s033, s034 and 1 more"),
    ],
)
def test_refusals(runs: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(runs / word) if word in ("one", "two", "fewer", "nowhere") else word for word in words]
    assert main(["compare", *paths]) == 2
    assert told in capsys.readouterr().err


def test_a_choice_is_a_training_of_its_own_and_read_back_up_to_date(runs: Path) -> None:
    again = trained(runs / "two", replace(TINY, choose="mean,max learning_rate=1e-2,1e-3"))
    assert again.fresh
    assert again.metrics["model"] == "chosen"
    assert all(set(fold["chosen"]) == {"model", "learning_rate"} for fold in again.metrics["folds"])


def test_bags_of_patients_have_no_slide_id(tmp_path: Path) -> None:
    spec = replace(TINY, bag="patient")
    training = trained(tmp_path, spec)
    known = read_training(training.folder)
    assert known is not None
    assert list(known.predictions.columns[:4]) == ["patient_id", "repeat", "fold", "label"]
    assert known.metrics["bag"] == "patient"
    assert known.metrics["n_patients"] == 18
    assert "n_slides" not in known.metrics
    pd.testing.assert_frame_equal(known.predictions, training.predictions, atol=1e-7)
    assert np.isfinite(known.metrics["pooled"]["auroc"]["value"])


def test_numbers_are_read_back_as_numbers(tmp_path: Path) -> None:
    bags, table = planted(36)
    table["label"] = np.linspace(-1, 1, 36)
    slides = SlideBags(table, bags, {"name": "colour"}, {}, dict.fromkeys(table["slide_id"], "d"), {})
    training = train(RunDir(tmp_path), "colour", slides, replace(TINY, task="regression"), device="cpu")
    known = read_training(training.folder)
    assert known is not None
    np.testing.assert_allclose(known.predictions["label"], training.predictions["label"].astype(float))
    assert known.predictions["predicted"].dtype == np.float64


_HEAVY = """
import sys
from wsi_pipeline.cli import main
assert main({words!r}) == 0
heavy = {{"torch", "sklearn", "scipy.stats", "scipy.special", "tiffslide", "zarr"}}
print("IMPORTED", *sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize(
    "words", ["compare {0}/one {0}/two --model mean", "status --run {0}/one", "report --run {0}/one"]
)
def test_looking_at_results_imports_no_network_and_no_second_statistics_package(runs: Path, words: str) -> None:
    """Each takes seconds to import; pandas alone reads the tables."""
    RunDir(runs / "one").cohort_csv.write_text("slide_id,path\ns,s.tif\n", encoding="utf-8")
    code = _HEAVY.format(words=words.format(runs).split())
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1].split() == ["IMPORTED"]
