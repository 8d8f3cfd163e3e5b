"""Training: what trains and what does not, going on after a stop, determinism, refusals."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pathotune.adapters import METHODS, configure
from pathotune.backbone import BackboneCard, fingerprint
from pathotune.checkpoint import load_adapter, save_adapter
from pathotune.config import TaskText
from pathotune.errors import AdapterError, ConfigError
from pathotune.model import PathoTune
from pathotune.training import FitOptions, FitResult, Watch, fit, probabilities, schedule
from pathotune.training.arithmetic import Compute
from pathotune.training.batches import ArrayImages
from tests.pathotune.vits import SIDE, small_vit, states

CARD = BackboneCard("small", SIDE, (0.5,) * 3, (0.5,) * 3)
FP32 = Compute(precision="fp32")
CLASSES = ("dark", "bright", "red")
OPTIONS = FitOptions(epochs=3, batch=8, learning_rate=3e-3)


def pictures(count: int = 30, side: int = SIDE, seed: int = 0, classes: int = 3) -> ArrayImages:
    """Pictures whose class can be seen: dark, bright, or red."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    pixels = rng.integers(60, 120, (count, side, side, 3))
    pixels[labels == 1] += 100
    pixels[labels == 2, :, :, 0] += 100
    return ArrayImages(pixels.astype(np.uint8), labels.astype(np.int64))


def make(method: str, seed: int = 0, **fields: Any) -> PathoTune:
    """A small model of a method."""
    config = configure(method, **{"classes": CLASSES, "vrm_width": 8, "tvp_tokens": 2, "lora_rank": 2, **fields})
    torch.manual_seed(seed)
    return PathoTune(config, small_vit("plain"), states(config) if config.ttp else None)


def train(model: PathoTune, options: FitOptions = OPTIONS, **more: Any) -> FitResult:
    """Fit in float32 on pictures, validated on others."""
    return fit(model, CARD, pictures(), pictures(15, seed=1), options, FP32, **more)


def state(model: PathoTune) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("method", METHODS)
def test_what_is_declared_trains_and_nothing_else_moves(method: str) -> None:
    model = make(method, vrm_calibrated=True, ivp_depth="deep")
    declared = set(model.trained_parameters())
    assert declared == {name for name, value in model.named_parameters() if value.requires_grad}
    before = state(model)
    train(model)
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    calibrated = {"ivp.refine.centre", "ivp.refine.spread"} if method == "pathotune" else set()
    assert moved <= declared | calibrated
    assert len(moved) > 0.9 * len(declared)
    assert not model.training
    assert not model.backbone.training


@pytest.mark.parametrize("fields", [{}, {"vrm_calibrated": True, "ivp_depth": "deep"}])
@pytest.mark.parametrize("method", METHODS)
def test_a_saved_model_gives_the_same_features_and_probabilities(
    method: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    model = make(method, **fields)
    train(model, dataclasses.replace(OPTIONS, epochs=1))
    save_adapter(tmp_path / "a.safetensors", model, CARD)
    again = load_adapter(tmp_path / "a.safetensors", small_vit("plain"))
    images = torch.rand(3, 3, SIDE, SIDE)
    with torch.inference_mode():
        assert torch.equal(again.features(images), model.features(images))
        assert torch.equal(again.logits(images), model.logits(images))


@pytest.mark.parametrize("method", ["lora", "full", "pathotune"])
def test_an_adapter_is_refused_on_other_weights(method: str, tmp_path: Path) -> None:
    model = make(method)
    train(model, dataclasses.replace(OPTIONS, epochs=1))
    save_adapter(tmp_path / "a.safetensors", model, CARD)
    other = small_vit("plain")
    with torch.no_grad():
        other.cls_token.add_(1e-3)
    with pytest.raises(AdapterError, match="weights"):
        load_adapter(tmp_path / "a.safetensors", other)


def test_untrained_lora_and_full_equal_the_bare_backbone() -> None:
    images = torch.rand(2, 3, SIDE, SIDE)
    with torch.inference_mode():
        bare = small_vit("plain")(images)
        assert torch.equal(make("full").eval().features(images), bare)
        torch.testing.assert_close(make("lora").eval().features(images), bare)


def test_a_fingerprint_is_of_the_backbone_before_it_was_adapted() -> None:
    expected = fingerprint(small_vit("plain"))
    for method in METHODS:
        model = make(method)
        train(model, dataclasses.replace(OPTIONS, epochs=1))
        assert model.fingerprint == expected


def test_pictures_that_can_be_told_apart_are_learned() -> None:
    model = make("pathotune")
    options = dataclasses.replace(OPTIONS, epochs=40, learning_rate=3e-2, patience=40)
    result = train(model, options)
    assert result.history[result.best_epoch - 1].val_accuracy > 0.9
    fresh = pictures(30, seed=7)
    found = probabilities(model, CARD, fresh, FP32)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    assert (found.argmax(axis=1) == fresh.labels).mean() > 0.9


class KilledError(Exception):
    """Stands for a killed process."""


@pytest.mark.parametrize("method", ["pathotune", "full", "lora"])
@pytest.mark.parametrize("after", [1, 2])
def test_going_on_after_a_stop_equals_never_stopping(method: str, after: int, tmp_path: Path) -> None:
    options = dataclasses.replace(OPTIONS, epochs=4, stain_jitter=0.1, network_rate=0.3)
    fields = {"head_dropout": 0.3, "prompt_dropout": 0.2, "vrm_calibrated": True}
    whole = make(method, **fields)
    history = train(whole, options).history

    def stop(row: Any) -> None:
        if row.epoch == after:
            raise KilledError

    with pytest.raises(KilledError):
        train(make(method, **fields), options, resume=tmp_path, watch=Watch(on_epoch=stop))
    resumed = make(method, seed=5, **fields)
    result = train(resumed, options, resume=tmp_path)
    assert [dataclasses.replace(row, seconds=0) for row in result.history] == [
        dataclasses.replace(row, seconds=0) for row in history
    ]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_state_of_other_settings_is_not_taken_up(tmp_path: Path) -> None:
    train(make("linear"), dataclasses.replace(OPTIONS, epochs=1), resume=tmp_path)
    result = train(make("linear"), dataclasses.replace(OPTIONS, seed=3), resume=tmp_path)
    fresh = train(make("linear"), dataclasses.replace(OPTIONS, seed=3))
    assert [row.train_loss for row in result.history] == [row.train_loss for row in fresh.history]


def test_a_damaged_state_starts_anew(tmp_path: Path) -> None:
    (tmp_path / "last-epoch.safetensors").write_bytes(b"\x00" * 40)
    assert len(train(make("linear"), resume=tmp_path).history) == OPTIONS.epochs


def test_the_seed_decides_everything() -> None:
    first, second, other = make("pathotune"), make("pathotune"), make("pathotune")
    train(first), train(second), train(other, dataclasses.replace(OPTIONS, seed=1))
    same = [torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True)]
    assert all(same)
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_it_stops_early_and_keeps_the_best_epoch() -> None:
    model = make("linear")
    result = train(model, dataclasses.replace(OPTIONS, epochs=60, patience=2, learning_rate=1e-2))
    best = max(result.history, key=lambda row: (row.val_macro_f1, -row.val_loss))
    assert result.best_epoch == best.epoch
    assert result.stopped_early
    assert len(result.history) == best.epoch + 2
    found = probabilities(model, CARD, pictures(15, seed=1), FP32).argmax(axis=1)
    assert (found == pictures(15, seed=1).labels).mean() == pytest.approx(best.val_accuracy)


def test_classes_of_other_tasks_are_out_of_reach() -> None:
    config = configure(
        "vpt-deep", classes=CLASSES, tvp_tokens=2, tasks=(TaskText(classes=CLASSES[:2]), TaskText(classes=CLASSES[2:]))
    )
    model = PathoTune(config, small_vit("plain"))
    images = pictures()
    tasks: NDArray[np.int64] = (images.labels == 2).astype(np.int64)
    source = ArrayImages(images.pixels, images.labels, tasks)
    fit(model, CARD, source, source, dataclasses.replace(OPTIONS, epochs=1), FP32)
    found = probabilities(model, CARD, source, FP32)
    assert (found[tasks == 0, 2] == 0).all()
    assert (found[tasks == 1, 2] == 1).all()


def test_another_size_is_resized_to_the_backbones() -> None:
    images = pictures(6, side=40)
    found = probabilities(make("linear").eval(), CARD, images, FP32)
    assert found.shape == (6, 3)


def test_no_images_give_no_probabilities() -> None:
    nothing = ArrayImages(np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(0, np.int64))
    assert probabilities(make("linear"), CARD, nothing, FP32).shape == (0, 3)


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(ConfigError, match="red"):
        fit(make("linear"), CARD, pictures(classes=2), pictures(), OPTIONS, FP32)


def changed(images: ArrayImages, **fields: Any) -> ArrayImages:
    return dataclasses.replace(images, **fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda images: {"pixels": images.pixels / 255}, r"pixels must be uint8 \(N, P, P, 3\), got float64"),
        (lambda images: {"pixels": images.pixels.transpose(0, 3, 1, 2)}, "pixels must be"),
        (lambda images: {"pixels": images.pixels[:, :20]}, "pixels must be"),
        (lambda images: {"labels": images.labels.astype(np.int32)}, r"labels must be int64 \(30,\), got int32"),
        (lambda images: {"labels": images.labels[:5]}, r"labels must be int64 \(30,\), got int64 \(5,\)"),
        (lambda images: {"tasks": images.labels.astype(float)}, "tasks must be int64"),
    ],
)
def test_arrays_of_another_kind_are_refused(change: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        changed(pictures(), **change(pictures()))


def test_what_cannot_be_trained_on_is_refused_before_it_starts() -> None:
    good, nothing = pictures(), ArrayImages(np.zeros((0, SIDE, SIDE, 3), np.uint8), np.zeros(0, np.int64))
    high, low = (changed(good, labels=good.labels + shift) for shift in (1, -1))
    for images in ((high, good), (low, good), (good, high), (good, low)):
        with pytest.raises(ConfigError, match="labels must be 0 to 2"):
            fit(make("linear"), CARD, *images, OPTIONS, FP32)
    with pytest.raises(ConfigError, match="no validation images"):
        fit(make("linear"), CARD, good, nothing, OPTIONS, FP32)
    with pytest.raises(ConfigError, match="no classes"):
        fit(make("linear", classes=()), CARD, good, good, OPTIONS, FP32)


def test_a_loss_that_leaves_the_numbers_is_refused() -> None:
    model = make("full")
    with torch.no_grad():
        model.backbone.blocks[0].mlp.fc1.weight.fill_(float("nan"))
    with pytest.raises(ConfigError, match="step 1"):
        train(model)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 1.5},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"monitor": "luck"},
        {"warmup": 1.0},
    ],
)
def test_options_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        FitOptions(**wrong)


def test_the_rate_rises_and_falls() -> None:
    factors = [schedule(step, 100, 0.1) for step in range(100)]
    assert max(factors) == factors[9] == 1
    assert factors[:10] == sorted(factors[:10])
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] < 1e-3
