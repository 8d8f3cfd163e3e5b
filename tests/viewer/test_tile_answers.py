"""Tiles at hand are sent from the event loop; nothing that waits for a disk, a decoder or another thread is."""

from __future__ import annotations

import errno
import http.client
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from tests.slide_files import tissue_like, write_pyramid_tiff
from wsi_pipeline.viewer.deep_zoom import JPEG, DeepZoom, Tile
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.app import make_app
from wsi_pipeline.viewer.web.serve import serve_in_thread
from wsi_pipeline.viewer.web.viewer import Viewer

PLACES = [(0, 0, 0), (1, 0, 0), (1, 3, 1), (1, 4, 0), (1, 4, 2)]
"""Level, column, row: coarse, whole, whole, cut at the right, the corner."""


@pytest.fixture
def library(tmp_path: Path) -> Iterator[Library]:
    made = Library.of_files([write_pyramid_tiff(tmp_path / "a.svs", tissue_like(1100, 700), mpp=0.25)])
    yield made
    made.close()


def test_a_tile_at_hand_is_the_tile(library: Library) -> None:
    assert library.tile_at_once("a", 1, 0, 0) is None, "the slide is not open yet"
    first = [library.tile("a", *place) for place in PLACES]
    again = [library.tile_at_once("a", *place) for place in PLACES]
    assert again == first, "stored tiles from the system's cache, encoded ones from ours"
    assert library.cache.held == sum(len(tile.data) for tile in (first[0], *first[3:])), "stored tiles are not kept"
    assert library.tile_at_once("a", 1, 2, 2) is None, "the lower edge has to be decoded"
    assert [library.tile_at_once("a", *place) for place in ((9, 0, 0), (1, 99, 0))] == [None, None]


def test_where_the_system_cannot_tell_tiles_come_from_threads(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = library.tile("a", 1, 0, 0)
    for problem in (OSError(errno.EOPNOTSUPP, "not here"), BlockingIOError()):

        def refuse(*_: object, problem: OSError = problem) -> int:
            raise problem

        monkeypatch.setattr(os, "preadv", refuse)
        assert library.tile_at_once("a", 1, 0, 0) is None
        assert library.tile("a", 1, 0, 0) == truth
    monkeypatch.setattr(os, "preadv", lambda *_: 100)
    assert library.tile_at_once("a", 1, 0, 0) is None, "only its beginning is in memory"
    monkeypatch.delattr(os, "RWF_NOWAIT")
    assert library.tile_at_once("a", 1, 0, 0) is None


def test_a_slow_tile_and_a_slow_slide_hold_nobody_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.tile("a", 1, 0, 0)
    server, address = serve_in_thread(Viewer(library))
    begun, go_on, whole = threading.Event(), threading.Event(), DeepZoom.tile

    def slow(self: DeepZoom, level: int, column: int, row: int) -> Tile:
        begun.set()
        assert go_on.wait(60)
        return whole(self, level, column, row)

    monkeypatch.setattr(DeepZoom, "tile", slow)
    answers: list[int] = []

    def get(place: str) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", address.port, timeout=60)
        connection.request("GET", f"{urlsplit(address.url).path}slides/a/tile/{place}")
        return connection.getresponse().status

    waiting = threading.Thread(target=lambda: answers.append(get("0/0_0")))
    waiting.start()
    try:
        assert begun.wait(60)
        assert get("1/0_0") == 200
        assert answers == []
    finally:
        go_on.set()
        waiting.join(60)
        server.should_exit = True
    assert answers == [200]


def test_headers_of_tiles(library: Library) -> None:
    base = "http://127.0.0.1:8765/of-the-tests/"
    client = TestClient(make_app(Viewer(library), "of-the-tests"), base_url=base, raise_server_exceptions=False)
    for _ in range(2):
        answer = client.get("slides/a/tile/1/0_0?v=1")
        assert answer.headers["content-type"] == JPEG
        assert "immutable" in answer.headers["cache-control"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert "content-security-policy" in answer.headers
    assert client.get("slides/a/tile/9/0_0").json()["error"].startswith("no level 9")
    assert client.get("slides/x/tile/0/0_0").status_code == 404
    assert client.post("slides/a/tile/1/0_0", json={}).status_code in (404, 405)
