"""Slides in S3: a server that speaks its protocol on the loopback, with keys, buckets and versions of objects."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.remote.conftest import SECRET, SLIDE
from tests.slide_files import write_pyramid_tiff
from wsi_pipeline.errors import MissingSlideError, SlideError
from wsi_pipeline.files.addresses import slide_path
from wsi_pipeline.remote.traffic import traffic
from wsi_pipeline.slides.inspect.identity import quick_digest
from wsi_pipeline.slides.open import open_slide

pytest.importorskip("s3fs", reason="needs the extra: pip install 'wsi-pipeline[remote]'")
pytest.importorskip("moto.server", reason="needs moto[s3], flask and flask-cors (extra dev)")


@pytest.mark.usefixtures("bucket")
def test_it_reads_as_a_local_copy_does(tmp_path: Path) -> None:
    before = traffic()
    with open_slide("s3://slides/cohort/a.svs") as remote, open_slide(tmp_path / "a.svs") as local:
        opened = traffic() - before
        assert remote.info == local.info
        np.testing.assert_array_equal(
            remote.read_region(300, 200, 0, 700, 500), local.read_region(300, 200, 0, 700, 500)
        )
    assert 0 < opened.nbytes < (tmp_path / "a.svs").stat().st_size / 3
    assert quick_digest(slide_path("s3://slides/cohort/a.svs")) == quick_digest(tmp_path / "a.svs")


def test_an_object_that_changes_is_named(bucket: Any, tmp_path: Path) -> None:
    with open_slide("s3://slides/cohort/a.svs") as slide:
        bucket.upload_file(str(write_pyramid_tiff(tmp_path / "n.svs", 255 - SLIDE, mpp=0.5)), "slides", "cohort/a.svs")
        with pytest.raises(SlideError, match="the slide changed while it was read: s3:"):
            slide.read_region(600, 600, 0, 700, 500)


@pytest.mark.usefixtures("bucket")
def test_what_is_not_there() -> None:
    for address in ("s3://slides/cohort/b.svs", "s3://no-such-bucket/a.svs"):
        with pytest.raises(MissingSlideError, match=rf"not there \(HTTP 404\): {address}"):
            open_slide(address)


@pytest.mark.usefixtures("bucket")
def test_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(SlideError, match=r"no key for s3://slides/cohort/a.svs \(NoCredentialsError\)") as caught:
        open_slide("s3://slides/cohort/a.svs")
    assert "FSSPEC_S3_ANON=true" in (caught.value.todo or "")


def test_a_wrong_key(endpoint: str, bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is told to check keys; ours is not known to it."""
    import requests

    assert bucket
    requests.post(f"{endpoint}/moto-api/reset-auth", data="0", timeout=10)
    try:
        with pytest.raises(SlideError, match=r"access denied \(HTTP 403\): s3://slides/cohort/a.svs") as caught:
            open_slide("s3://slides/cohort/a.svs")
    finally:
        requests.post(f"{endpoint}/moto-api/reset-auth", data="1000000", timeout=10)
    assert SECRET not in str(caught.value)
    assert "AWS_PROFILE" in (caught.value.todo or "")


@pytest.mark.usefixtures("bucket")
def test_a_cohort_in_workers(tmp_path: Path) -> None:
    table = tmp_path / "slides.csv"
    table.write_text("path\ns3://slides/cohort/a.svs\ns3://slides/cohort/gone.svs\n")
    run = tmp_path / "run"
    shown = ""
    for words in (["tile", str(table), "--workers", "2"], ["embed", "--model", "colour"]):
        # Commands of their own: the server that workers are forked from keeps the variables it was started with.
        command = [sys.executable, "-m", "wsi_pipeline", *words, "--run", str(run)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 3, ended.stderr
        shown += ended.stdout
    assert re.search(r"read [\d.]+ [kM]B in \d+ requests.*, of 1 slide at addresses", shown)
    log = (run / "logs" / "run.log").read_text()
    for stage in ("segment", "embed/colour"):
        assert re.search(rf"a: {stage} made, done \([\d.]+ [kM]B in \d+ requests", log), stage
    assert "not there (HTTP 404): s3://slides/cohort/gone.svs" in shown
    assert (run / "embed" / "colour" / "a.h5").is_file()
    assert "s3://slides/cohort/a.svs" in (run / "cohort.csv").read_text()
    assert not [path for path in run.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
