"""A cache of its own and short retries for every test of slides at addresses; an S3 server on the loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.slide_files import tissue_like, write_pyramid_tiff
from tests.stages.cohorts import write_cohort
from wsi_pipeline.cli import main

SLIDE = tissue_like(1600, 1300)
KEY, SECRET = "AKIAABCDEFGHIJKLMNOP", "a-secret-key-0123456789"


def make_runs(folder: Path, per_class: int) -> Path:
    """A folder with slides, their table, and two finished runs of them: `hdf5` and `zarr`."""
    table = str(write_cohort(folder, per_class=per_class, broken=False))
    for store in ("hdf5", "zarr"):
        run = ("--run", str(folder / store), "--store", store)
        assert main(["tile", table, "--workers", "0", "--pixels", "jpeg", *run]) == 0
        assert main(["embed", "--model", "colour", *run]) == 0
    return folder


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


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """An S3 server in a thread."""
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A client of a server with the bucket `slides`, which holds `cohort/a.svs`."""
    import boto3
    import s3fs

    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("AWS_CONFIG_FILE", str(tmp_path / "none")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none")),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    client = boto3.client("s3")
    client.create_bucket(Bucket="slides")
    client.upload_file(str(write_pyramid_tiff(tmp_path / "a.svs", SLIDE, mpp=0.5)), "slides", "cohort/a.svs")
    yield client
    for item in client.list_objects_v2(Bucket="slides").get("Contents", []):
        client.delete_object(Bucket="slides", Key=item["Key"])
    client.delete_bucket(Bucket="slides")
    s3fs.S3FileSystem.clear_instance_cache()
