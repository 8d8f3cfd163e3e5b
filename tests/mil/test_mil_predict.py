"""Prediction is the mean over the folds, row for row; attention comes back in the order of the features."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.mil.synthetic import QUICK, planted, random_bags
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.trained.checkpoint import Ensemble, load_ensemble, save_ensemble
from wsi_pipeline.mil.trained.inference import attention, mean_attention, predict, probabilities
from wsi_pipeline.mil.training import batching as pieces
from wsi_pipeline.mil.validation.crossval import cross_validate_bags

BAGS, TABLE = planted(40)


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory: pytest.TempPathFactory) -> Ensemble:
    folder: Path = tmp_path_factory.mktemp("ensemble")
    result = cross_validate_bags(BAGS, TABLE, replace(QUICK, epochs=12, folds=3))
    models = [fitted.model for fitted in result.fitted]
    save_ensemble(folder, models, spec=QUICK, task=ClassificationTask(result.classes), encoder={}, provenance={})
    return load_ensemble(folder)


def test_new_slides_of_the_same_kind_are_told_apart(ensemble: Ensemble) -> None:
    bags, table = planted(40, seed=9)
    found = predict(ensemble, bags)
    assert list(found.columns) == ["slide_id", "predicted", "p_normal", "p_tumour", "spread"]
    assert found["slide_id"].tolist() == list(bags.slide_ids)
    assert (found["predicted"] == table["label"]).mean() > 0.9


def test_mean_and_spread_over_the_folds(ensemble: Ensemble) -> None:
    each = np.stack([probabilities(model, BAGS) for model in ensemble.models])
    found = predict(ensemble, BAGS)
    np.testing.assert_allclose(found[["p_normal", "p_tumour"]], each.mean(0))
    np.testing.assert_allclose(each.sum(2), 1)
    winner = (found["predicted"] == "tumour").to_numpy(int)
    np.testing.assert_allclose(found["spread"], [each[:, i, k].std() for i, k in enumerate(winner)])
    assert (found["spread"] > 0).any()


def test_probabilities_after_saving_are_those_of_cross_validation(tmp_path: Path) -> None:
    result = cross_validate_bags(BAGS, TABLE, replace(QUICK, epochs=3, folds=3))
    models = [fitted.model for fitted in result.fitted]
    save_ensemble(tmp_path, models, spec=QUICK, task=ClassificationTask(result.classes), encoder={}, provenance={})
    for fold, model in zip(result.splits.folds, load_ensemble(tmp_path).models, strict=True):
        again = probabilities(model, BAGS, fold.test)[:, 1]
        np.testing.assert_array_equal(again, result.predictions["p_tumour"].iloc[fold.test])


def test_attention_is_row_for_row(ensemble: Ensemble, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attention(ensemble.models[0], BAGS)
    assert whole.shape == (len(BAGS.features),)
    assert whole.dtype == np.float32
    monkeypatch.setattr(pieces, "MAX_INSTANCES", 50)
    np.testing.assert_allclose(attention(ensemble.models[0], BAGS), whole, rtol=1e-4)
    mean = mean_attention(ensemble, BAGS)
    np.testing.assert_allclose([mean[BAGS.rows(i)].sum() for i in range(len(BAGS))], 1, rtol=1e-5)
    np.testing.assert_allclose(mean, np.mean([attention(m, BAGS) for m in ensemble.models], axis=0), rtol=1e-4)


def test_empty_bags_and_no_bags(ensemble: Ensemble) -> None:
    bags = random_bags([0, 3, 0], dim=BAGS.dim)
    found = predict(ensemble, bags)
    assert np.isfinite(found[["p_normal", "p_tumour", "spread"]].to_numpy()).all()
    assert found["p_tumour"][0] == pytest.approx(found["p_tumour"][2])
    assert attention(ensemble.models[0], bags).shape == (3,)
    assert probabilities(ensemble.models[0], bags, np.array([], np.int64)).shape == (0, 2)
    assert len(predict(ensemble, bags.subset([]))) == 0


def test_features_of_another_width_are_refused(ensemble: Ensemble) -> None:
    with pytest.raises(MilError, match="takes features of 24 values"):
        predict(ensemble, random_bags([3], dim=7))


def test_predicting_leaves_the_models_as_they_were(ensemble: Ensemble) -> None:
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in ensemble.models]
    predict(ensemble, BAGS)
    for state, model in zip(before, ensemble.models, strict=True):
        assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
