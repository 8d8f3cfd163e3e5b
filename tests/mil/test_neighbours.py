"""Neighbours by slide embedding, against scikit-learn and against the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score, mean_absolute_error
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.preprocessing import StandardScaler

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.validation.neighbours import Neighbours, same_site, score_neighbours

QUICK = MilSpec(bootstrap=100, permutations=50)


def made(seed: int = 0, patients: int = 20) -> tuple[Any, pd.DataFrame]:
    """Two slides a patient, much alike; classes apart in the first value only."""
    rng = np.random.default_rng(seed)
    of_patient = rng.normal(size=(patients, 6)) * [1, 1, 1, 1, 100, 0]
    of_patient[:, 0] += 3.0 * (np.arange(patients) % 3)
    x = np.repeat(of_patient, 2, axis=0) + 0.01 * rng.normal(size=(2 * patients, 6)) * [1, 1, 1, 1, 1, 0]
    number = np.repeat(np.arange(patients), 2)
    table = pd.DataFrame(
        {
            "slide_id": [f"s{k}" for k in range(2 * patients)],
            "patient_id": [f"p{k}" for k in number],
            "label": ["abc"[k % 3] for k in number],
        }
    )
    return x.astype(np.float32), table


def test_similarity_and_order_are_those_of_scikit_learn() -> None:
    x, table = made()
    expected = cosine_similarity(StandardScaler().fit_transform(x.astype(np.float64)))
    found = Neighbours.of(x, table["patient_id"])
    for row in range(len(x)):
        order, similarity = found.around(row)
        np.testing.assert_allclose(similarity, np.sort(np.delete(expected[row], row))[::-1], atol=1e-9)
        np.testing.assert_allclose(expected[row, order], similarity, atol=1e-9)


def test_slides_of_the_same_patient_are_marked_and_have_no_rank() -> None:
    x, table = made()
    found = Neighbours.of(x, table["patient_id"]).table(table, 3)
    patient = table.set_index("slide_id")["patient_id"]
    for slide, rows in found.groupby("slide_id"):
        own = rows["neighbour"].map(patient) == patient[slide]
        assert list(rows["same_patient"] == "yes") == list(own)
        assert own.sum() == 1  # its patient's other slide is the nearest of all
        assert rows["rank"][own].isna().all()
        assert list(rows["rank"][~own]) == [1, 2, 3]
        assert (rows["similarity"].diff().dropna() <= 0).all()


def test_votes_come_from_other_patients_alone() -> None:
    x, table = made()
    similar = cosine_similarity(StandardScaler().fit_transform(x.astype(np.float64)))
    predicted = []
    for row in range(len(x)):
        others = np.flatnonzero(table["patient_id"] != table["patient_id"][row])
        near = others[np.argsort(-similar[row, others])[:5]]
        votes = table["label"].iloc[near].value_counts()
        tied = votes.index[votes == votes.max()]
        # Of classes with equally many votes, the one whose neighbours have the lower ranks.
        weight = {
            name: sum(5 - k for k, label in enumerate(table["label"].iloc[near]) if label == name) for name in tied
        }
        predicted.append(max(tied, key=weight.__getitem__))
    score = score_neighbours(x, table, 5, QUICK)
    expected = balanced_accuracy_score(table["label"], predicted)
    assert 0.4 < expected < 1  # with the patient's own slide it would be 1
    assert score["pooled"]["balanced_accuracy"]["value"] == pytest.approx(expected)
    assert score["n_patients"] == 20
    assert score["pooled"]["auroc"]["low"] < score["pooled"]["auroc"]["value"] < score["pooled"]["auroc"]["high"]
    assert score["permutation"]["p_value"] < 0.1


def test_without_signal_the_score_is_that_of_chance() -> None:
    x, table = made(patients=40)
    table["label"] = np.random.default_rng(3).permutation(["a", "b"] * 20).repeat(2)
    score = score_neighbours(x, table, 5, QUICK)
    assert score["pooled"]["auroc"]["low"] < 0.5 < score["pooled"]["auroc"]["high"]
    assert score["permutation"]["p_value"] > 0.05


def test_numbers_are_predicted_by_the_mean_of_the_neighbours() -> None:
    x, table = made()
    table["label"] = x[:, 0] * 2 + 1
    spec = MilSpec(task="regression", bootstrap=100, permutations=0)
    near = Neighbours.of(x, table["patient_id"]).others(4)
    expected = mean_absolute_error(table["label"], [table["label"].iloc[rows].mean() for rows in near])
    assert score_neighbours(x, table, 4, spec)["pooled"]["mae"]["value"] == pytest.approx(expected, rel=1e-6)


def test_one_patient_has_no_others() -> None:
    x, table = made(patients=2)
    with pytest.raises(MilError, match="two patients"):
        score_neighbours(x, table.assign(patient_id="p"), 3, QUICK)
    with pytest.raises(MilError, match="at least two slides"):
        Neighbours.of(x[:1], table["patient_id"][:1])


def test_share_of_neighbours_of_the_same_site() -> None:
    x, table = made(patients=12)
    number = np.repeat(np.arange(12), 2)
    assert same_site(x, table, 3) is None
    assert same_site(x, table.assign(site="one"), 3) is None
    apart = x + 1000 * (number % 2)[:, None].astype(np.float32)
    found = same_site(apart, table.assign(site=np.where(number % 2, "n", "s")), 3)
    assert found is not None
    assert found["near"] == 1
    assert found["all"] == pytest.approx(10 / 22)  # 5 of the 11 other patients
