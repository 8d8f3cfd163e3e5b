"""`compare` with a table of another program's predictions: the same patients, the values of direct computation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from tests.stages.feature_runs import QUICK, cohort, trained
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.errors import MilError
from wsi_pipeline.stages.outputs.class_columns import class_columns
from wsi_pipeline.statistics.delong import delong, difference
from wsi_pipeline.statistics.survival_metrics import concordance

N = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training on 20 patients, every second one with two slides; and one of survival."""
    run = RunDir(tmp_path_factory.mktemp("foreign") / "run")
    labels = ["mut" if i % 2 else "wt" for i in range(N)]
    records = cohort(run, "p", N, slides=(1, 2), label=labels, time=[1.0 + i for i in range(N)], event=[1] * N)
    quick = replace(QUICK, epochs=3)
    trained(run, records, replace(quick, task="survival"), name="survival")
    return trained(run, records, quick).folder


def ours(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "predictions.csv")


def theirs(folder: Path, seed: int = 1) -> pd.DataFrame:
    """A row for each of our slides, a probability that knows a little of the truth."""
    table = ours(folder)
    p = np.clip((table["label"] == "mut") * 0.3 + np.random.default_rng(seed).uniform(0.1, 0.6, len(table)), 0, 1)
    return pd.DataFrame({"slide_id": table["slide_id"], "p_mut": p, "p_wt": 1 - p})


def compare(folder: Path, table: pd.DataFrame, path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[dict, str]:
    table.to_csv(path / "theirs.csv", index=False)
    words = [str(folder), str(path / "theirs.csv"), "--json", str(path / "out.json"), "--bootstrap", "200"]
    code = main(["compare", *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return json.loads((path / "out.json").read_text())[0], said.out


def test_values_and_delong_are_those_of_direct_computation(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = theirs(folder)
    shuffled = table.sample(frac=1, random_state=0).assign(slide_id=lambda t: "x/" + t["slide_id"] + ".svs")
    found, said = compare(folder, shuffled.rename(columns={"slide_id": "FILENAME"}), tmp_path, capsys)
    mine = ours(folder)
    truth = (mine["label"] == "mut").to_numpy()
    both = [mine["p_mut"].to_numpy(), table["p_mut"].to_numpy()]
    positive = found["delong"]["class"]
    for side, p in zip("ab", both, strict=True):
        assert found["metrics"]["auroc"][side] == pytest.approx(roc_auc_score(truth, p), abs=1e-9)
    assert found["metrics"]["balanced_accuracy"]["b"] == pytest.approx(balanced_accuracy_score(truth, both[1] > 0.5))
    scores = np.stack([(p if positive == "mut" else 1 - p)[None] for p in both])
    patient = pd.factorize(mine["patient_id"])[0].astype(np.int64)
    direct = difference(delong(mine["label"].to_numpy() == positive, scores, patient), 0, 1, 0.95)
    assert found["delong"]["difference"] == pytest.approx(direct.value, abs=1e-6)
    assert found["delong"]["p_value"] == pytest.approx(direct.p_value, abs=1e-5)
    assert (found["n_patients"], found["n_slides"]) == (20, 30)
    assert "compared on 30 slides that both have; left out: 0 of" in said


def clam(folder: Path, **codes: int) -> pd.DataFrame:
    """As CLAM's eval.py writes a fold: slide_id, Y, Y_hat, p_0, p_1; `codes` are those of its label_dict."""
    table, truth = theirs(folder), ours(folder)["label"].to_numpy()
    made = pd.DataFrame({"slide_id": table["slide_id"], "Y": [float(codes[name]) for name in truth], "Y_hat": 0.0})
    return made.assign(**{f"p_{codes[name]}": table[f"p_{name}"] for name in ("mut", "wt")})


@pytest.mark.parametrize("codes", [{"wt": 0, "mut": 1}, {"mut": 0, "wt": 1}])
def test_classes_that_clam_numbers_are_named_by_its_own_labels(
    folder: Path, tmp_path: Path, codes: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    found, said = compare(folder, clam(folder, **codes), tmp_path, capsys)
    truth = (ours(folder)["label"] == "mut").to_numpy()
    assert found["metrics"]["auroc"]["b"] == pytest.approx(roc_auc_score(truth, theirs(folder)["p_mut"]), abs=1e-9)
    assert f"p_{codes['mut']} is the probability of mut" in said


def test_classes_that_cannot_be_named_so_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One slide whose Y contradicts the others: which number is which class is not known."""
    table = clam(folder, wt=0, mut=1)
    table.loc[0, "Y"] = 1 - table.loc[0, "Y"]
    table.to_csv(tmp_path / "theirs.csv", index=False)
    assert main(["compare", str(folder), str(tmp_path / "theirs.csv")]) == 2
    said = capsys.readouterr().err
    assert "counts its classes by number (p_0, p_1)" in said
    assert "Rename these columns by class: p_mut, p_wt" in said


def test_only_what_both_have_is_compared_and_the_rest_is_counted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = theirs(folder).iloc[5:].astype({"p_mut": object, "p_wt": object})
    table.iloc[0, 1:] = ""
    more = pd.DataFrame({"slide_id": ["new1", "new2"], "p_mut": [0.1, 0.2], "p_wt": [0.9, 0.8]})
    found, said = compare(folder, pd.concat([table, more]), tmp_path, capsys)
    kept = ours(folder).iloc[6:]
    assert found["n_slides"] == 24
    expected = roc_auc_score(kept["label"] == "mut", kept["p_mut"])
    assert found["metrics"]["auroc"]["a"] == pytest.approx(expected, abs=1e-9), "ours on the same slides"
    assert f"left out: 6 of {folder}, 3 of" in said


def test_rows_of_patients_are_compared_with_the_mean_of_our_slides(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = ours(folder).groupby("patient_id", as_index=False).agg(label=("label", "first"), p=("p_mut", "mean"))
    p = np.random.default_rng(2).uniform(size=len(mine))
    table = pd.DataFrame({"PATIENT": mine["patient_id"].str.upper(), "KRAS_mut": p, "KRAS_wt": 1 - p})
    found, said = compare(folder, table, tmp_path, capsys)
    truth = mine["label"] == "mut"
    assert (found["n_patients"], found["n_slides"]) == (20, 20)
    assert found["metrics"]["auroc"]["a"] == pytest.approx(roc_auc_score(truth, mine["p"]), abs=1e-6)
    assert found["metrics"]["auroc"]["b"] == pytest.approx(roc_auc_score(truth, p), abs=1e-9)
    assert "20 patient ids" in said


def test_risks_are_compared_by_their_order(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    survival = folder.parent / "survival"
    mine = ours(survival)
    risk = -mine["time"] + np.random.default_rng(3).normal(0, 6, len(mine))
    found, said = compare(survival, pd.DataFrame({"slide": mine["slide_id"], "risk_score": risk}), tmp_path, capsys)
    weights = np.ones((1, len(mine)))
    time, event = mine["time"].to_numpy(float), mine["event"].to_numpy() == 1
    assert list(found["metrics"]) == ["c_index"]
    assert found["metrics"]["c_index"]["b"] == pytest.approx(concordance(time, event, risk.to_numpy(), weights)[0])
    assert "'risk_score' is taken as the risk" in said


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.assign(p_mut=t["p_mut"] * 100), "a probability lies between 0 and 1"),
        (lambda t: t.drop(columns=["p_mut", "p_wt"]), "has no probability of each class (mut, wt)"),
        (lambda t: t.rename(columns={"p_mut": "p_0", "p_wt": "p_1"}), "counts its classes by number (p_0, p_1)"),
        (lambda t: pd.concat([t, t.iloc[:2]]), "has several rows for 2 slides"),
        (lambda t: t.assign(slide_id="q" + t["slide_id"]), "holds 'qp0-0'"),
        (lambda t: t.assign(label="mut"), "'label' of"),
        (lambda t: t.assign(p_mut="high"), "must be a number"),
        (lambda t: t.assign(prob_a_mut=t["p_mut"], prob_a_wt=0.1).drop(columns=["p_mut", "p_wt"]).assign(
            prob_b_mut=0.1, prob_b_wt=0.1), "several columns for each class"),
    ],
)  # fmt: skip
def test_tables_that_cannot_be_compared_are_refused(
    folder: Path, tmp_path: Path, change, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(theirs(folder)).to_csv(tmp_path / "theirs.csv", index=False)
    assert main(["compare", str(folder), str(tmp_path / "theirs.csv")]) == 2
    assert told in capsys.readouterr().err
    assert main(["compare", str(tmp_path / "theirs.csv"), str(tmp_path / "theirs.csv")]) == 2
    assert "both tables of predictions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("header", "classes", "places"),
    [
        (["id", "p_b", "p_a"], ["a", "b"], {"a": 2, "b": 1}),
        (["id", "isMSI_MSI-H", "isMSI_nonMSI-H"], ["MSI-H", "nonMSI-H"], {"MSI-H": 1, "nonMSI-H": 2}),
        (["id", "a_prob", "b_prob"], ["a", "b"], {"a": 1, "b": 2}),
        (["id", "fold_1", "p_1", "p_0", "fold_0"], ["0", "1"], {"0": 3, "1": 2}),
        (["id", "A", "B", "C"], ["a", "b", "c"], {"a": 1, "b": 2, "c": 3}),
        (["id", "p_mut"], ["mut", "wt"], {"mut": 1}),
        (["id", "score"], ["mut", "wt"], {"wt": 1}),
        (["id", "p_+", "p_-"], ["-", "+"], {"-": 2, "+": 1}),
    ],
)
def test_columns_of_classes(header: list[str], classes: list[str], places: dict[str, int]) -> None:
    assert class_columns(header, classes, "t.csv").places == places


def test_too_few_columns_are_refused() -> None:
    with pytest.raises(MilError, match="no probability of each class"):
        class_columns(["id", "p_a", "p_b"], ["a", "b", "c"], "t.csv")
