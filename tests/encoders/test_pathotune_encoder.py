"""PathoTune as an encoder: the shared contract over methods and precisions, and the bare backbone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from suites.encoder_contract import EncoderCase, EncoderContract, tissue_patches

from pathotune import load_adapter, open_backbone
from pathotune.builtin import default_adapter_path
from tests.adapter_files import BACKBONE, CLASSES, INPUT_PX, write_adapter, write_backbone
from wsi_pipeline.encoders.names import plan_encoder
from wsi_pipeline.encoders.pathotune import PathoTunePlan
from wsi_pipeline.encoders.torch_encoder import prepare

METHODS = ("pathotune", "linear", "vpt-shallow", "vpt-deep", "lora", "full")


class _Adapted(EncoderContract):
    method = "pathotune"
    precision = "fp32"
    fields: dict[str, object] = {}  # noqa: RUF012

    @pytest.fixture(scope="class")
    def case(self, tmp_path_factory: pytest.TempPathFactory) -> EncoderCase:
        folder = tmp_path_factory.mktemp(self.method)
        weights = write_backbone(folder / "weights.safetensors")
        first, second = (
            write_adapter(folder / f"{seed}.safetensors", weights, self.method, seed=seed, **self.fields)
            for seed in (0, 1)
        )
        return EncoderCase(
            plan=lambda: plan_encoder("pathotune", adapter=first),
            other=lambda: plan_encoder("pathotune", adapter=second),
            precision=self.precision,
        )


class TestPathoTune(_Adapted):
    pass


class TestPathoTuneInBf16(_Adapted):
    precision = "bf16"


class TestLora(_Adapted):
    method = "lora"


class TestFullInBf16(_Adapted):
    method = "full"
    precision = "bf16"


class TestMeanPatchToken(_Adapted):
    fields = {"feature": "cls_mean", "ivp_depth": "deep", "vrm_input": "patches"}  # noqa: RUF012


class TestVitMini(EncoderContract):
    @pytest.fixture(scope="class")
    def case(self) -> EncoderCase:
        return EncoderCase(plan=lambda: plan_encoder("vit-mini"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_backbone(tmp_path_factory.mktemp("backbone") / "weights.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_features_and_probabilities_are_those_of_the_library(tmp_path: Path, weights: Path, method: str) -> None:
    path = write_adapter(tmp_path / "a.safetensors", weights, method)
    model = load_adapter(path, open_backbone(BACKBONE, weights)[0])
    plan = plan_encoder("pathotune", adapter=path)
    assert isinstance(plan, PathoTunePlan)
    patches = tissue_patches(5)
    images = prepare(patches, plan.info, torch.device("cpu"))
    with torch.inference_mode():
        features, logits = model.features(images), model.logits(images)
    np.testing.assert_allclose(plan.open("cpu", "fp32").encode(patches), features.numpy(), rtol=1e-4, atol=1e-5)
    classifier = plan.open_classifier("cpu", "fp32")
    told = classifier.probabilities(patches)
    np.testing.assert_allclose(told, logits.softmax(dim=1).numpy(), atol=1e-5)
    assert classifier.classes == CLASSES
    assert told.dtype == np.float32
    np.testing.assert_allclose(told.sum(axis=1), 1, atol=1e-6)
    assert told.std(axis=0).max() > 1e-4


def test_no_patches_have_no_probabilities(tmp_path: Path, weights: Path) -> None:
    plan = PathoTunePlan("pathotune", write_adapter(tmp_path / "a.safetensors", weights), None)
    none = plan.open_classifier("cpu", "fp32").probabilities(np.zeros((0, 96, 96, 3), np.uint8))
    assert none.shape == (0, len(CLASSES))


def real_patches(data_dir: Path, count: int = 24) -> NDArray[np.uint8]:
    images = sorted((data_dir / "patches" / "ucsb_breast" / "images").iterdir())
    step = max(1, len(images) // count)
    opened = [np.asarray(Image.open(path).convert("RGB")) for path in images[::step][:count]]
    return np.stack([image[200:456, 200:456] for image in opened])


@pytest.mark.data
@pytest.mark.parametrize("method", ["pathotune", "lora"])
def test_bf16_points_where_fp32_does_on_real_tissue(tmp_path: Path, data_dir: Path, method: str) -> None:
    path = write_adapter(tmp_path / "a.safetensors", None, method, backbone="vit-mini")
    plan, patches = PathoTunePlan("pathotune", path, None), real_patches(data_dir)
    exact, fast = (plan.open("cpu", precision).encode(patches) for precision in ("fp32", "bf16"))
    cosine = (exact * fast).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(fast, axis=1)
    assert cosine.min() >= 0.999
    certain, quick = (plan.open_classifier("cpu", precision).probabilities(patches) for precision in ("fp32", "bf16"))
    # The head is drawn at random and decided, so it magnifies what rounding there is; a clear verdict must survive it.
    first, second = np.sort(certain, axis=1)[:, -1], np.sort(certain, axis=1)[:, -2]
    clear = first - second > 0.2
    assert clear.sum() > len(clear) / 2
    assert (certain.argmax(axis=1) == quick.argmax(axis=1))[clear].all()
    assert np.abs(certain - quick).mean() < 0.01


def test_facts_come_from_the_adapter(tmp_path: Path, weights: Path) -> None:
    path = write_adapter(tmp_path / "a.safetensors", weights, patches={"mpp": 0.25, "patch_px": 64}, feature="cls_mean")
    info = plan_encoder("pathotune:mine", adapter=path).info
    assert (info.name, info.family, info.input_px, info.mpp, info.dim) == (
        "pathotune:mine",
        "pathotune",
        INPUT_PX,
        0.25,
        192,
    )
    about = "\n".join(plan_encoder("pathotune", adapter=path).about())
    for told in (
        f"adapter {path} on {BACKBONE}",
        "stroma, tumour, fat",
        "0.25 um/px",
        "64 px",
        str(weights),
        "licence",
    ):
        assert told in about


@pytest.mark.parametrize("mpp", [None, "0.5", 1e9, -1, 0, True, [0.5]])
def test_a_resolution_that_is_none_binds_nothing(tmp_path: Path, weights: Path, mpp: object) -> None:
    plan = PathoTunePlan("pathotune", write_adapter(tmp_path / "a.safetensors", weights, patches={"mpp": mpp}), None)
    assert plan.info.mpp is None
    plan.info.check_spacing(3.0)
    assert plan.fit_note(512, 3.0) == ""


def test_patches_of_another_size_get_a_note(tmp_path: Path, weights: Path) -> None:
    plan = PathoTunePlan(
        "pathotune", write_adapter(tmp_path / "a.safetensors", weights, patches={"patch_px": 64}), None
    )
    assert plan.patch_um == 32
    assert plan.fit_note(64, 0.5) == plan.fit_note(64, 0.52) == plan.fit_note(128, 0.25) == ""
    assert "--patch-px 64 --mpp 0.5" in plan.fit_note(256, 0.5)


@pytest.mark.skipif(not default_adapter_path().is_file(), reason="the built-in adapter is not made yet")
def test_the_built_in_adapter_works_offline() -> None:
    plan = plan_encoder("pathotune")
    assert isinstance(plan, PathoTunePlan)
    assert plan.adapter == "built-in"
    assert plan.about()[0] == "built-in adapter on vit-mini"
    assert len(plan.classes) > 1
    patches = tissue_patches(3, 128)
    assert plan.open("cpu", "fp32").encode(patches).shape == (3, plan.info.dim)
    assert plan.open_classifier("cpu", "fp32").probabilities(patches).shape == (3, len(plan.classes))
