"""Tiles over HTTP. Most requests are for tiles, so these are answered without starlette's routing and threads.

A tile whose bytes are at hand (stored in the slide and in the system's cache, or encoded before) is sent from the
event loop. All others are read or decoded in a thread, so that a slow disk or a large tile holds nobody else up.
"""

from __future__ import annotations

import re

from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp, Receive, Scope, Send

from wsi_pipeline.errors import WsiPipelineError
from wsi_pipeline.viewer.library import Library
from wsi_pipeline.viewer.web.slide_endpoints import FOREVER, SHORTLY, explained

_TILE = re.compile(r"/slides/([^/]+)/tile/([0-9]{1,3})/([0-9]{1,8})_([0-9]{1,8})")
_FOREVER, _SHORTLY = ((b"cache-control", kept["Cache-Control"].encode()) for kept in (FOREVER, SHORTLY))


class TileAnswers:
    """Answers GET requests for tiles of `library`, and passes all others to `app`."""

    def __init__(self, app: ASGIApp, library: Library) -> None:
        self._app, self._library = app, library

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        found = _TILE.fullmatch(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        slide_id, level, column, row = found.groups()
        place = (slide_id, int(level), int(column), int(row))
        try:
            tile = self._library.tile_at_once(*place)
            if tile is None:
                tile = await run_in_threadpool(self._library.tile, *place)
        except WsiPipelineError as error:
            await explained(error)(scope, receive, send)
            return
        headers = [
            (b"content-type", tile.media.encode()),
            (b"content-length", b"%d" % len(tile.data)),
            _FOREVER if scope["query_string"].startswith(b"v=") else _SHORTLY,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": tile.data})
