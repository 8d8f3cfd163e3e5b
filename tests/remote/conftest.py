"""A cache of its own and short retries for every test of slides at addresses."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the cache."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WSI_PIPELINE_CACHE", str(folder))
    monkeypatch.setenv("WSI_PIPELINE_RETRY_SECONDS", "20")
    monkeypatch.setattr("wsi_pipeline.remote.retry._given_up", {})  # ports of other tests may come back
    for name in ("WSI_PIPELINE_CACHE_GB", "WSI_PIPELINE_WHOLE_GB", "WSI_PIPELINE_SIGNED_URLS"):
        monkeypatch.delenv(name, raising=False)
    return folder
