"""Imports and exports killed half-way, and two imports at once into one run: the result is that of one calm run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.torture.compare import differences, left_over
from benchmarks.torture.together import made_twice
from tests.conftest import ROOT
from tests.exchange import foreign_files as files
from tests.exchange.small_run import small_run
from wsi_pipeline.cli import main

SLIDES, LONGEST = 24, 240.0


def begin(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """`wsi-pipeline words` in a process group of its own."""
    words = [sys.executable, "-m", "wsi_pipeline", *words]
    return subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def kill_half_way(words: Sequence[str], made: Callable[[], int]) -> None:
    """Start a command and SIGKILL it once a quarter of its slides is there; fails where it was not at work then."""
    process, deadline = begin(words), time.monotonic() + LONGEST
    while made() < SLIDES // 4:
        assert process.poll() is None, (process.stderr.read() if process.stderr else b"").decode()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert made() < SLIDES


def stores_in(folder: Path, pattern: str) -> Callable[[], int]:
    return lambda: len(list(folder.glob(pattern)))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words that import slides of TRIDENT, but for the run folder."""
    folder = tmp_path_factory.mktemp("features")
    names = [f"s{k}" for k in range(SLIDES)]
    for number, name in enumerate(names):
        rows = files.features_of(400, 256, number)
        files.trident(folder / "features_uni_v1" / f"{name}.h5", rows, files.coords_of(400, 2))
    table = files.labels_csv(folder / "labels.csv", [(f"p{k}", name, "ab"[k % 2]) for k, name in enumerate(names)])
    return ["import", "features", str(folder / "features_uni_v1"), "--labels", str(table), "--run"]


@pytest.fixture(scope="module")
def calm(features: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one undisturbed import."""
    run = tmp_path_factory.mktemp("calm") / "run"
    assert main([*features, str(run)]) == 0
    return run


def test_an_import_killed_half_way_goes_on_to_the_same_bytes(features: list[str], calm: Path, tmp_path: Path) -> None:
    rough = tmp_path / "rough"
    kill_half_way([*features, str(rough)], stores_in(rough / "embed/uni_v1", "*.h5"))
    assert main([*features, str(rough)]) == 0
    assert len(list((rough / "embed/uni_v1").glob("*.h5"))) == SLIDES
    assert differences(calm, rough) == []


def test_two_imports_at_once_share_the_slides(features: list[str], calm: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    both = [begin([*features, str(shared)]) for _ in range(2)]
    assert [process.wait(LONGEST) for process in both] == [0, 0], [p.stderr.read() for p in both if p.stderr]
    assert made_twice(shared) == {}
    assert differences(calm, shared) == []


@pytest.mark.parametrize(("to", "made"), [("stamp", "features/*.h5"), ("anndata", "*.h5ad")])
def test_an_export_killed_half_way_goes_on_to_the_same_bytes(to: str, made: str, tmp_path: Path) -> None:
    run = small_run(tmp_path / "run", slides=SLIDES)
    calm, rough = tmp_path / "calm", tmp_path / "rough"
    words = ["export", "--to", to, "--run", str(run), "--out"]
    assert main([*words, str(calm)]) == 0
    kill_half_way([*words, str(rough)], stores_in(rough, made))
    assert main([*words, str(rough)]) == 0
    names = {path.relative_to(folder) for folder in (calm, rough) for path in folder.rglob("*") if path.is_file()}
    assert {name for name in names if content(calm, name) != content(rough, name)} == set()
    assert left_over(rough) == []


def content(folder: Path, name: Path) -> bytes | None:
    """The bytes of a file, where the folder is called the same in both; None where it is missing."""
    path = folder / name
    return path.read_bytes().replace(str(folder).encode(), b"EXPORT") if path.is_file() else None
