"""Prompts tuned through a slide-level model: gradients, the same result after a stop, what is never seen or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pathotune.adapters import configure
from pathotune.model import PathoTune
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import normalise
from tests.pathotune.vits import CARD, SIDE, small_vit
from wsi_pipeline.config.prompt_spec import PromptSpec
from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError
from wsi_pipeline.mil.bags import Bags
from wsi_pipeline.mil.prompts import prompt_inputs, tune_fold
from wsi_pipeline.mil.prompts.prompt_inputs import InstancePixels, PromptInputs, bags_through, chosen_rows
from wsi_pipeline.mil.training.objectives import Classification
from wsi_pipeline.mil.training.training_run import FoldRows

SIZES = (9, 5, 7, 6, 8, 5)
LABELS = torch.tensor([0, 1, 0, 1, 0, 1])
FOLD = FoldRows(np.array([0, 1, 2]), np.array([3]), 5)
SPEC = MilSpec(hidden_dim=8, attention_dim=4, epochs=2, batch_bags=2)


class Pixels:
    """Patches in memory; those of class 1 are brighter."""

    patch_px, mpp = SIDE, 0.5

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        kinds = zip(SIZES, LABELS.tolist(), strict=True)
        levels = [rng.integers(0, 120, (count, SIDE, SIDE, 3)) + 120 * kind for count, kind in kinds]
        self.values = np.concatenate(levels).astype(np.uint8)

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        return self.values[rows]

    def contents(self, rows: NDArray[np.int64]) -> list[str]:
        return [""] * len(rows)

    def identity(self, rows: NDArray[np.int64]) -> str:
        return ""


@pytest.fixture(scope="module")
def inputs() -> PromptInputs:
    """Six small slides with the stored features of a small ViT."""
    network, images = small_vit(), InstancePixels(Pixels(), sum(SIZES))
    offsets = np.array([0, *np.cumsum(SIZES)], np.int64)
    bags = Bags(np.zeros((sum(SIZES), 24), np.float16), offsets, tuple(f"s{k}" for k in range(len(SIZES))))
    spec = PromptSpec(tune_prompts=True, prompt_epochs=2, prompt_top=3, prompt_random=2, prompt_rate=1e-2)
    found = PromptInputs(bags, images, network, CARD, spec, SPEC, Compute("cpu", "fp32"))
    stored = found.features(PathoTune(configure("linear"), network), np.arange(sum(SIZES))).numpy()
    return replace(found, bags=Bags(stored.astype(np.float16), offsets, bags.slide_ids))


def objective(labels: torch.Tensor = LABELS) -> Classification:
    return Classification(labels, 2, balanced=True)


def values_of(model: PathoTune) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.trained_parameters().items()}


def test_gradients_through_chunks_are_those_of_the_whole_bag(
    inputs: PromptInputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuner = tune_fold._Tuner(inputs, objective(), FOLD)
    tuner.prepare()
    tuner.head.eval()  # without dropout
    monkeypatch.setattr(tune_fold, "CHUNK", 2)
    monkeypatch.setattr(tune_fold, "turn", lambda images, generator, **_: images)
    loss = tuner._backward(1, np.random.default_rng(0), torch.Generator(), 2.0)
    found = {name: value.grad.clone() for name, value in tuner.joint.named_parameters() if value.grad is not None}
    tuner.optimizer.zero_grad(set_to_none=True)
    rows = tuner._rows(1, np.random.default_rng(0))
    features = tuner.model.features(normalise(inputs.images(rows), CARD))
    whole = tuner._loss(1, features)
    (whole / 2).backward()
    assert loss == pytest.approx(float(whole.detach()), rel=1e-5)
    assert any(name.startswith("prompts.ivp") for name in found)
    for name, value in tuner.joint.named_parameters():
        if value.grad is not None:
            torch.testing.assert_close(found[name], value.grad, rtol=1e-3, atol=1e-6)
    assert {name for name, value in tuner.joint.named_parameters() if value.grad is not None} == set(found)


def test_a_stopped_tuning_continues_to_the_same_result_and_changes_with_the_epochs(
    inputs: PromptInputs, tmp_path: Path
) -> None:
    whole = values_of(tune_fold.tune_fold(inputs, objective(), FOLD, tmp_path / "whole"))

    def stop(line: str) -> None:
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="epoch 1/2"):
        tune_fold.tune_fold(replace(inputs, on_line=stop), objective(), FOLD, tmp_path / "stopped")
    lines: list[str] = []
    again = tune_fold.tune_fold(replace(inputs, on_line=lines.append), objective(), FOLD, tmp_path / "stopped")
    assert len(lines) == 1
    assert lines[0].startswith("prompts, epoch 2/2: training loss")
    for name, value in values_of(again).items():
        assert torch.equal(value, whole[name]), name
    torch.manual_seed(0)
    assert not torch.equal(inputs.model().tvp.tokens, whole["tvp.tokens"])


def test_labels_of_test_slides_change_nothing(inputs: PromptInputs, tmp_path: Path) -> None:
    other = LABELS.clone()
    other[4:] = 1 - other[4:]
    one = values_of(tune_fold.tune_fold(inputs, objective(), FOLD, tmp_path / "a"))
    two = values_of(tune_fold.tune_fold(inputs, objective(other), FOLD, tmp_path / "b"))
    changed = values_of(tune_fold.tune_fold(inputs, objective(1 - LABELS), FOLD, tmp_path / "c"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["tvp.tokens"], changed["tvp.tokens"])


def test_features_of_all_bags_are_made_bag_by_bag_and_not_twice(inputs: PromptInputs, tmp_path: Path) -> None:
    model = inputs.model().eval()
    bags = bags_through(inputs, model, tmp_path)
    expected = inputs.features(model, np.arange(sum(SIZES))).numpy()
    assert bags.dim == model.feature_dim == 48
    np.testing.assert_allclose(np.asarray(bags.features, np.float32), expected, atol=2e-3 * np.abs(expected).max())
    (tmp_path / "features-done.txt").write_text("4")
    values = np.load(tmp_path / "features.npy", mmap_mode="r+")
    values[:] = 7
    values.flush()
    again = bags_through(inputs, model, tmp_path)
    assert (np.asarray(again.features[: int(bags.offsets[4])]) == 7).all()
    np.testing.assert_allclose(np.asarray(again.bag(5)), expected[int(bags.offsets[5]) :], atol=1e-1)


def test_the_most_attended_come_first_and_others_are_drawn() -> None:
    ranked = np.array([14, 11, 19, 12, 13, 10])
    drawn = [chosen_rows(ranked, 2, 2, np.random.default_rng(seed)) for seed in range(20)]
    assert all({11, 14} <= set(rows.tolist()) and len(rows) == 4 and (np.diff(rows) > 0).all() for rows in drawn)
    assert {row for rows in drawn for row in rows.tolist()} == set(ranked.tolist())
    assert chosen_rows(ranked, 10, 5, np.random.default_rng(0)).tolist() == sorted(ranked.tolist())


def test_what_cannot_be_tuned_is_refused_by_name(inputs: PromptInputs) -> None:
    inputs.check()
    for spec, told in (
        (MilSpec(model="mean"), "mean has no attention"),
        (MilSpec(choose="abmil,mean"), "one model per fold"),
        (MilSpec(committee=3), "one model per fold"),
        (MilSpec(task="survival", survival_loss="cox"), "Cox's partial likelihood"),
    ):
        with pytest.raises(MilError, match=told):
            replace(inputs, spec=spec).check()
    other = np.array(inputs.bags.features)
    other[int(inputs.bags.offsets[-2]) :] = other[: SIZES[-1]][:, ::-1]
    bags = Bags(other, inputs.bags.offsets, inputs.bags.slide_ids)
    with pytest.raises(MilError, match="not those of this network") as refused:
        replace(inputs, bags=bags).check()
    assert refused.value.slide == "s5"
    wider = Bags(np.zeros((sum(SIZES), 30), np.float16), inputs.bags.offsets, inputs.bags.slide_ids)
    with pytest.raises(MilError, match="have 30 values, the network's have 24"):
        replace(inputs, bags=wider).check()


def test_memory_is_bounded_by_the_chunk(inputs: PromptInputs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Never do more than CHUNK patches pass the network with gradients."""
    seen: list[int] = []
    inner = PathoTune.features

    def watched(model: PathoTune, images: torch.Tensor, task: torch.Tensor | None = None) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen.append(len(images))
        return inner(model, images, task)

    monkeypatch.setattr(PathoTune, "features", watched)
    monkeypatch.setattr(tune_fold, "CHUNK", 2)
    monkeypatch.setattr(prompt_inputs, "CHUNK", 2)
    tune_fold.tune_fold(replace(inputs, prompts=replace(inputs.prompts, prompt_epochs=1)), objective(), FOLD, tmp_path)
    assert max(seen) == 2
    assert sum(seen) == 15
