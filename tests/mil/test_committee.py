"""Several models a fold: who trains and stops them, and that they speak as one, on disk too."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.trained.checkpoint import load_ensemble, save_ensemble
from wsi_pipeline.mil.trained.committee import Committee
from wsi_pipeline.mil.trained.inference import attention, contributions, outputs
from wsi_pipeline.mil.validation.crossval import CrossValidation, cross_validate_bags
from wsi_pipeline.splits.assign import make_splits

SPEC = MilSpec(
    model="gated-abmil", hidden_dim=8, attention_dim=4, folds=2, committee=3, epochs=4, bootstrap=100, permutations=0
)


def _table(patients: int = 16, slides: int = 2) -> pd.DataFrame:
    names = [f"p{k:02}" for k in range(patients) for _ in range(slides)]
    labels = ["yes" if int(name[1:]) % 2 else "no" for name in names]
    return pd.DataFrame({"slide_id": [f"s{k:02}" for k in range(len(names))], "patient_id": names, "label": labels})


def _bags(table: pd.DataFrame) -> Bags:
    rng = np.random.default_rng(0)
    shift = (table["label"] == "yes").to_numpy(float)
    arrays = [rng.normal(2 * value, 1, (int(rng.integers(1, 9)), 6)).astype(np.float32) for value in shift]
    return Bags.from_arrays(arrays, list(table["slide_id"]))


@pytest.fixture(scope="module")
def result() -> CrossValidation:
    return cross_validate_bags(_bags(_table()), _table(), SPEC)


def test_every_training_patient_stops_one_member_and_trains_the_others() -> None:
    table = _table()
    for fold in make_splits(table, SPEC).folds:
        assert len(fold.inner) == 3
        assert len(fold.val) == 0
        stopped = np.concatenate([stop for _, stop in fold.inner])
        assert sorted(stopped) == list(fold.train)
        for train, stop in fold.inner:
            assert sorted([*train, *stop]) == list(fold.train)
            assert not set(table["patient_id"].iloc[train]) & set(table["patient_id"].iloc[stop])
            assert set(table["label"].iloc[stop]) == set(table["label"].iloc[train]) == {"yes", "no"}


def test_few_patients_allow_fewer_inner_folds_and_say_so() -> None:
    splits = make_splits(_table(patients=8), SPEC)
    assert {len(fold.inner) for fold in splits.folds} == {2}
    assert "Fold 0: a committee of 3 was requested, but its slides allow only 2." in splits.warnings


def test_given_validation_slides_are_respected() -> None:
    table = _table().assign(split=["train", "val", "test", "train"] * 8)
    table["patient_id"] = table["slide_id"]
    fold = make_splits(table, SPEC).folds[0]
    assert not fold.inner
    assert len(fold.val) == 8


def test_thresholds_and_choices_rest_on_all_training_slides(result: CrossValidation) -> None:
    for fold, choice in zip(result.splits.folds, result.choices, strict=True):
        assert sorted(choice.chosen.validation.index) == list(fold.train)
    assert [row["committee"] for row in result.metrics["folds"]] == [3, 3]


def test_cox_risks_of_different_members_are_not_compared() -> None:
    """They have no common zero: the choice rests on pairs that one member has judged."""
    table = _table()
    rng = np.random.default_rng(1)
    table = table.assign(time=rng.exponential(size=16).repeat(2), event=1).drop(columns="label")
    spec = replace(SPEC, task="survival", survival_loss="cox", choose="mean,max", epochs=2)
    found = cross_validate_bags(_bags(_table()), table, spec)
    for fold, choice in zip(found.splits.folds, found.choices, strict=True):
        member = {row: k for k, (_, stop) in enumerate(fold.inner) for row in stop}
        for candidate in choice.candidates:
            told = candidate.validation.assign(fold=[member[row] for row in candidate.validation.index])
            assert candidate.selection == choice.task.evaluate(told).selection()
            assert candidate.selection != choice.task.evaluate(told.drop(columns="fold")).selection()


def test_a_committee_is_the_mean_of_its_members(result: CrossValidation) -> None:
    bags = _bags(_table())
    for fitted in result.fitted:
        committee = fitted.model
        assert isinstance(committee, Committee)
        for ask, tolerance in ((outputs, 1e-6), (attention, 1e-6), (contributions, 1e-6)):
            each = [ask(member, bags) for member in committee.members]
            assert np.ptp(np.stack(each), axis=0).max() > 0
            np.testing.assert_allclose(ask(committee, bags), np.mean(each, axis=0), atol=tolerance)


def test_a_committee_survives_the_disk(result: CrossValidation, tmp_path: Path) -> None:
    specs = [choice.chosen.spec for choice in result.choices]
    models = [fitted.model for fitted in result.fitted]
    save_ensemble(tmp_path, models, spec=SPEC, task=result.task, specs=specs, encoder={"name": "e"}, provenance={})
    bags = _bags(_table())
    for before, after in zip(models, load_ensemble(tmp_path).models, strict=True):
        assert np.array_equal(outputs(before, bags), outputs(after, bags))


def test_members_differ_in_luck_and_equal_seeds_give_equal_committees(result: CrossValidation) -> None:
    again = cross_validate_bags(_bags(_table()), _table(), SPEC)
    pd.testing.assert_frame_equal(again.predictions, result.predictions)
    first = result.fitted[0].model
    assert isinstance(first, Committee)
    weights = [member.state_dict()["network.head.1.weight"] for member in first.members]
    assert not torch.equal(weights[0], weights[1])


def test_where_nobody_is_set_aside_members_differ_by_their_seeds() -> None:
    found = cross_validate_bags(_bags(_table()), _table(), replace(SPEC, val_fraction=0, epochs=2))
    for fold, fitted in zip(found.splits.folds, found.fitted, strict=True):
        assert [(list(train), len(stop)) for train, stop in fold.inner] == [(list(fold.train), 0)] * 3
        assert len(fitted.history) == 2
        assert isinstance(fitted.model, Committee)
        each = [outputs(member, _bags(_table())) for member in fitted.model.members]
        assert np.ptp(np.stack(each), axis=0).max() > 0
    assert not [text for text in found.metrics["warnings"] if "committee" in text or "validation part" in text]


def test_no_validation_part_at_all_runs_every_epoch() -> None:
    spec = MilSpec(hidden_dim=8, folds=2, val_fraction=0, epochs=3, bootstrap=100, permutations=0)
    found = cross_validate_bags(_bags(_table()), _table(), spec)
    assert [len(fitted.history) for fitted in found.fitted] == [3, 3]
    assert not [text for text in found.metrics["warnings"] if "validation part" in text]
