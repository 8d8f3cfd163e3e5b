"""The grid of --choose: what it spells, and what it refuses in words."""

from __future__ import annotations

import pytest

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import UsageError
from wsi_pipeline.mil.validation.choices import candidates, chosen_settings, named


def test_nothing_to_choose_is_the_settings_themselves() -> None:
    spec = MilSpec(model="mean", folds=3)
    assert candidates(spec) == [spec]


def test_models_and_settings_are_combined_in_order() -> None:
    spec = MilSpec(choose="abmil,mean learning-rate=1e-3,1e-4; class_weights=true,false", folds=3)
    found = candidates(spec)
    assert len(found) == 8
    assert [c.model for c in found] == ["abmil"] * 4 + ["mean"] * 4
    assert [c.learning_rate for c in found[:4]] == [1e-3, 1e-3, 1e-4, 1e-4]
    assert [c.class_weights for c in found[:2]] == [True, False]
    assert {(c.folds, c.choose) for c in found} == {(3, "")}


def test_what_was_chosen_is_named_alone() -> None:
    spec = MilSpec(choose="abmil,mean learning_rate=0.001,0.0001")
    found = chosen_settings(candidates(spec)[3], spec)
    assert found == {"model": "mean", "learning_rate": 1e-4}
    assert named(found) == "mean, learning_rate 0.0001"


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        ("folds=3,5", "cannot choose folds"),
        ("seed=1,2", "cannot choose seed"),
        ("task=regression", "cannot choose task"),
        ("colour=red", "cannot choose colour"),
        ("nonsense-key=1", "choose cannot choose nonsense-key"),
        ("learning_rate=fast", "learning_rate must be of type float, got fast"),
        ("class_weights=maybe", "must be true or false"),
        ("learning_rate=", "must give values for learning_rate"),
        ("dropout=2", "dropout must be between 0 and 0.95"),
        ("mean,mean", "each value of model once"),
        ("mean abmil", "must name model once"),
        ("epochs=" + ",".join(map(str, range(1, 300))), "at most 200 combinations"),
    ],
)
def test_what_it_cannot_be_is_refused(choose: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        candidates(MilSpec(choose=choose))
