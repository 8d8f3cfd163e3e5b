"""What every encoder must keep: a test module inherits `EncoderContract` and gives the fixture `case`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from wsi_pipeline.encoders.encoder import Encoder, EncoderPlan
from wsi_pipeline.errors import EncoderError

Patches = NDArray[np.uint8]
SIDE = 96


@dataclass(frozen=True)
class EncoderCase:
    """One encoder under test.

    plan    makes its plan, as a user gets it
    other   makes the plan of the same model with other weights; None where the encoder has none
    """

    plan: Callable[[], EncoderPlan]
    other: Callable[[], EncoderPlan] | None = None
    precision: str = "fp32"

    def open(self) -> Encoder:
        """The loaded encoder on the CPU."""
        return self.plan().open("cpu", self.precision)


def tissue_patches(count: int, side: int = SIDE, seed: int = 0) -> Patches:
    """Patches that differ in colour and texture, one blank and one black among them."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = [np.sin(2 * np.pi * (rng.uniform(1, 9) * x + rng.uniform(1, 9) * y)) for _ in range(count)]
    tints = rng.uniform(60, 230, (count, 1, 1, 3))
    images = tints + 40 * np.stack(waves)[..., None] + rng.normal(0, 12, (count, side, side, 3))
    patches = np.clip(images, 0, 255).astype(np.uint8)
    patches[0], patches[1] = 255, 0
    return patches


def assert_same_direction(first: NDArray[np.float32], second: NDArray[np.float32], least: float) -> None:
    """Row by row, the cosine is at least `least` and the lengths agree to 1 %."""
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    cosine = (first * second).sum(axis=1) / (norms[0] * norms[1])
    assert cosine.min() >= least, f"least cosine {cosine.min():.6f} in row {cosine.argmin()}"
    np.testing.assert_allclose(norms[0], norms[1], rtol=0.01)


class EncoderContract:
    """The contract of an encoder, on patches of 96 pixels."""

    @pytest.fixture(scope="class")
    def encoder(self, case: EncoderCase) -> Encoder:
        return case.open()

    @pytest.fixture(scope="class")
    def patches(self) -> Patches:
        return tissue_patches(7)

    @pytest.fixture(scope="class")
    def features(self, encoder: Encoder, patches: Patches) -> NDArray[np.float32]:
        return encoder.encode(patches)

    def test_one_row_of_floats_for_each_patch(self, encoder: Encoder, features: NDArray[np.float32]) -> None:
        assert features.shape == (7, encoder.info.dim)
        assert features.dtype == np.float32
        assert np.isfinite(features).all()

    def test_different_patches_have_different_features(self, features: NDArray[np.float32]) -> None:
        distances = np.linalg.norm(features[:, None] - features[None], axis=2)
        assert distances[~np.eye(len(features), dtype=bool)].min() > 1e-4

    def test_a_row_does_not_depend_on_its_batch(
        self, case: EncoderCase, encoder: Encoder, patches: Patches, features: NDArray[np.float32]
    ) -> None:
        alone = np.concatenate([encoder.encode(patch[None]) for patch in patches])
        backwards = encoder.encode(patches[::-1].copy())[::-1]
        least = 0.99999 if case.precision == "fp32" else 0.9995
        assert_same_direction(features, alone, least)
        assert_same_direction(features, backwards, least)

    def test_the_same_batch_gives_the_same_bits(
        self, case: EncoderCase, encoder: Encoder, patches: Patches, features: NDArray[np.float32]
    ) -> None:
        np.testing.assert_array_equal(encoder.encode(patches), features)
        np.testing.assert_array_equal(case.open().encode(patches), features)

    def test_numpy_and_torch_give_the_same(
        self, encoder: Encoder, patches: Patches, features: NDArray[np.float32]
    ) -> None:
        np.testing.assert_array_equal(encoder.encode(torch.from_numpy(patches)), features)

    def test_the_batch_may_be_read_only_and_is_left_as_it_was(
        self, encoder: Encoder, patches: Patches, features: NDArray[np.float32]
    ) -> None:
        batch = patches.copy()
        batch.flags.writeable = False
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # torch warns about arrays that may not be written to
            np.testing.assert_array_equal(encoder.encode(batch), features)
        writable = patches.copy()
        encoder.encode(writable)
        np.testing.assert_array_equal(writable, patches)

    def test_memory_order_does_not_matter(
        self, encoder: Encoder, patches: Patches, features: NDArray[np.float32]
    ) -> None:
        planes_first = np.ascontiguousarray(patches.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        np.testing.assert_array_equal(encoder.encode(planes_first), features)

    @pytest.mark.parametrize("side", [32, 97, 160, 256])
    def test_any_patch_size(self, encoder: Encoder, side: int) -> None:
        features = encoder.encode(tissue_patches(3, side))
        assert features.shape == (3, encoder.info.dim)

    def test_an_empty_batch_has_no_rows(self, encoder: Encoder) -> None:
        features = encoder.encode(np.zeros((0, SIDE, SIDE, 3), np.uint8))
        assert features.shape == (0, encoder.info.dim)
        assert features.dtype == np.float32

    @pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint16])
    def test_only_bytes_are_taken(self, encoder: Encoder, kind: type) -> None:
        with pytest.raises(EncoderError, match="must be uint8"):
            encoder.encode(np.zeros((2, SIDE, SIDE, 3), kind))
        with pytest.raises(EncoderError, match="must be uint8"):
            encoder.encode(torch.zeros(2, SIDE, SIDE, 3))

    @pytest.mark.parametrize("shape", [(SIDE, SIDE, 3), (2, 3, SIDE, SIDE), (2, SIDE, SIDE, 4), (2, 64, SIDE, 3)])
    def test_only_square_rgb_is_taken(self, encoder: Encoder, shape: tuple[int, ...]) -> None:
        with pytest.raises(EncoderError, match="must have the shape"):
            encoder.encode(np.zeros(shape, np.uint8))

    def test_facts_are_known_before_it_is_opened(self, case: EncoderCase, encoder: Encoder) -> None:
        plan = case.plan()
        assert plan.info == encoder.info
        assert plan.fingerprint == encoder.fingerprint
        assert encoder.device == "cpu"
        assert encoder.describe(5) == f"cpu, {case.precision}, batch 5" or case.precision != "fp32"
        assert encoder.describe().endswith(f"batch {encoder.batch}")
        assert plan.suggest_batch("cpu") == encoder.batch
        assert plan.describe("cpu", case.precision) == encoder.describe()
        assert plan.describe("cpu", case.precision, 5) == encoder.describe(5)

    def test_the_fingerprint_is_that_of_the_weights(self, case: EncoderCase) -> None:
        first, again = case.plan().fingerprint, case.plan().fingerprint
        assert first == again
        assert len(first) == 64
        assert set(first) <= set("0123456789abcdef")
        if case.other is not None:
            other = case.other()
            assert other.info == case.plan().info
            assert other.fingerprint != first

    def test_other_weights_give_other_features(
        self, case: EncoderCase, patches: Patches, features: NDArray[np.float32]
    ) -> None:
        if case.other is None:
            pytest.skip("this encoder has no weights")
        other = case.other().open("cpu", case.precision).encode(patches)
        assert not np.allclose(other, features, atol=1e-3)

    def test_a_wrong_spacing_is_refused(self, encoder: Encoder) -> None:
        info = replace(encoder.info, mpp=0.5)
        for good in (0.5, 0.46, 0.55, 0.45):
            info.check_spacing(good)
        for bad in (0.25, 0.44, 0.56, 1.0):
            with pytest.raises(EncoderError, match=r"trained at 0\.5 micrometres per pixel.*\n.*--mpp 0\.5"):
                info.check_spacing(bad)
        replace(encoder.info, mpp=None).check_spacing(7.0)
