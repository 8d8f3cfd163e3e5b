"""Both store backends keep one contract, for any content; damage is found, not read."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.files import create_store, open_store
from wsi_pipeline.store.store import ArraySpec

SUFFIXES = (".h5", ".zarr")
arrays = hnp.arrays(
    st.sampled_from(["int64", "float32", "float16", "uint8"]),
    st.tuples(st.integers(0, 40), st.integers(1, 5)),
    elements={"allow_nan": False, "allow_infinity": False, "min_value": 0, "max_value": 100},
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=15, deadline=None)
@given(array=arrays, chunk=st.integers(1, 50), start=st.integers(0, 45), stop=st.integers(0, 45))
def test_rows_come_back_as_written(suffix: str, array: np.ndarray, chunk: int, start: int, stop: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        with create_store(path) as writer:
            writer.create(ArraySpec("x", array.shape, str(array.dtype), chunk, attrs={"unit": "px", "n": 3, "f": 0.5}))
            half = len(array) // 2
            writer.write("x", 0, array[:half])
            writer.write("x", half, array[half:])
            writer.set_attrs({"format": "t", "version": 1})
        with open_store(path) as store:
            assert store.attrs == {"format": "t", "version": 1}
            assert store.names() == ("x",)
            assert store.shape("x") == array.shape
            assert store.array_attrs("x") == {"unit": "px", "n": 3, "f": 0.5}
            assert store.read("x").dtype == array.dtype
            np.testing.assert_array_equal(store.read("x", start, stop), array[start:stop])


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=15, deadline=None)
@given(items=st.lists(st.binary(max_size=60), max_size=20), cut=st.integers(0, 20), start=st.integers(0, 21))
def test_byte_strings_come_back_as_written(suffix: str, items: list[bytes], cut: int, start: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        with create_store(path) as writer:
            writer.append_bytes("jpeg", items[:cut])
            writer.append_bytes("jpeg", items[cut:])
        with open_store(path) as store:
            assert store.shape("jpeg") == (len(items),)
            assert store.read_bytes("jpeg") == items
            assert store.read_bytes("jpeg", start, start + 3) == items[start : start + 3]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_failed_write_keeps_the_store_that_was_there(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with create_store(path) as writer:
        writer.set_attrs({"n": 1})
    with pytest.raises(RuntimeError), create_store(path) as writer:
        writer.set_attrs({"n": 2})
        raise RuntimeError
    with open_store(path) as store:
        assert store.attrs == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_equal_content_gives_equal_hdf5_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("a.h5", "b.h5"):
        with create_store(tmp_path / name) as writer:
            writer.create(ArraySpec("x", (3, 2), "int64", 2, compress=True))
            writer.write("x", 0, np.arange(6).reshape(3, 2))
            writer.append_bytes("jpeg", [b"abc", b""])
            writer.set_attrs({"n": 1, "s": "text"})
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_flipped_bytes_are_found_not_read(tmp_path: Path, suffix: str) -> None:
    path, marker = tmp_path / f"a{suffix}", np.full((64, 4), 0x5A, np.uint8)
    with create_store(path) as writer:
        writer.create(ArraySpec("x", marker.shape, "uint8", 64))
        writer.write("x", 0, marker)
    victims = [path] if path.is_file() else [item for item in path.rglob("*") if item.is_file()]
    hits = 0
    for file in victims:
        raw = bytearray(file.read_bytes())
        where = raw.find(b"\x5a" * 16)
        if where >= 0:
            raw[where + 3] ^= 0xFF
            file.write_bytes(raw)
            hits += 1
    assert hits == 1
    with open_store(path) as store, pytest.raises(StoreError, match="damaged"):
        store.read("x")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_truncated_and_foreign_stores_are_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(StoreError, match="missing"):
        open_store(tmp_path / f"no{suffix}")
    path = tmp_path / f"a{suffix}"
    if suffix == ".h5":
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(50))
    else:
        path.mkdir()
        (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="damaged: it cannot be opened"):
        open_store(path)
    with pytest.raises(StoreError, match=r"ends in \.h5 or \.zarr"):
        (tmp_path / "a.npz").write_bytes(b"")
        open_store(tmp_path / "a.npz")
