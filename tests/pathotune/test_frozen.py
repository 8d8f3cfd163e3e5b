"""What frozen layers give is computed once: the same features, the same training, the same result after a stop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pathotune.adapters import METHODS, configure
from pathotune.model import PathoTune
from pathotune.training import FitOptions, Watch, fit
from pathotune.training.arithmetic import Compute
from pathotune.training.augment import WAYS, draw_ways, turn, turned
from pathotune.training.batches import ArrayImages
from pathotune.training.frozen import freeze
from tests.pathotune.vits import CARD, LAYERS, OFF, SIDE, images, small_vit

FP32 = Compute("cpu", "fp32")


def model_of(seed: int = 4, **fields: Any) -> PathoTune:
    torch.manual_seed(seed)
    return PathoTune(configure("pathotune", classes=("a", "b"), **{"ttp": False, **fields}), small_vit()).eval()


def data(count: int, seed: int) -> ArrayImages:
    rng = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 2
    pixels = rng.integers(0, 156, (count, SIDE, SIDE, 3)) + 100 * labels[:, None, None, None]
    return ArrayImages(pixels.astype(np.uint8), labels)


@pytest.mark.parametrize(
    "fields",
    [OFF, {}, {"entry": 0.34}, {"entry": 0.67, "feature": "cls_mean"}, {"tvp_depth": "shallow"}, {"ivp_tokens": 0}],
)
def test_features_from_frozen_states_are_the_features(fields: dict[str, Any]) -> None:
    model = model_of(**fields)
    states = model.frozen_states(images())
    assert states is not None
    with torch.inference_mode():
        assert torch.equal(model.features_from(states), model.features(images()))


@pytest.mark.parametrize("fields", [{"vrm_input": "patches", "vrm_width": 8}, {"vrm_input": "pixels", "vrm_width": 8}])
def test_models_that_read_more_than_the_sequence_have_no_states(fields: dict[str, Any]) -> None:
    assert model_of(**fields).frozen_states(images()) is None


def test_trained_backbones_have_no_states() -> None:
    model = PathoTune(configure("full", classes=("a", "b")), small_vit())
    assert model.frozen_states(images()) is None


def test_symmetries_are_eight_and_drawn_as_before() -> None:
    shown = turned(images(1).expand(WAYS, -1, -1, -1), torch.arange(WAYS))
    assert torch.equal(shown[0], images(1)[0])
    assert len({tuple(image.flatten()[:40].tolist()) for image in shown}) == WAYS
    drawn = draw_ways(3, torch.Generator().manual_seed(1), flips=True, rotations=True)
    assert torch.equal(
        turn(images(), torch.Generator().manual_seed(1), flips=True, rotations=True), turned(images(), drawn)
    )


def train(method: str, epochs: int, cache_mb: int, **more: Any) -> tuple[PathoTune, Any]:
    torch.manual_seed(1)
    fields = {"entry": 0.34, "ttp": False} if method == "pathotune" else {}
    model = PathoTune(configure(method, classes=("a", "b"), **fields), small_vit())
    jitter = {"stain_jitter": more.pop("stain_jitter", 0.0)}
    options = FitOptions(epochs=epochs, batch=8, patience=epochs, **jitter, **METHODS[method].training)
    return model, fit(model, CARD, data(20, 1), data(10, 2), options, Compute("cpu", "fp32", cache_mb), **more)


@pytest.mark.parametrize("method", ["pathotune", "linear"])
def test_training_with_and_without_the_cache_differ_by_rounding_alone(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed = []
    inner = PathoTune._begin

    def watched(model: PathoTune, pixels: torch.Tensor) -> Any:
        passed.append(len(pixels))
        return inner(model, pixels)

    monkeypatch.setattr(PathoTune, "_begin", watched)
    plain, one = train(method, 9, 0)
    without = sum(passed)
    passed.clear()
    cached, two = train(method, 9, 100)
    assert sum(passed) < without == (20 + 10) * 9 + 20  # 20 images start the prompts, if there are any
    assert sum(passed) <= 8 * 20 + 10 + 2 * 9 + 20
    assert one.best_epoch == two.best_epoch
    for name, value in plain.trained_parameters().items():
        torch.testing.assert_close(cached.trained_parameters()[name], value, rtol=1e-3, atol=1e-4)
    for a, b in zip(one.history, two.history, strict=True):
        assert (b.train_loss, b.val_loss) == pytest.approx((a.train_loss, a.val_loss), rel=1e-3)


def test_a_cached_training_continues_after_a_stop_with_the_same_bits(tmp_path: Path) -> None:
    whole, _ = train("pathotune", 9, 100)

    def stop(row: Any) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train("pathotune", 9, 100, resume=tmp_path, watch=Watch(on_epoch=stop))
    again, _ = train("pathotune", 9, 100, resume=tmp_path)
    for name, value in whole.trained_parameters().items():
        assert torch.equal(again.trained_parameters()[name], value), name


def test_no_more_memory_is_taken_than_there_is_room_for() -> None:
    model, source = model_of(entry=0.34), data(6, 3)
    tokens = 1 + (SIDE // 8) ** 2
    needed = 2 * 6 * tokens * 24 * 4
    assert freeze(model, CARD, source, (0, 4), FP32, needed - 1) is None
    states = freeze(model, CARD, source, (0, 4), FP32, needed)
    assert states is not None
    assert states.nbytes == needed
    found = states.take(torch.tensor([5, 2]), torch.tensor([4, 0]))
    assert found.shape == (2, tokens, 24)
    assert not torch.equal(found[0], states.take(torch.tensor([5]), torch.tensor([0]))[0])
    assert model.entry == round(0.34 * LAYERS)


def test_varied_stains_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each epoch has its own colours: only the validation images are kept."""
    from pathotune.training import loop

    asked: list[int] = []
    inner = loop.freeze

    def watched(*given: Any) -> Any:
        asked.append(len(given[3]))
        return inner(*given)

    monkeypatch.setattr(loop, "freeze", watched)
    train("linear", 9, 100, stain_jitter=0.1)
    train("linear", 3, 100)  # eight symmetries would be more work than three epochs
    assert asked == [1, 1]
    train("linear", 9, 100)
    assert asked == [1, 1, 1, 8]
