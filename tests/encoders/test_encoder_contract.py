"""The shared contract over every family: colour, a timm ViT and CNN, Hugging Face models, fp32 and bf16."""

from __future__ import annotations

import pytest
from encoder_files import HuggingFaceFolder, TimmFile
from suites.encoder_contract import EncoderCase, EncoderContract

from wsi_pipeline.encoders.names import plan_encoder


class TestColour(EncoderContract):
    @pytest.fixture(scope="class")
    def case(self) -> EncoderCase:
        return EncoderCase(plan=lambda: plan_encoder("colour"))


class _Timm(EncoderContract):
    model = ""
    precision = "fp32"

    @pytest.fixture(scope="class")
    def case(self, timm_file: TimmFile) -> EncoderCase:
        first, second = timm_file(self.model, 0), timm_file(self.model, 1)
        return EncoderCase(
            plan=lambda: plan_encoder(self.model, weights=first),
            other=lambda: plan_encoder(self.model, weights=second),
            precision=self.precision,
        )


class TestTimmViT(_Timm):
    model = "test_vit"


class TestTimmViTInBf16(_Timm):
    model = "test_vit"
    precision = "bf16"


class TestTimmCnn(_Timm):
    model = "test_resnet"


class TestTimmCnnInBf16(_Timm):
    model = "test_resnet"
    precision = "bf16"


class _HuggingFace(EncoderContract):
    kind = ""
    precision = "fp32"

    @pytest.fixture(scope="class")
    def case(self, huggingface_folder: HuggingFaceFolder) -> EncoderCase:
        first, second = huggingface_folder(self.kind, 0), huggingface_folder(self.kind, 1)
        return EncoderCase(
            plan=lambda: plan_encoder(str(first)),
            other=lambda: plan_encoder(str(second)),
            precision=self.precision,
        )


class TestHuggingFaceViT(_HuggingFace):
    kind = "vit"


class TestHuggingFaceDinov2InBf16(_HuggingFace):
    kind = "dinov2"
    precision = "bf16"


class TestHuggingFaceConvNext(_HuggingFace):
    kind = "convnext"


class TestHuggingFaceClip(_HuggingFace):
    kind = "clip"
