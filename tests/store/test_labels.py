"""Labels are added to a patch store whole or not at all; bad ones are refused on writing and on reading."""

from __future__ import annotations

import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from wsi_pipeline.errors import StoreError
from wsi_pipeline.store.files import amend_store, open_store
from wsi_pipeline.store.tables.patch_labels import write_labels
from wsi_pipeline.store.tables.patch_table import read_patch_table

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "v1"


def store_copy(folder: Path, suffix: str) -> Path:
    path = folder / f"s{suffix}"
    if suffix == ".h5":
        path.write_bytes((GOLDEN / "patches-jpeg.h5").read_bytes())
    else:
        with zipfile.ZipFile(GOLDEN / "patches-jpeg.zarr.zip") as file:
            file.extractall(path)
    return path


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_labels_are_added_and_replaced_and_all_else_stays(tmp_path: Path, suffix: str) -> None:
    path = store_copy(tmp_path, suffix)
    before = read_patch_table(path)
    assert before.labels is None
    with open_store(path) as store:
        jpegs = store.read_bytes("jpeg")
    values = np.arange(len(before.grid)) % 3 - 1
    for classes in (["tumour", "stroma"], ["Drüse", "Rest"]):
        write_labels(path, values, classes)
        after = read_patch_table(path)
        assert after.labels is not None
        assert after.labels.values.dtype == np.int16
        assert after.labels.values.tolist() == values.tolist()
        assert after.labels.classes == tuple(classes)
        assert (after.header, after.geometry, after.pixels) == (before.header, before.geometry, before.pixels)
        np.testing.assert_array_equal(after.grid.coords, before.grid.coords)
    with open_store(path) as store:
        assert store.read_bytes("jpeg") == jpegs
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".h5", ".zarr"])
def test_a_failed_change_leaves_the_store_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = store_copy(tmp_path, suffix)
    with pytest.raises(RuntimeError), amend_store(path) as writer:
        writer.remove("coords")
        raise RuntimeError
    assert len(read_patch_table(path).grid) > 0


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = store_copy(tmp_path, ".h5")
    count = len(read_patch_table(path).grid)
    for labels, classes, words in (
        (np.zeros(count + 1, int), ["a"], "must be integers"),
        (np.zeros(count), ["a"], "must be integers"),
        (np.full(count, 2), ["a", "b"], "must be -1 or 0 to 1, got 2 to 2"),
        (np.full(count, -2), ["a"], "must be -1"),
        (np.zeros(count, int), ["a", "a"], "unique"),
        (np.zeros(count, int), ["a", " "], "list of names"),
    ):
        with pytest.raises(StoreError, match=words):
            write_labels(path, labels, classes)
    assert read_patch_table(path).labels is None
    with pytest.raises(StoreError, match="is not a wsi-pipeline/patches store"):
        (tmp_path / "f.h5").write_bytes((GOLDEN / "features.h5").read_bytes())
        write_labels(tmp_path / "f.h5", np.zeros(count, int), ["a"])


@pytest.mark.parametrize(
    ("classes", "shift", "words"),
    [
        (None, 0, "lack their classes"),
        ("{", 0, "lack their classes"),
        ('"ab"', 0, "list of names"),
        ('["a"]', 5, "-1 or 0"),
    ],
)
def test_labels_written_elsewhere_are_checked(tmp_path: Path, classes: str | None, shift: int, words: str) -> None:
    path = store_copy(tmp_path, ".h5")
    count = len(read_patch_table(path).grid)
    with h5py.File(path, "r+", locking=False) as file:
        array = file.create_dataset("labels", data=np.full(count, shift, np.int16))
        if classes is not None:
            array.attrs["classes"] = classes
    with pytest.raises(StoreError, match=words):
        read_patch_table(path)
