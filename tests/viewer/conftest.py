"""A small run with features and a trained model, served in the process of the tests."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from tests.browser import CHROMIUM, Browser
from tests.stages.cohorts import write_cohort
from tests.viewer.pages import Own
from wsi_pipeline.cli import main
from wsi_pipeline.cohort.run_dir import RunDir
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.app import make_app
from wsi_pipeline.viewer.web.viewer import Viewer

TOKEN = "token-of-the-tests"


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six slides (one blank, one broken) with `colour` features and a small model. Do not write to it."""
    folder = tmp_path_factory.mktemp("viewed")
    csv, run = write_cohort(folder / "slides"), str(folder / "wsi-run")
    tile = ["tile", str(csv), "--patch-px", "128", "--workers", "1"]
    train = ["train-mil", "--folds", "2", "--epochs", "3", "--allow-few", "--bootstrap", "100", "--model", "abmil"]
    for words, code in ((tile, 3), (["embed", "--model", "colour"], 3), (train, 0)):
        assert main([*words, "--run", run, "--quiet"]) == code, words
    return Path(run)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium; tests that use it are skipped without one."""
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with Browser(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.fixture
def browser(chromium: Browser) -> Browser:
    """The same on an empty page: what the last test's page said after its server had gone is no problem of this one."""
    chromium.open("about:blank")
    del chromium.problems[:], chromium.requests[:]
    return chromium


@pytest.fixture
def server(run: RunDir) -> Iterator[Own]:
    """The viewer of that copy, served to a browser."""
    made = Own(run)
    yield made
    made.kill()


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> RunDir:
    """A copy of the run that a test may write to."""
    shutil.copytree(made_run, tmp_path / "wsi-run")
    return RunDir(tmp_path / "wsi-run")


@pytest.fixture
def viewer(run: RunDir) -> Iterator[Viewer]:
    """The viewer of that copy."""
    made = Viewer(Library.of_run(run))
    yield made
    made.library.close()


@pytest.fixture
def client(viewer: Viewer) -> TestClient:
    """Requests to it, below its token."""
    return TestClient(
        make_app(viewer, TOKEN), base_url=f"http://127.0.0.1:8765/{TOKEN}/", raise_server_exceptions=False
    )
