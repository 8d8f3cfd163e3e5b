"""Adapter files: save and load give the same model; other backbones and hostile files are refused."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pathotune.adapterfile import MAX_HEADER
from pathotune.checkpoint import load_adapter, read_adapter, save_adapter
from pathotune.config import PathoTuneConfig, TaskText
from pathotune.errors import AdapterError
from pathotune.model import PathoTune
from tests.pathotune.vits import CARD, DIM, KINDS, OFF, images, small_vit, states

CONFIG = PathoTuneConfig(classes=("benign", "malignant"), vrm_width=8, feature="cls_mean", text_encoder="not/there")


def model_of(config: PathoTuneConfig = CONFIG, kind: str = "plain") -> PathoTune:
    torch.manual_seed(5)
    return PathoTune(config, small_vit(kind), states(config) if config.ttp else None).eval()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "adapter.safetensors"
    save_adapter(path, model_of(), CARD, metrics={"macro_f1": 0.68}, provenance={"mpp": 0.5})
    return path


def header_of(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change a file's header, its tensors' bytes left as they are."""
    header, body = header_of(path)
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def redescribe(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the document in a file's metadata."""

    def within(header: dict[str, Any]) -> None:
        document = json.loads(header["__metadata__"]["pathotune"])
        change(document)
        header["__metadata__"]["pathotune"] = json.dumps(document)

    rewrite(path, within)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "options",
    [
        {},
        OFF,
        {"ttp": False},
        {"vrm_input": "patches", "head": "mlp"},
        {"vrm_input": "layers", "entry": 0.34},
        {"tvp_depth": "shallow", "classes": ()},
    ],
)
def test_loaded_equals_saved_bit_for_bit(tmp_path: Path, options: dict[str, Any], kind: str) -> None:
    config = PathoTuneConfig.from_dict({**CONFIG.to_dict(), **options})
    model, path = model_of(config, kind), tmp_path / "deep" / "adapter.safetensors"
    if not model.adapter_state():
        pytest.skip("a model without prompts and head has nothing to save")
    save_adapter(path, model, CARD)
    loaded = load_adapter(path, small_vit(kind))
    assert loaded.config == config
    assert not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded.features(images()), model.features(images()))
    projection = {"ttp.project.weight", "ttp.project.bias"} if config.ttp else set()
    text = {"ttp.text"} if config.ttp else set()
    assert set(loaded.trained_parameters()) == set(model.trained_parameters()) - projection | text
    assert all(value.requires_grad for value in loaded.trained_parameters().values())


def test_loaded_models_train_on(saved: Path) -> None:
    model = load_adapter(saved, small_vit()).train()
    model(images()).sum().backward()
    assert all(value.grad is not None for value in model.trained_parameters().values())


def test_the_file_holds_trained_tensors_text_tokens_and_one_description(saved: Path) -> None:
    model, header = model_of(), header_of(saved)[0]
    projection = {"ttp.project.weight", "ttp.project.bias"}
    assert set(load_file(saved)) == set(model.trained_parameters()) - projection | {"ttp.text"}
    assert list(header["__metadata__"]) == ["pathotune"]
    info = read_adapter(saved)
    assert (info.config, info.backbone) == (CONFIG, CARD)
    assert (info.metrics, info.provenance) == ({"macro_f1": 0.68}, {"mpp": 0.5})
    assert info.texts == (
        "H&E stained histology image of human tissue. The task is patch classification. "
        "The classes are benign, malignant.",
    )
    assert {"torch", "timm", "pathotune", "safetensors"} <= set(info.versions)
    assert saved.stat().st_size < info.nbytes + 8192


def test_equal_models_make_equal_files_and_leave_nothing_beside_them(saved: Path) -> None:
    before = saved.read_bytes()
    save_adapter(saved, model_of(), CARD, metrics={"macro_f1": 0.68}, provenance={"mpp": 0.5})
    assert saved.read_bytes() == before
    assert [item.name for item in saved.parent.iterdir()] == [saved.name]


def test_paths_may_be_text(saved: Path, tmp_path: Path) -> None:
    save_adapter(str(tmp_path / "text"), model_of(), CARD, metrics={"macro_f1": 0.68}, provenance={"mpp": 0.5})
    assert (tmp_path / "text").read_bytes() == saved.read_bytes()
    assert read_adapter(str(saved)).config == load_adapter(str(saved), small_vit()).config


def test_several_tasks_come_back(tmp_path: Path) -> None:
    config = PathoTuneConfig(vrm_width=8, tasks=(TaskText(organ="colon"), TaskText(organ="breast")))
    model, task = model_of(config), torch.tensor([0, 1, 1])
    save_adapter(tmp_path / "two", model, CARD)
    with torch.inference_mode():
        loaded = load_adapter(tmp_path / "two", small_vit())
        assert torch.equal(loaded.features(images(), task), model.features(images(), task))


@pytest.mark.parametrize("name", ["default", "deep", "shallow"])
def test_adapters_of_before_prompts_had_an_entry_give_the_same_features(name: str) -> None:
    """`adapters_1` was written by the code before the fields `entry` and `start`: never make it anew."""
    folder = Path(__file__).with_name("adapters_1")
    expected = json.loads((folder / f"{name}.json").read_text())
    document = json.loads(header_of(folder / f"{name}.safetensors")[0]["__metadata__"]["pathotune"])
    assert "entry" not in document["config"]
    model = load_adapter(folder / f"{name}.safetensors", small_vit("registers"))
    with torch.inference_mode():
        torch.testing.assert_close(model.features(images()), torch.tensor(expected["features"]))
        torch.testing.assert_close(model(images()), torch.tensor(expected["logits"]))


def test_adapters_of_version_1_with_a_projection_give_the_same_features(tmp_path: Path) -> None:
    """What was written before text tokens were stored: the projection and the text encoder's states."""
    model, path = model_of(), tmp_path / "adapter.safetensors"
    save_adapter(path, model, CARD)
    document = json.loads(header_of(path)[0]["__metadata__"]["pathotune"])
    save_file(
        {name: value.detach().contiguous() for name, value in model.adapter_state().items()},
        path,
        metadata={"pathotune": json.dumps({**document, "version": 1})},
    )
    assert {"ttp.states", "ttp.project.weight"} <= set(load_file(path))
    loaded = load_adapter(path, small_vit())
    with torch.inference_mode():
        assert torch.equal(loaded.features(images()), model.features(images()))
        save_adapter(path, loaded, CARD)  # written again, it is of today's form
        assert torch.equal(load_adapter(path, small_vit()).features(images()), model.features(images()))
    assert "ttp.project.weight" not in load_file(path)


def test_the_projection_is_kept_where_it_is_smaller_than_the_tokens_of_many_tasks(tmp_path: Path) -> None:
    tasks = tuple(TaskText(organ=f"organ {number}") for number in range(30))
    model = model_of(PathoTuneConfig(vrm_width=8, ttp_tokens=32, tasks=tasks))
    save_adapter(tmp_path / "many", model, CARD)
    assert "ttp.project.weight" in load_file(tmp_path / "many")
    with torch.inference_mode():
        task = torch.tensor([0, 29, 5])
        loaded = load_adapter(tmp_path / "many", small_vit())
        assert torch.equal(loaded.features(images(), task), model.features(images(), task))


def test_a_default_adapter_of_a_vit_s_is_below_2_mb(tmp_path: Path) -> None:
    vit = small_vit(img_size=224, patch_size=16, embed_dim=384, depth=12, num_heads=6)
    config = PathoTuneConfig(classes=("a", "b", "c", "d"))
    text = torch.randn(1, config.ttp_tokens, 384, generator=torch.Generator().manual_seed(2))
    model = PathoTune(config, vit, text)
    save_adapter(tmp_path / "adapter", model, CARD)
    assert (tmp_path / "adapter").stat().st_size < 2_000_000
    assert sum(value.numel() for value in model.trained_parameters().values()) > 500_000  # a projection is trained


def test_loading_and_embedding_need_no_transformers(saved: Path) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None; from pathlib import Path\n"
        "from pathotune import load_adapter\nfrom tests.pathotune.vits import images, small_vit\n"
        f"print(load_adapter(Path({str(saved)!r}), small_vit()).features(images()).double().sum().item())"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(model_of().features(images()).detach().double().sum().item(), rel=1e-4)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (lambda: small_vit(seed=1), "weights"),
        (lambda: small_vit(embed_dim=48), "dim 48, not 24"),
        (lambda: small_vit(depth=4), "layers 4, not 3"),
        (lambda: small_vit(patch_size=16), "patch_px 16, not 8"),
        (lambda: small_vit("registers"), "registers 4, not 0"),
        (lambda: small_vit(num_heads=3), "weights"),
    ],
)
def test_another_backbone_is_refused(saved: Path, other: Callable[[], Any], reason: str) -> None:
    with pytest.raises(AdapterError, match=rf"tuned on tests/small; this is a different backbone: {reason}"):
        load_adapter(saved, other())


def _set(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda header: header[name].update({key: value})


HOSTILE: dict[str, Callable[[dict[str, Any]], None]] = {
    "wrong shape, same bytes": lambda header: header["head.1.weight"]["shape"].reverse(),
    "shape beyond the file": _set("tvp.tokens", "shape", [3, 10, 25]),
    "shape without a value": _set("tvp.tokens", "shape", [3, 10, 24, 0]),
    "negative shape": _set("tvp.tokens", "shape", [-3, -10, 24]),
    "shape of words": _set("tvp.tokens", "shape", ["3", "10", "24"]),
    "no shape": lambda header: header["tvp.tokens"].pop("shape"),
    "entry that is no object": lambda header: header.update({"tvp.tokens": 3}),
    "half precision": _set("tvp.tokens", "dtype", "F16"),
    "overlapping tensors": lambda header: header["ivp.refine.0.start"].update(
        data_offsets=[
            0,
            header["ivp.refine.0.start"]["data_offsets"][1] - header["ivp.refine.0.start"]["data_offsets"][0],
        ]
    ),
    "tensor renamed": lambda header: header.update({"tvp.other": header.pop("tvp.tokens")}),
    "no description": lambda header: header.pop("__metadata__"),
    "description that is not JSON": _set("__metadata__", "pathotune", "{"),
    "description nested without end": _set("__metadata__", "pathotune", "[" * 2000),
    "description with NaN": _set("__metadata__", "pathotune", '{"format": NaN}'),
}


def test_a_header_written_anew_but_unchanged_is_taken(saved: Path) -> None:
    redescribe(saved, lambda document: None)
    assert load_adapter(saved, small_vit()).config == CONFIG


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_hostile_headers_are_refused(saved: Path, change: Callable[[dict[str, Any]], None]) -> None:
    rewrite(saved, change)
    with pytest.raises(AdapterError):
        load_adapter(saved, small_vit())


def test_overlaps_are_found_before_the_tensors_are_read(saved: Path) -> None:
    rewrite(saved, HOSTILE["overlapping tensors"])
    with pytest.raises(AdapterError, match="overlap"):
        read_adapter(saved)


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], None]] = {
    "format 'other'": lambda document: document.update(format="other"),
    "version 3": lambda document: document.update(version=3),
    "unknown key code": lambda document: document["config"].update(code="x"),
    "tvp_tokens must be": lambda document: document["config"].update(tvp_tokens=1025),
    "tvp.tokens must be of shape": lambda document: document["config"].update(tvp_tokens=11),
    "ttp.text must be of shape": lambda document: document["config"].update(ttp_tokens=9),
    "head.1.bias must be of shape": lambda document: document["config"].update(classes=["a", "b", "c"]),
    "incomplete": lambda document: document["backbone"].pop("fingerprint"),
    "description is incomplete": lambda document: document["backbone"].update(mean=[0.5]),
    "weights": lambda document: document["backbone"].update(fingerprint="0" * 64),
    "arguments must be": lambda document: document["backbone"].update(arguments={"checkpoint_path": "other.pth"}),
    "std must be positive": lambda document: document["backbone"].update(std=[0, 0, 0]),
    "too large": lambda document: document["backbone"].update(mean=[10**400, 0, 0]),
    "geometry must be": lambda document: document["backbone"].update(geometry=[["dim", "24"]]),
    "geometry must be whole": lambda document: document["backbone"]["geometry"].update(dim=24.5),
    "classes must be printable text": lambda document: document["config"].update(classes=["benign", "\ud800"]),
    "classes must be printable": lambda document: document["config"].update(classes=["benign", "a\x07"]),
    "organ must be printable": lambda document: document["config"]["tasks"][0].update(organ="\udcff"),
}


@pytest.mark.parametrize("reason", DESCRIPTIONS)
def test_hostile_descriptions_are_refused(saved: Path, reason: str) -> None:
    redescribe(saved, DESCRIPTIONS[reason])
    with pytest.raises(AdapterError, match=reason):
        load_adapter(saved, small_vit())


@pytest.mark.parametrize("length", [0, MAX_HEADER + 1])
def test_headers_above_the_bound_are_refused_before_memory_is_taken(saved: Path, length: int) -> None:
    raw = saved.read_bytes()
    with saved.open("wb") as file:
        file.write(struct.pack("<Q", length) + raw[8:])
        file.truncate(2 * MAX_HEADER)  # as long as it says
    tracemalloc.start()
    with pytest.raises(AdapterError, match="header must have"):
        load_adapter(saved, small_vit())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize("keep", [0, 7, 8, 500, -1])
def test_files_cut_short_or_longer_are_refused(saved: Path, keep: int) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[:keep])
    with pytest.raises(AdapterError):
        load_adapter(saved, small_vit())
    saved.write_bytes(whole + b"\0")
    with pytest.raises(AdapterError, match="length"):
        load_adapter(saved, small_vit())


def test_keys_that_stand_twice_are_refused(saved: Path) -> None:
    header, body = header_of(saved)
    entry = json.dumps({"tvp.tokens": header["tvp.tokens"]})[1:-1]
    text = (json.dumps(header)[:-1] + "," + entry + "}").encode()
    saved.write_bytes(struct.pack("<Q", len(text)) + text + body)
    with pytest.raises(AdapterError, match="twice"):
        load_adapter(saved, small_vit())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_on_loading_and_saving(saved: Path, value: float) -> None:
    metadata = header_of(saved)[0]["__metadata__"]
    tensors = load_file(saved)
    tensors["ttp.text"][0, 0, DIM - 1] = value
    save_file(tensors, saved, metadata=metadata)
    with pytest.raises(AdapterError, match=r"ttp.text holds NaN"):
        load_adapter(saved, small_vit())
    model = model_of()
    with torch.no_grad():
        next(iter(model.trained_parameters().values())).view(-1)[0] = value
    with pytest.raises(AdapterError, match="NaN"):
        save_adapter(saved, model, CARD)


def test_other_files_are_refused(tmp_path: Path) -> None:
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    torch.save({"weight": torch.zeros(2)}, tmp_path / "pickle.pt")
    (tmp_path / "text").write_text("not an adapter at all")
    (tmp_path / "folder").mkdir()
    for name in ("other.safetensors", "pickle.pt", "text", "folder", "missing"):
        with pytest.raises(AdapterError):
            read_adapter(tmp_path / name)


def test_what_is_no_json_is_refused_on_saving(tmp_path: Path) -> None:
    for metrics in ({"f1": float("nan")}, {"f1": object()}, {"curve": "x" * MAX_HEADER}):
        with pytest.raises(AdapterError, match="metrics"):
            save_adapter(tmp_path / "adapter", model_of(), CARD, metrics=metrics)
    assert list(tmp_path.iterdir()) == []


def test_the_group_may_read_an_adapter_where_its_umask_says_so(saved: Path) -> None:
    beside = saved.with_name("beside")
    beside.touch()
    assert saved.stat().st_mode == beside.stat().st_mode
