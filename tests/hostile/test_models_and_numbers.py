"""Model files with changed bytes; features that are no numbers; slides with no patch or one, through every stage."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from pathotune.checkpoint import read_adapter
from pathotune.errors import AdapterError
from tests.adapter_files import write_adapter, write_backbone
from tests.mil.test_mil_checkpoint import save
from tests.slide_files import write_pyramid_tiff
from tests.stages.cohorts import blob_slide
from tests.store.feature_files import write_feature_store
from wsi_pipeline.cli import main
from wsi_pipeline.errors import StoreError
from wsi_pipeline.mil.trained.checkpoint import load_ensemble
from wsi_pipeline.store.tables.feature_table import read_feature_table

FLIPS = 60


def _flipped(raw: bytes, rng: random.Random, most: int) -> bytes:
    changed = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(min(len(changed), most))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def test_changed_bytes_of_a_trained_model_are_noticed(tmp_path: Path) -> None:
    save(tmp_path / "good")
    rng = random.Random(0)
    for k in range(FLIPS):
        folder = tmp_path / "bad"
        shutil.copytree(tmp_path / "good", folder, dirs_exist_ok=True)
        path = folder / ("fold0.safetensors" if k % 2 else "config.json")
        raw = path.read_bytes()
        path.write_bytes(_flipped(raw, rng, 10**6))
        if path.read_bytes() == raw:
            continue
        try:  # of the config, words such as the provenance may change without harm; weights never
            load_ensemble(folder)
        except StoreError:
            continue
        assert path.name == "config.json"


def test_changed_bytes_of_an_adapter_header_are_noticed_or_harmless(tmp_path: Path) -> None:
    good = write_adapter(tmp_path / "good.safetensors", write_backbone(tmp_path / "vit.safetensors"))
    raw, rng = good.read_bytes(), random.Random(0)
    refused = 0
    for _ in range(FLIPS):
        path = tmp_path / "bad.safetensors"
        path.write_bytes(_flipped(raw, rng, 3000))
        try:
            read_adapter(path)
        except AdapterError:
            refused += 1
    assert refused > FLIPS // 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_features_that_are_no_numbers_are_refused_with_their_place(tmp_path: Path, bad: float, dtype: str) -> None:
    features = np.zeros((9, 4), dtype)
    features[5, 2] = bad
    with pytest.raises(StoreError, match=r"1 of 9 patches .* the first at row 5, \(320, 0\)"):
        write_feature_store(tmp_path / "a.h5", features)
    assert list(tmp_path.iterdir()) == []
    write_feature_store(tmp_path / "a.h5", np.nan_to_num(features, posinf=1, neginf=1))
    assert len(read_feature_table(tmp_path / "a.h5").features) == 9


def test_no_patch_and_one_patch_go_through_every_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["slide_id,path,patient_id,label"]
    for k in range(4):
        write_pyramid_tiff(tmp_path / f"s{k}.svs", blob_slide(k, side=512, red=k % 2 == 0), mpp=0.5)
        rows.append(f"s{k},s{k}.svs,p{k},{'ab'[k % 2]}")
    for k in range(2):
        small = np.full((600, 600, 3), 243, np.uint8)
        small[150:370, 150:370] = blob_slide(9 + k, side=512, red=k == 0)[146:366, 146:366]
        write_pyramid_tiff(tmp_path / f"one{k}.svs", small, mpp=0.5)
        rows.append(f"one{k},one{k}.svs,q{k},{'ab'[k]}")
        write_pyramid_tiff(tmp_path / f"none{k}.svs", np.full((600, 600, 3), 243, np.uint8), mpp=0.5)
        rows.append(f"none{k},none{k}.svs,r{k},{'ab'[k]}")
    (tmp_path / "slides.csv").write_text("\n".join(rows) + "\n")
    run = ["--run", str(tmp_path / "r")]
    tile = ["tile", str(tmp_path / "slides.csv"), "--patch-px", "512", "--min-coverage", "0.01", "--workers", "0", *run]
    assert main(tile) == 0
    out = capsys.readouterr().out
    for name in ("one0", "one1"):
        assert f"\n{name} " in out
    assert main(["embed", "--model", "colour", "--device", "cpu", *run]) == 0
    counts = {
        path.stem: len(read_feature_table(path).features) for path in (tmp_path / "r" / "embed" / "colour").glob("*.h5")
    }
    assert counts["none0"] == counts["none1"] == 0
    assert 1 in counts.values()
    for command in (["train-mil", "--folds", "2", "--epochs", "2", "--device", "cpu", "--allow-few"], ["predict"],
                    ["heatmap"], ["report"]):  # fmt: skip
        assert main([*command, *run]) in (0, 3), command
        assert "Traceback" not in capsys.readouterr().err
    assert (tmp_path / "r" / "report" / "report.html").is_file()
