"""Ranges of a file on a web server, through the session of fsspec's HTTP file system (aiohttp)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from wsi_pipeline.remote.servers.answer import (
    Answer,
    ChangedError,
    NoRangesError,
    TryAgainError,
    checked,
    size_of,
    tag_of,
)
from wsi_pipeline.remote.servers.http_status import empty, refused, will_pass

CONNECT_SECONDS, READ_SECONDS = 15.0, 60.0
_PART, _WHOLE, _CHANGED, _BEYOND = 206, 200, 412, 416
_AS_IT_IS = {"Accept-Encoding": "identity"}


class HttpServer:
    """One file.

    system    fsspec's HTTP file system
    address   as shown; `secret`: as asked, with its query or password
    """

    def __init__(self, system: Any, address: str, secret: str) -> None:
        self._system, self._address, self._secret = system, address, secret

    def get(self, start: int, stop: int, tag: str = "") -> Answer:
        """See `RangeServer.get`."""
        from fsspec.asyn import sync

        answer: Answer = sync(self._system.loop, self._get, start, stop, tag)
        return answer

    async def _get(self, start: int, stop: int, tag: str) -> Answer:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if tag.startswith('"'):
            headers["If-Match"] = tag
        async with self._asked(headers) as response:
            return await self._answer(response, start, stop, tag)

    @asynccontextmanager
    async def _asked(self, headers: dict[str, str]) -> AsyncIterator[Any]:
        """The server's response. Raises TryAgainError if the connection fails, also while the body reads it."""
        import aiohttp
        import yarl

        session = await self._system.set_session()
        url = yarl.URL(self._secret, encoded="%" in self._secret or "?" in self._secret)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        try:
            async with session.get(url, headers=headers | _AS_IT_IS, timeout=timeout) as response:
                yield response
        except (TimeoutError, aiohttp.ClientError) as error:
            # Messages of these errors may hold the address with its key.
            raise TryAgainError(f"no answer from the server ({type(error).__name__})") from None

    async def _answer(self, response: Any, start: int, stop: int, tag: str) -> Answer:
        status, headers = response.status, response.headers
        if will_pass(status):
            raise TryAgainError(f"HTTP {status}")
        if status == _CHANGED:
            raise ChangedError
        if status == _BEYOND:
            raise ChangedError if start else empty(self._address)
        if status >= 400:
            raise refused(self._address, status)
        if status == _WHOLE:
            response.close()  # the body is the whole file
            raise NoRangesError(int(headers.get("Content-Length", -1)), tag_of(headers))
        if status != _PART:
            raise refused(self._address, status)
        size = size_of(headers, start)
        return checked(await response.read(), size, start, stop, tag_of(headers), tag)

    def whole(self, write: Callable[[bytes], None]) -> str:
        """See `RangeServer.whole`."""
        from fsspec.asyn import sync

        tag: str = sync(self._system.loop, self._whole, write)
        return tag

    async def _whole(self, write: Callable[[bytes], None]) -> str:
        async with self._asked({}) as response:
            if will_pass(response.status):
                raise TryAgainError(f"HTTP {response.status}")
            if response.status >= 400:
                raise refused(self._address, response.status)
            async for piece in response.content.iter_chunked(1 << 20):
                write(piece)
            return tag_of(response.headers)
