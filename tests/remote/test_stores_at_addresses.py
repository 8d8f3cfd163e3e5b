"""Stores of a finished run at addresses: read as local copies are, fetched once, refused by name; never written."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import wsi_pipeline as wp
from benchmarks.range_server import RangeServer, serving
from tests.exchange import foreign_files as files
from tests.remote.conftest import make_runs
from wsi_pipeline.cli import main
from wsi_pipeline.errors import DamagedStoreError, StoreError, UsageError
from wsi_pipeline.remote.traffic import traffic
from wsi_pipeline.store.files import open_store
from wsi_pipeline.store.tables.patch_table import read_patch_table

pytest.importorskip("aiohttp", reason="needs the extra: pip install 'wsi-pipeline[remote]'")

QUICK = ("--folds", "2", "--epochs", "2", "--bootstrap", "100", "--allow-few")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides with their table, and two finished runs of them: `hdf5` and `zarr`."""
    return make_runs(tmp_path_factory.mktemp("stores"), 2)


@pytest.fixture
def server(folder: Path) -> Iterator[RangeServer]:
    with serving(folder) as running:
        yield running


STORES = ("hdf5/embed/colour/s0.h5", "zarr/embed/colour/s0.zarr")


@pytest.mark.parametrize("name", STORES)
def test_features_are_those_of_a_local_store(name: str, folder: Path, server: RangeServer) -> None:
    before = traffic()
    remote, local = wp.read_features(f"{server.address}/{name}"), wp.read_features(folder / name)
    assert remote.header == local.header
    np.testing.assert_array_equal(remote.features, local.features)
    np.testing.assert_array_equal(remote.coords, local.coords)
    once = traffic() - before
    wp.read_features(f"{server.address}/{name}")
    again = traffic() - before
    assert again.nbytes - once.nbytes <= 64 << 10, "only the head is read again, to see that it is the same"


@pytest.mark.parametrize("name", ["hdf5/tile/s0.h5", "zarr/tile/s0.zarr"])
def test_patches_with_their_pixels(name: str, folder: Path, server: RangeServer) -> None:
    remote, local = read_patch_table(f"{server.address}/{name}"), read_patch_table(folder / name)
    np.testing.assert_array_equal(remote.grid.coords, local.grid.coords)
    assert (remote.geometry, remote.pixels) == (local.geometry, "jpeg")
    with open_store(f"{server.address}/{name}") as one, open_store(folder / name) as other:
        one.verify()
        assert one.read_bytes("jpeg") == other.read_bytes("jpeg")


@pytest.mark.parametrize("name", STORES)
def test_what_is_not_there_is_named(name: str, server: RangeServer) -> None:
    with pytest.raises(StoreError, match=r"not there \(HTTP 404\): http://127.*nobody"):
        wp.read_features(f"{server.address}/{name.replace('s0', 'nobody')}")


def test_a_lost_shard_is_found(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / STORES[1], tmp_path / "served" / "s0.zarr")
    shard = next(path for path in (tmp_path / "served" / "s0.zarr" / "features" / "c").rglob("*") if path.is_file())
    shard.unlink()
    with serving(tmp_path / "served") as server, pytest.raises(DamagedStoreError, match="features does not match"):
        wp.read_features(f"{server.address}/s0.zarr")


@pytest.mark.parametrize(
    ("array", "old", "new"),
    [
        ("", '\\"features\\"', '\\"../../features\\"'),
        ("features", '"separator": "/"', '"separator": "/../../"'),
        ("features", '"shape"', '"form"'),
        ("features", '"chunk_shape"', '"chunk_shape": [0, 0], "was"'),
    ],
)
def test_metadata_that_are_not_ours_are_refused_and_write_nothing(
    array: str, old: str, new: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names in them become names of files of this machine."""
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(folder / STORES[1], tmp_path / "served" / "s0.zarr")
    metadata = tmp_path / "served" / "s0.zarr" / array / "zarr.json"
    text = metadata.read_text()
    assert old in text
    metadata.write_text(text.replace(old, new, 1))
    with serving(tmp_path / "served") as server, pytest.raises(StoreError, match="not a store of wsi-pipeline: http"):
        wp.read_features(f"{server.address}/s0.zarr")
    assert not [path for path in tmp_path.rglob("features*") if "served" not in path.parts and path.suffix != ".json"]


def test_training_on_features_at_an_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Files of another tool, named after the slides of the table; one of them is not there."""
    served = tmp_path / "served" / "features_uni_v1"
    for number in range(8):
        rows = files.features_of(9 + number, 8, number, signal=4.0 * (number % 2))
        files.trident(served / f"s{number}.h5", rows[None], files.coords_of(9 + number)[None])
    labels = files.labels_csv(tmp_path / "labels.csv", [(f"p{k}", f"s{k}.svs", "ab"[k % 2]) for k in range(9)])
    words = ["train-mil", "--labels", str(labels), "--encoder", "uni_v1", *QUICK]
    with serving(tmp_path / "served") as server:
        for name, source in (("remote", f"{server.address}/features_uni_v1"), ("local", str(served))):
            assert main([*words, "--features-from", source, "--run", str(tmp_path / name)]) in (0, 3)
            if name == "remote":
                assert "1 slide without a file at http://127" in capsys.readouterr().out
    one, other = (tmp_path / name / "train-mil/uni_v1/gated-abmil/predictions.csv" for name in ("remote", "local"))
    assert one.read_bytes() == other.read_bytes()


def test_a_folder_at_an_address_needs_a_table(server: RangeServer, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["import", "features", f"{server.address}/hdf5/embed/colour", "--run", "nowhere"]) == 2
    assert "folders at an address are not searched: http://127" in capsys.readouterr().err


def test_nothing_is_written_to_an_address(
    folder: Path, server: RangeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (["tile", str(folder / "slides.csv")], ["embed", "--model", "colour"], ["status"]):
        assert main([*words, "--run", f"{server.address}/run"]) == 2
        assert "--run must be a folder of this machine, got http://127" in capsys.readouterr().err
    with pytest.raises(UsageError):
        wp.open_run(f"{server.address}/run")
    assert server.requests == 0
