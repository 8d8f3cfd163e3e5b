"""Importing coordinates of patches: what is read, how it is checked with the slide, and why some is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.exchange import foreign_files as files
from tests.exchange.importing import imported, slide
from wsi_pipeline.cli import main
from wsi_pipeline.stages.inputs.slide_bags import same_rows
from wsi_pipeline.store.tables.feature_table import read_feature_table
from wsi_pipeline.store.tables.patch_table import read_patch_table

IDS = ("s1", "s2", "s3")
X, XY = files.features_of(10), files.coords_of(10)
AFAR = XY.copy()
AFAR[7] = (5000, 0)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_patches_of_trident_clam_and_hs2p_are_checked_with_the_slide_and_embedded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("s1", "s2", "s3", "s4"):
        slide(name)
    files.trident_coords(Path("coords/s1_patches.h5"), XY)
    files.clam_coords(Path("coords/s2.h5"), XY)
    files.hs2p(Path("coords"), "s3", XY)
    files.trident_coords(Path("coords/s4_patches.h5"), AFAR)
    said = imported("patches", "coords", "--slides", "slides", code=3, capsys=capsys)
    assert "1 of 10 patches of s4_patches.h5 lie off the slide" in said
    tables = {name: read_patch_table(Path("wsi-run/tile", f"{name}.h5")) for name in IDS}
    sides = {name: (table.geometry.patch_px, table.geometry.patch_level0) for name, table in tables.items()}
    assert sides == {"s1": (64, 128), "s2": (128, 128), "s3": (64, 128)}
    assert {round(table.geometry.mpp, 6) for table in (tables["s1"], tables["s3"])} == {1.0}
    assert all(np.array_equal(table.grid.coords, XY) for table in tables.values())
    assert np.allclose(tables["s3"].grid.coverage, np.linspace(0.5, 1, 10))
    assert np.isnan(tables["s1"].grid.coverage).all()
    assert main(["embed", "--model", "colour"]) == 3  # s4 has failed
    table = read_feature_table(Path("wsi-run/embed/colour/s1.h5"))
    assert np.array_equal(table.coords, XY)
    assert same_rows(Path("wsi-run/tile/s1.h5"), Path("wsi-run/embed/colour/s1.h5"))


def test_features_with_coordinates_and_sizes_are_patches_too() -> None:
    """TRIDENT's features, STAMP's in micrometres, and a file of AtlasPatch with features of two encoders."""
    for name in IDS:
        slide(name)
    files.trident(Path("coords/s1.h5"), X, XY)
    files.stamp(Path("coords/s2.h5"), X, XY * 0.5)
    files.atlas_patch(Path("coords/s3.h5"), {"uni_v1": X, "resnet50": X[:, :4]}, XY)
    imported("patches", "coords", "--slides", "slides")
    for name in IDS:
        table = read_patch_table(Path("wsi-run/tile", f"{name}.h5"))
        assert np.array_equal(table.grid.coords, XY), name
        assert (table.geometry.patch_px, table.geometry.patch_level0) == (64, 128), name


def unsized() -> None:
    for name in ("s1", "s2"):
        files.clam(Path("feats"), name, X, XY)


def without_coordinates() -> None:
    Path("feats").mkdir()
    np.save("feats/s1.npy", X)


def parquet_without_pyarrow() -> None:
    files.lazyslide(Path("feats/s1.zarr"), X, np.arange(10))
    Path("feats/s1.zarr/shapes/tiles").mkdir(parents=True)
    Path("feats/s1.zarr/shapes/tiles/shapes.parquet").write_bytes(b"PAR1")


def no_tools() -> None:
    Path("feats").mkdir()


@pytest.mark.parametrize(
    ("make", "why", "todo"),
    [
        (unsized, "2 files in feats hold coordinates, but not the size of the patches: s1.h5, s2.h5", "patches/"),
        (without_coordinates, "1 file in feats holds features without coordinates", "patches/"),
        (parquet_without_pyarrow, "1 file in feats holds features without coordinates: its coordinates are in a "
         "Parquet file", "patches/"),
        (no_tools, "no patch coordinates in feats", "TRIDENT, CLAM, STAMP"),
    ],
)  # fmt: skip
def test_patches_that_cannot_be_imported_are_refused_by_what_is_missing(
    make: Any, why: str, todo: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wsi_pipeline.exchange.readers.wsidata_zarr._pyarrow", lambda: None)
    make()
    slide("s1")
    said = imported("patches", "feats", "--slides", "slides", code=2, capsys=capsys)
    assert why in said
    assert todo in said


def test_a_file_without_the_size_of_patches_beside_others_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("s1", "s2"):
        slide(name)
    files.trident_coords(Path("coords/s1_patches.h5"), XY)
    files.clam(Path("coords"), "s2", X, XY)
    Path("coords/pt_files/s2.pt").unlink()
    said = imported("patches", "coords", "--slides", "slides", code=3, capsys=capsys)
    assert "s2.h5 holds features without the size of its patches" in said
    assert "matched 2 of 2 slides in slides have a file, 1 of them not usable" in " ".join(said.split())


def test_patches_of_another_resolution_than_stated_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    slide("s1", mpp=0.25)
    files.hs2p(Path("coords"), "s1", XY)
    said = imported("patches", "coords", "--slides", "slides", code=2, capsys=capsys)
    assert "have 0.5 micrometres per pixel on this slide, but their file states 1" in said
