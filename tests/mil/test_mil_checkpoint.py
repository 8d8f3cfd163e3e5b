"""What is saved comes back bit for bit; what was tampered with, cut short or is something else is refused clearly."""

from __future__ import annotations

import hashlib
import json
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from wsi_pipeline.config.specs import MilSpec
from wsi_pipeline.errors import MilError, StoreError
from wsi_pipeline.mil.models.zoo import MIL_MODELS, MilModel, build_model
from wsi_pipeline.mil.tasks import Task
from wsi_pipeline.mil.tasks.classification import ClassificationTask
from wsi_pipeline.mil.tasks.regression import RegressionTask
from wsi_pipeline.mil.tasks.survival import CoxTask, DiscreteTask
from wsi_pipeline.mil.trained.checkpoint import load_ensemble, save_ensemble

SPEC = MilSpec(hidden_dim=6, attention_dim=4)
ENCODER = {"name": "colour", "dim": 5, "weights": None}


def models_of(spec: MilSpec, n: int) -> list[MilModel]:
    models = [build_model(spec, 5, 2) for _ in range(n)]
    for model in models:
        model.set_standardisation(torch.randn(5), torch.rand(5) + 0.5)
    return models


def save(folder: Path, n: int = 2, spec: MilSpec = SPEC) -> list[MilModel]:
    models = models_of(spec, n)
    save_ensemble(
        folder,
        models,
        spec=spec,
        task=ClassificationTask(("a", "b")),
        encoder=ENCODER,
        provenance={"cohort": "äbc", "n": [1]},
    )
    return models


@pytest.mark.parametrize("name", MIL_MODELS.names())
def test_everything_comes_back(tmp_path: Path, name: str) -> None:
    spec = MilSpec(model=name, hidden_dim=6, attention_dim=4, seed=3)
    models = save(tmp_path / "m", spec=spec)
    back = load_ensemble(tmp_path / "m")
    assert (back.spec, back.classes, back.feature_dim) == (spec, ("a", "b"), 5)
    assert (back.encoder, back.provenance) == (ENCODER, {"cohort": "äbc", "n": [1]})
    for saved, loaded in zip(models, back.models, strict=True):
        assert not loaded.training
        states = saved.state_dict(), loaded.state_dict()
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        assert not any(tensor.is_meta for tensor in states[1].values())


def test_folder_holds_config_and_folds_only(tmp_path: Path) -> None:
    save(tmp_path, 3)
    (tmp_path / "foldings.safetensors").write_bytes(b"someone else's")
    save(tmp_path, 2)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["config.json", "fold0.safetensors", "fold1.safetensors", "foldings.safetensors"]
    assert len(load_ensemble(tmp_path).models) == 2


def test_loading_draws_no_random_numbers(tmp_path: Path) -> None:
    save(tmp_path)
    before = torch.get_rng_state()
    load_ensemble(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_fingerprint_follows_content(tmp_path: Path) -> None:
    save(tmp_path / "a")
    prints = [load_ensemble(tmp_path / "a").fingerprint for _ in range(2)]
    save(tmp_path / "b")
    assert prints[0] == prints[1] != load_ensemble(tmp_path / "b").fingerprint


def test_other_encoder_is_refused_by_name(tmp_path: Path) -> None:
    save(tmp_path)
    back = load_ensemble(tmp_path)
    back.check_encoder(dict(ENCODER))
    with pytest.raises(MilError, match=r"name 'uni', not 'colour'; weights 'abc', not None"):
        back.check_encoder({"name": "uni", "dim": 5, "weights": "abc"})


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """A change of config.json."""

    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        change(config)
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def fold(content: Callable[[Path], bytes]) -> Callable[[Path], None]:
    """Another fold0.safetensors, with its checksum put right in the config: only the content can give it away."""

    def apply(folder: Path) -> None:
        path = folder / "fold0.safetensors"
        data = content(path)
        path.write_bytes(data)
        edit(lambda c: c["folds"][0].update(sha256=hashlib.sha256(data).hexdigest()))(folder)

    return apply


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """Other tensors in fold0.safetensors."""

    def content(path: Path) -> bytes:
        state = load_file(path)
        change(state)
        save_file(state, path)
        return path.read_bytes()

    return fold(content)


def header(entry: dict[str, Any]) -> bytes:
    text = json.dumps({"feature_mean": entry}).encode()
    return struct.pack("<Q", len(text)) + text


DISCRETE = {"name": "survival", "loss": "discrete"}

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no fold": (lambda f: (f / "fold1.safetensors").unlink(), "fold1.safetensors is missing"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "is not JSON"),
    "no text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), "is not JSON"),
    "deep JSON": (lambda f: (f / "config.json").write_text("[" * 200_000), "is not JSON"),
    "endless number": (
        edit(lambda c: c["spec"].update(learning_rate=float("inf"))),
        "must be a finite number, got inf",
    ),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "not the configuration of a slide-level model"),
    "other format": (edit(lambda c: c.update(format="CLAM")), "not the configuration of a slide-level model"),
    "other version": (edit(lambda c: c.update(version=3)), "format version 3; this program reads versions 1 to 2"),
    "true as version": (edit(lambda c: c.update(version=True)), "format version True"),
    "other task": (edit(lambda c: c.update(task={"name": "ranking"})), "unknown task"),
    "task of version 1": (edit(lambda c: c.update(task="classification")), "a task must be a JSON object, got str"),
    "no task": (edit(lambda c: c.pop("task")), "a task must be a JSON object, got NoneType"),
    "no classes": (edit(lambda c: c["task"].pop("classes")), "unknown task"),
    "more in the task": (edit(lambda c: c["task"].update(mean=1)), "unknown task"),
    "one class": (edit(lambda c: c["task"].update(classes=["a"])), "classes must be 2 to"),
    "same classes": (edit(lambda c: c["task"].update(classes=["a", "a"])), "classes must be 2 to"),
    "empty class": (edit(lambda c: c["task"].update(classes=["a", ""])), "classes must be 2 to"),
    "classes in a text": (edit(lambda c: c["task"].update(classes="ab")), "must hold a list of str values"),
    "numbers as classes": (edit(lambda c: c["task"].update(classes=[1, 2])), "must hold a list of str values"),
    "three classes": (edit(lambda c: c["task"].update(classes=["a", "b", "c"])), "must be of shape (3,), got (2,)"),
    "no deviation": (edit(lambda c: c.update(task={"name": "regression", "mean": 0, "sd": 0})), "sd positive"),
    "infinite mean": (
        edit(lambda c: c.update(task={"name": "regression", "mean": float("inf"), "sd": 1})),
        "mean must be finite",
    ),
    "true as mean": (
        edit(lambda c: c.update(task={"name": "regression", "mean": True, "sd": 1})),
        "must hold a list of float values",
    ),
    "no edges": (edit(lambda c: c.update(task=DISCRETE | {"edges": []})), "edges must be 1 to"),
    "falling edges": (edit(lambda c: c.update(task=DISCRETE | {"edges": [2, 1]})), "edges must be 1 to"),
    "negative edge": (edit(lambda c: c.update(task=DISCRETE | {"edges": [-1, 1]})), "edges must be 1 to"),
    "edge NaN": (edit(lambda c: c.update(task=DISCRETE | {"edges": [1, float("nan")]})), "edges must be 1 to"),
    "endless edge": (edit(lambda c: c.update(task=DISCRETE | {"edges": [1, float("inf")]})), "edges must be 1 to"),
    "huge edge": (edit(lambda c: c.update(task=DISCRETE | {"edges": [10**400]})), "must fit into a float"),
    "many edges": (edit(lambda c: c.update(task=DISCRETE | {"edges": list(range(1, 2000))})), "edges must be 1 to"),
    "other outputs": (edit(lambda c: c.update(task={"name": "survival", "loss": "cox"})), "must be of shape (1,)"),
    "a fold's other task": (
        edit(lambda c: c["folds"][0].update(task={"name": "survival", "loss": "cox"})),
        "a fold's task must be that of all",
    ),
    "a fold's other classes": (
        edit(lambda c: c["folds"][0].update(task={"name": "classification", "classes": ["a", "c"]})),
        "a fold's task must be that of all",
    ),
    "a fold's other spec": (edit(lambda c: c["folds"][1].update(spec={"hidden_dim": 7})), "must be of shape"),
    "a fold's spec no object": (edit(lambda c: c["folds"][1].update(spec=[])), "folds must be a list"),
    "width above the bound": (edit(lambda c: c.update(feature_dim=65_537)), "feature_dim must be 1 to 65536"),
    "no width": (edit(lambda c: c.update(feature_dim=True)), "feature_dim must be"),
    "large width": (edit(lambda c: c.update(feature_dim=65_536)), "must be of shape (65536,), got (5,)"),
    "no folds": (edit(lambda c: c.update(folds=[])), "folds must be a list"),
    "strange folds": (edit(lambda c: c.update(folds=["../x"])), "folds must be a list"),
    "unknown key": (edit(lambda c: c["spec"].update(depth=3)), "unknown key depth"),
    "wrong value": (edit(lambda c: c["spec"].update(hidden_dim="6")), "hidden_dim must be of type int"),
    "unknown model": (edit(lambda c: c["spec"].update(model="clam")), "unknown MIL model 'clam'"),
    "wide model": (edit(lambda c: c["spec"].update(hidden_dim=8192)), "must be of shape"),
    "cut off": (lambda f: (f / "fold0.safetensors").write_bytes(b"abc"), "does not match its checksum"),
    "other folds swapped": (
        lambda f: (f / "fold0.safetensors").replace(f / "fold1.safetensors"),
        "fold0.safetensors is missing",
    ),
    "short": (fold(lambda p: p.read_bytes()[:-9]), "is not a safetensors file"),
    "empty": (fold(lambda p: b""), "is not a safetensors file"),
    "header beyond the end": (fold(lambda p: struct.pack("<Q", 3) + b"{}"), "is not a safetensors file"),
    "shape beyond the end": (
        fold(lambda p: header({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"0000"),
        "is not a safetensors file",
    ),
    "pickle": (fold(lambda p: pickle.dumps({"feature_mean": [1.0] * 100})), "is not a safetensors file"),
    "wrong shape": (
        tensors(lambda s: s.update(feature_mean=torch.zeros(6))),
        "feature_mean must be of shape (5,), got (6,)",
    ),
    "tensor missing": (tensors(lambda s: s.pop("feature_std")), "feature_std must be of shape (5,), got None"),
    "tensor too many": (tensors(lambda s: s.update(more=torch.zeros(1))), "more must be of shape None, got (1,)"),
    "other precision": (tensors(lambda s: s.update(feature_mean=torch.zeros(5).double())), "weights must be float32"),
    "not a number": (tensors(lambda s: s["feature_mean"].fill_(torch.nan)), "feature_mean holds NaN"),
    "no spread": (tensors(lambda s: s["feature_std"].fill_(0)), "feature_std must be positive"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_are_refused(tmp_path: Path, case: str) -> None:
    save(tmp_path)
    damage, message = HOSTILE[case]
    damage(tmp_path)
    with pytest.raises(StoreError) as caught:
        load_ensemble(tmp_path)
    assert message in caught.value.what


def test_writing_cut_short_is_recognised(tmp_path: Path) -> None:
    """A newer fold beside the older config, as a killed process would leave it."""
    save(tmp_path / "old")
    save(tmp_path / "new")
    (tmp_path / "new" / "fold0.safetensors").replace(tmp_path / "old" / "fold0.safetensors")
    with pytest.raises(StoreError, match="does not match its checksum") as caught:
        load_ensemble(tmp_path / "old")
    assert caught.value.todo == "Train it again with: wsi-pipeline train-mil"


def test_version_1_opens(tmp_path: Path) -> None:
    """As 0.x wrote it: the task by its name, the classes beside it, settings of today unknown."""
    models = save(tmp_path)

    def older(config: dict[str, Any]) -> None:
        config.update(version=1, task="classification", classes=["a", "b"])
        for key in ("task", "bag", "survival_loss", "time_bins", "label_smoothing"):
            del config["spec"][key]

    edit(older)(tmp_path)
    back = load_ensemble(tmp_path)
    assert (back.task, back.spec) == (ClassificationTask(("a", "b")), SPEC)
    assert torch.equal(back.models[0].feature_mean, models[0].feature_mean)
    edit(lambda c: c.update(task="survival"))(tmp_path)
    with pytest.raises(StoreError, match="task must be classification"):
        load_ensemble(tmp_path)
    edit(lambda c: c.update(task="classification", classes=["a"]))(tmp_path)
    with pytest.raises(StoreError, match="classes must be 2 to"):
        load_ensemble(tmp_path)


@pytest.mark.parametrize("task", [RegressionTask(3.5, 2.0), DiscreteTask((1.0, 2.5, 10.0)), CoxTask()])
def test_every_task_comes_back(tmp_path: Path, task: Task) -> None:
    models = [build_model(SPEC, 5, task.n_outputs) for _ in range(2)]
    save_ensemble(tmp_path, models, spec=SPEC, task=task, encoder=ENCODER, provenance={})
    back = load_ensemble(tmp_path)
    assert (back.task, back.tasks, back.specs, back.classes) == (task, (task, task), (SPEC, SPEC), ())


def test_folds_keep_what_they_learned_and_chose(tmp_path: Path) -> None:
    whole, tasks = RegressionTask(1, 1), (RegressionTask(1, 2), RegressionTask(-1, 3))
    specs = (SPEC, MilSpec(model="mean", hidden_dim=9))
    models = [build_model(spec, 5, 1) for spec in specs]
    save_ensemble(tmp_path, models, spec=SPEC, task=whole, encoder={}, provenance={}, specs=specs, tasks=tasks)
    back = load_ensemble(tmp_path)
    assert (back.task, back.tasks, back.specs) == (whole, tasks, specs)
    with pytest.raises(MilError, match="a fold's task must be that of all"):
        save_ensemble(tmp_path, models, spec=SPEC, task=whole, encoder={}, provenance={}, tasks=[whole, CoxTask()])
