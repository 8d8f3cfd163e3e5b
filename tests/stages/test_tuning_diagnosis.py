"""`tune --diagnose`: written beside an up-to-date tuning too, measured on patches that nothing learned from."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from tests.stages.test_tune import words
from tests.stages.tune_files import write_backbone, write_class_folders
from wsi_pipeline.cli import main
from wsi_pipeline.report.figures.diagnosis_figure import diagnosis_png


def test_diagnosis_tells_where_the_class_token_looks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_class_folders(tmp_path / "crops")
    write_backbone(tmp_path / "vit.safetensors")
    assert main(words(tmp_path, "--epochs", "1")) == 0
    folder = tmp_path / "run" / "tune" / "pathotune"
    adapter = (folder / "adapter.safetensors").read_bytes()
    assert not (folder / "diagnosis.json").exists()
    capsys.readouterr()
    assert main(words(tmp_path, "--epochs", "1", "--diagnose")) == 0
    told = capsys.readouterr().out
    assert "up to date" in told
    assert "diagnosis.png" in told
    assert (folder / "adapter.safetensors").read_bytes() == adapter
    found = json.loads((folder / "diagnosis.json").read_text())
    assert found["part"] == "test"
    assert found["patches"] == json.loads((folder / "metrics.json").read_text())["n_patches"]
    for name in ("tuned", "bare"):
        layers = zip(*found[name]["attention"].values(), strict=True)
        assert all(sum(layer) == pytest.approx(1, abs=1e-4) for layer in layers)
    assert max(found["tuned"]["attention"]["tvp"]) > 0 == max(found["bare"]["attention"]["tvp"])
    assert sum(found["tuned"]["gradient"].values()) == pytest.approx(1)
    with Image.open(folder / "diagnosis.png") as picture:
        assert picture.width > 1000


def test_the_picture_is_drawn_for_a_method_without_prompts() -> None:
    none = {"cls": [0.2], "registers": [0.0], "tvp": [0.0], "ttp": [0.0], "ivp": [0.0], "image": [0.8]}
    one = {"attention": none, "variation": [0.3], "gradient": {"head": 1.0}}
    with Image.open(io.BytesIO(diagnosis_png(one, one))) as picture:
        assert picture.format == "PNG"
