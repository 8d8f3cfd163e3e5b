"""Several encoders in one pass, several devices, compiled code: the same features, by the ways a user asks for them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.encoders.encoder_files import save_timm
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main
from wsi_pipeline.store.tables.feature_table import read_feature_table

VIT = "test_vit"
GOOD = ("s0", "s1", "blank")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiled run `one`, embedded encoder by encoder, and a copy `many` that is only tiled; weights beside them."""
    folder = tmp_path_factory.mktemp("embed")
    csv = write_cohort(folder / "cohort", per_class=1)
    save_timm(folder / "w.safetensors", VIT)
    for name in ("one", "many", "shared", "yaml"):
        if name == "one":
            main(["tile", str(csv), "--run", str(folder / name), "--patch-px", "128", "--workers", "0", "--quiet"])
        else:
            shutil.copytree(folder / "one", folder / name)
    for words in (["colour"], [VIT, "--weights", str(folder / "w.safetensors")]):
        assert main(["embed", "--model", *words, "--run", str(folder / "one"), "--quiet", "--batch", "8"]) == 3
    return folder


def stores(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted((run / "embed").rglob("*.h5"))}


def test_two_encoders_in_one_pass_give_what_each_gives_alone(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, weights = made / "many", f"{VIT}={made / 'w.safetensors'}"
    words = ["embed", "--model", "colour", "--model", VIT, "--weights", weights, "--run", str(run), "--batch", "8"]
    assert main(words) == 3
    out = capsys.readouterr().out
    assert "colour/, " in out
    assert f"embed/{VIT}/" in out
    assert stores(run) == stores(made / "one")
    assert len(stores(run)) == 2 * len(GOOD)
    (run / "embed" / VIT / "s1.h5").unlink()
    stamp = (run / "embed" / "colour" / "s1.h5").stat().st_mtime_ns
    main(words)
    assert stores(run) == stores(made / "one")
    assert (run / "embed" / "colour" / "s1.h5").stat().st_mtime_ns == stamp


def test_sections_of_a_yaml_share_the_pass(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    yaml = made / "cohort.yaml"
    yaml.write_text(
        "slides: cohort/slides.csv\nrun: yaml\ntile: {patch_px: 128, workers: 0}\n"
        f"embed:\n  - {{model: colour, batch: 8}}\n  - {{model: {VIT}, weights: w.safetensors, batch: 8}}\n"
    )
    assert main(["run", str(yaml)]) == 3
    assert capsys.readouterr().out.count("-- embed") == 1
    assert stores(made / "yaml") == stores(made / "one")


def test_slides_shared_out_over_processes_give_the_same(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, weights = made / "shared", f"{VIT}={made / 'w.safetensors'}"
    words = ["embed", "--model", "colour", "--model", VIT, "--weights", weights, "--run", str(run), "--batch", "8"]
    assert main([*words, "--devices", "cpu,cpu"]) == 3
    out = capsys.readouterr().out
    assert "devices cpu, cpu" in out
    counted = [line for line in out.splitlines() if line.startswith("embed ")][-1].split()[1]
    assert counted.split("/")[0] == counted.split("/")[1]
    assert set(stores(run)) == set(stores(made / "one"))
    for name in stores(run):
        features = [read_feature_table(made / which / name).features.astype(float) for which in ("one", "shared")]
        np.testing.assert_allclose(*features, rtol=2e-3, atol=2e-3)  # another number of threads rounds otherwise


def test_one_device_by_number_or_name_is_as_device(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for devices in ("cpu", "1"):
        assert main(["embed", "--model", "colour", "--devices", devices, "--run", str(made / "one")]) == 3
        assert "3 up to date" in capsys.readouterr().out


@pytest.mark.slow
def test_compiled_gives_the_same_direction(made: Path, tmp_path: Path) -> None:
    words = ["embed", "--model", VIT, "--weights", str(made / "w.safetensors"), "--batch", "8", "--quiet"]
    before = read_feature_table(made / "one" / "embed" / VIT / "s0.h5").features.astype(float)
    (made / "one" / "embed" / VIT / "s0.h5").unlink()
    assert main([*words, "--run", str(made / "one"), "--compile"]) == 3
    after = read_feature_table(made / "one" / "embed" / VIT / "s0.h5").features.astype(float)
    cosine = (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    assert cosine.min() > 0.999


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--model", "colour", "--model", "colour"], "--model names colour twice"),
        (["--model", "colour", "--model", VIT, "--weights", "w"], "weights does not name its model: w"),
        (["--model", "colour", "--model", VIT, "--weights", f"{VIT}=a", "--weights", f"{VIT}=b"], "2 times for"),
        (["--model", VIT, "--weights", "a", "--weights", "b"], "weights is given 2 times for one model"),
        (["--devices", "0"], "devices must be >= 1"),
        (["--devices", "cpu,gpu"], "device must be auto, cpu"),
        (["--devices", "cpu", "--device", "cpu"], "device and devices exclude each other"),
        (["--gpu-decode", "--device", "cpu"], "--gpu-decode needs a CUDA device, got cpu"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    made: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["embed", *words, "--run", str(made / "many")]) == 2
    assert told in capsys.readouterr().err


def test_size_and_crop_are_told_and_can_be_chosen(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first lines say what the network sees and what a feature is; a change of either makes features again."""
    run = made / "sized"
    shutil.copytree(made / "one", run)
    words = ["embed", "--model", VIT, "--weights", str(made / "w.safetensors"), "--batch", "8", "--run", str(run)]
    main(words)
    out = capsys.readouterr().out
    assert "input 160 px" in out
    assert "feature: class token" in out
    assert "resized to 168 px and the central 160 px are seen (91 % of the area)" in out
    assert "up to date" in out
    main([*words, "--input-px", "128", "--whole-patch"])
    out = capsys.readouterr().out
    assert "input 128 px" in out
    assert "central" not in out
    assert "input_px 0 -> 128, whole_patch False -> True" in out
    features = read_feature_table(run / "embed" / VIT / "s0.h5")
    assert features.header.specs["embed"]["input_px"] == 128
    assert features.header.extra["encoder"]["feature"] == "class token"
    assert main([*words, "--input-px", "100"]) == 2
    assert "does not take images of 100 x 100" in capsys.readouterr().err
