"""Shared fixtures: where the real slides are, when they are here at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from wsi_pipeline.system.machine import prepare_process

prepare_process()  # as the command line does
# Test processes share the cores, and their networks are tiny: with two threads each, tests of training take twice as
# long. Before torch is imported, for the processes that tests start as well.
os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]

# A machine under load is slow, which is no fault of what is tested.
settings.register_profile("no deadline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no deadline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of whole workflows first: they take a minute, which one process would spend alone at the end."""
    items.sort(key=lambda item: item.path.parent.name != "workflows")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real slides and images (WSI_PIPELINE_DATA); skips where it is absent."""
    folder = Path(os.environ.get("WSI_PIPELINE_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "slides").is_dir():
        pytest.skip("real data not here: set WSI_PIPELINE_DATA to the folder that holds slides/, derived/, broken/")
    return folder
