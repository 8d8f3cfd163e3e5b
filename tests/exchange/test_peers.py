"""Exports opened by the tools they are for, as far as these install from PyPI beside this package.

The same functions as run by hand (benchmarks/exchange): only the run is smaller and the training shorter.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.exchange.with_anndata import read_anndata
from benchmarks.exchange.with_torchmil import read_trident, train
from tests.exchange.small_run import DIM, NAMES, small_run
from wsi_pipeline.cli import main
from wsi_pipeline.store.tables.feature_table import read_feature_table


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_run(tmp_path_factory.mktemp("peers") / "wsi-run", signal=0.7)


def exported(run: Path, to: str) -> Path:
    folder = run.parent / to
    assert main(["export", "--to", to, "--run", str(run), "--out", str(folder)]) == 0
    return folder


def test_torchmil_trains_on_the_export(run: Path) -> None:
    right, bags = train(exported(run, "torchmil"), epochs=15)
    assert bags == len(NAMES)
    assert right == bags


def test_torchmil_reads_the_trident_layout(run: Path) -> None:
    data = read_trident(exported(run, "trident"))
    assert sorted(data.get_bag_names()) == list(NAMES)
    for number, name in enumerate(data.get_bag_names()):
        stored = read_feature_table(run / "embed" / "colour" / f"{name}.h5").features
        np.testing.assert_array_equal(data[number]["X"].numpy(), stored.astype(np.float32))
        assert int(data[number]["Y"].item()) == NAMES.index(name) % 2


def test_anndata_opens_the_export_with_equal_values(run: Path) -> None:
    together = read_anndata(exported(run, "anndata"), exported(run, "csv"))
    stored = [read_feature_table(run / "embed" / "colour" / f"{name}.h5").features for name in (*NAMES, "blank")]
    assert together.shape == (sum(map(len, stored)), DIM)
    for name, expected in zip(NAMES, stored[: len(NAMES)], strict=True):
        rows = (together.obs["slide_id"] == name).to_numpy(bool)
        np.testing.assert_array_equal(together.X[rows], expected.astype(np.float32))
