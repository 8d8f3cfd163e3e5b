"""Slides in Google Cloud Storage: a small server of the two answers of its JSON interface that are used."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.errors import MissingSlideError, SlideError
from wsi_pipeline.slides.open import open_slide

gcsfs = pytest.importorskip("gcsfs", reason="needs the extra: pip install 'wsi-pipeline[remote]'")

SLIDE = tissue_like(1600, 1300)
OBJECT = "/download/storage/v1/b/slides/o/cohort/a.svs"


class _Bucket(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.path, self.generation, self.status = path, 1, 206


class _Handler(BaseHTTPRequestHandler):
    server: _Bucket

    def log_message(self, *args: object) -> None:
        """Nothing on the terminal."""

    def do_GET(self) -> None:
        """The object, in ranges."""
        there = unquote(self.path.partition("?")[0]) == OBJECT
        status = self.server.status if there else 404
        data = self.server.path.read_bytes()
        first, last = (int(part) for part in self.headers["Range"].removeprefix("bytes=").split("-"))
        body = data[first : last + 1] if status == 206 else b"{}"
        self.send_response(status)
        self.send_header("Content-Range", f"bytes {first}-{first + len(body) - 1}/{len(data)}")
        self.send_header("X-Goog-Generation", str(self.server.generation))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Bucket]:
    """The bucket `slides` with `cohort/a.svs`."""
    server = _Bucket(write_pyramid_tiff(tmp_path / "a.svs", SLIDE, mpp=0.5))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    gcsfs.GCSFileSystem.clear_instance_cache()
    yield server
    gcsfs.GCSFileSystem.clear_instance_cache()
    server.shutdown()
    server.server_close()


def test_it_reads_as_a_local_copy_does(bucket: _Bucket) -> None:
    with open_slide("gs://slides/cohort/a.svs") as remote, open_slide(bucket.path) as local:
        assert remote.info == local.info
        np.testing.assert_array_equal(
            remote.read_region(300, 200, 0, 700, 500), local.read_region(300, 200, 0, 700, 500)
        )


def test_another_generation_is_a_change(bucket: _Bucket) -> None:
    with open_slide("gs://slides/cohort/a.svs") as slide:
        bucket.generation = 2
        with pytest.raises(SlideError, match="the slide changed while it was read"):
            slide.read_region(600, 600, 0, 700, 500)


def test_refusals(bucket: _Bucket) -> None:
    with pytest.raises(MissingSlideError, match=r"not there \(HTTP 404\): gs://slides/cohort/b.svs"):
        open_slide("gs://slides/cohort/b.svs")
    bucket.status = 403
    with pytest.raises(SlideError, match=r"access denied \(HTTP 403\): gs://slides/cohort/a.svs"):
        open_slide("gs://slides/cohort/a.svs")
