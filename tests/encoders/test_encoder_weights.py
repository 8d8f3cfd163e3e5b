"""Safetensors files: one identity whatever the layout, and clear refusals of everything else."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file
from safetensors.torch import save_file as save_torch

from wsi_pipeline.encoders.weights import compare, hash_tensors, read_header, read_tensors
from wsi_pipeline.errors import EncoderError

Tensors = dict[str, NDArray[np.float32]]


def some_tensors(seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(index + 1, 3)).astype(np.float32) for index, name in enumerate("cabd")}


def saved(path: Path, tensors: Tensors, metadata: dict[str, str] | None = None) -> Path:
    save_file(tensors, path, metadata)
    return path


def test_the_hash_is_that_of_the_tensors_alone(tmp_path: Path) -> None:
    tensors = some_tensors()
    plain = hash_tensors([saved(tmp_path / "plain.safetensors", tensors)])
    noted = saved(tmp_path / "noted.safetensors", dict(reversed(tensors.items())), {"format": "pt", "by": "me"})
    assert hash_tensors([noted]) == plain
    halves = [
        saved(tmp_path / f"{part}.safetensors", {name: tensors[name] for name in names})
        for part, names in (("two", "cd"), ("one", "ba"))
    ]
    assert hash_tensors(halves) == plain
    assert hash_tensors(halves[:1]) != plain


@given(st.sampled_from("abcd"), st.integers(0, 2), st.sampled_from(["value", "name", "shape", "type"]))
@settings(max_examples=20, deadline=None)
def test_any_change_changes_the_hash(
    tmp_path_factory: pytest.TempPathFactory, name: str, column: int, kind: str
) -> None:
    folder, tensors = tmp_path_factory.mktemp("hash"), some_tensors()
    before = hash_tensors([saved(folder / "before.safetensors", tensors)])
    changed = tensors[name].copy()
    if kind == "value":
        changed[0, column] = np.nextafter(changed[0, column], np.float32(9))
    after = {**tensors, name: changed}
    if kind == "name":
        after[name + "x"] = after.pop(name)
    elif kind == "shape":
        after[name] = changed.reshape(3, -1) if changed.shape != (3, 3) else changed.reshape(9, 1)
    elif kind == "type":
        after[name] = changed.view(np.int32)
    assert hash_tensors([saved(folder / "after.safetensors", after)]) != before


def test_half_precision_is_raised_and_integers_stay(tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    values = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    save_torch({"half": values.half(), "brain": values.bfloat16(), "full": values, "count": torch.tensor(7)}, path)
    tensors = read_tensors([path])
    assert {name: value.dtype for name, value in tensors.items()} == {
        "half": torch.float32, "brain": torch.float32, "full": torch.float32, "count": torch.int64,
    }  # fmt: skip
    torch.testing.assert_close(tensors["half"], values.half().float(), rtol=0, atol=0)
    assert read_header(path)["full"].shape == (4, 5)


def test_pickles_and_other_files_are_refused_with_the_way_out(tmp_path: Path) -> None:
    pickled, zipped, text, empty = (tmp_path / name for name in ("model.bin", "model.pth", "model.txt", "empty"))
    pickled.write_bytes(pickle.dumps({"a": [1, 2]}))
    torch.save({"a": torch.zeros(3)}, zipped)
    text.write_text("{}" * 50)
    empty.write_bytes(b"")
    for path in (pickled, zipped, text, empty):
        for reader in (lambda path: read_tensors([path]), lambda path: hash_tensors([path])):
            with pytest.raises(EncoderError, match="is not a safetensors file") as caught:
                reader(path)
            assert "weights_only=True" in str(caught.value.todo)
    with pytest.raises(EncoderError, match="is missing"):
        read_header(tmp_path / "none")


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_a_file_cut_anywhere_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = saved(tmp_path_factory.mktemp("cut") / "model.safetensors", some_tensors())
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(EncoderError, match=r"is not a safetensors file|is damaged"):
        read_header(path)


def test_comparison_names_what_does_not_fit() -> None:
    wanted = {"a": torch.zeros(2), "b": torch.zeros(3), "bn.num_batches_tracked": torch.tensor(0)}
    fit = compare(wanted, {"b": torch.zeros(4), "c": torch.zeros(1)})
    assert (fit.missing, fit.reshaped, fit.extra, fit.good) == (("a",), ("b",), ("c",), False)
    assert compare(wanted, {"a": torch.zeros(2), "b": torch.zeros(3)}).good
