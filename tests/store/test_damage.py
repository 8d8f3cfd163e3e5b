"""Damage of any byte is found before the store is used; what is damaged is set aside and made anew."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from wsi_pipeline.errors import DamagedStoreError, StoreError
from wsi_pipeline.stages.engine.freshness import read_header, stale
from wsi_pipeline.store.files import amend_store, create_store, open_store
from wsi_pipeline.store.quarantine import set_aside
from wsi_pipeline.store.store import ArraySpec

SUFFIXES = (".h5", ".zarr")
suffixes = pytest.mark.parametrize("suffix", SUFFIXES)


def make(path: Path, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    arrays = {
        "coords": rng.integers(0, 9999, (60, 2)),
        "features": rng.normal(size=(60, 16)).astype(np.float16),
        "mask": (rng.random((50, 30)) > 0.5).astype(np.uint8),
    }
    with create_store(path) as writer:
        for name, array in arrays.items():
            spec = ArraySpec(name, array.shape, str(array.dtype), 25, compress=name == "mask", attrs={"name": "s"})
            writer.create(spec)
            writer.write(name, 0, array)
        writer.append_bytes("jpeg", [rng.bytes(n) for n in range(60)])
        writer.set_attrs({"format": "t", "version": 2, "specs": "{}"})
    return path


def content(path: Path) -> dict[str, Any]:
    with open_store(path) as store:
        parts: dict[str, Any] = {"attrs": store.attrs}
        for name in store.names():
            parts[name] = store.read_bytes(name) if name == "jpeg" else store.read(name).tobytes()
            parts[name + " facts"] = (store.shape(name), store.array_attrs(name))
        return parts


def files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(item for item in path.rglob("*") if item.is_file())


@suffixes
def test_no_flipped_byte_is_read_as_something_else(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}")
    whole, rng, found = content(path), random.Random(1), 0
    files = files_of(path)
    for _ in range(100):
        file = rng.choices(files, [item.stat().st_size for item in files])[0]
        raw = file.read_bytes()
        damaged = bytearray(raw)
        damaged[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        try:
            assert content(path) == whole  # a byte that holds nothing
        except DamagedStoreError:
            found += 1
        file.write_bytes(raw)
    assert found > 20


@suffixes
def test_no_truncation_is_read_as_something_else(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}")
    for file in files_of(path):
        raw = file.read_bytes()
        for part in (0, 1, len(raw) // 3, len(raw) // 2, len(raw) - 1):
            file.write_bytes(raw[:part])
            with pytest.raises(DamagedStoreError):
                content(path)
        file.write_bytes(raw)
    content(path)


def test_a_lost_file_of_a_zarr_store_does_not_read_as_zeros(tmp_path: Path) -> None:
    path = make(tmp_path / "a.zarr")
    (path / "features" / "c" / "0" / "0").unlink()
    with open_store(path) as store, pytest.raises(DamagedStoreError, match="features does not match its checksum"):
        store.read("features", 3, 5)


def test_a_store_whose_seal_was_taken_off_is_damaged(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        del file.attrs["seal"], file.attrs["checksums"]
    with pytest.raises(DamagedStoreError):
        open_store(path)


def test_what_somebody_adds_does_not_break_the_seal(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with h5py.File(path, "r+") as file:
        file["labels"] = np.arange(60)
        file.attrs["remark"] = "by hand"
        file["coords"].attrs["remark"] = "by hand"
    with open_store(path) as store:
        assert store.read("labels", 7, 9).tolist() == [7, 8]
        assert store.array_attrs("coords") == {"name": "s", "remark": "by hand"}
        store.verify()


@suffixes
def test_an_amended_store_is_sealed_again(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}")
    for value in (1, 2):
        with amend_store(path) as writer:
            writer.remove("labels")
            writer.create(ArraySpec("labels", (60,), "int16", 25))
            writer.write("labels", 30, np.full(30, value, np.int16))  # not in order: read back
            writer.write("labels", 0, np.full(30, value, np.int16))
    with open_store(path) as store:
        store.verify()
        assert store.read("labels").tolist() == [2] * 60
        assert store.names() == ("coords", "features", "jpeg", "labels", "mask")


@suffixes
def test_a_damaged_store_is_set_aside_and_the_next_one_beside_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / "tile" / f"s [1]{suffix}"
    for number in (1, 2):
        make(path)
        victim = files_of(path)[0]
        victim.write_bytes(victim.read_bytes()[:40])
        with pytest.raises(DamagedStoreError) as caught:
            content(path)
        told = set_aside(caught.value)
        assert f"kept as {path.name}.damaged-{number}" in told.what
        assert told.todo == "It will be recomputed by wsi-pipeline tile slides.csv"
        assert not path.exists()
        assert stale(path, None, {}).reason == f"damaged, kept as {path.name}.damaged-{number}"


def test_a_damaged_store_takes_the_place_of_no_other(tmp_path: Path) -> None:
    path, kept = make(tmp_path / "a.h5"), tmp_path / "a.h5.damaged-2"  # the first was removed
    kept.write_text("kept", encoding="utf-8")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DamagedStoreError) as caught:
        content(path)
    assert "kept as a.h5.damaged-3" in set_aside(caught.value).what
    assert kept.read_text(encoding="utf-8") == "kept"


@suffixes
def test_a_whole_store_that_took_its_place_is_left_alone(tmp_path: Path, suffix: str) -> None:
    path = make(tmp_path / f"a{suffix}")
    victim = files_of(path)[0]
    victim.write_bytes(victim.read_bytes()[:-20])
    with pytest.raises(DamagedStoreError) as caught:
        content(path)
    make(path, seed=1)
    assert set_aside(caught.value) is caught.value
    content(path)
    assert list(tmp_path.iterdir()) == [path]


@suffixes
def test_a_store_replaced_while_it_is_read_is_not_called_damaged(tmp_path: Path, suffix: str) -> None:
    path, other = make(tmp_path / f"a{suffix}"), make(tmp_path / f"b{suffix}", seed=1)
    with open_store(path) as store:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        other.rename(path)
        if suffix == ".zarr":
            with pytest.raises(StoreError, match="replaced by another process"):
                store.verify()
        else:
            store.verify()  # an open file is still the old one


def test_a_header_of_a_damaged_store_is_none_and_the_store_gone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    path.write_bytes(path.read_bytes()[:-9])
    assert read_header(path, "t") is None
    assert [item.name for item in tmp_path.iterdir()] == ["a.h5.damaged-1"]


def test_a_file_that_cannot_be_opened_now_is_not_called_damaged(tmp_path: Path) -> None:
    path = make(tmp_path / "a.h5")
    with open_store(path) as store:
        error = store._trouble("it cannot be read", OSError(5, "Input/output error"))
    assert not isinstance(error, DamagedStoreError)
    assert "cannot be read now: Input/output error" in error.what
