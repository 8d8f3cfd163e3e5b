"""Ranges of an object in S3 or a server that speaks its protocol, through s3fs (aiobotocore)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from wsi_pipeline.errors import SlideError
from wsi_pipeline.remote.servers.answer import Answer, ChangedError, NoRangesError, TryAgainError, checked, size_of
from wsi_pipeline.remote.servers.http_status import empty, no_key, refused, will_pass

_CHANGED, _BEYOND = 412, 416


class S3Server:
    """One object; `system` is s3fs's file system."""

    def __init__(self, system: Any, address: str) -> None:
        self._system, self._address = system, address
        self._bucket, _, self._key = address.removeprefix("s3://").partition("/")

    def get(self, start: int, stop: int, tag: str = "") -> Answer:
        """See `RangeServer.get`."""
        from fsspec.asyn import sync

        answer: Answer = sync(self._system.loop, self._get, start, stop, tag)
        return answer

    async def _get(self, start: int, stop: int, tag: str) -> Answer:
        import aiohttp
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.exceptions import ConnectionError as NotConnectedError

        asked = {"Bucket": self._bucket, "Key": self._key, "Range": f"bytes={start}-{stop - 1}"}
        if tag.startswith('"'):
            asked["IfMatch"] = tag
        try:
            await self._system.set_session()
            client = await self._system.get_s3(self._bucket)
            response = await client.get_object(**asked)
            async with response["Body"] as body:
                data = await body.read()
        except ClientError as error:
            raise self._refusal(error, start) from None
        except (TimeoutError, HTTPClientError, NotConnectedError, aiohttp.ClientError, OSError) as error:
            raise TryAgainError(f"no answer from the server ({type(error).__name__})") from None
        except BotoCoreError as error:  # no credentials, an unknown profile: nothing that waiting changes
            raise no_key(self._address, type(error).__name__) from None
        found = {"Content-Range": str(response.get("ContentRange", ""))}
        if not found["Content-Range"]:
            raise SlideError(
                f"the server does not send parts of files: {self._address}", todo="Copy the slide here first."
            )
        return checked(data, size_of(found, start), start, stop, str(response.get("ETag", "")), tag)

    def _refusal(self, error: Any, start: int) -> Exception:
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 400))
        code = str(error.response.get("Error", {}).get("Code", ""))
        if status == _CHANGED:
            return ChangedError()
        if status == _BEYOND:
            return ChangedError() if start else empty(self._address)
        if will_pass(status) or code in ("SlowDown", "RequestTimeout", "RequestTimeTooSkewed"):
            return TryAgainError(f"HTTP {status} {code}")
        return refused(self._address, status)

    def whole(self, write: Callable[[bytes], None]) -> str:
        """Never needed: these servers send ranges."""
        raise NoRangesError(-1, "")
