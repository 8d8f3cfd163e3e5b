"""Files of other tools are known by their bytes, and read to the rows and sizes that were written."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import zarr
from safetensors.numpy import save_file

from tests.exchange import foreign_files as files
from wsi_pipeline.exchange.readers.find_files import find_files
from wsi_pipeline.exchange.readers.foreign_file import ForeignFile

X, XY = files.features_of(13), files.coords_of(13)


def only(path: Path) -> ForeignFile:
    found = find_files([path])
    assert not found.unreadable
    (file,) = [*found.features, *found.coordinates]
    return file


def known(file: ForeignFile) -> dict[str, Any]:
    return file.stated.known()


def rows_of(file: ForeignFile) -> Any:
    assert file.features is not None
    return np.asarray(file.features())


def places_of(file: ForeignFile) -> Any:
    assert file.coords is not None
    return np.asarray(file.coords())


SIZES = {
    "patch_px": 64, "patch_level0": 128, "overlap_px": 0, "slide_magnification": 20.0, "slide_width": 1200,
    "slide_height": 900, "unit": "level0",
}  # fmt: skip


@pytest.mark.parametrize("shape", [X.shape, (1, *X.shape)])
def test_trident(tmp_path: Path, shape: tuple[int, ...]) -> None:
    file = only(files.trident(tmp_path / "s1.h5", X.reshape(shape), XY.reshape(*shape[:-1], 2)))
    assert (file.name, file.rows, file.dim, file.dtype) == ("s1", 13, 8, "float32")
    assert known(file) == {**SIZES, "tool": "TRIDENT", "encoder": "uni_v1", "magnification": 10.0}
    assert np.array_equal(rows_of(file).reshape(X.shape), X)
    assert np.array_equal(places_of(file), XY)


def test_the_encoder_of_trident_is_its_folder_where_the_file_says_none(tmp_path: Path) -> None:
    file = only(files.trident(tmp_path / "features_conch_v15" / "s1.h5", X, XY, encoder=None))
    assert (file.stated.encoder, file.named_by) == ("conch_v15", "folder")


def test_slides_without_patches_of_trident(tmp_path: Path) -> None:
    """It saves float32 (0,) where it does not know the encoder's width."""
    file = only(files.trident(tmp_path / "s1.h5", np.zeros(0, np.float32), np.zeros((0, 2), np.int64)))
    assert (file.rows, file.dim, places_of(file).shape) == (0, 0, (0, 2))


def test_clam_is_one_file_of_each_kind(tmp_path: Path) -> None:
    files.clam(tmp_path, "s1", X, XY)
    h5, pt = find_files([tmp_path]).features
    assert (known(h5), known(pt)["tool"]) == ({"tool": "CLAM layout", "unit": "level0"}, ".pt file")
    assert np.array_equal(places_of(h5), XY)
    assert pt.coords is None
    assert np.array_equal(rows_of(pt), rows_of(h5))


@pytest.mark.parametrize(("level", "downsample", "side", "size"), [(0, 1.0, 128, 1200), (1, 4.0, 512, None)])
def test_coordinates_of_clam(tmp_path: Path, level: int, downsample: float, side: int, size: int | None) -> None:
    file = only(files.clam_coords(tmp_path / "s1.h5", XY, level=level, downsample=downsample))
    assert (file.stated.patch_px, file.stated.patch_level0, file.stated.slide_width) == (128, side, size)
    assert np.array_equal(places_of(file), XY)


def test_stamp_counts_micrometres(tmp_path: Path) -> None:
    file = only(files.stamp(tmp_path / "s1.h5", X, XY * 0.5))
    assert known(file) == {
        "tool": "STAMP", "version": "2.5.0", "encoder": "mahmood-uni", "patch_px": 64, "mpp": 1.0,
        "unit": "micrometres", "patch_um": 64.0,
    }  # fmt: skip
    assert file.dtype == "float16"
    assert np.array_equal(places_of(file), XY * 0.5)


def test_stamp_before_2_1_names_the_side_otherwise(tmp_path: Path) -> None:
    file = only(files.stamp(tmp_path / "s1.h5", X, XY * 0.5, tile_size_um=None, tile_size=64.0))
    assert (file.stated.patch_um, file.stated.unit) == (64.0, "micrometres")


def test_old_stamp_counts_224_for_256_micrometres(tmp_path: Path) -> None:
    none = dict.fromkeys(("stamp_version", "unit", "tile_size_um", "tile_size_px", "code_hash", "feat_type"))
    file = only(files.stamp(tmp_path / "s1.h5", X, files.coords_of(13, 224), **none))
    assert file.stated.patch_um == 256.0
    assert np.allclose(places_of(file), files.coords_of(13, 256))


def test_atlas_patch_has_features_of_several_encoders_in_a_file(tmp_path: Path) -> None:
    files.atlas_patch(tmp_path / "s1.h5", {"uni_v1": X, "resnet50": X[:, :4]}, XY)
    found = find_files([tmp_path]).features
    assert [(file.stated.encoder, file.dim) for file in found] == [("resnet50", 4), ("uni_v1", 8)]
    assert known(found[1]) == {
        **SIZES, "tool": "AtlasPatch", "encoder": "uni_v1", "magnification": 10.0, "slide_mpp": 0.5,
    }  # fmt: skip
    assert np.array_equal(places_of(found[1]), XY)


def test_hs2p(tmp_path: Path) -> None:
    files.hs2p(tmp_path, "s1", XY)
    file = only(tmp_path)
    sizes = {key: value for key, value in SIZES.items() if key != "slide_magnification"}
    assert known(file) == {**sizes, "tool": "hs2p", "mpp": 1.0, "slide_mpp": 0.5}
    assert np.array_equal(places_of(file), XY)
    assert file.coverage is not None
    assert np.allclose(file.coverage(), np.linspace(0.5, 1, 13))


def test_lazyslide_without_pyarrow_has_features_and_says_why_no_coordinates(tmp_path: Path) -> None:
    files.lazyslide(tmp_path / "s1.zarr", X, np.arange(13))
    (tmp_path / "s1.zarr" / "shapes" / "tiles").mkdir(parents=True)
    (tmp_path / "s1.zarr" / "shapes" / "tiles" / "shapes.parquet").write_bytes(b"PAR1")
    file = only(tmp_path)
    assert known(file) == {**SIZES, "tool": "LazySlide", "encoder": "uni", "mpp": 1.0, "slide_mpp": 0.5}
    assert np.array_equal(rows_of(file), X)
    assert (file.coords is None) == ("pyarrow" in file.note)


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_a_table_added_after_consolidation_is_found(tmp_path: Path) -> None:
    files.lazyslide(tmp_path / "s1.zarr", X, np.arange(13))
    tables = tmp_path / "s1.zarr" / "tables"
    tables.rename(tmp_path / "later")
    (tmp_path / "s1.zarr" / "tables").mkdir()
    (tmp_path / "s1.zarr" / "tables" / "zarr.json").write_bytes((tmp_path / "later" / "zarr.json").read_bytes())
    zarr.consolidate_metadata(str(tmp_path / "s1.zarr"), zarr_format=3)
    shutil.rmtree(tmp_path / "s1.zarr" / "tables")
    (tmp_path / "later").rename(tables)
    assert np.array_equal(rows_of(only(tmp_path)), X)


def test_coordinates_of_lazyslide_belong_to_rows_by_their_tile_id(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    order = np.random.default_rng(1).permutation(13)
    files.lazyslide(tmp_path / "s1.zarr", X, order)
    place = tmp_path / "s1.zarr" / "shapes" / "tiles"
    place.mkdir(parents=True)
    parquet.write_table(
        pyarrow.table({"tile_id": np.arange(13), "x": XY[:, 0], "y": XY[:, 1]}), place / "shapes.parquet"
    )
    assert np.array_equal(places_of(only(tmp_path)), XY[order])


def write_npz(path: Path) -> None:
    np.savez(path.with_suffix(".npz"), features=X, coords=XY)


def write_pt(path: Path) -> None:
    torch.save({"features": torch.from_numpy(X), "coords": torch.from_numpy(XY)}, path.with_suffix(".pt"))


def write_old_pt(path: Path) -> None:
    torch.save({"feats": torch.from_numpy(X)}, path.with_suffix(".pt"), _use_new_zipfile_serialization=False)


def write_bfloat16(path: Path) -> None:
    torch.save(torch.from_numpy(X).bfloat16().float().bfloat16(), path.with_suffix(".pt"))


def write_numpy_pt(path: Path) -> None:
    """As TRIDENT's extract_patch_features does with saveas="pt"."""
    torch.save(X, path.with_suffix(".pt"))


def write_safetensors(path: Path) -> None:
    save_file({"features": X, "coords": XY}, path.with_suffix(".safetensors"))


def write_npy(path: Path) -> None:
    np.save(path.with_suffix(".npy"), X)


@pytest.mark.parametrize(
    ("write", "placed"),
    [(write_npy, False), (write_npz, True), (write_pt, True), (write_old_pt, False), (write_bfloat16, False),
     (write_numpy_pt, False),      (write_safetensors, True)],
)  # fmt: skip
def test_plain_arrays(tmp_path: Path, write: Callable[[Path], None], placed: bool) -> None:
    write(tmp_path / "s1")
    file = only(tmp_path)
    assert (file.name, file.rows, file.dim) == ("s1", 13, 8)
    assert np.allclose(rows_of(file), X, atol=0 if write is not write_bfloat16 else 0.02)
    assert (file.coords is not None) == placed
    assert not placed or np.array_equal(places_of(file), XY)


class Loud:
    """Says so where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("a pickle was opened",)


def pickled_pt(path: Path) -> None:
    torch.save({"features": Loud()}, path)


def pickled_old(path: Path) -> None:
    path.write_bytes(pickle.dumps({"features": Loud()}))


def pickled_npy(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.array([Loud()], dtype=object), allow_pickle=True)


def pickled_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, features=np.array([Loud()], dtype=object))


def cut_short(path: Path) -> None:
    files.trident(path, X, XY)
    path.write_bytes(path.read_bytes()[:900])


def of_a_slide(path: Path) -> None:
    files.trident(path, X[0], XY)


def whole_numbers(path: Path) -> None:
    files.trident(path, X.astype(np.int64), XY)


def of_a_patient(path: Path) -> None:
    files.stamp(path, X, XY, feat_type="patient")


def elsewhere(path: Path) -> None:
    files.trident(path.with_name("hidden"), X, XY).rename(path.with_name(".hidden"))
    with h5py.File(path, "w") as file:
        file["features"] = h5py.ExternalLink(".hidden", "/features")


def far_too_large(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("features", (1 << 24, 1024), "float32", chunks=(64, 1024))
        file.create_dataset("coords", (1 << 24, 2), "int64", chunks=(64, 2))


@pytest.mark.parametrize(
    ("name", "write", "why"),
    [
        ("s1.pt", pickled_pt, "pickled Python objects, which are never loaded"),
        ("s1.pt", pickled_old, "pickled Python objects, which are never loaded"),
        ("s1.npy", pickled_npy, "pickled Python objects, which are never loaded"),
        ("s1.npz", pickled_npz, "pickled Python objects, which are never loaded"),
        ("s1.h5", cut_short, "s1.h5 cannot be read"),
        ("s1.h5", of_a_slide, "one vector of 8 values: an embedding of the whole slide"),
        ("s1.h5", of_a_patient, "features of a whole patient, not of patches"),
        ("s1.h5", whole_numbers, "features of s1.h5 is int64: expected floating point features"),
        ("s1.h5", elsewhere, "holds neither features nor coordinates"),
        ("s1.h5", far_too_large, "but the file holds far less"),
        ("s1.h5", lambda path: path.write_text("no HDF5"), "not what its suffix says"),
    ],
)  # fmt: skip
def test_what_is_not_read_is_named(tmp_path: Path, name: str, write: Callable[[Path], None], why: str) -> None:
    write(tmp_path / name)
    found = find_files([tmp_path])
    assert not found.features
    assert not found.coordinates
    (error,) = found.unreadable.values()
    assert why in error.what
    assert error.todo


def test_other_files_of_a_folder_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "_logs_feats.txt").write_text("done")
    (tmp_path / "_config_feats.json").write_text("{}")
    (tmp_path / "s1.jpg").write_bytes(b"\xff\xd8\xff")
    files.trident(tmp_path / "features_uni_v1" / "s1.h5", X, XY)
    found = find_files([tmp_path])
    assert ([file.name for file in found.features], found.unreadable) == (["s1"], {})
