"""A small demo cohort, and the run that the commands of docs/python.md make of it."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from tests.api.pages import PYTHON_PAGE, blocks
from wsi_pipeline.cli import main
from wsi_pipeline.demo.demo_cohort import make_cohort


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with demo/ (slides of the demo, but six small ones) and wsi-run/."""
    folder = tmp_path_factory.mktemp("face")
    make_cohort(folder / "demo", slides=6, sides=(700, 900))
    (commands,) = blocks(PYTHON_PAGE, "sh")
    first, *others = [shlex.split(line)[1:] for line in commands.splitlines()]
    assert first == ["demo", "demo"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert [main([*words, "--quiet"]) for words in others] == [3, 3, 0]  # the corrupt slide fails
    return folder
