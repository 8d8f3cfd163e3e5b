"""Small random networks as files, made in folders of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from encoder_files import HuggingFaceFolder, TimmFile, save_huggingface, save_timm


@pytest.fixture(scope="session")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> TimmFile:
    """Saves a timm model with random tensors and returns the file: (model, seed, dtype, **arguments)."""

    def save(model: str, *args: Any, **kwargs: Any) -> Path:
        return save_timm(tmp_path_factory.mktemp("timm") / f"{model}.safetensors", model, *args, **kwargs)

    return save


@pytest.fixture(scope="session")
def huggingface_folder(tmp_path_factory: pytest.TempPathFactory) -> HuggingFaceFolder:
    """Saves a tiny transformers model with random tensors and returns the folder: (kind, seed, processor=True)."""

    def save(kind: str, *args: Any, **kwargs: Any) -> Path:
        return save_huggingface(tmp_path_factory.mktemp("hf") / f"tiny-{kind}", kind, *args, **kwargs)

    return save
